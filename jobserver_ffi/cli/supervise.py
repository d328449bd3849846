"""Running a command as a child in this process's place: what happens to one of them happens to the other.

Whoever watches or signals this process then sees and reaches the command. Both are in one process group, so what a
terminal sends to the group is not passed on a second time.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from .execute import execute, restore_signals
from .messages import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import NoReturn

assert sys.platform != "win32"

# Signals that a process sends to another, or its own timer, and that would end this process and not the command. A
# change of the window's size and stops for using the terminal in the background reach the whole group anyway.
_PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
}

# Those that a terminal sends to each process in the group. A hang-up is not among them: it reaches the leader alone.
_OF_A_KEY = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP}


def _nothing(*_: object) -> None:
    """For signals that are ignored by default: a system may drop those even while they are blocked."""


class Supervisor:
    """Runs one command as a child. From when it is made on, signals for this process wait for the command to start.

    Signals that the caller ignores stay ignored, by this process and by the command. A wait misses no signal: all of
    them are blocked, and fetched one by one.
    """

    def __init__(self) -> None:
        self._callers_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        heeded = {number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN}
        self._awaited = heeded | {signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._awaited)
        # An ignored SIGCHLD would take the child's status away.
        self._callers_action = signal.signal(signal.SIGCHLD, _nothing)
        if signal.SIGCONT in heeded:
            signal.signal(signal.SIGCONT, _nothing)
        self._child = 0
        self._stop_wanted = False
        self._child_stopped = False

    def run(
        self,
        command: list[str],
        environment: Mapping[str, str],
        started: Callable[[int], object] = lambda _: None,
        while_stopped: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> int:
        """Starts the command and waits for its end.

        Args:
            command: The command and its arguments.
            environment: What it gets.
            started: Is told the process number once the command runs.
            while_stopped: Makes what is entered each time that this process stops, until it goes on.

        Returns:
            Its exit status; 128+n if signal n ended it.

        Raises:
            OSError: It cannot be started.
        """
        self._child = self._start(command, environment)
        started(self._child)
        while True:
            number, reached_child = self._next_signal()
            status = self._exit_status()
            if status is not None:
                return status
            if number == signal.SIGCONT:
                self._continue_child()
            elif number != signal.SIGCHLD and not reached_child:
                self._pass_on(number)
            # The command may also ignore a stop, or put it off until it has tidied the terminal.
            self._stop_wanted |= number == signal.SIGTSTP
            if self._stop_wanted and self._child_stopped:
                with while_stopped():
                    self._stop()

    def _start(self, command: list[str], environment: Mapping[str, str]) -> int:
        """Forks, and waits until the child has become the command."""
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            self._become(command, environment, write_fd)
        os.close(write_fd)
        with open(read_fd, "rb") as report:
            failure = report.read()
        if failure:
            os.waitpid(child, 0)
            number = int(failure)
            raise OSError(number, os.strerror(number))
        return child

    def _become(self, command: list[str], environment: Mapping[str, str], report_fd: int) -> NoReturn:
        """In the child: execs, with the signals as the caller had them."""
        try:
            for number in self._awaited:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, self._callers_action)
            restore_signals()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._callers_mask)
            execute(command, environment)
        except OSError as error:
            os.write(report_fd, str(error.errno).encode())
        finally:
            os._exit(1)

    def _next_signal(self) -> tuple[int, bool]:
        """Waits for a signal. Returns its number, and whether the command has got it too."""
        if hasattr(signal, "sigwaitinfo"):
            found = signal.sigwaitinfo(self._awaited)
            from_kernel = found.si_code > 0
            # A command that signals its whole group (`kill 0`) has signalled itself.
            return found.si_signo, (from_kernel and found.si_signo in _OF_A_KEY) or found.si_pid == self._child
        number = signal.sigwait(self._awaited)
        return number, number in _OF_A_KEY and _in_foreground()

    def _pass_on(self, number: int) -> None:
        # The child has not been waited for, so its number is not another's.
        try:
            os.kill(self._child, number)
        except PermissionError as error:
            say(f"cannot pass {signal.Signals(number).name} on to process {self._child}: {error.strerror}")

    def _exit_status(self) -> int | None:
        """The child's exit status, or None while it lives. Also learns of stops; one SIGCHLD may stand for several."""
        while True:
            child, status = os.waitpid(self._child, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if child == 0:
                return None
            if os.WIFSIGNALED(status):
                return 128 + os.WTERMSIG(status)
            if os.WIFEXITED(status):
                return os.WEXITSTATUS(status)
            self._child_stopped = os.WIFSTOPPED(status)

    def _continue_child(self) -> None:
        """Continues the command. A second time does no harm, and one that is still about to stop must not."""
        self._stop_wanted = False
        self._pass_on(signal.SIGCONT)
        # A stop that reached both meanwhile is the newer one, and would be undone.
        if signal.SIGTSTP in signal.sigpending():
            self._pass_on(signal.SIGTSTP)

    def _stop(self) -> None:
        """Stops this process until it is continued, as a shell expects of a job."""
        self._stop_wanted = False
        stop_this_process()


def stop_this_process() -> None:
    """Stops this process until it is continued, not if it has been continued again; blocked are SIGTSTP and SIGCONT."""
    # A stop would wipe out a SIGCONT that waits.
    if signal.SIGCONT not in signal.sigpending():
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})


def _in_foreground() -> bool:
    """Whether this process's group has the terminal: for systems that do not tell who sent a signal."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
