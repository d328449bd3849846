"""The loop of a build tool: it starts a job when a slot comes, and reaps one when it exits, with one wait for both."""

import subprocess
import sys

from jobserver_ffi import Acquired, Client


def build(commands: list[list[str]]) -> bool:
    """Runs the commands, as many at once as there are slots; after the first failure it starts no more."""
    running: dict[subprocess.Popen[bytes], Acquired] = {}
    waiting, good = list(reversed(commands)), True
    with Client.from_env() or Client(4) as client:
        while running or (waiting and good):
            wants_slot = bool(waiting) and good
            slot, exited = client.slot_or_ready(running) if wants_slot else (None, [next(iter(running))])
            if slot is not None:
                running[client.popen(waiting.pop())] = slot
            for child in exited:
                good = child.wait() == 0 and good
                running.pop(child).release()
    return good


if __name__ == "__main__":
    jobs = [[sys.executable, "-m", "py_compile", name] for name in sys.argv[1:]]
    sys.exit(0 if build(jobs) else 1)
