"""A small enclosure with everything around it: two machines, a clean workstation, the hospital's network.

```
 hospital --- up0   [enclosure]   cr-img --- imaging  10.1.20.14
                      |       |
 workstation -- care -+       +-- cr-db ---- database 10.1.20.15
 10.77.0.100    10.77.0.1
```
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from cleanroomd.isolation import links
from cleanroomd.isolation.expressions import Action, Decide, Load, MetaKey, SetMeta, Verdict
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import MARK, compile_posture
from cleanroomd.isolation.ruleset import Ruleset
from cleanroomd.keeper.tables import own_tables
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Allowance, PortGuard, Posture, TapGuard
from tests.kernel.namespaces import Cable, Namespace, move

IMAGING, DATABASE, GATEWAY = "10.1.20.14", "10.1.20.15", "10.1.20.1"
WORKSTATION, CARE = "10.77.0.100", "10.77.0.1"
HOSPITAL = "192.168.40.10"
IMAGING_MAC, DATABASE_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
CARE_MAC, WORKSTATION_MAC = "02:00:00:00:77:01", "02:00:00:00:77:02"
UPLINK_MAC, HOSPITAL_MAC = "02:00:00:00:40:01", "02:00:00:00:40:02"
DEADLINE = 5.0

NETWORK, ANYWHERE = IPv4Network("10.77.0.0/24"), IPv4Network("0.0.0.0/0")
IMG, DB = IPv4Network(IMAGING), IPv4Network(DATABASE)
TO_IMAGING = Allowance("care", NETWORK, "cr-img", IMG, Protocol.TCP, 4242)
TO_IMAGING_UDP = Allowance("care", NETWORK, "cr-img", IMG, Protocol.UDP, 9)
TO_DATABASE = Allowance("cr-img", IMG, "cr-db", DB, Protocol.TCP, 5432)
TO_DATABASE_UDP = Allowance("cr-img", IMG, "cr-db", DB, Protocol.UDP, 9)
PROBE = Allowance("", ANYWHERE, "cr-db", DB, Protocol.TCP, 5432)

POSTURE = Posture(
    ports=(
        PortGuard("uplink", "up0", UPLINK_MAC),
        PortGuard("care", "care", CARE_MAC, dark=False, addresses=(IPv4Interface(f"{CARE}/24"),)),
    ),
    taps=(
        TapGuard("imaging", "cr-img", IMAGING_MAC, IPv4Address(IMAGING), IPv4Address(GATEWAY), (DB, NETWORK)),
        TapGuard("database", "cr-db", DATABASE_MAC, IPv4Address(DATABASE), IPv4Address(GATEWAY), (IMG,)),
    ),
    allowances=frozenset({TO_IMAGING, TO_IMAGING_UDP, TO_DATABASE, TO_DATABASE_UDP, PROBE}),
)


@dataclass(frozen=True)
class World:
    enclosure: Namespace
    imaging: Namespace
    database: Namespace
    workstation: Namespace
    hospital: Namespace
    cables: dict[str, Cable] = field(default_factory=dict)
    """Each tap's, by its name."""

    def allow(self, writer: RuleWriter, *allowances: Allowance) -> Posture:
        """Put the posture with just these allowances in force, and prove it."""
        posture = replace(POSTURE, allowances=frozenset(allowances))
        writer.apply(compile_posture(posture))
        writer.prove(posture)
        return posture

    @contextmanager
    def writer(self) -> Iterator[RuleWriter]:
        """A keeper's socket and a daemon's writer in one, inside the enclosure."""
        with self.enclosure.entered(), RuleWriter(own_tables()) as writer:
            yield writer


@contextmanager
def built(*, up: bool = True) -> Iterator[World]:
    """The world with all its links, and no rule in it yet; `up` attaches the taps and the care port."""
    names = ("enclosure", "imaging", "database", "workstation", "hospital")
    spaces = {name: Namespace() for name in names}
    world = World(**spaces)
    cables: list[Cable] = []
    try:
        world.enclosure.ip(f"link add care address {CARE_MAC} type veth peer name eth0 address {WORKSTATION_MAC}")
        move("eth0", world.enclosure, world.workstation)
        world.enclosure.ip(f"link add up0 address {UPLINK_MAC} type veth peer name eth0 address {HOSPITAL_MAC}")
        move("eth0", world.enclosure, world.hospital)
        for guard, machine in zip(POSTURE.taps, (world.imaging, world.database), strict=True):
            with world.enclosure.entered():
                links.make_tap(guard.interface)
                cables.append(Cable(links.open_tap(guard.interface), machine, guard.mac))
                world.cables[guard.interface] = cables[-1]
            machine.ip(f"addr add {guard.address}/24 dev eth0")
            machine.ip(f"route add default via {GATEWAY}")
        world.workstation.ip(f"addr add {WORKSTATION}/24 dev eth0")
        world.workstation.ip("link set eth0 up")
        world.workstation.ip(f"route add default via {CARE}")
        world.hospital.ip(f"addr add {HOSPITAL}/24 dev eth0")
        world.hospital.ip("link set eth0 up")
        if up:
            attach(world)
        yield world
    finally:
        for cable in cables:
            cable.close()
        for space in spaces.values():
            space.close()


def attach(world: World) -> None:
    with world.enclosure.entered():
        links.enable_forwarding()
        for guard in POSTURE.taps:
            links.attach_tap(guard)
        links.set_port("care", up=True, addresses=(f"{CARE}/24",))
        links.set_port("up0", up=False, addresses=())


def opened(ruleset: Ruleset) -> Ruleset:
    """The same chains, each accepting everything: what the rules protect from, made visible."""
    accept = (Load(0, MARK.to_bytes(4, sys.byteorder)), SetMeta(MetaKey.MARK, 0), Decide(Verdict(Action.ACCEPT)))
    return Ruleset(
        frozenset(
            replace(table, chains=frozenset(replace(c, rules=(accept,) if c.hook else ()) for c in table.chains))
            for table in ruleset.tables
        )
    )


def remove_source_checks(world: World) -> None:
    """The kernel drops much by itself (reverse path, source routes); without that, the rules stand alone."""
    with world.enclosure.entered():
        for link in ("all", "care", "up0", "cr-img", "cr-db"):
            for key, value in (
                ("rp_filter", "0"),
                ("accept_local", "1"),
                ("accept_source_route", "1"),
                ("route_localnet", "1"),
                ("forwarding", "1"),
            ):
                Path(f"/proc/sys/net/ipv4/conf/{link}/{key}").write_text(value)


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that has no event; fails after a generous deadline."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE:.0f} s"
        time.sleep(0.005)


def silent(receiver: socket.socket) -> bool:
    """Whether nothing has arrived."""
    receiver.settimeout(0)
    try:
        receiver.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False
