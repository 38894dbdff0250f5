"""The measurements of `rigs.bench.isolation`, each in a network namespace of its own.

python -m rigs.bench.isolation_inside DESCRIPTOR ROOT
"""

import itertools
import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from cleanroomd.isolation import encode, links
from cleanroomd.isolation.netlink import OWNER, PERSIST, RuleWriter
from cleanroomd.isolation.policy import TABLE, compile_posture, tap_mac
from cleanroomd.isolation.ruleset import Family, Table
from cleanroomd.isolation.twin import netfilter, netfilter_socket, scratch_namespace
from cleanroomd.isolation.verify import verify
from cleanroomd.keeper.tables import own_tables
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import DENY_ALL, Allowance, PortGuard, Posture, TapGuard
from rigs.bench.alarm import time_to_alarm
from rigs.bench.figures import interleave
from rigs.bench.isolation import LARGE, SIZES, SMALL

RUNS = 7
VERIFY_RUNS = 3
PACKET_RUNS = 15
PACKETS = 20_000
"""In one measurement of a packet's cost."""
ALARMS = 8
"""In a row; the daemon tells twenty within ten seconds at most."""

MACHINES = 20
CARE_MAC, STATION_MAC = "02:00:00:00:77:01", "02:00:00:00:77:02"
STATION = "10.77.0.100"
NETWORK = IPv4Network("10.77.0.0/24")
ORIGIN = "tap-m0"
PORTS = (
    PortGuard("care", "care", CARE_MAC, dark=False, addresses=(IPv4Interface("10.77.0.1/24"),)),
    PortGuard("uplink", "up0", "02:00:00:00:40:01"),
)
TAPS = tuple(
    TapGuard(
        service=f"m{number}",
        interface=f"tap-m{number}",
        mac=f"52:54:00:00:00:{number + 1:02x}",
        address=IPv4Address("10.1.20.10") + number,
        gateway=IPv4Address("10.1.20.1"),
    )
    for number in range(MACHINES)
)


def posture(flows: int) -> Posture:
    """So many flows: from the workstations to each machine and back, and from each machine to the next."""
    found = set()
    for number in range(flows):
        tap, other = TAPS[number % MACHINES], TAPS[(number + 1) % MACHINES]
        port = 1000 + number // (3 * MACHINES) * 3
        own, next_one = IPv4Network(tap.address), IPv4Network(other.address)
        ways = (
            ("care", NETWORK, tap.interface, own),
            (tap.interface, own, "care", NETWORK),
            (tap.interface, own, other.interface, next_one),
        )
        origin, source, target, destination = ways[number // MACHINES % 3]
        found.add(Allowance(origin, source, target, destination, Protocol.UDP, port))
    if len(found) != flows:
        raise RuntimeError("two flows are the same")
    return Posture(PORTS, TAPS, frozenset(found))


@contextmanager
def enclosure() -> Iterator[None]:
    """A namespace with the ports and taps of the postures, up and addressed."""
    with scratch_namespace():
        _run("ip link set lo up")
        for port in PORTS:
            _run(f"ip link add {port.interface} address {port.mac} type veth peer name peer-{port.role}")
            _run(f"ip link set peer-{port.role} up")
        for tap in TAPS:
            links.make_tap(tap.interface)
        links.enable_forwarding()
        for tap in TAPS:
            links.attach_tap(tap)
        links.set_port("care", up=True, addresses=("10.77.0.1/24",))
        _run(f"ip neigh replace {STATION} lladdr {STATION_MAC} dev care nud permanent")
        yield


@contextmanager
def owner() -> Iterator[RuleWriter]:
    """A writer that owns the tables, which are gone afterwards."""
    with RuleWriter(own_tables()) as writer:
        writer.apply(compile_posture(DENY_ALL))
        yield writer
    with netfilter() as channel:
        tables = [Table(family, TABLE) for family in Family]
        claims = [encode.new_table(table, OWNER | PERSIST) for table in tables]
        channel.commit([*claims, *map(encode.delete_table, tables)], _generation())


def _generation() -> int:
    with RuleWriter(netfilter_socket()) as reader:
        return reader.generation()


def applying(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """From a posture to rules in force, in one process that runs, against nft(8) with the same policy as text."""
    with enclosure():
        texts = {}
        with owner() as writer:
            for size in SIZES:
                writer.apply(compile_posture(posture(size)))
                path = folder / f"policy-{size}.nft"
                path.write_text(as_text(_run("nft -s list ruleset")), encoding="utf-8")
                texts[size] = path
        work: dict[str, Callable[[], float]] = {}
        with owner() as writer:
            for size, path in texts.items():
                wanted = posture(size)
                work[f"apply_{size}"] = partial(_apply, writer, wanted)
                work[f"nft_{size}"] = partial(_nft, path)
            yield from interleave(work, runs=RUNS).items()


def _apply(writer: RuleWriter, wanted: Posture) -> float:
    began = time.perf_counter()
    writer.apply(compile_posture(wanted))
    seconds = time.perf_counter() - began
    writer.apply(compile_posture(DENY_ALL))
    return seconds


def _nft(path: Path) -> float:
    began = time.perf_counter()
    _run(f"nft -f {path}")
    seconds = time.perf_counter() - began
    _run("nft delete table inet byhand")
    _run("nft delete table netdev byhand")
    return seconds


def as_text(listing: str) -> str:
    """What nft(8) lists of the rules, as a policy that it can read: two spellings of its own it cannot."""
    text = re.sub(r"\n\tflags owner\S*|(?<=\{) # progname \S+", "", listing)
    # What a dynamic set has noted is no policy.
    text = re.sub(r"(\tflags dynamic,timeout\n\t\tcounter\n\t\ttimeout \w+\n)\t\telements = \{[^}]*\}\n", r"\1", text)
    text = text.replace("@nh,96,32", "ip saddr").replace("@nh,128,32", "ip daddr")
    text = re.sub(r"^((?:table \w+) )cleanroom", r"\1byhand", text, flags=re.MULTILINE)
    # A port of conntrack's original direction cannot be part of a key there: the packet's own, which is the same.
    text = text.replace("ct original ip saddr", "ip daddr").replace("ct original ip daddr", "ip saddr")
    text = text.replace("ct protocol", "meta l4proto").replace("ct original proto-dst", "th sport")
    netdev = text.index("table netdev")
    raw = text[netdev:].replace("ip saddr", "@nh,96,32").replace("ip daddr", "@nh,128,32")
    return text[:netdev] + raw


def packets() -> Iterator[tuple[str, list[float]]]:
    """Microseconds from a machine's frame to the workstations' wire, or to nowhere."""
    with enclosure(), links_opened(ORIGIN) as tap:
        work: dict[str, Callable[[], float]] = {"no_rules": lambda: _cost(tap, _frames(allowed=True))}
        for size in (SMALL, LARGE):
            rules = posture(max(size, MACHINES * 2))
            kept = frozenset(sorted(rules.allowances, key=lambda each: each.origin != ORIGIN)[:size])
            work[f"allowed_{size}"] = partial(_ruled, tap, kept, allowed=True)
            work[f"denied_{size}"] = partial(_ruled, tap, kept, allowed=False)
        yield from interleave(work, runs=PACKET_RUNS).items()


@contextmanager
def links_opened(interface: str) -> Iterator[int]:
    descriptor = links.open_tap(interface)
    os.set_blocking(descriptor, False)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ruled(tap: int, allowances: frozenset[Allowance], *, allowed: bool) -> float:
    with owner() as writer:
        wanted = Posture(PORTS, TAPS, allowances)
        writer.apply(compile_posture(wanted))
        writer.prove(wanted)
        before = _sent("care")
        cost = _cost(tap, _frames(allowed=allowed))
        passed = _sent("care") - before
        if passed < PACKETS if allowed else passed > PACKETS // 100:
            raise RuntimeError(f"{passed} of {PACKETS} packets passed")
        return cost


def _frames(*, allowed: bool) -> list[bytes]:
    """Of one connection from the first machine to a workstation, behind an empty virtio-net header."""
    port = 1000 if allowed else 999
    source, target = TAPS[0].address.packed, IPv4Address(STATION).packed
    datagram = struct.pack(">HHHH", 40_000, port, 40, 0) + bytes(32)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0) + source + target
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:]
    macs = bytes.fromhex((tap_mac(ORIGIN) + TAPS[0].mac).replace(":", ""))
    return [bytes(10) + macs + b"\x08\x00" + header + datagram] * 64


def _cost(tap: int, frames: Sequence[bytes]) -> float:
    """Of this thread's time: a frame that is written is forwarded, or dropped, before the write returns."""
    for frame in frames:
        os.write(tap, frame)
    rounds = PACKETS // len(frames) + 1
    began = time.thread_time()
    for _ in range(rounds):
        for frame in frames:
            os.write(tap, frame)
    return (time.thread_time() - began) / rounds / len(frames) * 1e6


def _sent(interface: str) -> int:
    """Packets; sysfs would tell of the namespace that it was mounted in."""
    rows = (line.split() for line in Path("/proc/thread-self/net/dev").read_text().splitlines())
    return next(int(row[10]) for row in rows if row[0] == f"{interface}:")


def verifying() -> Iterator[tuple[str, list[float]]]:
    with enclosure(), owner() as writer:
        for size in SIZES:
            wanted = posture(size)
            writer.apply(compile_posture(wanted))
            verify(wanted)
            found = [verify(wanted) for _ in range(VERIFY_RUNS)]
            for each in found:
                if each.differences or each.mismatches:
                    raise RuntimeError(f"not verified: {(*each.differences, *each.mismatches)[:3]}")
            yield f"verify_{size}", [each.seconds for each in found]


def alarming() -> Iterator[tuple[str, list[float]]]:
    """At 1,000 flows."""
    with enclosure():
        yield "alarm", time_to_alarm(posture(1000), times=ALARMS)


def _run(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[:500]}")
    return done.stdout


def main() -> None:
    descriptor, root = int(sys.argv[1]), Path(sys.argv[2])
    found = dict(itertools.chain(applying(root), packets(), verifying(), alarming()))
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
