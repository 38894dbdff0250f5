"""The keeper holds the rules: through the death of daemons, foreign hands, and its own restart."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroomd.errors import IsolationError
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.isolation.ruleset import Family
from cleanroomd.keeper.client import owning_socket
from cleanroomd.keeper.tables import NETLINK_NETFILTER
from cleanroomd.model.posture import DENY_ALL
from tests.kernel import packets
from tests.kernel.namespaces import Namespace
from tests.kernel.world import (
    CARE,
    CARE_MAC,
    IMAGING,
    POSTURE,
    WORKSTATION,
    WORKSTATION_MAC,
    World,
    attach,
    built,
    opened,
)

DAEMON = """
import sys
from pathlib import Path
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.keeper.client import owning_socket
from tests.kernel.world import POSTURE
writer = RuleWriter(owning_socket(Path(sys.argv[1])))
writer.apply(compile_posture(POSTURE))
writer.prove(POSTURE)
print("proven", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keeper"


@contextmanager
def started(
    space: Namespace, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a namespace, killed at the end if it still runs."""
    root = str(Path(__file__).parents[2])
    with space.entered():
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root, **(environment or {})},
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def keeper(space: Namespace, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A keeper that has said that it is ready."""
    with started(space, "-m", "cleanroomd.keeper", "--socket", str(place), "--ready-fd", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        yield process


@contextmanager
def daemon(space: Namespace, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a copy of the socket that has put the whole posture in force."""
    with started(space, "-c", DAEMON, str(place)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "proven\n"
        yield process


def copied(space: Namespace, place: Path) -> RuleWriter:
    with space.entered():
        return RuleWriter(owning_socket(place))


def attempt(space: Namespace, command: str) -> int:
    with space.entered():
        return subprocess.run(command.split(), capture_output=True, check=False).returncode


def test_everything_is_denied_before_anything_else_is_known(place: Path) -> None:
    """Links, addresses and routes as in full operation, and only the keeper's rules."""
    with built(up=False) as world, keeper(world.enclosure, place), copied(world.enclosure, place) as writer:
        attach(world)
        with (
            world.imaging.receiver(IMAGING, 9) as machine,
            world.enclosure.receiver("0.0.0.0", 67) as enclosure,
            world.workstation.frames("eth0") as workstation,
        ):
            for frame in to_both(b"early"):
                workstation.send(frame)
            with world.enclosure.open_socket(kind=socket.SOCK_DGRAM) as own, pytest.raises(PermissionError):
                own.sendto(b"early", (IMAGING, 9))

            writer.apply(opened(compile_posture(POSTURE)))
            for frame in to_both(b"late"):
                workstation.send(frame)
            assert machine.recv(8) == b"late"
            assert enclosure.recv(8) == b"late"


def to_both(word: bytes) -> Iterator[bytes]:
    """Frames of the workstation to a machine and to the enclosure; as frames, since ARP could keep them waiting."""
    for target, port in ((IMAGING, 9), (CARE, 67)):
        packet = packets.ipv4(WORKSTATION, target, socket.IPPROTO_UDP, packets.udp(port, port, word))
        yield packets.ethernet(CARE_MAC, WORKSTATION_MAC, packets.IPV4, packet)


def test_the_keepers_tables_are_the_compilers_without_their_rules(place: Path) -> None:
    with built(up=False) as world, keeper(world.enclosure, place), copied(world.enclosure, place) as writer:
        found, _ = writer.read_back()
        denying = compile_posture(DENY_ALL)
        for family in Family:
            ours, theirs = found.table(family, "cleanroom"), denying.table(family, "cleanroom")
            assert ours is not None
            assert theirs is not None
            assert {(c.name, c.hook) for c in ours.chains} == {(c.name, c.hook) for c in theirs.chains if c.hook}


def test_a_killed_daemon_opens_nothing_and_a_new_one_takes_over(place: Path, world: World) -> None:
    with keeper(world.enclosure, place), daemon(world.enclosure, place) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert attempt(world.enclosure, "nft flush ruleset") == 0
        for command in (
            "delete table inet cleanroom",
            "flush chain inet cleanroom forward",
            "add chain inet cleanroom x",
        ):
            assert attempt(world.enclosure, f"nft {command}") != 0, command
        with copied(world.enclosure, place) as writer:
            generation = writer.generation()
            writer.prove(POSTURE)
            writer.apply(compile_posture(POSTURE))
            assert writer.generation() == generation
            world.allow(writer)


def test_without_the_keeper_a_flush_after_the_daemons_death_takes_the_rules(place: Path, world: World) -> None:
    """What the keeper is for: the attack works when nobody holds the socket."""
    with keeper(world.enclosure, place) as process:
        with daemon(world.enclosure, place):
            process.kill()
            process.wait()
        assert attempt(world.enclosure, "nft flush ruleset") == 0
        assert world_rules(world) == ""


def world_rules(world: World) -> str:
    with world.enclosure.entered():
        return world.enclosure.run("nft", "list", "ruleset")


def test_a_restarted_keeper_changes_nothing(place: Path, world: World) -> None:
    with keeper(world.enclosure, place) as first, copied(world.enclosure, place) as writer:
        world.allow(writer, *POSTURE.allowances)
        before, _ = writer.read_back()
        first.kill()
        first.wait()
    assert place.is_socket()
    with keeper(world.enclosure, place), copied(world.enclosure, place) as writer:
        assert writer.read_back()[0] == before
        writer.prove(POSTURE)


def test_it_leaves_on_sigterm_and_the_tables_stay(place: Path, world: World) -> None:
    with keeper(world.enclosure, place) as process:
        process.terminate()
        assert process.wait() == 0
    assert not place.exists()
    assert world_rules(world).count("policy drop") == 3


def test_a_second_keeper_refuses(place: Path, world: World) -> None:
    with (
        keeper(world.enclosure, place),
        started(world.enclosure, "-m", "cleanroomd.keeper", "--socket", str(place)) as other,
    ):
        _, complaint = other.communicate()
        assert other.returncode == 1
        assert complaint.startswith("cannot keep the rule tables: another keeper serves")
        assert place.is_socket()


def test_a_second_keeper_elsewhere_cannot_take_the_tables(place: Path, world: World) -> None:
    elsewhere = place.with_name("elsewhere")
    with (
        keeper(world.enclosure, place),
        started(world.enclosure, "-m", "cleanroomd.keeper", "--socket", str(elsewhere)) as other,
    ):
        _, complaint = other.communicate()
        assert other.returncode == 1
        assert complaint.startswith("cannot own the rule tables: Operation not permitted")


def test_it_replaces_tables_that_were_never_owned(place: Path, world: World) -> None:
    with world.enclosure.entered():
        world.enclosure.run(
            "nft", "add table inet cleanroom; add chain inet cleanroom forward { type filter hook forward priority 5; }"
        )
    with keeper(world.enclosure, place), copied(world.enclosure, place) as writer:
        world.allow(writer, *POSTURE.allowances)


def test_its_socket_is_private(place: Path, world: World) -> None:
    with keeper(world.enclosure, place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_the_service_manager_is_given_the_socket_and_told_when_it_is_owned(place: Path, world: World) -> None:
    manager = place.with_name("notify")
    arguments = ("-m", "cleanroomd.keeper", "--socket", str(place))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(manager))
        notified.settimeout(5)
        with started(world.enclosure, *arguments, environment={"NOTIFY_SOCKET": str(manager)}):
            words, descriptors, _, _ = socket.recv_fds(notified, 256, 1)
            assert b"FDSTORE=1" in words.splitlines()
            with socket.socket(fileno=descriptors[0]) as held:
                assert (held.family, held.proto) == (socket.AF_NETLINK, NETLINK_NETFILTER)
            assert b"READY=1" in notified.recv(256).splitlines()


def test_without_a_keeper_there_is_no_socket(place: Path) -> None:
    with pytest.raises(IsolationError, match="No such file") as caught:
        owning_socket(place)
    assert "cleanroomd.keeper" in caught.value.hint
