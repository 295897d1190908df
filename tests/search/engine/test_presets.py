"""Presets that ship, made from a real run: what the folder holds, what is refused, and what verifying finds."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import Result

from hfir import HFIRConfig, build_model, export_model, load_preset
from search.evaluation.cost import as_deployed
from search.evaluation.evaluator import task_data
from search.evaluation.host import host_name
from search.evaluation.proxy import validate
from search.evaluation.quality import psnr_db, to_uint8
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.presets import Comparison, Refused, Verdict, Written, export_presets, exporting, verify_preset, verifying
from search.presets.budget import check_budget
from search.presets.names import descriptive_name
from search.presets.sample import CAPTION_PX, GAP_PX, ZOOM, make_sample
from search.report import choose_presets
from search.study import checkpoint_path
from search.types import EvaluationError, Latency, Study, Trial

Tiny = Callable[..., Experiment]
ROLES = ("best", "within_5000ms")


@pytest.fixture(autouse=True, scope="module")
def unchecked_shapes() -> Iterator[None]:
    """Shape checks would compare the symbolic sizes of a trace, and so tie it to the traced size."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def best(unbroken: Study) -> Trial:
    return choose_presets(unbroken)["best"]


@pytest.fixture(scope="module", params=["plain", pytest.param("onnx", marks=pytest.mark.slow)])
def onnx(request: pytest.FixtureRequest) -> bool:
    """Return whether presets are shipped with ONNX files, which take long to write."""
    return request.param == "onnx"


@pytest.fixture(scope="module")
def shipped(unbroken: Study, tiny: Tiny, best: Trial, onnx: bool, made_once: Callable[..., Path]) -> Path:
    """Return the folder of two presets of one network; look, do not touch."""

    def make(out: Path) -> None:
        plan, chosen = tiny().evaluation_plan(), dict.fromkeys(ROLES, best)
        results = export_presets(unbroken, plan, chosen, classes_ms={"within_5000ms": 5000.0}, out=out, onnx=onnx)
        assert all(isinstance(result, Written) and bool(result.onnx) is onnx for result in results)

    return made_once(f"shipped-{onnx}", make)


@pytest.fixture
def preset(shipped: Path, tmp_path: Path) -> Path:
    """Return a copy of a preset to spoil."""
    return Path(shutil.copytree(shipped / "best", tmp_path / "best"))


@pytest.fixture
def run_copy(copy_of: Callable[..., Study]) -> Path:
    """Return a copy of the run's folder, as the command line leaves it."""
    return copy_of("run").folder


def card_of(folder: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(folder / "preset.yaml")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = card_of(folder)
    change(card)
    YAML().dump(card, folder / "preset.yaml")


def test_a_preset_folder_holds_its_files_and_their_checksums(shipped: Path, best: Trial, onnx: bool):
    assert {folder.name for folder in shipped.iterdir()} == set(ROLES)
    for role in ROLES:
        folder, card = shipped / role, card_of(shipped / role)
        written = set()
        if onnx:
            opset = card["onnx"]["opset"]
            written = {f"2x_tiny-{card['name']}_HydraFusionIR_1x3xHxW_dyn-HW_fp32_op{opset}.onnx"}
        assert set(card["files"]) == {"weights.safetensors", "sample.png", *written}
        assert {path.name for path in folder.iterdir()} == {*card["files"], "preset.yaml", "card.md"}
        text = (folder / "card.md").read_text()
        for name in (*card["files"], "preset.yaml"):
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            assert card["files"].get(name, digest) == digest
            assert f"| `{name}` | `{digest}` |" in text
        assert card["role"] == role
        assert card["provenance"]["trial"] == best.number
        assert set(card["photographs"]["validation"].values()) == set(card["conditions"]["validation_images"])
        assert not set(card["photographs"]["train"]) & set(card["photographs"]["validation"])
        assert text.startswith(f"# {card['name']}\n")
    assert card_of(shipped / "within_5000ms")["checked"]["limits"]["latency_ms"] == 5000


def test_names_say_what_they_are(make_trial: Callable[..., Trial]):
    trial = make_trial(0, psnr_db=31.16, latency_ms=12.2, macs_g=1.0, params_m=0.312)
    assert descriptive_name("balanced", trial) == "balanced_cpu1_12ms_31.2dB_0.31M"
    small = make_trial(0, psnr_db=31.16, latency_ms=4.06, macs_g=1.0, params_m=0.00244)
    assert descriptive_name("fastest", small) == "fastest_cpu1_4.1ms_31.2dB_0.0024M"
    large = make_trial(0, psnr_db=31.16, latency_ms=123.4, macs_g=1.0, params_m=12.3)
    assert descriptive_name("best", large) == "best_cpu1_123ms_31.2dB_12M"


def test_the_five_lines_of_the_card_run_in_the_folder(preset: Path, onnx: bool):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(preset / "in.png")
    *onnx_lines, hfir_lines = re.findall(r"```python\n(.*?)\n```", (preset / "card.md").read_text(), re.DOTALL)
    assert len(onnx_lines) == onnx
    assert {len(lines.splitlines()) for lines in (*onnx_lines, hfir_lines)} == {5}
    assert not any(re.search("hfir|torch", lines.replace("HydraFusionIR", "")) for lines in onnx_lines)
    for lines in (*onnx_lines, f"{hfir_lines}\nassert y.shape == (1, 3, 240, 320)"):
        done = subprocess.run([sys.executable, "-c", lines], cwd=preset, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    if not onnx:
        return  # the other lines write no picture
    with torch.inference_mode():
        expected = load_preset(preset)(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).clamp(0, 1)
    levels = (expected[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(np.asarray(Image.open(preset / "out.png"), np.float32) - levels).max() <= 1


def test_the_sample_shows_what_its_captions_say(shipped: Path):
    picture = shipped / "best" / "sample.png"
    assert picture.stat().st_size < 200_000
    pixels = np.asarray(Image.open(picture))[CAPTION_PX::ZOOM]
    side = pixels.shape[0]
    lefts = [i * (side * ZOOM + GAP_PX) for i in range(4)]
    panels = [pixels[:, left : left + side * ZOOM : ZOOM] for left in lefts]
    text = (shipped / "best" / "card.md").read_text()
    captions = re.search(r"!\[input (.*) dB, bicubic (.*) dB, restored (.*) dB, truth\]\(sample.png\)", text)
    assert captions is not None
    found = [f"{psnr_db(panel, panels[3], luma=True):.2f}" for panel in panels[:3]]
    assert list(captions.groups()) == found


def test_the_sample_is_what_the_network_makes_of_the_photograph(shipped: Path, tiny: Tiny):
    data, model = task_data(tiny().evaluation_plan().task), as_deployed(load_preset(shipped / "best"))
    sample = make_sample(model, data, validate(model, data))
    assert sample.png == (shipped / "best" / "sample.png").read_bytes()
    [pair] = [pair for pair in data.validation if pair.name == sample.photograph]
    with torch.inference_mode():
        restored = model(torch.tensor(pair.degraded).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    left, top = sample.at
    crop = (slice(top, top + sample.side_px), slice(left, left + sample.side_px))
    panels = {panel.name: panel.pixels.astype(int) for panel in sample.panels}
    assert np.abs(panels["restored"] - to_uint8(restored)[crop]).max() <= 1
    assert np.array_equal(panels["truth"], pair.clean[crop])
    assert np.array_equal(panels["input"][::2, ::2], to_uint8(pair.degraded)[top // 2 :, left // 2 :][:60, :60])


def test_a_missed_limit_refuses_with_the_figures_unless_the_latency_is_in_doubt(make_trial: Callable[..., Trial]):
    cost = make_trial(0, psnr_db=31.0, latency_ms=10.0, macs_g=2.0, params_m=0.5).cost
    assert cost is not None
    assert cost.latency is not None
    host = cost.latency.host
    assert check_budget(cost, {"latency_ms": 10.3, "params_m": 1.0}, host).refusal == ""
    missed = check_budget(cost, {"latency_ms": 10.1, "params_m": 0.4}, host)
    assert missed.refusal == "latency (ms) 10.2 (upper end; median 10) > 10.1, parameters (M) 0.5 > 0.4"
    busy = dataclasses.replace(cost, latency=dataclasses.replace(cost.latency, trusted=False))
    doubtful = check_budget(busy, {"latency_ms": 10.1}, host)
    assert doubtful.refusal == ""
    assert "10.2 (upper end; median 10) > 10.1, but latency untrusted" in doubtful.notes[0]
    elsewhere = check_budget(cost, {"latency_ms": 10.1}, "another machine")
    assert elsewhere.refusal == ""
    assert "set on another machine" in elsewhere.notes[0]


def test_a_preset_over_the_budget_is_not_written(unbroken: Study, tiny: Tiny, best: Trial, tmp_path: Path):
    plan = tiny().evaluation_plan()
    strict = dataclasses.replace(plan, cost=dataclasses.replace(plan.cost, limits=(("macs_g", 1e-6),)))
    [refused] = export_presets(unbroken, strict, {"best": best}, out=tmp_path)
    assert isinstance(refused, Refused)
    assert not refused.damaged
    assert re.fullmatch(r"over its limit: MACs \(G\) [\d.e-]+ > 1e-06", refused.reason)
    assert list(tmp_path.iterdir()) == []


def test_a_current_folder_stays_and_another_trial_replaces_what_is_ours(
    unbroken: Study, tiny: Tiny, best: Trial, preset: Path, onnx: bool
):
    plan, before = tiny().evaluation_plan(), (preset / "preset.yaml").read_bytes()
    (preset / "mine.txt").write_text("a note")
    [kept] = export_presets(unbroken, plan, {"best": best}, out=preset.parent, keep_current=True)
    assert isinstance(kept, Written)
    assert not kept.renewed
    assert bool(kept.onnx) is onnx
    assert (preset / "preset.yaml").read_bytes() == before
    other = dataclasses.replace(best, key="of-another-network")
    [renewed] = export_presets(unbroken, plan, {"best": other}, out=preset.parent, keep_current=True)
    assert isinstance(renewed, Written)
    assert renewed.renewed
    assert {path.name for path in preset.iterdir()} == {
        "preset.yaml", "card.md", "sample.png", "weights.safetensors", "mine.txt"
    }  # fmt: skip
    assert "presets RUN" in (preset / "card.md").read_text()


@pytest.mark.slow
def test_a_folder_whose_latency_was_measured_again_is_written_again_with_its_onnx_file(
    unbroken: Study, tiny: Tiny, best: Trial, preset: Path, onnx: bool
):
    assert best.cost is not None
    assert best.cost.latency is not None
    cost = dataclasses.replace(best.cost, latency=dataclasses.replace(best.cost.latency, median_ms=4321.0))
    chosen = {"best": dataclasses.replace(best, cost=cost)}
    [again] = export_presets(unbroken, tiny().evaluation_plan(), chosen, out=preset.parent, keep_current=True)
    assert isinstance(again, Written)
    assert (again.renewed, bool(again.onnx)) == (True, onnx)
    assert card_of(preset)["measured"]["latency_ms"] == 4321.0


def verdicts(rows: tuple[Comparison, ...]) -> dict[str, Verdict]:
    return {row.figure.split(" (")[0].split(" at ")[0]: row.verdict for row in rows}


def test_a_preset_verifies_on_the_machine_that_made_it(preset: Path, onnx: bool):
    rows = verify_preset(preset)
    assert not any(row.is_fault for row in rows)
    found = verdicts(rows)
    assert set(found) == {
        "SHA-256 of weights.safetensors",
        "SHA-256 of sample.png",
        "PSNR",
        "parameters",
        "MACs",
        "peak memory",
        "latency",
        *(("SHA-256 of the ONNX file", "ONNX, max |difference|") if onnx else ()),
    }
    assert set(found.values()) == {Verdict.SAME}


@pytest.mark.parametrize(
    ("median", "low", "high", "verdict"),
    [
        (10.0, 9.8, 10.2, Verdict.SAME),
        (10.9, 10.7, 11.1, Verdict.SAME),
        (11.2, 11.0, 11.4, Verdict.DIFFERS),
        (8.9, 8.7, 9.1, Verdict.DIFFERS),
        (13.0, 10.1, 16.0, Verdict.SAME),
        (7.0, 4.0, 9.9, Verdict.SAME),
    ],
    ids=["equal", "within a tenth", "slower", "faster", "slower within the intervals", "faster within the intervals"],
)
def test_a_latency_differs_by_more_than_a_tenth_and_beyond_both_intervals(
    median: float, low: float, high: float, verdict: Verdict
):
    row = compared_latency(median_ms=median, low_ms=low, high_ms=high)
    assert row.verdict is verdict
    assert not row.is_fault
    assert row.difference == f"{median / 10 - 1:+.1%}"


@pytest.mark.parametrize(
    ("here", "recorded", "comment"),
    [
        ({}, {"host": "another"}, "recorded on another machine (another): the two do not compare"),
        ({"trusted": False}, {}, "untrusted: the machine was busy here"),
        ({}, {"trusted": False}, "untrusted: the machine was busy when it was recorded"),
    ],
)
def test_latencies_of_another_machine_or_a_busy_one_are_not_compared(here: dict, recorded: dict, comment: str):
    row = compared_latency(recorded, median_ms=20.0, low_ms=19.0, high_ms=21.0, **here)
    assert (row.verdict, row.comment) == (Verdict.UNKNOWN, comment)


@pytest.mark.parametrize(
    ("here", "verdict", "difference"),
    [
        (0.5, Verdict.SAME, ""),
        (0.50000049, Verdict.SAME, ""),
        (0.500001, Verdict.DIFFERS, "+0.000001"),
        (0.499999, Verdict.DIFFERS, "-0.000001"),
    ],
)
def test_a_count_differs_in_its_last_recorded_digit_in_either_direction(here: float, verdict: Verdict, difference: str):
    row = verifying._counted("parameters (M)", 0.5, here, digits=6)
    assert (row.verdict, row.difference) == (verdict, difference)


@pytest.mark.parametrize("psnr_db", [30.97, 31.03])
def test_weights_that_score_otherwise_than_their_trial_are_not_exported(
    psnr_db: float, make_trial: Callable[..., Trial], make_study: Callable[..., Study], tmp_path: Path
):
    exporter = exporting._Exporter(make_study(), None, tmp_path, onnx=False, executor=InlineExecutor())  # pyright: ignore
    trial = make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)
    exporter._compare(trial, 31.0 + 0.9 * exporting.SAME_PSNR_DB, tmp_path)
    with pytest.raises(EvaluationError, match=rf"scores {psnr_db:.3f} dB, its trial 0 31.000 dB"):
        exporter._compare(trial, psnr_db, tmp_path)


def compared_latency(recorded: dict[str, Any] | None = None, **here: Any) -> Comparison:
    """Compare a latency with a recorded one of 10 ms (9.8 to 10.2)."""
    fields = {"repeats": 60, "at": "160x160", "threads": 1, "device": "cpu", "dtype": "float32", "measured_at": ""}
    latency = Latency(**fields, runtime="torch", host=host_name(), **here)
    measured = {"latency_ms": 10.0, "latency_interval_ms": [9.8, 10.2]}
    return verifying._latency(measured, {"host": host_name(), "runtime": "torch", **(recorded or {})}, latency)


def test_verifying_finds_what_was_changed_and_spares_other_machines(preset: Path, onnx: bool):
    def change(card: dict[str, Any]) -> None:
        card["measured"]["psnr_db"] += 0.02
        card["measured"]["params_m"] += 0.001
        card["conditions"]["latency"]["host"] = "another machine"

    rewrite(preset, change)
    if onnx:
        other = HFIRConfig(width=4, upscale=2, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,))
        made = export_model(build_model(other), preset / "other", format="onnx", name="other")
        made.path.replace(preset / card_of(preset)["onnx"]["file"])
    rows = verify_preset(preset)
    assert {row.figure.split(" (")[0] for row in rows if row.is_fault} == {
        "PSNR",
        *(("SHA-256 of the ONNX file", "ONNX, max |difference|") if onnx else ()),
    }
    assert verdicts(rows)["parameters"] is Verdict.DIFFERS
    [latency] = [row for row in rows if row.figure.startswith("latency")]
    assert latency.verdict is Verdict.UNKNOWN
    assert "recorded on another machine (another machine)" in latency.comment


def test_verify_tells_damage_by_its_exit_code_and_missing_photographs_by_words(
    preset: Path, call: Callable[..., Result]
):
    def change(card: dict[str, Any]) -> None:
        card["task"]["data"] = {"folder": "/nowhere"}

    rewrite(preset, change)
    fine = call("verify", preset)
    assert fine.exit_code == 0, fine.output
    assert "nowhere" in fine.stdout
    with (preset / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    damaged = call("verify", preset)
    assert damaged.exit_code == 1
    assert "is not what its card says: SHA-256 of weights.safetensors differ" in damaged.stderr
    (preset / "preset.yaml").unlink()
    assert call("verify", preset).exit_code == 2


def test_the_command_writes_presets_and_classes_and_says_which_class_is_empty(
    run_copy: Path, call: Callable[..., Result]
):
    done = call("presets", run_copy, "--no-onnx", "--classes", "0.0001,5000")
    assert done.exit_code == 0, done.output
    folders = {path.name for path in (run_copy / "presets").iterdir()}
    assert folders == {"fastest", "balanced", "best", "within_5000ms"}
    assert "within_0.0001ms: no member of the front is within 0.0001 ms; the nearest is trial" in done.stdout
    wrong = call("presets", run_copy, "--classes", "30,10")
    assert wrong.exit_code == 2
    assert "Write numbers > 0 in ms, rising" in wrong.stderr


def test_a_missing_checkpoint_is_told_and_the_other_presets_are_written(
    run_copy: Path, unbroken: Study, call: Callable[..., Result]
):
    chosen = choose_presets(unbroken)
    lost = chosen["best"].number
    checkpoint_path(run_copy, lost).unlink()
    done = call("presets", run_copy, "--no-onnx")
    assert done.exit_code == 1
    assert f"the weights of trial {lost} are not there" in done.stderr
    there = {path.name for path in (run_copy / "presets").iterdir()}
    assert there == {role for role, trial in chosen.items() if trial.number != lost}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("budget.params_m=0.0001",), "no candidate is complete, so there is nothing to ship ("),
        (("search.trials=1",), ""),
    ],
    ids=["only infeasible", "one trial"],
)
def test_small_and_empty_runs_are_told_in_clear_words(
    changes: tuple[str, ...], said: str, copy_of: Callable[..., Study], call: Callable[..., Result]
):
    study = copy_of("small", *changes)
    done = call("presets", study.folder, "--no-onnx")
    assert done.exit_code == (1 if said else 0), done.output
    assert said in done.stderr
    assert (study.folder / "presets").is_dir() is not bool(said)


def test_a_folder_without_a_run_is_wrong_input(tmp_path: Path, call: Callable[..., Result]):
    done = call("presets", tmp_path)
    assert done.exit_code == 2
    assert "holds no run" in done.stderr
