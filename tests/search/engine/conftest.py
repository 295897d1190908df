"""A run that is real but for its latencies, and small: tiny networks, tiny photographs, a handful of steps.

Finished runs are made once for all processes of a session (`ran`) and copied where a test changes them (`copy_of`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from filelock import FileLock
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from search.cli import checking, presets, running
from search.cli.app import app
from search.evaluation import latency, reference
from search.evaluation.answers import Evaluator
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.store import RunStore, hold, read_study
from search.study import References, Rules, SearchRun
from search.types import Study, stable_hash

TINY = """
name: tiny
task: {{kind: super_resolution, upscale: 2, data: {{train: {photos}/train, validation: {photos}/validation}}}}
space:
  width: [4, 8]
  levels: [1, 2]
  encoder_blocks: 1
  bottleneck_blocks: [0, 1]
  decoder_blocks: 0
  mixer: [naf, large_kernel]
  kernel_size: [3, 5]
  num_experts: [1, 2]
budget: {{params_m: 0.02, macs_g: {{max: 1.0, at: [64, 64]}}, latency_ms: {{max: 5000, at: [24, 24]}}}}
objectives: [psnr_db, macs_g, params_m]
proxy: {{rungs: [2, 4, 6], keep: 0.5, batch: 2, patch_px: 12, learning_rate: 0.004}}
search: {{sampler: auto, trials: 6, seed: 3, generation: 3}}
"""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that has a folder made once, by whichever process of the session asks first."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / f"once-{name}", shared / f"once-{name}.done"
        with FileLock(shared / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed at it
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def photos(made_once: Callable[..., Path]) -> Path:
    """Return a folder of small crops of a real photograph."""
    from skimage import data

    def make(folder: Path) -> None:
        pixels = np.asarray(data.astronaut())
        for part, tops in (("train", (0, 100, 200)), ("validation", (300, 400))):
            (folder / part).mkdir()
            for top in tops:
                Image.fromarray(pixels[top : top + 64, top : top + 64]).save(folder / part / f"{top}.png")

    return made_once("photos", make)


@pytest.fixture(scope="session")
def tiny_file(photos: Path, made_once: Callable[..., Path]) -> Path:
    """Return the experiment file of the tiny run."""
    text = TINY.format(photos=photos.as_posix())
    return made_once("spaces", lambda folder: (folder / "tiny.yaml").write_text(text)) / "tiny.yaml"


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> Callable[..., Experiment]:
    """Return a loader of the tiny experiment, with changes."""
    return lambda *changes: load_experiment(tiny_file, changes)


def run_in(
    folder: Path,
    experiment: Experiment,
    executor: Executor | None = None,
    evaluator: Evaluator | None = None,
    **options: object,
) -> Study:
    with hold(folder):
        store = open_store(experiment, folder)
        asked = evaluator or ProxyEvaluator(experiment.evaluation_plan())
        references = References(experiment.references, store, rungs=experiment.proxy.rungs, seed=experiment.search.seed)
        options |= {"references": references}
        return SearchRun(experiment, asked, store, executor or InlineExecutor(), **options).run()  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="session")
def run_at() -> Callable[..., Study]:
    """Return a function that runs an experiment in a folder."""
    return run_in


@pytest.fixture
def search_in(tmp_path: Path) -> Callable[..., Study]:
    """Return a function that runs an experiment in a folder under `tmp_path`."""

    def run(experiment: Experiment, name: str, executor: Executor | None = None, **options: object) -> Study:
        return run_in(tmp_path / name, experiment, executor, **options)

    return run


@pytest.fixture(scope="session")
def ran(tiny: Callable[..., Experiment], made_once: Callable[..., Path]) -> Callable[..., Study]:
    """Return a function that gives the tiny run with changes, from beginning to end; look, do not touch."""

    def run(*changes: str, rules: Rules | None = None) -> Study:
        name = stable_hash([*changes, repr(rules)])
        return read_study(made_once(f"run-{name}", lambda folder: run_in(folder, tiny(*changes), rules=rules)))

    return run


@pytest.fixture
def copy_of(ran: Callable[..., Study], tmp_path: Path) -> Callable[..., Study]:
    """Return a function that gives a copy of such a run under `tmp_path`, as the command line leaves it."""

    def copy(name: str, *changes: str, rules: Rules | None = None) -> Study:
        finished = ran(*changes, rules=rules)
        folder = Path(shutil.copytree(finished.folder, tmp_path / name))
        YAML().dump(finished.spec, folder / "experiment.yaml")
        return read_study(folder)

    return copy


@pytest.fixture(scope="session")
def unbroken(ran: Callable[..., Study]) -> Study:
    """Return the tiny run, run once from beginning to end; look, do not touch."""
    return ran()


def open_store(experiment: Experiment, folder: Path) -> RunStore:
    return RunStore(
        folder,
        name=experiment.name,
        objectives=experiment.objectives,
        identity=experiment.identity,
        spec=experiment.spec,
        earlier_identity=experiment.earlier_identity,
    )


@pytest.fixture
def store_of() -> Callable[[Experiment, Path], RunStore]:
    return open_store


@pytest.fixture
def two_workers() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(2, start_worker)
    yield executor
    executor.close()


class InThisProcess(InlineExecutor):
    """Stands for the workers of a command that is called in this process."""

    def __init__(self, workers: int, start: Callable[[], None], **options: object) -> None:
        pass

    def start(self) -> None:
        """Do nothing: there are no workers."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return the command line, called in this process, where its workers are as well."""
    for module in (checking, presets, running):
        monkeypatch.setattr(module, "ProcessExecutor", InThisProcess)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return invoke


class Interrupting(InlineExecutor):
    """Runs so many jobs, then is interrupted as if by Ctrl-C."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs

    def run(self, function: Callable, jobs: Iterable) -> Iterator:
        for outcome in super().run(function, jobs):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield outcome


@pytest.fixture
def interrupted_after() -> Callable[[int], Executor]:
    return Interrupting


@pytest.fixture(scope="session", autouse=True)
def brief_latencies() -> Iterator[None]:
    """Take latencies as always, but be content early: here it matters that they are taken, not how well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "TOLERANCE", 10.0)
        patch.setattr(latency, "PATIENCE", 1)
        patch.setattr(latency, "WARM_UP_S", 0.01)
        patch.setattr(reference, "BLOCK_S", 0.005)
        yield
