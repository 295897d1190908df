"""`report`: write a run's page, tables and figures again. Loads torch only to make pictures that are not there yet."""

from __future__ import annotations

import logging
import shutil
import webbrowser
from dataclasses import replace
from pathlib import Path

from search.cli.consoles import output_console
from search.files import shown
from search.report import FORMATS, save_figures, write_all
from search.report.devices import on_device
from search.report.pictures import FOLDER, INDEX
from search.store import read_study
from search.types import HFIRSearchError, InputError, Study

log = logging.getLogger(__name__)


def write_reports(
    folder: Path, *, out: Path | None, formats: str | None, open_page: bool, on: str | None = None
) -> None:
    """Write the report of a run from its records, and static figures where formats are asked for.

    Args:
        folder: Of the run; only read, with another `out`.
        out: Where to write; by default into the run's folder.
        formats: Names out of `FORMATS` with commas between them; None for no static figures.
        open_page: Whether to show the page in the browser.
        on: By the latencies of the device of that name, by default into a folder of its own under `devices/`.

    Raises:
        InputError: If the folder holds no run, or a format is not known.
    """
    wanted = _formats(formats)
    study = on_device(read_study(folder), on)
    own = folder if on is None else study.folder / "devices" / on
    target = own if out is None else out
    target.mkdir(parents=True, exist_ok=True)
    if (folder / FOLDER / INDEX).is_file():
        if out is not None and out.resolve() != folder.resolve():
            shutil.copytree(folder / FOLDER, out / FOLDER, dirs_exist_ok=True)
    elif (folder / "presets").is_dir() and (on is None or out is not None):
        _make_pictures(study, target)
    paths = write_all(replace(study, folder=target))
    for name in wanted:
        paths += save_figures(replace(study, folder=target), name)
    console = output_console()
    for path in paths:
        console.print(shown(path), highlight=False, soft_wrap=True)
    if open_page:
        webbrowser.open((target / "report.html").resolve().as_uri())


def _formats(text: str | None) -> list[str]:
    names = [] if text is None else [name.strip().lower() for name in text.split(",")]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise InputError(f"--format {text}: {unknown[0]!r} is not known.\n  Choose from {', '.join(FORMATS)}.")
    return names


def _make_pictures(study: Study, out: Path) -> None:
    """Make the crops of the presets, where the photographs are still there; a report without them is one, too."""
    from hfir.errors import HFIRError
    from search.experiment import load_experiment
    from search.gallery import write_gallery

    try:
        plan = load_experiment(str(study.folder / "experiment.yaml"), []).evaluation_plan()
        write_gallery(study.folder, plan.task, study.facts.get("baseline", {}).get("photographs"), out=out)
    except (HFIRSearchError, HFIRError) as error:
        log.warning("no pictures of the presets: %s", error)
