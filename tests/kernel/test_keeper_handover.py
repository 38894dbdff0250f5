"""A keeper that dies is replaced while the tables stay owned, proven and closed at every moment."""

import selectors
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.errors import IsolationError
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.keeper.client import copy_of, owning_socket
from cleanroomd.keeper.tables import NETLINK_NETFILTER
from cleanroomd.model.posture import DENY_ALL
from tests.kernel.namespaces import Namespace
from tests.kernel.test_keeper import attempt, keeper, place, started
from tests.kernel.world import World

__all__ = ["place"]


def applied(space: Namespace, where: Path, alarm: Callable[[str], None]) -> IsolationControl:
    control = IsolationControl(where, alarm=lambda text, /, **_fields: alarm(text))
    with space.entered():
        control.apply(DENY_ALL)
    return control


def until_ready(process: subprocess.Popen[str], control: IsolationControl) -> None:
    """Rounds of the loop, until the keeper says that it owns the tables; the test's timeout bounds the wait."""
    assert process.stdout is not None
    with process.stdout as said, selectors.DefaultSelector() as selector:
        selector.register(said, selectors.EVENT_READ)
        while not selector.select(0.05):
            control.check()
        assert said.readline() == "READY\n"


@pytest.mark.timeout(30)
def test_a_keepers_successor_gets_the_socket_from_the_daemon(place: Path, world: World) -> None:
    alarms: list[str] = []
    space = world.enclosure
    with keeper(space, place) as first:
        control = applied(space, place, alarms.append)
        first.send_signal(signal.SIGKILL)
        first.wait()
        proof = control.proof
        assert proof is not None
        control.check()
        assert attempt(space, "nft delete table inet cleanroom") != 0
        with started(space, "-m", "cleanroomd.keeper", "--socket", str(place), "--ready-fd", "1") as second:
            until_ready(second, control)
            control.check()
            assert control.proof is not None
            assert control.proof.posture == proof.posture
            assert [text.split(";")[0] for text in alarms] == [
                "the keeper of the rules is gone",
                "a new keeper holds the rules",
            ]
            assert control.foreign_changes == 0
            # Now the new keeper holds them alone, and the next daemon gets them from it.
            control.close()
            assert attempt(space, "nft flush ruleset") == 0
            assert attempt(space, "nft delete table inet cleanroom") != 0
            with space.entered(), RuleWriter(owning_socket(place)) as writer:
                writer.prove(DENY_ALL)


@pytest.mark.timeout(30)
def test_a_keeper_waits_for_the_last_holder_and_takes_the_tables_when_it_is_gone(place: Path, world: World) -> None:
    space = world.enclosure
    with keeper(space, place) as first:
        control = applied(space, place, lambda _: None)
        first.kill()
        first.wait()
        with started(space, "-m", "cleanroomd.keeper", "--socket", str(place), "--ready-fd", "1") as second:
            control.close()
            assert second.stdout is not None
            assert second.stdout.readline() == "READY\n"
            with space.entered(), RuleWriter(owning_socket(place)) as writer:
                writer.prove(DENY_ALL)


@pytest.mark.timeout(30)
def test_a_socket_that_owns_nothing_is_not_taken(place: Path, world: World) -> None:
    """Somebody of the same user hands over a socket of no worth; the keeper goes on waiting, and then gives up."""
    space = world.enclosure
    with keeper(space, place) as first:
        control = applied(space, place, lambda _: None)
        first.kill()
        first.wait()
        with started(space, "-m", "cleanroomd.keeper", "--socket", str(place)) as second:
            with space.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as worthless:
                worthless.bind((0, 0))
                while True:
                    try:
                        copy_of(place, ours=worthless)
                    except IsolationError as error:
                        if "refused" not in error.message or "Connection" in error.message:
                            continue
                        break
            _, complaint = second.communicate()
            assert second.returncode == 1
            assert "another process owns them" in complaint
        assert control.proof is not None
        control.close()
