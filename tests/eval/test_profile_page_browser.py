"""The page about a profile in a real browser: it asks nothing, runs nothing, fits a phone and follows the colours."""

from pathlib import Path

import pytest
from browser_tab import Tab
from profile_spans import run_lines, write_spans
from test_profile_page_hostile import ATTACK, attacked

from aem_swe.eval.profile.measured import measure_all
from aem_swe.eval.profile.page import write_page

pytestmark = pytest.mark.slow


def page_of(folder: Path, *walls: tuple[float, ...]) -> Path:
    runs = [write_spans(folder / f"run{number}", run_lines(wall)) for number, wall in enumerate(walls)]
    write_page(measure_all(runs), folder / "page.html")
    return folder / "page.html"


def test_the_page_opens_from_a_file_without_a_request_or_an_error(tmp_path: Path, tab: Tab) -> None:
    page = page_of(tmp_path, (0.0, 2.0, 1.0), (1.0, 1.0))
    tab.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    tab.open(page)
    assert tab.value("document.title") == "run0 and run1: profile"
    assert tab.value(
        "[...document.querySelectorAll('rect')].filter(one => one.getBoundingClientRect().width > 1).length"
    )
    assert tab.trouble() == [] and tab.asked(page) == set()


def test_a_hostile_run_asks_nothing_and_runs_nothing(tmp_path: Path, tab: Tab) -> None:
    run = write_spans(tmp_path / "run", attacked(1, 0.0), recipe="x")
    write_page(measure_all([run]), tmp_path / "page.html")
    tab.open(tmp_path / "page.html")
    assert tab.value("document.title") == "run: profile"
    assert tab.value("document.querySelectorAll('script, iframe, img, form, link, a').length") == 0
    assert ATTACK[:30] in tab.value("document.body.innerText")
    assert tab.trouble() == [] and tab.asked(tmp_path / "page.html") == set()


def test_an_injected_script_does_not_run(tmp_path: Path, tab: Tab) -> None:
    # As if escaping had failed: the content policy of the page is the second wall.
    page = page_of(tmp_path, (0.0,))
    page.write_text(page.read_text().replace("<main>", "<main><script>document.title = 'owned'</script>"))
    tab.open(page)
    assert tab.value("document.title") == "run0: profile"


@pytest.mark.parametrize("width", [1100, 400])
def test_the_page_is_never_wider_than_the_window(tmp_path: Path, tab: Tab, width: int) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    run = write_spans(tmp_path / ("r" * 150), [*attacked(1, 0.0), *attacked(2, 10.0)])
    write_page(measure_all([run, run]), tmp_path / "page.html")
    for page in (tmp_path / "page.html", page_of(tmp_path / "b", (0.0, 1.0), (2.0, 3.0))):
        tab.open(page)
        assert tab.value("document.documentElement.scrollWidth") <= width == tab.value("window.innerWidth")


def test_the_parts_of_a_bar_are_as_wide_as_their_shares(tmp_path: Path, tab: Tab) -> None:
    tab.open(page_of(tmp_path, (0.0, 2.0, 1.0)))
    widths = "[...document.querySelectorAll('.mean i')].map(one => one.getBoundingClientRect().width)"
    shares = "[...document.querySelectorAll('.mean i')].map(one => parseFloat(one.title.match(/([0-9.]+)%/)[1]))"
    drawn, said = tab.value(widths), tab.value(shares)
    assert [100.0 * width / sum(drawn) for width in drawn] == pytest.approx(said, abs=0.4)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_colour_scheme(tmp_path: Path, tab: Tab, scheme: str, dark: bool) -> None:
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(page_of(tmp_path, (0.0, 1.0)))
    color = tab.value("getComputedStyle(document.body).backgroundColor")
    levels = [int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (sum(levels) / 3 < 60) == dark and (sum(levels) / 3 > 200) != dark


def test_on_paper_the_bars_keep_their_colours(tmp_path: Path, tab: Tab) -> None:
    tab.open(page_of(tmp_path, (0.0, 1.0)))
    tab.call("Emulation.setEmulatedMedia", media="print")
    style = "[...document.querySelectorAll('{}')].every(one => getComputedStyle(one).printColorAdjust === 'exact')"
    assert all(tab.value(style.format(part)) for part in ("rect", ".mean i", ".share i", ".col i", ".key"))
