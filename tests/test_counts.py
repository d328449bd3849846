"""What a pair costs in instructions, system calls and allocations, none of which depends on the machine's speed.

The ceilings are a quarter or so above what was counted: they are for noticing what creeps in, see docs/profile.md.
"""

from __future__ import annotations

import shutil

import pytest

from .conftest import missing

counts = pytest.importorskip("benchmarks.counts", reason="the benchmarks are not beside these tests")

pytestmark = pytest.mark.needs("/proc")

C_PAIR, C_RAW = "C: jobserver_token_take, _give", "C: jobserver_take_raw, jobserver_release_raw"
ACQUIRE, RAW = "with client.acquire()", "client.release_raw(client.acquire_raw())"
IMPLICIT = "with client.slot(), the implicit one: no system call"
EVENT_LOOP = "async with await tokens.acquire()"
BARE = "os.write(w, os.read(r, 1))"


def test_an_uncontended_pair_is_one_read_and_one_write() -> None:
    if shutil.which("strace") is None:
        missing("strace")
    found = counts.system_calls("ourselves")
    assert found.pop(IMPLICIT) == 0
    assert found.pop(EVENT_LOOP) <= 3
    assert len(found) >= 10
    assert found == dict.fromkeys(found, 2)


def test_the_core_allocates_nothing_for_a_token() -> None:
    found = counts.allocations("ourselves")
    assert found[BARE] == 1, "the counter counts: os.read makes an object"
    assert found[C_PAIR] == found[C_RAW] == found[RAW] == 0
    assert found[ACQUIRE] <= 5


def test_a_pair_is_few_instructions() -> None:
    if shutil.which("valgrind") is None:
        missing("valgrind")
    found = counts.instructions("ourselves")
    assert found[C_PAIR] <= 340
    assert found[C_RAW] <= 280
    assert found[RAW] <= 2.2 * found[BARE]
    assert found[ACQUIRE] <= 4.3 * found[BARE]
