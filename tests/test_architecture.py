"""What the documentation names is there."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## The draft, sentence by sentence")[1]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| **")][1:]
NAMED = sorted(set(re.findall(r"`((?:hfir|search)\.[A-Za-z_.]+)`", TABLE)))
TESTS = sorted(set(re.findall(r"`((?:tests/[a-z/]+)?test_\w+\.py)(?:::(\w+))?`", TABLE)))


def resolved(path: str) -> object:
    """Return what a dotted path stands for: the longest module in it, then attributes."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


@pytest.mark.parametrize("path", NAMED)
def test_a_name_of_the_table_is_in_the_code(path: str):
    assert resolved(path) is not None


@pytest.mark.parametrize(("file", "test"), TESTS, ids=lambda part: part or "file")
def test_a_test_of_the_table_is_among_the_tests(file: str, test: str):
    path = ROOT / file if "/" in file else ROOT / "tests" / "hfir" / file
    assert f"def {test}(" in path.read_text(encoding="utf-8") if test else path.is_file()


def test_every_row_says_what_makes_it_true_and_what_would_notice():
    assert len(ROWS) > 60
    for row in ROWS:
        said, by, _, test = (cell.strip() for cell in row.strip().strip("|").split("|"))
        assert said
        assert by or test, row
        assert "test" in test or "benchmarks/" in test, row
