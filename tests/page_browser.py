"""A page in headless Chromium, for the tests of the page: one browser for each test file.

Nothing is downloaded: Debian's chromium and chromium-driver are used.
"""

import json
import shutil
import time

import pytest
from synthetic import synthetic

from bench.report import page

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
CHROMIUM = [
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
