"""Foreign hands on the rules and on the network around them, under traffic: nothing passes, nothing allowed is lost."""

import asyncio
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from cleanroomd.engine.guarding import TAMPERED
from cleanroomd.isolation import links
from cleanroomd.isolation.monitor import Heard
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.keeper.tables import NETLINK_NETFILTER, own_tables
from tests.kernel.guarding import Guarded, guarded
from tests.kernel.test_keeper import DAEMON, daemon, keeper, started
from tests.kernel.traffic import Count, to_database, to_imaging
from tests.kernel.world import POSTURE, World, eventually, opened

pytestmark = pytest.mark.timeout(60)

FIREWALLD = """
flush ruleset
table inet firewalld {
    chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established,related accept; }
    chain filter_INPUT { type filter hook input priority 10; policy accept; }
    chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; }
}
"""
IPTABLES = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n"
ON_OURS = (
    "delete table inet cleanroom",
    "delete table netdev cleanroom",
    "flush table inet cleanroom",
    "flush chain inet cleanroom forward",
    "insert rule inet cleanroom forward accept",
    "add rule inet cleanroom forward accept",
    "add chain inet cleanroom forward { policy accept; }",
    "flush map inet cleanroom forward",
    "add table inet cleanroom { flags dormant; }",
)


ADDS_A_TABLE = """
import socket, sys
sys.path.insert(0, sys.argv[1])
from cleanroomd.isolation import encode
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.ruleset import Family, Table
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as owning:
    owning.bind((0, 0))
    writer = RuleWriter(owning)
    writer._channel.commit([encode.new_table(Table(Family.INET, "odd"), 0)], writer.generation())
    sys.stdin.read()
"""


@contextmanager
def lingering(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A foreign process that lives until its input ends."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keeper"


@pytest_asyncio.fixture
async def guard(world: World, place: Path) -> AsyncIterator[Guarded]:
    with keeper(world.enclosure, place):
        async with guarded(world.enclosure, place) as made:
            yield made


def unharmed(*counts: Count) -> None:
    for count in counts:
        assert count.forbidden == 0
        assert count.lost == 0, f"{count.lost} of {count.sent}"
        assert count.tried > 20
        assert count.echoed == count.streamed


async def test_a_hundred_flushes_do_nothing(world: World, guard: Guarded) -> None:
    with to_imaging(world) as first, to_database(world) as second:
        for _ in range(100):
            assert await guard.attempt("nft", "flush", "ruleset") == 0
        unharmed(first.stop(), second.stop())
    assert guard.control.holds()


async def test_our_tables_cannot_be_edited(world: World, guard: Guarded) -> None:
    with to_imaging(world) as first, to_database(world) as second:
        for command in ON_OURS:
            assert await guard.attempt("nft", command) != 0, command
        unharmed(first.stop(), second.stop())
    assert guard.control.holds()
    assert guard.alarms == ()


async def test_firewalls_that_reload_are_undone_and_named(world: World, guard: Guarded) -> None:
    with to_imaging(world) as first, to_database(world) as second:
        for _ in range(10):
            assert await guard.attempt("nft", "-f", "-", standard_input=FIREWALLD) == 0
            assert await guard.attempt("iptables-nft-restore", standard_input=IPTABLES) == 0
        by_nft = await guard.alarm("rules of somebody else", process="nft")
        by_iptables = await guard.alarm("rules of somebody else", process="iptables-nft-re")
        await guard.proven()
        unharmed(first.stop(), second.stop())
    assert "nft (pid" in by_nft.who
    assert "iptables-nft-re (pid" in by_iptables.who
    assert guard.control._writer is not None
    assert guard.control._writer.foreign_tables() == frozenset()
    assert guard.control.foreign_changes >= 20
    assert len([text for text, _ in guard.told if "somebody else" in text]) < 10, "a storm is told once"
    told = next(fields for text, fields in guard.told if "iptables" in text)
    assert told["process"] == "iptables-nft-re"
    assert isinstance(told["pid"], int)


async def test_a_foreign_table_that_drops_is_removed_and_care_goes_on(world: World, guard: Guarded) -> None:
    """What it drops before it is gone is lost: nothing forbidden passes, and the loss ends by itself."""
    drop = "add table inet evil; add chain inet evil f { type filter hook forward priority -300; policy drop; }"
    with to_imaging(world) as traffic:
        assert await guard.attempt("nft", drop) == 0
        await guard.alarm("inet evil", process="nft")
        await asyncio.to_thread(traffic.flows)
        assert traffic.stop().forbidden == 0


async def test_a_process_that_lives_is_known_by_its_command_and_user(guard: Guarded) -> None:
    root = str(Path(__file__).parents[2])
    with lingering(sys.executable, "-c", ADDS_A_TABLE, root) as process:
        alarm = await guard.alarm("inet odd")
        assert alarm.process.startswith("python")
        assert f"pid {process.pid}, uid {os.getuid()}" in alarm.who
        assert sys.executable in alarm.who


async def test_a_table_that_another_process_owns_stands_and_says_whose_it_is(world: World, guard: Guarded) -> None:
    with lingering("nft", "-i") as owned:
        assert owned.stdin is not None
        owned.stdin.write("add table inet mine { flags owner; }\n")
        owned.stdin.flush()
        alarm = await guard.alarm("stay in the kernel (inet mine)", process="nft", undone=False)
        assert "another process owns it" in alarm.remedy
        assert f"pid {owned.pid}" in alarm.who
        owned.stdin.close()
        owned.wait()
        await guard.attempt("nft", "add table inet other")
        await guard.alarm("stay in the kernel (inet mine)", undone=True)
        assert guard.control.holds()


async def test_changes_that_nobody_announced_are_an_alarm_all_the_same(guard: Guarded) -> None:
    """Lost events: the kernel counts generations."""
    watch = guard.control.guard._rules
    assert watch is not None
    guard.control.guard._rules = Deaf()  # type: ignore[assignment]
    for _ in range(3):
        await guard.attempt("nft", "add table inet quiet")
    await guard.alarm("inet quiet")
    guard.control.guard._rules = watch
    (alarm,) = guard.alarms
    assert alarm.who == "an unknown process"


class Deaf:
    def take(self) -> object:
        return Heard((), lost=True)

    def read(self, _own: int) -> bool:
        return False


@pytest.mark.parametrize("flush", ["flush ruleset", "delete table inet cleanroom"])
def test_a_killed_daemon_and_a_flush_before_it_is_back(world: World, place: Path, flush: str) -> None:
    with (
        keeper(world.enclosure, place),
        daemon(world.enclosure, place) as process,
        to_imaging(world) as first,
        to_database(world) as second,
    ):
        process.send_signal(signal.SIGKILL)
        process.wait()
        for _ in range(5):
            with world.enclosure.entered():
                subprocess.run(["nft", flush], capture_output=True, check=False)
        with daemon(world.enclosure, place):
            first.flows()
            second.flows()
            unharmed(first.stop(), second.stop())


def test_a_restarted_daemon_and_a_restarted_keeper(world: World, place: Path) -> None:
    with keeper(world.enclosure, place) as old, started(world.enclosure, "-c", DAEMON, str(place)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "proven\n"
        with to_imaging(world) as first, to_database(world) as second:
            process.terminate()
            process.wait()
            with daemon(world.enclosure, place):
                old.kill()
                old.wait()
                with world.enclosure.entered():
                    assert subprocess.run(["nft", "flush", "ruleset"], check=False).returncode == 0
                first.flows()
                second.flows()
                unharmed(first.stop(), second.stop())


async def test_a_new_keeper_is_no_foreign_change(world: World, place: Path) -> None:
    with keeper(world.enclosure, place) as old:
        async with guarded(world.enclosure, place) as guard:
            with to_imaging(world) as traffic:
                old.kill()
                old.wait()
                new = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "cleanroomd.keeper", "--socket", str(place), "--ready-fd", "1"),
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                )
                assert new.stdout is not None
                assert await new.stdout.readline() == b"READY\n"
                await asyncio.to_thread(traffic.flows)
                unharmed(traffic.stop())
            assert guard.alarms == ()
            assert guard.control.foreign_changes == 0
            new.kill()
            await new.wait()


async def test_a_deleted_tap_comes_back_guarded_and_only_its_machine_was_cut_off(world: World, guard: Guarded) -> None:
    """The cable's end on the host stands for QEMU's queue, which belongs to nothing once the tap is gone."""
    with to_imaging(world) as first, to_database(world) as second:
        await asyncio.to_thread(second.stop)
        before = len(first.count.received)
        assert await guard.attempt("ip", "link", "del", "cr-db") == 0
        alarm = await guard.alarm("network cable of database (cr-db) was removed")
        assert alarm.undone
        await guard.proven()
        await asyncio.to_thread(first.flows)
        unharmed(first.stop())
        assert len(first.count.received) > before
    links.rejoin_tap(world.cables["cr-db"].host, "cr-db", 10)
    with to_database(world) as again:
        for _ in range(5):
            await asyncio.to_thread(again.flows)
        unharmed(again.stop())


AROUND = (
    ("ip link add br7 type bridge; ip link set cr-img master br7", "cr-img was made a port of br7"),
    ("ip link add br7 type bridge; ip link set care master br7", "care was made a port of br7"),
    ("tc qdisc add dev cr-img clsact", "traffic control was set up on cr-img"),
    ("tc qdisc add dev care root tbf rate 1gbit burst 100k latency 1s", "traffic control was set up on care"),
    ("ip rule add pref 5 lookup 77", "a policy routing rule was added (IPv4, preference 5, table 77)"),
    ("ip -6 rule add pref 5 lookup 77", "a policy routing rule was added (IPv6, preference 5, table 77)"),
    ("ip route add 10.9.0.0/16 dev care", "a route was added: 10.9.0.0/16 out of care"),
    ("ip route add default via 10.77.0.100", "a route was added: 0.0.0.0/0 via 10.77.0.100 out of care"),
    ("ip route del 10.1.20.15", "the route to database (10.1.20.15) was removed"),
    ("ip address add 10.1.20.77/32 dev care", "the address 10.1.20.77/32 was given to care"),
    ("sysctl -qw net.ipv4.conf.care.rp_filter=0", "net.ipv4.conf.care.rp_filter was set to 0"),
    ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward was set to 0"),
    ("sysctl -qw net.ipv4.conf.cr-db.forwarding=0", "net.ipv4.conf.cr-db.forwarding was set to 0"),
    ("sysctl -qw net.ipv6.conf.care.disable_ipv6=0", "net.ipv6.conf.care.disable_ipv6 was set to 0"),
    ("ip link set up0 up", "port uplink (up0) was switched on"),
)


@pytest.mark.parametrize(("commands", "what"), AROUND, ids=[what for _, what in AROUND])
async def test_what_is_changed_around_the_rules_is_put_right(guard: Guarded, commands: str, what: str) -> None:
    for command in commands.split("; "):
        assert await guard.attempt(*command.split()) == 0, command
    await guard.alarm(what)
    assert guard.control.guard.breach == ""
    eventually(lambda: not facts_against(guard), "the undoing")


def facts_against(guard: Guarded) -> tuple[object, ...]:
    return tuple(finding for finding in guard.control.guard._found() if finding.undo is not None)


@pytest.mark.parametrize("key", ["accept_source_route", "proxy_arp", "arp_ignore", "accept_redirects"])
async def test_a_sysctl_that_has_no_event_is_found_by_the_slow_look(guard: Guarded, key: str) -> None:
    value = "0" if key == "arp_ignore" else "1"
    assert await guard.attempt("sysctl", "-qw", f"net.ipv4.conf.care.{key}={value}") == 0
    guard.control.guard._look_at = 0.0
    await guard.alarm(f"net.ipv4.conf.care.{key} was set to")


async def test_what_is_not_ours_is_told_and_left(world: World, guard: Guarded) -> None:
    assert await guard.attempt("ip", "link", "add", "link", "care", "name", "mv0", "type", "macvlan") == 0
    assert await guard.attempt("ip", "link", "add", "v7", "type", "veth", "peer", "name", "v8") == 0
    assert await guard.attempt("ip", "link", "set", "v7", "up") == 0
    await guard.alarm("a device was stacked on care: mv0 (macvlan)", undone=False)
    await guard.alarm("a network interface that nobody planned is up: v7 (veth)", undone=False)
    assert guard.control.guard.breach == ""
    assert guard.control.holds()
    assert await guard.attempt("ip", "link", "del", "mv0") == 0
    await guard.alarm("a device was stacked on care: mv0 (macvlan)", undone=True)


async def test_the_old_packet_filter_is_told(guard: Guarded) -> None:
    assert await guard.attempt("iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT") == 0
    guard.control.guard._look_at = 0.0
    alarm = await guard.alarm("the old packet filter is in use beside the rules: ip filter", undone=False)
    assert "iptables-legacy" in alarm.remedy


async def test_our_own_changes_are_no_alarm(guard: Guarded) -> None:
    for _ in range(3):
        guard.control.apply(POSTURE)
        links.set_port("care", up=True, addresses=("10.77.0.1/24",))
        enough = guard.rounds + 3
        await guard.eventually(functools.partial(guard.has_looked, enough))
    assert guard.alarms == ()
    assert guard.told == []


def test_the_capture_sees_what_the_rules_stop(world: World) -> None:
    with world.writer() as writer:
        writer.apply(opened(compile_posture(POSTURE)))
        with to_imaging(world) as traffic:
            eventually(lambda: traffic.count.forbidden > 0, "forbidden traffic through opened rules")


def test_without_an_owner_a_flush_lets_forbidden_traffic_through(world: World) -> None:
    with world.enclosure.entered():
        writer = RuleWriter(own_tables())
        world.allow(writer, *POSTURE.allowances)
        with to_imaging(world) as traffic:
            writer.close()
            assert traffic.count.forbidden == 0
            world.enclosure.run("nft", "flush", "ruleset")
            eventually(lambda: traffic.count.forbidden > 0, "forbidden traffic without rules")


async def test_rules_that_were_tampered_with_are_written_again(world: World, place: Path) -> None:
    """While nobody owns the tables: the daemon's copy is taken away by force, and its keeper is dead."""
    with keeper(world.enclosure, place) as holder:
        async with guarded(world.enclosure, place) as guard:
            copy = guard.control._copy
            writer = guard.control._writer
            assert copy is not None
            assert writer is not None
            holder.kill()
            holder.wait()
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as other:
                other.bind((0, 0))
                os.dup2(other.fileno(), copy.owning.fileno())
                os.dup2(other.fileno(), writer._channel._socket.fileno())
            assert await guard.attempt("nft", "add rule inet cleanroom forward accept") == 0
            alarm = await guard.alarm(TAMPERED, process="nft", undone=True)
            assert "nft (pid" in alarm.who
            await guard.proven()
