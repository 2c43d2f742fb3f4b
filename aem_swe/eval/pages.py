"""Tables for a terminal and for a document in Markdown that has two marks, between which a command writes them."""

from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich import box

from aem_swe.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Marks:
    """Two lines of a document; what stands between them is the command's."""

    command: str
    """`aem-swe verify` has it."""
    document: str
    """The one that is shipped, named where another lacks the marks."""

    @property
    def begin(self) -> str:
        return f"<!-- tables of `aem-swe verify {self.command} --markdown`: begin -->"

    @property
    def end(self) -> str:
        return f"<!-- tables of `aem-swe verify {self.command} --markdown`: end -->"


def rich_table(table: Table) -> rich.table.Table:
    shown = rich.table.Table(box=box.SIMPLE_HEAD, title=table.title, title_justify="left")
    for name in table.header:
        shown.add_column(name)
    for row in table.rows:
        shown.add_row(*row)
    return shown


def markdown_table(table: Table) -> list[str]:
    """Its lines, from the heading to the empty line below."""
    head = [f"### {table.title}", "", _row(table.header), "|" + "---|" * len(table.header)]
    return [*head, *(_row(row) for row in table.rows), ""]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def read_page(path: Path, marks: Marks) -> str:
    """A document with the two marks, each once and in this order. Raises ConfigError."""
    begin, end = marks.begin, marks.end
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--markdown {str(path)!r} cannot be read ({error}); name {marks.document}") from error
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ConfigError(f"--markdown {str(path)!r} lacks the lines {begin} and {end}; add them where tables belong")
    return text


def between_marks(page: str, text: str, marks: Marks) -> str:
    """The document with other text between the marks."""
    before, _, rest = page.partition(marks.begin)
    return f"{before}{marks.begin}\n\n{text}\n{marks.end}{rest.partition(marks.end)[2]}"
