"""Execute the notebooks anew, in place: `python tests/execute_notebooks.py`. Look at what they show now."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

RESULTS = Path(__file__).parents[1] / "results"
NOTEBOOKS = ("pareto.ipynb", "tutorial.ipynb")
LEFT = ("exported", "tutorial")
"""Folders that they write."""

CHECK = "\nassert _exit_code == 0, _exit_code"
"""Jupyter does not mind a `!command` that fails; we do."""


def execute(path: Path, home: Path) -> nbformat.NotebookNode:
    """Return the notebook with its outputs; a cell that raises, or a command that fails, ends it.

    Args:
        path: Its cells run in this file's folder.
        home: Stands for the folders of Jupyter's settings, so that nobody's own count.
    """
    notebook = nbformat.read(path, as_version=4)
    commands = [c for c in notebook.cells if c.cell_type == "code" and re.search(r"^!", c.source, re.MULTILINE)]
    for cell in commands:
        cell.source += CHECK
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=_activated(home))
    for cell in commands:
        cell.source = cell.source.removesuffix(CHECK)
    return notebook


def _activated(home: Path) -> dict[str, str]:
    own = {name: str(home / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **own, "PATH": path, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    for folder in LEFT:
        shutil.rmtree(RESULTS / folder, ignore_errors=True)
    for name in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as home:
            nbformat.write(execute(RESULTS / name, Path(home)), RESULTS / name)
