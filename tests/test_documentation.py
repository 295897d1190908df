"""What the documentation shows holds: its Python runs, its commands exist, its YAML is legal, its links lead somewhere.

A block says by its tag what is done with it: `python` is executed, of `console` every command is parsed by the real
command line and the quick ones are executed, `yaml` is validated; `text` is nothing to execute. Blocks of one page
follow each other: they share a folder, and names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from jsonschema import Draft202012Validator
from PIL import Image
from ruamel.yaml import YAML

from search.cli.app import app
from search.experiment import load_experiment
from search.experiment.schema import json_schema
from search.training import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
PAGES += [ROOT / "spaces/README.md", ROOT / "results/README.md", ROOT / "results/reference/README.md"]
TAGS = {"python", "console", "yaml", "text"}
QUICK = {"front", "select", "export", "restore", "evaluate"}
"""Commands that are executed, each once; the others search or train, and are only parsed. So are those with `--on`,
which rank by what another device has measured."""

RECIPES = {"docs/training.md"}
"""Pages whose YAML is a recipe of `train`; elsewhere it belongs into an experiment file."""

OPTIONAL = [] if find_spec("spandrel") and find_spec("torchvision") else ["spandrel"]
"""Packages that are not installed, or lack what they need; Python that names them is left out."""

UsageError = typer.BadParameter.__mro__[1]
"""What the command line raises where it cannot read a command; typer brings a copy of click and does not name it."""


class Block(NamedTuple):
    page: str
    line: int
    tag: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    page, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    found = re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


def commands_of(block: Block) -> list[list[str]]:
    lines = [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [(block, words) for block in BLOCKS if block.tag == "console" for words in commands_of(block)]


def is_ours(words: list[str]) -> bool:
    return Path(words[0]).name == "hfir-search"


def first_place(words: list[str]) -> Block:
    return next(block for block, others in COMMANDS if others == words)


def ids(values: list[Any]) -> list[str]:
    return [f"{block.where} {' '.join(words[:3])}" for block, words in values]


# -- every block is something that is checked --------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_every_block_says_what_it_is(path: Path):
    fences = re.findall(r"^ *```", path.read_text(encoding="utf-8"), re.MULTILINE)
    blocks = blocks_of(path)
    assert len(fences) == 2 * len(blocks), f"{path.name}: a block is not closed, or is indented"
    unknown = [block.where for block in blocks if block.tag not in TAGS]
    assert not unknown, f"{unknown}: tag them {', '.join(sorted(TAGS))}; `text` is for what cannot be executed"


def test_every_console_block_holds_commands():
    assert [b.where for b in BLOCKS if b.tag == "console" and not commands_of(b)] == []


# -- commands ----------------------------------------------------------------------------------------


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Let the real command line read a command without running it; return its name and what it was given."""
    group = typer.main.get_command(app)
    with group.make_context("hfir-search", words) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        with command.make_context(name, rest, parent=context) as inner:
            return name, dict(inner.params)


OURS = [(block, words) for block, words in COMMANDS if is_ours(words)]


@pytest.mark.parametrize(("block", "words"), OURS, ids=ids(OURS))
def test_a_command_of_ours_is_one_and_has_these_options(block: Block, words: list[str], stage: Path, monkeypatch):
    monkeypatch.chdir(stage)
    monkeypatch.setenv("HOME", str(stage))
    try:
        name, given = parse(words[1:])
    except UsageError as error:
        pytest.fail(f"{block.where}: {shlex.join(words)}\n{error}")
    except typer.Exit:
        return
    if name in ("run", "check") and Path(given["experiment"]).stem in ("efficient", "smoke"):
        load_experiment(given["experiment"], given["assignments"] or [])


OTHERS = [(block, words) for block, words in COMMANDS if not is_ours(words)]


@pytest.mark.parametrize(("block", "words"), OTHERS, ids=ids(OTHERS))
def test_a_command_of_others_is_there(block: Block, words: list[str]):
    tool, rest = Path(words[0]).name, words[1:]
    if tool == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), f"{block.where}: no such target"
    elif tool == "just":
        recipes = re.findall(r"^(\w+)[^:=\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE)
        assert not rest or rest[0] in recipes, f"{block.where}: no such word"
    elif tool == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"\[(.*?)\]", " ".join(rest))
        assert set(asked) <= set(extras), f"{block.where}: no such extra"
    elif tool == "python":
        script = [word for word in rest if word.endswith(".py")]
        assert rest[0] == "-m" or all((ROOT / word).is_file() for word in script), f"{block.where}: no such script"
    else:
        pytest.fail(f"{block.where}: {shlex.join(words)}: say here how to check commands of {tool}")


def test_a_wrong_option_and_a_wrong_command_are_found():
    with pytest.raises(UsageError, match="--latency"):
        parse(["select", "results/efficient", "--latency", "20"])
    with pytest.raises(UsageError, match="slect"):
        parse(["slect", "results/efficient"])


def test_commands_within_sentences_exist():
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for page in PAGES:
        for name in re.findall(r"`hfir-search ([a-z][\w-]*)", page.read_text(encoding="utf-8")):
            assert name in known, f"{page.name}: there is no command {name}"


# -- execution ---------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that looks to the documentation's reader as it should; the small run stands for `efficient`."""
    run = tmp_path / "results" / "efficient"
    shutil.copytree(ROOT / "results" / "reference" / "small", run)
    for card in run.glob("presets/*/preset.yaml"):
        card.write_text(card.read_text(encoding="utf-8").replace("run: smoke", "run: efficient"), encoding="utf-8")
    shutil.copytree(ROOT / "spaces", tmp_path / "spaces")
    from skimage import data

    picture = Image.fromarray(data.chelsea()).crop((100, 50, 196, 130))
    for folder in ("photos", "set5"):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            picture.save(tmp_path / folder / name)
    picture.save(tmp_path / "in.png")
    return tmp_path


def script_of(page: str) -> str:
    """Return one program of all that is executed on a page, in order; empty where there is nothing."""
    lines: list[str] = []
    for block in (b for b in BLOCKS if b.page == page):
        if block.tag == "python" and not any(name in block.text for name in OPTIONAL):
            lines += [f"print({block.where!r}, file=sys.stderr)", block.text]
        elif block.tag == "console":
            lines += [
                f"print({block.where!r}, file=sys.stderr); run({words[1:]!r})"
                for words in commands_of(block)
                if is_ours(words) and words[1] in QUICK and "--on" not in words and first_place(words) == block
            ]
    head = (
        "import sys\nfrom search.cli.app import app\n\n\ndef run(words):\n    app(words, standalone_mode=False)\n\n\n"
    )
    return head + "\n".join(lines) if lines else ""


EXECUTED = [page.relative_to(ROOT).as_posix() for page in PAGES if script_of(page.relative_to(ROOT).as_posix())]


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_what_a_page_shows_runs(page: str, stage: Path):
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "HOME": str(stage)}
    (stage / "page.py").write_text(script_of(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"], capture_output=True, text=True, cwd=stage, env=environment, check=False
    )
    assert done.returncode == 0, f"{page}\n{done.stdout}\n{done.stderr}"


# -- YAML --------------------------------------------------------------------------------------------

FRAGMENTS = [block for block in BLOCKS if block.tag == "yaml" and block.page not in RECIPES]
FULL_RECIPES = [block for block in BLOCKS if block.tag == "yaml" and block.page in RECIPES]


def place(key: str) -> str:
    """Return the section of an experiment file that a key belongs into; empty for a section itself."""
    sections = json_schema()["properties"]
    if key in sections:
        return ""
    return "task" if key == "data" else "space"


@pytest.mark.parametrize("block", FRAGMENTS, ids=[block.where for block in FRAGMENTS])
def test_a_piece_of_an_experiment_file_follows_the_schema(block: Block):
    whole = re.match(r"\w+:\n", block.text)
    for piece in [block.text] if whole else block.text.splitlines():
        [(key, value)] = YAML(typ="safe").load(piece).items()
        document: dict[str, Any] = {"name": "x", "task": {"kind": "denoise", "sigma": 25}, "space": {"width": 8}}
        if place(key):
            document[place(key)] = {**document[place(key)], key: value}
        else:
            document[key] = value
        plain = json.loads(json.dumps(document))
        faults = [error.message for error in Draft202012Validator(json_schema()).iter_errors(plain)]
        assert not faults, f"{block.where}: {piece}\n{faults}"


@pytest.mark.parametrize("block", FULL_RECIPES, ids=[block.where for block in FULL_RECIPES])
def test_a_recipe_is_read(block: Block, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(block.text, encoding="utf-8")
    load_recipe(path, [], {"kind": "super_resolution", "upscale": 2, "channels": 3, "data": {"folder": "embedded"}})


# -- links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_somewhere(path: Path):
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    local = [target.split("#")[0] for target in targets if not re.match(r"https?:|#", target)]
    assert [target for target in local if not (path.parent / target).exists()] == []
