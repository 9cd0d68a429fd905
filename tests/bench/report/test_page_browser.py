"""The page in headless Chromium: it sorts, filters, leads from points to trials, compares, and asks nobody anything.

One browser for all tests; nothing is downloaded, Debian's chromium and chromium-driver are used.
"""

import json
import shutil
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from synthetic import HOSTILE, synthetic

from bench.report import page
from bench.report.latex import latex
from bench.report.tables import as_csv

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
]
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to start as root with one
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--force-prefers-reduced-motion",  # what is scrolled to is there at once
)
LOAD_SECONDS = 2


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """300 trials with everything that can happen to them, and texts that try to break out."""
    return synthetic(60, (0, 1, 2, 3, 4), hostile=True, folder=tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def board(results):
    return results.board()


@pytest.fixture(scope="module")
def address(results, board, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a page.html"
    path.write_text(page.html(results, board), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e '.[test]')")
    from selenium.webdriver.chrome.service import Service

    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,900"):
        options.add_argument(argument)
    allowed = {"profile.default_content_setting_values.automatic_downloads": 1}  # several at a time
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads), **allowed})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))  # an explicit path: selenium fetches no driver
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, address):
    """The overview, freshly opened. Afterwards: no console message, nothing asked of the network, nothing injected."""
    chromium.get("about:blank")
    chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get(address)
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url.split("#")[0] for url in asked if not url.startswith(("data:", "blob:"))} == {address}
    assert chromium.execute_script("return window.hacked ?? null") is None


def ask(browser, script, *arguments):
    return browser.execute_script(f"return {script}", *arguments)


def wait(browser, script, *arguments, seconds=20):
    """Waits until the script's value is true, and returns it."""
    until = time.monotonic() + seconds
    while not (found := ask(browser, script, *arguments)):
        assert time.monotonic() < until, f"still not: {script}"
        time.sleep(0.05)
    return found


def click(browser, selector):
    found = browser.find_element("css selector", selector)
    ask(browser, "arguments[0].scrollIntoView({block: 'center'})", found)  # not below the bar at the top
    found.click()


def drawn(browser):
    wait(browser, "[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn)")


def column(browser, key, table=0):
    """Numbers of a column of the first table as they stand there; None for a dash."""
    script = """(() => {
      const table = document.querySelectorAll("table.leaderboard")[arguments[1]];
      const heads = [...table.querySelectorAll("thead th")];
      const at = heads.findIndex((head) => head.querySelector(`[data-sort="column ${arguments[0]}"]`));
      return [...table.querySelectorAll("tbody tr")].map((row) => row.children[at].firstChild.textContent);
    })()"""
    texts = ask(browser, script, key, table)
    return [None if text == "–" else float(text.replace("−", "-")) for text in texts]


def rows(browser):
    return ask(browser, "document.querySelectorAll('table.leaderboard tbody tr').length")


def sort_by(browser, key):
    ask(browser, "document.querySelector(`[data-sort='${arguments[0]}']`).click()", key)


def first_trial(board, state=None, table=0):
    """Of the first row, or of the first one that has a trial in this state."""
    for row in board.tables[table].rows:
        if state is None or state in row.statuses:
            return row.trial_ids[row.statuses.index(state) if state else 0]


def test_it_loads_in_time(browser):
    """The best of three: other processes may have the cores for a while."""
    seconds = []
    for _ in range(3):
        browser.refresh()
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        seconds.append(wait(browser, timing) / 1000)
    assert 0 < min(seconds) < LOAD_SECONDS
    assert rows(browser) == 60
    drawn(browser)


def test_what_the_numbers_are_stands_at_the_top(browser):
    text = ask(browser, "document.querySelector('main').innerText")
    assert text.startswith("Embedded run") and text.index("Running: 290 of 300 trials done.") < text.index("How narrow")
    assert "resolved" in ask(browser, "document.querySelector('#answer .lead').innerText").lower()


def test_columns_sort_and_say_how(browser):
    for key, best_first in (("test.s_measure", True), ("training.rss_bytes", False)):
        sort_by(browser, f"column {key}")
        state = f"document.querySelector(`[data-sort='column {key}']`).closest('th').ariaSort"
        first = column(browser, key)
        assert ask(browser, state) == ("descending" if best_first else "ascending")
        sort_by(browser, f"column {key}")
        second = column(browser, key)
        for values, falling in ((first, best_first), (second, not best_first)):
            known = [v for v in values if v is not None]
            assert None not in values[: len(known)] and len(known) > 50  # what is not known comes last, either way
            assert all(a >= b if falling else a <= b for a, b in pairwise(known))
    sort_by(browser, "axis 0")
    labels = ask(browser, "[...document.querySelectorAll('table.leaderboard tbody th')].map(th => th.innerText)")
    assert labels[1].startswith("<img") and labels[2:5] == ["2", "2", "3"]  # in the sweep's order, not the alphabet's


def test_filters_leave_what_was_asked_for(browser):
    search = browser.find_element("css selector", "#search")
    search.send_keys("over budget")
    assert rows(browser) == 1 and "1 of 60 rows" in ask(browser, "document.querySelector('#table').innerText")
    search.clear()
    search.send_keys("onerror")
    assert rows(browser) == 3  # two labels and an error
    search.clear()
    search.send_keys(" ")
    selects = browser.find_elements("css selector", "#table .controls select")
    selects[1].send_keys("16")
    assert rows(browser) == 30
    selects[2].send_keys("something")
    assert 0 < rows(browser) < 10
    assert not ask(
        browser, "[...document.querySelectorAll('td.state')].some(td => /^([0-9]+).\\1$/.test(td.innerText))"
    )
    assert 0 < ask(browser, "document.querySelectorAll('td.state.bad').length") <= rows(browser)


def test_other_columns_can_be_shown(browser):
    assert not ask(browser, "document.querySelector('[data-sort=\"column val.mae\"]')")
    boxes = "[...document.querySelectorAll('.choices label')].find(label => label.innerText.trim() === 'val MAE ↓')"
    ask(browser, "document.querySelector('.choices').parentElement.open = true")
    ask(browser, f"{boxes}.querySelector('input').click()")
    assert len(column(browser, "val.mae")) > 50


def test_a_point_leads_to_its_trial(browser):
    from selenium.webdriver import ActionChains

    drawn(browser)
    point = browser.find_elements("css selector", "#front .scatterlayer .point")[5]
    ask(browser, "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", point)
    ActionChains(browser).move_to_element(point).pause(0.3).click().perform()
    wait(browser, "location.hash.startsWith('#trial/')")
    trial_id = ask(browser, "location.hash.slice(7)")
    assert trial_id in ask(browser, "document.querySelector('.kicker').innerText")


def test_the_explorer_draws_what_was_chosen(browser):
    drawn(browser)
    ticks = ask(browser, "[...document.querySelectorAll('#explore .xtick text')].map(t => t.textContent)")
    assert ticks[0].startswith("<img src=x onerror=") and ticks[0].endswith("…") and ticks[1] == "2"
    selects = browser.find_elements("css selector", "#explore select")
    for select, value in zip(selects, ("parameters.trainable", "timing.train_images_per_second", "axis 1")):
        chosen = "(arguments[0].value = arguments[1], arguments[0].dispatchEvent(new Event('change')))"
        ask(browser, chosen, select, value)
    drawn(browser)
    titles = "[...document.querySelectorAll('#explore .xtitle, #explore .ytitle')].map(t => t.textContent)"
    assert ask(browser, titles) == ["trainable M", "train img/s ↑"]
    colours = ask(
        browser,
        "[...new Set([...document.querySelectorAll('#explore .scatterlayer .point')].map(p => p.style.fill))].length",
    )
    assert colours == 2


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


def test_everything_can_be_reached_with_the_keyboard(browser):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys):
        for key in keys:
            ActionChains(browser).send_keys(key).perform()

    press(Keys.TAB)
    assert ask(browser, "document.activeElement.innerText") == "Skip to content"
    press(Keys.ENTER)
    assert ask(browser, "document.activeElement.id") == "page" and not ask(browser, "location.hash")
    ask(browser, "document.querySelector('[data-sort=\"column test.s_measure\"]').focus()")
    press(Keys.ENTER)
    after = "[document.activeElement.dataset.sort, document.activeElement.closest('th').ariaSort]"
    assert ask(browser, after) == ["column test.s_measure", "descending"]  # the focus stays on the title
    press(Keys.TAB)
    assert ask(browser, "getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert ask(browser, "document.activeElement.dataset.sort") == "column test.weighted_f_measure"
    ask(browser, "document.querySelector('table.leaderboard tbody a').focus()")
    press(Keys.ENTER)
    wait(browser, "location.hash.startsWith('#trial/')")
    clickable = "[...document.querySelectorAll('[onclick], div[tabindex]')].filter(e => e.role !== 'region')"
    assert ask(browser, f"{clickable}.length") == 0
    unnamed = "[...document.querySelectorAll('a, button, select, input, [role=region], [role=figure]')].filter("
    unnamed += "e => !(e.innerText || e.ariaLabel || e.textContent || e.closest('label')) && !e.closest('.plot'))"
    assert ask(browser, f"{unnamed}.length") == 0


def test_it_follows_the_system_into_the_dark_and_the_button_out_of_it(browser):
    def paper():
        return ask(browser, "getComputedStyle(document.body).backgroundColor")

    try:
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
        assert paper() == "rgb(19, 22, 26)"
        drawn(browser)
        wait(browser, "document.querySelector('#front .main-svg').style.background === 'rgb(19, 22, 26)'")
        click(browser, "#theme")
        assert paper() == "rgb(255, 255, 255)"
        wait(browser, "document.querySelector('#front .main-svg').style.background === 'rgb(255, 255, 255)'")
    finally:
        ask(browser, "localStorage.clear()")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


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


def test_the_leaderboard_can_be_saved(browser, board):
    for button in ask(browser, "[...document.querySelectorAll('#files button')]"):
        ask(browser, "arguments[0].click()", button)
        time.sleep(0.3)
    for name, text in {"leaderboard.csv": as_csv(board), "leaderboard.tex": latex(board)}.items():
        until = time.monotonic() + 10
        while not (browser.downloads / name).exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert (browser.downloads / name).read_text(encoding="utf-8") == text


def test_a_running_sweep_reloads_when_asked(browser):
    click(browser, ".running input")
    browser.find_element("css selector", "#search").send_keys("missing")
    count = rows(browser)
    browser.refresh()
    assert ask(browser, "document.querySelector('.running input').checked") and rows(browser) == count < 60
    click(browser, ".running input")
    browser.refresh()
    assert rows(browser) == 60


def test_without_decompression_the_tables_remain(browser, address):
    removed = {"source": "delete window.DecompressionStream"}
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", removed)
    try:
        browser.refresh()
        wait(
            browser, "document.querySelector('#front .waiting')?.innerText.startsWith('No plots: this browser cannot')"
        )
        assert rows(browser) == 60
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


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


def test_the_policy_refuses_every_request(chromium, address):
    chromium.get(address)
    script = """const done = arguments[0];
      document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
      fetch("http://127.0.0.1:9/").catch(() => 0);
      setTimeout(() => done("nothing was refused"), 3000);"""
    assert chromium.execute_async_script(script) == "connect-src"
    chromium.get_log("browser")
