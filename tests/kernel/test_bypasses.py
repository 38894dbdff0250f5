"""Ways around the rules that the kernel says are closed while they are not, and that are nobody's to close."""

import asyncio
import ctypes
import os
import platform
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETFLOWTABLE

from cleanroomd.engine import guarding, isolating
from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.isolation import mending, surroundings
from cleanroomd.isolation.bypasses import PolicyRule, RemoveRule
from cleanroomd.isolation.encode import attribute
from cleanroomd.isolation.processes import Process
from tests.kernel.guarding import Guarded, guarded
from tests.kernel.test_guard import lingering
from tests.kernel.test_keeper import keeper
from tests.kernel.world import CARE, DATABASE, DATABASE_MAC, POSTURE, World, eventually

pytestmark = pytest.mark.timeout(60)

XDP_TYPE, REDIRECT, SKB_MODE, DRV_MODE = 6, 23, 2, 4
"""BPF_PROG_TYPE_XDP, BPF_FUNC_redirect, XDP_FLAGS_*"""
BPF_CALL = {"x86_64": 321, "aarch64": 280}
PROG_LOAD = 5
FORBIDDEN = 9999


@pytest_asyncio.fixture
async def guard(world: World, tmp_path: Path) -> AsyncIterator[Guarded]:
    with keeper(world.enclosure, tmp_path / "keeper"):
        async with guarded(world.enclosure, tmp_path / "keeper") as made:
            yield made


@contextmanager
def redirecting_to(interface: str) -> Iterator[int]:
    """A loaded XDP program that sends every packet out of another device: `return bpf_redirect(ifindex, 0)`."""

    def instruction(operation: int, register: int, value: int) -> bytes:
        return struct.pack("=BBhi", operation, register, 0, value)

    index = socket.if_nametoindex(interface)
    code = instruction(0xB7, 1, index) + instruction(0xB7, 2, 0) + instruction(0x85, 0, REDIRECT)
    code += instruction(0x95, 0, 0)
    body, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    asked = struct.pack("=IIQQ", XDP_TYPE, len(code) // 8, ctypes.addressof(body), ctypes.addressof(licence))
    buffer = ctypes.create_string_buffer(asked.ljust(120, b"\0"), 120)
    loaded = ctypes.CDLL(None, use_errno=True).syscall(BPF_CALL[platform.machine()], PROG_LOAD, buffer, 120)
    assert loaded >= 0, os.strerror(ctypes.get_errno())
    try:
        yield loaded
    finally:
        os.close(loaded)


def attach(interface: str, program: int, mode: int) -> None:
    where = attribute(1, struct.pack("=i", program)) + attribute(3, struct.pack("=I", mode))
    mending._change_link(interface, attribute(43, where))


class Datagrams:
    """From the workstation to a port of the database that nobody allowed."""

    def __init__(self, world: World) -> None:
        with world.database.entered():
            self.received = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.received.bind((DATABASE, FORBIDDEN))
            self.received.setblocking(False)
        with world.workstation.entered():
            self.sent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def arrived(self) -> int:
        for _ in range(10):
            self.sent.sendto(b"x", (DATABASE, FORBIDDEN))
            await asyncio.sleep(0.01)
        count = 0
        while True:
            try:
                self.received.recv(10)
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def forbidden(world: World) -> Iterator[Datagrams]:
    made = Datagrams(world)
    with made.received, made.sent:
        yield made


def programs(interface: str) -> tuple[str, ...]:
    return next(link.programs for link in surroundings.read(POSTURE).links if link.name == interface)


@pytest.mark.parametrize("mode", [SKB_MODE, DRV_MODE], ids=["generic", "native"])
async def test_a_program_that_redirects_is_gone_in_either_mode(
    world: World, guard: Guarded, forbidden: Datagrams, mode: int
) -> None:
    world.workstation.ip(f"neigh replace {CARE} lladdr {DATABASE_MAC} dev eth0 nud permanent")
    with redirecting_to("cr-db") as program:
        attach("care", program, mode)
    assert programs("care") == ("xdp",)
    await guard.alarm("a BPF program handles the packets of care (xdp)")
    assert programs("care") == ()
    assert await forbidden.arrived() == 0
    assert guard.control.holds()


async def test_what_stands_after_its_undoing_is_a_breach_and_no_storm(
    guard: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the kernel said yes and did nothing but announce it."""
    attempts = []
    undo = mending.undo

    def announce(act: object) -> None:
        attempts.append(act)
        mending._change_link("care", attribute(20, b"announced\0"))

    monkeypatch.setattr(mending, "undo", announce)
    with redirecting_to("cr-db") as program:
        attach("care", program, SKB_MODE)
    alarm = await guard.alarm("a BPF program handles the packets of care (xdp)", undone=False)
    assert "there again after it was undone" in alarm.remedy
    assert not guard.control.holds()
    assert "a BPF program" in guard.control.guard.breach
    looked = guard.rounds + 10
    await guard.eventually(lambda: guard.has_looked(looked))
    assert len(attempts) == 1
    assert [alarm.times for alarm in guard.alarms] == [1]
    monkeypatch.setattr(mending, "undo", undo)
    monkeypatch.setattr(guarding, "_TRY_AGAIN", 0.0)
    guard.control.guard._look_at = 0.0
    await guard.proven()
    assert [(alarm.times, alarm.undone) for alarm in guard.alarms] == [(1, True)]


AROUND_OURS = (
    "table netdev mine { flags owner; chain i { type filter hook ingress device care priority -500; "
    f"ip daddr {DATABASE} udp dport {FORBIDDEN} ether daddr set {DATABASE_MAC} meta mark set 0x636c6e72 "
    "fwd to cr-db; }; }"
)
LEADING = (
    AROUND_OURS,
    "table netdev mine { flags owner; chain e { type filter hook egress device cr-db priority 500; }; }",
    "table inet mine { flags owner; chain i { type filter hook ingress device care priority -500; }; }",
)


@pytest.mark.parametrize("table", LEADING, ids=["ingress", "egress", "inet ingress"])
async def test_a_table_at_a_device_that_cannot_be_removed_is_a_breach(
    guard: Guarded, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lingering("nft", "-i") as owned:
        assert owned.stdin is not None
        owned.stdin.write(f"{table}\n")
        owned.stdin.flush()
        await guard.alarm("stay in the kernel", process="nft", undone=False)
        await guard.eventually(lambda: "can lead packets around ours" in guard.control.guard.breach)
        assert not guard.control.holds()
        # It is no news to whoever looks again without a cause.
        monkeypatch.setattr(isolating, "_PROVE_AGAIN", 0.0)
        looked = guard.rounds + 3
        await guard.eventually(lambda: guard.has_looked(looked))
        assert len(guard.alarms) == 1
        owned.stdin.close()
        owned.wait()
    await guard.attempt("nft", "add table inet other")
    await guard.proven()
    assert guard.control.guard.breach == ""


def test_a_flowtable_leads_around_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told in the kernel's words: not every kernel has flowtables."""

    def dump(_asked: object, kind: int, _body: bytes) -> Iterator[bytes]:
        if kind == NFT_MSG_GETFLOWTABLE | NFNL_SUBSYS_NFTABLES << 8:
            yield struct.pack("=BBH", 1, 0, 0) + attribute(1, b"mine\0") + attribute(2, b"f\0")

    monkeypatch.setattr(surroundings, "_dump", dump)
    assert surroundings.leading_tables() == {"inet mine"}


async def test_a_table_that_only_filters_is_no_breach(guard: Guarded) -> None:
    with lingering("nft", "-i") as owned:
        assert owned.stdin is not None
        owned.stdin.write(
            "table inet mine { flags owner; chain f { type filter hook forward priority 0; }; "
            "chain g { type filter hook prerouting priority 0; }; }\n"
        )
        owned.stdin.flush()
        await guard.alarm("stay in the kernel (inet mine)", undone=False)
        assert guard.control.guard.breach == ""
        await guard.proven()
        owned.stdin.close()


async def test_a_table_that_was_there_before_is_a_breach_from_the_beginning(world: World, tmp_path: Path) -> None:
    with world.enclosure.entered(), lingering("nft", "-i") as owned, keeper(world.enclosure, tmp_path / "keeper"):
        assert owned.stdin is not None
        owned.stdin.write(f"{AROUND_OURS}\n")
        owned.stdin.flush()
        eventually(lambda: "netdev mine" in surroundings.leading_tables(), "the table")
        control = IsolationControl(tmp_path / "keeper", alarm=lambda _text, /, **_fields: None)
        control.apply(POSTURE)
        assert "netdev mine" in control.guard.breach
        assert not control.holds()
        control.close()
        owned.stdin.close()


ROUTES = (
    f"ip route add {DATABASE}/32 dev care metric 5 tos 0x10",
    "ip nexthop add id 7 dev care; ip route add 10.67.0.0/24 nhid 7",
)


@pytest.mark.parametrize("commands", ROUTES, ids=["tos", "nexthop object"])
async def test_a_route_of_an_odd_form_is_removed(guard: Guarded, commands: str) -> None:
    for command in commands.split("; "):
        assert await guard.attempt(*command.split()) == 0
    alarm = await guard.alarm("a route was added")
    assert alarm.times == 1
    assert not [finding for finding in guard.control.guard._found() if "a route" in finding.what]


RULES = (
    ("ip rule add pref 100 blackhole",),
    ("ip rule add pref 101 goto 32766",),
    ("ip rule add pref 102 fwmark 5 lookup 99", "ip rule add pref 102 fwmark 6 lookup 99"),
    ("ip rule add pref 0 blackhole fwmark 5",),
)


@pytest.mark.parametrize("commands", RULES, ids=["refusing", "jumping", "two alike", "beside the first"])
def test_policy_rules_are_removed_and_none_of_the_ordinary(world: World, commands: tuple[str, ...]) -> None:
    with world.enclosure.entered():
        before = surroundings.read(POSTURE).rules
        for command in commands:
            world.enclosure.run(*command.split())
        (added,) = surroundings.read(POSTURE).rules - before
        assert isinstance(added, PolicyRule)
        mending.undo(RemoveRule(added))
        assert surroundings.read(POSTURE).rules == before


def test_who_moves_things_is_remembered_for_a_few_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "behind_port", lambda port: Process(port, "ip"))
    guard = guarding.Guard(lambda _text, /, **_fields: None)
    guard._look_up_movers(range(1, 10_000))
    assert len(guard._movers) == guarding._LOOKED_UP
