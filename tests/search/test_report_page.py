"""The page: well-formed, self-contained, escaped, and it says what was decided."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from hfir.config import DenseConfig, DFTRefinerConfig, FrequencySplitConfig, HFIRConfig, MoEConfig
from search.report import describe_network, render_page, save_experts, write_all, write_report
from search.report.pictures import read_pictures
from search.types import StoreError, TrialState, to_json

VOID = {"meta", "link", "source", "img", "br", "input"}
SVG_NAME = "http://www.w3.org/2000/svg"
"""A name, which no browser looks up."""


class Page(HTMLParser):
    """Checks that elements nest, and collects what the page says and loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.resources, self.rows = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.resources += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data.strip())
        if "tr" in self.open and data.strip():
            self.rows[-1].append(data.strip())

    @property
    def words(self):
        return " ".join(part for part in self.text if part)


@pytest.fixture(scope="module")
def html(rich_study):
    return render_page(rich_study)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_checker_sees_a_page_that_does_not_nest():
    with pytest.raises(AssertionError):
        Page("<p><b>crossed</p></b>")


def test_nothing_is_loaded_from_elsewhere(html, page):
    assert page.resources
    assert all(address.startswith(("data:", "#")) for address in page.resources)
    written = re.sub(r'(<script type="application/octet-stream"[^>]*>)[^<]*', r"\1", html).replace(SVG_NAME, "")
    assert not re.search(r"(https?:)?//\w", written)


def test_every_place_that_is_pointed_to_is_there(html, page):
    places = [address[1:] for address in page.resources if address.startswith("#")]
    assert "front" in places
    assert all(f'id="{place}"' in html for place in places)


def test_every_candidate_has_a_row(page):
    words = {state.value.lower() for state in TrialState}
    states = {row[0]: row[1] for row in page.rows if len(row) > 1 and row[1] in words and row[0].isdigit()}
    assert set(states) == {str(n) for n in range(13)}
    assert (states["6"], states["11"]) == ("infeasible", "running")


def test_the_decision_comes_first_with_gain_cost_and_words(page):
    decision = page.words.partition("What became of the candidates")[0]
    for part in ("Fastest trial 4", "Balanced trial 1", "Best trial 0", "+1.40 dB over bicubic", "10.00 ms", "1.200 G"):
        assert part in decision
    assert "width 16, 2 levels (1+1 encoder / 1 middle / 0+0 decoder blocks)" in decision


def test_the_funnel_names_the_limits(page):
    assert ["MACs over 8 G", "1"] in page.rows
    assert ["latency over 60 ms", "1"] in page.rows
    assert ["trained", "8"] in page.rows


def test_what_a_record_says_is_escaped(html, page):
    assert "<script>nan" not in html
    assert "loss is <script>nan</script>" in page.words


def test_folders_of_the_machine_are_left_out(html, page):
    assert "somebody" not in html
    assert 'File "evaluation/proxy.py", line 3' in page.words


def test_conditions_and_notes_are_told(page):
    for part in ("A processor x2 (bench)", "torch 2.9.0", "seed 7", "not FLOPs", "160×160 px, 1 thread, float32, cpu"):
        assert part in page.words
    assert "b.png: validated on its centre" in page.words
    assert "Wall time" not in page.words


def test_wall_time_withdrawals_and_an_early_end_are_told_where_there_are_any(rich_study):
    facts = {
        **rich_study.facts,
        "elapsed_s": 812.4,
        "withdrawn": {"7": "latency_ms 61 > 60"},
        "ended_early": "all 9 points of the space were considered",
    }
    words = Page(render_page(dataclasses.replace(rich_study, facts=facts))).words
    for part in ("14 min", "Trial 7: latency_ms 61 > 60", "all 9 points of the space were considered"):
        assert part in words


def test_the_figures_that_decide_stand_first(unlike_study, expert_study):
    heads = [row for row in Page(render_page(unlike_study)).rows if row[:1] in (["trial"], ["reference"])]
    decisive = ["PSNR (dB)", "over bicubic", "latency (ms)", "MACs (G)"]
    by_name = {tuple(row): row for row in heads}
    assert [row[1:5] for row in by_name.values() if row[0] == "reference"] == [decisive]
    assert ["trial", *decisive, "gain, 95 % over 2 images", "preset"] in [row[:7] for row in heads]
    assert ["trial", "PSNR (dB)", "latency (ms)", "next", "next: ΔPSNR (dB)", "next: Δlatency (ms)"] in [
        row[:6] for row in heads
    ]


def test_the_bars_of_the_figure_are_explained_and_the_spread_is_a_choice(unlike_study):
    html = render_page(unlike_study)
    words = Page(html).words
    assert "Vertical bars are 95 % intervals of the gain over bicubic, photograph by photograph." in words
    assert re.search(r'<select id="front-bars">\s*<option value="interval">gain, 95 %</option>', html)
    assert '<option value="spread">PSNR over unlike photographs</option>' in html


def test_untrusted_latencies_are_listed_with_what_to_do(rich_study):
    def doubted(trial):
        if trial.cost is None or trial.cost.latency is None:
            return trial
        latency = dataclasses.replace(trial.cost.latency, trusted=False)
        return dataclasses.replace(trial, cost=dataclasses.replace(trial.cost, latency=latency))

    assert "Untrusted latencies" not in Page(render_page(rich_study)).words
    study = dataclasses.replace(rich_study, trials=tuple(map(doubted, rich_study.trials)))
    words = Page(render_page(study)).words
    assert "Trial 4: latency untrusted: the machine was busy" in words
    assert "Rerun the run's command with --remeasure on an idle machine." in words


def test_a_second_measurement_of_the_latency_is_shown(rich_study, make_trial):
    again = to_json(make_trial(1, macs_g=1.2, latency_ms=13.57).cost)
    facts = {**rich_study.facts, "verified": {"1": again}}
    words = Page(render_page(dataclasses.replace(rich_study, facts=facts))).words
    assert "again (ms)" in words
    assert "13.57" in words


def test_a_run_without_a_complete_candidate_gives_a_page_that_says_so(make_study, make_trial):
    for trials in ((), rich_without_complete(make_trial)):
        words = Page(render_page(make_study(trials))).words
        assert "No candidate is complete yet" in words
        assert "The front" not in words


def rich_without_complete(make_trial):
    return [make_trial(0, TrialState.STOPPED, psnr_db=30.5, latency_ms=4.0, macs_g=1.0, rungs=1)]


def test_a_run_that_knows_nothing_but_its_name_gives_a_page(make_study):
    bare = dataclasses.replace(make_study(), spec={}, facts={}, objectives=())
    assert "handmade" in Page(render_page(bare)).words


def test_a_network_is_described_in_words(rich_study):
    assert describe_network(rich_study.trials[1].config) == (
        "width 10, 1 level (1 encoder / 1 middle / 0 decoder blocks), 7×7 kernels, re-parameterised, expansion 2, "
        "window attention (8 px, 2 heads) in mid, 4 experts (top 1) in mid, "
        "frequency split with a DFT refiner of depth 2"
    )
    assert describe_network(None) == ""


def test_a_dense_network_expands_only_where_something_in_it_does():
    dense = HFIRConfig(mixer=DenseConfig())
    assert "expansion" not in describe_network(dense.to_dict())
    assert "expansion 2" in describe_network(dataclasses.replace(dense, experts=MoEConfig()).to_dict())
    refined = dataclasses.replace(dense, frequency_split=FrequencySplitConfig(), refiner=DFTRefinerConfig())
    assert "expansion 2" in describe_network(refined.to_dict())
    assert "expansion 2" in describe_network(HFIRConfig().to_dict())


def test_the_page_and_everything_else_is_written_into_the_run_folder(rich_study, tmp_path):
    study = dataclasses.replace(rich_study, folder=tmp_path)
    assert write_report(study) == tmp_path / "report.html"
    names = ["trials.csv", "trials.parquet", "front.csv", "front.png", "report.html"]
    assert [path.name for path in write_all(study)] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_latency_that_is_not_to_be_trusted_is_said(make_study, make_trial):
    trial = make_trial(3, psnr_db=31.0, latency_ms=8.0, macs_g=2.0)
    busy = dataclasses.replace(trial.cost.latency, trusted=False, reference_drift=0.4)
    doubted = dataclasses.replace(trial, cost=dataclasses.replace(trial.cost, latency=busy))
    assert "Doubts" not in Page(render_page(make_study([trial]))).text
    text = " ".join(Page(render_page(make_study([doubted]))).text)
    assert "Trial 3: latency untrusted: the machine was busy, a reference ran 40% slower than at rest" in text


def test_what_the_experts_do_is_told_for_every_complete_candidate_that_has_any(expert_study):
    page = Page(render_page(expert_study))
    rows = [row for row in page.rows if "mid" in row or "dec2" in row]
    assert rows == [
        ["0", "mid", "1.00", "balanced", "0.80", "2.00", "25% / 25% / 25% / 25%"],
        ["0", "dec2", "0.50", "2 dead experts: 3, 4", "0.40", "–", "50% / 50% / 0% / 0%"],
        ["1", "mid", "1.00", "balanced", "0.80", "2.00", "25% / 25% / 25% / 25%"],
    ]
    section = page.words.partition("What the experts do")[2]
    assert "Balanced, trial 1" in section
    assert "to which expert the photographs of each degradation go" in section
    assert "routers taught the degradations (weight 0.02)" in page.words
    assert "Mixed degradations: lost detail, noise σ = 25, blur σ = 1.6 px, JPEG quality 20" in page.words


def test_nothing_is_told_of_experts_where_there_are_none(page):
    assert "What the experts do" not in page.words


def test_the_picture_of_the_experts_is_written_where_presets_have_any(expert_study, rich_study, tmp_path):
    written = write_all(dataclasses.replace(expert_study, folder=tmp_path))
    assert "experts.png" in [path.name for path in written]
    assert save_experts(rich_study) == []


def test_a_latency_is_shown_with_its_interval(page):
    assert "10.00 ms (9.80–10.20)" in page.words


def test_what_matters_is_told_where_there_are_enough_candidates(rich_study, make_study, make_trial):
    assert "What matters" not in Page(render_page(rich_study)).words
    many = [make_trial(n, psnr_db=30 + n / 100, latency_ms=5.0 + n, macs_g=1.0 + n) for n in range(20)]
    page = Page(render_page(make_study(many)))
    assert "Counted as best: PSNR, 5 of 20; latency, 5 of 20; MACs, 5 of 20" in page.words
    assert ["width", "100%", "100%", "100%"] in page.rows


# -- what each step up buys --------------------------------------------------------------------------


def steps_of(study):
    """Return the section's words and the table's rows by trial, each a mapping from the column's head."""
    page = Page(render_page(study))
    section = page.words.partition("What each step up buys")[2].partition("What became of the candidates")[0]
    heads = next(row for row in page.rows if "next" in row)
    start = page.rows.index(heads) + 1
    rows = [dict(zip(heads, row, strict=True)) for row in page.rows[start:] if len(row) == len(heads)]
    return section, {row["trial"]: row for row in rows}


def with_images(trial, *offsets_db):
    """Return a trial whose measurements hold a PSNR for each image: these offsets from the mean."""
    measurements = tuple(
        dataclasses.replace(m, psnr_per_image_db=tuple(m.psnr_db + offset for offset in offsets_db))
        for m in trial.measurements
    )
    return dataclasses.replace(trial, measurements=measurements)


def test_each_member_is_shown_with_the_next_and_with_the_cheaper_one(rich_study):
    section, rows = steps_of(rich_study)
    assert list(rows) == ["4", "1", "5", "0"]
    assert "From cheap to dear by latency" in section
    first, second = rows["4"], rows["1"]
    assert (first["next"], first["next: ΔPSNR (dB)"], first["next: Δlatency (ms)"]) == ("1", "+0.50", "+5.00")
    assert (first["dB per ms"], first["dB per GMAC"], first["cheaper"]) == ("0.1", "1.67", "–")
    assert (second["cheaper"], second["cheaper: ΔPSNR (dB)"], second["cheaper: ΔMACs (G)"]) == ("4", "−0.50", "−0.300")
    assert rows["0"]["next"] == "–"


def test_members_that_cannot_be_told_apart_are_marked_and_the_caveat_is_told(make_trial, make_study):
    alike = [
        with_images(make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0), -1.0, 1.0),
        with_images(make_trial(1, psnr_db=31.1, latency_ms=10.0, macs_g=2.0), 1.0, -1.0),
        with_images(make_trial(2, psnr_db=34.0, latency_ms=20.0, macs_g=3.0), 1.0, -1.0),
    ]
    section, rows = steps_of(make_study(alike))
    assert [row["tied in"] for row in rows.values()] == ["PSNR 1", "PSNR 1", "–"]
    assert rows["0"]["next: ΔPSNR (dB)"] == "≈ +0.10"
    assert rows["0"]["next: 95 %"] == "−1.90 to +2.10"
    assert "PSNR 1 2 members: trials 0, 1" in section
    assert "not training seeds" in section


def test_a_single_member_has_no_step_and_no_columns_of_one(make_trial, make_study):
    words = Page(render_page(make_study([make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)]))).words
    assert "A single member stands on the front" in words
    assert "next: " not in words


def test_steps_go_without_latency_and_without_the_psnr_of_single_images(make_trial, make_study):
    trials = [with_images(make_trial(n, psnr_db=31.0 + n, macs_g=1.0 + n)) for n in range(2)]
    section, rows = steps_of(make_study(trials, objectives=("psnr_db", "macs_g")))
    assert (rows["0"]["next: ΔPSNR (dB)"], rows["0"]["next: ΔMACs (G)"]) == ("+1.00", "+1.000")
    assert not any("latency" in head or "ms" in head or "95 %" in head for head in rows["0"])
    assert "The records hold no PSNR of single images" in section


def test_a_run_without_a_cost_has_no_steps(make_trial, make_study):
    members = [make_trial(n, psnr_db=31.0, latency_ms=5.0, macs_g=1.0) for n in range(2)]
    words = Page(render_page(make_study(members, objectives=("psnr_db", "ssim")))).words
    assert "no cost among its objectives" in words


def test_a_long_front_has_a_row_for_every_member(make_trial, make_study):
    trials = [
        with_images(make_trial(n, psnr_db=30 + n / 50, latency_ms=5.0 + n, macs_g=1.0 + n), -1, 1) for n in range(60)
    ]
    _, rows = steps_of(make_study(trials))
    assert list(rows) == [str(n) for n in range(60)]


def test_how_the_rungs_agree_is_told(page):
    assert ["100", "1,200", "5", "1.00", "yes"] in page.rows


def test_pictures_are_embedded_with_their_figures(rich_study, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "0-0.png").write_bytes(b"png")
    forms = [{"name": "bicubic", "file": "../0-0.png", "psnr_db": 31.234}]
    entry = {"name": "<b>.png", "forms": forms}
    (folder / "pictures.json").write_text(json.dumps({"schema": 1, "photographs": [entry]}))
    page = Page(render_page(dataclasses.replace(rich_study, folder=tmp_path)))
    assert "<b>.png bicubic 31.23 dB" in page.words
    assert "data:image/png;base64,cG5n" in page.resources


def test_a_damaged_list_of_pictures_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/pictures.json").write_text('{"photographs": [{}]}')
    with pytest.raises(StoreError, match=r"KeyError\('name'\).*hfir-search report"):
        read_pictures(tmp_path)
