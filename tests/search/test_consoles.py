"""What commands print is printed as it is: a name may hold what rich takes for markup, and bytes that are not UTF-8."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table
from typer.testing import CliRunner

import search.cli
from search.cli.app import app
from search.cli.consoles import error_console, output_console
from search.cli.restoring import shown_progress
from search.cli.showing import print_json

SOURCES = sorted(Path(search.cli.__file__).parent.glob("*.py"))
NAMES = ["photo[bold].png", "a[/x].png", "[link=x]", ":smile:", r"\[dim]", "[[]", "[red]"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are_in_lines_and_tables(capsys: pytest.CaptureFixture[str], name: str) -> None:
    table = Table(title=f"title {name}", caption=f"caption {name}")
    table.add_column(f"heading {name}")
    table.add_row(f"cell {name}")
    for console in (output_console(), error_console()):
        console.print(f"line {name}", style="bold", highlight=False)
        console.print(table)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        for place in ("line", "title", "caption", "heading", "cell"):
            assert f"{place} {name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are_by_the_progress_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the output for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    with shown_progress(error_console()) as bar:
        bar("restoring", 0.5, 2, name)
    assert name in capsys.readouterr().err


def calls(source: Path, name: str) -> list[ast.Call]:
    found = (node for node in ast.walk(ast.parse(source.read_text("utf-8"))) if isinstance(node, ast.Call))
    return [call for call in found if isinstance(call.func, ast.Name) and call.func.id == name]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_commands_take_their_consoles_from_one_place_and_columns_of_text_have_no_markup(source: Path) -> None:
    assert not calls(source, "Console")  # consoles.py makes them by `partial`
    for column in calls(source, "TextColumn"):
        assert [k.value.value for k in column.keywords if k.arg == "markup" and isinstance(k.value, ast.Constant)] == [
            False
        ]


def test_json_holds_no_text_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [os.fsdecode(b"Stra\xdfe"), "Straße\n", float("inf")], "b": {"c": "x"}})
    out = capsys.readouterr().out
    out.encode("utf-8")
    assert json.loads(out) == {"a": [r"Stra\xdfe", "Straße\n", None], "b": {"c": "x"}}


@pytest.mark.parametrize("folder", ["data[/x]", "[bold]", os.fsdecode(b"Stra\xdfe")])
def test_evaluate_takes_and_shows_any_name(tmp_path: Path, folder: str) -> None:
    data = tmp_path / folder
    data.mkdir(parents=True)
    for seed, name in enumerate(("photo[bold].png", os.fsdecode(b"\xdf.png"))):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        with (data / name).open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    (data / "notes[dim].txt").touch()
    arguments = ["evaluate", "bicubic", "--data", str(data), "--upscale", "2", "--csv", str(tmp_path / "a.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for text in ("photo[bold].png", r"\xdf.png", "notes[dim].txt", folder if folder.isascii() else r"Stra\xdfe"):
        assert text in said, text
    assert "photo[bold].png" in (tmp_path / "a.csv").read_text("utf-8")
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert [row["image"] for row in json.loads(as_json.stdout)["images"]] == ["photo[bold].png", r"\xdf.png"]
