import errno
import inspect
import os
import sys
from pathlib import Path

import pytest

from search.files import FolderWalk, is_file, is_folder, replace_file, shown

NOT_UTF8 = os.fsdecode(b"Stra\xdfe.png")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        replace_file(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    replace_file(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write(partial: Path) -> None:
        replace_file(path, lambda inner: inner.write_text("inner"))
        partial.write_text("outer")

    replace_file(path, write)
    assert path.read_text() == "outer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_content_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        events.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    replace_file(tmp_path / "a", lambda partial: partial.write_text("x"))
    assert events == ["fsync", "replace"]


@pytest.mark.parametrize("name", ["b" * 255, "あ" * 85, NOT_UTF8])
def test_any_name_that_the_file_system_allows_can_be_written(tmp_path: Path, name: str) -> None:
    replace_file(tmp_path / name, lambda partial: partial.write_text("x"))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [("Straße.png", "Straße.png"), (NOT_UTF8, r"Stra\xdfe.png"), ("a\nb\x1b[2J.png", r"a\nb\x1b[2J.png")],
)
def test_a_path_is_shown_as_printable_text(name: str, text: str) -> None:
    assert shown(Path(name)) == text
    shown(Path(name)).encode("utf-8")


def walk(folder: Path, **options: object) -> tuple[list[str], list[str]]:
    found = FolderWalk(folder, **options)  # pyright: ignore[reportArgumentType]
    files = [path.relative_to(folder).as_posix() for path in found]
    return files, [path.relative_to(folder).as_posix() for path, _ in found.skipped]


def test_files_come_in_order_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", ".hidden.png", "sub/c.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert walk(tmp_path) == (["a.png", "b.png"], [])
    assert walk(tmp_path, recursive=True) == (["a.png", "b.png", "sub/c.png"], [])
    assert walk(tmp_path, recursive=True, leave_out=(tmp_path / "sub",)) == (["a.png", "b.png"], [])


def test_links_that_go_round_end(tmp_path: Path) -> None:
    inner = tmp_path / "a"
    inner.mkdir()
    (inner / "x.png").touch()
    for name in ("u", "v"):
        (inner / name).symlink_to("..")
    assert walk(tmp_path, recursive=True) == (["a/x.png"], [])


def test_what_cannot_be_read_is_named_and_the_rest_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.png").touch()
    (tmp_path / "dangling.png").symlink_to("nothing")
    scandir = os.scandir

    def refusing(path: Path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # the tests may run as root, whom nothing is closed to
    assert walk(tmp_path, recursive=True) == (["open/a.png"], ["dangling.png", "closed"])
    with pytest.raises(PermissionError):
        walk(tmp_path / "closed")


def test_the_depth_of_a_tree_is_not_limited_by_pythons_recursion(tmp_path: Path) -> None:
    depth = 200
    deepest = tmp_path.joinpath(*["d"] * depth)
    deepest.mkdir(parents=True)
    (deepest / "x.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + depth // 2)
    try:
        found = list(FolderWalk(tmp_path, recursive=True))
    finally:
        sys.setrecursionlimit(limit)
    assert found == [deepest / "x.png"]


def test_subfolders_that_are_not_searched_are_named(tmp_path: Path) -> None:
    for name in ("b", "out", "a", ".hidden"):
        (tmp_path / name).mkdir()
    walk = FolderWalk(tmp_path, leave_out=(tmp_path / "out",))
    assert list(walk) == []
    assert [path.name for path in walk.subfolders] == ["a", "b"]


def test_what_is_neither_a_file_nor_a_folder_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "self.png").symlink_to("self.png")
    walk = FolderWalk(tmp_path)
    assert list(walk) == []
    assert [(path.name, reason) for path, reason in walk.skipped] == [
        ("pipe.png", "not a regular file"),
        ("self.png", "Too many levels of symbolic links"),
    ]


def test_what_cannot_be_looked_at_is_neither_file_nor_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (is_file(tmp_path / "file"), is_folder(tmp_path)) == (True, True)
    assert (is_file(tmp_path / ("x" * 300)), is_folder(tmp_path / ("x" * 300))) == (False, False)
