"""The report in a real browser: it renders in both colour schemes, fits a phone, and a script in it does nothing."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any  # JSON rows hold anything

import numpy as np
import pytest
from matplotlib.image import imread

from aem_swe.eval.report import write_report

pytestmark = pytest.mark.slow
WriteRun = Callable[..., Path]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# A copy of the page without its content policy measures its own layout and tells the frame around it: a window of
# the browser is never narrower than 500 pixels, a frame can be.
RULER = "<script>parent.postMessage(document.documentElement.scrollWidth + ' of ' + window.innerWidth, '*')</script>"
FRAME = "<script>onmessage = event => document.title = event.data</script><iframe src='inner.html' width={} height=800>"


def browse(page: Path, *options: str) -> str:
    if BROWSER is None:
        pytest.skip("chromium is missing; apt-get install chromium")
    profile = page.parent / "profile"
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    command = [BROWSER, *fixed, "--virtual-time-budget=2000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def page(tmp_path: Path, write_run: WriteRun, episode: Callable[..., dict[str, Any]], write_lines: Any) -> Path:
    runs = [write_run(tmp_path / "base"), write_run(tmp_path / "aem", aem=True)]
    wide = episode("t" * 190, 0, 1, diff="+" + "x" * 5_000, termination="y" * 190)
    write_lines(runs[1] / "trajectories/step_000016.jsonl", [wide])
    write_report(runs, tmp_path / "report.html")
    return tmp_path / "report.html"


def test_an_injected_script_does_not_run(page: Path) -> None:
    # As if escaping had failed: the content policy of the page is the second wall.
    text = page.read_text().replace("<main>", "<main><script>document.title = 'owned'</script><img src=x onerror='1'>")
    page.write_text(text)
    document = browse(page, "--dump-dom")
    assert "<title>demo and demo_aem: training report</title>" in document


@pytest.mark.parametrize("width", [1100, 390])
def test_the_page_is_never_wider_than_the_window(page: Path, width: int) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    (page.parent / "inner.html").write_text(text.replace("</body>", RULER + "</body>"))
    page.write_text(FRAME.format(width))
    found = re.search(r"<title>(\d+) of (\d+)</title>", browse(page, "--dump-dom"))
    assert found is not None
    assert int(found[1]) <= int(found[2]) == width


@pytest.mark.parametrize(("scheme", "dark"), [(1, False), (0, True)])
def test_the_page_and_its_charts_follow_the_colour_scheme(page: Path, scheme: int, dark: bool) -> None:
    picture = page.parent / "page.png"
    browse(page, f"--screenshot={picture}", "--window-size=800,2600", f"--blink-settings=preferredColorScheme={scheme}")
    brightness = np.asarray(imread(picture))[..., :3].mean(axis=2)
    assert (brightness.mean() < 0.2) == dark
    assert (brightness.mean() > 0.8) != dark
    assert brightness.std() > 0.03  # there is something on it
