"""What a profile's page says, read back: tables as rows of cells, bars with their positions, seconds as numbers."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
ROUNDING = 0.0051
"""Three digits that count: 1.00 is half a hundredth off at most."""


def seconds_of(text: str) -> float:
    """The seconds that a page's text says, such as -582 ms."""
    if text == "0":
        return 0.0
    number, unit = text.replace("\N{MINUS SIGN}", "-").replace(",", "").split()
    return float(number) * UNITS[unit]


@dataclass
class Bar:
    left: int
    width: int
    title: str = ""


@dataclass
class Read(HTMLParser):
    """Tables as rows of cells, the lanes of each waterfall in turn, the columns of charts."""

    tables: list[list[list[str]]] = field(default_factory=list)
    lanes: list[tuple[str, list[Bar]]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    """Of everything that has a title attribute."""
    columns: list[list[tuple[str, float]]] = field(default_factory=list)
    """Of each column of the charts: (title, height) of its parts."""
    _cell: bool = False
    _title: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "svg":
            self.lanes.append((about["aria-label"], []))
        elif tag == "rect":
            self.lanes[-1][1].append(Bar(int(about["x"]), int(about["width"])))
        elif tag == "title" and self.lanes:
            self._title = True
        if about.get("class") == "col":
            self.columns.append([])
        if "title" in about:
            self.titles.append(about["title"])
            height = re.fullmatch(r"height:([\d.]+)%", about.get("style", ""))
            if height is not None:
                self.columns[-1].append((about["title"], float(height[1])))

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")
        self._title = self._title and tag != "title"

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[-1][-1][-1] += f" {data}"
        if self._title:
            self.lanes[-1][1][-1].title += data


def read(page: Path) -> Read:
    found = Read()
    found.feed(page.read_text(encoding="utf-8"))
    found.close()
    found.tables = [[[" ".join(cell.split()) for cell in row] for row in table] for table in found.tables]
    return found
