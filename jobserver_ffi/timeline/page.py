"""The page of `jobserver run --timings`: one HTML file that needs nothing else, no network and no build step."""

from __future__ import annotations

import base64
import hashlib
import shlex
from pathlib import Path
from string import Template

from . import summary
from .analysis import serial_stretches, utilisation
from .columns import encoded
from .recording import Recording

ASSETS = Path(__file__).with_name("assets")
# In the order in which they stand in the page; what runs at once is in the last.
SCRIPTS = (
    "data.js",
    "view.js",
    "canvas.js",
    "slots.js",
    "machine.js",
    "lanes.js",
    "hover.js",
    "controls.js",
    "page.js",
)


def page(recording: Recording) -> str:
    """Makes the page of a recording.

    Args:
        recording: What was recorded. All of it is taken as data: its strings are escaped.

    Returns:
        The HTML, to be written as UTF-8. Its policy lets nothing run but its own script, and nothing be fetched.
    """
    style = _asset("page.css")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    found = summary.programs(recording)
    stretches = serial_stretches(recording)
    command = summary.text(shlex.join(recording.command))
    kind, status = summary.status(recording)
    return Template(_asset("page.html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        command=command,
        status=status,
        kind=kind,
        date=summary.date(recording),
        tiles=summary.tiles(recording, utilisation(recording), stretches),
        warnings=summary.warnings(recording),
        serial=summary.serial(stretches),
        programs=summary.table(found),
        provenance=summary.provenance(recording),
        style=style,
        script=script,
        data=encoded(recording, [program.name for program in found], summary.coloured(found)),
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    """How a policy names the one script or style that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
