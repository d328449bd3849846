"""The core inside other people's extensions: the examples of docs/embedding.md, built into a fresh environment."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import jobserver_ffi
from jobserver_ffi import Client

from .command import Running
from .conftest import TokenPipe, missing, wait_until_asleep
from .overlap import Recipe, captured, server_command

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
INCLUDE = Path(jobserver_ffi.get_include())
FOREIGN = -10013
GUARD = 300

needs_posix = pytest.mark.needs("sh", "pipe")
needs_one_owner = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="needs glibc: elsewhere copies of the core cannot know of each other"
)


@pytest.mark.quick
def test_the_headers_and_the_declarations_for_cython_are_there() -> None:
    assert {path.name for path in INCLUDE.glob("jobserver*.h")} == {
        "jobserver.h",
        "jobserver_import.h",
        "jobserver_table.h",
    }
    assert (Path(jobserver_ffi.__file__).parent / "__init__.pxd").is_file()


@pytest.mark.quick
def test_the_sources_are_copied_once(tmp_path: Path) -> None:
    sources = jobserver_ffi.copy_sources(tmp_path / "core")
    assert {Path(path).name for path in sources} == {path.name for path in INCLUDE.glob("*.c")}
    old = [os.stat(path).st_mtime_ns for path in sources]
    Path(sources[0]).write_text("not the core")
    assert jobserver_ffi.copy_sources(tmp_path / "core") == sources
    assert [os.stat(path).st_mtime_ns for path in sources[1:]] == old[1:]
    assert Path(sources[0]).read_bytes() == (INCLUDE / Path(sources[0]).name).read_bytes()


@pytest.mark.quick
def test_the_table_has_every_function_of_the_header() -> None:
    text = re.sub(r"/\*.*?\*/", "", (INCLUDE / "jobserver.h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"\bjobserver_(\w+)\(", text)) - {"functions"}
    listed = re.findall(r"EACH\((\w+)\)", (INCLUDE / "jobserver_table.h").read_text())
    assert len(listed) == len(set(listed))
    assert set(listed) == declared


def test_the_declarations_for_cython_are_those_of_the_header() -> None:
    if not (ROOT / "setup.py").is_file():
        pytest.skip("needs the sources of the package")
    sys.path.insert(0, str(ROOT))
    try:
        expected = import_module("setup").cython_declarations()
    finally:
        sys.path.remove(str(ROOT))
    assert (Path(jobserver_ffi.__file__).parent / "__init__.pxd").read_text() == expected, "install the package again"


def test_a_handle_is_that_of_an_open_client() -> None:
    with Client(1, style="pipe" if os.name == "posix" else "semaphore") as client:
        assert client.handle != 0
    with pytest.raises(jobserver_ffi.ClientClosed):
        _ = client.handle


# What is compiled.


def need_compiler() -> None:
    if shutil.which("cc") is None:
        missing("cc")
    pytest.importorskip("Cython")


def install(python: Path, project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Builds a project with what is in this environment, and installs it into another; nothing is downloaded."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check", str(project)]
    return subprocess.run(command, env={**os.environ, **environment}, check=False, timeout=GUARD, **captured({}))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment into which both examples were installed; what else there is it has from ours."""
    need_compiler()
    place = tmp_path_factory.mktemp("fresh")
    python = new_environment(place / "venv")
    for name in ("embed_cython", "embed_c"):
        shutil.copytree(EXAMPLES / name, place / name)
        done = install(python, place / name)
        assert done.returncode == 0, done.stdout + done.stderr
    return python


def new_environment(place: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (packages,) = place.rglob("site-packages")
    ours = Path(pytest.__file__).parent.parent
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    return python


def run(python: Path, program: str, **popen_kwargs: object) -> str:
    """Runs a program that must end well. What it prints."""
    done = subprocess.run([str(python), "-c", program], check=False, timeout=GUARD, **captured(dict(popen_kwargs)))
    assert done.returncode == 0, done.stderr
    assert isinstance(done.stdout, str)
    return done.stdout.strip()


THREADS = """
import threading, crew
from jobserver_ffi import Client
counts = []
with Client(2) as client:
    work = lambda: counts.append(crew.count_jobs(client, 200, seconds=1e-5))
    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with client.acquire(), client.acquire():
        print(counts == [200] * 8, crew.count_jobs(client, 2, 0.01), crew.count_jobs(client, 1, 0))
    print(client.available())
"""


@needs_posix
def test_cython_takes_tokens_without_the_gil_in_many_threads(fresh: Path) -> None:
    assert run(fresh, THREADS) == "True 0 0\n2"


WAIT_WITHOUT_THE_GIL = """
import threading, crew
from jobserver_ffi import Client, ClientBusy, ClientClosed
with Client(1) as client:
    with client.acquire():
        waiter = threading.Thread(target=crew.count_jobs, args=(client, 1))
        waiter.start()
        status = f"/proc/self/task/{waiter.native_id}/wchan"
        while not any(word in open(status).read() for word in ("ep_poll", "epoll_wait", "pipe_read")):
            pass
        try:
            client.close()
        except ClientBusy as error:
            print(error)
    waiter.join()
try:
    crew.count_jobs(client, 1)
except ClientClosed:
    print("closed")
"""


@pytest.mark.needs("/proc")
def test_a_client_is_not_closed_under_a_waiter_in_cython(fresh: Path) -> None:
    busy, closed = run(fresh, WAIT_WITHOUT_THE_GIL).splitlines()
    assert "another thread is waiting" in busy
    assert closed == "closed"


INTERRUPTED = """
import crew
from jobserver_ffi import Client
client = Client.from_env()
print("ready", flush=True)
try:
    crew.count_jobs(client, 1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
client.close()
"""


@pytest.mark.needs("/proc", "signals")
def test_control_c_ends_a_wait_in_cython(fresh: Path, whole: Callable[[bytes], TokenPipe]) -> None:
    pipe = whole(b"a")
    with pipe.client().acquire():
        environment = {**os.environ, **pipe.environ}
        kept = (pipe.read_fd, pipe.write_fd)
        with Running([str(fresh), "-c", INTERRUPTED], env=environment, pass_fds=kept) as running:
            assert running.process.stdout is not None
            assert running.process.stdout.readline() == "ready\n"
            wait_until_asleep(running.pid)
            os.kill(running.pid, signal.SIGINT)
            done = running.finish()
    assert (done.returncode, done.stdout) == (0, "interrupted\n")


@needs_posix
def test_cython_in_a_recipe_of_make(fresh: Path, tmp_path: Path) -> None:
    program = "import crew; tell(jobs=crew.count_jobs(client, 50), free=client.available())"
    site = next(fresh.parent.parent.rglob("site-packages"))
    recipe = Recipe(tmp_path, ("+", f"sys.path.insert(0, {str(site)!r})\n{program}"))
    assert recipe.run([*server_command("4.4.1 fifo")[1], "-j3"]) == [{"jobs": 50, "free": 2}]


COMPILED_IN = """
import solo
from jobserver_ffi import Client
for style in ("pipe", "fifo"):
    with Client(1, style=style) as client:
        print(solo.run(client.auth, client.available), client.available())
        try:
            solo.run(client.auth, lambda: 1 / 0)
        except ZeroDivisionError:
            print(client.available())
        try:
            solo.take(client)
        except TypeError as error:
            print("of its own" in str(error))
"""


@needs_posix
def test_the_core_compiled_into_an_extension(fresh: Path) -> None:
    assert run(fresh, COMPILED_IN).split() == ["0", "1", "1", "True"] * 2


PYTHON_FIRST = "import os, solo; from jobserver_ffi import Client; client = Client.from_env(); "
OWN_FIRST = (
    "import os, solo; from jobserver_ffi import Client; owned = solo.inherit({auth!r}); client = Client.from_env(); "
)


@needs_posix
@needs_one_owner
def test_a_process_has_one_implicit_slot_however_many_copies_of_the_core(
    fresh: Path, whole: Callable[[bytes], TokenPipe]
) -> None:
    pipe = whole(b"a")
    under = {"env": {**os.environ, **pipe.environ}, "pass_fds": (pipe.read_fd, pipe.write_fd)}
    told = "print(client.slot().implicit, owned)"
    assert run(fresh, f"{PYTHON_FIRST} owned = solo.inherit({pipe.auth!r}); {told}", **under) == "True False"
    assert run(fresh, OWN_FIRST.format(auth=pipe.auth) + told, **under) == "False True"


@pytest.mark.needs("sh")
def test_a_client_of_another_copy_of_the_core_is_refused(tmp_path: Path) -> None:
    need_compiler()
    library = tmp_path / "core.so"
    command = ["cc", "-std=c11", "-shared", "-fPIC", *jobserver_ffi.copy_sources(tmp_path), "-pthread", "-o"]
    subprocess.run([*command, str(library)], check=True)
    core = ctypes.CDLL(str(library))
    core.jobserver_token_new.restype = ctypes.c_void_p
    with Client(1) as client:
        foreign = ctypes.c_void_p(client.handle)
        assert core.jobserver_client_available(foreign) == FOREIGN
        assert core.jobserver_take_raw(foreign) == FOREIGN
        assert core.jobserver_client_close(foreign) == FOREIGN
        assert core.jobserver_token_new(foreign) is None
        assert client.available() == 1


# What does not fit.

FAKE = "import ctypes, jobserver_ffi; fake = (ctypes.c_int * 2)({version}, {count}); "
FAKE += "jobserver_ffi.FUNCTION_TABLE = ctypes.addressof(fake)\n"
IMPORT = "try:\n import crew\nexcept ImportError as error:\n print(type(error).__name__, error)"


@needs_posix
@pytest.mark.parametrize(
    ("version", "count", "expected"),
    [
        (2, 900, r"for version 1 .* \d+ functions.* has version 2 \(900 functions\): build the extension again"),
        (0, 900, r"for version 1 .* has version 0 \(900 functions\): install a newer jobserver-ffi"),
        (1, 3, r"for version 1 .* has version 1 \(3 functions\): install a newer jobserver-ffi"),
    ],
)
def test_another_version_of_the_table_is_refused(fresh: Path, version: int, count: int, expected: str) -> None:
    said = run(fresh, FAKE.format(version=version, count=count) + IMPORT)
    assert re.search(expected.replace(r"\d+ functions", r"\(\d+ functions"), said), said


@needs_posix
def test_a_newer_table_with_more_functions_is_taken(fresh: Path) -> None:
    """The functions that this extension knows come first."""
    program = (
        "import ctypes, jobserver_ffi as j\nsize = 8 + 8 * ctypes.c_int.from_address(j.FUNCTION_TABLE + 4).value\n"
    )
    program += "more = ctypes.create_string_buffer(ctypes.string_at(j.FUNCTION_TABLE, size), size + 64)\n"
    program += "ctypes.c_int.from_buffer(more, 4).value += 8\nj.FUNCTION_TABLE = ctypes.addressof(more)\n"
    program += "import crew\nwith j.Client(1) as client: print(crew.count_jobs(client, 3))"
    assert run(fresh, program) == "3"


@needs_posix
def test_a_package_without_a_table_is_refused(fresh: Path, tmp_path: Path) -> None:
    """Such a package has all the rest: what else an extension imports from it is there."""
    (tmp_path / "jobserver_ffi").mkdir()
    real = str(Path(jobserver_ffi.__file__).parent)
    (tmp_path / "jobserver_ffi" / "__init__.py").write_text(f"__path__ = [{real!r}]\n")
    said = run(fresh, f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{IMPORT}")
    assert said.startswith("ImportError this extension needs version 1"), said
    assert said.endswith("has none: install a newer jobserver-ffi")


@needs_posix
def test_no_package_at_all(fresh: Path) -> None:
    said = run(fresh, f"import sys; sys.modules['jobserver_ffi'] = None\n{IMPORT}")
    assert said.startswith("ModuleNotFoundError")
    assert "jobserver_ffi" in said


@needs_posix
def test_no_compiler(tmp_path: Path) -> None:
    need_compiler()
    shutil.copytree(EXAMPLES / "embed_c", tmp_path / "embed_c")
    python = new_environment(tmp_path / "venv")
    done = install(python, tmp_path / "embed_c", CC="no-such-compiler")
    assert done.returncode != 0
    assert "no-such-compiler" in done.stdout + done.stderr
    gone = subprocess.run([str(python), "-c", "import solo"], check=False, **captured({}))
    assert "No module named 'solo'" in gone.stderr
