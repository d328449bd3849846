"""The package as a user would write it: checked by the type checkers, never run."""

from __future__ import annotations

import subprocess

from jobserver_ffi import (
    Acquired,
    AcquiredBatch,
    AcquireTimeout,
    Client,
    FromEnv,
    FromEnvError,
    FromEnvErrorKind,
    JobserverError,
)


def join() -> Client:
    try:
        client: Client | None = Client.from_env()
    except FromEnvError as error:
        kind: FromEnvErrorKind = error.kind
        print(kind.name, error.variable, error.value)
        client = None
    found: FromEnv = Client.from_env_ext({"MAKEFLAGS": "-j"}, check_pipe=True)
    return client or found.client or Client(4, style="fifo", path="/tmp/fifo")


def work(client: Client) -> int:
    with client.slot() as slot:
        implicit: bool = slot.implicit
    token: Acquired | None = client.try_acquire()
    if token is not None:
        byte: int = token.drop_without_releasing()
        client.release_raw(byte)
    try:
        with client.acquire(timeout=1.5) as held:
            held.release()
    except (AcquireTimeout, TimeoutError):
        pass
    batch: AcquiredBatch
    with client.acquire_many(8, minimum=2, timeout=None) as batch:
        count: int = len(batch)
    try:
        client.release_raw(client.acquire_raw(0.5))
    except JobserverError as error:
        print(error)
    return count + int(implicit) + client.available() + (client.limit or 0)


def start(client: Client) -> int:
    child: subprocess.Popen[bytes] = client.popen(["make"], cwd="/tmp")
    done = client.run(["make"], check=True, capture_output=True)
    with subprocess.Popen(["make"], **client.configure(variables=["MAKEFLAGS"], env={})) as other:
        status = other.wait()
    print(client.auth)
    client.close()
    return child.wait() + done.returncode + status
