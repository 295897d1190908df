"""What an engineer would write today instead of this platform, and how long each takes to the same hypervolume.

python benchmarks/baseline_optuna.py efficient [--seeds 5] [--limit 10] [--set search.trials=24] [--out FILE.json]

The baseline: an Optuna multi-objective study with its default sampler; every trial trained for all steps of the last
rung by a plain PyTorch loop (DataLoader over random crops, AdamW, cosine rate, channels first, torch's own threads);
networks over the file's parameters or MACs pruned before training; latency as the mean of a loop of `perf_counter`.
It shares the network, the space and the photographs with the platform, and nothing else.

For each seed the platform runs first, as a user would run it (a process of its own, an empty cache, the file's
workers); its hypervolume at the end is the target. Then the baseline runs until it has reached that, or has spent
`--limit` times as long. Hypervolume over the file's objectives; the corner is bicubic's PSNR and the file's limits.
Both sides count from the start of their process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hfir import ConfigError, HFIRConfig, build_model, fuse
from search.evaluation.cost import count_macs_g, count_parameters
from search.evaluation.evaluator import task_data
from search.experiment import Experiment, load_experiment
from search.pareto import hypervolume
from search.space import Parameter
from search.tasks.pairs import TaskData
from search.types import Scalar

SIGNS = {"psnr_db": -1.0, "latency_ms": 1.0, "macs_g": 1.0, "params_m": 1.0}
Points = list[tuple[float, list[float]]]
"""Seconds since the start, and what a trial that ended then reached, to be minimised."""


# -- the baseline ------------------------------------------------------------------------------------


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of the training photographs, flipped at random; one epoch has `length` of them."""

    def __init__(self, data: TaskData, patch_px: int, length: int) -> None:
        self.photos = [p for p in data.train if min(p.prepared.shape[:2]) >= patch_px]
        self.upscale, self.patch, self.length = data.upscale, patch_px, length

    def __len__(self) -> int:
        """Return the crops of an epoch."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a crop of a network's input and what it should give."""
        photo = self.photos[int(torch.randint(len(self.photos), ()))]
        height, width = photo.prepared.shape[:2]
        top = int(torch.randint(height - self.patch + 1, ()))
        left = int(torch.randint(width - self.patch + 1, ()))
        low = _tensor(photo.prepared[top : top + self.patch, left : left + self.patch])
        side, y, x = self.patch * self.upscale, top * self.upscale, left * self.upscale
        high = _tensor(photo.clean[y : y + side, x : x + side])
        if torch.rand(()) < 0.5:
            low, high = low.flip(-1), high.flip(-1)
        return low, high


def _tensor(pixels: Any) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def train_plainly(model: nn.Module, data: TaskData, experiment: Experiment) -> None:
    """Train for all steps of the last rung."""
    proxy = experiment.proxy
    steps = proxy.rungs[-1]
    loader = DataLoader(Crops(data, proxy.patch_px, steps * proxy.batch), batch_size=proxy.batch, num_workers=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=proxy.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss_function = nn.L1Loss()
    model.train()
    for low, high in loader:
        optimiser.zero_grad()
        loss = loss_function(model(low), high)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def psnr_y(model: nn.Module, data: TaskData) -> float:
    """Return the mean PSNR on luma over the validation photographs, borders cut."""
    scores = []
    weights = torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 255
    with torch.no_grad():
        for pair in data.validation:
            low = torch.tensor(pair.degraded).permute(2, 0, 1)[None]
            restored = model(low)[0].clamp(0, 1).mul(255).round() / 255
            clean = _tensor(pair.clean)
            cut = data.upscale
            error = ((restored - clean) * weights).sum(0)[cut:-cut, cut:-cut] * 255
            scores.append(float(10 * torch.log10(255**2 / error.square().mean())))
    return statistics.mean(scores)


def mean_latency_ms(model: nn.Module, channels: int, width: int, height: int) -> float:
    """Return the mean time of 30 passes after 5."""
    image = torch.rand(1, channels, height, width)
    with torch.no_grad():
        for _ in range(5):
            model(image)
        start = time.perf_counter()
        for _ in range(30):
            model(image)
    return (time.perf_counter() - start) / 30 * 1000


def run_baseline(experiment: Experiment, seed: int, target: float, limit_s: float, record: Path) -> None:
    """Search until the target or the limit is reached, and write the points that were found."""
    start = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.manual_seed(seed)
    data = task_data(experiment.evaluation_plan().task)
    corner = corner_of(experiment, bicubic_db(data))
    points: Points = []

    def objective(trial: optuna.Trial) -> list[float]:
        genotype = experiment.space.grow(lambda parameter: suggested(trial, parameter))
        try:
            config = experiment.decode(genotype)
        except ConfigError as error:
            raise optuna.TrialPruned from error
        figures = affordable_figures(config, experiment)
        model = build_model(config)
        train_plainly(model, data, experiment)
        model = fuse(model).eval()
        at = experiment.budget.latency_at
        figures["latency_ms"] = mean_latency_ms(model, config.in_channels, at.width, at.height)
        figures["psnr_db"] = psnr_y(model, data)
        return [figures[name] for name in experiment.objectives]

    def note(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        spent = time.perf_counter() - start
        if trial.state is optuna.trial.TrialState.COMPLETE:
            pairs = zip(experiment.objectives, trial.values, strict=True)
            points.append((spent, [SIGNS[name] * value for name, value in pairs]))
            record.write_text(json.dumps(points), encoding="utf-8")
        if spent > limit_s or volume(points, corner) >= target:
            study.stop()

    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = [up if SIGNS[name] < 0 else down for name in experiment.objectives]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, callbacks=[note])


def suggested(trial: optuna.Trial, parameter: Parameter) -> Scalar:
    """Let Optuna choose one of a parameter's values."""
    chosen = trial.suggest_categorical(parameter.name, parameter.choices)
    return next(c for c in parameter.choices if type(c) is type(chosen) and c == chosen)


def affordable_figures(config: HFIRConfig, experiment: Experiment) -> dict[str, float]:
    """Return parameters and MACs; prune what is over the file's limits."""
    figures = {
        "params_m": count_parameters(config).deploy_m,
        "macs_g": count_macs_g(config, experiment.budget.macs_at),
    }
    limits = experiment.budget.limits()
    if any(figures[name] > limits.get(name, float("inf")) for name in figures):
        raise optuna.TrialPruned
    return figures


# -- the platform ------------------------------------------------------------------------------------


def run_platform(path: str, sets: list[str], seed: int, folder: Path) -> tuple[float, Points]:
    """Run the experiment as a user would, and return its seconds and what completed when."""
    command = [str(Path(sys.executable).with_name("hfir-search")), "run", path, "--out", str(folder), "--quiet"]
    for change in [*sets, f"search.seed={seed}"]:
        command += ["--set", change]
    with tempfile.TemporaryDirectory() as cache:
        begun = datetime.now(UTC)
        start = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | {"XDG_CACHE_HOME": cache}, stdout=subprocess.DEVNULL)
        spent = time.perf_counter() - start
    return spent, points_of(folder, begun)


def points_of(folder: Path, begun: datetime) -> Points:
    """Return what a run's complete trials reached, and when, from its journal."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    [name] = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    objectives = study.user_attrs["spec"]["objectives"]
    points: Points = []
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        ended = trial.datetime_complete
        assert ended is not None
        pairs = zip(objectives, trial.values, strict=True)
        spent = (ended.astimezone(UTC) - begun).total_seconds()
        points.append((spent, [SIGNS[name] * value for name, value in pairs]))
    return points


# -- both --------------------------------------------------------------------------------------------


def bicubic_db(data: TaskData) -> float:
    """Return what doing nothing scores, by the baseline's own measure."""
    enlarge = nn.Upsample(scale_factor=data.upscale, mode="bicubic", align_corners=False)
    return psnr_y(enlarge if data.upscale > 1 else nn.Identity(), data)


def corner_of(experiment: Experiment, bicubic: float) -> list[float]:
    """Return the worst point that still counts: bicubic's PSNR at the limits."""
    limits = experiment.budget.limits() | {"psnr_db": bicubic}
    return [SIGNS[name] * limits[name] for name in experiment.objectives]


def volume(points: Points, corner: list[float], until_s: float = float("inf")) -> float:
    """Return the hypervolume of what had ended by then."""
    reached = [values for spent, values in points if spent <= until_s]
    inside = [values for values in reached if all(v < c for v, c in zip(values, corner, strict=True))]
    return hypervolume(np.array(inside), corner) if inside else 0.0


def seconds_to(points: Points, corner: list[float], target: float) -> float | None:
    """Return when the target was reached; None if it was not."""
    times = sorted(spent for spent, _ in points)
    return next((t for t in times if volume(points, corner, t) >= target), None)


def compare(path: str, sets: list[str], seed: int, limit: float) -> dict[str, Any]:
    """Run both for one seed, and return the times to the platform's final hypervolume."""
    with tempfile.TemporaryDirectory() as scratch:
        ours_s, ours = run_platform(path, sets, seed, Path(scratch) / "run")
        experiment = load_experiment(path, [*sets, f"search.seed={seed}"])
        corner = corner_of(experiment, bicubic_db(task_data(experiment.evaluation_plan().task)))
        target = volume(ours, corner)
        record = Path(scratch) / "baseline.json"
        own = [sys.executable, __file__, path, "--baseline", str(record), "--seed", str(seed)]
        own += ["--target", repr(target), "--limit-s", repr(limit * ours_s)]
        for change in sets:
            own += ["--set", change]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
        start = time.perf_counter()
        subprocess.run(own, check=True, env=environment)
        baseline_s = time.perf_counter() - start
        baseline: Points = [(t, v) for t, v in json.loads(record.read_text())] if record.is_file() else []
    reached = seconds_to(ours, corner, target)
    return {
        "seed": seed,
        "ours_s": round(ours_s, 1),
        "ours_reached_s": None if reached is None else round(reached, 1),
        "ours_trials": len(ours),
        "hypervolume": target,
        "baseline_reached_s": seconds_to(baseline, corner, target),
        "baseline_spent_s": round(baseline_s, 1),
        "baseline_trials": len(baseline),
        "baseline_share": volume(baseline, corner) / target if target else 0.0,
    }


def main() -> None:
    """Compare, or be the baseline's process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=10.0, help="stop the baseline after so many times our time")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--baseline", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=float, default=float("inf"), help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=float("inf"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.baseline is not None:
        experiment = load_experiment(args.experiment, [*args.sets, f"search.seed={args.seed}"])
        run_baseline(experiment, args.seed, args.target, args.limit_s, args.baseline)
        return
    rows = []
    for seed in range(args.seeds):
        rows.append(compare(args.experiment, args.sets, seed, args.limit))
        print(json.dumps(rows[-1]), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps({"torch": torch.__version__, "runs": rows}, indent=1) + "\n")
    ratios = [(r["baseline_reached_s"] or r["baseline_spent_s"]) / r["ours_s"] for r in rows]
    missed = sum(r["baseline_reached_s"] is None for r in rows)
    print(f"median {statistics.median(ratios):.1f} x our time over {len(rows)} seeds; stopped short: {missed}")


if __name__ == "__main__":
    main()
