"""One copy of the photographs for all processes: what is shared is what was built, and nothing damaged is believed."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.caching import cache_folder
from search.evaluation.data import task_data
from search.evaluation.plan import TaskPlan
from search.tasks import storage
from search.tasks.dataset import PatchSampler, embedded_task, folder_task
from search.tasks.degradations import Denoise, Mixed, SuperResolution
from search.tasks.pairs import TaskData
from search.tasks.storage import shared_task
from search.types import InputError

NOISY = Denoise(25)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 50, 3), dtype=np.uint8)


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(noise(seed)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        write(tmp_path / f"photos/{seed}.png", seed)
    (tmp_path / "photos/broken.png").write_bytes(b"nonsense")
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def assert_equal(one: TaskData, other: TaskData) -> None:
    assert (one.degradation, one.upscale, one.channels, one.notes) == (
        other.degradation,
        other.upscale,
        other.channels,
        other.notes,
    )
    for first, second in zip((*one.train, *one.validation), (*other.train, *other.validation), strict=True):
        assert (first.name, first.digest, first.label) == (second.name, second.digest, second.label)
        assert np.array_equal(first.clean, second.clean)
    for first, second in zip(one.train, other.train, strict=True):
        assert np.array_equal(first.prepared, second.prepared)
    for first, second in zip(one.validation, other.validation, strict=True):
        assert (first.skill, first.photo, first.degraded.dtype) == (second.skill, second.photo, np.float32)
        assert np.array_equal(first.degraded, second.degraded)


@pytest.mark.parametrize("degradation", [SuperResolution(2), NOISY, Mixed()], ids=repr)
def test_what_is_mapped_is_what_was_built(photos: Path, cache: Path, degradation):
    built = folder_task(degradation, photos, 3, 0)
    first = shared_task("a", lambda: built, degradation, folder=cache)
    again = shared_task("a", lambda: pytest.fail("it is there already"), degradation, folder=cache)
    for mapped in (first, again):
        assert_equal(mapped, built)
        assert not mapped.train[0].clean.flags.owndata
        assert not mapped.train[0].clean.flags.writeable
        assert f"mapped from {cache / 'a'}" in mapped.storage
    sampler, other = (PatchSampler(data, 8, 4, seed=3) for data in (built, again))
    assert (sampler.batch(5).degraded == other.batch(5).degraded).all()


def test_forms_of_one_photograph_share_their_pixels_on_disk_and_in_memory(photos: Path, cache: Path):
    shared_task("mixed", lambda: folder_task(Mixed(), photos, 3, 0), Mixed(), folder=cache)
    mapped = shared_task("mixed", lambda: pytest.fail("it is there already"), Mixed(), folder=cache)
    forms = [photo for photo in mapped.train if photo.name == mapped.train[0].name]
    assert len({id(form.clean) for form in forms}) == 1
    # Five photographs, each clean and in three other forms (noise is drawn later), one validated on.
    assert (cache / "mixed/pixels.npy").stat().st_size == 128 + 48 * 50 * 3 * (5 * 4 + 1)


@pytest.mark.parametrize("name", ["pixels.npy", "levels.npy", "index.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "gone"])
def test_a_damaged_entry_is_made_anew_and_told(photos: Path, cache: Path, caplog, name: str, damage: str):
    build = lambda: folder_task(NOISY, photos, 3, 0)  # noqa: E731
    shared_task("a", build, NOISY, folder=cache)
    file = cache / "a" / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[:-7] if damage == "cut" else b'{"schema": 1, "key": "b"}')
    with caplog.at_level(logging.WARNING):
        assert_equal(shared_task("a", build, NOISY, folder=cache), build())
    assert ("is damaged" in caplog.text) == ((name, damage) != ("index.json", "gone"))
    assert_equal(shared_task("a", lambda: pytest.fail("it is there already"), NOISY, folder=cache), build())


def test_an_entry_of_another_task_under_this_name_is_not_believed(photos: Path, cache: Path, caplog):
    shared_task("a", lambda: folder_task(SuperResolution(2), photos, 3, 0), SuperResolution(2), folder=cache)
    (cache / "a").rename(cache / "b")
    with caplog.at_level(logging.WARNING):
        found = shared_task("b", lambda: folder_task(NOISY, photos, 3, 0), NOISY, folder=cache)
    assert found.degradation == NOISY
    assert "key differ" in caplog.text


def full_disk(self: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_no_half_entry_and_a_copy_in_each_process_with_a_warning(
    photos: Path, cache: Path, caplog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage._ArrayWriter, "write", full_disk)
    with caplog.at_level(logging.WARNING):
        data = shared_task("a", lambda: folder_task(NOISY, photos, 3, 0), NOISY, folder=cache)
    assert_equal(data, folder_task(NOISY, photos, 3, 0))
    assert "cannot be written (No space left on device); each process holds a copy" in caplog.text
    assert data.storage in caplog.text
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be_made_costs_a_warning_only(photos: Path, tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        data = shared_task("a", lambda: folder_task(NOISY, photos, 3, 0), NOISY, folder=tmp_path / "file/cache")
    assert len(data.train) == 5
    assert "each process holds a copy of" in caplog.text


def test_an_entry_in_a_read_only_folder_is_used(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    shared_task("a", lambda: folder_task(NOISY, photos, 3, 0), NOISY, folder=cache)

    def refuse(path: Path) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert len(shared_task("a", lambda: pytest.fail("it is there already"), NOISY, folder=cache).train) == 5


def test_photographs_that_cannot_be_used_leave_nothing_and_no_lock_held(cache: Path, tmp_path: Path):
    for _ in range(2):
        with pytest.raises(InputError, match="no such folder"):
            shared_task("a", lambda: folder_task(NOISY, tmp_path / "nowhere", 3, 0), NOISY, folder=cache)


def test_old_entries_go_and_then_the_least_recently_used(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    build = lambda: folder_task(NOISY, photos, 3, 0)  # noqa: E731
    now = time.time()
    for name, age_days in (("old", 31), ("a", 3), ("b", 2)):
        shared_task(name, build, NOISY, folder=cache)
        for path in (cache / name / "index.json", cache / name):
            os.utime(path, (now - 86_400 * age_days,) * 2)
    size = sum(file.stat().st_size for file in (cache / "a").iterdir())
    monkeypatch.setattr(storage, "MAX_GIB", 2.5 * size / 2**30)
    shared_task("new", build, NOISY, folder=cache)
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {"b", "new"}


# Through a plan -----------------------------------------------------------------------------------


def plan(folder: Path | str, seed: int = 0, sigma: float = 25.0) -> TaskPlan:
    return TaskPlan(
        kind="denoise", options=(("sigma", sigma),), channels=3, folders=(("folder", str(folder)),), seed=seed
    )


def entries() -> set[str]:
    folder = cache_folder("photographs")
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("empty_cache")
def test_another_file_size_time_option_or_seed_is_another_entry(photos: Path):
    def look(**changes: float) -> int:
        task_data.cache_clear()
        task_data(plan(photos, **changes))  # type: ignore[arg-type]
        return len(entries())

    assert (look(), look()) == (1, 1)
    assert look(sigma=10.0) == 2
    assert look(seed=1) == 3
    os.utime(photos / "3.png", (0, 0))
    assert look() == 4
    write(photos / "9.png", 9)
    assert look() == 5
    assert any("broken.png: cannot be read" in note for note in task_data(plan(photos)).notes)


@pytest.mark.usefixtures("empty_cache")
def test_embedded_photographs_are_shared_as_well():
    task_data.cache_clear()
    mapped = task_data(plan("embedded"))
    assert_equal(mapped, embedded_task(NOISY, 3, 0))
    assert len(entries()) == 1


@pytest.mark.usefixtures("empty_cache")
def test_processes_that_start_at_once_make_one_entry_and_hold_one_copy(photos: Path):
    code = (
        "import sys, json; from pathlib import Path\n"
        "from search.evaluation.data import task_data; from search.evaluation.plan import TaskPlan\n"
        "data = task_data(TaskPlan(kind='denoise', options=(('sigma', 25.0),), channels=3, "
        "folders=(('folder', sys.argv[1]),), seed=0))\n"
        "print(json.dumps([data.storage, int(data.train[0].clean.sum())]))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(photos)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [json.loads(process.communicate()[0]) for process in running]
    assert answers[0] == answers[1]
    assert "one copy for all processes" in answers[0][0]
    assert len(entries()) == 1
