"""The notebooks run from end to end in a real kernel, on what the repository holds; what is committed stays small."""

import re
import runpy
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

SCRIPT = runpy.run_path(str(Path(__file__).with_name("execute_notebooks.py")))
RESULTS, NOTEBOOKS, execute = SCRIPT["RESULTS"], SCRIPT["NOTEBOOKS"], SCRIPT["execute"]
each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a copy of `results/` as a fresh checkout has it, so that the repository stays clean."""
    folder = tmp_path / "results"
    shutil.copytree(RESULTS / "reference", folder / "reference")
    for name in NOTEBOOKS:
        shutil.copy(RESULTS / name, folder)
    return folder


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_from_end_to_end(name: str, results: Path, tmp_path: Path):
    execute(results / name, tmp_path)


@pytest.mark.parametrize("cell", ["!exit 3", "1 / 0"])
def test_a_command_that_fails_and_a_cell_that_raises_fail_the_notebook(cell: str, tmp_path: Path):
    path = tmp_path / "wrong.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), path)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError" if "/" in cell else "AssertionError"):
        execute(path, tmp_path)


@each_notebook
def test_a_committed_notebook_is_valid_small_and_knows_no_machine(name: str):
    text = (RESULTS / name).read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert len(text) < 300_000
    assert not re.search(r"(?<![\w.])/(home|Users|root|tmp|work|opt|usr)/", text)
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata]  # times of day


@each_notebook
def test_a_committed_notebook_was_executed_in_order(name: str):
    code = [c for c in nbformat.read(RESULTS / name, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
