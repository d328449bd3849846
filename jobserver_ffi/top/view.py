"""What `jobserver top` shows: a pool's status as the lines of a screen of any size."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from ..cli.messages import shown
from ..gates import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Status = dict[str, Any]
"""As a server tells it; see docs/serve.md."""

_COLUMN_SECONDS = 2  # of a column of the graph
_MOST_COLUMNS = 1000
_LABEL = 6  # cells before the bar and the graph
_HIGH = 20  # rows from which on the graph has three, with room around them
_LOW = 10  # rows below which there are no bar and no graph
_LONGEST_COMMAND = 1000


@dataclass(frozen=True)
class Glyphs:
    """What bars and graphs are made of; `levels` from empty to full, in eighths."""

    used: str
    free: str
    held_back: str
    levels: str
    cut: str


UNICODE = Glyphs("█", "░", "▒", " ▁▂▃▄▅▆▇█", "…")
ASCII = Glyphs("#", ".", "~", " .:-=+*%#", "...")


class History:
    """How many slots were in use: the mean of what was seen in each column of the graph, the newest last."""

    def __init__(self) -> None:
        self._columns: deque[tuple[int, int, int]] = deque(maxlen=_MOST_COLUMNS)  # number, sum, how often seen

    def add(self, now: float, in_use: int) -> None:
        """Notes what is seen now, in seconds of a clock that does not go back."""
        number = int(now / _COLUMN_SECONDS)
        total, count = 0, 0
        if self._columns and self._columns[-1][0] == number:
            _, total, count = self._columns.pop()
        self._columns.append((number, total + in_use, count + 1))

    def last(self, width: int) -> list[float | None]:
        """The last columns; None where nobody looked."""
        newest = self._columns[-1][0] if self._columns else 0
        found: list[float | None] = [None] * width
        for number, total, count in self._columns:
            place = width - 1 - (newest - number)
            if place >= 0:
                found[place] = total / count
        return found


def draw(
    status: Status, history: History, size: os.terminal_size, glyphs: Glyphs, note: str = "", alarm: str = ""
) -> list[Text]:
    """The lines of a screen, from the first to the last.

    Args:
        status: What the server says.
        history: What it said before.
        size: Of the screen.
        glyphs: What the terminal can show.
        note: What is to be told beside it.
        alarm: What is wrong.
    """
    width, height = size
    above = [_header(status, width)]
    if height >= _LOW:
        above += _bar_and_graph(status, history, width, 3 if height >= _HIGH else 1, glyphs)
    above += _gates(status)
    below = [_told(text, style) for text, style in _notes(status, note, alarm)]
    below.append(Text("+ more slots   - fewer   q leave", "dim"))
    rows = _rows(status, width, max(height - len(above) - len(below), 2), glyphs)
    middle = [Text()] * (height - len(above) - len(below) - len(rows))
    return [_fitted(line, width, glyphs) for line in (above + rows + middle + below)[:height]]


def _header(status: Status, width: int) -> Text:
    """The pool in words, with as much beside it as there is room for."""
    ended = status["ended"]
    full = "yellow" if status["in_use"] > status["limit"] else "bold green" if status["in_use"] else ""
    parts = [
        Text.assemble((shown(status["name"]), "bold"), ": ", (f"{status['in_use']} of {status['limit']} slots", full)),
        Text(f"{status['queued']} waiting", "cyan" if status["queued"] else "dim"),
        Text(f"{ended['lost']} lost and back", "bold red") if ended["lost"] else Text("0 lost", "dim"),
        Text(f"{ended['leases']} ended", "dim"),
        Text(f"process {status['process']}", "dim"),
    ]
    line = parts[0]
    for part in parts[1:]:
        if line.cell_len + 2 + part.cell_len > width:
            break
        line = Text.assemble(line, "  ", part)
    return line


def _bar_and_graph(status: Status, history: History, width: int, rows: int, glyphs: Glyphs) -> list[Text]:
    columns = width - _LABEL - 1
    values = history.last(columns)
    top = max([status["limit"], status["in_use"], *(value for value in values if value is not None)])
    minutes = f"{max(round(columns * _COLUMN_SECONDS / 60), 1)} min"
    labels = [minutes] if rows == 1 else [str(round(top)), *[""] * (rows - 3), minutes, "0"]
    bar = _bar(status["in_use"], status["held_back"], status["limit"], columns, glyphs)
    lines = [Text.assemble((f"{'now':>{_LABEL}} ", "dim"), bar), *[Text()] * (rows > 1)]
    for row, label in enumerate(labels):
        graph = _graph(values, top, rows, rows - 1 - row, glyphs)
        lines.append(Text.assemble((f"{label:>{_LABEL}} ", "dim"), (graph, "green")))
    return lines + [Text()] * (rows > 1)


def _bar(used: int, held_back: int, limit: int, width: int, glyphs: Glyphs) -> Text:
    """Slots in use, then those that are free, then those that gates keep; one that is in use always shows."""
    scale = max(limit, used)
    filled = min(max(round(used / scale * width), 1), width) if used else 0
    kept = min(round(held_back / scale * width), width - filled)
    style = "yellow" if used > limit else "green"
    free = (glyphs.free * (width - filled - kept), "dim")
    return Text.assemble((glyphs.used * filled, style), free, (glyphs.held_back * kept, "yellow"))


def _graph(values: Sequence[float | None], top: float, rows: int, row: int, glyphs: Glyphs) -> str:
    """One row of a graph, the lowest is 0. What is not 0 shows."""
    steps = len(glyphs.levels) - 1
    line = []
    for value in values:
        level = 0 if not value else max(round(value / top * rows * steps), 1)
        line.append(glyphs.levels[min(max(level - row * steps, 0), steps)])
    return "".join(line)


def _measured(gate: dict[str, Any]) -> str:
    return measured(gate["name"], gate["value"])


def _gates(status: Status) -> list[Text]:
    return [
        Text(
            f"{gate['name']} (it is {measured(gate['name'], gate['value'])}): tokens held back: {gate['held_back']}",
            "yellow",
        )
        for gate in status["gates"]
        if gate["held_back"]
    ]


def _notes(status: Status, note: str, alarm: str) -> list[tuple[str, str]]:
    notes = [(alarm, "bold red"), (note, "cyan")]
    excess = status["in_use"] - status["limit"]
    if excess > 0:
        plural = "s" * (excess != 1)
        notes.append((f"no job is stopped: {excess} slot{plural} too many in use until jobs end", "yellow"))
    return [(text, style) for text, style in notes if text]


def _told(text: str, style: str) -> Text:
    return Text(shown(text, _LONGEST_COMMAND), style)


@dataclass(frozen=True)
class _Column:
    """A column of the leases: from which width of the screen on it is there."""

    title: str
    width: int
    from_width: int
    cell: Callable[[Status], Text]


def _rows(status: Status, width: int, height: int, glyphs: Glyphs) -> list[Text]:
    """The leases under their titles, as many as there is room for."""
    leases = status["leases"]
    if not leases:
        return [Text(f"no builds: `jobserver run --pool {shown(status['name'])} -- CMD` joins this pool", "dim")]
    columns = [column for column in _columns(status, width, glyphs) if width >= column.from_width]
    room = width - sum(column.width + 1 for column in columns)
    title = Text(" ").join(Text(column.title.rjust(column.width), "dim") for column in columns)
    lines = [Text.assemble(title, (" COMMAND", "dim"))]
    fits = len(leases) < height
    for lease in leases if fits else leases[: max(height - 2, 0)]:
        cells = [_padded(column.cell(lease), column.width) for column in columns]
        lines.append(Text(" ").join([*cells, _fitted(_command(lease, glyphs), room, glyphs)]))
    if not fits:
        lines.append(Text(f"{glyphs.cut} {len(leases) - max(height - 2, 0)} more", "dim"))
    return lines


def _columns(status: Status, width: int, glyphs: Glyphs) -> list[_Column]:
    limit = status["limit"]
    bar = 8 if width < 60 else 12 if width < 100 else 24
    digits = len(str(limit))

    def slots(lease: Status) -> Text:
        if lease["state"] in ("open", "queued"):
            return Text(f"queue: {lease['queued_before'] + 1}".ljust(bar + 1 + digits), "cyan")
        drawn = _bar(lease["slots"], 0, limit, bar, glyphs)
        return Text.assemble(drawn, (f" {lease['slots']:>{digits}}", "bold"))

    def count(item: str, style: str) -> Callable[[Status], Text]:
        return lambda lease: Text(str(lease[item]), style if lease[item] else "dim")

    return [
        _Column("PID", 7, 64, count("process", "")),
        _Column("SLOTS".ljust(bar + 1 + digits), bar + 1 + digits, 0, slots),
        _Column("SECONDS", 8, 32, lambda lease: Text(f"{lease['slot_seconds']:.1f}")),
        _Column("PEAK", 4, 48, count("peak", "")),
        _Column("LOST", 4, 36, count("lost", "bold red")),
    ]


def _command(lease: Status, glyphs: Glyphs) -> Text:
    words = shown(" ".join(lease["command"]) or lease["name"], _LONGEST_COMMAND)
    if glyphs is ASCII:
        words = words.encode("ascii", "backslashreplace").decode()
    if lease["state"] == "orphans":
        return Text.assemble(("left behind by ", "yellow"), words)
    return Text(words)


def _padded(text: Text, width: int) -> Text:
    """To the right of its column."""
    missing = max(width - text.cell_len, 0)
    return Text.assemble(" " * missing, text)


def _fitted(line: Text, width: int, glyphs: Glyphs) -> Text:
    """Cut where it is too long, which shows."""
    if line.cell_len <= width:
        return line
    line = line.copy()
    cut = glyphs.cut[: max(width, 0)]
    line.truncate(max(width - cell_len(cut), 0), overflow="crop")
    return line.append(cut)
