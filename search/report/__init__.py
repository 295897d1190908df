"""Reading a finished or running search: tables, choices, figures and one HTML page.

Everything here works from the records alone (`search.types.Study`), never reaches torch, and writes into the run's
folder only: `trials.csv`, `trials.parquet`, `front.csv`, `front.png`, `experts.png`, `report.html`, and for papers
`figures/`.
"""

from search.report.compare import Band, ComparedRun, Comparison, compare_runs, merged_bands
from search.report.compare_figure import draw_comparison
from search.report.experts import draw_experts, save_experts
from search.report.explain import Change, ExplainedMember, FrontExplanation, Group, Neighbour, explain_front
from search.report.figures import (
    FORMATS,
    draw_front,
    draw_hypervolume,
    draw_panel,
    draw_rungs,
    save_figures,
    save_front,
)
from search.report.intervals import Interval
from search.report.page import render_page, write_all, write_report
from search.report.preference import Preference
from search.report.references import Standing, describe_made, describe_standing, standings
from search.report.selection import PRESETS, Exclusion, Selection, choose_presets, select
from search.report.status import RunStatus, read_status, rejections
from search.report.tables import (
    COLUMNS,
    Column,
    Run,
    front_frame,
    front_trials,
    funnel,
    load_run,
    references_frame,
    trials_frame,
    write_atomically,
    write_tables,
)
from search.report.wishes import Miss, Wish, parse_wishes
from search.report.words import conditions, describe_network, describe_task

__all__ = [
    "COLUMNS",
    "FORMATS",
    "PRESETS",
    "Band",
    "Change",
    "Column",
    "ComparedRun",
    "Comparison",
    "Exclusion",
    "ExplainedMember",
    "FrontExplanation",
    "Group",
    "Interval",
    "Miss",
    "Neighbour",
    "Preference",
    "Run",
    "RunStatus",
    "Selection",
    "Standing",
    "Wish",
    "choose_presets",
    "compare_runs",
    "conditions",
    "describe_made",
    "describe_network",
    "describe_standing",
    "describe_task",
    "draw_comparison",
    "draw_experts",
    "draw_front",
    "draw_hypervolume",
    "draw_panel",
    "draw_rungs",
    "explain_front",
    "front_frame",
    "front_trials",
    "funnel",
    "load_run",
    "merged_bands",
    "parse_wishes",
    "read_status",
    "references_frame",
    "rejections",
    "render_page",
    "save_experts",
    "save_figures",
    "save_front",
    "select",
    "standings",
    "trials_frame",
    "write_all",
    "write_atomically",
    "write_report",
    "write_tables",
]
