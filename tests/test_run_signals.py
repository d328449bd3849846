"""`jobserver run` and signals: those of a terminal, those that are sent, stopping and continuing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .command import JOBSERVER, Lines, Running, Shell, python, shell
from .overlap import GUARD

# A command that tells of each signal as it comes, and ends with the first SIGTERM. What the kernel sent (a terminal did
# it) has a `!`. SIGTSTP is told only where an argument asks for it: then it does not stop the command.
WITNESS = """\
import os, signal, sys
awaited = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
awaited |= {getattr(signal, name) for name in sys.argv[2:]}
signal.signal(signal.SIGCONT, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
def tell(text):
    os.write(int(sys.argv[1]), (text + "\\n").encode())
tell(str(os.getpid()))
while True:
    found = signal.sigwaitinfo(awaited)
    tell(signal.Signals(found.si_signo).name + "!" * (found.si_code > 0))
    if found.si_signo == signal.SIGTERM:
        sys.exit(7)
"""

Tell = tuple[Lines, int]

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="not on this machine: sigwaitinfo")


@pytest.fixture
def tell() -> Iterator[Tell]:
    """What a command tells, and the descriptor by which it does."""
    told, tell = os.pipe()
    yield Lines(told), tell
    os.close(told)
    os.close(tell)


def witness(tell: int, *awaited: str) -> list[str]:
    """The witness under `jobserver run`."""
    return [*JOBSERVER, "run", "-j2", "--check", *python(WITNESS), str(tell), *awaited]


@contextmanager
def without_terminal(tell: Tell) -> Iterator[Running]:
    """The witness in a session without a terminal; it is ready."""
    with Running(witness(tell[1]), pass_fds=(tell[1],)) as running:
        tell[0].next()
        yield running


@contextmanager
def on_terminal(tell: Tell, *awaited: str) -> Iterator[tuple[Shell, int]]:
    """The witness as the job of a shell on a terminal, and its process number; it is ready."""
    with shell(witness(tell[1], *awaited), pass_fds=(tell[1],)) as job:
        yield job, int(tell[0].next())


def is_stopped(process: int) -> bool:
    with open(f"/proc/{process}/stat") as status:
        return status.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2"])
def test_signal_is_passed_on(name: str, tell: Tell) -> None:
    lines = tell[0]
    with without_terminal(tell) as running:
        os.kill(running.pid, getattr(signal, name))
        assert lines.next() == name
        os.kill(running.pid, signal.SIGTERM)
        assert lines.next() == "SIGTERM"
        assert running.finish().returncode == 7


def test_command_that_a_signal_ends() -> None:
    with Running([*JOBSERVER, "run", "sh", "-c", "echo there; exec cat"], stdin=subprocess.PIPE) as running:
        assert running.process.stdout is not None and running.process.stdout.readline() == "there\n"
        os.kill(running.pid, signal.SIGTERM)
        assert running.process.wait(GUARD) == 128 + signal.SIGTERM


def test_signal_that_the_caller_ignores_is_not_passed_on(tell: Tell) -> None:
    """As nohup does it; the command may heed it all the same, but only when it is sent to the command."""
    lines, number = tell
    nohup = "import os, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nos.execv(sys.argv[1], sys.argv[1:])"
    with Running([*python(nohup), *witness(number)], pass_fds=(number,)) as running:
        process = int(lines.next())
        os.kill(running.pid, signal.SIGHUP)
        os.kill(running.pid, signal.SIGUSR1)
        assert lines.next() == "SIGUSR1"
        os.kill(process, signal.SIGHUP)
        assert lines.next() == "SIGHUP"


def test_signal_that_the_command_sends_to_its_group_is_not_passed_on() -> None:
    """`kill 0` in a shell script reaches the command too, once."""
    program = (
        "import os, signal\n"
        "numbers = {signal.SIGUSR1, signal.SIGUSR2}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
        "os.kill(0, signal.SIGUSR1)\n"
        "found = [signal.sigwait(numbers)]\n"
        "print(os.getpid(), flush=True)\n"
        "while found[-1] != signal.SIGUSR2:\n"
        "    found.append(signal.sigwait(numbers))\n"
        "print([int(number) for number in found])\n"
    )
    with Running([*JOBSERVER, "run", "-j2", *python(program)]) as running:
        assert running.process.stdout is not None
        assert int(running.process.stdout.readline()) != running.pid
        os.kill(running.pid, signal.SIGUSR2)
        done = running.finish()
    assert done.stdout == f"{[int(signal.SIGUSR1), int(signal.SIGUSR2)]}\n"


def test_many_signals_are_all_passed_on(tell: Tell) -> None:
    """One is sent when the one before has arrived, so that none can melt into another."""
    lines = tell[0]
    with without_terminal(tell) as running:
        for _round in range(200):
            for name in ("SIGUSR1", "SIGHUP"):
                os.kill(running.pid, getattr(signal, name))
                assert lines.next() == name


def test_signal_while_the_command_starts_is_passed_on() -> None:
    """Whenever it comes, it ends the command or this process, and nothing is left."""
    for _round in range(20):
        with Running(
            [*JOBSERVER, "run", "--style", "pipe", "sh", "-c", "echo there; exec cat"], stdin=subprocess.PIPE
        ) as running:
            os.kill(running.pid, signal.SIGTERM)
            assert running.process.wait(GUARD) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def press_while_stopped(key: bytes, job: Shell, lines: Lines) -> list[str]:
    """What the command gets of a key and then of a SIGUSR1.

    The key is pressed while `jobserver run` is stopped, so that the command has its signal before a second could come.
    """
    os.kill(job.job, signal.SIGSTOP)
    assert job.told.next() == "stopped"
    job.foreground(continued=False)
    job.press(key)
    found = [lines.next()]
    os.kill(job.job, signal.SIGCONT)
    os.kill(job.job, signal.SIGUSR1)
    while found[-1] != "SIGUSR1":
        found.append(lines.next())
    return found


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_key_at_the_terminal_reaches_the_command_once(key: bytes, name: str, tell: Tell) -> None:
    lines = tell[0]
    with on_terminal(tell) as (job, _):
        assert press_while_stopped(key, job, lines) == [f"{name}!", "SIGUSR1"]
        os.kill(job.job, getattr(signal, name))
        assert lines.next() == name
        os.kill(job.job, signal.SIGTERM)
        assert lines.next() == "SIGTERM"
        assert job.told.next() == "status 7"


def test_ctrl_c_ends_the_command(tell: Tell) -> None:
    lines, number = tell
    program = f"import os\nos.write({number}, b'there\\n')\nos.execvp('cat', ['cat'])"
    with shell([*JOBSERVER, "run", *python(program)], pass_fds=(number,)) as job:
        assert lines.next() == "there"
        job.press(b"\x03")
        assert job.told.next() == f"status {128 + signal.SIGINT}"


def test_ctrl_z_stops_both_and_fg_continues_both(tell: Tell) -> None:
    lines = tell[0]
    with on_terminal(tell) as (job, process):
        for _round in range(5):
            job.press(b"\x1a")
            assert job.told.next() == "stopped"
            assert is_stopped(job.job) and is_stopped(process)
            job.foreground()
            os.kill(job.job, signal.SIGUSR1)
            assert lines.next() == "SIGUSR1"
        os.kill(job.job, signal.SIGTERM)
        assert lines.next() == "SIGTERM"
        assert job.told.next() == "status 7"


def test_stop_that_is_sent_stops_both(tell: Tell) -> None:
    lines = tell[0]
    with on_terminal(tell) as (job, process):
        os.kill(job.job, signal.SIGTSTP)
        assert job.told.next() == "stopped"
        assert is_stopped(process)
        os.kill(job.job, signal.SIGCONT)
        os.kill(job.job, signal.SIGUSR1)
        assert lines.next() == "SIGUSR1"


def test_stop_and_continue_in_a_row_leave_both_running(tell: Tell) -> None:
    lines = tell[0]
    with on_terminal(tell) as (job, _):
        for _round in range(20):
            os.kill(job.job, signal.SIGTSTP)
            os.kill(job.job, signal.SIGCONT)
            os.kill(job.job, signal.SIGUSR1)
            assert lines.next() == "SIGUSR1"


def test_continuation_overtakes_a_stop(tell: Tell) -> None:
    """The command stops late, and what continues this process is there before this process has seen that."""
    lines = tell[0]
    with on_terminal(tell, "SIGTSTP") as (job, process):
        os.kill(job.job, signal.SIGTSTP)
        assert lines.next() == "SIGTSTP"
        os.kill(job.job, signal.SIGSTOP)
        assert job.told.next() == "stopped"
        os.kill(process, signal.SIGSTOP)
        while not is_stopped(process):
            pass
        os.kill(job.job, signal.SIGCONT)
        os.kill(job.job, signal.SIGUSR1)
        assert lines.next() == "SIGUSR1"


def test_ctrl_z_while_a_continuation_is_passed_on(tell: Tell) -> None:
    """Passing the older signal on must not undo the newer one."""
    lines, number = tell
    program = (
        "import os, signal, sys, time\n"
        "from jobserver_ffi.cli import main\n"
        "from jobserver_ffi.cli.supervise import Supervisor\n"
        "pass_on = Supervisor._pass_on\n"
        "def late(self, number):\n"
        "    if number == signal.SIGCONT:\n"
        f"        os.write({number}, b'continuing\\n')\n"
        "        while signal.SIGTSTP not in signal.sigpending():\n"
        "            time.sleep(0.001)\n"
        "    pass_on(self, number)\n"
        "Supervisor._pass_on = late\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", program, *witness(number)[len(JOBSERVER) :]]
    with shell(command, pass_fds=(number,)) as job:
        lines.next()
        os.kill(job.job, signal.SIGTSTP)
        assert job.told.next() == "stopped"
        job.foreground(continued=False)
        os.kill(job.job, signal.SIGCONT)
        assert lines.next() == "continuing"
        job.press(b"\x1a")
        assert job.told.next() == "stopped"


def test_command_that_heeds_ctrl_z_in_its_own_way_is_not_stopped(tell: Tell) -> None:
    lines = tell[0]
    with on_terminal(tell, "SIGTSTP") as (job, process):
        job.press(b"\x1a")
        assert lines.next() == "SIGTSTP!"
        os.kill(job.job, signal.SIGUSR1)
        assert lines.next() == "SIGUSR1"
        assert not is_stopped(job.job) and not is_stopped(process)


def test_stopping_only_the_command_does_not_stop_this_process(tell: Tell) -> None:
    """Who stops and continues the command alone would never continue this process."""
    lines = tell[0]
    with on_terminal(tell) as (job, process):
        os.kill(process, signal.SIGSTOP)
        os.kill(process, signal.SIGCONT)
        os.kill(job.job, signal.SIGUSR1)
        assert lines.next() == "SIGUSR1"
        assert not is_stopped(job.job)


def test_continuing_this_process_ends_the_wish_to_stop(tell: Tell) -> None:
    """A command that did not stop for Ctrl-Z is stopped alone later on."""
    lines = tell[0]
    with on_terminal(tell, "SIGTSTP", "SIGCONT") as (job, process):
        job.press(b"\x1a")
        assert lines.next() == "SIGTSTP!"
        os.kill(job.job, signal.SIGCONT)
        assert lines.next() == "SIGCONT"
        os.kill(process, signal.SIGSTOP)
        while not is_stopped(process):
            pass
        os.kill(process, signal.SIGCONT)
        assert lines.next() == "SIGCONT"
        os.kill(job.job, signal.SIGUSR1)
        assert lines.next() == "SIGUSR1"


def test_command_that_stops_for_reading_in_the_background(tell: Tell) -> None:
    """The kernel stops the whole group; on `fg` all go on."""
    lines, number = tell
    program = f"import os\nos.write({number}, b'there\\n')\nline = os.read(0, 10)\nos.write({number}, line)"
    with shell([*JOBSERVER, "run", *python(program)], pass_fds=(number,), background=True) as job:
        assert lines.next() == "there"
        assert job.told.next() == "stopped"
        job.foreground()
        job.press(b"word\n")
        assert lines.next() == "word"
        assert job.told.next() == "status 0"


def test_command_ends_while_signals_come() -> None:
    """The end is not missed, whatever is pending with it."""
    numbers = [int(number) for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)]
    program = f"import signal\nfor number in {numbers}: signal.signal(number, signal.SIG_IGN)\nprint(flush=True)"
    for _round in range(20):
        with Running([*JOBSERVER, "run", "-j2", "--style", "pipe", *python(program)]) as running:
            assert running.process.stdout is not None and running.process.stdout.readline() == "\n"
            for number in numbers:
                os.kill(running.pid, number)
            assert running.process.wait(GUARD) == 0


def test_without_sigwaitinfo(tell: Tell) -> None:
    """Where the system does not tell who sent a signal, it is taken for the terminal's in the foreground only."""
    lines, number = tell
    program = "import signal, sys\ndel signal.sigwaitinfo\nfrom jobserver_ffi.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", program, *witness(number)[len(JOBSERVER) :]]
    with shell(command, pass_fds=(number,)) as job:
        lines.next()
        assert press_while_stopped(b"\x03", job, lines) == ["SIGINT!", "SIGUSR1"]
        os.kill(job.job, signal.SIGTERM)
        assert lines.next() == "SIGTERM"
        assert job.told.next() == "status 7"
    with Running(command, pass_fds=(number,)) as running:
        lines.next()
        os.kill(running.pid, signal.SIGINT)
        assert lines.next() == "SIGINT"


def test_hang_up_of_the_terminal_reaches_the_command(tell: Tell) -> None:
    """The kernel tells the leader of the session alone, which may be this process."""
    lines, number = tell
    leader = "import fcntl, os, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\nos.execv(sys.argv[1], sys.argv[1:])"
    import pty

    terminal, end = pty.openpty()
    with Running([*python(leader), *witness(number)], pass_fds=(number,), stdin=end):
        os.close(end)
        lines.next()
        os.close(terminal)
        assert lines.next() == "SIGHUP"


def test_command_that_may_not_be_signalled() -> None:
    """A program of another user (sudo) cannot be reached; that is told, and this process stays."""
    program = (
        "import os, sys\n"
        "def kill(*_): raise PermissionError(1, 'Operation not permitted')\n"
        "os.kill = kill\n"
        "from jobserver_ffi.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "run", "-j2", "sh", "-c", "echo $$; exec cat"]
    with Running(command, stdin=subprocess.PIPE) as running:
        assert running.process.stdout is not None and running.process.stderr is not None
        process = int(running.process.stdout.readline())
        os.kill(running.pid, signal.SIGUSR1)
        assert running.process.stderr.readline() == (
            f"jobserver: cannot pass SIGUSR1 on to process {process}: Operation not permitted\n"
        )
        assert running.finish().returncode == 0
