"""Runs random programs whose objects end in reference cycles, where the collector runs finalisers in any order.

python tests/cycles.py --seed S --count N [--kind KIND] [--no-fork] [--at-exit]

Program number S is always the same, but for what its threads do. It fails if it dies by a signal (or by a report of
AddressSanitizer, in a build with it), hangs, raises what is not documented, or ends with a token lost or made up.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: the library is the one that is installed, or else the one in the repository
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.cyclic.witness import AN_EXCEPTION, SYS_EXIT, Report, SentReport, bytes_in

if TYPE_CHECKING:
    from tests.cyclic.program import Program

GUARD = 120.0  # seconds after which a program hangs
KINDS = ("client", "cell", "batch", "hold", "event", "lease", "broker")
FAULTS = 70  # the exit status of a program that found some itself
MOST_LINES = 150


class ProgramEndsError(Exception):
    """By which some programs end."""


class Current:
    """The program that runs in this process."""

    program: Program | None = None


@dataclass
class Ended:
    """What a program's process told, and what it left behind."""

    status: int = 0
    expected: int = 0
    hung: bool = False
    faults: list[str] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    holds: bool = False
    output: str = ""

    def take(self, line: str) -> None:
        """Reads one line of the program's report."""
        what, _, rest = line.partition(" ")
        if what == "fault":
            self.faults.append(rest)
        elif what == "pool":
            limit, _, path = rest.partition(" ")
            self.limits.append(int(limit))
            self.paths.append(path)
        elif what == "raw":
            number, change = map(int, rest.split())
            self.limits[number] += change
        elif what == "holds":
            self.holds = True
        elif what == "ends":
            self.expected = int(rest)

    def look_at_pools(self) -> None:
        """Tells of pools that are not whole. The process has ended."""
        for descriptor, limit, path in zip(self.descriptors, self.limits, self.paths, strict=True):
            if bytes_in(descriptor) != limit:
                self.faults.append(f"after the end: {bytes_in(descriptor)} in the pool of {limit}")
            if path and os.path.exists(path) and not self.holds:
                self.faults.append(f"after the end: the fifo {path} is left")

    def close(self) -> None:
        """Closes what it has got, and removes what was left."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        for path in filter(os.path.exists, self.paths):
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)

    def verdict(self) -> list[str]:
        """What was wrong."""
        found = list(self.faults)
        if "AddressSanitizer" in self.output:
            found.insert(0, "a report of AddressSanitizer")
        if self.hung or "Timeout (" in self.output:
            found.insert(0, "it hangs")
        elif os.WIFSIGNALED(self.status):
            found.insert(0, f"signal {signal.Signals(os.WTERMSIG(self.status)).name}")
        elif not found and os.WEXITSTATUS(self.status) != self.expected:
            found.insert(0, f"exit status {os.WEXITSTATUS(self.status)}, not {self.expected}")
        return found


def prepare() -> None:
    """Imports everything and uses it once."""
    from tests.cyclic import build
    from tests.cyclic.finalisers import watch_for_stray_errors

    warnings.simplefilter("ignore")
    logging.disable()
    faulthandler.enable()
    watch_for_stray_errors(lambda: Current.program)
    build.warm_up()
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()
    if hasattr(gc, "set_threshold"):
        gc.set_threshold(1)


def import_what_the_library_uses() -> None:
    """Spares the children some time."""
    for name in ("asyncio", "_cffi_backend", "concurrent.futures.thread", "pickle", "tempfile", "uuid", "random"):
        with suppress(ImportError):
            importlib.import_module(name)


def begin(seed: int, options: argparse.Namespace, report: Report) -> str:
    """Runs a program in this process. Returns how the process is to end, if it is to end with objects alive."""
    if options.fresh:
        prepare()
    from tests.cyclic import build

    forked = not options.no_fork
    owns_slot = options.fresh or options.no_fork
    Current.program = program = build.new_program(
        seed, options.kind, report, owns_slot=owns_slot, forked=forked, at_exit=options.at_exit
    )
    faulthandler.dump_traceback_later(options.guard, exit=True)
    if options.at_exit:
        return build.run_to_the_end(program)
    build.run(program)
    faulthandler.cancel_dump_traceback_later()
    Current.program = None
    return ""


def fork(seed: int, options: argparse.Namespace) -> Ended | str:
    """Runs a program in a child. Returns in the parent what came of it; in the child how that is to end."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            ours.close()
            os.dup2(output.fileno(), 2)
            report = SentReport(theirs)
            how = begin(seed, options, report)
            if options.at_exit:
                report.say(f"ends {int(how == AN_EXCEPTION)}")
                return how
            os._exit(FAULTS if report.faults else 0)
        theirs.close()
        ended = Ended()
        listen(ours, ended, time.monotonic() + 2 * options.guard)
        if ended.hung:
            os.kill(child, signal.SIGKILL)
        ended.status = os.waitpid(child, 0)[1]
        ours.close()
        output.seek(0)
        ended.output = output.read().decode(errors="replace")
    return ended


def listen(channel: socket.socket, ended: Ended, end: float) -> None:
    """Reads a child's report until the child has ended."""
    text = b""
    while True:
        if not select.select([channel], [], [], max(end - time.monotonic(), 0))[0]:
            ended.hung = True
            return
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 64)
        ended.descriptors += descriptors
        if not message:
            break
        text += message
        *lines, text = text.split(b"\n")
        for line in lines:
            ended.take(line.decode(errors="replace"))


def in_children(options: argparse.Namespace) -> int | str:
    """Runs each program in a child of its own. Returns how many failed; in a child how that is to end."""
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        ended = fork(seed, options)
        if isinstance(ended, str):
            return ended
        if options.at_exit and not ended.hung:
            ended.look_at_pools()
        ended.close()
        faults = ended.verdict()
        if faults:
            failed += 1
            tell(seed, faults, ended.output)
    return failed


def in_this_process(options: argparse.Namespace) -> int:
    """Runs one program after the other here. Returns how many failed."""
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        print(f"seed {seed}", file=sys.stderr, flush=True)  # should it be the last one
        report = Report()
        begin(seed, options, report)
        if report.faults:
            failed += 1
            tell(seed, report.faults, "")
    return failed


def tell(seed: int, faults: list[str], output: str) -> None:
    """Prints what was wrong with a program."""
    print(f"seed {seed}: {'; '.join(faults[:5])}{' …' if len(faults) > 5 else ''}")
    lines = [line for line in output.splitlines() if line.strip("=")]
    print(*(f"    {line}" for line in lines[:MOST_LINES]), sep="\n", flush=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first program")
    parser.add_argument("--count", type=int, default=100, help="how many programs")
    parser.add_argument("--kind", choices=KINDS, help="of handles; default: all")
    parser.add_argument("--no-fork", action="store_true", help="run all programs in this process")
    parser.add_argument("--at-exit", action="store_true", help="end each process with its objects alive")
    parser.add_argument("--fresh", action="store_true", help="let each child load the library: it owns a slot then")
    parser.add_argument("--guard", type=float, default=GUARD, help="seconds after which a program hangs")
    options = parser.parse_args()
    if options.at_exit and (options.no_fork or not hasattr(os, "fork")):
        parser.error("--at-exit: each program needs a process of its own")
    options.no_fork |= not hasattr(os, "fork")
    return options


def main() -> int:
    """The program. In a child that is to end with its objects alive it returns, or ends, as that child is to."""
    options = arguments()
    if options.fresh:
        import_what_the_library_uses()
    else:
        prepare()
    begun = time.monotonic()
    failed = in_this_process(options) if options.no_fork else in_children(options)
    if isinstance(failed, str):
        return end(failed)
    seconds = time.monotonic() - begun
    print(f"{failed} of {options.count} programs failed; {options.count / seconds:.0f} a second")
    return int(failed > 0)


def end(how: str) -> int:
    """Ends a child with its objects alive."""
    if how == SYS_EXIT:
        sys.exit(0)
    if how == AN_EXCEPTION:
        sys.excepthook = lambda *error: None
        raise ProgramEndsError
    return 0


if __name__ == "__main__":
    status = main()
    if status:
        sys.exit(status)
