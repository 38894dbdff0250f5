"""A network namespace of their own and one tiny guest for all tests with real machines."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs import tiny
from tests.kernel.namespaces import Namespace, privileged

GUEST = tiny.Guest(name="probe", address="10.1.20.31", gateway="10.1.20.1")


ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a test starts find the package and the rigs, wherever pytest was started."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'scripts'}")


@pytest.fixture(scope="session")
def tiny_disk() -> Path:
    """The qcow2 of `GUEST`, built once and kept in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleanroomd"
    return tiny.build([GUEST], cache, lambda _text: None)[GUEST.disk]


@pytest.fixture
def own_network() -> Iterator[Namespace]:
    """The test runs in a fresh network namespace."""
    problem = privileged()
    if problem:
        pytest.fail(f"cannot make network namespaces: {problem}\n  run as root, or: unshare -rnm scripts/test machine")
    namespace = Namespace()
    with namespace.entered():
        yield namespace
    namespace.close()
