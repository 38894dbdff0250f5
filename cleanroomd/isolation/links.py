"""Taps and ports of the current network namespace: made, addressed and routed as the guards expect them.

Every machine hangs on a routed tap of its own. The host has a /32 route to the machine and the machine's gateway
as its own /32 address there. Other peers are answered for in ARP only if the machine could take them for
neighbours: single addresses get a proxy entry each; a whole network (a zone) gets none where the machine has a
gateway outside of it, for then the machine sends there through the gateway. Otherwise the tap answers for
everything that is routed elsewhere (`proxy_arp`). ARP answers open nothing: what follows them meets the rules.

The functions block for some milliseconds. pyroute2's synchronous classes drive an event loop of their own and
refuse to run inside another one, so they get a short-lived thread, which starts in the namespace of its maker.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cleanroomd.errors import IsolationError
from cleanroomd.isolation.policy import name_bytes, tap_mac
from cleanroomd.model.listening import Found
from cleanroomd.model.observed import Interface
from cleanroomd.model.posture import Posture, TapGuard

_TUN = Path("/dev/net/tun")
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_TUNGETIFF, _TUNGETVNETHDRSZ, _TUNSETVNETHDRSZ = 0x800454D2, 0x800454D7, 0x400454D8
"""include/uapi/linux/if_tun.h"""
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFREQ = struct.Struct("=16sH22x")
_NUMBER = struct.Struct("=i")
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_NTF_PROXY = 0x8
_SCOPE_LINK = 253
_ATF_PUBL = 0x08
"""include/uapi/linux/if_arp.h: answered for, not resolved."""

Result = TypeVar("Result")

_ARP_TABLE = Path("/proc/thread-self/net/arp")
_SYSCTL = Path("/proc/sys/net")
_CLOSED: Mapping[str, str] = {
    "rp_filter": "1",
    "arp_ignore": "1",
    "arp_announce": "2",
    "accept_redirects": "0",
    "secure_redirects": "0",
    "send_redirects": "0",
    "accept_source_route": "0",
    "route_localnet": "0",
    "proxy_arp": "0",
    "proxy_arp_pvlan": "0",
    "promote_secondaries": "1",
}
"""net.ipv4.conf.* of every link: strict reverse path, ARP only for addresses of the link itself, no redirects.

`promote_secondaries` makes the removal of one address leave the others of its network alone.
"""


_WITHOUT_IPV6: Mapping[str, str] = {"disable_ipv6": "1", "accept_ra": "0", "addr_gen_mode": "1"}
"""net.ipv6.conf.* of every link: no IPv6, and should somebody enable it, no address by itself and no router heard."""

_ALIAS, _CLEAN = "cleanroom", "clean"
_STACKED = frozenset({"bond", "bridge", "hsr", "ipvlan", "ipvtap", "macsec", "macvlan", "macvtap", "team", "vlan"})
"""Kinds of links that have, or may take, the MAC of one below."""
_CARDS = frozenset({"dsa", "veth"})
"""Kinds that name another link, and are cards all the same: a switch's ports, and the end of a cable in thought."""
_LONGEST_ALIAS = 254
"""What the kernel takes beside a terminator, IFALIASZ less one in all (linux/if.h)."""


def make_tap(name: str) -> None:
    """A persistent tap that is down and has our MAC; one that is there already keeps its state."""
    with _interpreted(f"make tap {name}"):
        if name not in taps():
            descriptor = _attached(name)
            try:
                fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
            finally:
                os.close(descriptor)
        _with_routes(lambda ip: _set_mac(ip, name, tap_mac(name)))


def open_tap(name: str) -> int:
    """A descriptor of the tap's queue for QEMU (`-netdev tap,fd=`); the caller closes its copy."""
    with _interpreted(f"open tap {name}"):
        if name not in taps():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return _attached(name)


def tap_header(descriptor: int) -> int:
    """Bytes of the header before each frame of an open queue; it belongs to the tap, and its user chose it."""
    return int(_NUMBER.unpack(fcntl.ioctl(descriptor, _TUNGETVNETHDRSZ, bytes(_NUMBER.size)))[0])


def rejoin_tap(descriptor: int, name: str, header: int) -> None:
    """Attach an open queue whose tap was deleted to the tap of that name, as `open_tap` does with a new queue.

    Whoever has the queue open, in whichever process, notices nothing but frames that were lost. A queue whose tap was
    renamed loses that tap first. Offloads stay off until the user of the queue sets them again: slower, not wrong.
    """
    with _interpreted(f"join tap {name}"):
        if name not in taps():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        strayed = _joined(descriptor)
        if strayed == name:
            return
        if strayed:
            _with_routes(lambda ip: ip.link("del", index=_index(strayed)))
        _join(descriptor, name)
        fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, _NUMBER.pack(header))


def _joined(descriptor: int) -> str:
    """The tap that a queue belongs to, "" for none."""
    try:
        found, _ = _IFREQ.unpack(fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_IFREQ.size)))
    except OSError as error:
        if error.errno != errno.EBADFD:
            raise
        return ""
    return str(found.rstrip(b"\0").decode("utf-8", "surrogateescape"))


def remove_tap(name: str) -> None:
    """Delete the tap, whoever has it open; nothing happens if there is none."""
    with _interpreted(f"remove tap {name}"):
        if name in taps():
            _with_routes(lambda ip: ip.link("del", index=_index(name)))


def attach_tap(guard: TapGuard) -> None:
    """Address, routes and ARP of a machine's tap, then up. Its guard must be in force; safe to repeat."""
    name = guard.interface
    with _interpreted(f"attach tap {name}"):
        index = _index(name)
        _harden(name, {"forwarding": "1", "proxy_arp": "1" if answers_for_networks(guard) else "0"})
        _write(_SYSCTL / "ipv4" / "neigh" / name / "proxy_delay", "0")
        _with_routes(lambda ip: _attach(ip, index, guard))


def set_port(
    interface: str, *, up: bool, addresses: tuple[str, ...], found: Found | None = None, carrier_changes: int = 0
) -> None:
    """A port up with exactly these addresses (CIDR), or down without any that are not listed.

    A link that comes up without an address sends nothing by itself. `found` is kept with the interface, and holds
    for as long as its carrier has changed no more often than `carrier_changes`.
    """
    with _interpreted(f"set port {interface} {'up' if up else 'down'}"):
        index = _index(interface)
        wanted = {IPv4Interface(address) for address in addresses}
        _harden(interface, {"forwarding": "1" if up else "0"})
        _with_routes(lambda ip: _set_port(ip, index, wanted, up=up))
        if found is not None:
            alias = _alias(found, carrier_changes)
            _with_routes(lambda ip: ip.link("set", index=index, ifalias=alias))


def make_zone_link(interface: str, *, parent: str, vlan: int) -> None:
    """A VLAN sub-interface (IEEE 802.1Q) of `parent`, down; it is an error if the name is taken."""
    with _interpreted(f"make zone devices on {parent}", {errno.EOPNOTSUPP: _NO_VLAN}):
        below = _index(parent)
        _with_routes(lambda ip: _add_vlan(ip, interface, below, vlan))


def remove_zone_link(interface: str) -> None:
    """Delete the sub-interface; nothing happens if it is gone."""
    with _interpreted(f"remove {interface}"):
        there = {link.name: link for link in interfaces()}
        if interface in there and there[interface].vlan is not None:
            _with_routes(lambda ip: ip.link("del", index=_index(interface)))


def enable_forwarding() -> None:
    """IPv4 forwarding in this namespace; links that come later start without IPv6 and as closed as ours."""
    with _interpreted("enable forwarding"):
        for scope in ("all", "default"):
            for key, value in _CLOSED.items():
                _write(_SYSCTL / "ipv4" / "conf" / scope / key, value)
        _disable_ipv6("default")
        _write(_SYSCTL / "ipv4" / "ip_forward", "1")


def look() -> tuple[tuple[Interface, ...], frozenset[str]]:
    """`interfaces` and `taps` of one moment, for about the price of either: a third of a millisecond for each link."""

    def both(ip: Any) -> tuple[tuple[Interface, ...], frozenset[str]]:
        found = list(ip.get_links())
        return _interfaces(ip, found), _taps(found)

    with _interpreted("list the network interfaces"):
        return _with_routes(both)


def wanted_sysctls(posture: Posture) -> Mapping[str, str]:
    """Path below /proc/sys/net -> value, as the functions here leave it for the links of `posture` that are open."""
    every = dict(_CLOSED)
    wanted = {f"ipv4/conf/{scope}/{key}": value for scope in ("all", "default") for key, value in every.items()}
    wanted["ipv4/ip_forward"] = "1"
    wanted["ipv6/conf/default/disable_ipv6"] = "1"
    for tap in posture.taps:
        every = {**_CLOSED, "forwarding": "1", "proxy_arp": "1" if answers_for_networks(tap) else "0"}
        wanted |= {f"ipv4/conf/{tap.interface}/{key}": value for key, value in every.items()}
        wanted[f"ipv6/conf/{tap.interface}/disable_ipv6"] = "1"
    for port in posture.ports:
        if not port.dark:
            every = {**_CLOSED, "forwarding": "1"}
            wanted |= {f"ipv4/conf/{port.interface}/{key}": value for key, value in every.items()}
            wanted[f"ipv6/conf/{port.interface}/disable_ipv6"] = "1"
    return wanted


def interfaces() -> tuple[Interface, ...]:
    """Every link except loopback and taps, sorted by name; `mac` is the permanent one where the driver has one."""
    return look()[0]


def taps() -> frozenset[str]:
    """Names of the persistent taps."""
    with _interpreted("list the taps"):
        return _with_routes(lambda ip: _taps(ip.get_links()))


@contextmanager
def _interpreted(doing: str, causes: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turns what the kernel says into an error for people; `causes` by errno where its own words say too little."""
    try:
        yield
    except NetlinkError as error:
        cause = (causes or {}).get(error.code) or os.strerror(error.code)
        raise IsolationError(f"cannot {doing}: {cause}", _HINTS.get(error.code, "")) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise IsolationError(f"cannot {doing}: {reason}", _HINTS.get(error.errno or 0, "")) from error


_NO_VLAN = "this kernel has no VLAN support (module 8021q)"
_HINTS: Mapping[int, str] = {
    errno.EPERM: "run as root, or in a user and network namespace of its own",
    errno.EACCES: "run as root, or let this user open /dev/net/tun (udev gives it mode 0666)",
    errno.EROFS: "mount /proc so that /proc/sys/net can be written",
    errno.ENOENT: "check that /dev/net/tun is there, or load the module tun",
    errno.ENODEV: "the interface is gone: look whether it was unplugged or renamed",
    errno.EBUSY: "another process has it open",
}


def _with_routes(work: Callable[[Any], Result]) -> Result:
    def run() -> Result:
        with IPRoute() as ip:
            return work(ip)

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(run).result()


def _attached(name: str) -> int:
    descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        _join(descriptor, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _join(descriptor: int, name: str) -> None:
    # The kernel takes "%d" in a name as a pattern; what it made then is not what was asked for, and goes
    # away with the descriptor.
    asked = name_bytes(name)
    request = _IFREQ.pack(asked, _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    given, _ = _IFREQ.unpack(fcntl.ioctl(descriptor, _TUNSETIFF, request))
    if given.rstrip(b"\0") != asked:
        raise OSError(errno.EINVAL, "the kernel gave it another name")


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, "there is no such interface") from None


def _set_mac(ip: Any, name: str, mac: str) -> None:
    index = _index(name)
    (link,) = ip.get_links(index)
    if link.get_attr("IFLA_ADDRESS") != mac:
        ip.link("set", index=index, address=mac)


def _attach(ip: Any, index: int, guard: TapGuard) -> None:
    own = {IPv4Interface(guard.gateway)} if guard.gateway else set()
    _set_addresses(ip, index, own, scope=_SCOPE_LINK)
    ip.link("set", index=index, state="up")
    machine = str(guard.address)
    source = {"prefsrc": str(guard.gateway)} if guard.gateway else {}
    ip.route("replace", dst=f"{machine}/32", oif=index, scope=_SCOPE_LINK, **source)
    ip.neigh("replace", dst=machine, lladdr=guard.mac, ifindex=index, state="permanent")
    _answer_for(ip, guard.interface, index, {str(n.network_address) for n in guard.neighbours if n.prefixlen == 32})


def _answer_for(ip: Any, interface: str, index: int, wanted: set[str]) -> None:
    """Exactly these proxy entries; they need a route through another link before the kernel uses them."""
    there = _proxied(interface)
    for address in sorted(there - wanted):
        ip.neigh("del", dst=address, ifindex=index, flags=_NTF_PROXY)
    for address in sorted(wanted - there):
        ip.neigh("add", dst=address, ifindex=index, flags=_NTF_PROXY)


def _proxied(interface: str) -> set[str]:
    """From the table of proc_net(5), which lists proxy entries too; pyroute2's dumps cannot ask for them."""
    device = name_bytes(interface)
    rows = (line.split() for line in _ARP_TABLE.read_bytes().splitlines()[1:])
    return {row[0].decode() for row in rows if row[5] == device and int(row[2], 16) & _ATF_PUBL}


def answers_for_networks(guard: TapGuard) -> bool:
    """Whether the machine may look for a whole network of peers on its own link."""
    inside = [guard.address] if guard.gateway is None else [guard.address, guard.gateway]
    return any(
        network.prefixlen < 32 and (guard.gateway is None or any(address in network for address in inside))
        for network in guard.neighbours
    )


def _set_port(ip: Any, index: int, addresses: set[IPv4Interface], *, up: bool) -> None:
    if not up:
        ip.link("set", index=index, state="down")
    _set_addresses(ip, index, addresses)
    if up:
        ip.link("set", index=index, state="up")


def _set_addresses(ip: Any, index: int, wanted: set[IPv4Interface], *, scope: int = 0) -> None:
    there = {
        IPv4Interface(f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}")
        for entry in ip.get_addr(socket.AF_INET, index=index)
    }
    for address in sorted(there - wanted):
        ip.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    for address in sorted(wanted - there):
        prefix = address.network.prefixlen
        ip.addr("add", index=index, address=str(address.ip), prefixlen=prefix, scope=scope)


def _taps(found: Iterable[Any]) -> frozenset[str]:
    return frozenset(_name(link) for link in found if _is_tap(link))


def _interfaces(ip: Any, links: Sequence[Any]) -> tuple[Interface, ...]:
    addresses: dict[int, set[str]] = {}
    names = {link["index"]: _name(link) for link in links}
    for entry in ip.get_addr(socket.AF_INET):
        address = f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}"
        addresses.setdefault(entry["index"], set()).add(address)
    found = [
        Interface(
            name=_name(link),
            mac=permanent or link.get_attr("IFLA_ADDRESS") or "",
            up=bool(link["flags"] & _IFF_UP),
            carrier=bool(link.get_attr("IFLA_CARRIER")),
            addresses=frozenset(addresses.get(link["index"], ())),
            index=link["index"],
            carrier_changes=link.get_attr("IFLA_CARRIER_CHANGES") or 0,
            found=_found(link),
            parent=names.get(link.get_attr("IFLA_LINK"), "") if _is_vlan(link) else "",
            vlan=link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID") if _is_vlan(link) else None,
            permanent=permanent is not None,
            stacked=_is_stacked(link),
            marked=_marked(link),
        )
        for link in links
        for permanent in (link.get_attr("IFLA_PERM_ADDRESS"),)
        if not link["flags"] & _IFF_LOOPBACK and not _is_tap(link)
    ]
    return tuple(sorted(found, key=lambda interface: interface.name))


def _add_vlan(ip: Any, interface: str, below: int, vlan: int) -> None:
    ip.link("add", ifname=interface, kind="vlan", link=below, vlan_id=vlan)


def _alias(found: Found, carrier_changes: int) -> str:
    """What listening found as the interface's alias: the kernel keeps it for exactly as long as the device."""
    text = f"{_ALIAS} {carrier_changes} {found.foreign or _CLEAN}"
    return text.encode()[:_LONGEST_ALIAS].decode(errors="ignore")


def _found(link: Any) -> Found | None:
    """What an alias says, if nobody has touched the cable since; any other alias says nothing."""
    alias = link.get_attr("IFLA_IFALIAS")
    _, _, rest = str(alias or "").partition(" ")
    changes, _, outcome = rest.partition(" ")
    if not _marked(link) or changes != str(link.get_attr("IFLA_CARRIER_CHANGES") or 0) or not outcome:
        return None
    return Found() if outcome == _CLEAN else Found(outcome)


def _marked(link: Any) -> bool:
    return str(link.get_attr("IFLA_IFALIAS") or "").partition(" ")[0] == _ALIAS


def _name(link: Any) -> str:
    name = link.get_attr("IFLA_IFNAME")
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)


def _is_vlan(link: Any) -> bool:
    return _kind(link) == "vlan"


def _is_stacked(link: Any) -> bool:
    """A link that names one of another namespace is told by its kind alone: indexes there mean nothing here."""
    named = link.get_attr("IFLA_LINK") not in (None, 0, link["index"]) and link.get_attr("IFLA_LINK_NETNSID") is None
    kind = _kind(link)
    return kind in _STACKED or (named and kind not in _CARDS)


def _is_tap(link: Any) -> bool:
    return _kind(link) == "tun"


def _kind(link: Any) -> str:
    """What the kernel calls a link that was made; "" for hardware."""
    # In two steps: get_nested() of pyroute2 takes several times as long, and every round asks this of every link.
    about = link.get_attr("IFLA_LINKINFO")
    return "" if about is None else str(about.get_attr("IFLA_INFO_KIND") or "")


def _harden(interface: str, more: Mapping[str, str]) -> None:
    _disable_ipv6(interface)
    for key, value in {**_CLOSED, **more}.items():
        _write(_SYSCTL / "ipv4" / "conf" / interface / key, value)


def _disable_ipv6(scope: str) -> None:
    """A kernel without IPv6 has nothing to disable."""
    if (_SYSCTL / "ipv6").exists():
        for key, value in _WITHOUT_IPV6.items():
            _write(_SYSCTL / "ipv6" / "conf" / scope / key, value)


def _write(path: Path, value: str) -> None:
    """Only where it differs: a restart must not touch what is right, and some containers forbid the write."""
    if path.read_text().strip() != value:
        path.write_text(value)
