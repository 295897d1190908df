"""The experiment file as a whole: where it is found, `--set` on top of it, its folders, and what identifies a run."""

import json
import pickle
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from search.experiment import available_spaces, load_experiment
from search.experiment.loading import spaces_folder
from search.experiment.overrides import override
from search.experiment.yaml_lines import read_document
from search.types import InputError, SpecError

BASE = """\
name: base
task: {kind: denoise, sigma: 15, data: photos}
space:
  width: [8, 16]
  levels: [1, 2]
  encoder_blocks: {1: [1, 2], 2: 3}
  attention: [none, window]
  window_size: [4, 8]
budget:
  params_m: 1
  macs_g: {max: 2, at: [320, 240]}
  latency_ms:
    max: 30
    at: [96, 64]
proxy: {rungs: [10, 20]}
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def told(path, *overrides):
    with pytest.raises(InputError) as caught:
        load_experiment(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("given", ["smoke", "smoke.yaml", "spaces/smoke.yaml"])
def test_a_shipped_space_is_found_by_name_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_experiment(given).name == "smoke"


def test_a_file_here_goes_before_a_shipped_one_of_that_name(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base.rename("smoke.yaml")
    assert load_experiment("smoke.yaml").name == "base"
    assert load_experiment("smoke").name == "smoke"


def test_a_shipped_space_is_not_found_in_folders_where_it_is_not(tmp_path):
    assert told(tmp_path / "smoke.yaml").startswith(f"{tmp_path / 'smoke.yaml'}: no such experiment file.")


def test_the_shipped_spaces_are_those_in_the_folder():
    assert available_spaces() == ("denoise", "efficient", "mixed", "quality", "smoke")
    assert {path.stem for path in spaces_folder().glob("*.yaml")} == set(available_spaces())


def test_the_source_is_the_file_as_the_user_named_it():
    assert load_experiment("smoke").source == "smoke"


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("search.trials=7", lambda e: e.search.trials == 7),
        ("proxy.rungs=[5, 50]", lambda e: e.proxy.rungs == (5, 50)),
        ("proxy={rungs: [5], keep: 0.25}", lambda e: (e.proxy.rungs, e.proxy.keep) == ((5,), 0.25)),
        ("space.width=[24]", lambda e: e.space["width"].choices == (24,)),
        ("space.expansion=2.66", lambda e: e.space["expansion"].choices == (2.66,)),
        ("space.width={min: 8, max: 12, step: 2}", lambda e: e.space["width"].choices == (8, 10, 12)),
        ("space.encoder_blocks.2=[1, 4]", lambda e: e.space["encoder_blocks.2"].choices == (1, 4)),
        ("objectives=[ssim, params_m]", lambda e: e.objectives == ("ssim", "params_m")),
        ("execution.workers=2", lambda e: e.execution.workers == 2),
        ("task.sigma=50", lambda e: e.task.options() == {"sigma": 50.0}),
        ("name=other", lambda e: e.name == "other"),
        (" search . trials = 7", lambda e: e.search.trials == 7),
    ],
)
def test_an_assignment_replaces_what_the_file_says(base, assignment, read):
    assert not read(load_experiment(base))
    assert read(load_experiment(base, [assignment]))


def test_an_assignment_to_one_level_leaves_the_others(base):
    space = load_experiment(base, ["space.encoder_blocks.2=[1, 4]"]).space
    assert space["encoder_blocks.1"].choices == (1, 2)


def test_the_later_of_two_assignments_counts(base):
    assert load_experiment(base, ["search.trials=7", "search.trials=9"]).search.trials == 9


def test_a_bare_number_for_a_limit_keeps_the_size_it_holds_for(base):
    budget = load_experiment(base, ["budget.latency_ms=20", "budget.macs_g=1"]).budget
    assert (budget.latency_ms.max, str(budget.latency_at)) == (20, "96x64")
    assert (budget.macs_g.max, str(budget.macs_at)) == (1, "320x240")


def test_a_whole_limit_replaces_the_size_too(base):
    budget = load_experiment(base, ["budget.latency_ms={max: 20}"]).budget
    assert (budget.latency_ms.max, str(budget.latency_at)) == (20, "160x160")


def test_a_size_can_be_added_to_a_limit_that_was_a_bare_number(base):
    budget = load_experiment(base, ["budget.macs_g=3", "budget.macs_g.at=[64,64]"]).budget
    assert (budget.macs_g.max, str(budget.macs_at)) == (3, "64x64")
    fresh = load_experiment(base, ["budget.macs_g=", "budget.macs_g=3", "budget.macs_g.at=[64,64]"]).budget
    assert fresh == budget


def test_an_assignment_of_nothing_removes_the_key(base):
    without = load_experiment(base, ["space.attention=none", "space.window_size="])
    assert without.space["attention"].choices == ("none",)
    assert "window_size" not in {parameter.name for parameter in without.space.parameters}
    assert load_experiment(base, ["budget.latency_ms.max="]).budget.limits().keys() == {"params_m", "macs_g"}


def test_what_is_set_leaves_the_document_below_as_it_was(base):
    below, untouched = read_document(base), read_document(base)
    above = override(below, ["space.width=[64]", "budget.latency_ms=1", "space.window_size=", "task.data.folder=x"])
    assert below == untouched
    assert above.data != below.data
    assert above.origins != below.origins


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("search.trials=0", "search.trials: 0 is too small.\n  Candidates to train"),
        ("search.trails=9", "search.trails: unknown key.\n  Did you mean trials?"),
        ("serach.trials=9", "serach: unknown key.\n  Did you mean search?"),
        ("space.width=[16, 17]", "space.width: 17 is not possible.\n  It takes even numbers"),
        ("space.widht=16", "space.widht: unknown dimension.\n  Did you mean width?"),
        ("budget.latency_ms=-1", "budget.latency_ms.max: -1 is too small.\n  A limit is"),
        ("budget.latency_ms=fast", 'budget.latency_ms.max: "fast" is not a number.\n  A limit is'),
        ("budget.latency_ms.at=[64]", "budget.latency_ms.at: [64] has too few entries.\n"),
        ("proxy.rungs.0=5", "proxy.rungs is [10, 20], which has no keys.\n  Assign to proxy.rungs as a whole."),
        ("search.trials", "an assignment is written section.key=value.\n  For instance: --set proxy.rungs=[100,400]"),
        ("=3", "an assignment is written section.key=value.\n  For instance"),
        ("search..trials=3", "an assignment is written section.key=value.\n  For instance"),
        ("proxy.rungs=[1", "not valid YAML: expected ',' or ']', but got '<stream end>'.\n  Check"),
        ("proxy.rungs={a: }", "a: has no value.\n  Write a value"),
        ("search.trails=", "search.trails is not in the file, so it cannot be removed.\n  Write a value after"),
        ("space.windw_size=", "space.windw_size is not in the file, so it cannot be removed.\n  Did you mean window_"),
        ("task.data.train=x", "task.data: {train} is no data set.\n  Write `embedded`"),
    ],
)
def test_a_wrong_assignment_is_named_as_the_source_of_its_fault(base, assignment, message):
    assert told(base, assignment).startswith(f"--set {assignment}: {message}")


def test_a_fault_of_the_file_keeps_its_line_whatever_is_set(base):
    base.write_text(BASE.replace("at: [96, 64]", "at: [96, 4]"))
    assert told(base, "budget.latency_ms=20").startswith(f"{base}:14: budget.latency_ms.at: 4 is too small.")


def test_a_dimension_that_an_assignment_makes_idle_is_told_with_the_way_to_remove_it(base):
    message = told(base, "space.attention=none")
    assert message.startswith(f"{base}:8: space.window_size: can never count, for attention is always none.")
    assert message.endswith("or remove window_size too (--set space.window_size=).")


def test_all_that_one_value_makes_idle_is_told_at_once():
    with pytest.raises(SpecError) as refusal:
        load_experiment("efficient", ["space.frequency_split=false"])
    message = str(refusal.value)
    assert "space.refiner: can never count, for frequency_split is always false; nor can refiner_depth." in message
    assert message.endswith("or remove refiner, refiner_depth too (--set space.refiner= --set space.refiner_depth=).")
    removed = ["space.refiner=", "space.refiner_depth="]
    assert load_experiment("efficient", ["space.frequency_split=false", *removed]).space.size > 1


def test_folders_in_the_file_are_relative_to_the_file(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    assert load_experiment(base).task.data.folder == str(tmp_path / "photos")
    assert load_experiment(base.relative_to(Path.cwd())).task.data.folder == str(tmp_path / "photos")


@pytest.mark.parametrize(
    "assignment",
    ["task.data=mine", "task.data.folder=mine", "task.data={folder: mine}", "task={kind: denoise, data: mine}"],
)
def test_folders_that_are_set_are_relative_to_the_current_folder(base, tmp_path, monkeypatch, assignment):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_experiment(base, [assignment]).task.data.folder == str(elsewhere / "mine")


def test_a_pair_of_folders_can_come_from_both_places(base, tmp_path, monkeypatch):
    base.write_text(BASE.replace("data: photos", "data: {train: a, validation: ../b}"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    data = load_experiment(base, ["task.data.train=mine"]).task.data
    assert (data.train, data.validation) == (str(elsewhere / "mine"), str(tmp_path.parent / "b"))


def test_the_embedded_photographs_are_no_folder(base):
    experiment = load_experiment(base, ["task.data=embedded"])
    assert experiment.task.data.folder == "embedded"
    assert experiment.evaluation_plan().task.folders == (("folder", "embedded"),)


def test_an_absolute_folder_and_the_home_folder_stay_what_they_are(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert load_experiment(base, [f"task.data={tmp_path}/x"]).task.data.folder == str(tmp_path / "x")
    assert load_experiment(base, ["task.data=~/x"]).task.data.folder == str(tmp_path / "home" / "x")


def test_the_plan_tells_workers_what_the_file_says(base):
    plan = load_experiment(base, ["search.seed=5", "budget.threads=3", "proxy.loss=l1"]).evaluation_plan()
    assert (plan.task.kind, plan.task.options, plan.task.upscale, plan.task.seed) == (
        "denoise",
        (("sigma", 15.0),),
        1,
        5,
    )
    assert (str(plan.cost.macs_at), str(plan.cost.latency_at), plan.cost.threads) == ("320x240", "96x64", 3)
    assert dict(plan.cost.limits) == {"params_m": 1.0, "macs_g": 2.0, "latency_ms": 30.0}
    assert (plan.proxy.rungs, plan.proxy.loss, plan.proxy.data_seed) == ((10, 20), "l1", 5)


@pytest.mark.parametrize(
    "assignment",
    [
        "name=other",
        "search.trials=99",
        "execution.workers=2",
        "space.decoder_blocks=1",
        "budget.params_m={max: 1.0}",
        "search.generation=12",
        "budget.latency_ms.runtime=torch",
        "budget.latency_ms.device=cpu",
    ],
)
def test_the_identity_stays_where_the_meaning_of_a_trial_does(base, assignment):
    assert load_experiment(base, [assignment]).identity == load_experiment(base).identity


@pytest.mark.parametrize(
    "assignment",
    [
        "search.seed=1",
        "search.sampler=random",
        "search.generation=6",
        "space.width=[8, 24]",
        "space.width=[16, 8]",
        "space.decoder_blocks=2",
        "budget.params_m=2",
        "budget.latency_ms=20",
        "budget.latency_ms.at=[96, 96]",
        "budget.latency_ms.runtime=onnxruntime",
        "budget.latency_ms.device=cuda:1",
        "budget.threads=2",
        "objectives=[psnr_db, macs_g]",
        "proxy.rungs=[10, 30]",
        "proxy.keep=0.4",
        "proxy.loss=l1",
        "task.sigma=16",
        "task.channels=1",
    ],
)
def test_the_identity_changes_with_all_that_a_trial_depends_on(base, assignment):
    assert load_experiment(base, [assignment]).identity != load_experiment(base).identity


def test_the_folder_of_the_photographs_is_part_of_the_earlier_identity_only(base):
    here, there = load_experiment(base), load_experiment(base, ["task.data=embedded"])
    assert there.identity == here.identity
    assert there.earlier_identity != here.earlier_identity


def test_the_order_of_keys_does_not_matter_to_the_identity(base):
    before = load_experiment(base).identity
    head, space, tail = BASE.partition("  width: [8, 16]\n  levels: [1, 2]\n")
    base.write_text(head + "  levels: [1, 2]\n  width: [8, 16]\n" + tail)
    assert space
    assert load_experiment(base).identity == before


@pytest.mark.parametrize("name", ["base", *available_spaces()])
def test_the_spec_is_plain_json_and_is_itself_an_experiment_file(name, base, tmp_path, monkeypatch):
    overrides = [
        "search.seed=3",
        "budget.latency_ms=20",
        "proxy.learning_rate=0.00001",
        "space.width={min: 32, max: 64, step: 16}",
    ]
    original = load_experiment(base if name == "base" else name, overrides)
    assert json.loads(json.dumps(original.spec)) == original.spec
    elsewhere = tmp_path / "results"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with Path("as_json.yaml").open("w") as file:
        json.dump(original.spec, file)
    with Path("as_yaml.yaml").open("w") as file:
        YAML(typ="safe").dump(original.spec, file)
    for copy in ("as_json.yaml", "as_yaml.yaml"):
        again = load_experiment(copy)
        assert again.identity == original.identity
        assert again.spec == original.spec
        assert again.space == original.space
        assert again.evaluation_plan() == original.evaluation_plan()


def test_the_space_of_the_spec_stays_as_written(base):
    spec = load_experiment(base, ["space.width={min: 8, max: 16, step: 4}"]).spec
    assert spec["space"] == {
        "width": {"min": 8, "max": 16, "step": 4},
        "levels": [1, 2],
        "encoder_blocks": {"1": [1, 2], "2": 3},
        "attention": ["none", "window"],
        "window_size": [4, 8],
    }


def test_the_spec_holds_every_default_that_a_trial_depends_on(base):
    spec = load_experiment(base, ["task.sigma="]).spec
    assert spec["task"] == {
        "kind": "denoise",
        "sigma": 25.0,
        "channels": 3,
        "data": {"folder": str(base.parent / "photos")},
    }
    assert spec["budget"] == {
        "params_m": {"max": 1.0},
        "macs_g": {"max": 2.0, "at": [320, 240]},
        "latency_ms": {"max": 30.0, "at": [96, 64], "runtime": "torch", "device": "cpu"},
        "peak_mem_mib": {},
        "threads": 1,
    }
    assert spec["search"] == {
        "sampler": "auto",
        "trials": 48,
        "seed": 0,
        "generation": 12,
        "enqueue": [],
        "replicates": 0,
    }
    assert spec["proxy"]["learning_rate"] == 0.004
    assert spec["execution"] == {"workers": "auto", "engine": "pool", "timeout_s": "auto", "asynchronous": False}


def test_yaml_of_many_hands_is_read_alike(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "\ufeffname: 2024-01-01\ntask: {kind: denoise}\nspace:\n  frequency_split: &on true\n"
        "  mixer: large_kernel\n  reparam: *on\n  levels: 2\n  encoder_blocks: {'1': 1, 2: 0x2}\n"
        "proxy: {learning_rate: 4e-3}\n",
        encoding="utf-8",
    )
    experiment = load_experiment(path)
    assert experiment.name == "2024-01-01"
    assert experiment.space["reparam"].choices == (True,)
    assert experiment.space["encoder_blocks.2"].choices == (2,)
    assert experiment.proxy.learning_rate == 0.004


def test_faults_cross_process_borders_whole(base):
    with pytest.raises(SpecError) as caught:
        load_experiment(base, ["search.trials=0"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.source) == (str(caught.value), "--set search.trials=0")
