"""`jobserver run --progress`: the line at the foot of the terminal, CMD's own lines above it, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from .command import JOBSERVER, python, run
from .conftest import PATH, Tool
from .screens import OnScreen, of_terminal, on_screen, tmux
from .served import new_place

pytestmark = pytest.mark.needs("signals", "/proc")

RUN = [*JOBSERVER, "run", "--progress"]
LINES = 60

# Lines as fast as they come, and then one job that lasts until there is a file.
MAKEFILE = f"""\
lines = $(foreach number,$(shell seq {LINES}),line$(number))
all: $(lines)
	@until [ -e go ]; do sleep 0.02; done
$(lines): line%:
	@echo number $* of many
joined:
	+@$(JOINED) $(MAKE) all
.PHONY: all joined $(lines)
"""

# A command that lasts until a key is pressed.
UNTIL_KEY = python("import sys; print('ready'); sys.stdin.readline(); print('bye')")


@pytest.fixture
def environment() -> dict[str, str]:
    return of_terminal(dict(os.environ), PATH=PATH)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    return tmp_path


def numbers(lines: list[str]) -> list[int]:
    """The numbers of the project's lines, each of which is whole."""
    found = [line for line in lines if "many" in line or "number" in line]
    for line in found:
        assert line.startswith("number ") and line.endswith(" of many"), lines
    return [int(line.split()[1]) for line in found]


def is_progress(line: str, text: str) -> bool:
    return text in line and ("█" in line or "░" in line) and line[-1].isdigit()


def until_last_job(screen: OnScreen) -> list[str]:
    """The screen when the project has but one job left."""
    return screen.until(
        lambda lines: screen.raw.count(b" of many") == LINES and is_progress(lines[-1], "1 of 3 slots in use")
    )


def finished(screen: OnScreen, status: int = 0) -> list[str]:
    """The screen when all is over: the last line is free, and every line scrolls."""
    assert screen.job.told.next() == f"status {status}"
    lines = screen.rest()
    assert not any(is_progress(line, "slots") for line in lines), lines
    assert screen.screen.margins is None
    return lines


def test_lines_of_make_are_whole(project: Path, gnu_make: Tool, environment: dict[str, str]) -> None:
    with on_screen([*RUN, "-j3", gnu_make.path], cwd=project, env=environment) as screen:
        before = screen.modes()
        lines = until_last_job(screen)
        assert lines[-1].startswith("████████░░░░░░░░░░░░░░░░ 1 of 3 slots in use  0:0")
        assert len(numbers(lines[:-1])) == 22
        assert lines[-2] == "", "the cursor is here"
        assert screen.screen.cursor.y == 22
        (project / "go").touch()
        lines = finished(screen)
        assert len(numbers(lines)) == 22
        assert lines[-2:] == ["", ""]
        assert screen.modes() == before


def test_in_tmux(project: Path, make441: Tool, environment: dict[str, str]) -> None:
    with tmux(project, environment) as window:
        window.type(f"cd {project} && {' '.join(RUN)} -j3 {make441.path}; echo ov''er")
        window.until(lambda lines: is_progress(lines[-1], "1 of 3 slots in use"))
        (project / "go").touch()
        lines = window.until(lambda lines: "over" in lines, history=True)
        assert sorted(numbers(lines[1:])) == list(range(1, LINES + 1))
        assert not any(is_progress(line, "slots") for line in lines)
        window.type("seq 30; echo aft''er")
        lines = window.until(lambda lines: "after" in lines)
        assert lines[-3:-1] == ["30", "after"], "the last line scrolls again"


def test_end_of_a_line_that_was_begun_before(environment: dict[str, str]) -> None:
    """The cursor keeps its column, at the very bottom too."""
    shell = f"seq 30; printf begun; exec {' '.join(RUN)} sh -c 'printf \" and ended\"; read line'"
    with on_screen(["sh", "-c", shell], env=environment) as screen:
        lines = screen.until(lambda lines: is_progress(lines[-1], "slots in use") and "ended" in lines[-2])
        assert lines[-2] == "begun and ended"
        screen.job.press(b"\n")
        assert "begun and ended" in finished(screen)


def test_other_size(environment: dict[str, str]) -> None:
    with on_screen([*RUN, "-j2", *UNTIL_KEY], env=environment) as screen:
        screen.until(lambda lines: is_progress(lines[-1], "1 of 2 slots in use"))
        for columns, rows in ((40, 12), (100, 30), (30, 24)):
            screen.resize(columns, rows)
            lines = screen.until(lambda lines: "█" in lines[-1])
            assert len([line for line in lines if "█" in line]) == 1
            assert len(lines[-1]) < columns
        screen.job.press(b"\n")
        assert "bye" in finished(screen)


def test_stop_and_foreground(environment: dict[str, str]) -> None:
    with on_screen([*RUN, "-j2", *UNTIL_KEY], env=environment) as screen:
        screen.until(lambda lines: is_progress(lines[-1], "1 of 2 slots in use"))
        screen.job.press(b"\x1a")
        assert screen.job.told.next() == "stopped"
        assert screen.rest()[-1] == ""
        assert screen.screen.margins is None, "the shell's lines scroll"
        screen.job.foreground()
        screen.until(lambda lines: is_progress(lines[-1], "1 of 2 slots in use"))
        os.kill(screen.job.job, signal.SIGTERM)
        finished(screen, 128 + signal.SIGTERM)


def test_stop_of_several(environment: dict[str, str]) -> None:
    with on_screen([*RUN, "-j1", *UNTIL_KEY, "---", *UNTIL_KEY], env=environment) as screen:
        screen.until(lambda lines: is_progress(lines[-1], "1 of 1 slots in use  1 waiting") and "ready" in lines)
        screen.job.press(b"\x1a")
        assert screen.job.told.next() == "stopped"
        assert screen.rest()[-1] == ""
        assert screen.screen.margins is None
        screen.job.foreground()
        screen.until(lambda lines: is_progress(lines[-1], "1 of 1 slots in use  1 waiting"))
        screen.job.press(b"\n")
        screen.until(lambda lines: lines.count("ready") == 2 and "waiting" not in lines[-1])
        screen.job.press(b"\n")
        finished(screen)


def test_ctrl_c(environment: dict[str, str]) -> None:
    with on_screen([*RUN, "-j2", "cat"], env=environment) as screen:
        screen.until(lambda lines: is_progress(lines[-1], "1 of 2 slots in use"))
        screen.job.press(b"\x03")
        finished(screen, 128 + signal.SIGINT)


def test_served_pool(environment: dict[str, str]) -> None:
    with new_place() as place, place.serve("-j", "3") as server, place.connect() as other:
        other.join("other", ["other"], "fifo", lambda _: None)
        command = [*RUN, "--pool", "default", *UNTIL_KEY]
        with on_screen(command, env={**environment, **of_terminal(place.environment)}) as screen:
            screen.until(lambda lines: is_progress(lines[-1], "2 of 3 slots in use"))
            place.call("resize", "5")
            screen.until(lambda lines: is_progress(lines[-1], "2 of 5 slots in use"))
            os.kill(server.pid, signal.SIGKILL)
            lines = screen.until(lambda lines: "not known" in lines[-1] and "goes on" in "".join(lines))
            assert lines[-1].startswith("slots in use: not known  0:")
            screen.job.press(b"\n")
            assert "bye" in finished(screen)


def test_in_a_jobserver_that_is_joined(project: Path, gnu_make: Tool, environment: dict[str, str]) -> None:
    """The first make has one slot of the three, the one that it starts takes the others."""
    command = [gnu_make.path, "--no-print-directory", "-j3", "joined", f"JOINED={' '.join(RUN)}"]
    with on_screen(command, cwd=project, env=environment) as screen:
        until_last_job(screen)
        (project / "go").touch()
        assert len(numbers(finished(screen))) == 22


@pytest.mark.parametrize("wanted", ["standard error is no terminal", "no cursor"])
def test_where_it_cannot_be_shown(wanted: str, environment: dict[str, str]) -> None:
    if wanted == "no cursor":
        with on_screen([*RUN, "echo", "there"], env={**environment, "TERM": "dumb"}) as screen:
            assert screen.job.told.next() == "status 0"
            lines = screen.rest()
            assert lines[:3] == [
                "jobserver: no progress is shown: by TERM the terminal has no cursor that can be",
                "moved",
                "there",
            ]
            assert b"\x1b" not in screen.raw
        return
    done = run("--progress", "echo", "there", stderr=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, "there\n")
    assert done.stderr == f"jobserver: no progress is shown: {wanted}\n"


def test_in_ascii(environment: dict[str, str]) -> None:
    with on_screen([*RUN, "-j2", *UNTIL_KEY], env={**environment, "LC_ALL": "C"}) as screen:
        lines = screen.until(lambda lines: "slots in use" in lines[-1])
        assert lines[-1].startswith("############............ 1 of 2 slots in use  0:0")
        assert screen.raw.isascii()
        screen.job.press(b"\n")
        finished(screen)


def test_output_elsewhere(tmp_path: Path, environment: dict[str, str]) -> None:
    """What CMD writes goes to a file as it is; only standard error need be the terminal."""
    shell = f"{' '.join(RUN)} -j2 sh -c 'echo there; read line' > {tmp_path}/out"
    with on_screen(["sh", "-c", shell], env=environment) as screen:
        screen.until(lambda lines: is_progress(lines[-1], "1 of 2 slots in use"))
        screen.job.press(b"\n")
        finished(screen)
    assert (tmp_path / "out").read_text() == "there\n"
