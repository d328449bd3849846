"""What a page says in words and tables, as HTML: it can be read without a script, and by a screen reader."""

from __future__ import annotations

import html
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from .analysis import Stretch, in_use, slot_seconds
from .columns import readable
from .recording import Recording

COLOURS = 8  # programs that have a colour of their own; page.css has them
LEAST_COLOURED = 0.01  # of all CPU time: shells and drivers, which only wait, leave the colours to what works
LONGEST_TABLE = 200  # programs


@dataclass
class Program:
    """All processes of one name.

    Attributes:
        name: The program's name.
        count: How many processes there were.
        seconds: How long they took together.
        cpu: The CPU seconds of all.
        longest: The seconds of the longest.
    """

    name: str
    count: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    longest: float = 0.0


def programs(recording: Recording) -> list[Program]:
    """The programs that ran, the one with the most CPU time first."""
    found: dict[str, Program] = {}
    for process in recording.processes:
        program = found.setdefault(process.name, Program(process.name))
        length = max(0.0, process.end - process.start)
        program.count += 1
        program.seconds += length
        program.cpu += process.cpu
        program.longest = max(program.longest, length)
    return sorted(found.values(), key=lambda program: (-program.cpu, -program.seconds, program.name))


def coloured(found: list[Program]) -> int:
    """How many of the programs have colours of their own; they are the first ones."""
    least = LEAST_COLOURED * sum(program.cpu for program in found)
    return min(COLOURS, sum(program.cpu >= least for program in found))


def text(value: str) -> str:
    """A string of a recording as HTML."""
    return html.escape(readable(value))


def duration(seconds: float) -> str:
    """A length of time for people; assets/view.js writes it alike."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def percent(part: float) -> str:
    """A share of 1."""
    return f"{part * 100:.0f} %"


def plural(number: int, noun: str) -> str:
    """The number with its noun: "1 token", "1,200 tokens"."""
    return f"{number:,} {noun}{'' if number == 1 else 's' if not noun.endswith('s') else 'es'}"


def status(recording: Recording) -> tuple[str, str]:
    """How the build ended: a class of the style sheet, and words."""
    if recording.status == 0:
        return "good", "succeeded"
    if recording.status > 0:
        return "bad", f"failed with status {recording.status}"
    try:
        name = signal.Signals(-recording.status).name
    except ValueError:
        name = f"signal {-recording.status}"
    return "bad", f"ended by {name}"


def date(recording: Recording) -> str:
    """When the build began, in the time zone of whoever writes the page."""
    began = datetime.fromtimestamp(recording.started, timezone.utc).astimezone()
    return f'<time datetime="{began.isoformat(timespec="milliseconds")}">{began:%Y-%m-%d %H:%M:%S %Z}</time>'


def tiles(recording: Recording, used: float, stretches: list[Stretch]) -> str:
    """The figures that stand out."""
    limit = max((round(count) for _, count in recording.limits), default=0)
    shown = [("Duration", duration(recording.seconds), plural(recording.cpus, "CPU"))]
    if recording.leases and limit:
        shown.append(("Utilisation", percent(used), f"{slot_seconds(recording):,.1f} slot-seconds"))
        shown.append(("Most slots in use", f"{peak(recording)} of {limit}", plural(len(recording.leases), "lease")))
        alone = sum(stretch.seconds for stretch in stretches)
        part = alone / recording.seconds if recording.seconds else 0.0
        shown.append(("In serial stretches", duration(alone), f"{percent(part)} of the time"))
    if recording.processes:
        cpu = sum(process.cpu for process in recording.processes)
        shown.append(("Processes", f"{len(recording.processes):,}", f"{duration(cpu)} of CPU"))
    return "\n".join(
        f'<div class="tile"><dt>{label}</dt><dd>{value}</dd><dd class="beside">{beside}</dd></div>'
        for label, value, beside in shown
    )


def peak(recording: Recording) -> int:
    """The most slots that were in use at once, over all leases."""
    seen = max(round(count) for _, count in in_use(recording))
    return max(seen, *(lease.peak for lease in recording.leases), 0)


def warnings(recording: Recording) -> str:
    """What went wrong with tokens, and with the recording."""
    found = []
    for lease in recording.leases:
        if lease.lost:
            found.append(
                f"<strong>{plural(lease.lost, 'token')} lost</strong> by <code>{text(lease.name)}</code>: taken, and "
                "never given back, so the build had fewer slots from then on. They are back in the pool."
            )
        if lease.over_released:
            found.append(
                f"<strong>{plural(lease.over_released, 'token')} too many</strong> given back by "
                f"<code>{text(lease.name)}</code>. The lease has thrown them away."
            )
    if recording.dropped:
        verb = "is" if recording.dropped == 1 else "are"
        found.append(
            f"<strong>{plural(recording.dropped, 'change')} dropped</strong>: they came faster than they could be "
            f"recorded, and {verb} missing here."
        )
    return "\n".join(f'<p class="warning">{words}</p>' for words in found)


def serial(stretches: list[Stretch]) -> str:
    """The stretches with at most one slot in use, as buttons that show them."""
    if not stretches:
        return '<p class="quiet">There were none worth naming.</p>'
    return f"<ol>{''.join(map(stretch_shown, stretches))}</ol>"


def stretch_shown(stretch: Stretch) -> str:
    """One of them: how long it was, what was busy in it (its command is the button's title), and when it began."""
    what = "one slot" if stretch.slots else "no slot"
    name = f": <code>{text(stretch.name)}</code>" if stretch.process else ""
    title = text(stretch.process.command) if stretch.process else ""
    return (
        f'<li><button type="button" data-from="{stretch.start:.4f}" data-to="{stretch.end:.4f}" title="{title}">'
        f"<b>{duration(stretch.seconds)}</b> with {what} in use{name}"
        f'<span class="beside">from {duration(stretch.start)} on</span></button></li>'
    )


def table(found: list[Program]) -> str:
    """A row for each program."""
    colours, total = coloured(found), sum(program.cpu for program in found)
    rows = [
        f'<tr><th scope="row"><i class="swatch program-{rank if rank < colours else COLOURS}"></i>'
        f'<button type="button" data-program="{text(program.name)}">{text(program.name)}</button></th>'
        f"<td>{program.count:,}</td><td>{duration(program.seconds)}</td><td>{duration(program.longest)}</td>"
        f"<td>{duration(program.cpu)}</td>{share(program.cpu / total if total else 0.0)}</tr>"
        for rank, program in enumerate(found[:LONGEST_TABLE])
    ]
    rest = found[LONGEST_TABLE:]
    if rest:
        count, seconds, cpu = (sum(getattr(program, name) for program in rest) for name in ("count", "seconds", "cpu"))
        longest = max(program.longest for program in rest)
        rows.append(
            f'<tr><th scope="row">{plural(len(rest), "other program")}</th><td>{count:,}</td>'
            f"<td>{duration(seconds)}</td><td>{duration(longest)}</td><td>{duration(cpu)}</td>"
            f"{share(cpu / total if total else 0.0)}</tr>"
        )
    return "\n".join(rows) or '<tr><td class="none" colspan="6">No process was recorded.</td></tr>'


def share(part: float) -> str:
    """A cell with a share as a bar and in percent."""
    bar = '<svg viewBox="0 0 100 8" aria-hidden="true"><rect width="100" height="8" rx="4"/>'
    bar += f'<rect class="part" width="{100 * part:.1f}" height="8" rx="4"/></svg>'
    return f'<td class="share">{bar}{percent(part)}</td>'


def provenance(recording: Recording) -> str:
    """Where the figures come from, and how far they can be trusted."""
    sentences: Iterable[str] = (
        "Slots: every change, as the lease saw it happen."
        if recording.source == "lease"
        else f"Slots: sampled every {duration(recording.sampled_every)}; what is shorter may be missing.",
        f"Processes: sampled every {duration(recording.processes_sampled_every)}; "
        "ends may be as much too late, and shorter processes may be missing."
        if recording.processes_sampled_every
        else "Processes cannot be seen here.",
        f"{plural(recording.dropped, 'change')} dropped.",
    )
    return " ".join(sentences)
