"""Pools that are semaphores: what only they do, between real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobserver_ffi import Client, MaxLoad, OverRelease, Pool, Unsupported

from .command import JOBSERVER
from .conftest import Tool
from .overlap import FOR_MAKE, GUARD, JobCounter, captured
from .test_bridge import wait_for

pytestmark = pytest.mark.needs("semaphore")

WORKERS = 3


def program(text: str, *arguments: str) -> list[str]:
    """The command of a program that may use the library, and ends by itself if it hangs."""
    guard = f"import os, sys, threading\nguard = threading.Timer({GUARD}, lambda: os._exit(99))\n"
    return [sys.executable, "-I", "-c", f"{guard}guard.daemon = True\nguard.start()\n{text}", *arguments]


def finish(child: subprocess.Popen[Any]) -> str:
    """What a child printed that must end well."""
    out, err = child.communicate(timeout=GUARD)
    assert (child.returncode, err) == (0, "")
    return str(out)


HAMMER = """
import mmap, random
from jobserver_ffi import AcquireTimeout, Client
table, client, failures = mmap.mmap(-1, 64, tagname=sys.argv[2]), Client.open(sys.argv[1]), []
def alone():
    assert table[0] == 0, "two hold the only token"
    table[0] = 1
    table[0] = 0
def work(seed):
    try:
        choose = random.Random(seed)
        for _ in range(400):
            way = choose.randrange(4)
            if way == 0:
                with client.acquire():
                    alone()
            elif way == 1:
                byte = client.acquire_raw()
                alone()
                client.release_raw(byte)
            elif way == 2:
                token = client.try_acquire()
                if token:
                    alone()
                    del token
            else:
                try:
                    with client.acquire(0.001):
                        alone()
                except AcquireTimeout:
                    pass
    except BaseException as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work, args=(int(sys.argv[3]) + n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
client.close()
print(*failures)
"""


def test_one_token_is_held_by_one_thread_of_all_processes() -> None:
    with Client(1) as client:
        commands = [program(HAMMER, client.auth, f"{client.auth}-table", str(10 * n)) for n in range(WORKERS)]
        children = [subprocess.Popen(command, **captured({})) for command in commands]
        assert [finish(child).strip() for child in children] == [""] * WORKERS
        assert client.available() == 1


HOLD = """
from jobserver_ffi import Client
client = Client.open(sys.argv[1])
held = client.acquire_many(2)
print("held", flush=True)
sys.stdin.read()
"""


def test_who_is_killed_takes_along_what_it_holds_and_nothing_else() -> None:
    with Client(3) as client:
        child = subprocess.Popen(program(HOLD, client.auth), **captured({"stdin": subprocess.PIPE}))
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        with client.acquire(GUARD):
            child.kill()
            child.communicate()
        assert client.available() == 1
        for _ in range(2):  # so that the pool is whole
            assert release_from_outside(client.auth)


def from_outside(name: str, function: str, *arguments: Any) -> int:
    """Calls a function of the system with the semaphore, as a program that does not keep the rules would."""
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    kernel.OpenSemaphoreW.restype = wintypes.HANDLE
    handle = wintypes.HANDLE(kernel.OpenSemaphoreW(0x1F0003, False, name))
    result = int(getattr(kernel, function)(handle, *arguments))
    kernel.CloseHandle(handle)
    return result


def release_from_outside(name: str) -> bool:
    """Releases a token that was never taken. False if there was no room."""
    return from_outside(name, "ReleaseSemaphore", 1, None) != 0


def take_from_outside(name: str) -> None:
    assert from_outside(name, "WaitForSingleObject", 0) == 0


def test_others_that_release_too_much_are_told_of() -> None:
    with Client(2) as client:
        token, raw = client.acquire(), client.acquire_raw()
        assert release_from_outside(client.auth)
        assert release_from_outside(client.auth)
        assert not release_from_outside(client.auth)
        with pytest.raises(OverRelease, match=r"error 298.*still held"):
            token.release()
        with pytest.raises(OverRelease, match=r"error 298"):
            client.release_raw(raw)
        take_from_outside(client.auth)
        token.release()
        take_from_outside(client.auth)
        client.release_raw(raw)


def test_a_destructor_s_failure_is_told_by_the_next_call() -> None:
    with Client(1) as client:
        token = client.acquire()
        assert release_from_outside(client.auth)
        del token
        with pytest.raises(OverRelease, match=r"dropped.*1 still held"):
            client.try_acquire()
        take_from_outside(client.auth)
        assert client.acquire(GUARD) is not None


def test_two_that_want_more_than_half_do_not_deadlock() -> None:
    with Client(8) as client:

        def take() -> None:
            for _ in range(50):
                client.acquire_many(5, minimum=5).release()

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        assert client.available() == 8


WAYS = ["acquire()", "acquire(1e6)", "acquire_raw()", "acquire_many(2)", "acquire_many(2, minimum=2)"]
INTERRUPTED = """
import signal
from jobserver_ffi import Client
for way in sys.argv[1:]:
    with Client(2) as client, client.acquire_many(2) as batch:
        wait = {}
        exec(f"def wait(client): client.{way}", wait)
        for _ in range(3):
            timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGINT])
            try:
                timer.start()
                wait["wait"](client)
            except KeyboardInterrupt:
                print(way)
            timer.join()
        batch.release()
        assert client.available() == 2
"""


def test_ctrl_c_ends_every_wait() -> None:
    """It comes in a thread of its own, as from the console."""
    child = subprocess.Popen(program(INTERRUPTED, *WAYS), **captured({}))
    assert finish(child).split("\n") == [way for way in WAYS for _ in range(3)] + [""]


LEAVE = """
from jobserver_ffi import Client
client = Client.open(sys.argv[1])
held = [client.acquire(), client.acquire_many(1)]
def wait():
    while True:
        client.acquire().release()
for _ in range(8):
    threading.Thread(target=wait, daemon=True).start()
"""


def test_exit_gives_back_what_is_held_and_no_waiter_takes_more() -> None:
    with Client(3) as client:
        for _ in range(5):
            subprocess.run(program(LEAVE, client.auth), check=True, timeout=GUARD)
            assert client.available() == 3


def run(*words: str, **popen_kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Runs `jobserver run` with these arguments until it ends."""
    return subprocess.run([*JOBSERVER, "run", *words], timeout=GUARD, **captured(popen_kwargs))


@pytest.mark.parametrize("status", [0, 1, 3, 70, 255, 0xC000013A])
def test_the_status_of_the_command_is_passed_on(status: int) -> None:
    done = run("-j2", "--", sys.executable, "-I", "-c", f"import os; os._exit({status - (status >> 31 << 32)})")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


SHOW = "import os; print('MAKEFLAGS' in os.environ, os.environ['CARGO_MAKEFLAGS'].partition('=')[0])"


def test_makeflags_is_for_make_and_ninja_only(make441: Tool, tmp_path: Path) -> None:
    assert run("-j3", sys.executable, "-I", "-c", SHOW).stdout == "False  -j3 --jobserver-auth\n"
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "Makefile").write_text(f"all:\n\t@{sys.executable} show.py\n")
    assert run("-j3", make441.path, cwd=tmp_path).stdout.startswith("True")


def test_make_fills_the_slots_of_the_command_and_no_token_is_lost(make441: Tool, tmp_path: Path) -> None:
    with JobCounter(9, 4, lambda: 0) as counter:
        jobs = " ".join(map(str, range(9)))
        (tmp_path / "Makefile").write_text(f"all: {jobs}\n{jobs}:\n\t@{counter.command}\n")
        done = run("-j4", "--check", "--", make441.path, "-s", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    counter.check()


def test_a_token_that_is_lost_is_told_of(make441: Tool, tmp_path: Path) -> None:
    (tmp_path / "lose.py").write_text("from jobserver_ffi import Client\nClient.from_env().acquire_raw()\n")
    (tmp_path / "Makefile").write_text(f"all:\n\t@{sys.executable} lose.py\n")
    done = run("-j4", "--check", "--", make441.path, "-s", cwd=tmp_path)
    assert (done.returncode, "tokens missing: 1 of 3" in done.stderr) == (70, True)


FAMILY = """
import subprocess, time
sleeper = "import time; time.sleep(600)"
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", sleeper])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def test_no_process_of_the_command_outlives_it_when_it_is_killed() -> None:
    with subprocess.Popen([*JOBSERVER, "run", "-j2", "--", *program(FAMILY)], **captured({})) as killed:
        assert killed.stdout
        family = [psutil.Process(int(number)) for number in killed.stdout.readline().split()]
        killed.kill()
        assert psutil.wait_procs(family, timeout=GUARD)[1] == []


# Has a console of its own, under which Ctrl-C reaches the command and all that it starts.
AT_A_CONSOLE = """
import ctypes, signal, subprocess
kernel = ctypes.WinDLL("kernel32")
kernel.FreeConsole()
assert kernel.AllocConsole()
signal.signal(signal.SIGINT, lambda *_: None)
command = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
family = command.stdout.readline()
assert kernel.GenerateConsoleCtrlEvent(signal.CTRL_C_EVENT, 0)
print(family.strip(), command.wait(), flush=True)
"""
# `jobserver`, which hears of Ctrl-C only when what it runs has ended of it. What is added last is told first.
LATE_TO_HEAR = f"""
import ctypes, psutil, time
from jobserver_ffi.cli import main, supervise_windows
def hold_back(event):
    psutil.wait_procs(psutil.Process().children())
    time.sleep(0.2)  # how late, not a synchronisation
    return False
hold_back = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_ulong)(hold_back)
assert ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(hold_back, True)
supervise_windows._LATEST_INTERRUPT = {GUARD}
sys.exit(main())
"""
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
INTERRUPTED_FAMILY = f"""
import subprocess, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", {DEAF!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), child.pid, flush=True)
try:
    for _ in range(12000):  # Python's sleep misses a Ctrl-C that comes as it begins
        time.sleep(0.05)
except KeyboardInterrupt:
    os._exit(7)
"""


@pytest.mark.parametrize("jobserver", [JOBSERVER, program(LATE_TO_HEAR)], ids=["at once", "late to hear"])
def test_no_process_of_the_command_outlives_ctrl_c(jobserver: list[str]) -> None:
    """It ends CMD; what CMD started does not listen to it, and is ended by the job object."""
    command = [*jobserver, "run", "-j2", "--", *program(INTERRUPTED_FAMILY)]
    with subprocess.Popen(program(AT_A_CONSOLE, *command), **captured({})) as console:
        *family, status = finish(console).split()
    assert status == "7"
    for number in family:
        wait_until_gone(int(number))


def wait_until_gone(process: int) -> None:
    """The system ends what is in a job object when its last handle is closed, which is not the same instant."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process).wait(GUARD)


TAKE_AND_GIVE = """
import ctypes
from ctypes import wintypes
from jobserver_ffi import Client
client = Client.from_env()
for _ in range(int(sys.argv[1])):
    client.acquire_raw()
kernel = ctypes.WinDLL("kernel32")
kernel.OpenSemaphoreW.restype = wintypes.HANDLE
handle = wintypes.HANDLE(kernel.OpenSemaphoreW(0x1F0003, False, client.auth))
print("taken", flush=True)
sys.stdin.readline()
give = int(sys.argv[2])
print(int(give > 0 and kernel.ReleaseSemaphore(handle, give, None)), flush=True)
sys.stdin.readline()
os._exit(0)
"""


@pytest.mark.parametrize(
    ("take", "give", "accepted", "complaint"),
    [
        (2, 0, False, "2 tokens not given back: back in the pool"),
        (1, 3, True, "2 tokens given back that had not been taken: thrown away"),
        (1, 9, False, "1 token not given back: back in the pool"),
        (1, 1, True, None),
    ],
)
def test_who_breaks_the_protocol_on_a_lease_is_named_and_harms_nobody(
    take: int, give: int, accepted: bool, complaint: str | None
) -> None:
    """The semaphore of a lease has room for the slots of the pool; what is beyond that the system refuses."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with Pool(4) as pool:
        with pool.lease("offender", maximum=take + 1) as lease:
            process = lease.popen(program(TAKE_AND_GIVE, str(take), str(give)), **pipes)
            assert process.stdin is not None and process.stdout is not None
            with process:
                assert process.stdout.readline() == "taken\n"
                wait_for(lambda: lease.report().slots == take + 1)
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{accepted:d}\n"
                wait_for(lambda: lease.report().slots == (1 if accepted else take + 1))
                process.communicate("\n", timeout=GUARD)
            assert lease.wait(GUARD).complaints == ([complaint] if complaint else [])
        assert pool.status().in_use == 0


def writes(directory: Path, counter: JobCounter, jobs: int) -> None:
    """A makefile and a build.ninja whose jobs are counted."""
    names = " ".join(f"job{number}" for number in range(jobs))
    (directory / "Makefile").write_text(f"all: {names}\n{names}:\n\t@{counter.command}\n")
    edges = "".join(f"build {name}: job\n" for name in names.split())
    (directory / "build.ninja").write_text(f"rule job\n  command = {counter.command}\n{edges}")


def builds_in(directory: Path, make441: Tool, ninja: Tool) -> dict[str, list[str]]:
    """The command of each tool."""
    return {
        "make": [make441.path, "-s", "-C", str(directory)],
        "ninja": [ninja.path, "--quiet", "-C", str(directory)],
    }


@pytest.mark.parametrize("tool", ["make", "ninja"])
def test_a_build_that_is_terminated_loses_no_token(tool: str, make441: Tool, ninja: Tool, tmp_path: Path) -> None:
    """It held each of them. They are back when the last of its jobs has ended, and the next build fills the slots."""
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with Pool(4) as pool:
        with pool.lease(tool) as lease:
            with JobCounter(1000, 1000, lambda: 0) as counter:  # which lets none go
                writes(tmp_path, counter, 8)
                process = lease.popen(builds_in(tmp_path, make441, ninja)[tool], **FOR_MAKE, **pipes)
                wait_for(lambda: counter.jobs == 4)
                process.kill()
                process.wait(GUARD)
                wait_for(lambda: lease.report().state == "orphans")
                assert (lease.report().slots, lease.report().lost) == (4, 0)
            report = lease.wait(GUARD)
        assert (report.peak, report.lost, report.orphans, pool.status().in_use) == (4, 3, "ended", 0)
        with JobCounter(8, 4, lambda: 0) as counter:
            writes(tmp_path, counter, 8)
            with pool.lease("next") as lease:
                done = lease.run(builds_in(tmp_path, make441, ninja)[tool], **FOR_MAKE, **captured({}))
            assert (done.returncode, done.stderr) == (0, "")
        counter.check()
        assert lease.report().complaints == []


def test_several_commands_share_the_slots(make441: Tool, ninja: Tool, tmp_path: Path) -> None:
    with JobCounter(24, 4, lambda: 0, once=True) as counter:
        writes(tmp_path, counter, 12)
        make, command = builds_in(tmp_path, make441, ninja).values()
        done = run("-j4", "--check", *make, "---", *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert (counter.stuck, counter.jobs, counter.peak) == (False, 24, 4)


def test_the_first_failure_of_several_is_the_status_and_who_lost_tokens_is_named(tmp_path: Path) -> None:
    lose = program("from jobserver_ffi import Client\nClient.from_env().acquire_raw()\nos._exit(0)\n")
    done = run("-j1", "--check", *program("os._exit(3)"), "---", "no-such-program", "---", *program("print('two')"))
    assert (done.returncode, done.stdout) == (3, "two\n")
    assert "cannot run `no-such-program`: there is no such program in PATH" in done.stderr
    done = run("-j3", "--check", *program("print('one')"), "---", *lose)
    assert (done.returncode, done.stdout) == (70, "one\n")
    assert done.stderr.startswith(f"jobserver: `{sys.executable}` left tokens missing: 1 of 2;")


def test_more_commands_than_slots_run_one_after_the_other(tmp_path: Path) -> None:
    running = str(tmp_path / "running")
    job = program(f"import time\nos.mkdir({running!r})\ntime.sleep(0.05)\nos.rmdir({running!r})")
    done = run("-j1", *job, "---", *job, "---", *job)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_several_and_starts_none(tmp_path: Path) -> None:
    """Also where a process that one of them has started does not listen to it."""
    command = [*JOBSERVER, "run", "-j1", "--", *program(INTERRUPTED_FAMILY), "---"]
    command += program(f"open({str(tmp_path / 'started')!r}, 'x')")
    with subprocess.Popen(program(AT_A_CONSOLE, *command), **captured({})) as console:
        *family, status = finish(console).split()
    assert (len(family), status, (tmp_path / "started").exists()) == (2, "7", False)
    for number in family:
        wait_until_gone(int(number))


def test_a_gate_holds_tokens_back(make441: Tool, tmp_path: Path) -> None:
    with JobCounter(3, 1, lambda: 0) as counter:
        (tmp_path / "Makefile").write_text(f"all: 1 2 3\n1 2 3:\n\t@{counter.command}\n")
        done = run("-j3", "--min-memory", "9999T", "--check", make441.path, "-s", "-C", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    counter.check()
    with pytest.raises(Unsupported, match="no load average"):
        MaxLoad(5, str(tmp_path))


def test_what_leases_cannot_do_here_is_refused_and_the_reason_told() -> None:
    with Client(2) as client, pytest.raises(Unsupported, match="cannot take them from another jobserver"):
        Pool(client)


def test_what_make_starts_finds_the_semaphore_of_make(make441: Tool, tmp_path: Path) -> None:
    """Also in a recipe line without `+`: a name is no descriptor that could be closed."""
    text = "from jobserver_ffi import Client\nclient = Client.from_env()\nprint(client.auth, client.available())\n"
    (tmp_path / "show.py").write_text(text)
    (tmp_path / "Makefile").write_text(f"all:\n\t@{sys.executable} show.py\n")
    environ = {name: value for name, value in os.environ.items() if not name.endswith("MAKEFLAGS")}
    done = subprocess.run([make441.path, "-s", "-j4"], cwd=tmp_path, env=environ, **captured({}))
    name, free = done.stdout.split()
    assert (name.startswith("gmake_semaphore_"), free, done.stderr) == (True, "3", "")


def test_the_client_may_be_gone_when_its_child_begins(make441: Tool, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@echo built\n")
    client = Client(2)
    configured = client.configure(**FOR_MAKE, **captured({"cwd": tmp_path}))
    client.close()
    done = subprocess.run([make441.path, "-s"], **configured)
    assert (done.returncode, done.stdout, done.stderr) == (0, "built\n", "")
