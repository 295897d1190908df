"""Wrong experiment files: each has one fault, and each is told in two lines that a person can act on."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from search.experiment import load_experiment
from search.experiment.schema import json_schema
from search.experiment.yaml_lines import read_document
from search.types import InputError, SpecError

WRONG = Path(__file__).parents[1] / "assets" / "wrong"
SCHEMA = Draft202012Validator(json_schema())
SECTIONS = "An experiment file has sections: name, task, space,"
RULES = {
    "range": "A range is written {min: 1, max: 4, step: 1}",
    "name": "It names the results' folder: letters and digits",
    "objectives": "Name at least one quality (psnr_db, ssim) and one cost (latency_ms,",
    "limit": "A limit is a number > 0",
    "at": "[width, height] of the network's input, 8..16384 pixels each.",
}

# file, line, the problem (in full), words of the remedy
EXPECTED = (
    # keys
    ("unknown-section", 4, "serach: unknown key.", "Did you mean search?"),
    ("unknown-dimension", 4, "space.widht: unknown dimension.", "Did you mean width?"),
    ("unknown-key-in-section", 6, "search.sede: unknown key.", "Did you mean seed?"),
    ("missing-task", 1, "task is missing.", "Add it. What is done to photographs, and which"),
    ("missing-name", 1, "name is missing.", RULES["name"]),
    (
        "missing-kind",
        2,
        "task.kind is missing.",
        "super_resolution, denoise, poisson, deblur, motion_blur, defocus, jpeg or mixed.",
    ),
    ("key-twice", 6, "width stands twice.", "Keep one of the two."),
    ("no-value", 5, "budget.params_m: has no value.", "Write a value, or remove the key"),
    # types
    ("text-for-number", 5, 'proxy.batch: "eight" is not a whole number.', "1..4096."),
    ("quoted-number", 5, 'search.trials: "48" is not a whole number.', "1..1000000"),
    ("float-for-whole-number", 4, "proxy.patch_px: 32.5 is not a whole number.", "8..1024 pixels."),
    ("list-for-scalar", 4, "proxy.keep: [0.5, 0.4] is not a number.", "0 < keep <= 1."),
    ("scalar-for-list", 4, "proxy.rungs: 100 is not a list.", "whole numbers >= 1, rising."),
    ("text-in-rungs", 7, 'proxy.rungs: "many" is not a whole number.', "whole numbers >= 1, rising."),
    ("bool-for-whole-number", 4, "search.generation: true is not a whole number.", "1..10000."),
    ("scalar-for-section", 4, "proxy: 100 has no keys.", "Write its keys below it: rungs, keep, batch,"),
    ("list-for-space", 3, 'space: ["width", "levels"] has no keys.', "space: {width: [16, 32], …}."),
    ("text-in-choices", 6, 'space.width: "wide" is not a whole number.', "even numbers of channels, 4..256."),
    ("float-in-whole-choices", 4, "space.width: 24.5 is not a whole number.", "even numbers of channels"),
    ("bool-for-block-count", 4, "space.bottleneck_blocks: true is not a whole number.", "It takes 0..16 blocks"),
    ("number-for-switch", 4, "space.frequency_split: 0 is not true or false.", "It takes true or false."),
    ("tagged-value", 4, "space.width: holds something else than text, numbers, lists and keys.", "Write a value"),
    # choices
    ("empty-choices", 4, "space.width: names no choices.", "Name at least one: even numbers of channels"),
    ("odd-width", 5, "space.width: 17 is not possible.", "It takes even numbers of channels, 4..256."),
    ("even-kernel", 5, "space.kernel_size: 4 is not possible.", "It takes odd sides in pixels, 3..13."),
    (
        "unknown-mixer",
        4,
        "space.mixer: large_kernl is not possible.",
        "Did you mean large_kernel? It takes naf, large_kernel or",
    ),
    ("unknown-stage", 5, "space.attention_stages: enc4 is not possible.", "stages joined by '+': enc1, enc2,"),
    ("duplicate-choice", 7, "space.width: 16 stands twice.", "Name each value once."),
    ("same-number-twice", 4, "space.expansion: 2.0 stands twice.", "Name each value once."),
    # references
    ("unknown-reference", 6, 'references: "fsrcn" is not possible.', "Did you mean fsrcnn?"),
    ("unknown-key-in-reference", 5, "references.arg: unknown key.", "Did you mean args?"),
    ("reference-twice", 4, "references: two are called fsrcnn.", "Give each a name of its own"),
    ("reference-to-nothing", 5, "references: names neither a network nor a module.", "Write one of them: network ("),
    ("reference-to-two", 5, "references: names both a network and a module.", "or module (package.mod:Net)."),
    ("reference-without-factory", 5, 'references.module: "nets.Net" is not a legal name.', "package.module:Factory"),
    ("path-of-built-in", 5, "references.path: belongs to a module, not to a built-in network.", "Remove it."),
    ("scalar-for-references", 4, 'references: "fsrcnn" is not a list.', "Networks to compare with, a list: fsrcnn,"),
    ("number-for-reference", 5, "references: 3 has no keys.", "name, network, module, args, path."),
    # conditions
    (
        "window-without-attention",
        5,
        "space.window_size: can never count, for attention is always none.",
        "only where attention is window. Allow that in space.attention, or remove window_size.",
    ),
    (
        "top-k-without-experts",
        5,
        "space.top_k: can never count, for num_experts is always 1.",
        "only where num_experts is more than 1. Allow that in space.num_experts, or remove top_k.",
    ),
    (
        "refiner-without-split",
        5,
        "space.refiner: can never count, for frequency_split is always false.",
        "only where frequency_split is true. Allow that in space.frequency_split, or remove refiner.",
    ),
    ("when-unknown-dimension", 6, "space.attention.when.level: unknown dimension.", "Did you mean levels?"),
    ("when-impossible-value", 8, "space.attention.when.levels: levels is never 3.", "space.levels takes 1, 2"),
    ("when-cannot-be-off", 5, "space.width.when: width cannot be switched off.", "it fits attention, num_experts,"),
    (
        "when-looks-ahead",
        7,
        "space.attention.when.num_experts: num_experts is decided after attention.",
        "A condition looks at one of width, levels,",
    ),
    (
        "when-by-level",
        5,
        "space.attention.when.encoder_blocks: encoder_blocks is decided level by level, so it is not one value.",
        "A condition looks at one of width, levels,",
    ),
    (
        "when-without-condition",
        4,
        'space.attention.when: "levels" is no condition.',
        "Write when: {other_dimension: [values]}.",
    ),
    (
        "when-exclude-each-other",
        6,
        "space.refiner: can never count: its conditions ask for values of levels that exclude each other.",
        "All conditions must hold at once",
    ),
    # ranges, long form, levels
    ("range-without-max", 4, "space.width: the range has no max.", RULES["range"]),
    ("range-without-step", 4, "space.expansion: the range has no step.", "whole numbers may leave the step out."),
    ("range-upside-down", 5, "space.bottleneck_blocks.min: a range from 4 to 2 by 1 holds nothing.", "min <= max"),
    ("range-over-odd-numbers", 4, "space.width: 17 is not possible.", "even numbers"),
    ("range-of-words", 4, "space.mixer: only numbers can have a range.", "List choices: naf, large_kernel or dense."),
    (
        "range-of-a-million",
        4,
        "space.expansion: a range from 1.0 to 2.0 by 1e-06 holds 1000001 values.",
        "At most 1000 are possible",
    ),
    ("long-form-with-other-key", 4, "space.attention.if: unknown key.", "{choices: […], when: "),
    ("level-missing", 5, "space.encoder_blocks: level 2 is missing.", "one entry for each level, 1 to 2"),
    ("level-too-deep", 8, "space.encoder_blocks.3: there is no level 3.", "one entry for each level, 1 to 2"),
    # task
    ("illegal-name", 1, 'name: "my first run" is not a legal name.', RULES["name"]),
    ("number-for-name", 1, "name: 12 is not text.", 'Put it in quotes: "12".'),
    ("unknown-kind", 2, 'task.kind: "superresolution" is not possible.', "Did you mean super_resolution?"),
    (
        "option-of-another-task",
        4,
        "task.sigma: belongs to denoise and mixed, not to super_resolution.",
        "Remove it; super_resolution takes upscale.",
    ),
    (
        "option-not-of-mixed",
        4,
        "task.noise_sigma: belongs to deblur, motion_blur and defocus, not to mixed.",
        "Remove it; mixed takes sigma, blur_sigma_px, quality, peak, length_px, angle_deg, radius_px and members.",
    ),
    ("member-unknown", 4, 'task.members: "defocs" is not possible.', "Did you mean defocus? mixed: two or more of"),
    ("member-twice", 4, "task.members: [denoise, denoise] names one of them twice.", "Name each member once."),
    ("member-alone", 4, 'task.members: ["denoise"] has too few entries.', "mixed: two or more of texture, denoise,"),
    (
        "option-of-no-member",
        4,
        "task.peak: belongs to the member poisson, which is not mixed in.",
        "Remove it, or write members: [texture, denoise, deblur, artifact, poisson].",
    ),
    ("angle-of-a-full-turn", 4, "task.angle_deg: 360 is too large.", "degrees, -180..180, from the x axis"),
    ("no-photons", 2, "task.peak: 0 is too small.", "0.1..1000000 (default 30)."),
    ("upscale-five", 2, "task.upscale: 5 is too large.", "enlargement, 2, 3 or 4"),
    ("two-channels", 2, "task.channels: 2 is not possible.", "1 (luma) or 3 (colour)."),
    ("half-a-data-set", 4, "task.data: {train} is no data set.", "Write `embedded`, a folder, {train, validation},"),
    ("layout-without-root", 4, "task.data: {layout} is no data set.", "or {layout, root}."),
    ("unknown-layout", 4, 'task.data.layout: "div2" is not possible.', "Did you mean div2k? The layout is"),
    ("empty-data", 2, 'task.data: "" is empty.', "`embedded`, or a folder of photographs (split"),
    # budget
    ("limit-of-nothing", 5, "budget.params_m: 0 is too small.", RULES["limit"]),
    ("negative-limit", 4, "budget.latency_ms.max: -5 is too small.", RULES["limit"]),
    ("text-for-limit", 4, 'budget.macs_g: "8G" is not a number.', RULES["limit"]),
    ("infinite-limit", 4, "budget.macs_g: .inf is not a number.", RULES["limit"]),
    ("at-with-one-number", 4, "budget.macs_g.at: [640] has too few entries.", RULES["at"]),
    ("at-with-three-numbers", 7, "budget.latency_ms.at: [640, 360, 3] has too many entries.", RULES["at"]),
    ("at-as-one-word", 4, 'budget.latency_ms.at: "640x360" is not a list.', RULES["at"]),
    ("at-of-parameters", 4, "budget.params_m.at: parameters have no input size.", "Remove `at`."),
    ("unknown-runtime", 4, 'budget.latency_ms.runtime: "tensorrt" is not possible.', "torch (eager), compile"),
    (
        "unknown-device",
        4,
        'budget.latency_ms.device: "gpu" is not a legal name.',
        "cpu, or a CUDA device by its number",
    ),
    (
        "onnx-on-cuda",
        4,
        "budget.latency_ms.device: cuda:0 and runtime onnxruntime do not go together.",
        "ONNX Runtime is timed on cpu.",
    ),
    ("runtime-of-macs", 4, "budget.macs_g.runtime: unknown key.", "Known keys are max, at."),
    # objectives, proxy, search, execution
    ("unknown-objective", 4, 'objectives: "psnr" is not possible.', "Did you mean psnr_db?"),
    ("objectives-without-cost", 4, "objectives: [psnr_db, ssim] names no cost.", RULES["objectives"]),
    ("objectives-without-quality", 4, "objectives: [latency_ms, macs_g] names no quality.", RULES["objectives"]),
    ("objective-twice", 4, "objectives: [psnr_db, macs_g, macs_g] names one of them twice.", "each once."),
    ("no-objectives", 4, "objectives: [] names no quality.", RULES["objectives"]),
    ("rungs-fall", 6, "proxy.rungs: [400, 100] does not rise.", "Write steps in rising order, each once."),
    ("no-rungs", 4, "proxy.rungs: [] has too few entries.", "whole numbers >= 1, rising."),
    ("unknown-loss", 4, 'proxy.loss: "charbonier" is not possible.', "Did you mean charbonnier?"),
    (
        "supervision-without-labels",
        4,
        "proxy.routing_supervision: 0.1 asks for the degradation of each patch, which task denoise does not tell.",
        "Only task mixed, its degradations made here, has labels",
    ),
    (
        "supervision-of-pairs",
        7,
        "proxy.routing_supervision: 0.1 asks for the degradation of each patch, "
        "which pairs given as files do not tell.",
        "Only task mixed, its degradations made here, has labels",
    ),
    (
        "condition-without-labels",
        5,
        "space.expert_condition: true asks for the degradation of each image, which task denoise does not tell.",
        "Only task mixed, its degradations made here, has labels",
    ),
    ("supervision-of-two", 4, "proxy.routing_supervision: 2 is too large.", "degradation, 0..1; mixed tasks only."),
    ("keep-nothing", 4, "proxy.keep: 0 is too small.", "0 < keep <= 1."),
    ("unknown-ranking", 4, 'proxy.rank_by: "extrapolate" is not possible.', "Did you mean extrapolated?"),
    ("extrapolated-by-nothing", 6, "proxy.rank_by: extrapolated needs a predictor.", "Name its file"),
    (
        "extrapolated-ssim",
        5,
        "proxy.rank_by: extrapolated expects a PSNR, which is not the one quality among the objectives.",
        "Let objectives name psnr_db and not ssim, or choose within_strata.",
    ),
    ("predictor-of-nothing", 4, 'proxy.predictor: "" is empty.', "the file predictor.json of a calibration"),
    ("no-trials", 4, "search.trials: 0 is too small.", "Candidates to train, 1..1000000"),
    ("time-of-nothing", 4, 'search.time: "soon" is not a number.', "seconds > 0, or 90s, 10m, 2h."),
    ("steps-in-parts", 4, 'search.steps: "1.5k" is not a whole number.', "or 100k, 2M."),
    ("no-patience", 4, "search.patience: 0 is too small.", "without a growth of the dominated volume, 1..1000000."),
    (
        "screening-by-nothing",
        4,
        'search.screening.score: "ntk" is not possible.',
        "The score is synflow, naswot or grad_norm",
    ),
    (
        "screening-of-one",
        4,
        "search.screening.of: 1 is too small.",
        "within the budget one is trained, 2..1000.",
    ),
    ("screening-without-a-score", 4, "search.screening.score is missing.", "The score is synflow, naswot or grad_norm"),
    ("negative-replicates", 4, "search.replicates: -1 is too small.", "until their order is clear, 0..100."),
    ("enqueue-unknown-parameter", 7, "search.enqueue.widht: unknown parameter.", "Did you mean width?"),
    ("enqueue-outside", 6, "search.enqueue.width: width = 24 is not among its choices.", "the nearest is 16."),
    ("enqueue-missing-value", 5, "search.enqueue: bottleneck_blocks has no value.", "Choose from 0, 1."),
    ("enqueue-idle", 5, "search.enqueue.kernel_size: does not count in this configuration.", "Leave it out."),
    (
        "enqueue-no-preset",
        5,
        "search.enqueue.preset: there is no preset balanced.",
        "Give a preset's folder, or one of",
    ),
    ("enqueue-not-a-list", 5, 'search.enqueue: {"width": 8} is not a list.', "a list of {width: 16, …}"),
    (
        "enqueue-illegal",
        5,
        "search.enqueue: attention.num_heads = 3 does not divide the 8 channels of stage mid (width = 8). "
        "Use one of 1, 2, 4, 8, or another width.",
        "Enqueue networks that are legal only.",
    ),
    ("timeout-of-ray", 4, "execution.timeout_s: belongs to pool, not to ray.", "Remove it, or set engine: pool."),
    ("timeout-of-nothing", 4, "execution.timeout_s: 0 is too small.", "a number > 0, or auto"),
    ("negative-retries", 4, "execution.retries: -1 is too small.", "could not be read, 0..100 (default 1; ray 3)."),
    (
        "unknown-sampler",
        4,
        'search.sampler: "bayes" is not possible.',
        "auto, random, qmc, tpe, nsga2, nsga3, gp, evolution or local.",
    ),
    ("unknown-engine", 4, 'execution.engine: "slurm" is not possible.', "The engine is pool"),
    ("address-of-the-pool", 4, "execution.address: belongs to ray, not to pool.", "set engine: ray"),
    ("address-of-a-client", 4, "execution.address: ray://head:10001 is not possible.", "or HOST:PORT"),
    (
        "storage-path-not-absolute",
        4,
        "execution.storage_path: shared/ray is not possible.",
        "an absolute folder or a URL",
    ),
    ("two-gpus", 4, "execution.gpus_per_trial: 2 is too large.", "A training uses one GPU at most"),
    ("no-workers", 4, "execution.workers: 0 is too small.", "a number, 1..1024, or auto"),
    ("unknown-workers", 4, 'execution.workers: "all" is not a whole number.', "a number, 1..1024, or auto"),
    ("classes-fall", 4, "deploy.classes_ms: [30, 10] does not rise.", "Write latencies in rising order, each once."),
    ("class-of-nothing", 4, "deploy.classes_ms: 0 is too small.", "numbers > 0, rising"),
    ("text-in-classes", 7, 'deploy.classes_ms: "30 ms" is not a number.', "Latency classes in ms"),
    ("scalar-for-classes", 4, "deploy.classes_ms: 10 is not a list.", "Latency classes in ms"),
    # no YAML, or not one mapping
    ("tab", 3, "not valid YAML: a tab.", "Indent by spaces."),
    ("unclosed-bracket", 5, "not valid YAML: expected ',' or ']', but got ':'.", "Check indentation, brackets,"),
    ("bad-indentation", 4, "not valid YAML: the indentation does not fit.", "stand below each other."),
    ("two-documents", 2, "not valid YAML: found another document.", "Check indentation"),
    ("not-utf-8", 2, "not text in UTF-8 (byte 48 is 0xf6).", "saved as UTF-8."),
    ("empty", 1, "the file holds nothing where sections are expected.", SECTIONS),
    ("only-comments", 1, "the file holds nothing where sections are expected.", SECTIONS),
    ("list-at-top", 1, "the file holds a list where sections are expected.", SECTIONS),
    ("text-at-top", 1, "the file holds no keys where sections are expected.", SECTIONS),
)

# What a schema cannot say: it sees one value at a time, and editors have no infinity.
BEYOND_THE_SCHEMA = {
    "reference-twice",
    "classes-fall",
    "condition-without-labels",
    "timeout-of-ray",
    "enqueue-idle",
    "enqueue-illegal",
    "enqueue-missing-value",
    "enqueue-no-preset",
    "enqueue-outside",
    "enqueue-unknown-parameter",
    "extrapolated-by-nothing",
    "extrapolated-ssim",
    "infinite-limit",
    "onnx-on-cuda",
    "level-missing",
    "level-too-deep",
    "option-of-no-member",
    "range-of-a-million",
    "range-over-odd-numbers",
    "range-upside-down",
    "refiner-without-split",
    "rungs-fall",
    "supervision-of-pairs",
    "supervision-without-labels",
    "top-k-without-experts",
    "when-exclude-each-other",
    "when-impossible-value",
    "window-without-attention",
}
NO_DOCUMENT = {"key-twice", "no-value", "tagged-value", "tab", "unclosed-bracket", "bad-indentation", "two-documents"}
NO_DOCUMENT |= {"not-utf-8", "empty", "only-comments", "list-at-top", "text-at-top"}

# Two lines: where and what; what to do. Each a sentence.
MESSAGE = re.compile(r"[^\n]+: [^\n]+[.…]\n  [^\s][^\n]+[.?\]]")
# What would betray the machinery: its class names, Python's words for a file's, and the last resort.
NOISE = re.compile(r"pydantic|ruamel|Commented|type=|<class|\bNone\b|\bTrue\b|\bFalse\b|is not valid \(|(?<!\.)\bnan\b")


def assert_reads_well(message):
    assert MESSAGE.fullmatch(message), message
    assert not NOISE.search(message), message


@pytest.mark.parametrize(("name", "line", "problem", "remedy"), EXPECTED, ids=[row[0] for row in EXPECTED])
def test_a_wrong_file_is_told_with_its_line_the_rule_and_what_to_do(name, line, problem, remedy):
    path = WRONG / f"{name}.yaml"
    with pytest.raises(SpecError) as caught:
        load_experiment(path)
    error = caught.value
    assert (error.source, error.line, error.problem) == (str(path), line, problem)
    assert remedy in error.remedy
    assert str(error) == f"{path}:{line}: {problem}\n  {error.remedy}"
    assert_reads_well(str(error))


def test_every_wrong_file_is_expected_and_the_other_way_round():
    assert sorted(row[0] for row in EXPECTED) == sorted(path.stem for path in WRONG.glob("*.yaml"))


@pytest.mark.parametrize("name", sorted({row[0] for row in EXPECTED} - NO_DOCUMENT))
def test_the_schema_refuses_what_one_value_shows_to_be_wrong(name):
    accepted = SCHEMA.is_valid(read_document(WRONG / f"{name}.yaml").data)
    assert accepted == (name in BEYOND_THE_SCHEMA)


@pytest.mark.parametrize("name", sorted(NO_DOCUMENT))
def test_what_is_no_document_is_refused_before_any_schema(name):
    with pytest.raises(SpecError):
        read_document(WRONG / f"{name}.yaml")


def test_the_highest_of_several_faults_is_told(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nproxy: {keep: 2}\ntask: {kind: denoise, sigma: -1}\nspace: {width: 3}\n")
    with pytest.raises(SpecError, match=r"x\.yaml:2: proxy\.keep: 2 is too large"):
        load_experiment(path)


def test_a_file_that_is_not_there_is_told_with_the_nearest_name():
    with pytest.raises(InputError) as caught:
        load_experiment("eficient")
    assert str(caught.value).startswith("eficient: no such experiment file.\n  Did you mean efficient? Give a file,")
    assert_reads_well(str(caught.value))


def test_a_name_like_no_other_lists_what_there_is():
    with pytest.raises(InputError, match=r"qqq: no such experiment file\.\n  Give a file, or .*: denoise, efficient,"):
        load_experiment("qqq")


def test_a_folder_is_no_experiment_file(tmp_path):
    with pytest.raises(InputError, match="no such experiment file"):
        load_experiment(tmp_path)


GOOD = {
    "name": "good",
    "task": {"kind": "denoise", "sigma": 25, "data": {"folder": "photos"}, "channels": 3},
    "space": {
        "width": {"min": 8, "max": 32, "step": 8},
        "levels": [1, 2],
        "encoder_blocks": {"1": [1, 2], "2": 3},
        "mixer": ["naf", "large_kernel"],
        "kernel_size": 5,
        "expansion": [1.5, 2],
        "attention": {"choices": ["none", "window"], "when": {"levels": [2], "width": 16}},
        "window_size": [4, 8],
        "num_experts": {"min": 1, "max": 4, "when": {"attention": "window"}},
        "top_k": [1, 2],
        "frequency_split": [True, False],
        "refiner": "dft",
    },
    "budget": {"params_m": 1, "macs_g": {"max": 2.5, "at": [640, 360]}, "latency_ms": {"at": [64, 64]}, "threads": 2},
    "objectives": ["psnr_db", "macs_g"],
    "proxy": {"rungs": [10, 20], "keep": 0.5, "loss": "l1"},
    "search": {"sampler": "tpe", "trials": 4},
    "execution": {"workers": "auto"},
    "deploy": {"classes_ms": [10, 30.5]},
    "references": ["fsrcnn", {"name": "mine", "module": "nets:Net", "args": {"width": 8}, "path": "nets"}],
}


def paths_in(value, path=()):
    """Every place in a tree, the root left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, child in items for place in ((*path, key), *paths_in(child, (*path, key)))]


WORDS = ("none", "window", "naf", "auto", "width", "min", "max", "at", "when", "choices", "1", "2", "", "é", "a: b")
numbers = st.integers(-3, 70) | st.sampled_from((0.5, 2.0, 1e-9, 1e30, float("inf"), float("nan"), 2**70))
scalars = st.none() | st.booleans() | numbers | st.sampled_from(WORDS)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=4,
)


def with_change(tree, path, value):
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


def as_yaml(tree):
    return re.sub(r"(-?)(Infinity|NaN)", lambda m: f"{m[1]}.{m[2][:3].lower()}", json.dumps(tree))


@given(st.sampled_from(paths_in(GOOD)), anything)
@example(("name",), "good")
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_good_file_is_loaded_or_told_and_the_schema_agrees(tmp_path_factory, path, value):
    changed = with_change(GOOD, path, value)
    file = tmp_path_factory.getbasetemp() / "changed.yaml"
    file.write_text(as_yaml(changed))
    fault = fault_of(file)
    if fault is None:
        SCHEMA.validate(read_document(file).data)
    else:
        assert fault.line is not None
        assert_reads_well(str(fault))


def fault_of(file):
    try:
        load_experiment(file)
    except SpecError as error:
        return error
    return None


def test_a_folder_whose_name_is_not_utf8_is_refused_with_a_way_on():
    folder = json.dumps(os.fsdecode(b"ph\xdftos"))
    with pytest.raises(SpecError, match=r"is not UTF-8\.\n.*name it through a link"):
        load_experiment("efficient", [f"task.data={folder}"])
