"""How references stand against a front worked by hand, and that they are seen wherever the front is."""

from io import StringIO

import pytest
from rich.console import Console

from search.cli.showing import conditions, reference_records
from search.cli.tables import reference_table
from search.report import (
    describe_made,
    describe_standing,
    explain_front,
    references_frame,
    render_page,
    standings,
    trials_frame,
)
from search.report.figures import draw_front, points_of
from search.report.interactive import page_data
from search.types import to_json

LONGER = "longer training may change the order"


def record(trial, *, network="edsr", args=None, over="", reason=""):
    """What a run keeps of a reference, its figures those of a trial."""
    return {
        "key": "0",
        "made": {"network": network, "args": args or {}},
        "added": False,
        "cost": None if trial.cost is None else to_json(trial.cost),
        "over": over,
        "measurements": [to_json(m) for m in trial.measurements],
        "reason": reason,
        "failure": "Traceback: no memory" if reason else "",
    }


@pytest.fixture
def beside(make_trial, make_study):
    """A front of (30 dB, 4 ms) and (31 dB, 8 ms), and references around it."""
    front = [
        make_trial(0, psnr_db=30.0, latency_ms=4.0, macs_g=1.0),
        make_trial(1, psnr_db=31.0, latency_ms=8.0, macs_g=2.0),
    ]
    made = {
        "slower": record(make_trial(90, psnr_db=30.5, latency_ms=9.0, macs_g=3.0), args={"width": 32}),
        "between": record(make_trial(91, psnr_db=30.5, latency_ms=6.0, macs_g=3.0), over="macs_g 3 > 2"),
        "fastest": record(make_trial(92, psnr_db=29.5, latency_ms=2.0, macs_g=0.5)),
        "begun": record(make_trial(93, psnr_db=29.0, latency_ms=5.0, macs_g=0.5, rungs=2)),
        "broken": record(make_trial(94, latency_ms=5.0, macs_g=0.5), reason="no memory"),
        "bicubic": record(make_trial(95, psnr_db=29.2, latency_ms=0.1, macs_g=0.1), network="bicubic"),
    }
    facts = {"baseline": {"psnr_db": 29.2, "ssim": 0.9, "images": ["a"]}, "references": made}
    return make_study(front, facts=facts)


def test_each_is_told_by_the_best_member_that_is_no_slower(beside):
    words = {s.reference.name: describe_standing(beside, s) for s in standings(beside)}
    assert words == {
        "slower": f"beaten by trial 1 after 1,200 steps: 0.50 dB better, 8.00 against 9.00 ms; {LONGER}",
        "between": "not beaten after 1,200 steps: trial 0, the best as fast, is 0.50 dB worse, "
        f"4.00 against 6.00 ms; {LONGER}",
        "fastest": "not beaten: no member of the front is as fast",
        "begun": "not trained through all rungs yet",
        "broken": "failed: no memory",
        "bicubic": "not beaten: no member of the front is as fast",
    }
    assert describe_made({"module": "nets:Net", "args": {"a": 1, "b": "x"}}) == "nets:Net (a 1, b x)"


def test_they_are_rows_that_cannot_be_taken_for_trials(beside):
    frame = references_frame(beside)
    assert list(frame.columns) == list(trials_frame(beside).columns)
    assert set(frame["state"]) == {"REFERENCE"}
    assert frame["trial"].isna().all()
    assert list(frame["reason"])[1] == "macs_g 3 > 2"
    assert len(trials_frame(beside)) == 2


def test_they_are_drawn_where_trained_and_bicubic_stays_a_line(beside):
    drawn = [r.name for r in points_of(beside, "latency_ms").references]
    assert drawn == ["slower", "between", "fastest"] == [r["name"] for r in page_data(beside)["references"]]
    legends = [text.get_text() for legend in draw_front(beside).legends for text in legend.get_texts()]
    assert "reference (below the axis: fastest)" in legends


def test_the_page_has_a_table_of_them_and_says_what_failed(beside):
    page = render_page(beside)
    assert f"beaten by trial 1 after 1,200 steps: 0.50 dB better, 8.00 against 9.00 ms; {LONGER}" in page
    assert "over: macs_g 3 &gt; 2" in page
    assert "Reference broken: no memory" in page
    records = reference_records(beside)["references"]
    assert [r["dominated"] for r in records] == [True, False, False, None, None, False]


def test_wherever_qualities_are_compared_the_steps_are_named(beside):
    console = Console(width=300, record=True, file=StringIO())
    console.print(reference_table(beside))
    assert f"after 1,200 steps: 0.50 dB better, 8.00 against 9.00 ms; {LONGER}" in console.export_text()
    assert f"PSNR after 1,200 steps of proxy training, of the first seed ({LONGER})" in conditions(beside)
    assert explain_front(beside).caveats[0] == f"PSNR is after 1,200 steps of training; {LONGER}."
    assert LONGER in page_data(beside)["references"][0]["standing"]
    assert all("steps" in r["words"] for r in reference_records(beside)["references"] if r["gain"] is not None)


def test_without_references_nothing_is_said_of_them(make_study, make_trial):
    study = make_study([make_trial(0, psnr_db=30.0, latency_ms=4.0, macs_g=1.0)])
    assert reference_records(study) == {}
    assert "Beside other networks" not in render_page(study)
