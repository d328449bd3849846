"""`jobserver top`: what its screen shows, its keys, and the terminal afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .command import JOBSERVER
from .conftest import missing
from .overlap import GUARD
from .screens import OnScreen, of_terminal, on_screen, tmux
from .served import Held, Place, new_place

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.needs("signals", "/proc")

TOP = [*JOBSERVER, "top"]
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture(autouse=True)
def rich() -> None:
    try:
        import rich
    except ImportError:
        missing("rich")
    assert rich


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as place:
        yield place


@contextmanager
def watched(place: Place, size: tuple[int, int] | None = (80, 24), **more: str) -> Iterator[OnScreen]:
    """A `jobserver top` that shows its pool."""
    with on_screen(TOP, size, env=of_terminal(place.environment, **more)) as screen:
        before = screen.modes()
        screen.until_text("leave")
        assert screen.modes() != before
        yield screen
        assert screen.modes() == before, "the terminal is not as it was"
        assert screen.raw.count(ENTER) == screen.raw.count(LEAVE) > 0
        assert screen.raw.rindex(LEAVE) > screen.raw.rindex(ENTER)


def ended(screen: OnScreen, status: int) -> list[str]:
    """What is left on the terminal by a watch that has ended."""
    assert screen.job.told.next() == f"status {status}"
    return screen.rest()


def test_screen_shows_each_lease(place: Place) -> None:
    third = ["run", "--pool", "default", "--", "a-third-one"]
    with place.serve("-j", "2"), Held(place), Held(place), place.begin(*third) as waiting:
        place.until(lambda status: status["queued"] == 1)
        with watched(place) as screen:
            lines = screen.until_text("queue: 1")
            assert lines[0].startswith("default: 2 of 2 slots  1 waiting  0 lost  0 ended")
            assert lines[1] == f"   now {'█' * 73}"
            assert [line[:7] for line in lines[2:7]] == ["", "     2 ", " 2 min ", "     0 ", ""]
            assert lines[7].split() == ["PID", "SLOTS", "SECONDS", "PEAK", "LOST", "COMMAND"]
            held = rf" +\d+ ██████░░░░░░ 1 +\d+\.\d    1    0 {re.escape(sys.executable[:20])}.*…"
            assert re.fullmatch(held, lines[8]) and re.fullmatch(held, lines[9])
            assert re.fullmatch(rf" +{waiting.pid} queue: 1 +0\.0    0    0 a-third-one", lines[10])
            assert lines[11:-1] == [""] * 12
            assert lines[-1] == "+ more slots   - fewer   q leave"
            screen.job.press(b"q")
            ended(screen, 0)


def test_screen_of_40_columns_and_12_rows(place: Place) -> None:
    with place.serve("-j", "20"), ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(Held(place))
        with watched(place, (40, 12)) as screen:
            lines = screen.until_text("8 of 20 slots")
            assert lines[3].split() == ["SLOTS", "SECONDS", "LOST", "COMMAND"]
            assert max(map(len, lines)) == 40
            assert all("█" in line for line in lines[4:10])
            assert lines[10:] == ["… 2 more", "+ more slots   - fewer   q leave"]
            screen.resize(120, 30)
            lines = screen.until(lambda lines: sum(sys.executable[:40] in line for line in lines) == 8 and lines[-1])
            assert len(lines[1]) == 120
            assert lines[7].split() == ["PID", "SLOTS", "SECONDS", "PEAK", "LOST", "COMMAND"]
            assert lines[16:-1] == [""] * 13
            screen.job.press(b"q")
            ended(screen, 0)


def test_keys_resize_the_pool(place: Place) -> None:
    with place.serve("-j", "2"), Held(place), Held(place), watched(place) as screen:
        screen.job.press(b"+++")
        screen.until_text("2 of 5 slots")
        assert place.status()["limit"] == 5
        screen.job.press(b"----")
        screen.until_text("2 of 1 slots")
        screen.until_text("no job is stopped: 1 slot too many in use until jobs end")
        screen.job.press(b"-")
        screen.until_text("a pool has at least 1 slot")
        screen.job.press(b"+")
        lines = screen.until_text("2 of 2 slots")
        assert not any("until jobs end" in line or "at least" in line for line in lines)
        screen.job.press(b"q")
        ended(screen, 0)


def test_ends_of_builds_show(place: Place) -> None:
    with place.serve("-j", "2"), Held(place) as build, watched(place) as screen:
        screen.until_text("1 of 2 slots")
        build.let_go()
        lines = screen.until_text("1 ended")
        assert lines[0].startswith("default: 0 of 2 slots")
        screen.until_text("no builds: `jobserver run --pool default -- CMD` joins this pool")
        screen.job.press(b"q")
        ended(screen, 0)


def test_gate_that_holds_back_shows(place: Place) -> None:
    with place.serve("-j", "4", "--max-load", "0.001"), Held(place), watched(place) as screen:
        lines = screen.until_text("tokens held back: 3")
        assert any(line.startswith("load above 0.001 (it is ") for line in lines)
        assert lines[1].endswith("▒" * 55)
        screen.job.press(b"q")
        ended(screen, 0)


def test_ctrl_c_leaves(place: Place) -> None:
    with place.serve(), watched(place) as screen:
        screen.job.press(b"\x03")
        ended(screen, 130)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signal_that_ends_it(place: Place, name: str) -> None:
    number = signal.Signals[name]
    with place.serve(), watched(place) as screen:
        os.kill(screen.job.job, number)
        ended(screen, -number)


def test_stop_and_foreground(place: Place) -> None:
    with place.serve("-j", "3"), watched(place) as screen:
        during = screen.modes()
        screen.job.press(b"\x1a")
        assert screen.job.told.next() == "stopped"
        screen.rest()
        assert screen.modes() != during
        assert screen.raw.endswith(LEAVE)
        screen.screen.reset()
        screen.job.foreground()
        screen.until_text("of 3 slots")
        assert screen.modes() == during
        screen.job.press(b"\x1a")
        assert screen.job.told.next() == "stopped"
        os.kill(screen.job.job, signal.SIGTERM)
        screen.job.foreground()
        ended(screen, -signal.SIGTERM)


def test_in_the_background(place: Place) -> None:
    """It stops before it touches the terminal, as whatever sets it, and begins in the foreground."""
    with place.serve("-j", "3"), on_screen(TOP, background=True, env=of_terminal(place.environment)) as screen:
        before = screen.modes()
        assert screen.job.told.next() == "stopped"
        assert (screen.modes(), screen.raw) == (before, b"")
        screen.job.foreground()
        screen.until_text("of 3 slots")
        screen.job.press(b"q")
        ended(screen, 0)
        assert screen.modes() == before


def test_server_that_ends(place: Place) -> None:
    with place.serve() as server, watched(place) as screen:
        server.process.kill()
        ended(screen, 1)
        said = screen.raw.rpartition(LEAVE)[2].decode().strip()
        assert said == f"jobserver: cannot see pool `default`: the server at {place.socket} is gone"


def test_server_that_does_not_answer(place: Place) -> None:
    with place.serve("-j", "3") as server, watched(place) as screen:
        os.kill(server.pid, signal.SIGSTOP)
        screen.until_text("the server has not answered for")
        screen.job.press(b"++")
        os.kill(server.pid, signal.SIGCONT)
        lines = screen.until_text("of 5 slots")
        assert not any("not answered" in line for line in lines)
        os.kill(server.pid, signal.SIGSTOP)
        screen.job.press(b"q")
        ended(screen, 0)
        os.kill(server.pid, signal.SIGCONT)


def test_signal_while_the_terminal_takes_nothing(place: Place) -> None:
    """Nobody reads what it writes, until the terminal is full."""
    with place.serve("-j", "3"), on_screen(TOP, env=of_terminal(place.environment)) as screen:
        screen.until_text("leave")
        end = time.monotonic() + GUARD
        columns = 300
        while not is_writing(screen.job.job):
            assert time.monotonic() < end, "the terminal was never full"
            columns = 601 - columns
            screen.resize(columns, 50)
        os.kill(screen.job.job, signal.SIGTERM)
        assert screen.job.told.next() == f"status {-signal.SIGTERM}"


def is_writing(process: int) -> bool:
    """Whether a process sleeps until a terminal takes more; its other sleep is for news."""
    return Path(f"/proc/{process}/wchan").read_text() == "wait_woken"


def test_without_colours_and_in_ascii(place: Place) -> None:
    with place.serve("-j", "2"), Held(place), watched(place, LC_ALL="C", NO_COLOR="1") as screen:
        lines = screen.until_text("1 of 2 slots")
        assert lines[1] == f"   now {'#' * 36}{'.' * 37}"
        assert screen.raw.isascii()
        assert not re.search(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m", screen.raw), "a colour"
        screen.job.press(b"q")
        ended(screen, 0)


def test_terminal_that_does_not_tell_its_size(place: Place) -> None:
    with place.serve("-j", "2"), watched(place, None) as screen:
        lines = screen.until_text("0 of 2 slots")
        assert lines[-1] == "+ more slots   - fewer   q leave"
        screen.job.press(b"q")
        ended(screen, 0)


@pytest.mark.parametrize("pool", ["default", "other"])
def test_what_is_no_terminal(place: Place, pool: str) -> None:
    option = [] if pool == "default" else ["--pool", pool]
    done = place.call("top", *option, stdin=subprocess.DEVNULL)
    shown = " ".join(["jobserver", "status", *option])
    message = f"jobserver: top needs a terminal, and standard output is none: `{shown} --json` is for programs\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def refused(place: Place, command: list[str], **more: str) -> str:
    """What a top says that does not begin."""
    with on_screen(command, (200, 24), env=of_terminal(place.environment, **more)) as screen:
        assert screen.job.told.next() == "status 1"
        (line,) = filter(None, screen.rest())
        assert ENTER not in screen.raw
        return line


def test_terminal_without_a_cursor(place: Place) -> None:
    said = "top needs a terminal with a cursor, and by TERM this one has none: there is `jobserver status --watch`"
    assert refused(place, TOP, TERM="dumb") == f"jobserver: {said}"


def test_without_rich(place: Place, tmp_path: Path) -> None:
    """In a Python that has cffi and this package, and no rich."""
    program = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'rich' else find(name, package)\n"
        "sys.argv[0] = 'jobserver'\n"
        "from jobserver_ffi.cli import main\n"
        "sys.exit(main())\n"
    )
    assert refused(place, [sys.executable, "-c", program, "top"]) == (
        "jobserver: top needs rich: `pip install 'jobserver-ffi[cli]'`; without it there is `jobserver status --watch`"
    )


def test_nobody_serves(place: Place) -> None:
    assert refused(place, TOP) == f"jobserver: cannot see pool `default`: nobody serves {place.socket}"


def test_in_tmux(place: Place, tmp_path: Path) -> None:
    """The screen below is there again afterwards, and the terminal is set as before."""
    with place.serve("-j", "3"), tmux(place.runtime, place.environment) as window:
        window.type(f"stty -a > {tmp_path}/before; echo under''neath")
        window.until(lambda lines: "underneath" in lines)
        window.type(" ".join(TOP))
        lines = window.until(lambda lines: "leave" in lines[-1])
        assert lines[0].startswith("default: 0 of 3 slots")
        assert "underneath" not in lines
        window.call("send-keys", "+")
        window.until(lambda lines: "of 4 slots" in lines[0])
        window.call("send-keys", "q")
        window.until(lambda lines: "underneath" in lines)
        window.type(f"stty -a | cmp - {tmp_path}/before && echo the''same")
        window.until(lambda lines: "thesame" in "".join(lines) and "underneath" in lines)


def lease(**more: Any) -> dict[str, Any]:
    """A lease as a server tells of it."""
    usual = {"process": 4242, "connected": True, "name": "make", "command": ["make"], "state": "started"}
    figures = {"queued_before": 0, "slots": 1, "untaken": 0, "peak": 1, "lost": 0, "slot_seconds": 1.0}
    return {**usual, **figures, **more}


def test_every_size() -> None:
    """Whatever is to be told and however little room there is, no line is too long, and there are as many as rows."""
    from jobserver_ffi.top.view import ASCII, UNICODE, History, draw

    leases = [
        lease(command=["日本語" * 40], slots=9),
        lease(command=["a\x1b[2Jb\n"], state="orphans", lost=3, slot_seconds=123456789.0),
        lease(command=[], name="é" * 30, state="queued", queued_before=12, slots=0),
        *(lease(process=number) for number in range(20)),
    ]
    status: dict[str, Any] = {
        "name": "pool" * 20,
        "process": 1,
        "limit": 8,
        "in_use": 12,
        "free": 0,
        "queued": 1,
        "held_back": 2,
        "gates": [{"name": "load above 3", "value": 4.0, "held_back": 2}],
        "leases": leases,
        "ended": {"leases": 1000000, "lost": 7, "over_released": 0, "foreign": 0},
    }
    history = History()
    for second in range(500):
        history.add(float(second), second % 13)
    for glyphs in (UNICODE, ASCII):
        for columns in (*range(1, 90), 200):
            for rows in (*range(1, 14), 24, 60):
                lines = draw(status, history, os.terminal_size((columns, rows)), glyphs, "a note", "an alarm")
                assert len(lines) == rows
                assert all(line.cell_len <= columns for line in lines), (columns, rows)
                assert "".join(line.plain for line in lines).isprintable()
                assert glyphs is UNICODE or all(line.plain.isascii() for line in lines)


def test_graph_shows_what_was_in_use() -> None:
    """Means of two seconds, each in eighths of a row; the newest to the right, and nothing where nobody looked."""
    from jobserver_ffi.top.view import UNICODE, History, draw

    history = History()
    for second, in_use in enumerate((0, 0, 1, 1, 2, 4, 8, 8)):
        history.add(float(second), in_use)
    history.add(10.0, 4)
    status: dict[str, Any] = {
        "name": "default",
        "process": 1,
        "limit": 8,
        "in_use": 4,
        "free": 4,
        "queued": 0,
        "held_back": 0,
        "gates": [],
        "leases": [],
        "ended": {"leases": 0, "lost": 0, "over_released": 0, "foreign": 0},
    }
    low = draw(status, history, os.terminal_size((20, 12)), UNICODE)
    assert low[2].plain == " 1 min" + " " * 9 + "▁▃█ ▄"
    high = draw(status, history, os.terminal_size((20, 20)), UNICODE)
    assert [line.plain[-5:] for line in high[3:6]] == ["  █  ", " ▁█ ▄", "▃██ █"]
