"""Sphinx directives for the reference: what `jobserver SUBCOMMAND --help` prints, made when the site is built."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def help_text(words: list[str]) -> str:
    """What the command prints, at a width that fits a page."""
    command = [sys.executable, "-m", "jobserver_ffi.cli", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


class Commands(SphinxDirective):
    """The help of the command, and a section for each subcommand."""

    def run(self) -> list[nodes.Node]:
        """Returns what stands in the place of the directive."""
        from jobserver_ffi.cli import SUBCOMMANDS

        result: list[nodes.Node] = [nodes.literal_block("", help_text([]), language="text")]
        for name in SUBCOMMANDS:
            section = nodes.section(ids=[f"jobserver-{name}"], names=[f"jobserver-{name}"])
            section += nodes.title("", f"jobserver {name}")
            section += nodes.literal_block("", help_text([name]), language="text")
            result.append(section)
        return result


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
