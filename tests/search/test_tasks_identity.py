"""Which photographs count as the same: by decoded pixels, role and order."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.evaluation.data import task_data
from search.evaluation.plan import TaskPlan
from search.tasks.dataset import folder_task, paired_task
from search.tasks.degradations import SuperResolution
from search.tasks.identity import (
    photograph_differences,
    photographs_key,
    refuse_changed_meanwhile,
    refuse_other_photographs,
)
from search.tasks.leaks import Seen, seen_from_json, seen_in
from search.types import InputError

BEFORE = Seen({"1": "a.png", "2": "b.png"}, {"3": "c.png"}, degraded={"1": "x"})


def write(folder: Path, name: str, seed: int, side: int = 48) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / name)


def seen(folder: Path) -> Seen:
    return seen_in(folder_task(SuperResolution(2), folder / "train", 3, 0, folder / "validation"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for seed, name in enumerate(["train/a.png", "train/b.png", "validation/c.png"]):
        write(tmp_path / "here" / Path(name).parent, Path(name).name, seed)
    return tmp_path / "here"


@pytest.mark.parametrize(
    ("now", "lines"),
    [
        (BEFORE, []),
        (BEFORE._replace(train={"1": "other.png", "2": "names.png"}), []),
        (BEFORE._replace(degraded=None), []),
        (BEFORE._replace(train={"9": "a.png", "2": "b.png"}), ["a.png (training): changed"]),
        (BEFORE._replace(validation={"8": "c.png"}), ["c.png (validation): changed"]),
        (BEFORE._replace(train={"2": "b.png"}), ["a.png (training): removed, or not readable any more"]),
        (BEFORE._replace(train={**BEFORE.train, "4": "d.png"}), ["d.png (training): added"]),
        (BEFORE._replace(degraded={"1": "y"}), ["a.png (training): its degraded form changed"]),
        (BEFORE._replace(degraded={}), ["a.png (training): its degraded form changed"]),
        (
            Seen({"3": "c.png", "2": "b.png"}, {"1": "a.png"}),
            ["c.png: used for training now, not before", "a.png: used for validation now, not before"],
        ),
        (
            BEFORE._replace(train={"2": "a.png", "1": "b.png"}),
            [
                "a.png (training): now at position 1, where a.png was",
                "b.png (training): now at position 2, where b.png was",
            ],
        ),
        (Seen({"1": "c.png", "2": "b.png"}, {"9": "c.png"}), ["c.png (validation): changed"]),
        (Seen({"3": "z.png", "2": "b.png"}, {"9": "c.png"}), None),
    ],
)
def test_each_difference_is_named_and_names_alone_are_none(now: Seen, lines: list[str] | None):
    found = photograph_differences(BEFORE, now)
    assert found == lines if lines is not None else len(found) == 2
    if now.degraded is not None:
        assert (photographs_key(now.to_json()) == photographs_key(BEFORE.to_json())) is (not found)


def test_an_incomplete_record_has_no_key():
    assert photographs_key(BEFORE._replace(degraded=None).to_json()) == photographs_key({}) == ""
    assert photographs_key(BEFORE.to_json())


def test_equal_photographs_in_another_folder_and_under_other_names_are_the_same(photographs: Path, tmp_path: Path):
    recorded = seen(photographs)
    shutil.copytree(photographs, tmp_path / "there")
    (tmp_path / "there/train/a.png").rename(tmp_path / "there/train/aa.png")
    refuse_other_photographs(recorded.to_json(), seen(tmp_path / "there"), "run", "start anew")


def test_a_photograph_that_is_renamed_behind_another_is_told(photographs: Path):
    recorded = seen(photographs)
    (photographs / "train/a.png").rename(photographs / "train/z.png")
    with pytest.raises(InputError, match=r"z\.png \(training\): now at position 2, where b\.png was"):
        refuse_other_photographs(recorded.to_json(), seen(photographs), "run", "start in a new folder")


def test_the_refusal_says_whose_what_and_what_to_do(photographs: Path):
    recorded = seen(photographs)
    write(photographs / "validation", "c.png", 77)
    write(photographs / "train", "new.png", 78)
    with pytest.raises(InputError) as refused:
        refuse_other_photographs(recorded.to_json(), seen(photographs), "results/x", "start in a new folder with --out")
    assert str(refused.value) == (
        "results/x: photographs differ from the recorded ones (2):\n"
        "  new.png (training): added\n"
        "  c.png (validation): changed\n"
        "  Figures compare on the same photographs only; pixels, role and order count, the folder does not. "
        "Restore the photographs, or start in a new folder with --out."
    )
    refuse_other_photographs(None, seen(photographs), "run", "")  # nothing was recorded


def test_only_the_roles_that_are_asked_for_are_compared(photographs: Path):
    recorded = seen(photographs)
    write(photographs / "train", "a.png", 77)
    refuse_other_photographs(recorded.to_json(), seen(photographs), "run", "", roles=("validation",))


def test_a_process_that_loads_other_photographs_than_its_driver_refuses(photographs: Path):
    key = photographs_key(seen(photographs).to_json())
    refuse_changed_meanwhile(key, seen(photographs), "trial 3")
    write(photographs / "train", "a.png", 77)
    refuse_changed_meanwhile("", seen(photographs), "trial 3")
    with pytest.raises(InputError, match="trial 3: the photographs changed since this session started"):
        refuse_changed_meanwhile(key, seen(photographs), "trial 3")


def test_degraded_files_of_pairs_are_part_of_what_is_recorded(tmp_path: Path):
    for place, part in enumerate(("train", "validation")):
        write(tmp_path / part, "a.png", place)
        write(tmp_path / f"{part}_lr", "a.png", place + 10, side=24)
    folders = [tmp_path / name for name in ("train", "train_lr", "validation", "validation_lr")]
    recorded = seen_in(paired_task(*folders, upscale=2, channels=3))
    assert recorded.degraded is not None
    assert recorded.degraded.keys() == {*recorded.train, *recorded.validation}
    assert seen_from_json(recorded.to_json()) == recorded
    write(tmp_path / "validation_lr", "a.png", 99, side=24)
    changed = seen_in(paired_task(*folders, upscale=2, channels=3))
    assert photograph_differences(recorded, changed) == ["a.png (validation): its degraded form changed"]
    made_here = seen_in(folder_task(SuperResolution(2), folders[0], 3, 0, folders[2]))
    assert len(photograph_differences(recorded, made_here)) == 2


def test_a_photograph_replaced_with_its_size_and_time_kept_is_read_again(photographs: Path):
    for folder in ("train", "validation"):  # uncompressed, so that all files have one size
        for path in sorted((photographs / folder).iterdir()):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
    folders = (("train", str(photographs / "train")), ("validation", str(photographs / "validation")))
    plan = TaskPlan(kind="super_resolution", options=(("upscale", 2),), channels=3, folders=folders, seed=0)
    task_data.cache_clear()  # as in a new process
    before, path = seen_in(task_data(plan)), photographs / "validation/c.bmp"
    status = path.stat()
    write(photographs / "validation", "c.bmp", 77)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    task_data.cache_clear()
    assert photograph_differences(before, seen_in(task_data(plan))) == ["c.bmp (validation): changed"]
