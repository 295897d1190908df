"""Whatever lies in a folder: `restore`, `evaluate`, `check` and `train` end in words, lose nothing and name the rest.

Folders are drawn at random: names that are not UTF-8, names of 255 bytes, brackets and control characters; links that
go round or point to nothing, pipes, closed files and folders; pictures of every kind, broken, empty and tiny ones.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from hfir import HFIRConfig
from search import feasibility
from search.cli import checking
from search.cli.app import app
from search.executors import InlineExecutor
from search.files import shown
from search.training.files import Validation
from search.training.trainer import FullTraining, Outcome

SUFFIXES = ["png", "jpg", "webp", "tif", "gif", "avif", "bmp", "tga", "ppm", "jp2", "qoi", "pcx", "sgi", "dds"]
STEMS = [b"a", b"photo[bold]", b"[|x]:cat:", b"Stra\xdfe", b"\xff\xfe", "あ".encode(), b"a\nb", b"\x1b[2J", b"-o"]
CLOSED = "closed"
"""Whatever has this in its name refuses to be opened: tests may run as root, whom no permission stops."""
EXPERIMENT = """
name: any
task: {kind: denoise, sigma: 25, data: embedded}
space: {width: [4, 8], levels: 1, encoder_blocks: 1, bottleneck_blocks: 0, decoder_blocks: 0, mixer: naf}
budget: {params_m: 0.02}
objectives: [psnr_db, params_m]
proxy: {rungs: [2], batch: 2, patch_px: 16}
search: {trials: 2, seed: 3}
"""


@cache
def picture(suffix: str, number: int, side: int = 40) -> bytes:
    """Return a file of a picture; no two are the same picture."""
    levels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
    Image.fromarray(levels).save(file, kind)
    return file.getvalue()


@cache
def floats() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 40), dtype=np.float32)).save(file, "TIFF")
    return file.getvalue()


FILES = ("picture", "closed", "tiny", "broken", "cut", "empty", "float", "other", "dangling", "self", "pipe")
FOLDERS = ("folder", "closed folder", "loop")

entries = st.lists(
    st.tuples(st.sampled_from((*FILES, "picture", "picture", *FOLDERS)), st.sampled_from(STEMS), st.booleans()),
    min_size=1,
    max_size=7,
)
trees = st.tuples(entries, entries)
"""What lies in the folder, and what lies in each of its subfolders."""


class Tree:
    """A folder as it was drawn; `inside` are its entries by kind, those of subfolders too.

    Args:
        root: Where it is made.
        drawn: Entries of the folder, and of each subfolder: kind, name, and whether the name fills 255 bytes.
    """

    def __init__(self, root: Path, drawn: tuple[list[tuple[str, bytes, bool]], list[tuple[str, bytes, bool]]]) -> None:
        self.root, self.inside, self._count = root, dict[Path, str](), 0
        root.mkdir()
        self._fill(root, drawn[0], drawn[1])

    def _fill(self, folder: Path, now: list[tuple[str, bytes, bool]], below: list[tuple[str, bytes, bool]]) -> None:
        for kind, stem, long in now:
            if kind in FOLDERS and not below:
                continue
            self._count += 1
            ending = self._ending(kind)
            head = f"{self._count}{CLOSED if kind.startswith('closed') else ''}".encode() + stem
            filled = head + b"b" * (255 - len(head) - len(ending)) if long else head
            path = folder / os.fsdecode(filled + ending)
            self.inside[path] = kind
            self._make(path, kind, below)

    def _ending(self, kind: str) -> bytes:
        suffix = {"float": "tif", "other": "txt", "tiny": "png", "cut": "png"}.get(
            kind, SUFFIXES[self._count % len(SUFFIXES)]
        )
        return b"" if kind in FOLDERS else f".{suffix}".encode()

    def _make(self, path: Path, kind: str, below: list[tuple[str, bytes, bool]]) -> None:
        suffix = path.suffix[1:]
        if kind in ("folder", "closed folder"):
            path.mkdir()
            self._fill(path, below, [])
        elif kind in ("loop", "dangling", "self"):
            path.symlink_to({"loop": "..", "dangling": "nothing", "self": path.name}[kind])
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            made = {
                "broken": b"no picture at all",
                "empty": b"",
                "other": b"words",
                "float": floats(),
                "tiny": picture("png", self._count, 5),
                "cut": picture("png", self._count)[:2000],
            }
            path.write_bytes(made.get(kind) if kind in made else picture(suffix, self._count))  # pyright: ignore[reportArgumentType]

    def state(self) -> dict[str, object]:
        """Return all that there is, to see later that nothing was touched."""
        found: dict[str, object] = {}
        for path in self.inside:
            content = path.read_bytes() if path.is_file() else path.readlink() if path.is_symlink() else "folder"
            found[str(path)] = content, path.lstat().st_mtime_ns
        found["names"] = sorted(str(p) for p in self.root.rglob("*"))
        return found

    def seen(self, *, recursive: bool) -> dict[Path, str]:
        """Return the entries that a command meets: not those below closed folders."""
        closed = [p for p, kind in self.inside.items() if kind == "closed folder"]
        met = {p: kind for p, kind in self.inside.items() if not any(c in p.parents for c in closed)}
        return met if recursive else {p: kind for p, kind in met.items() if p.parent == self.root}


class InThisProcess(InlineExecutor):
    """Stands for the worker of `check`."""

    def __init__(self, workers: int, start: Callable[[], None], **options: object) -> None:
        pass


def looked_at(self: FullTraining, *_: object) -> Outcome:
    """Stand for the training itself: the photographs are read before it."""
    nothing = Validation(
        step=0, stage="psnr", psnr_db=0, ssim=0, loss=None, learning_rate=0, images_per_s=None, elapsed_s=0
    )
    done: dict[str, Any] = {"steps": 0, "finished": True, "interrupted": False}
    return Outcome(folder=self.folder, **done, before=nothing, best=nothing, last=nothing)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory, write_preset: Callable[..., Path]) -> Path:
    config = HFIRConfig(width=4, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,), upscale=1)
    task = {"kind": "denoise", "sigma": 25, "channels": 3, "data": {"folder": "embedded"}}
    return write_preset(tmp_path_factory.mktemp("preset") / "small", config, task)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("space") / "any.yaml"
    file.write_text(EXPERIMENT)
    return file


@pytest.fixture(scope="module")
def call() -> Callable[..., Result]:
    """Return the command line, with nothing computed but what reads and writes pictures, and closed entries closed."""
    scandir, opened = os.scandir, Path.open

    def scandir_unless_closed(path: Path):
        if CLOSED in Path(path).name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    def open_unless_closed(self: Path, *arguments: Any, **options: Any):
        if CLOSED in self.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *arguments, **options)

    def invoke(*arguments: object) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "scandir", scandir_unless_closed)
            patch.setattr(Path, "open", open_unless_closed)
            patch.setattr(checking, "ProcessExecutor", InThisProcess)
            patch.setattr(feasibility, "_legal_points", lambda experiment: [])
            patch.setattr(FullTraining, "run", looked_at)
            return CliRunner().invoke(app, [str(a) for a in arguments])

    return invoke


def check_words(done: Result) -> str:
    """Return what a command said, without white space; it ended in words and with an exit code of the documents."""
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 1, 2), done.output
    assert "Traceback" not in done.output
    done.output.encode("utf-8")
    return "".join(done.output.split())


def is_named(path: Path, said: str) -> bool:
    return "".join(shown(path.name).split()) in said


@settings(max_examples=8, phases=(Phase.explicit, Phase.generate))
@given(drawn=trees)
def test_any_folder_is_restored_or_named(
    tmp_path_factory: pytest.TempPathFactory, preset: Path, call: Callable[..., Result], drawn
):
    tree = Tree(tmp_path_factory.mktemp("any") / "in", drawn)
    before, out = tree.state(), tree.root.parent / "out"
    pictures = [p for p, kind in tree.seen(recursive=True).items() if kind in ("picture", "tiny")]
    target = {p: (out / p.relative_to(tree.root)).with_suffix(".png") for p in pictures}
    for path in pictures[::2]:
        target[path].parent.mkdir(parents=True, exist_ok=True)
        target[path].write_bytes(b"precious")
    done = call("restore", tree.root, "--recursive", "--preset", preset, "-o", out, "--tile", 64)
    said = check_words(done)
    assert tree.state() == before
    assert all(target[path].read_bytes() == b"precious" for path in pictures[::2])
    if done.exit_code == 2:  # no file has the suffix of a picture
        assert not pictures
        return
    for path in pictures[1::2]:
        with Image.open(target[path]) as image:
            image.load()
    for path, kind in tree.seen(recursive=True).items():
        assert path in pictures or kind in ("folder", "loop") or is_named(path, said), (path, kind, done.output)


@settings(max_examples=8, phases=(Phase.explicit, Phase.generate))
@given(drawn=trees)
def test_any_folder_of_photographs_is_used_or_named(
    tmp_path_factory: pytest.TempPathFactory, preset: Path, experiment: Path, call: Callable[..., Result], drawn
):
    tree = Tree(tmp_path_factory.mktemp("any") / "in", drawn)
    before = tree.state()
    seen = tree.seen(recursive=False)
    usable = [p for p, kind in seen.items() if kind == "picture"]
    out = tree.root.parent / "out"
    commands = {
        1: ("evaluate", "bicubic", "--data", tree.root, "--upscale", 2),
        2: ("check", experiment, "--set", f"task.data={tree.root}"),
        3: ("train", preset, "--data", tree.root, "--out", out, "--accelerator", "cpu", "--set", "patch_px=16"),
    }
    for least, command in commands.items():
        done = call(*command)
        said = check_words(done)
        assert tree.state() == before
        assert done.exit_code == (0 if len(usable) >= min(least, 2) else 2), done.output
        if done.exit_code == 0:
            for path, kind in seen.items():
                assert path in usable or is_named(path, said), (path, kind, done.output)
