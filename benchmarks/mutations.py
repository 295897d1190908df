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
LINE = 200
"""Characters of an entry that a line of the table shows."""


class Mutation(NamedTuple):
    """One wrong piece of code, and the tests that should notice."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""
    """Why the code computes the same; empty where it does not."""


def at(file: str, *names: str) -> tuple[str, ...]:
    """Return tests of a file by their names, the first `test_` left out; all of the file where none is named."""
    path = f"tests/{file}.py"
    return tuple(f"{path}::test_{name}" for name in names) or (path,)


OUTPUTS = at("hfir/test_golden", "a_network_keeps_its_output")
CHECKED_FILES = at(
    "hfir/test_export",
    "one_size_that_comes_out_as_no_number_is_enough_to_refuse",
    "a_pushed_router_sends_every_image_to_one_expert_and_the_next",
)
TRAININGS = at(
    "search/engine/test_references",
    "a_candidates_figures_are_bit_for_bit_what_they_were",
    "the_reported_loss_is_the_mean_over_the_last_tenth_of_the_steps",
)
LATENCY = at(
    "search/engine/test_latency",
    "the_interval_of_the_median_by_hand",
    "scripted_busy_blocks_do_not_count_and_more_are_timed",
    "scripted_a_rest_that_is_a_little_slow_is_allowed_for",
    "an_untrusted_figure_is_the_median_of_its_blocks_and_the_middle_of_them_its_interval",
    "scripted_a_machine_that_stays_busy_gives_an_untrusted_figure_without_what_the_reference_lost",
    "a_session_is_remembered_by_the_lower_quartile_of_its_blocks",
)
OVER_BUDGET = "a_missed_limit_refuses_with_the_figures_unless_the_latency_is_in_doubt"

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
    Mutation("hfir/blocks/moe.py", "y = y if inside is None else y * inside.to(y.dtype)", "y = y", OUTPUTS),
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
    Mutation(
        "search/pareto.py",
        "np.sqrt((scaled**2).sum(axis=1))",
        "scaled.max(axis=1)",
        at("search/test_pareto", "the_knee_is_nearest_by_the_euclidean_distance"),
    ),
    Mutation(
        "search/schedulers.py",
        "quota = math.ceil(keep * len(members))",
        "quota = max(1, int(keep * len(members)))",
        at("search/engine/test_schedulers", "the_share_that_goes_on_is_rounded_up"),
    ),
    Mutation(
        "search/schedulers.py",
        "and t.state is TrialState.RUNNING]",
        "and t.state is not TrialState.COMPLETE]",
        at("search/engine/test_schedulers", "stopped_candidates_keep_their_place_but_are_not_sent_again"),
    ),
    Mutation(
        "search/study/bounds.py",
        "[trial] if left >= 0 else []",
        "[trial] if left > 0 else []",
        at("search/engine/test_budgets", "steps_are_spent_to_the_last_one"),
    ),
    Mutation(
        "search/study/bounds.py",
        "left < self._problem.proxy.rungs[0]",
        "left <= self._problem.proxy.rungs[0]",
        at("search/engine/test_budgets", "steps_are_spent_where_the_first_rung_takes_more_than_is_left"),
    ),
    Mutation(
        "search/study/bounds.py",
        'key=lambda t: -(t.value("latency_ms") or 0.0)',
        'key=lambda t: t.value("latency_ms") or 0.0',
        at("search/engine/test_budgets", "the_slowest_are_trained_first_so_that_no_worker_ends_late"),
    ),
    Mutation(
        "search/study/bounds.py",
        "self.elapsed_s >= self._rules.time_s",
        "self.elapsed_s > self._rules.time_s",
        at("search/engine/test_budgets", "time_is_spent_at_its_end"),
    ),
    Mutation(
        "search/evaluation/quality.py",
        "min(float(10 * np.log10(255.0**2 / mse)), PSNR_CAP_DB)",
        "float(10 * np.log10(255.0**2 / mse))",
        at("search/test_quality", "a_psnr_above_the_cap_is_reported_as_the_cap"),
    ),
    Mutation(
        "search/tasks/degradations.py",
        'subsampling="4:2:0"\n',
        'subsampling="4:2:2"\n',
        at("search/test_tasks_degradations", "jpeg_halves_the_resolution_of_chroma_in_both_directions"),
    ),
    Mutation(
        "search/tasks/degradations.py",
        "rng.uniform(0, 180, size",
        "rng.uniform(0, 90, size",
        at("search/test_tasks_blurs", "a_motion_that_is_drawn_takes_every_direction"),
    ),
    Mutation(
        "search/presets/verifying.py",
        "same = abs(share) <= SAME_LATENCY or not apart",
        "same = True",
        at("search/engine/test_presets", "a_latency_differs_by_more_than_a_tenth_and_beyond_both_intervals"),
    ),
    Mutation(
        "search/store/journal.py",
        "                    os.fsync(file.fileno())\n",
        "",
        at("search/engine/test_store", "a_record_is_on_the_disk_when_it_was_made"),
    ),
]
"""Mutations that once survived."""

OTHERS = [
    # measuring
    Mutation(
        "search/evaluation/latency.py", "(ordered[(n - 1) // 2] + ordered[n // 2]) / 2", "ordered[n // 2]", LATENCY
    ),
    Mutation(
        "search/evaluation/latency.py",
        "max(self.before_ms, self.after_ms) <=",
        "min(self.before_ms, self.after_ms) <=",
        LATENCY,
    ),
    Mutation(
        "search/evaluation/latency.py",
        "return [time_ms * share for time_ms",
        "return [time_ms / share for time_ms",
        LATENCY,
    ),
    Mutation("search/evaluation/latency.py", "reach = 0.98 * math.sqrt(n)", "reach = 0.49 * math.sqrt(n)", LATENCY),
    Mutation("search/evaluation/reference.py", "len(blocks_ms) // 4", "len(blocks_ms) // 2", LATENCY),
    Mutation(
        "search/evaluation/evaluator.py",
        "else cost.latency.high_ms",
        "else cost.latency.median_ms",
        at("search/test_limits"),
    ),
    Mutation(
        "search/evaluation/evaluator.py", "return any(margin > 0", "return any(margin >= 0", at("search/test_limits")
    ),
    # counting
    Mutation(
        "search/evaluation/counting.py",
        "image.numel() if transposed else out.numel()",
        "out.numel()",
        at("search/test_counting", "a_strided_and_a_transposed_convolution_by_hand"),
    ),
    Mutation(
        "search/evaluation/counting.py",
        "scores * (query.shape[-1] + value.shape[-1])",
        "scores * 2 * query.shape[-1]",
        at(
            "search/test_counting",
            "fused_attention_counts_like_attention_written_out",
            "attention_with_wider_values_by_hand",
        ),
    ),
    Mutation(
        "search/evaluation/cost.py",
        "(experts - mixture.config.top_k) / experts",
        "mixture.config.top_k / experts",
        at("search/test_cost", "three_of_four_experts_are_idle"),
    ),
    Mutation(
        "search/evaluation/cost.py",
        "peak = max(peak, held)",
        "peak = held",
        at("search/test_cost", "peak_memory_sees_the_widest_moment"),
    ),
    Mutation(
        "search/evaluation/cost.py",
        "math.ceil(h / ROUTING_PX)",
        "(h // ROUTING_PX)",
        at("search/test_counting", "a_mixture_by_hand", "each_window_that_is_begun_is_routed"),
    ),
    # quality and data
    Mutation(
        "search/evaluation/quality.py",
        "enlarges and channels == 3 and not rgb",
        "channels == 3 and not rgb",
        at("search/test_quality", "super_resolution_is_scored_on_luma_without_border_and_restoration_on_rgb"),
    ),
    Mutation(
        "search/evaluation/quality.py",
        "Convention(upscale if enlarges else 0,",
        "Convention(0,",
        at("search/test_quality", "super_resolution_is_scored_on_luma_without_border_and_restoration_on_rgb"),
    ),
    Mutation(
        "search/evaluation/quality.py",
        "use_sample_covariance=False",
        "use_sample_covariance=True",
        at("search/test_quality", "ssim_agrees_with_its_formula_at_the_only_position_of_a_single_window"),
    ),
    Mutation(
        "search/tasks/colour.py",
        "return round_to_uint8(rgb_to_y(pixels))",
        "return rgb_to_y(pixels).astype(np.uint8)",
        at("search/test_quality", "luma_squeezes_an_error_by_219_of_255_and_rounds"),
    ),
    Mutation(
        "search/tasks/resize.py",
        "stretch = min(scale, 1.0)",
        "stretch = 1.0",
        at("search/test_tasks_resize", "shrinking_an_impulse_by_two_stretches_the_kernel_over_eight_pixels"),
    ),
    Mutation(
        "search/tasks/degradations.py",
        "np.float32(sigma / 255)",
        "np.float32(sigma / 256)",
        at("search/test_tasks_degradations", "noise_has_its_strength_and_is_neither_clipped_nor_rounded"),
    ),
    Mutation(
        "search/tasks/patches.py",
        "SeedSequence([self._seed, step])",
        "SeedSequence([self._seed])",
        at("search/test_tasks_dataset", "a_batch_is_a_pure_function_of_seed_and_step"),
    ),
    Mutation(
        "search/tasks/patches.py",
        "turn = int(draws[3] * 8)",
        "turn = int(draws[3] * 4)",
        at("search/test_tasks_dataset", "all_positions_and_all_eight_turns_occur"),
    ),
    Mutation(
        "search/tasks/pairs.py",
        "(full - kept) // 2 // multiple * multiple",
        "(full - kept) // 2",
        at(
            "search/test_tasks_dataset",
            "cropped_pairs_still_show_the_same_place",
            "a_large_validation_photo_is_cropped_to_its_centre_and_said",
        ),
    ),
    # fronts and choices
    Mutation(
        "search/pareto.py",
        "distance[order[[0, -1]]] = np.inf",
        "distance[order[[0]]] = np.inf",
        at("search/test_pareto", "both_ends_of_every_objective_are_infinitely_far_apart"),
    ),
    Mutation(
        "search/pareto.py",
        "sign * value\n",
        "value\n",
        at("search/test_pareto", "the_matrix_flips_what_is_to_be_maximised"),
    ),
    Mutation(
        "search/report/wishes.py",
        "trial.cost.latency.high_ms if self.is_upper else trial.cost.latency.low_ms",
        "trial.cost.latency.high_ms",
        at("search/test_report_selection", "the_lower_end_of_a_latency_must_lie_within_a_range"),
    ),
    Mutation(
        "search/report/preference.py",
        "float(max(row)) for",
        "float(sum(row)) for",
        at("search/test_report_selection", "distances_are_those_worked_out_by_hand"),
    ),
    Mutation(
        "search/report/compare.py",
        "resampled[:, leader] - resampled[:, place]",
        "resampled[:, place] - resampled[:, leader]",
        at("search/test_compare", "the_interval_follows_the_images_and_that_of_the_difference_is_paired"),
    ),
    Mutation(
        "search/report/intervals.py",
        "[2.5, 97.5]",
        "[5.0, 95.0]",
        at("search/test_evaluate", "an_interval_of_differences_holds_their_mean_and_needs_two_images")
        + at("search/test_certainty", "an_interval_is_the_middle_95_percent_of_the_resamples"),
    ),
    Mutation(
        "search/certainty.py",
        "freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(other) - 1))",
        "freedom = len(one) + len(other) - 2",
        at("search/test_certainty", "intervals_are_those_of_scipy"),
    ),
    Mutation(
        "search/certainty.py",
        "(drawn[:, rivals] <= drawn[:, [place]])",
        "(drawn[:, rivals] < drawn[:, [place]])",
        at("search/test_certainty", "a_place_that_no_seed_endangers_is_certain_and_two_equals_share_it"),
    ),
    Mutation(
        "search/calibration/statistics.py",
        "b = np.sign(x[:, None] - x[None]), np.sign(y[:, None] - y[None])",
        "b = np.sign(x[:, None] - x[None]), np.abs(np.sign(y[:, None] - y[None]))",
        at("search/test_calibration", "tau_by_hand"),
    ),
    Mutation(
        "search/study/patience.py",
        "if grown > volume * (1 + GROWTH):",
        "if grown > volume:",
        at("search/test_patience", "a_growth_within_the_tolerance_is_none"),
    ),
    # samplers and schedulers
    Mutation(
        "search/samplers/spread.py",
        "stable_hash([parameter.name, lap])",
        "stable_hash([parameter.name])",
        at("search/test_samplers", "every_round_of_the_warm_up_has_an_order_of_its_own"),
    ),
    Mutation(
        "search/samplers/guided.py",
        "ndtr((np.log2(limit) - expected.mean) / expected.deviation)",
        "1.0",
        at("search/test_samplers", "auto_keeps_to_a_limit_that_most_points_miss"),
    ),
    Mutation(
        "search/samplers/known.py",
        "gains[len(trial.measurements) - 1 :]",
        "gains[len(trial.measurements) :]",
        at("search/test_samplers", "an_early_stop_is_judged_by_what_others_gained_from_there_on"),
    ),
    Mutation(
        "search/samplers/evolution.py",
        "[-POPULATION:]",
        "[:POPULATION]",
        at("search/test_samplers", "evolution_lets_only_the_youngest_have_children"),
    ),
    Mutation(
        "search/samplers/improvement.py",
        "best = min(float(front.min()), float(reference[0]))",
        "best = float(reference[0])",
        at("search/test_samplers", "improvement_is_what_the_hypervolume_grows_by"),
    ),
    Mutation(
        "search/schedulers.py",
        "[-t.scores[screening.score],",
        "[t.scores[screening.score],",
        at("search/engine/test_schedulers", "a_score_leaves_behind_what_is_as_dear_and_promises_less"),
    ),
    Mutation(
        "search/schedulers.py",
        "(ranks[i], -crowding[i], numbers[i])",
        "(ranks[i], crowding[i], numbers[i])",
        at("search/engine/test_schedulers", "the_cheapest_and_the_most_promising_go_on_before_those_between"),
    ),
    Mutation(
        "search/study/trainings.py",
        "len(gone_on) + 1 > self._problem.proxy.keep",
        "len(gone_on) > self._problem.proxy.keep",
        at("search/engine/test_asynchronous", "no_more_than_the_share_goes_on_ahead"),
    ),
    # store
    Mutation(
        "search/store/journal.py",
        "os.truncate(self._path, whole)",
        "pass",
        at("search/engine/test_store", "lines_that_were_written_in_part_are_taken_back"),
    ),
    Mutation(
        "search/store/journal.py",
        "if self._path.stat().st_size != self._reader.end:",
        "if False:",
        at("search/engine/test_store", "a_journal_that_another_program_writes_into_meanwhile_is_left_as_it_is"),
    ),
    Mutation(
        "search/store/journal.py",
        "            file.truncate(start)\n",
        "            pass\n",
        at(
            "search/engine/test_store",
            "a_journal_cut_anywhere_in_its_last_line_keeps_all_lines_before",
            "a_last_line_that_is_the_beginning_of_one_is_dropped_even_where_it_ends",
        ),
    ),
    # budget and presets
    Mutation(
        "search/presets/budget.py",
        "cost.latency.high_ms if name",
        "cost.latency.median_ms if name",
        at("search/engine/test_presets", OVER_BUDGET),
    ),
    Mutation(
        "search/presets/budget.py",
        "value is None or value <= limit",
        "value is None or value < limit",
        at("search/engine/test_presets", OVER_BUDGET),
    ),
    Mutation(
        "search/presets/exporting.py",
        "if abs(psnr_db - recorded) > SAME_PSNR_DB:",
        "if psnr_db - recorded > SAME_PSNR_DB:",
        at("search/engine/test_presets", "weights_that_score_otherwise_than_their_trial_are_not_exported"),
    ),
    Mutation(
        "search/presets/verifying.py",
        "same=abs(difference) < 0.5 * 10**-digits",
        "same=difference < 0.5 * 10**-digits",
        at("search/engine/test_presets", "a_count_differs_in_its_last_recorded_digit_in_either_direction"),
    ),
    Mutation(
        "search/report/selection.py",
        "(_known(t, quality), -t.number)",
        "(-_known(t, quality), -t.number)",
        at("search/test_report_selection", "the_presets_are_the_cheapest_the_knee_and_the_best"),
    ),
    # export, fusion, tiling
    Mutation("hfir/export.py", 'if check.max_difference >= 0 else float("inf")', "", CHECKED_FILES),
    Mutation("hfir/export.py", "bias[expert] += _PUSH\n", "bias[0] += _PUSH\n", CHECKED_FILES),
    Mutation(
        "hfir/blocks/folding.py",
        "copy.deepcopy(self).double()",
        "copy.deepcopy(self).half()",
        at("hfir/test_fusion", "folding_is_as_exact_as_fp32_can_be"),
    ),
    Mutation(
        "hfir/config.py",
        "sides.append(DFT_PX)",
        "sides.append(1)",
        at("hfir/test_tiling", "the_alignment_is_the_period_of_all_grids"),
    ),
    Mutation(
        "hfir/tiling.py",
        "fall = 1 - _rise(",
        "fall = _rise(",
        at("hfir/test_tiling", "weights_sum_to_one_everywhere_at_any_size"),
    ),
    Mutation(
        "hfir/tiling.py",
        "begin = start + (overlap_px - width) // 2",
        "begin = start",
        at("hfir/test_tiling", "what_the_cut_edge_spoils_is_thrown_away"),
    ),
    # training
    Mutation(
        "hfir/losses.py", "return num_experts * (share *", "return (share *", at("hfir/test_losses", "balance_by_hand")
    ),
    Mutation(
        "search/evaluation/proxy.py",
        "(1 + self.step) / (10 + self.step)",
        "(1 + self.step) / (2 + self.step)",
        TRAININGS,
    ),
    Mutation(
        "search/evaluation/proxy.py",
        "(self.step + 1) / max(1, self.plan.warmup_steps)",
        "self.step / max(1, self.plan.warmup_steps)",
        TRAININGS,
    ),
    Mutation("search/evaluation/proxy.py", "losses[-max(1, (step - first) // TAIL) :]", "losses", TRAININGS),
    Mutation(
        "search/evaluation/flat.py",
        "torch.nn.utils.clip_grad_norm_([piece.weights for piece in self._pieces], self._clip, foreach=True)",
        "[torch.nn.utils.clip_grad_norm_([piece.weights], self._clip) for piece in self._pieces]",
        at("search/engine/test_flat", "the_gradients_norm_is_over_all_parameters"),
    ),
    Mutation(
        "search/training/plan.py",
        "max(1, self.steps - 1 - warmup)",
        "max(1, self.steps - warmup)",
        at("search/test_training", "the_rate_warms_up_and_falls_along_a_cosine"),
    ),
    Mutation(
        "search/training/average.py",
        "average.lerp_(value, 1 - decay)",
        "average.lerp_(value, decay)",
        at("search/test_training", "the_average_warms_up_and_includes_buffers"),
    ),
    Mutation(
        "search/training/trainer.py",
        "row.psnr_db > self.best.psnr_db",
        "row.psnr_db < self.best.psnr_db",
        at("search/test_training", "training_improves_on_its_start_and_says_by_how_much"),
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

    os.setpgrp()
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
    """Return `killed`, `killed (time)`, `survived`, or `broken` where the changed code cannot be imported."""
    before, after = changed(tree, mutation)
    tree.write(mutation.file, after)
    try:
        code = tree.run(mutation.tests, timeout_s)
    finally:
        tree.write(mutation.file, before)
    if code is None:
        return "killed (time)"
    if code not in (0, *KILLED):
        return "broken"  # such as text that does not compile: the entry says nothing of the tests
    return "survived" if code == 0 else "killed"


def check_unchanged(tree: Tree, tests: Sequence[str], timeout_s: float) -> None:
    """Make sure that tests pass without any change."""
    code = tree.run(tests, timeout_s)
    if code != 0:
        raise SystemExit(f"{' '.join(tests)}: fails without any change ({code}).\n{tree.output()}")


def shown(mutation: Mutation) -> str:
    """Return an entry as one line."""
    old, new = (" ".join(text.split()) for text in (mutation.old, mutation.new))
    return f"{mutation.file}: {old} -> {new or 'nothing'}"[:LINE]


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
    killed = sum(verdict.startswith("killed") for verdict in counted)
    print(f"killed: {killed} of {len(counted)} ({killed / max(1, len(counted)):.0%})")
    for mutation, verdict in verdicts:
        if not verdict.startswith("killed"):
            print(
                f"{verdict}: {shown(mutation)}"
                + (f" (equivalent: {mutation.equivalent})" if mutation.equivalent else "")
            )
        elif mutation.equivalent:
            print(f"not equivalent after all: {shown(mutation)}")


if __name__ == "__main__":
    main()
