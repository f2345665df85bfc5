"""View data of a page: what its template shows, without knowing where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of a table; a number stands on the right, a colour is shown as a dot before it."""

    text: str
    number: bool = False
    colour: str = ""


class Table(NamedTuple):
    """A table; the first cell of each row is its header."""

    caption: str
    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    kind = "table"


class Figures(NamedTuple):
    """Small figures side by side, with one legend: (colour, dashed, text)."""

    figures: Sequence[Figure]
    legend: Sequence[tuple[str, bool, str]] = ()
    kind = "figures"


class Figure(NamedTuple):
    """A drawing as SVG of this package's own, what it shows in words, and the line below it."""

    svg: str
    alt: str
    caption: str = ""


class Picture(NamedTuple):
    """A PNG or GIF file as a data URI, `width` pixels wide; a narrow screen shows a part of it.

    One that shrinks is shown whole there.
    """

    source: str
    alt: str
    caption: str
    width: int
    shrinks: bool = False
    kind = "picture"


class Film(NamedTuple):
    """An MP4 file as a data URI."""

    source: str
    alt: str
    caption: str
    kind = "film"


class Link(NamedTuple):
    """A file that is too large for the page."""

    address: str
    text: str
    kind = "link"


class Text(NamedTuple):
    """A paragraph."""

    text: str
    kind = "text"


class Missing(NamedTuple):
    """A result that there is not yet, and the command that makes it."""

    text: str
    command: str
    kind = "missing"


class Folded(NamedTuple):
    """Blocks that are shown on request."""

    title: str
    blocks: Sequence
    kind = "folded"


class Section(NamedTuple):
    """A part of the page; `name` is its anchor."""

    name: str
    title: str
    blocks: Sequence


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence], words: int = 1) -> Table:
    """Build a table whose first `words` columns hold text and the others numbers.

    Args:
        caption: what it shows.
        header: a title per column.
        rows: texts, or cells where more is to be said.
        words: columns of text.
    """

    def cells(values: Sequence) -> list[Cell]:
        return [v if isinstance(v, Cell) else _cell(v, n >= words) for n, v in enumerate(values)]

    titles = [Cell(text, number=n >= words) for n, text in enumerate(header)]
    return Table(caption, titles, [cells(row) for row in rows])


def _cell(text: str, number: bool) -> Cell:
    return Cell(text.replace("-", "−") if number else text, number)  # a minus, as wide as a plus
