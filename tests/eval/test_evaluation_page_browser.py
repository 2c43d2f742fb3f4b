"""The pages about evaluations in a browser, driven over its debugging pipe: they ask and run nothing, and filter."""

import json
import subprocess
from pathlib import Path
from typing import Any  # JSON values

import evaluation_folders as folders
import numpy as np
import pytest
from browser_tab import BROWSER, FIXED, Tab
from matplotlib.image import imread

from aem_swe.eval.swebench.arms import parse_arms
from aem_swe.eval.swebench.contrast import compare_arms
from aem_swe.eval.swebench.page import write_comparison_page, write_evaluation_page
from aem_swe.eval.swebench.results import Status

pytestmark = pytest.mark.slow
NAMES = folders.names(12)
VISIBLE = "[...document.querySelectorAll('{}')].filter(one => one.checkVisibility()).length"


def evaluation_page(folder: Path) -> Path:
    """Twelve instances; the first has a cheat, one an error."""
    changes = {(1, NAMES[5]): Status.ERROR}
    cheat = {(1, NAMES[0]): folders.cheat(NAMES[0])}
    made = folders.write_evaluation(folder / "a", changes=changes, trajectories=cheat)
    write_evaluation_page(made, folder / "a.html")
    return folder / "a.html"


def comparison_page(folder: Path, attack: bool = False) -> Path:
    if attack:
        folders.attacked(folder / "base")
        changes = {(run, NAMES[0]): Status.UNRESOLVED for run in (1, 2)}
        folders.write_evaluation(folder / "aem", count=4, changes=changes)
    else:
        folders.write_evaluation(folder / "base", chance=0.2, count=30)
        folders.write_evaluation(folder / "aem", chance=0.9, count=30, model="aem", seed=2)
    write_comparison_page(
        compare_arms(parse_arms([str(folder / "base"), "vs", str(folder / "aem")])), folder / "c.html"
    )
    return folder / "c.html"


def test_a_hostile_evaluation_asks_nothing_runs_nothing_and_breaks_nothing(tmp_path: Path, tab: Tab) -> None:
    write_evaluation_page(folders.attacked(tmp_path / "a"), tmp_path / "a.html")
    tab.open(tmp_path / "a.html")
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.value("document.title").endswith(": SWE-bench evaluation")
    assert tab.value("document.querySelectorAll('script, iframe, object, embed, form, link, base').length") == 0
    assert tab.value("[...document.links].map(one => one.getAttribute('href')).join()") == "#instances"
    assert tab.value("document.styleSheets.length") == 1
    assert tab.value(VISIBLE.format("li.i")) == 5
    assert "document.title='owned'" in tab.value("document.body.innerText")
    assert tab.trouble() == [] and tab.asked(tmp_path / "a.html") == set()


def test_a_hostile_comparison_asks_nothing_and_runs_nothing(tmp_path: Path, tab: Tab) -> None:
    page = comparison_page(tmp_path, attack=True)
    tab.open(page)
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert "owned" in tab.value("document.body.innerText")
    assert tab.value("document.querySelectorAll('script, iframe, form, link').length") == 0
    assert tab.trouble() == [] and tab.asked(page) == set()


def test_an_injected_script_does_not_run(tmp_path: Path, tab: Tab) -> None:
    # As if escaping had failed: the content policy of the page is the second wall.
    page = evaluation_page(tmp_path)
    injected = (
        "<main><script>document.title = 'owned'</script><img src='http://127.0.0.1:9/x' onerror='document.title=1'>"
    )
    page.write_text(page.read_text().replace("<main>", injected))
    tab.open(page)
    assert tab.value("document.title") == "deepswe: SWE-bench evaluation"
    assert "Content Security Policy" in json.dumps(tab.trouble())
    assert not [event for event in tab.seen("Network.responseReceived") if "127.0.0.1" in json.dumps(event)]


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        ("f-status-error", "s-error"),
        ("f-status-resolved", "s-resolved"),
        ("f-runs-differ", "differs"),
        ("f-runs-always", "always"),
        ("f-hits-any", "hit"),
        ("f-hits-strong", "strong"),
    ],
)
def test_a_filter_shows_its_instances_and_no_others(tmp_path: Path, tab: Tab, choice: str, rule: str) -> None:
    tab.open(evaluation_page(tmp_path))
    assert tab.value(VISIBLE.format("li.i")) == 12
    matching = tab.value(f"document.querySelectorAll('li.i.{rule}').length")
    assert 0 < matching < 12
    tab.value(f"document.getElementById('{choice}').click()")
    assert tab.value(VISIBLE.format("li.i")) == tab.value(VISIBLE.format(f"li.i.{rule}")) == matching
    tab.value("document.querySelectorAll('[id$=-all]').forEach(one => one.click())")
    assert tab.value(VISIBLE.format("li.i")) == 12


def test_filters_add_up_and_reach_into_runs(tmp_path: Path, tab: Tab) -> None:
    tab.open(evaluation_page(tmp_path))
    tab.value("document.getElementById('f-repository').selectedIndex = 1")
    inside = tab.value(VISIBLE.format("li.i"))
    assert inside == tab.value("document.querySelectorAll('li.i.r0').length") == 4
    tab.value("document.getElementById('f-difficulty').selectedIndex = 2")
    assert tab.value(VISIBLE.format("li.i")) == 0
    tab.value("document.getElementById('f-repository').selectedIndex = 0")
    tab.value("document.getElementById('f-difficulty').selectedIndex = 0")
    tab.value("document.getElementById('f-status-error').click()")
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.value(VISIBLE.format("li.i")) == 1
    assert tab.value(VISIBLE.format("li.i > details > ul > li")) == 1  # of its two runs the one with the error


def test_flips_are_filtered_by_their_direction(tmp_path: Path, tab: Tab) -> None:
    tab.open(comparison_page(tmp_path))
    gained, lost = (tab.value(f"document.querySelectorAll('li.{way}').length") for way in ("gained", "lost"))
    assert gained > 0 and tab.value(VISIBLE.format("li.i")) == gained + lost
    tab.value("document.getElementById('f-way-lost').click()")
    assert tab.value(VISIBLE.format("li.i")) == lost


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("make", [evaluation_page, comparison_page])
def test_a_page_is_never_wider_than_the_window(tmp_path: Path, tab: Tab, make: Any, width: int) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    tab.open(make(tmp_path))
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= width == tab.value("window.innerWidth")


def test_filters_and_details_are_reached_with_the_keyboard(tmp_path: Path, tab: Tab) -> None:
    tab.open(evaluation_page(tmp_path))
    reached = []
    for _ in range(14):
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(tab.value("document.activeElement.id || document.activeElement.tagName"))
    wanted = ["f-status-all", "f-runs-all", "f-hits-all", "f-repository", "f-difficulty", "SUMMARY"]
    places = [reached.index(one, reached.index("f-status-all")) for one in wanted]
    assert places == sorted(places) and reached[0] == "A"


@pytest.mark.parametrize(("scheme", "dark"), [(1, False), (0, True)])
def test_a_page_follows_the_colour_scheme(tmp_path: Path, scheme: int, dark: bool) -> None:
    if BROWSER is None:
        pytest.skip("chromium is missing; apt-get install chromium")
    page, picture = evaluation_page(tmp_path), tmp_path / "page.png"
    options = [f"--screenshot={picture}", "--window-size=800,2600", f"--blink-settings=preferredColorScheme={scheme}"]
    command = [BROWSER, *FIXED, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    brightness = np.asarray(imread(picture))[..., :3].mean(axis=2)
    assert (brightness.mean() < 0.2) == dark and (brightness.mean() > 0.8) != dark
    assert brightness.std() > 0.03  # there is something on it
