"""A run, a calibration and what is made of them belong to one set of photographs: others are refused by name."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from search.cli.app import app
from search.evaluation.data import task_data
from search.evaluation.evaluator import look_at_data
from search.evaluation.jobs import ProxyEvaluator
from search.evaluation.plan import CandidateJob, ReferenceJob
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.gallery import write_gallery
from search.ladder import Calibration
from search.presets import Verdict, export_presets, verify_preset
from search.references.plan import ReferencePlan
from search.report import choose_presets
from search.store import RunStore, read_study
from search.study import SearchRun, refuse_other_baseline
from search.tasks.identity import photographs_key
from search.tasks.leaks import Seen
from search.types import InputError, Study

from .synthetic import Arithmetic, Search, Synthetic

Tiny = Callable[..., Experiment]
FIRST = Seen({"1": "a.png"}, {"2": "b.png"}, degraded={})
OTHERS = Seen({"1": "a.png", "4": "d.png"}, {"3": "b.png"}, degraded={})
DIFFERENCE = r"d\.png \(training\): added\n  b\.png \(validation\): changed"


@dataclasses.dataclass(frozen=True)
class Seeing(Arithmetic):
    """Answers as if there were these photographs."""

    photographs: Seen = FIRST

    def look_at_data(self, job: None) -> Any:
        return dataclasses.replace(super().look_at_data(job), photographs=self.photographs.to_json())


def open_store(folder: Path, data: str = "here", identity: str = "new") -> RunStore:
    folder.mkdir(exist_ok=True)
    spec = {"objectives": ["psnr_db", "macs_g"], "task": {"kind": "any", "data": {"folder": data}}}
    return RunStore(
        folder,
        name="synthetic",
        objectives=("psnr_db", "macs_g"),
        identity=identity,
        earlier_identity=f"old-{data}",
        spec=spec,
    )


def search(folder: Path, photographs: Seen = FIRST, *, data: str = "here", trials: int = 3) -> Study:
    problem = Synthetic(search=Search(trials=trials, generation=3))
    evaluator = Seeing(str(folder), photographs=photographs)
    return SearchRun(problem, evaluator, open_store(folder, data), InlineExecutor()).run()


def change(folder: Path, name: str = "400.png") -> None:
    """Replace a photograph of a folder by another one."""
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "validation" / name)
    task_data.cache_clear()  # as in a new process


@pytest.fixture
def moved(photos: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of the tiny run's photographs in another folder."""
    yield Path(shutil.copytree(photos, tmp_path / "elsewhere"))
    task_data.cache_clear()


def at(folder: Path) -> tuple[str, str]:
    return f"task.data.train={folder / 'train'}", f"task.data.validation={folder / 'validation'}"


# -- a run -------------------------------------------------------------------------------------------


def test_a_run_is_not_resumed_on_other_photographs_and_its_records_stay_as_they_were(tmp_path: Path):
    before = search(tmp_path / "run")
    with pytest.raises(InputError, match=DIFFERENCE) as refused:
        search(tmp_path / "run", OTHERS, trials=6)
    assert "start in a new folder with --out" in str(refused.value)
    assert read_study(tmp_path / "run").trials == before.trials
    assert len(search(tmp_path / "run", trials=6).trials) > len(before.trials)


def test_equal_photographs_are_accepted_from_another_folder_which_is_then_recorded(tmp_path: Path):
    search(tmp_path / "run")
    with pytest.raises(InputError, match=DIFFERENCE):
        search(tmp_path / "run", OTHERS, data="there", trials=6)
    assert read_study(tmp_path / "run").spec["task"]["data"] == {"folder": "here"}, "of a refused session nothing stays"
    study = search(tmp_path / "run", FIRST._replace(train={"1": "renamed.png"}), data="there", trials=6)
    assert study.spec["task"]["data"] == read_study(tmp_path / "run").spec["task"]["data"] == {"folder": "there"}


def test_a_run_of_an_earlier_version_is_resumed_in_the_folder_that_it_names(tmp_path: Path):
    open_store(tmp_path / "run", identity="old-here")
    open_store(tmp_path / "run")
    with pytest.raises(InputError, match=r"another experiment: task\.data\.folder differ"):
        open_store(tmp_path / "run", data="there")


def test_jobs_tell_workers_which_photographs_the_run_is_of(tmp_path: Path):
    jobs: list[CandidateJob] = []

    class Noting(Seeing):
        def train(self, job: CandidateJob) -> Any:
            jobs.append(job)
            return super().train(job)

    problem = Synthetic(search=Search(trials=3, generation=3))
    SearchRun(problem, Noting(str(tmp_path)), open_store(tmp_path / "run"), InlineExecutor()).run()
    assert {job.photographs for job in jobs} == {photographs_key(FIRST.to_json())}


def test_a_worker_trains_on_the_photographs_of_the_run_or_not_at_all(tiny: Tiny, tmp_path: Path):
    experiment = tiny()
    evaluator = ProxyEvaluator(experiment.evaluation_plan())
    plan = ReferencePlan(name="bicubic", network="bicubic")
    config = experiment.decode(experiment.space.sample(0)).to_dict()
    candidate = CandidateJob(number=3, config=config, seed=1, checkpoint=str(tmp_path / "a"), photographs="others")
    with pytest.raises(InputError, match="trial 3: the photographs changed since this session started"):
        evaluator.train(candidate)
    with pytest.raises(InputError, match="reference bicubic: the photographs changed"):
        evaluator.train_reference(
            ReferenceJob(reference=plan, seed=1, checkpoint=str(tmp_path / "b"), photographs="others")
        )
    assert not (tmp_path / "a").exists()
    right = photographs_key(look_at_data(evaluator.plan).photographs)
    assert evaluator.train(dataclasses.replace(candidate, photographs=right)).step == 2


@pytest.mark.slow
def test_the_command_names_what_changed_and_follows_equal_photographs(tiny_file: Path, moved: Path, tmp_path: Path):
    def run(*words: object) -> Any:
        return CliRunner().invoke(app, [str(w) for w in ("run", tiny_file, "--out", tmp_path / "run", "-q", *words)])

    def settings(folder: Path) -> list[str]:
        return [word for assignment in at(folder) for word in ("--set", assignment)]

    short = ("--set", "search.generation=1", "--trials")
    assert run(*short, 1).exit_code == 0
    written = (tmp_path / "run/experiment.yaml").read_text()
    other = Path(shutil.copytree(moved, tmp_path / "other"))
    change(other)
    refused = run(*short, 2, *settings(other))
    assert (refused.exit_code, "400.png (validation): changed" in refused.stderr) == (2, True)
    assert (tmp_path / "run/experiment.yaml").read_text() == written.replace("trials: 1", "trials: 2")
    assert run(*short, 2, *settings(moved)).exit_code == 0
    assert str(moved) in (tmp_path / "run/experiment.yaml").read_text()


# -- what is made of a run ---------------------------------------------------------------------------


def test_presets_are_not_made_with_other_photographs_than_the_run_s(
    unbroken: Study, tiny: Tiny, moved: Path, tmp_path: Path
):
    plan, best = tiny(*at(moved)).evaluation_plan(), choose_presets(unbroken)["best"]
    [written] = export_presets(unbroken, plan, {"best": best}, out=tmp_path / "presets")
    assert verdict_of_psnr(written.folder) == (Verdict.SAME, "")  # pyright: ignore[reportAttributeAccessIssue]
    change(moved)
    with pytest.raises(InputError, match=r"400\.png \(validation\): changed"):
        export_presets(unbroken, plan, {"best": best}, out=tmp_path / "again")
    recorded = unbroken.facts["baseline"]["photographs"]
    shutil.copytree(tmp_path / "presets", tmp_path / "run/presets")
    with pytest.raises(InputError, match=r"400\.png \(validation\): changed"):
        write_gallery(tmp_path / "run", plan.task, recorded)
    assert not (tmp_path / "run/pictures").exists()


def test_verifying_on_other_photographs_is_no_verdict_and_renamed_ones_are_the_same(
    unbroken: Study, tiny: Tiny, moved: Path, tmp_path: Path
):
    best = choose_presets(unbroken)["best"]
    export_presets(unbroken, tiny().evaluation_plan(), {"best": best}, out=tmp_path)
    card = YAML(typ="safe").load(tmp_path / "best/preset.yaml")
    card["task"]["data"] = {"train": str(moved / "train"), "validation": str(moved / "validation")}
    YAML().dump(card, tmp_path / "best/preset.yaml")
    (moved / "validation/300.png").rename(moved / "validation/350.png")
    assert verdict_of_psnr(tmp_path / "best") == (Verdict.SAME, "")
    change(moved)
    told = "the photographs are others here: 400.png (validation): changed"
    assert verdict_of_psnr(tmp_path / "best") == (Verdict.UNKNOWN, told)


def verdict_of_psnr(folder: Path) -> tuple[Verdict, str]:
    [row] = [row for row in verify_preset(folder) if row.figure.startswith("PSNR")]
    return row.verdict, row.comment


def test_a_network_is_not_measured_beside_a_run_on_other_photographs(unbroken: Study, tiny: Tiny, moved: Path):
    refuse_other_baseline(unbroken, look_at_data(tiny(*at(moved)).evaluation_plan()))
    change(moved)
    with pytest.raises(InputError, match=r"400\.png \(validation\): changed"):
        refuse_other_baseline(unbroken, look_at_data(tiny(*at(moved)).evaluation_plan()))


# -- a calibration -----------------------------------------------------------------------------------


def test_a_calibration_is_resumed_on_equal_photographs_only(tiny: Tiny, moved: Path, tmp_path: Path):
    def calibration(*changes: str, seeds: int) -> Calibration:
        (tmp_path / "calibration").mkdir(exist_ok=True)
        return Calibration(
            tiny(*changes),
            tmp_path / "calibration",
            InlineExecutor(),
            candidates=2,
            seeds=seeds,
            steps=[1],
            crop_px=32,
        )

    assert len(calibration(seeds=1).run().curves) == 2
    assert len(calibration(*at(moved), seeds=2).run().curves) == 4
    change(moved)
    more = calibration(*at(moved), seeds=3)
    for train in (more.expected_s, more.run):
        with pytest.raises(InputError, match=r"400\.png \(validation\): changed.*\n.*\n?.*calibrate in a new folder"):
            train()
    assert len(calibration(*at(moved), seeds=2).run().curves) == 4, "nothing is missing, so nothing is compared"
