"""One small enclosure under a real systemd, for the tests that only look, and a fresh one for those that disturb it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rigs.nspawn import base, container
from rigs.nspawn.container import Container
from rigs.place import default_cache
from tests.appliance.enclosure import FILES


@pytest.fixture(scope="session", autouse=True)
def _privileges() -> None:
    problem = container.problem()
    if problem:
        pytest.fail(
            f"cannot boot systemd in a container: {problem}\n  run as root, with /dev/net/tun: scripts/test appliance"
        )


@pytest.fixture(scope="session")
def system(_privileges: None) -> Iterator[Path]:
    """The root that containers boot from, built once and kept in the cache."""
    with base.base(default_cache(), lambda _text: None) as root:
        yield root


@contextmanager
def _booted(system: Path) -> Iterator[Container]:
    with tempfile.TemporaryFile() as log:
        try:
            with container.booted(system, files=FILES, log=log) as made:
                yield made
        finally:
            log.seek(0)
            print(log.read().decode(errors="replace"))


@pytest.fixture(scope="session")
def shared(system: Path) -> Iterator[Container]:
    """An enclosure that has booted; what a test does to it, the next one finds."""
    with _booted(system) as made:
        yield made


@pytest.fixture
def fresh(system: Path) -> Iterator[Container]:
    """An enclosure of the test's own that has just booted."""
    with _booted(system) as made:
        yield made
        print(made.run("journalctl", "--no-pager", "--output=short-precise", "--lines=100").stdout)
