"""The keeper takes a link down at its deadline, with all its addresses, whoever is dead."""

import json
import time
from pathlib import Path

import pytest

from cleanroomd.keeper.client import deadline_at
from cleanroomd.keeper.darkness import darken
from cleanroomd.model.observed import Deadline
from tests.kernel.namespaces import Namespace
from tests.kernel.test_keeper import keeper, place
from tests.kernel.test_leases import boottime
from tests.kernel.world import World, eventually

__all__ = ["place"]


def lit(space: Namespace) -> None:
    for command in ("addr add 192.168.40.50/24 dev up0", "addr add 192.168.41.50/24 dev up0", "link set up0 up"):
        space.ip(command)


def dark(space: Namespace) -> bool:
    with space.entered():
        (found,) = json.loads(space.run("ip", "-json", "address", "show", "up0"))
    return "UP" not in found["flags"] and not found["addr_info"]


def test_a_link_goes_dark_at_its_deadline_and_no_other(world: World, place: Path) -> None:
    lit(world.enclosure)
    with keeper(world.enclosure, place):
        until = round(boottime() + 1.0, 3)
        assert deadline_at(place, hold=Deadline("up0", until)) == Deadline("up0", until)
        assert not dark(world.enclosure)
        eventually(lambda: dark(world.enclosure), "the deadline")
        assert boottime() >= until
        with world.enclosure.entered():
            (care,) = json.loads(world.enclosure.run("ip", "-json", "address", "show", "care"))
        assert care["addr_info"]
        assert deadline_at(place) is None


@pytest.mark.parametrize("downtime", [0.0, 1.5], ids=["early", "late"])
def test_the_next_keeper_keeps_the_deadline_of_one_that_was_killed(world: World, place: Path, downtime: float) -> None:
    lit(world.enclosure)
    until = round(boottime() + 1.0, 3)
    with keeper(world.enclosure, place) as first:
        deadline_at(place, hold=Deadline("up0", until))
        first.kill()
        first.wait()
    time.sleep(downtime)
    assert not dark(world.enclosure)
    with keeper(world.enclosure, place):
        eventually(lambda: dark(world.enclosure), "the deadline")


def test_an_interface_that_is_gone_or_dark_needs_nothing(world: World) -> None:
    with world.enclosure.entered():
        darken("nowhere")
        darken("up0")
    assert dark(world.enclosure)
