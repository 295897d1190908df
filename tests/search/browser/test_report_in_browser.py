"""The report in a real browser: no complaint, the front drawn, a click that opens a card, tables that work."""

import dataclasses

import pytest

from search.report import write_report

pytestmark = pytest.mark.slow

POINT = """(number => {
  const plot = document.getElementById("front-plot"), {left, top} = plot.getBoundingClientRect();
  const trace = plot.data.find(t => t.customdata && t.customdata.includes(number));
  const at = trace.customdata.indexOf(number);
  const {xaxis, yaxis} = plot._fullLayout;
  return [left + xaxis._offset + xaxis.d2p(trace.x[at]), top + yaxis._offset + yaxis.d2p(trace.y[at])];
})"""
"""Where a trial's point is on the screen."""


@pytest.fixture(scope="module")
def page(rich_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(dataclasses.replace(rich_study, folder=folder))


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    browser.evaluate("document.getElementById('front').scrollIntoView()")
    browser.wait("document.querySelectorAll('#parallel .axis').length > 0")
    return browser


def test_the_page_asks_for_nothing_and_the_browser_does_not_complain(browser, page):
    browser.open(page)
    browser.wait("document.querySelectorAll('.js-plotly-plot').length === document.querySelectorAll('.plot').length")
    browser.wait("document.querySelectorAll('#parallel .axis').length > 3")
    assert browser.evaluate("document.querySelectorAll('.plot').length") == 5
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


def test_a_complaint_would_be_seen(browser, page):
    browser.open(page)
    browser.evaluate("setTimeout(() => { throw new Error('on purpose') }); fetch('data:,x').catch(() => 0)")
    browser.wait("true")
    assert "on purpose" in str(browser.complaints)


def test_the_front_is_drawn_with_the_baseline_and_the_limit(opened):
    traces = opened.evaluate("document.getElementById('front-plot').data.map(t => [t.name, t.customdata])")
    drawn = {name: numbers for name, numbers in traces if numbers}
    assert drawn == {
        "stopped early": [3, 12],
        "complete, beaten": [2],
        "front": [4, 1, 0],
        "front, by another figure": [5],
        "knee (balanced)": [1],
    }
    words = opened.evaluate("document.getElementById('front-plot').textContent")
    assert "bicubic 30.00" in words
    assert "limit 60" in words


def test_bars_are_of_the_gain_the_axis_fits_the_front_and_the_spread_is_a_choice(browser, unlike_study, tmp_path):
    browser.open(write_report(dataclasses.replace(unlike_study, folder=tmp_path)))
    browser.wait("document.querySelectorAll('#front-plot .trace.scatter').length > 0")
    state = (
        "(() => { const plot = document.getElementById('front-plot'), front = plot.data.find(t => t.name === 'front');"
        " return [plot._fullLayout.yaxis.range, front.error_y ? front.error_y.array[0] : null]; })()"
    )
    (low, high), bar = browser.evaluate(state)
    assert 30.5 < low < 30.9
    assert 31.3 < high < 31.5
    assert bar == pytest.approx(0.1, abs=1e-4)
    words = browser.evaluate("document.getElementById('front-plot').textContent")
    assert "↓ bicubic 30.00" in words
    assert "references (below the axis: edsr)" in words
    choose = (
        "(() => { const list = document.getElementById('front-bars'); list.value = %r;"
        " list.dispatchEvent(new Event('change')); })()"
    )
    browser.evaluate(choose % "spread")
    (low, high), bar = browser.evaluate(state)
    assert bar == pytest.approx(5.1, abs=1e-4)
    assert (low < 26, high > 36) == (True, True)
    browser.evaluate(choose % "")
    (low, high), bar = browser.evaluate(state)
    assert bar is None
    assert high - low < 0.8
    assert browser.complaints == []


FITTING = """[...document.querySelectorAll('%s th')].filter(head =>
  head.getBoundingClientRect().right <= document.querySelector('%s .scroll').getBoundingClientRect().right
).map(head => head.textContent)"""
"""The heads of a table that are wholly within its window."""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_columns_that_decide_fit_and_the_rest_scrolls_visibly(browser, unlike_study, tmp_path, width):
    browser.open(write_report(dataclasses.replace(unlike_study, folder=tmp_path)), width=width, height=900)
    browser.wait("document.querySelectorAll('#front-plot .trace.scatter').length > 0")
    front = ["trial", "PSNR (dB)", "over bicubic", "latency (ms)", "MACs (G)"]
    steps = ["trial", "PSNR (dB)", "latency (ms)", "next", "next: ΔPSNR (dB)", "next: Δlatency (ms)"]
    if width == 1280:
        front += ["gain, 95 % over 2 images", "preset"]
        steps += ["next: 95 %"]
    for section, decisive in (("#front", front), ("#steps", steps)):
        fitting = browser.evaluate(FITTING % (section, section))
        assert fitting[: len(decisive)] == decisive
        button = f"document.querySelector('{section} .sideways')"
        box = f"document.querySelector('{section} .scroll')"
        if not browser.evaluate(f"{box}.scrollWidth > {box}.clientWidth"):
            continue
        assert browser.evaluate(f"{button}.checkVisibility()")
        browser.evaluate(f"{box}.scrollTo({{left: 9999, behavior: 'instant'}})")
        browser.wait(f"{button}.hidden")
        first = browser.evaluate(f"document.querySelector('{section} td').getBoundingClientRect().left")
        assert first == pytest.approx(browser.evaluate(f"{box}.getBoundingClientRect().left"), abs=2), "stays in view"


def test_a_click_opens_the_card_with_the_network(opened):
    assert opened.evaluate("document.getElementById('card').dataset.trial") == "1"
    opened.click(*opened.evaluate(f"{POINT}(0)"))
    opened.wait("document.getElementById('card').dataset.trial === '0'")
    card = opened.evaluate("document.getElementById('card').textContent")
    assert "best" in card
    assert "40.00 (39.20–40.80)" in card
    assert "enc2, 32 channels" in opened.evaluate("document.querySelector('#card svg').textContent")


def test_a_card_lists_what_lies_one_change_away_and_leads_there(browser, make_trial, make_study, tmp_path):
    def trial(number, width, **figures):
        return make_trial(number, genotype={"width": width, "levels": 1}, **figures)

    near = [trial(n, 8 + n, psnr_db=30.0 - n / 10, latency_ms=9.0 + n, macs_g=3.0 + n) for n in range(1, 9)]
    study = make_study([trial(0, 8, psnr_db=31.0, latency_ms=8.0, macs_g=2.0), *near])
    browser.open(write_report(dataclasses.replace(study, folder=tmp_path)))
    lines = "[...document.querySelectorAll('#card .near li')].map(l => l.textContent)"
    browser.wait(f"{lines}.length > 0")
    shown = browser.evaluate(lines)
    assert len(shown) == 6
    assert shown[0] == "width 8 → 9: trial 1−1.10 dB, +2.00 ms, +2.000 G MACs"
    browser.evaluate("document.querySelector('#card .near .plain').click()")
    assert len(browser.evaluate(lines)) == 8
    browser.evaluate("document.querySelector('#card .near .open').click()")
    browser.wait("document.getElementById('card').dataset.trial === '1'")
    assert browser.evaluate("document.querySelector('#card .near')") is None  # not on the front
    assert browser.complaints == []


def test_the_steps_sort_download_and_open_a_card(opened):
    block = "document.querySelector('#steps .table')"
    opened.evaluate("URL.createObjectURL = blob => { window.kept = blob; return '#'; }")
    opened.evaluate(f"[...{block}.querySelectorAll('th button')].find(b => b.textContent === 'dB per ms').click()")
    opened.evaluate(f"{block}.querySelector('.csv').click()")
    lines = opened.evaluate("window.kept.text()").splitlines()
    assert lines[0].startswith("trial,PSNR (dB),latency (ms),next,")
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "5", "4", "0"]
    opened.evaluate(f"{block}.querySelector('tbody .open[data-trial=\"0\"]').click()")
    opened.wait("document.getElementById('card').dataset.trial === '0'")


def test_pointing_at_a_candidate_shows_its_network(opened):
    x, y = opened.evaluate(f"{POINT}(2)")
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    opened.wait("document.querySelector('#front-plot .hoverlayer').textContent.includes('width 12')")
    assert "trial 2, complete" in opened.evaluate("document.querySelector('#front-plot .hoverlayer').textContent")


def test_the_objectives_can_be_chosen(opened):
    opened.evaluate(
        "for (const [id, name] of [['front-x', 'macs_g'], ['front-y', 'ssim']]) {"
        " const list = document.getElementById(id); list.selectedIndex = [...list.options].findIndex(o =>"
        " o.text === data.objectives[name].label); list.dispatchEvent(new Event('change')); }"
    )
    titles = opened.evaluate("['x', 'y'].map(a => document.getElementById('front-plot').layout[a + 'axis'].title.text)")
    assert titles == ["MACs (G)", "SSIM"]
    front = opened.evaluate("document.getElementById('front-plot').data.find(t => t.name === 'front').customdata")
    assert front == [5, 4, 1, 0]


def test_tables_sort_filter_and_download(opened):
    block = "document.querySelector('#all .table')"
    opened.evaluate("URL.createObjectURL = blob => { window.kept = blob; return '#'; }")
    opened.evaluate(f"{block}.querySelectorAll('th button')[2].click()")
    first = opened.evaluate(f"[...{block}.querySelectorAll('tbody tr')].slice(0, 2).map(r => r.cells[0].textContent)")
    assert first == ["11", "3"]
    opened.evaluate(
        f"{block}.querySelector('input').value = 'stopped';"
        f"{block}.querySelector('input').dispatchEvent(new Event('input')); {block}.querySelector('.csv').click()"
    )
    assert opened.evaluate(f"{block}.querySelector('.count').textContent") == "2 of 13 rows"
    lines = opened.evaluate("window.kept.text()").splitlines()
    assert lines[0].startswith("trial,state,PSNR (dB),over bicubic,latency (ms),MACs (G),SSIM,")
    assert [line.split(",")[0] for line in lines[1:]] == ["3", "12"]
    assert '"width 14, 1 level' in lines[1]


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_the_page_in_one_direction_only(browser, page, dark):
    browser.open(page, width=390, height=800, dark=dark)
    browser.evaluate("document.getElementById('front').scrollIntoView()")
    browser.wait("document.querySelectorAll('#front-plot .trace.scatter').length > 0")
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(23, 26, 31)" if dark else "rgb(255, 255, 255)")
    assert browser.evaluate("document.getElementById('front-plot').layout.paper_bgcolor") == (
        "#171a1f" if dark else "#ffffff"
    )


def test_a_run_without_candidates_gives_a_page_that_works(browser, make_study, make_trial, tmp_path):
    browser.open(write_report(dataclasses.replace(make_study(), folder=tmp_path)))
    assert browser.evaluate("document.getElementById('trouble').hidden")
    assert browser.complaints == []
