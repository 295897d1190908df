"""Do the tests notice wrong code? Change one place at a time, and run the tests that should fail.

python benchmarks/mutations.py [--only TEXT] [--part 1/4] [--timeout 120] [--list]

Each entry of the table replaces one piece of text, which must occur exactly once in its file, in a temporary copy of
the tree. Its tests run there with `-x -q`: killed if one fails or the time is up, survived if all pass. All tests
must pass on the unchanged copy first. Entries with a reason in `equivalent` compute the same as before; they are run,
but not counted in the share. Third-party packages are imported once, and each run is a fork of that process (POSIX).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("hfir", "search", "tests", "spaces", "benchmarks", "pyproject.toml")
SHIPPED = Path("results", "reference", "efficient", "presets")
PRELOADED = ("torch", "optuna", "scipy.signal", "skimage.metrics", "pandas", "matplotlib.pyplot", "onnxruntime")
PRELOADED += ("pytest", "hypothesis.strategies", "beartype", "jaxtyping", "einops", "pydantic", "ruamel.yaml", "pyvips")
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
KILLED = (1, 2)
"""Exit codes of pytest: a test failed, or could not be collected."""
QUEUE = 200
"""Characters of an entry that a line of the table shows."""


class Mutation(NamedTuple):
    """One wrong piece of code, and the tests that should notice."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""
    """Why the code computes the same; empty where it does not."""


OUTPUTS = ("tests/hfir/test_golden.py::test_a_network_keeps_its_output",)
BLURS, QUALITY, IMAGES = (f"tests/search/test_{name}.py" for name in ("tasks_blurs", "quality", "tasks_images"))
DEGRADATIONS, RESIZE = (f"tests/search/test_tasks_{name}.py" for name in ("degradations", "resize"))
DATASET, TABLES = "tests/search/test_tasks_dataset.py", "tests/search/test_report_tables.py"
PARETO, SAMPLERS, SELECTION = (f"tests/search/test_{name}.py" for name in ("pareto", "samplers", "report_selection"))
CERTAINTY, CALIBRATION, PATIENCE = (f"tests/search/test_{name}.py" for name in ("certainty", "calibration", "patience"))
COST, COUNTING, COMPARE = (f"tests/search/test_{name}.py" for name in ("cost", "counting", "compare"))
TRAINING, TABULAR = "tests/search/test_training.py", "tests/search/test_tabular.py"
ENGINE = "tests/search/engine/test_"
SCHEDULERS, LATENCY, STORE, BUDGETS = (f"{ENGINE}{n}.py" for n in ("schedulers", "latency", "store", "budgets"))
PRESETS, FLAT, ASYNCHRONOUS = (f"{ENGINE}{name}.py" for name in ("presets", "flat", "asynchronous"))
PROXY = (
    f"{ENGINE}references.py::test_a_candidates_figures_are_bit_for_bit_what_they_were",
    f"{ENGINE}references.py::test_the_reported_loss_is_the_mean_over_the_last_tenth_of_the_steps",
)
TILING, EXPORT, FUSION = (f"tests/hfir/test_{name}.py" for name in ("tiling", "export", "fusion"))
CHECKED_FILES = (
    f"{EXPORT}::test_one_size_that_comes_out_as_no_number_is_enough_to_refuse",
    f"{EXPORT}::test_a_pushed_router_sends_every_image_to_one_expert_and_the_next",
)
LOSSES, CONFIG, LIMITS = "tests/hfir/test_losses.py", "tests/hfir/test_config.py", "tests/search/test_limits.py"

NETWORK = [
    Mutation("hfir/blocks/naf.py", "x.mean(dim=(2, 3), keepdim=True)", "x.amax(dim=(2, 3), keepdim=True)", OUTPUTS),
    Mutation(
        "hfir/blocks/naf.py",
        "x = x + self.beta * self.mix(self.norm_mix(x))\n        return x + self.gamma",
        "y = x + self.beta * self.mix(self.norm_mix(x))\n        return y + self.gamma",
        OUTPUTS,
    ),
    Mutation("hfir/blocks/attention.py", "self.ffn(self.norm_ffn(x))", "self.ffn(x)", OUTPUTS),
    Mutation("hfir/blocks/attention.py", "self.attention(self.norm_attention(x))", "self.attention(x)", OUTPUTS),
    Mutation("hfir/blocks/attention.py", "scale=channels**-0.5", "scale=q.shape[-1]**-0.5", OUTPUTS),
    Mutation(
        "hfir/blocks/attention.py", "window_size // 2 if shifted else 0", "window_size // 4 if shifted else 0", OUTPUTS
    ),
    Mutation("hfir/blocks/attention.py", "F.normalize(q.float(), dim=-1)", "F.normalize(q.float(), dim=-2)", OUTPUTS),
    Mutation("hfir/blocks/attention.py", "return k, v * rearrange(", "return k, v + rearrange(", OUTPUTS),
    Mutation("hfir/blocks/ffn.py", "F.gelu(a) * b", "F.relu(a) * b", OUTPUTS),
    Mutation("hfir/blocks/ffn.py", "return a * b\n", "return a * b.sigmoid()\n", OUTPUTS),
    Mutation("hfir/blocks/norm.py", "dim=1, keepdim=True, correction=0", "dim=1, keepdim=True, correction=1", OUTPUTS),
    Mutation(
        "hfir/blocks/norm.py",
        "y = F.layer_norm(flat.float(), (flat.shape[-1],), weight, bias",
        "y = F.layer_norm(flat.float(), (flat.shape[-1],), weight, None",
        OUTPUTS,
    ),
    Mutation(
        "hfir/blocks/gating.py",
        "x + self.gate(torch.cat([x, side], dim=1)) * side",
        "side + self.gate(torch.cat([x, side], dim=1)) * x",
        OUTPUTS,
    ),
    Mutation("hfir/blocks/gating.py", "return x * self.gate(x)", "return x * (1 - self.gate(x))", OUTPUTS),
    Mutation("hfir/blocks/skips.py", "return x + side", "return x - side", OUTPUTS),
    Mutation(
        "hfir/blocks/skips.py",
        "self.conv(torch.cat([x, side], dim=1))",
        "self.conv(torch.cat([side, x], dim=1))",
        OUTPUTS,
    ),
    Mutation("hfir/blocks/dense.py", "return self.act(self.conv(x))", "return x + self.act(self.conv(x))", OUTPUTS),
    Mutation("hfir/blocks/dense.py", "return self.gain * self.weight +", "return self.weight +", OUTPUTS),
    Mutation("hfir/blocks/large_kernel.py", "self.point + self.identity", "self.point", OUTPUTS),
    Mutation("hfir/blocks/large_kernel.py", "_spread(weight, int(dilation))", "weight", OUTPUTS),
    Mutation("hfir/blocks/frequency.py", "low=2 * (1 - gate) * low", "low=2 * gate * low", OUTPUTS),
    Mutation("hfir/blocks/frequency.py", "self.theta + self.log_binomial", "self.theta", OUTPUTS),
    Mutation("hfir/blocks/frequency.py", "index % 2 * (PATCH // 2)", "0", OUTPUTS),
    Mutation("hfir/blocks/frequency.py", "self.gain.permute(1, 2, 0)", "self.gain.permute(2, 1, 0)", OUTPUTS),
    Mutation("hfir/blocks/deformable.py", "taken * self.open(seen)[:, None]", "taken", OUTPUTS),
    Mutation("hfir/blocks/deformable.py", 'outside="zeros"', 'outside="border"', OUTPUTS),
    Mutation(
        "hfir/blocks/noise.py", "x + self.weight[:, None, None] * noise.to(x.dtype)", "x + noise.to(x.dtype)", OUTPUTS
    ),
    Mutation("hfir/blocks/resample.py", "moves = 0.25 *", "moves = 0.5 *", OUTPUTS),
    Mutation(
        "hfir/blocks/resample.py", 'scale_factor=2.0, mode="nearest"', 'scale_factor=2.0, mode="bilinear"', OUTPUTS
    ),
    Mutation("hfir/blocks/image.py", "near = 1.5 * distance**3 - 2.5", "near = 1.25 * distance**3 - 2.25", OUTPUTS),
    Mutation(
        "hfir/blocks/image.py", 'F.pad(x, mirrored, mode="reflect")', 'F.pad(x, mirrored, mode="replicate")', OUTPUTS
    ),
    Mutation("hfir/blocks/moe.py", "if self.config.top_k > 1:", "if self.config.top_k > 2:", OUTPUTS),
    Mutation("hfir/blocks/moe.py", "logits = logits / self.config.temperature", "logits = logits", OUTPUTS),
    Mutation("hfir/blocks/moe.py", "sums[:, :-1] / sums[:, -1:]", "sums[:, :-1] / 64", OUTPUTS),
    Mutation("hfir/blocks/moe.py", "y = y if inside is None else y * inside.to(y.dtype)\n", "", OUTPUTS),
    Mutation(
        "hfir/blocks/moe.py",
        "rough if flow.cue is None else torch.cat([rough, flow.cue.float()], dim=1)",
        "rough if flow.cue is None else torch.cat([rough, 0 * flow.cue.float()], dim=1)",
        OUTPUTS,
    ),
    Mutation("hfir/model.py", "flow.cue = high.abs().mean(dim=(2, 3))", "flow.cue = high.mean(dim=(2, 3))", OUTPUTS),
    Mutation("hfir/model.py", "self.refiner(high, flow)", "self.refiner(trunk, flow)", OUTPUTS),
    Mutation(
        "hfir/stages.py",
        "x = stage(gate(fuse(x, skips[-1 - i])), flow)",
        "x = stage(fuse(gate(x), skips[-1 - i]), flow)",
        OUTPUTS,
    ),
    Mutation(
        "hfir/stages.py",
        "return x if self.experts is None else self.experts(x, flow)\n\n\nclass Encoder",
        "return x\n\n\nclass Encoder",
        OUTPUTS,
    ),
]
"""What a block computes."""

ASKED = [
    Mutation("search/pareto.py", "np.sqrt((scaled**2).sum(axis=1))", "scaled.max(axis=1)", (PARETO,)),
    Mutation(
        "search/schedulers.py",
        "quota = math.ceil(keep * len(members))",
        "quota = max(1, int(keep * len(members)))",
        (SCHEDULERS,),
    ),
    Mutation(
        "search/schedulers.py",
        "and t.state is TrialState.RUNNING]",
        "and t.state is not TrialState.COMPLETE]",
        (SCHEDULERS,),
    ),
    Mutation(
        "search/study/bounds.py",
        "[trial] if left >= 0 else []",
        "[trial] if left > 0 else []",
        (f"{BUDGETS}::test_steps_are_spent_to_the_last_one",),
    ),
    Mutation(
        "search/study/bounds.py",
        "left < self._problem.proxy.rungs[0]",
        "left <= self._problem.proxy.rungs[0]",
        (f"{BUDGETS}::test_steps_are_spent_where_the_first_rung_takes_more_than_is_left",),
    ),
    Mutation(
        "search/study/bounds.py",
        'key=lambda t: -(t.value("latency_ms") or 0.0)',
        'key=lambda t: t.value("latency_ms") or 0.0',
        (f"{BUDGETS}::test_the_slowest_are_trained_first_so_that_no_worker_ends_late",),
    ),
    Mutation(
        "search/study/bounds.py",
        "self.elapsed_s >= self._rules.time_s",
        "self.elapsed_s > self._rules.time_s",
        (f"{BUDGETS}::test_time_is_spent_at_its_end",),
    ),
    Mutation(
        "search/evaluation/quality.py",
        "min(float(10 * np.log10(255.0**2 / mse)), PSNR_CAP_DB)",
        "float(10 * np.log10(255.0**2 / mse))",
        (QUALITY,),
    ),
    Mutation("search/tasks/degradations.py", 'subsampling="4:2:0"\n', 'subsampling="4:2:2"\n', (DEGRADATIONS,)),
    Mutation("search/tasks/degradations.py", "rng.uniform(0, 180, size", "rng.uniform(0, 90, size", (BLURS,)),
    Mutation(
        "search/presets/verifying.py",
        "same = abs(share) <= SAME_LATENCY or not apart",
        "same = True",
        (f"{PRESETS}::test_a_latency_differs_by_more_than_a_tenth_and_beyond_both_intervals",),
    ),
    Mutation(
        "search/store/journal.py",
        "                    os.fsync(file.fileno())\n",
        "",
        (f"{STORE}::test_a_record_is_on_the_disk_when_it_was_made",),
    ),
]
"""Mutations that once survived."""

OTHERS = [
    # measuring
    Mutation(
        "search/evaluation/latency.py", "(ordered[(n - 1) // 2] + ordered[n // 2]) / 2", "ordered[n // 2]", (LATENCY,)
    ),
    Mutation(
        "search/evaluation/latency.py",
        "max(self.before_ms, self.after_ms) <=",
        "min(self.before_ms, self.after_ms) <=",
        (LATENCY,),
    ),
    Mutation(
        "search/evaluation/latency.py",
        "return [time_ms * share for time_ms",
        "return [time_ms / share for time_ms",
        (LATENCY,),
    ),
    Mutation("search/evaluation/latency.py", "reach = 0.98 * math.sqrt(n)", "reach = 0.49 * math.sqrt(n)", (LATENCY,)),
    Mutation("search/evaluation/reference.py", "len(blocks_ms) // 4", "len(blocks_ms) // 2", (LATENCY,)),
    Mutation(
        "search/evaluation/evaluator.py",
        "else cost.latency.high_ms",
        "else cost.latency.median_ms",
        (LIMITS,),
    ),
    Mutation("search/evaluation/evaluator.py", "return any(margin > 0", "return any(margin >= 0", (LIMITS,)),
    # counting
    Mutation(
        "search/evaluation/counting.py", "image.numel() if transposed else out.numel()", "out.numel()", (COUNTING,)
    ),
    Mutation(
        "search/evaluation/counting.py",
        "scores * (query.shape[-1] + value.shape[-1])",
        "scores * 2 * query.shape[-1]",
        (COUNTING,),
    ),
    Mutation(
        "search/evaluation/cost.py",
        "(experts - mixture.config.top_k) / experts",
        "mixture.config.top_k / experts",
        (COST,),
    ),
    Mutation("search/evaluation/cost.py", "peak = max(peak, held)", "peak = held", (COST,)),
    Mutation("search/evaluation/cost.py", "math.ceil(h / ROUTING_PX)", "(h // ROUTING_PX)", (COUNTING, COST)),
    # quality and data
    Mutation(
        "search/evaluation/quality.py",
        "enlarges and channels == 3 and not rgb",
        "channels == 3 and not rgb",
        (QUALITY,),
    ),
    Mutation("search/evaluation/quality.py", "Convention(upscale if enlarges else 0,", "Convention(0,", (QUALITY,)),
    Mutation("search/evaluation/quality.py", "use_sample_covariance=False", "use_sample_covariance=True", (QUALITY,)),
    Mutation(
        "search/tasks/colour.py",
        "return round_to_uint8(rgb_to_y(pixels))",
        "return rgb_to_y(pixels).astype(np.uint8)",
        (IMAGES, QUALITY),
    ),
    Mutation("search/tasks/resize.py", "stretch = min(scale, 1.0)", "stretch = 1.0", (RESIZE,)),
    Mutation("search/tasks/degradations.py", "np.float32(sigma / 255)", "np.float32(sigma / 256)", (DEGRADATIONS,)),
    Mutation("search/tasks/patches.py", "SeedSequence([self._seed, step])", "SeedSequence([self._seed])", (DATASET,)),
    Mutation("search/tasks/patches.py", "turn = int(draws[3] * 8)", "turn = int(draws[3] * 4)", (DATASET,)),
    Mutation("search/tasks/pairs.py", "(full - kept) // 2 // multiple * multiple", "(full - kept) // 2", (DATASET,)),
    # fronts and choices
    Mutation("search/pareto.py", "distance[order[[0, -1]]] = np.inf", "distance[order[[0]]] = np.inf", (PARETO,)),
    Mutation("search/pareto.py", "sign * value\n", "value\n", (PARETO,)),
    Mutation(
        "search/report/wishes.py",
        "trial.cost.latency.high_ms if self.is_upper else trial.cost.latency.low_ms",
        "trial.cost.latency.high_ms",
        (SELECTION,),
    ),
    Mutation("search/report/preference.py", "float(max(row)) for", "float(sum(row)) for", (SELECTION,)),
    Mutation(
        "search/report/compare.py",
        "resampled[:, leader] - resampled[:, place]",
        "resampled[:, place] - resampled[:, leader]",
        (COMPARE,),
    ),
    Mutation(
        "search/report/intervals.py",
        "[2.5, 97.5]",
        "[5.0, 95.0]",
        (
            COMPARE,
            CERTAINTY,
            "tests/search/test_evaluate.py::test_an_interval_of_differences_holds_their_mean_and_needs_two_images",
        ),
    ),
    Mutation(
        "search/certainty.py",
        "freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(other) - 1))",
        "freedom = len(one) + len(other) - 2",
        (CERTAINTY,),
    ),
    Mutation(
        "search/certainty.py",
        "(drawn[:, rivals] <= drawn[:, [place]])",
        "(drawn[:, rivals] < drawn[:, [place]])",
        (CERTAINTY,),
    ),
    Mutation(
        "search/calibration/statistics.py",
        "b = np.sign(x[:, None] - x[None]), np.sign(y[:, None] - y[None])",
        "b = np.sign(x[:, None] - x[None]), np.abs(np.sign(y[:, None] - y[None]))",
        (CALIBRATION,),
    ),
    Mutation("search/study/patience.py", "if grown > volume * (1 + GROWTH):", "if grown > volume:", (PATIENCE,)),
    # samplers and schedulers
    Mutation(
        "search/samplers/spread.py", "stable_hash([parameter.name, lap])", "stable_hash([parameter.name])", (SAMPLERS,)
    ),
    Mutation(
        "search/samplers/guided.py", "ndtr((np.log2(limit) - expected.mean) / expected.deviation)", "1.0", (SAMPLERS,)
    ),
    Mutation(
        "search/samplers/known.py",
        "gains[len(trial.measurements) - 1 :]",
        "gains[len(trial.measurements) :]",
        (SAMPLERS,),
    ),
    Mutation("search/samplers/evolution.py", "[-POPULATION:]", "[:POPULATION]", (SAMPLERS,)),
    Mutation(
        "search/samplers/improvement.py",
        "best = min(float(front.min()), float(reference[0]))",
        "best = float(reference[0])",
        (SAMPLERS,),
    ),
    Mutation("search/schedulers.py", "[-t.scores[screening.score],", "[t.scores[screening.score],", (SCHEDULERS,)),
    Mutation(
        "search/schedulers.py",
        "(ranks[i], -crowding[i], numbers[i])",
        "(ranks[i], crowding[i], numbers[i])",
        (SCHEDULERS,),
    ),
    Mutation(
        "search/study/trainings.py",
        "len(gone_on) + 1 > self._problem.proxy.keep",
        "len(gone_on) > self._problem.proxy.keep",
        (ASYNCHRONOUS,),
    ),
    # store
    Mutation("search/store/journal.py", "os.truncate(self._path, whole)", "pass", (f"{ENGINE}faults.py", STORE)),
    Mutation("search/store/journal.py", "if self._path.stat().st_size != self._reader.end:", "if False:", (STORE,)),
    Mutation("search/store/journal.py", "            file.truncate(start)\n", "            pass\n", (STORE,)),
    # budget and presets
    Mutation(
        "search/presets/budget.py",
        "cost.latency.high_ms if name",
        "cost.latency.median_ms if name",
        (f"{PRESETS}::test_a_missed_limit_refuses_with_the_figures_unless_the_latency_is_in_doubt",),
    ),
    Mutation(
        "search/presets/budget.py",
        "value is None or value <= limit",
        "value is None or value < limit",
        (f"{PRESETS}::test_a_missed_limit_refuses_with_the_figures_unless_the_latency_is_in_doubt",),
    ),
    Mutation(
        "search/presets/exporting.py",
        "if abs(psnr_db - recorded) > SAME_PSNR_DB:",
        "if psnr_db - recorded > SAME_PSNR_DB:",
        (f"{PRESETS}::test_weights_that_score_otherwise_than_their_trial_are_not_exported",),
    ),
    Mutation(
        "search/presets/verifying.py",
        "same=abs(difference) < 0.5 * 10**-digits",
        "same=difference < 0.5 * 10**-digits",
        (f"{PRESETS}::test_a_count_differs_in_its_last_recorded_digit_in_either_direction",),
    ),
    Mutation(
        "search/report/selection.py",
        "(_known(t, quality), -t.number)",
        "(-_known(t, quality), -t.number)",
        (SELECTION,),
    ),
    # export, fusion, tiling
    Mutation("hfir/export.py", 'if check.max_difference >= 0 else float("inf")', "", CHECKED_FILES),
    Mutation("hfir/export.py", "bias[expert] += _PUSH\n", "bias[0] += _PUSH\n", CHECKED_FILES),
    Mutation("hfir/blocks/folding.py", "copy.deepcopy(self).double()", "copy.deepcopy(self).half()", (FUSION,)),
    Mutation("hfir/config.py", "sides.append(DFT_PX)", "sides.append(1)", (TILING, CONFIG)),
    Mutation("hfir/tiling.py", "fall = 1 - _rise(", "fall = _rise(", (TILING,)),
    Mutation("hfir/tiling.py", "begin = start + (overlap_px - width) // 2", "begin = start", (TILING,)),
    # training
    Mutation("hfir/losses.py", "return num_experts * (share *", "return (share *", (LOSSES,)),
    Mutation(
        "search/evaluation/proxy.py",
        "(1 + self.step) / (10 + self.step)",
        "(1 + self.step) / (2 + self.step)",
        PROXY,
    ),
    Mutation(
        "search/evaluation/proxy.py",
        "(self.step + 1) / max(1, self.plan.warmup_steps)",
        "self.step / max(1, self.plan.warmup_steps)",
        PROXY,
    ),
    Mutation("search/evaluation/proxy.py", "losses[-max(1, (step - first) // TAIL) :]", "losses", PROXY),
    Mutation(
        "search/evaluation/flat.py",
        "torch.nn.utils.clip_grad_norm_([piece.weights for piece in self._pieces], self._clip, foreach=True)",
        "[torch.nn.utils.clip_grad_norm_([piece.weights], self._clip) for piece in self._pieces]",
        (FLAT,),
    ),
    Mutation(
        "search/training/plan.py",
        "max(1, self.steps - 1 - warmup)",
        "max(1, self.steps - warmup)",
        (f"{TRAINING}::test_the_rate_warms_up_and_falls_along_a_cosine",),
    ),
    Mutation(
        "search/training/average.py",
        "average.lerp_(value, 1 - decay)",
        "average.lerp_(value, decay)",
        (f"{TRAINING}::test_the_average_warms_up_and_includes_buffers",),
    ),
    Mutation(
        "search/training/trainer.py",
        "row.psnr_db > self.best.psnr_db",
        "row.psnr_db < self.best.psnr_db",
        (
            f"{TRAINING}::test_a_training_that_goes_wrong_leaves_the_start_as_the_best",
            f"{TRAINING}::test_training_improves_on_its_start_and_says_by_how_much",
        ),
    ),
]
"""Where a wrong number would reach a user."""

MUTATIONS = [*NETWORK, *ASKED, *OTHERS]


class Tree:
    """A temporary copy of the tree, in which one file at a time is changed.

    Args:
        folder: Where to make it; empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__")
        for name in (*COPIED, SHIPPED):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy2(source, folder / name)

    def write(self, file: str, text: str) -> None:
        """Write a source file, and forget what was compiled of the one before."""
        path = self.folder / file
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()

    def run(self, tests: Sequence[str], timeout_s: float) -> int | None:
        """Return pytest's exit code, or None where the time was up; the output lies in `output.txt`."""
        process = multiprocessing.get_context("fork").Process(target=_test, args=(self.folder, list(tests)))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None and process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return None
        return process.exitcode

    def output(self) -> str:
        """Return the end of what the last run printed."""
        return (self.folder / "output.txt").read_text(errors="replace")[-2000:]


def _test(folder: Path, tests: list[str]) -> None:
    """Run tests in a copy of the tree; in a process of its own, which this ends."""
    import pytest

    os.setsid()
    os.chdir(folder)
    with (folder / "output.txt").open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output.fileno(), stream.fileno())
    os.environ["PYTHONPATH"] = str(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "benchmarks"))]
    os._exit(int(pytest.main([*OPTIONS, *tests])))


def changed(tree: Tree, mutation: Mutation) -> tuple[str, str]:
    """Return a file's text before and after; refuse a text that does not occur exactly once."""
    before = (tree.folder / mutation.file).read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.file}: {mutation.old!r} occurs {before.count(mutation.old)} times. It must occur exactly once: "
            "bring the table in line with the code."
        )
    return before, before.replace(mutation.old, mutation.new)


def judged(tree: Tree, mutation: Mutation, timeout_s: float) -> str:
    """Return `killed`, `killed (time)` or `survived`."""
    before, after = changed(tree, mutation)
    tree.write(mutation.file, after)
    try:
        code = tree.run(mutation.tests, timeout_s)
    finally:
        tree.write(mutation.file, before)
    if code is None:
        return "killed (time)"
    if code not in (0, *KILLED):
        raise SystemExit(f"{mutation.tests}: pytest ended with {code}.\n{tree.output()}")
    return "survived" if code == 0 else "killed"


def check_unchanged(tree: Tree, tests: Sequence[str], timeout_s: float) -> None:
    """Make sure that tests pass without any change."""
    code = tree.run(tests, timeout_s)
    if code != 0:
        raise SystemExit(f"{' '.join(tests)}: fails without any change ({code}).\n{tree.output()}")


def shown(mutation: Mutation) -> str:
    """Return an entry as one line."""
    old, new = (" ".join(text.split()) for text in (mutation.old, mutation.new))
    return f"{mutation.file}: {old} -> {new or 'nothing'}"[:QUEUE]


def chosen(only: str, part: str) -> list[Mutation]:
    """Return the entries whose line or tests contain a text; of these, a part such as 1/4."""
    found = [m for m in MUTATIONS if only in shown(m) or any(only in test for test in m.tests)]
    found.sort(key=lambda m: m.tests)  # a part needs few test files
    number, of = map(int, part.split("/"))
    return found[len(found) * (number - 1) // of : len(found) * number // of]


def main() -> None:
    """Print a line for each mutation, and the share that was killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="entries whose file, text or tests contain this")
    parser.add_argument("--part", default="1/1", help="the first of four parts of these: 1/4")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for the tests of one entry")
    parser.add_argument("--list", action="store_true", help="print the entries and run nothing")
    args = parser.parse_args()
    mutations = chosen(args.only, args.part)
    if args.list:
        print("\n".join(map(shown, mutations)))
        return
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", CI="true", PYTHONPATH=str(ROOT))
    for name in PRELOADED:
        import_module(name)
    verdicts: list[tuple[Mutation, str]] = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as temporary:
        tree = Tree(Path(temporary) / "tree")
        check_unchanged(tree, list(dict.fromkeys(test for m in mutations for test in m.tests)), 5 * args.timeout)
        for mutation in mutations:
            begin = time.monotonic()
            verdicts.append((mutation, judged(tree, mutation, args.timeout)))
            print(f"{verdicts[-1][1]:13} {time.monotonic() - begin:5.1f} s  {shown(mutation)}", flush=True)
    counted = [verdict for mutation, verdict in verdicts if not mutation.equivalent]
    killed = sum(verdict != "survived" for verdict in counted)
    print(f"killed: {killed} of {len(counted)} ({killed / max(1, len(counted)):.0%})")
    for mutation, verdict in verdicts:
        if verdict == "survived":
            print(
                f"survived: {shown(mutation)}"
                + (f" (equivalent: {mutation.equivalent})" if mutation.equivalent else "")
            )
        elif mutation.equivalent:
            print(f"not equivalent after all: {shown(mutation)}")


if __name__ == "__main__":
    main()
