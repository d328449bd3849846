"""A plugin of pytest: each test holds a slot of the jobserver around pytest while it runs.

`pytest -p jobserver_ffi.pytest`, with or without pytest-xdist; docs/pytest.md tells the rest.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ..client import Client
from ..environment import FromEnvError
from .service import Remote, Service

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

_BYTE: pytest.StashKey[int | None] = pytest.StashKey()
_ADDRESS = "jobserver_ffi_slots"  # in what xdist tells a worker: where the service of slots is


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --jobserver."""
    parser.getgroup("jobserver").addoption(
        "--jobserver",
        metavar="ADDRESS",
        help="the jobserver that pytest was started under: the path of a fifo, or an address as in MAKEFLAGS. "
        "Default: PYTEST_JOBSERVER, else CARGO_MAKEFLAGS, MAKEFLAGS or MFLAGS.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Finds the jobserver; where there is none, tests run without slots."""
    slots = _slots_of_worker(config) if hasattr(config, "workerinput") else _join(config)
    config.pluginmanager.register(Plugin(config, slots), "jobserver-slots")


def _join(config: pytest.Config) -> Client | None:
    """The jobserver around this process.

    Raises:
        pytest.UsageError: One is offered, but unusable.
    """
    address = config.getoption("--jobserver") or os.environ.get("PYTEST_JOBSERVER")
    environ = os.environ
    if address:
        is_path = not address.startswith("fifo:") and os.sep in address
        # A blank would end the address.
        auth = (f"fifo:{address}" if is_path else address).replace("\\", "\\\\").replace(" ", "\\ ")
        environ = {"MAKEFLAGS": f"--jobserver-auth={auth}"}  # type: ignore[assignment]
    found = Client.from_env_ext(environ)
    if found.error is not None and (address or not found.error.kind.silent):
        raise pytest.UsageError(f"jobserver: {found.error}")
    return found.client


def _slots_of_worker(config: pytest.Config) -> Client | Remote | None:
    """What a worker of pytest-xdist runs on: slots of the process that started it, or a jobserver named for it."""
    address = config.workerinput.get(_ADDRESS)  # type: ignore[attr-defined]
    if address is not None:
        return Remote(address)
    path = config.getoption("--jobserver") or os.environ.get("PYTEST_JOBSERVER")
    if not path:
        return None
    try:
        return Client.open(path if path.startswith("fifo:") else f"fifo:{path}")
    except FromEnvError as error:
        raise pytest.UsageError(f"jobserver: {error}") from None


class Plugin:
    """The hooks of one run of pytest.

    Args:
        config: Of the run.
        slots: Where slots come from; None if there is no jobserver.
    """

    def __init__(self, config: pytest.Config, slots: Client | Remote | None) -> None:
        self._config = config
        self._slots = slots
        self._service: Service | None = None

    def pytest_report_header(self) -> str:
        """One line on the jobserver."""
        where = self._slots.auth if isinstance(self._slots, Client) else "none around this process, tests hold no slots"
        return f"jobserver: {where}"

    @contextmanager
    def _slot(self) -> Iterator[int | None]:
        """Holds a slot; its byte, or None for one that has none."""
        if self._slots is None:
            yield None
            return
        with self._slots.slot() as slot:
            yield slot.byte

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Who collects works too; but not the process that only waits for workers."""
        if self._config.pluginmanager.hasplugin("dsession"):
            return (yield)
        with self._slot():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Holds a slot from before the test's set-up until after its tear-down, and outside of its time limit."""
        with self._slot() as byte:
            item.stash[_BYTE] = byte
            return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tells a worker on this machine where to ask for slots, before it starts."""
        if isinstance(self._slots, Client) and node.gateway.spec.popen:
            if self._service is None:
                self._service = Service(self._slots)
            node.workerinput[_ADDRESS] = self._service.address

    def pytest_unconfigure(self) -> None:
        """Gives everything back."""
        if self._service is not None:
            self._service.close()
        if self._slots is not None:
            self._slots.close()

    @pytest.fixture
    def jobserver_token(self, request: pytest.FixtureRequest) -> int | None:
        """The byte of the token that this test holds, 0 to 255; None on the implicit slot or without a jobserver."""
        return request.node.stash.get(_BYTE, None)  # type: ignore[no-any-return]
