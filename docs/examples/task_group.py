"""Compiles many files at once from an asyncio program, with no more compilers than the jobserver has slots."""

import asyncio
import sys

from jobserver_ffi import Client
from jobserver_ffi.aio import AsyncClient


async def run(tokens: AsyncClient, *command: str) -> None:
    """Runs a command on a slot."""
    async with await tokens.slot():
        process = await asyncio.create_subprocess_exec(*command)
        try:
            status = await process.wait()
        except asyncio.CancelledError:  # another one failed
            process.kill()
            await process.wait()
            raise
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: status {status}")


async def main(files: list[str]) -> None:
    """Compiles the files; the first that fails stops the others."""
    client = Client.from_env() or Client(4)
    async with AsyncClient(client) as tokens, asyncio.TaskGroup() as group:
        for name in files:
            group.create_task(run(tokens, sys.executable, "-m", "py_compile", name))
    client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
