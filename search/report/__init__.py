"""Reading a finished or running search: tables, choices, figures and one HTML page.

Everything here works from the records alone (`search.types.Study`), never reaches torch, and writes into the run's
folder only: `trials.csv`, `trials.parquet`, `front.csv`, `front.png`, `experts.png`, `report.html`, and for papers
`figures/`.
"""

from search.report.experts import draw_experts, save_experts
from search.report.figures import (
    FORMATS,
    draw_front,
    draw_hypervolume,
    draw_panel,
    draw_rungs,
    save_figures,
    save_front,
)
from search.report.page import render_page, write_all, write_report
from search.report.selection import PRESETS, Miss, Selection, Wish, choose_presets, select
from search.report.tables import (
    Run,
    front_frame,
    front_trials,
    funnel,
    load_run,
    trials_frame,
    write_atomically,
    write_tables,
)
from search.report.words import conditions, describe_network, describe_task

__all__ = [
    "FORMATS",
    "PRESETS",
    "Miss",
    "Run",
    "Selection",
    "Wish",
    "choose_presets",
    "conditions",
    "describe_network",
    "describe_task",
    "draw_experts",
    "draw_front",
    "draw_hypervolume",
    "draw_panel",
    "draw_rungs",
    "front_frame",
    "front_trials",
    "funnel",
    "load_run",
    "render_page",
    "save_experts",
    "save_figures",
    "save_front",
    "select",
    "trials_frame",
    "write_all",
    "write_atomically",
    "write_report",
    "write_tables",
]
