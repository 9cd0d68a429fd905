"""Pages of single trials and of two trials, in Chromium; small screens and small sweeps."""
# ruff: noqa: F811  # a fixture is imported and then named as an argument

import time
from dataclasses import replace

import pytest
from page_browser import (  # noqa: F401  # fixtures and what they need
    CHROMIUM,
    address,
    ask,
    board,
    browser,
    chromium,
    click,
    drawn,
    first_trial,
    results,
    rows,
    wait,
)
from synthetic import HOSTILE, synthetic

from bench.report import page

pytestmark = CHROMIUM


def test_a_trial_shows_everything_about_it(browser, results, board):
    trial_id = first_trial(board)
    ask(browser, "location.hash = arguments[0]", f"#trial/{trial_id}")
    wait(browser, "document.querySelector('.samples')")
    drawn(browser)
    text = ask(browser, "document.querySelector('main').innerText")
    assert HOSTILE.split("\u2028")[0] in text.replace("\n", " ")
    for words in ("What differs from the base", "model.adapter.rank", "Memory over time", "best, shared", "host_cpu"):
        assert words in text
    sizes = ask(browser, "[...document.querySelectorAll('.samples img')].map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) == 18 and all(size == [True, 48] for size in sizes)
    assert ask(browser, "document.activeElement.tagName") == "H1"  # a screen reader begins there


@pytest.mark.parametrize(
    "state, words", [("error", "KeyError"), ("missing", "download it"), ("over budget", "12.00 GiB")]
)
def test_trials_that_failed_say_why(browser, board, state, words):
    ask(browser, "location.hash = arguments[0]", f"#trial/{first_trial(board, state)}")
    wait(browser, "document.querySelector('pre')")
    text = ask(browser, "document.querySelector('main').innerText")
    assert words in text and f"State: {state}" in text and "This trial has no scores." in text
    assert "No samples were kept." in text


def test_two_trials_are_compared_image_by_image(browser, results):
    a, b = results.trials[0].trial_id, results.trials[5].trial_id
    ask(browser, "location.hash = arguments[0]", f"#compare/{a}/{b}")
    wait(browser, "document.querySelector('.samples.wide')")
    drawn(browser)
    x, y = (results.images[i]["s_measure"] for i in (a, b))
    names = results.images[a]["name"]
    order = sorted(range(len(x)), key=lambda i: -abs(x[i] - y[i]))
    script = "[...document.querySelectorAll('[aria-label=\"Images where the two differ most\"] tbody tr')]"
    lines = ask(browser, f"{script}.map(row => [...row.children].map(cell => cell.textContent))")
    assert len(lines) == 20 and [line[0] for line in lines[:5]] == [names[i] for i in order[:5]]
    assert lines[0][3].replace("−", "-") == f"{x[order[0]] - y[order[0]]:+.3f}"
    assert ask(browser, "document.querySelectorAll('.plot .point').length") == len(x)
    pictures = ask(browser, "[...document.querySelectorAll('.samples.wide figure')].map(f => f.innerText)")
    assert len(pictures) == 6 and all("A − B" in text for text in pictures)
    differences = [abs(float(text.rpartition(" ")[2].replace("−", "-"))) for text in pictures]
    assert differences == sorted(differences, reverse=True)
    ask(browser, "[...document.querySelectorAll('button')].find(b => b.innerText === 'Swap').click()")
    wait(browser, "location.hash === arguments[0]", f"#compare/{b}/{a}")


def test_a_comparison_across_environments_warns(browser, results, board):
    ask(browser, "location.hash = arguments[0]", f"#compare/{first_trial(board)}/{first_trial(board, table=1)}")
    wait(browser, "document.querySelector('main').innerText.includes('different environments')")


def test_an_unknown_trial_is_said(browser):
    ask(browser, "location.hash = '#trial/__proto__'")
    wait(browser, "document.querySelector('h1').innerText === 'No such trial here'")


def test_a_telephone_scrolls_down_only(browser, results, board):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        a, b = results.trials[0].trial_id, results.trials[5].trial_id
        for place in ("#", f"#trial/{a}", f"#compare/{a}/{b}", f"#trial/{first_trial(board, 'error')}"):
            ask(browser, "location.hash = arguments[0]", place)
            time.sleep(0.2)
            drawn(browser)
            assert ask(browser, "document.documentElement.scrollWidth") <= 360, place
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("rows, seeds, records", [(1, (0,), True), (4, (0, 1), False), (20, (3,), True)])
def test_small_and_empty_sweeps_have_a_page_too(chromium, tmp_path, rows, seeds, records):
    results = synthetic(rows, seeds)
    if not records:
        results = replace(results, records={}, images={}, folders={})
    (tmp_path / "page.html").write_text(page.html(results, results.board()), encoding="utf-8")
    chromium.get_log("browser")
    chromium.get((tmp_path / "page.html").as_uri())
    drawn(chromium)
    assert ask(chromium, "document.querySelector('#answer .lead strong').innerText")
    ask(chromium, "location.hash = arguments[0]", f"#trial/{results.trials[-1].trial_id}")
    wait(chromium, "document.querySelector('h1').innerText.includes('seed')")
    assert chromium.get_log("browser") == []
