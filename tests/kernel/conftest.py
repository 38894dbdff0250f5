"""What every kernel test needs: the right to make namespaces, and one small enclosure in them."""

from collections.abc import Iterator

import pytest

from cleanroomd.isolation.netlink import RuleWriter
from tests.kernel import world as worlds
from tests.kernel.namespaces import privileged
from tests.kernel.world import World


@pytest.fixture(scope="session", autouse=True)
def _privileges() -> None:
    problem = privileged()
    if problem:
        hint = "run as root, or: unshare -rnm scripts/test kernel (and /dev/net/tun needs mode 0666)"
        pytest.fail(f"cannot make network namespaces and taps: {problem}\n  {hint}")


@pytest.fixture
def world() -> Iterator[World]:
    with worlds.built() as built:
        yield built


@pytest.fixture
def writer(world: World) -> Iterator[RuleWriter]:
    """The rules of the whole posture in force."""
    with world.writer() as writer:
        world.allow(writer, *worlds.POSTURE.allowances)
        yield writer
