"""Does a candidate that inherits its nearest trained relative's weights show sooner what it is worth?

    python benchmarks/inheritance.py OUT                # 2 seeds x (12 parents, 48 children x 2 mappings); 9 min
    python benchmarks/inheritance.py OUT --limit 2      # so many parents and children, to try it
    python benchmarks/inheritance.py OUT --read         # the figures of what is recorded, nothing is trained

The judge is the table `ours`, in which every network was really trained: a child's true quality is its mean over the
table's seeds at the last rung, and what it shows from its own first weights stands there too. Parents are what a
search's warm-up would train (a Latin hypercube), to the last rung, with the table's recipe, patches and first weights;
by how much their figures stray from the table's is printed. Children are drawn from the other networks. A child's
parent is the one with the fewest differing parameters, of equals the one with the nearest MACs. Inherited are the
averaged weights, which the proxy measures; the optimiser and the average begin afresh.

Two mappings, after Net2Net (Chen et al., 2016, arXiv 1511.05641) and Once-for-All (Cai et al., 2020, arXiv
1908.09791): `leading` copies the leading slice of every tensor of the same name and rank, `aligned` the centre of
kernels and each half where two things lie one behind the other in an axis (gates, concatenations). What finds nothing
keeps its own first weights.

A record goes on where it was stopped: OUT/parents.jsonl, OUT/children.jsonl, and the parents' weights beside them.
OUT/figures.json holds what is printed. Intervals are 95 %, by a bootstrap over children; in brackets, for differences,
over families of one parent, for a parent's luck is its children's. Seconds are processor time of training steps, one
thread (a wait for whoever measures on the machine is none); the same steps from own first weights cost a child the
same. `charged` is the scratch child that gets a child's share of the parents' training besides, by the table's rungs,
linear in the logarithm of the steps between them. `restarted` is the scratch child at twice the steps: where half of
the children goes on, and goes on from own first weights so that last figures compare, both ways cost the same,
k + L/2 = 2k + (L - 2k)/2 steps a child. `within families` counts only pairs of children of one parent: what is left
without knowing how good the parent is, which costs nothing to know. `informed` is the scratch child's figure and the
parent's, each in standard deviations, added up: the same knowledge of the parent, without its weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from build_table import EXPERIMENT, VALIDATION_PX, append, read_lines  # pyright: ignore[reportMissingImports]

from search.calibration.statistics import kendall_tau
from search.evaluation.jobs import start_worker
from search.evaluation.proxy import ProxyTraining
from search.evaluation.quality import mean_quality
from search.experiment import Experiment, load_experiment
from search.samplers.request import Request
from search.samplers.spread import spread_point
from search.tabular.ours import load_ours
from search.tabular.table import Table
from search.tasks.dataset import TaskData, embedded_task
from search.tasks.degradations import DEGRADATIONS
from search.types import Genotype, stable_hash

PARENTS, CHILDREN = 12, 48
STEPS = (25, 50, 100)
MAPPINGS = ("leading", "aligned")
HALVES = ((".mix.0.", 0), (".mix.1.", 0), (".ffn.0.", 0), ("merge.weight", 1), (".fuses.", 1))
"""Parts of names, and the axis in which two halves lie one behind the other."""
RESAMPLES = 1000
COLUMNS = (
    ("seconds", "psnr_inherited_db", "psnr_scratch_db", "tau_inherited", "tau_scratch", "gain"),
    ("tau_charged", "gain_over_charged", "tau_restarted", "gain_over_restarted"),
    ("tau_informed", "gain_over_informed", "tau_within_inherited", "tau_within_scratch"),
    ("tau_elsewhere_inherited", "tau_elsewhere_scratch"),
    ("bias_distance_inherited", "bias_distance_scratch", "bias_parent_inherited", "bias_parent_scratch"),
)
"""What is printed side by side."""


def main() -> None:
    """Train what is not yet recorded, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the record")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the table; each draws its networks")
    parser.add_argument("--limit", type=int, default=None, help="so many parents and children a seed")
    parser.add_argument("--read", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = load_ours()
    if not options.read:
        start_worker()
        bench = Bench(options.out, table, load_experiment(EXPERIMENT))
        for seed in options.seeds:
            bench.run(seed, *(min(n, options.limit or n) for n in (PARENTS, CHILDREN)))
    figures = figures_of(table, list(read_lines(options.out / "parents.jsonl")), read_children(options.out))
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    show(figures)


# -- inheriting ------------------------------------------------------------------------------------


@torch.no_grad()
def inherit(child: nn.Module, parent: Mapping[str, Tensor], *, aligned: bool = False) -> float:
    """Overwrite a network's parameters by those of a relative, as far as names and shapes go.

    A parameter of equal name and rank takes the block that both have; the rest of it, and every other parameter, keeps
    its value. Buffers are the child's own.

    Args:
        child: Changed in place.
        parent: The relative's parameters by name.
        aligned: Take the centre of kernels, and each half of what lies one behind the other in an axis (`HALVES`),
            instead of the leading block.

    Returns:
        The share of the child's values that were inherited, in 0..1.
    """
    taken = 0
    for name, target in child.named_parameters():
        source = parent.get(name)
        if source is None or source.ndim != target.ndim:
            continue
        for into, out_of in _blocks(name, target.shape, source.shape, aligned):
            target[into] = source[out_of]
            taken += target[into].numel()
    return taken / sum(p.numel() for p in child.parameters())


def _blocks(
    name: str, child: Sequence[int], parent: Sequence[int], aligned: bool
) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return which blocks of the child are which of the parent."""
    sides = [min(pair) for pair in zip(child, parent, strict=True)]
    starts = [(0, 0)] * len(sides)
    if not aligned:
        return [_block(sides, starts)]
    for axis in range(2, len(sides)):
        starts[axis] = ((child[axis] - sides[axis]) // 2, (parent[axis] - sides[axis]) // 2)
    halved = next((axis for part, axis in HALVES if part in name and axis < len(sides)), None)
    if halved is None:
        return [_block(sides, starts)]
    sides[halved] //= 2
    second = list(starts)
    second[halved] = (child[halved] // 2, parent[halved] // 2)
    return [_block(sides, starts), _block(sides, second)]


def _block(sides: Sequence[int], starts: Sequence[tuple[int, int]]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    into = tuple(slice(own, own + side) for side, (own, _) in zip(sides, starts, strict=True))
    out_of = tuple(slice(other, other + side) for side, (_, other) in zip(sides, starts, strict=True))
    return into, out_of


# -- training --------------------------------------------------------------------------------------


class Bench:
    """Trains parents and children, and keeps what they reached.

    Args:
        out: Folder of the record.
        table: The judge.
        experiment: How the table was made.
    """

    def __init__(self, out: Path, table: Table, experiment: Experiment) -> None:
        self.out, self.table, self.experiment = out, table, experiment
        degrade = cast(Any, DEGRADATIONS["super_resolution"])(upscale=2)
        self.data: TaskData = embedded_task(degrade, channels=3, seed=0, max_validation_px=VALIDATION_PX)

    def run(self, seed: int, parents: int, children: int) -> None:
        """Train one seed's parents and children, apart from those that are recorded."""
        points = list(self.experiment.space.enumerate())
        chosen = self.warm_up(seed, parents)
        others = [p for p in points if p not in chosen]
        random.Random(seed).shuffle(others)
        for number, parent in enumerate(chosen):
            self._train_parent(seed, parent, f"seed {seed} parent {number + 1}/{parents}")
        done = {(c["seed"], c["key"], c["mapping"]) for c in read_children(self.out)}
        for number, child in enumerate(others[:children]):
            for mapping in MAPPINGS:
                if (seed, child.key, mapping) not in done:
                    self._train_child(seed, child, chosen, mapping, f"seed {seed} child {number + 1}/{children}")

    def warm_up(self, seed: int, count: int) -> list[Genotype]:
        """Return the distinct points that a search proposes before it looks at any result."""
        found: dict[str, Genotype] = {}
        index = 0
        while len(found) < count:
            space = self.experiment.space
            point = spread_point(Request(trials=(), space=space, objectives=("psnr_db",), run_seed=seed, index=index))
            found.setdefault(point.key, point)
            index += 1
        return list(found.values())

    def _train_parent(self, seed: int, parent: Genotype, what: str) -> None:
        weights = self._weights_of(seed, parent)
        if weights.is_file():
            return
        training = self._training(seed, parent)
        rungs = _through(training, self.table.steps[-1:])
        names = [name for name, _ in training.model.named_parameters()]
        with (self.out / "parents.jsonl").open("a", encoding="utf-8") as record:
            append(record, {"seed": seed, "key": parent.key, "rungs": rungs})
        torch.save(dict(zip(names, training.state()["average"], strict=True)), weights)
        print(f"{what}: {rungs[-1]['psnr_db']:.3f} dB, {rungs[-1]['spent_s']:.1f} s", flush=True)

    def _train_child(self, seed: int, child: Genotype, parents: Sequence[Genotype], mapping: str, what: str) -> None:
        parent = min(parents, key=lambda p: (self.distance(child, p), self._macs_between(child, p)))
        training = self._training(seed, child)
        began = time.process_time()
        weights = torch.load(self._weights_of(seed, parent), weights_only=True)
        share = inherit(training.model, weights, aligned=mapping == "aligned")
        training.resume(training.state() | {"average": list(training.model.parameters())})
        inherit_s = time.process_time() - began
        rungs = _through(training, STEPS)
        line = {
            "seed": seed,
            "key": child.key,
            "parent": parent.key,
            "distance": self.distance(child, parent),
            "mapping": mapping,
            "share": share,
            "inherit_s": inherit_s,
            "rungs": rungs,
        }
        with (self.out / "children.jsonl").open("a", encoding="utf-8") as record:
            append(record, line)
        print(f"{what} {mapping}: {rungs[-1]['psnr_db']:.3f} dB, {rungs[-1]['spent_s']:.1f} s", flush=True)

    def distance(self, one: Genotype, other: Genotype) -> int:
        """Return in how many decisions two networks differ; one that only one of them has differs."""
        decisions = [p.name for p in self.experiment.space.parameters if not p.is_fixed]
        return sum(one.values.get(name) != other.values.get(name) for name in decisions)

    def _macs_between(self, one: Genotype, other: Genotype) -> float:
        macs = self.table.costs["macs_g"]
        return abs(math.log2(macs[self.table.row_of[one.key]] / macs[self.table.row_of[other.key]]))

    def _training(self, seed: int, genotype: Genotype) -> ProxyTraining:
        """Return a training as the table's was: build_table.trained."""
        plan = replace(self.experiment.evaluation_plan().proxy, data_seed=seed)
        weights_seed = int(stable_hash([genotype.key, seed]), 16) % 2**31
        return ProxyTraining(self.experiment.decode(genotype), plan, self.data, weights_seed)

    def _weights_of(self, seed: int, parent: Genotype) -> Path:
        return self.out / f"parent-{seed}-{parent.key}.pt"


def _through(training: ProxyTraining, steps: Sequence[int]) -> list[dict[str, float]]:
    rungs: list[dict[str, float]] = []
    spent_s = 0.0
    for step in steps:
        began = time.process_time()
        training.run_to(step)
        spent_s += time.process_time() - began
        psnr_db = mean_quality(training.validate().qualities).psnr_db
        rungs.append({"step": step, "psnr_db": psnr_db, "spent_s": spent_s})
    return rungs


def read_children(out: Path) -> list[dict[str, Any]]:
    """Return what was recorded of children."""
    return list(read_lines(out / "children.jsonl"))


# -- figures ---------------------------------------------------------------------------------------


class Group(NamedTuple):
    """The children of one seed under one mapping, in one order for all mappings; arrays of n."""

    truth: np.ndarray
    """Mean over the table's seeds at the last rung, dB."""
    elsewhere: np.ndarray
    """The same without this group's seed: shares no luck with it."""
    inherited: dict[int, np.ndarray]
    """After so many steps from the parent's weights, dB."""
    scratch: dict[int, np.ndarray]
    """After so many steps from own first weights, dB."""
    restarted: dict[int, np.ndarray]
    """From own first weights after twice so many steps."""
    charged: dict[int, np.ndarray]
    """From own first weights, in the seconds of so many inherited steps and a share of the parents' training."""
    seconds: dict[int, float]
    """A child's mean, for so many inherited steps."""
    share_s: float
    """Of the parents' training, for each child."""
    parent_db: np.ndarray
    """What the parent reached."""
    macs: np.ndarray
    distance: np.ndarray
    families: np.ndarray
    """A number for each parent."""


def figures_of(
    table: Table, parents: Sequence[Mapping[str, Any]], children: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a record says."""
    rows = [table.row_of[p["key"]] for p in parents]
    strayed_db = [
        abs(p["rungs"][-1]["psnr_db"] - table.quality[row, p["seed"], -1]) for p, row in zip(parents, rows, strict=True)
    ]
    seeds = sorted({child["seed"] for child in children})
    figures: dict[str, Any] = {
        "seeds": seeds,
        "parents": len(parents),
        "children": len(children) // len(MAPPINGS),
        "parents_strayed_db": max(strayed_db),
        "torch": torch.__version__,
    }
    for mapping in MAPPINGS:
        groups = [_group(table, parents, children, seed, mapping) for seed in seeds]
        figures[mapping] = _mapping_figures(groups)
        figures[mapping]["share_of_values"] = _mean([c["share"] for c in children if c["mapping"] == mapping])
        figures[mapping]["inherit_s"] = _mean([c["inherit_s"] for c in children if c["mapping"] == mapping])
    return figures


def _group(
    table: Table,
    parents: Sequence[Mapping[str, Any]],
    children: Sequence[Mapping[str, Any]],
    seed: int,
    mapping: str,
) -> Group:
    own = sorted((c for c in children if (c["seed"], c["mapping"]) == (seed, mapping)), key=lambda c: c["key"])
    parent_of = {p["key"]: p["rungs"][-1] for p in parents if p["seed"] == seed}
    rows = [table.row_of[c["key"]] for c in own]
    quality = table.quality[rows]
    shown = {step: np.array([c["rungs"][i]["psnr_db"] for c in own]) for i, step in enumerate(STEPS)}
    seconds = {step: _mean([c["rungs"][i]["spent_s"] + c["inherit_s"] for c in own]) for i, step in enumerate(STEPS)}
    share_s = sum(p["spent_s"] for p in parent_of.values()) / len(own)
    step_s = _mean([c["rungs"][-1]["spent_s"] for c in own]) / STEPS[-1]
    names = sorted({c["parent"] for c in own})
    return Group(
        truth=table.true_quality[rows],
        elsewhere=np.delete(quality[:, :, -1], seed, axis=1).mean(axis=1),
        inherited=shown,
        scratch={step: quality[:, seed, table.steps.index(step)] for step in STEPS},
        restarted={step: quality[:, seed, table.steps.index(2 * step)] for step in STEPS},
        charged={step: _at(table, quality[:, seed], (seconds[step] + share_s) / step_s) for step in STEPS},
        seconds=seconds,
        share_s=share_s,
        parent_db=np.array([parent_of[c["parent"]]["psnr_db"] for c in own]),
        macs=table.costs["macs_g"][rows],
        distance=np.array([c["distance"] for c in own]),
        families=np.array([names.index(c["parent"]) for c in own]),
    )


def _at(table: Table, curves: np.ndarray, step: float) -> np.ndarray:
    """Return curves, [n, rungs], at a step between rungs."""
    places = np.log2(table.steps)
    return np.array([np.interp(math.log2(step), places, curve) for curve in curves])


def _mapping_figures(groups: Sequence[Group]) -> dict[str, Any]:
    draws = [_draws(len(g.truth), g.families) for g in groups]
    rows: list[dict[str, Any]] = []
    truth, distance, parent_db = ([getattr(g, name) for g in groups] for name in ("truth", "distance", "parent_db"))
    related = [np.stack([g.truth, g.families], axis=1) for g in groups]
    for step in STEPS:
        shown, scratch = [g.inherited[step] for g in groups], [g.scratch[step] for g in groups]
        informed = [_standard(s) + _standard(p) for s, p in zip(scratch, parent_db, strict=True)]
        charged, restarted = [g.charged[step] for g in groups], [g.restarted[step] for g in groups]
        rows.append(
            {
                "step": step,
                "seconds": _mean([g.seconds[step] for g in groups]),
                "psnr_inherited_db": _mean([s.mean() for s in shown]),
                "psnr_scratch_db": _mean([s.mean() for s in scratch]),
                "tau_inherited": _tau(shown, truth, draws),
                "tau_scratch": _tau(scratch, truth, draws),
                "tau_charged": _tau(charged, truth, draws),
                "tau_restarted": _tau(restarted, truth, draws),
                "gain": _gain(shown, scratch, truth, draws),
                "gain_over_charged": _gain(shown, charged, truth, draws),
                "gain_over_restarted": _gain(shown, restarted, truth, draws),
                "tau_informed": _tau(informed, truth, draws),
                "gain_over_informed": _gain(shown, informed, truth, draws),
                "tau_within_inherited": _tau(shown, related, draws, tau_within),
                "tau_within_scratch": _tau(scratch, related, draws, tau_within),
                "tau_elsewhere_inherited": _tau(shown, [g.elsewhere for g in groups], draws),
                "tau_elsewhere_scratch": _tau(scratch, [g.elsewhere for g in groups], draws),
                "bias_distance_inherited": _bias(groups, shown, distance, draws),
                "bias_distance_scratch": _bias(groups, scratch, distance, draws),
                "bias_parent_inherited": _bias(groups, shown, parent_db, draws),
                "bias_parent_scratch": _bias(groups, scratch, parent_db, draws),
            }
        )
    return {
        "truth_db": _mean([t.mean() for t in truth]),
        "share_s": _mean([g.share_s for g in groups]),
        "distance": _mean([g.distance.mean() for g in groups]),
        "families": [len(set(g.families)) for g in groups],
        "tau_parent": _tau(parent_db, truth, draws),
        "tau_parent_elsewhere": _tau(parent_db, [g.elsewhere for g in groups], draws),
        "tau_macs": _tau([g.macs for g in groups], truth, draws),
        "steps": rows,
    }


class Draws(NamedTuple):
    """Resamples of one group, each a list of positions."""

    children: list[np.ndarray]
    families: list[np.ndarray]


def _draws(count: int, families: np.ndarray) -> Draws:
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(families == family) for family in sorted(set(families))]
    return Draws(
        list(rng.integers(count, size=(RESAMPLES, count))),
        [
            np.concatenate([members[i] for i in picks])
            for picks in rng.integers(len(members), size=(RESAMPLES, len(members)))
        ],
    )


Arrays = Sequence[np.ndarray]
Figure = Callable[[np.ndarray, np.ndarray], float]


def tau_within(scores: np.ndarray, related: np.ndarray) -> float:
    """Return Kendall's tau over the pairs of one family; related: [n, 2] truths and families."""
    truth, families = related.T
    same = families[:, None] == families[None]
    a, b = (np.sign(x[:, None] - x[None]) * same for x in (scores, truth))
    scale = math.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else 0.0


def _tau(scores: Arrays, truth: Arrays, draws: Sequence[Draws], figure: Figure = kendall_tau) -> list[float]:
    """Return the mean tau over the groups, and its interval."""
    value = _mean([figure(s, t) for s, t in zip(scores, truth, strict=True)])
    return [value, *_interval(_resampled(figure, scores, truth, [d.children for d in draws]))]


def _gain(scores: Arrays, others: Arrays, truth: Arrays, draws: Sequence[Draws]) -> list[float]:
    """Return by how much the mean tau is larger; its interval over children, and over families."""
    value = _mean([kendall_tau(s, t) - kendall_tau(o, t) for s, o, t in zip(scores, others, truth, strict=True)])
    figures = [value]
    for picks in ([d.children for d in draws], [d.families for d in draws]):
        mine, theirs = (_resampled(kendall_tau, a, truth, picks) for a in (scores, others))
        figures += _interval(mine - theirs)
    return figures


def _bias(groups: Sequence[Group], scores: Arrays, causes: Arrays, draws: Sequence[Draws]) -> list[float]:
    """Return the correlation of what is shown too much or too little with a cause; interval over families."""
    residuals = [s - g.truth for s, g in zip(scores, groups, strict=True)]
    value = _mean([_rho(r, c) for r, c in zip(residuals, causes, strict=True)])
    return [value, *_interval(_resampled(_rho, residuals, causes, [d.families for d in draws]))]


def _rho(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation; 0 where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def _resampled(figure: Figure, ones: Arrays, others: Arrays, picks: Sequence[list[np.ndarray]]) -> np.ndarray:
    """Return the mean of a figure over the groups, for each resample."""
    return np.mean(
        [[figure(one[p], other[p]) for p in drawn] for one, other, drawn in zip(ones, others, picks, strict=True)],
        axis=0,
    )


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _interval(values: np.ndarray) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values))


def show(figures: Mapping[str, Any]) -> None:
    """Print the figures as tables."""
    print(
        f"\nseeds {figures['seeds']}: {figures['parents']} parents, {figures['children']} children; parents stray "
        f"{figures['parents_strayed_db']:.4f} dB from the table"
    )
    for mapping in MAPPINGS:
        held = figures[mapping]
        print(
            f"\n{mapping}: {held['share_of_values']:.0%} of the values inherited in {held['inherit_s'] * 1000:.0f} ms, "
            f"mean distance {held['distance']:.2f}, parents' share {held['share_s']:.2f} s a child, "
            f"true quality {held['truth_db']:.2f} dB\n"
            f"tau of the parent's quality {_said(held['tau_parent'])}, of MACs {_said(held['tau_macs'])}"
        )
        for names in COLUMNS:
            print("\n| step | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
            for row in held["steps"]:
                print(f"| {row['step']} | " + " | ".join(_said(row[name]) for name in names) + " |")


def _said(figure: float | Sequence[float]) -> str:
    if not isinstance(figure, Sequence):
        return f"{figure:.2f}"
    value, low, high, *families = figure
    more = f" [{families[0]:.2f}..{families[1]:.2f}]" if families else ""
    return f"{value:.2f} ({low:.2f}..{high:.2f}){more}"


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s")
