"""`jobserver doctor`: is there a jobserver here, why not, and which tools would join it?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .messages import shown, write

if TYPE_CHECKING:
    from typing import Any

    from ..doctor.diagnosis import Diagnosis
    from ..doctor.finding import Finding
    from ..doctor.tools import Tool

_WIDTH = 80

_DESCRIPTION = """\
Says whether there is a jobserver around this process, and how many of its
tokens are free; if there is none, why, and what to write instead. Write it
into the recipe or build step in question, in front of the command that should
find the jobserver. It also tries the build tools on PATH, in a directory of
its own: which style of jobserver does each join? No token of the jobserver
around it is taken.
"""

_STATUS = """\
exit status: 0 if there is a jobserver and nothing stands against its use, 1
otherwise; 2 for wrong arguments.
"""

_EXPLAINED = (
    "A jobserver is a pool of tokens that a build tool shares with the programs that it starts. Each of them may run "
    "one job, and takes a token for every further one; so all together run no more than N jobs (the N of `make -jN`)."
)

_OUTCOMES = {"joins": "joins", "ignores": "ignores it", "stops": "runs no job", "silent": "no answer"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tells the parser of the subcommand what it takes."""
    parser.usage = "jobserver doctor [--no-tools] [--json]"
    parser.description = _DESCRIPTION
    parser.epilog = _STATUS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--no-tools", action="store_true", help="do not try the tools on PATH, which takes some seconds"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    parser.set_defaults(function=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from ..doctor.diagnosis import diagnose

    diagnosis = diagnose()
    tools = None
    if not arguments.no_tools:
        from ..doctor.tools import findings_of_tools, survey

        tools = survey()
        diagnosis.findings += findings_of_tools(tools, diagnosis.style)
    if arguments.json:
        import json

        text = json.dumps(_as_json(diagnosis, tools), indent=2) + "\n"
    else:
        text = "\n".join(_as_text(diagnosis, tools)) + "\n"
    write(text)
    return 0 if diagnosis.usable else 1


def _as_json(diagnosis: Diagnosis, tools: list[Tool] | None) -> dict[str, Any]:
    from dataclasses import asdict

    found = {"usable": diagnosis.usable, **asdict(diagnosis)}
    return found if tools is None else {**found, "tools": [asdict(tool) for tool in tools]}


def _as_text(diagnosis: Diagnosis, tools: list[Tool] | None) -> list[str]:
    lines = [*_paragraph(_headline(diagnosis)), "", *_paragraph(_EXPLAINED)]
    findings = sorted(diagnosis.findings, key=lambda finding: not finding.fatal)
    for finding in findings:
        lines += ["", *_finding(finding)]
    return lines if tools is None else [*lines, "", *_table(tools)]


def _headline(diagnosis: Diagnosis) -> str:
    if diagnosis.style is None:
        return "There is no jobserver for this process."
    free = "how many tokens are free cannot be told" if diagnosis.free is None else _count(diagnosis.free)
    of = f" (-j{diagnosis.slots})" if diagnosis.slots else ""
    address = f"{diagnosis.style} {shown((diagnosis.auth or '').removeprefix('fifo:'))}, from {diagnosis.variable}{of}"
    if diagnosis.usable:
        return f"There is a jobserver: the {address}. Now {free}."
    return f"There is a jobserver, but it is of no use as it is: the {address}. Now {free}."


def _count(free: int) -> str:
    return "no token is free" if free == 0 else "1 token is free" if free == 1 else f"{free} tokens are free"


def _finding(finding: Finding) -> list[str]:
    parts = ("What is", finding.what), ("Why", finding.why), ("Write", finding.write)
    lines = [f"{'PROBLEM' if finding.fatal else 'NOTE'} {finding.name}"]
    for title, text in parts:
        lines += _paragraph(f"{text}.", f"  {title + ':':<10}", " " * 12)
    return lines


def _table(tools: list[Tool]) -> list[str]:
    """The tools, and what each did with a pool of each style."""
    if not tools:
        return ["No build tool that is known here is on PATH."]
    styles = list(tools[0].styles)
    rows = [["tool", "version", *styles]]
    rows += [
        [tool.name, tool.version or "?", *(_OUTCOMES[tool.styles[style].outcome] for style in styles)] for tool in tools
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["Tools on PATH, each tried with a tiny build under a jobserver of each style:"]
    for row in rows:
        lines.append("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return lines


def _paragraph(text: str, first: str = "", others: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
