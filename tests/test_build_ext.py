"""`jobserver_ffi.build.build_ext`: real compilers on slots, in a fresh virtual environment."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from jobserver_ffi import Client

from .building import SERIAL, Environment, Project, built, commands_in, names
from .command import Running
from .conftest import Tool, long_form
from .overlap import GUARD, JobCounter

pytestmark = pytest.mark.needs("sh", "pipe")


def test_extensions_and_the_sources_of_each_fill_the_slots(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 3, 1, 2)
    with Client(3) as client, JobCounter(6, 3, client.available) as counter:
        variables = project.counted(counter)
        built(project.build_on_token(client, **variables))
        assert client.available() == 3
    counter.check()
    assert [project.value(name) for name in ("one", "two", "three")] == [3, 1, 2]


def test_first_compiler_runs_on_the_implicit_slot(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 2, 2)
    with Client(1) as client, JobCounter(4, 1, client.available) as counter:
        built(project.build_on_token(client, **project.counted(counter)))
    counter.check()


def test_two_builds_under_make_share_its_slots(building: Environment, gnu_make: Tool, tmp_path: Path) -> None:
    one, two = Project(tmp_path / "one", building, 3, 2), Project(tmp_path / "two", building, 2, 3)
    with JobCounter(10, 2, lambda: 0) as counter:
        variables = one.counted(counter)
        rules = [f"{place}:\n\t+cd {place} && {' '.join(one.command())}\n" for place in ("one", "two")]
        (tmp_path / "Makefile").write_text("all: one two\n.PHONY: one two\n" + "".join(rules))
        environment = {**building.variables, **variables}
        with Running([gnu_make.path, "-j2", "-s"], cwd=tmp_path, env=environment) as running:
            done = built(running.finish())
    counter.check()
    assert "jobserver" not in done.stderr  # which make would say if tokens were missing
    assert [one.value("one"), two.value("two")] == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "variables", "most"),
    [
        ([], {"JOBSERVER_FFI_JOBS": "3", "MAX_JOBS": "1"}, 3),
        ([], {"MAX_JOBS": "3"}, 3),
        (["-j3"], {"MAX_JOBS": "1"}, 3),
        pytest.param(["-j2"], {}, 2, marks=long_form),
    ],
)
def test_jobserver_of_its_own(
    building: Environment, tmp_path: Path, arguments: list[str], variables: dict[str, str], most: int
) -> None:
    project = Project(tmp_path, building, 4)
    with JobCounter(4, most, lambda: 0) as counter:
        built(project.build(None, *arguments, **variables, **project.counted(counter)))
    counter.check()


def test_number_of_jobs_is_never_exceeded_in_the_jobserver_of_others(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 4)
    with Client(4) as client, JobCounter(4, 2, client.available) as counter:
        built(project.build_on_token(client, MAX_JOBS="2", **project.counted(counter)))
    assert (counter.jobs, counter.peak, counter.free) == (4, 2, {2})


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ("-2,-2", "make disabled the jobserver for this recipe line: mark it with `+`"),
        ("1000,1001", "descriptor 1000 is closed in this process"),
        ("fifo:/no/such", "'/no/such' cannot be opened"),
    ],
)
def test_one_at_a_time_where_the_jobserver_cannot_be_used(
    building: Environment, tmp_path: Path, auth: str, reason: str
) -> None:
    project = Project(tmp_path, building, 3)
    flags = {"MAKEFLAGS": f" -j8 --jobserver-auth={auth}"}
    with JobCounter(3, 1, lambda: 0) as counter:
        done = built(project.build(None, **flags, **project.counted(counter)))
    counter.check()
    assert "building 1 at a time, without the jobserver around this" in done.stdout + done.stderr
    assert reason in done.stdout + done.stderr


def test_wrong_number_of_jobs(building: Environment, tmp_path: Path) -> None:
    done = Project(tmp_path, building, 1).build(MAX_JOBS="many")
    assert done.returncode == 1
    assert "error: MAX_JOBS='many' is no number of jobs: give a whole number from 1 to" in done.stderr


def test_builds_what_the_serial_command_builds(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 4, 3)
    ours = built(project.build(MAX_JOBS="3"))
    files = project.files("build/**/*.[os]*")
    project.setup(SERIAL)
    serial = built(project.build(None, "--force"))
    assert len(files) == 9
    assert files == project.files("build/**/*.[os]*")
    assert Counter(ours.stdout.splitlines()) == Counter(serial.stdout.splitlines())
    assert Counter(ours.stderr.splitlines()) == Counter(serial.stderr.splitlines())


def test_builds_only_what_has_changed(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 2, 2)
    assert len(commands_in(built(project.build()).stdout)) == 6
    assert commands_in(built(project.build()).stdout) == []
    changed = project.directory / "unit_two_1.c"
    changed.write_text("int unit_two_1(void) { return 5; }\n")
    os.utime(changed, (time.time() + 5, time.time() + 5))
    assert sorted(names(commands_in(built(project.build()).stdout))) == ["unit_two_0.c", "unit_two_1.c"]
    assert (project.value("one"), project.value("two")) == (2, 6)


def test_extensions_that_share_a_source_compile_it_for_themselves(building: Environment, tmp_path: Path) -> None:
    """They share the object file too, so one is linked before the other is compiled."""
    project = Project(tmp_path, building)
    project.write("shared.c", "int shared(void) { return VALUE; }\n")
    for name in Project.NAMES:
        text = f'#define PY_SSIZE_T_CLEAN\n#include "module.h"\nMODULE({name})\n'
        project.write(f"{name}.c", text)
    project.write(
        "module.h",
        "#include <Python.h>\nint shared(void);\n"
        "#define MODULE(name) static struct PyModuleDef d = {PyModuleDef_HEAD_INIT, #name}; \\\n"
        "PyMODINIT_FUNC PyInit_##name(void) { PyObject *m = PyModule_Create(&d); \\\n"
        'PyModule_AddIntConstant(m, "value", shared()); return m; }\n',
    )
    extensions = [
        f"Extension({name!r}, ['{name}.c', 'shared.c'], define_macros=[('VALUE', '{place}')])"
        for place, name in enumerate(Project.NAMES)
    ]
    project.setup(("from jobserver_ffi.build import build_ext", 'cmdclass={"build_ext": build_ext}'), *extensions)
    built(project.build(MAX_JOBS="4"))
    assert [project.value(name) for name in Project.NAMES] == [0, 1, 2, 3]


# A compiler that leaves its number and that of a child, and does not end by itself, but for the sources that are named.
SLEEPS = """\
case "$*" in
*{fails}*) {how} ;;
esac
sleep 1000 &
echo $$ $! >> pids
wait
"""


def pids(project: Project) -> list[int]:
    """The processes of the compilers that sleep."""
    return [int(word) for word in (project.directory / "pids").read_text().split()]


def wait_for_compilers(project: Project, count: int) -> None:
    """Returns when so many compilers sleep."""
    file = project.directory / "pids"
    end = time.monotonic() + GUARD
    while not file.exists() or len(file.read_text().split()) < 2 * count:
        assert time.monotonic() < end, "the compilers did not start"
        time.sleep(0.01)


def check_gone(project: Project) -> None:
    """Fails if a compiler, or what it started, is still there. Those that were killed may still be reaped by init."""
    left = [psutil.Process(pid) for pid in pids(project) if psutil.pid_exists(pid)]
    psutil.wait_procs(left, timeout=GUARD)
    assert [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cc $*; exit $?", "failed with exit code 1"),
        ("kill -9 $$", "failed with exit code -9"),
        pytest.param("echo out of order >&2; exit 33", "failed with exit code 33", marks=long_form),
    ],
)
def test_first_error_stops_the_rest(building: Environment, tmp_path: Path, how: str, message: str) -> None:
    """Of an extension in the middle, while compilers of others run that would never end."""
    project = Project(tmp_path, building, 1, 3, 3)
    project.write("unit_two_1.c", "int unit_two_1(void) { return nothing; }\n")
    wait = "while [ $(cat pids 2>/dev/null | wc -l) -lt 2 ]; do sleep 0.01; done; "
    with Client(3) as client:
        done = project.build_on_token(client, **project.compiler(SLEEPS.format(fails="unit_two_1.c", how=wait + how)))
        assert client.available() == 3
    assert done.returncode == 1
    check_gone(project)
    assert len(pids(project)) == 4
    # The error is the last thing, and what the serial command says.
    project.setup(SERIAL, project.extensions[1].replace("unit_two_0.c", "unit_two_1.c"))
    (tmp_path / "pids").write_text("1\n2\n")
    serial = project.build(None, **project.compiler(SLEEPS.format(fails="unit_two_1.c", how=how)))
    assert done.stderr == serial.stderr
    assert message in done.stderr or "non-zero exit status" in done.stderr or "died with" in done.stderr
    assert "Traceback" not in done.stderr


def test_extension_that_may_fail(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 2, 2, 2)
    project.write("unit_two_1.c", "int unit_two_1(void) { return nothing; }\n")
    first, second, third = project.extensions
    project.setup(
        ("from jobserver_ffi.build import build_ext", 'cmdclass={"build_ext": build_ext}'),
        first,
        second.replace("])", "], optional=True)"),
        third,
    )
    with Client(3) as client:
        done = built(project.build_on_token(client))
    assert 'building extension "two" failed' in done.stdout + done.stderr
    assert (project.value("one"), project.value("three")) == (2, 2)


def test_interrupt_ends_the_compilers(building: Environment, tmp_path: Path) -> None:
    """Sent to the command alone: a terminal would send it to the group, of which the compilers are not."""
    project = Project(tmp_path, building, 3, 3)
    with Client(3) as client, client.acquire():
        variables = project.compiler(SLEEPS.format(fails="nothing", how=""))
        with Running(project.command(), **project.options(client, variables)) as running:
            wait_for_compilers(project, 3)
            assert client.available() == 0
            os.kill(running.pid, signal.SIGINT)
            done = running.finish()
        assert client.available() == 2
    assert (done.returncode, done.stderr) == (1, "interrupted\n")
    check_gone(project)


def test_compiler_that_ignores_the_end_is_killed(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 2)
    with Client(2) as client, client.acquire():
        text = "trap '' TERM\n" + SLEEPS.format(fails="nothing", how="")
        with Running(project.command(), **project.options(client, project.compiler(text))) as running:
            wait_for_compilers(project, 2)
            os.kill(running.pid, signal.SIGINT)
            assert running.finish().returncode == 1
        assert client.available() == 1
    check_gone(project)


def test_output_is_never_interleaved(building: Environment, tmp_path: Path) -> None:
    """Compilers that print the one half before all of them run, and the other half after."""
    project = Project(tmp_path, building, 4)
    with Client(4) as client, JobCounter(4, 4, client.available) as counter:
        shown = 'echo "begin $*" | tr " " "\\n" | grep "unit_.*[.]c"'
        text = f"""
case "$*" in
*" -c "*)
    {shown}; {shown} >&2
    {counter.command} true
    {shown}; {shown} >&2 ;;
esac
exec cc "$@"
"""
        done = built(project.build_on_token(client, **project.compiler(text)))
    counter.check()
    for stream in (done.stdout, done.stderr):
        found = [line for line in stream.splitlines() if line.startswith("unit_")]
        assert len(found) == 8
        assert found[::2] == found[1::2]


def test_missing_compiler(building: Environment, tmp_path: Path) -> None:
    project = Project(tmp_path, building, 2, 2)
    with Client(3) as client:
        done = project.build_on_token(client, CC="/no/such/cc")
        assert client.available() == 3
    project.setup(SERIAL)
    serial = project.build(CC="/no/such/cc")
    assert (done.returncode, done.stderr) == (serial.returncode, serial.stderr)
    assert "/no/such/cc" in done.stderr


def test_full_disk(building: Environment, tmp_path: Path) -> None:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    project = Project(tmp_path, building, 1, 3)
    project.write("unit_two_1.c", "int unit_two_1(void) { return 1; }\nconst char big[1 << 20] = {1};\n")
    small = tmp_path / "small"
    small.mkdir()
    assert os.system(f"mount -t tmpfs -o size=256k none {small}") == 0
    try:
        with Client(3) as client:
            done = project.build_on_token(client, f"--build-temp={small}/temp")
            assert client.available() == 3
    finally:
        os.system(f"umount {small}")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_code_but_a_line_of_pyproject(building: Environment, tmp_path: Path) -> None:
    """`[tool.setuptools.cmdclass]`, as pip builds it."""
    project = Project(tmp_path, building, 2, 2)
    project.setup(SERIAL)
    project.write(
        "pyproject.toml",
        '[build-system]\nrequires = ["setuptools", "jobserver-ffi"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "project"\nversion = "1"\n'
        '[tool.setuptools.cmdclass]\nbuild_ext = "jobserver_ffi.build.build_ext"\n',
    )
    with Client(3) as client, JobCounter(4, 3, client.available) as counter:
        variables = project.counted(counter)
        options = client.configure(cwd=tmp_path, env={**building.variables, **variables})
        program = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
        with client.acquire(), Running([building.python, "-I", "-c", program], **options) as running:
            built(running.finish())
        assert client.available() == 3
    counter.check()
    assert list(tmp_path.glob("dist/*.whl"))
