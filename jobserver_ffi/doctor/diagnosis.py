"""The diagnosis of one process: its jobserver, and all that is wrong with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..client import Client
from ..errors import Unsupported
from ..makeflags import parse
from ..processes import above
from ..style import style_of
from .causes import Scene, cause
from .pool import findings_of_pool
from .surroundings import findings_of_surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .finding import Finding


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        variable: The environment variable that decided, or None.
        value: Its value.
        auth: The address of the jobserver that it names, or None.
        style: "pipe", "fifo", "semaphore", "socket" or "device" where the jobserver can be joined, else None.
        free: How many tokens were free, or None where that cannot be told.
        slots: N of the -jN that goes with the address, or None.
        findings: What is wrong, and what may surprise.
    """

    variable: str | None
    value: str | None
    auth: str | None
    style: str | None = None
    free: int | None = None
    slots: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether there is a jobserver, and nothing stands against its use."""
        return self.style is not None and not any(finding.fatal for finding in self.findings)


def diagnose(environ: Mapping[str, str] | None = None) -> Diagnosis:
    """Looks at this process. Takes no token; blocks for half a second at most, if no token is free.

    Args:
        environ: Where to look, instead of `os.environ`.
    """
    environ = os.environ if environ is None else environ
    scene = Scene(environ, above())
    found = Client.from_env_ext(environ)
    flags = parse(found.value or "")
    diagnosis = Diagnosis(found.variable, found.value, flags.auth, slots=flags.jobs)
    if found.error is not None:
        diagnosis.findings.append(cause(found.error, scene))
    if found.client is not None:
        try:
            with found.client as client:
                diagnosis.style = style_of(client)
                diagnosis.findings += findings_of_pool(client, scene, flags.jobs)
                diagnosis.free = _free(client)
        except FileNotFoundError:  # The fifo has been removed meanwhile.
            return diagnose(environ)
    names = {finding.name for finding in diagnosis.findings}
    diagnosis.findings += findings_of_surroundings(found.variable, names, scene)
    return diagnosis


def _free(client: Client) -> int | None:
    try:
        return client.available()
    except Unsupported:
        return None
