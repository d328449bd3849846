"""`jobserver doctor` where there is no jobserver: each state made with real makes, the answer compared word by word."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from jobserver_ffi import Client

from .command import JOBSERVER, Running, run
from .conftest import Tool, missing
from .doctored import (
    BECOME_ANOTHER,
    DOCTOR,
    GOLDEN,
    Seen,
    alone,
    doctor_after,
    in_recipe,
    need_root,
    need_sudo,
    python_script,
    shell,
)
from .overlap import server_command

pytestmark = pytest.mark.needs("/proc")


# There is a jobserver.


def test_a_pipe(make43: Tool, tmp_path: Path) -> None:
    seen = in_recipe(make43, "-j3", shell(DOCTOR), tmp_path)
    assert (seen.status, seen.found["free"]) == (0, 2)
    seen.check("pipe")


def test_a_fifo(make441: Tool, tmp_path: Path) -> None:
    in_recipe(make441, "-j4", shell(DOCTOR), tmp_path).check("fifo")


def test_a_fifo_needs_no_plus(make441: Tool, tmp_path: Path) -> None:
    assert in_recipe(make441, "-j4", shell(DOCTOR), tmp_path, prefix="").status == 0


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_jobserver_run(style: str, tmp_path: Path) -> None:
    """A lease has other processes and other pipes than a make, but nothing is wrong with it."""
    run("-j3", "--style", style, "--", "sh", "-c", shell(DOCTOR), cwd=tmp_path)
    seen = Seen(tmp_path)
    assert (seen.status, seen.names, seen.found["style"]) == (0, [], style)


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_a_client_of_ours(style: str, tmp_path: Path) -> None:
    with Client(3, style=style) as client, client.acquire():
        client.run(["sh", "-c", shell(DOCTOR)], cwd=tmp_path, check=True)
    seen = Seen(tmp_path)
    assert (seen.status, seen.names, seen.found["free"]) == (0, [], 2)


def test_a_build_script_of_cargo(make43: Tool, cargo: Tool, tmp_path: Path) -> None:
    """cargo joins make's jobserver and hands it on by a variable of its own."""
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "crate"\nversion = "0.0.0"\n[workspace]\n')
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "lib.rs").touch()
    (tmp_path / "inner").write_text(shell(DOCTOR) + "\n")
    build = f'std::process::Command::new("sh").current_dir("{tmp_path}").arg("inner").status().unwrap();'
    (tmp_path / "build.rs").write_text(f"fn main() {{ {build} }}\n")
    line = f"CARGO_TARGET_DIR=target {cargo.path} build --offline --quiet"
    seen = in_recipe(make43, "-j4", line, tmp_path)
    assert (seen.status, seen.names) == (0, [])
    assert (seen.found["variable"], seen.found["auth"]) == ("CARGO_MAKEFLAGS", "3,4")


def test_a_make_that_starts_itself_anew_is_not_dead(gnu_make: Tool, tmp_path: Path) -> None:
    """It has its makefile remade: the process stays, and its environment is what the first one had left."""
    (tmp_path / "script").write_text(shell(DOCTOR) + "\n")
    (tmp_path / "Makefile").write_text("include part.mk\nall:\n\t+@sh script; true\npart.mk:\n\t@touch $@\n")
    subprocess.run([gnu_make.path, "-j3", "all"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "part.mk").exists()
    seen = Seen(tmp_path)
    assert (seen.status, seen.names) == (0, [])


def test_the_text_as_it_is_printed(tmp_path: Path) -> None:
    """The one comparison in which line ends count."""
    alone(tmp_path, {"MAKEFLAGS": " -j3 --jobserver-auth=gmake_semaphore_1234"})
    assert (tmp_path / "text").read_text() == (Path(__file__).parent / "doctor" / "printed.txt").read_text()


# There is none.


def test_nothing_is_set(tmp_path: Path) -> None:
    alone(tmp_path, {}).check("not-under-a-jobserver")
    alone(tmp_path, {"container": "podman"})
    assert "`docker run -e MAKEFLAGS`" in (tmp_path / "text").read_text().replace("\n            ", " ")


def test_jobs_set_by_hand(tmp_path: Path) -> None:
    alone(tmp_path, {"MAKEFLAGS": "-j8"}).check("jobs-by-hand")


def test_a_make_without_jobs(gnu_make: Tool, tmp_path: Path) -> None:
    in_recipe(gnu_make, "", shell(DOCTOR), tmp_path).check("make-without-jobs")


def test_a_make_with_one_job(make43: Tool, tmp_path: Path) -> None:
    seen = in_recipe(make43, "-j1", shell(DOCTOR), tmp_path)
    assert seen.names == ["make-without-jobs"] and "it was started with -j1" in seen.text


def test_a_make_without_a_limit(gnu_make: Tool, tmp_path: Path) -> None:
    in_recipe(gnu_make, "-j", shell(DOCTOR), tmp_path).check("make-without-limit")


def test_a_sub_make_that_left_the_jobserver_and_has_none(make43: Tool, tmp_path: Path) -> None:
    (tmp_path / "part.mk").write_text(f"all:\n\t+@{shell(DOCTOR)}; true\n".replace("$?", "$$?"))
    in_recipe(make43, "-j3", f"{make43.path} -f part.mk -j1", tmp_path).check("own-jobs-none")


@pytest.mark.parametrize("server", ["4.3 pipe", "4.4.1 pipe"])
def test_a_recipe_without_a_plus(server: str, tmp_path: Path) -> None:
    """make 4.3 closes the descriptors, make 4.4 says `-2,-2`."""
    make, command = server_command(server)
    arguments = " ".join([*command[1:], "-j3"])
    in_recipe(make, arguments, shell(DOCTOR), tmp_path, prefix="").check(f"missing-plus-{make.version[1]}")


def test_python_between_make_and_this(make43: Tool, tmp_path: Path) -> None:
    program = f"import subprocess\nsubprocess.run(['sh', '-c', {shell(DOCTOR)!r}])"
    in_recipe(make43, "-j3", python_script(tmp_path, program), tmp_path).check("closed-by-python")


def test_sudo_that_lets_makeflags_through(make43: Tool, tmp_path: Path) -> None:
    sudo = f"{need_sudo()} -n --preserve-env=MAKEFLAGS "
    in_recipe(make43, "-j3", shell(DOCTOR, sudo), tmp_path).check("closed-by-sudo")


def test_sudo(make43: Tool, tmp_path: Path) -> None:
    in_recipe(make43, "-j3", shell(DOCTOR, f"{need_sudo()} -n "), tmp_path).check("environment-cleared-by-sudo")


def test_a_whole_build_under_sudo(make43: Tool, tmp_path: Path) -> None:
    """It has sudo's variable and sudo above it, but sudo has closed nothing."""
    inner = shlex.quote(f"exec 3<&- 4>&-; {shell(DOCTOR)}")
    makefile = f"all:\n\t+@sh -c {shlex.quote(f'sh -c {inner}; true')}; true\n".replace("$", "$$")
    with Running([need_sudo(), "-n", make43.path, "-f", "-", "-j3"], cwd=tmp_path, stdin=subprocess.PIPE) as running:
        running.finish(makefile)
    assert Seen(tmp_path).names == ["descriptors-closed"]


def test_sudo_without_a_build(tmp_path: Path) -> None:
    seen = alone(tmp_path, {}, [need_sudo(), "-n", *DOCTOR])
    assert seen.names == ["not-under-a-jobserver"]


def test_a_cleared_environment(make43: Tool, tmp_path: Path) -> None:
    in_recipe(make43, "-j3", shell(DOCTOR, "env -i "), tmp_path).check("environment-cleared")


def test_a_cleared_environment_below_another_program(tmp_path: Path) -> None:
    """No make is above; the program that had the address is found by its environment."""
    with Client(2) as client, client.acquire():
        inner = shlex.quote(shell(DOCTOR))
        client.run(["sh", "-c", f"env -u MAKEFLAGS -u CARGO_MAKEFLAGS sh -c {inner}; true"], cwd=tmp_path, check=True)
    seen = Seen(tmp_path)
    assert seen.names == ["environment-cleared"] and "(process N) hands MAKEFLAGS" in seen.text


def test_a_program_that_closes_them(make43: Tool, tmp_path: Path) -> None:
    inner = shlex.quote(f"exec 3<&- 4>&-; {shell(DOCTOR)}")
    in_recipe(make43, "-j3", f"sh -c {inner}; true", tmp_path).check("descriptors-closed")


BLIND = doctor_after("import jobserver_ffi.processes as seen; seen._PROC = '/no/proc'")


def test_sudo_where_processes_cannot_be_seen(make43: Tool, tmp_path: Path) -> None:
    seen = in_recipe(make43, "-j3", shell(BLIND, f"{need_sudo()} -n "), tmp_path)
    assert seen.names == ["environment-cleared"] and "sudo gives its command a new environment" in seen.text


def test_closed_descriptors_where_processes_cannot_be_seen(make43: Tool, tmp_path: Path) -> None:
    """As on macOS."""
    in_recipe(make43, "-j3", shell(BLIND), tmp_path, prefix="").check("descriptors-closed-unseen")


def test_another_file(make43: Tool, tmp_path: Path) -> None:
    in_recipe(make43, "-j3", f"exec 3<Makefile; {shell(DOCTOR)}", tmp_path).check("another-file")


def test_the_wrong_direction(make43: Tool, tmp_path: Path) -> None:
    seen = in_recipe(make43, "-j3", f"exec 3<&- 3>&1; {shell(DOCTOR)}", tmp_path)
    assert (seen.names, seen.status) == (["another-file"], 1)


def test_the_null_device(make43: Tool, tmp_path: Path) -> None:
    seen = in_recipe(make43, "-j3", f"exec 3</dev/null 4>/dev/null; {shell(DOCTOR)}", tmp_path)
    assert (seen.names, seen.status) == (["another-file"], 1) and "leads to /dev/null" in seen.text


def test_another_pipe(make43: Tool, tmp_path: Path) -> None:
    """Nothing in the environment tells: both numbers are a pipe's, as they should be."""
    program = """\
import os, sys
os.closerange(3, 5)
assert os.pipe() == (3, 4)
os.set_inheritable(3, True)
os.set_inheritable(4, True)
os.execvp(sys.argv[1], sys.argv[1:])
"""
    other = python_script(tmp_path, program) + " "
    in_recipe(make43, "-j3", shell(DOCTOR, other), tmp_path).check("another-pipe")


def leaked(make: Tool, directory: Path) -> str:
    """MAKEFLAGS of a make that has ended, as a shell or an editor keeps them that was started in a recipe."""
    (directory / "leak.mk").write_text('all:\n\t+@echo "$$MAKEFLAGS"\n')
    return subprocess.run(
        [make.path, "-f", "leak.mk", "-j3"],
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.rstrip("\n")


def test_a_fifo_whose_maker_has_ended(make441: Tool, tmp_path: Path) -> None:
    alone(tmp_path, {"MAKEFLAGS": leaked(make441, tmp_path)}).check("maker-gone")


def test_a_file_in_place_of_the_fifo(make441: Tool, tmp_path: Path) -> None:
    value = leaked(make441, tmp_path)
    Path(value.partition("fifo:")[2]).touch()
    alone(tmp_path, {"MAKEFLAGS": value}).check("not-a-fifo")


def test_a_container(make441: Tool, tmp_path: Path) -> None:
    """A mount name space in which the fifo's directory is another one."""
    need_root()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        missing("the right to unshare mounts")
    (tmp_path / "fifos").mkdir()
    hidden = f"mount -t tmpfs none {shlex.quote(str(tmp_path / 'fifos'))}; {shell(DOCTOR)}"
    line = f"unshare --mount sh -c {shlex.quote(hidden)}"
    seen = in_recipe(make441, "-j3", line, tmp_path, environ={"TMPDIR": str(tmp_path / "fifos")})
    seen.check("path-not-here")


def test_a_container_that_says_so(make441: Tool, tmp_path: Path) -> None:
    """A root directory without /proc; the variable is what podman and systemd set."""
    need_root()
    (tmp_path / "root").mkdir()
    inside = doctor_after(f"os.chroot({str(tmp_path / 'root')!r}); os.chdir('/'); os.environ['container'] = 'podman'")
    seen = in_recipe(make441, "-j3", shell(inside), tmp_path)
    assert seen.names == ["maker-gone"] and "is inside" in seen.text
    assert "(which it is)" in (tmp_path / "text").read_text().replace("\n            ", " ")


def test_a_fifo_of_another_user(make441: Tool, tmp_path: Path) -> None:
    need_root()
    for place in [tmp_path, *tmp_path.parents][:3]:
        place.chmod(0o755)
    in_recipe(make441, "-j3", shell(doctor_after(BECOME_ANOTHER)), tmp_path).check("no-permission")


@pytest.mark.parametrize(
    ("auth", "golden"),
    [("3", "unreadable"), ("gmake_semaphore_1234", "windows-name"), ("socket:/tmp/x", "unknown-style")],
)
def test_an_address_that_is_none_here(auth: str, golden: str, tmp_path: Path) -> None:
    alone(tmp_path, {"MAKEFLAGS": f" -j3 --jobserver-auth={auth}"}).check(golden)


@pytest.mark.parametrize(
    ("value", "golden"), [("-j4", "overridden"), ("-j4 --jobserver-auth=-2,-2", "overridden-by-unusable")]
)
def test_a_variable_that_hides_makeflags(value: str, golden: str, make43: Tool, tmp_path: Path) -> None:
    in_recipe(make43, "-j3", shell(DOCTOR), tmp_path, environ={"CARGO_MAKEFLAGS": value}).check(golden)


def test_the_manual_has_every_finding() -> None:
    text = (Path(__file__).parents[1] / "docs" / "doctor.md").read_text()
    found = [finding for path in GOLDEN.glob("*.json") for finding in json.loads(path.read_text())["findings"]]
    for finding in found:
        assert f"| `{finding['name']}` | {'problem' if finding['fatal'] else 'note'}" in text


def test_a_reader_that_has_gone_is_no_failure(make43: Tool, tmp_path: Path) -> None:
    line = f"{{ {shlex.join(DOCTOR)} 2> errors; echo $? > status; }} | :"
    (tmp_path / "Makefile").write_text(f"all:\n\t+@{line}\n".replace("$?", "$$?"))
    subprocess.run([make43.path, "-j3"], cwd=tmp_path, check=True)
    assert ((tmp_path / "errors").read_text(), (tmp_path / "status").read_text()) == ("", "0\n")


def test_wrong_arguments() -> None:
    done = subprocess.run([*JOBSERVER, "doctor", "--nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "unrecognized arguments: --nonsense" in done.stderr
