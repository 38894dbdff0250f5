"""What could lead around the rules, or cut off what they allow: facts about the kernel's network, judged. Pure.

The tables of `policy` decide on what reaches them. A tap that is enslaved to a bridge, a queueing discipline with
filters, a program on a device, another route or a sysctl decide before or beside them. Each thing that is ours (a
link of ours, its addresses, its sysctls, the routing of this namespace) has one way to be; whatever differs is a
finding, with what puts it right. What is not ours is told and left alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network

from cleanroomd.model.plan import UPLINK
from cleanroomd.model.posture import PortGuard, Posture, TapGuard

MAIN, DEFAULT, LOCAL = 254, 253, 255
"""RT_TABLE_*"""
_KERNEL_MADE = 2
"""RTPROT_KERNEL"""
_UNICAST = 1
"""RTN_UNICAST"""
ORDINARY_RULES = frozenset({(0, LOCAL), (32766, MAIN), (32767, DEFAULT)})
"""Preference and table of the policy rules that every namespace is born with (net/ipv4/fib_rules.c, ip6_fib.c)."""
SPARE_TAPS = "tap-"
"""How the names of machines' taps begin (`restore.desired.tap_name`)."""
_PLAIN_QUEUEING = frozenset({"noqueue", "noop", "mq", "pfifo", "pfifo_fast", "bfifo", "fq", "fq_codel"})
"""Disciplines that a kernel gives a device by itself: none of them can take a packet elsewhere."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network device; 0 stands for no master and no device below."""

    name: str
    index: int
    kind: str = ""
    """Of a virtual device: "tun", "veth", "bridge"; empty for hardware."""
    up: bool = False
    loopback: bool = False
    master: int = 0
    below: int = 0
    """The device that it is stacked on, in this namespace."""
    programs: tuple[str, ...] = ()
    """Where a BPF program sits on it: "xdp", "ingress", "egress"."""
    addresses: frozenset[str] = frozenset()
    """IPv4 and IPv6 in CIDR notation, without IPv6 link-local ones."""


@dataclass(frozen=True, slots=True)
class Route:
    """One of the unicast kind or of a kind that refuses, in any table; `destination` in CIDR notation."""

    destination: str
    table: int
    interface: str
    gateway: str = ""
    family: int = 2
    kind: int = _UNICAST
    protocol: int = 0
    metric: int = 0
    tos: int = 0
    nexthop: int = 0
    """The number of the nexthop object that it names, 0 if it names an interface itself."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule that picks a routing table, or does something else (`action`, FR_ACT_*)."""

    family: int
    preference: int
    table: int
    action: int = 1
    target: int = 0
    """The preference of the rule that it jumps to, if that is what it does."""


@dataclass(frozen=True, slots=True)
class Queueing:
    """A queueing discipline on a device."""

    interface: str
    kind: str
    parent: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything that is judged, as read at one moment."""

    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: frozenset[PolicyRule] = frozenset()
    queueing: tuple[Queueing, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Path below /proc/sys/net -> value."""
    old_tables: tuple[str, ...] = ()
    """Tables of the packet filter before nf_tables (x_tables) that are in use: "ip filter"."""


@dataclass(frozen=True, slots=True)
class SetSysctl:
    path: str
    value: str


@dataclass(frozen=True, slots=True)
class FreeLink:
    """Out of its bridge, bond or whatever has it for a port."""

    interface: str


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class TakeDown:
    interface: str


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    route: Route


@dataclass(frozen=True, slots=True)
class RestoreRoute:
    """The way to a machine, as `links.attach_tap` makes it."""

    guard: TapGuard


@dataclass(frozen=True, slots=True)
class RemoveRule:
    rule: PolicyRule


@dataclass(frozen=True, slots=True)
class RemoveQueueing:
    queueing: Queueing


@dataclass(frozen=True, slots=True)
class RemoveProgram:
    """An XDP program that no BPF link holds."""

    interface: str


Undo = (
    SetSysctl
    | FreeLink
    | RemoveAddress
    | TakeDown
    | RemoveRoute
    | RestoreRoute
    | RemoveRule
    | RemoveQueueing
    | RemoveProgram
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be so. Two findings about the same thing are equal."""

    what: str
    """In words, without who did it."""
    remedy: str
    """What a person can do about it if it cannot be undone."""
    undo: Undo | None = None
    serious: bool = True
    """It can lead packets around the rules: while it stands, isolation is not proven."""


def findings(facts: Surroundings, posture: Posture, wanted_sysctls: Mapping[str, str]) -> tuple[Finding, ...]:
    """Whatever differs from how the namespace should be under `posture`; the most serious first."""
    everyone: tuple[PortGuard | TapGuard, ...] = (*posture.ports, *posture.taps)
    guards = {guard.interface: guard for guard in everyone}
    ours = [link for link in facts.links if link.name in guards]
    found = [
        *_enslaved(facts, ours),
        *_programs(ours),
        *_queueing(facts, guards),
        *_stacked(facts, ours, guards),
        *_rules(facts),
        *_routes(facts, posture),
        *_sysctls(facts, wanted_sysctls),
        *(finding for link in ours for finding in _own_state(link, guards[link.name])),
        *_strangers(facts, guards),
        *_old_tables(facts),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.serious))


def _enslaved(facts: Surroundings, ours: list[Link]) -> Iterator[Finding]:
    names = {link.index: link.name for link in facts.links}
    for link in ours:
        if link.master:
            master = names.get(link.master, "another device")
            yield Finding(
                f"{link.name} was made a port of {master}",
                f"take {link.name} out of {master}: `ip link set {link.name} nomaster`",
                FreeLink(link.name),
            )


def _programs(ours: list[Link]) -> Iterator[Finding]:
    for link in ours:
        for place in link.programs:
            yield Finding(
                f"a BPF program handles the packets of {link.name} ({place}) before the rules do",
                f"end the program that holds it: `bpftool net list dev {link.name}` names it",
                RemoveProgram(link.name) if place == "xdp" else None,
            )


def _queueing(facts: Surroundings, guards: Mapping[str, object]) -> Iterator[Finding]:
    for queueing in facts.queueing:
        if queueing.interface in guards and queueing.kind not in _PLAIN_QUEUEING:
            kind = "clsact or ingress" if queueing.kind in ("clsact", "ingress") else queueing.kind
            yield Finding(
                f"traffic control was set up on {queueing.interface} ({kind}), which can take packets elsewhere",
                f"remove it: `tc qdisc del dev {queueing.interface} {_place(queueing)}`",
                RemoveQueueing(queueing),
            )


def _place(queueing: Queueing) -> str:
    return queueing.kind if queueing.kind in ("clsact", "ingress") else "root"


def _stacked(facts: Surroundings, ours: list[Link], guards: Mapping[str, object]) -> Iterator[Finding]:
    names = {link.index: link.name for link in ours}
    for link in facts.links:
        if link.below in names and link.name not in guards and link.kind != "veth":
            yield Finding(
                f"a device was stacked on {names[link.below]}: {link.name} ({link.kind})",
                f"remove it: `ip link del {link.name}`",
                serious=False,
            )


def _rules(facts: Surroundings) -> Iterator[Finding]:
    for rule in sorted(facts.rules, key=lambda rule: (rule.family, rule.preference)):
        if (rule.preference, rule.table) not in ORDINARY_RULES:
            family = "IPv6" if rule.family != 2 else "IPv4"
            yield Finding(
                f"a policy routing rule was added ({family}, preference {rule.preference}, table {rule.table})",
                f"remove it: `ip {'-6 ' if family == 'IPv6' else ''}rule del pref {rule.preference}`",
                RemoveRule(rule),
            )


def _routes(facts: Surroundings, posture: Posture) -> Iterator[Finding]:
    """Each machine behind its tap, each zone behind its port, and nothing else; a lease may lead out of the uplink."""
    machines = {str(IPv4Network(tap.address)): tap for tap in posture.taps}
    free = {port.interface for port in posture.ports if port.role == UPLINK and not port.dark}
    guarded = {*(port.interface for port in posture.ports), *(tap.interface for tap in posture.taps)}
    free |= {link.name for link in facts.links if is_spare(link) and link.name not in guarded}
    for route in facts.routes:
        if route.table == LOCAL or route.interface in free or route.family != 2:
            continue
        tap = machines.get(route.destination)
        expected = route.protocol == _KERNEL_MADE or (tap is not None and tap.interface == route.interface)
        if expected and route.table == MAIN and not route.gateway and route.kind == _UNICAST:
            continue
        via = f" via {route.gateway}" if route.gateway else ""
        out = f" out of {route.interface}" if route.interface else ""
        table = "" if route.table == MAIN else f" table {route.table}"
        yield Finding(
            f"a route was added: {route.destination}{via}{out}{table and ' in' + table}",
            f"remove it: `ip route del {route.destination}{table}`",
            RemoveRoute(route),
            serious=False,
        )
    known = {(route.destination, route.interface) for route in facts.routes if route.table == MAIN}
    up = {link.name for link in facts.links if link.up}
    for destination, tap in machines.items():
        if tap.interface in up and (destination, tap.interface) not in known:
            yield Finding(
                f"the route to {tap.service} ({tap.address}) was removed",
                "restart the enclosure if the service stays unreachable",
                RestoreRoute(tap),
                serious=False,
            )


def _sysctls(facts: Surroundings, wanted: Mapping[str, str]) -> Iterator[Finding]:
    for path, value in sorted(wanted.items()):
        found = facts.sysctls.get(path)
        if found is not None and found != value:
            name = "net." + path.replace("/", ".")
            yield Finding(
                f"{name} was set to {found[:20]}, it must be {value}",
                f"set it back: `sysctl -w net/{path}={value}`",
                SetSysctl(path, value),
                serious=False,
            )


def _own_state(link: Link, guard: PortGuard | TapGuard) -> Iterator[Finding]:
    """Addresses that nobody gave it, or a dark port that is up; whether one is missing is the reconciler's to see."""
    if isinstance(guard, TapGuard):
        wanted = {str(IPv4Interface(guard.gateway))} if guard.gateway else set()
    else:
        wanted = {str(address) for address in guard.addresses}
        if guard.dark and not guard.quarantined and link.up:
            yield Finding(
                f"port {guard.role} ({link.name}) was switched on, it is to be dark",
                f"unplug the cable of port {guard.role}",
                TakeDown(link.name),
            )
    for address in sorted(link.addresses - wanted):
        yield Finding(
            f"the address {address} was given to {link.name}",
            f"remove it: `ip address del {address} dev {link.name}`",
            RemoveAddress(link.name, address),
            serious=False,
        )


def is_spare(link: Link) -> bool:
    """A tap or sub-interface of ours that the posture needs no longer, or not yet: nothing passes there."""
    return link.kind == "vlan" or (link.kind == "tun" and link.name.startswith(SPARE_TAPS))


def _strangers(facts: Surroundings, guards: Mapping[str, object]) -> Iterator[Finding]:
    """Nothing is let through to or from a device that no guard names; that one is there is worth knowing."""
    for link in facts.links:
        if link.up and not link.loopback and link.name not in guards and not is_spare(link):
            yield Finding(
                f"a network interface that nobody planned is up: {link.name}{f' ({link.kind})' if link.kind else ''}",
                "",
                serious=False,
            )


def _old_tables(facts: Surroundings) -> Iterator[Finding]:
    for table in facts.old_tables:
        yield Finding(
            f"the old packet filter is in use beside the rules: {table}",
            "find what uses iptables-legacy, and stop it; then restart the enclosure",
            serious=False,
        )
