"""A twin of the enclosure in a network namespace of its own, under the rules that the live kernel dumped.

Ports and machines are taps with the same names, MACs, addresses, routes and settings; what they would send is written
to the taps, and what would reach them is read there. A frame that is written is forwarded, answered or dropped
before write() returns, and what comes of it can be read at once: nothing here waits, and silence is proof.
"""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import dump, frames, links
from cleanroomd.isolation.channel import Channel, RefusedError
from cleanroomd.isolation.dump import Dump, TableKey
from cleanroomd.isolation.encode import Message
from cleanroomd.isolation.endpoints import Endpoint, Scene
from cleanroomd.isolation.policy import TABLE, name_bytes
from cleanroomd.isolation.ruleset import Family
from cleanroomd.isolation.trials import Layer, inner6
from cleanroomd.keeper.tables import NETLINK_NETFILTER
from cleanroomd.model.verification import EndpointKind

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""include/uapi/linux/if_tun.h"""
_IFREQ_FLAGS = struct.Struct("=16sH22x")
_IFREQ_MAC = struct.Struct("=16sH6s16x")
_SIOCSIFHWADDR = 0x8924
_ARPHRD_ETHER = 1
_FRAME = 2048
"""Bytes of the longest frame; ours are shorter than 200."""
_PROTOCOLS = (1, 2, 6, 17, 41, 47, 50, 132)
"""What is heard of that reaches the enclosure itself: one raw socket each."""
_SYSCTL = Path("/proc/sys/net")
_NETDEV_INGRESS, _NETDEV_EGRESS = 0, 1
_SCOPE_LINK = 253
_IFA_F_NODAD = 0x02

OURS: Mapping[Family, TableKey] = {family: (int(family), TABLE) for family in Family}


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that came out of the twin."""

    interface: str
    """Where it came out; "" for what reached the enclosure itself."""
    frame: bytes
    """"" before the IPv4 header for what reached the enclosure."""
    packet: bytes
    """From the network header on."""


@contextmanager
def scratch_namespace() -> Iterator[None]:
    """The calling thread is in a new network namespace, which ends with what was opened in it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(_LIBC.unshare(_CLONE_NEWNET), "make a network namespace")
        try:
            yield
        finally:
            _call(_LIBC.setns(before, _CLONE_NEWNET), "go back to the network namespace")
    finally:
        os.close(before)


def netfilter_socket() -> socket.socket:
    """A socket to the packet filter of the current namespace; it owns nothing."""
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    found.bind((0, 0))
    return found


@contextmanager
def netfilter() -> Iterator[Channel]:
    channel = Channel(netfilter_socket())
    try:
        yield channel
    finally:
        channel.close()


class Twin:
    """Made inside a scratch namespace, by `built`."""

    def __init__(self, scene: Scene, rules: Dump, channel: Channel, resources: ExitStack) -> None:
        self._scene = scene
        self._rules = rules
        self._channel = channel
        self._resources = resources
        self._taps: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._poll = resources.enter_context(select.epoll())
        raw = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._mouth = resources.enter_context(socket.socket(socket.AF_INET, raw, socket.IPPROTO_RAW))
        self._mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._raw: dict[int, socket.socket] = {}
        self.sent = 0

    @property
    def channel(self) -> Channel:
        return self._channel

    @property
    def interfaces(self) -> tuple[str, ...]:
        return tuple(self._taps)

    def send(self, origin: Endpoint, data: bytes) -> None:
        """A frame from whoever is on that wire, or an IPv4 packet of the enclosure; a refusal is silence."""
        self.sent += 1
        if origin.kind is not EndpointKind.ENCLOSURE:
            os.write(self._taps[origin.interface], data)
            return
        try:
            self._mouth.sendto(data, (str(IPv4Address(data[16:20])), 0))
        except OSError as error:
            # What the rules drop of a local packet is told to the sender.
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
                raise

    def drain(self) -> list[Arrival]:
        """Everything that has come out since."""
        found: list[Arrival] = []
        while ready := self._poll.poll(0):
            for descriptor, _ in ready:
                name = self._names.get(descriptor)
                try:
                    while True:
                        if name is None:
                            packet = self._raw[descriptor].recv(_FRAME)
                            found.append(Arrival("", b"", packet))
                        else:
                            frame = os.read(descriptor, _FRAME)
                            found.append(Arrival(name, frame, frame[frames.ETHERNET :]))
                except BlockingIOError:
                    continue
        return found

    def load(self) -> None:
        """All the tables of the dump, foreign ones too."""
        self._commit(self._rules.messages(tables=self._rules.tables))

    def keep_only(self, layer: Layer) -> None:
        """From now on one layer of our own tables is alone in force; DECISION before the other two."""
        inet, netdev = OURS[Family.INET], OURS[Family.NETDEV]
        there = dump.read(self._channel).tables
        if layer is Layer.DECISION:
            self._commit(dump.removal([table for table in there if table != inet]))
            return
        other = _NETDEV_EGRESS if layer is Layer.ENTRANCE else _NETDEV_INGRESS
        without = {(c.table, c.name) for c in self._rules.base_chains() if c.table == netdev and c.number == other}
        removal = list(dump.removal(there))
        self._commit(removal)
        self._commit(self._rules.messages(tables=[netdev], without=without))

    def without_kernel_checks(self) -> None:
        """From now on the kernel drops no spoofing (reverse path, own addresses) and no IPv6 by itself."""
        for scope in ("all", "default", *self._taps):
            _write(_SYSCTL / "ipv4" / "conf" / scope / "rp_filter", "0")
            _write(_SYSCTL / "ipv4" / "conf" / scope / "accept_local", "1")
        if (_SYSCTL / "ipv6").exists():
            self._with_ipv6()

    def _with_ipv6(self) -> None:
        for scope in ("all", "default", *self._taps):
            for key, value in (("accept_dad", "0"), ("router_solicitations", "0"), ("disable_ipv6", "0")):
                _write(_SYSCTL / "ipv6" / "conf" / scope / key, value)
        _write(_SYSCTL / "ipv6" / "conf" / "all" / "forwarding", "1")
        with IPRoute() as ip:
            for number, endpoint in enumerate(self._scene.endpoints):
                if endpoint.interface:
                    index = socket.if_nametoindex(endpoint.interface)
                    address = str(inner6(number, 1))
                    ip.addr("add", index=index, address=address, prefixlen=64, flags=_IFA_F_NODAD)
                    ip.neigh(
                        "replace", dst=str(inner6(number, 2)), lladdr=endpoint.mac, ifindex=index, state="permanent"
                    )

    def make(self, hosts: Mapping[str, Iterable[IPv4Address]]) -> None:
        """The links with all that is behind them, then the enclosure's own ears; `hosts` are those behind ports."""
        links.enable_forwarding()
        macs = {guard.interface: guard.mac for guard in self._scene.posture.ports}
        macs |= {e.interface: e.ours for e in self._scene.endpoints if e.kind is EndpointKind.MACHINE}
        named = {device for hooked in self._rules.base_chains() for device in hooked.devices}
        for name in (*macs, *sorted(named - macs.keys() - {"lo"})):
            self._plug(name, macs.get(name))
        for tap in self._scene.posture.taps:
            links.attach_tap(tap)
        for port in self._scene.posture.ports:
            links.set_port(port.interface, up=True, addresses=tuple(map(str, port.addresses)))
        with IPRoute() as ip:
            for interface, addresses in hosts.items():
                self._settle(ip, interface, addresses)
        self._listen()

    def _plug(self, name: str, mac: str | None) -> None:
        descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._resources.callback(os.close, descriptor)
        asked = name_bytes(name)
        given = fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ_FLAGS.pack(asked, _IFF_TAP | _IFF_NO_PI))
        if given[:16].rstrip(b"\0") != asked:
            raise OSError(errno.EINVAL, f"the kernel calls {name} otherwise")
        # It ends with its namespace, which the kernel clears in the background; closing it would wait for that.
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        if mac is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, _SIOCSIFHWADDR, _IFREQ_MAC.pack(asked, _ARPHRD_ETHER, frames.mac(mac)))
        self._taps[name] = descriptor
        self._names[descriptor] = name
        self._poll.register(descriptor, select.EPOLLIN)

    def _settle(self, ip: Any, interface: str, addresses: Iterable[IPv4Address]) -> None:
        """Hosts that the enclosure knows already, so that nothing has to be asked for."""
        index = socket.if_nametoindex(interface)
        station = next(e.mac for e in self._scene.endpoints if e.interface == interface)
        connected = [a.network for p in self._scene.posture.ports if p.interface == interface for a in p.addresses]
        for address in addresses:
            if not any(address in network for network in connected):
                ip.route("replace", dst=f"{address}/32", oif=index, scope=_SCOPE_LINK)
            ip.neigh("replace", dst=str(address), lladdr=station, ifindex=index, state="permanent")

    def _listen(self) -> None:
        for protocol in _PROTOCOLS:
            ear = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            self._resources.enter_context(ear)
            self._raw[ear.fileno()] = ear
            self._poll.register(ear, select.EPOLLIN)

    def commit(self, messages: Iterable[Message]) -> None:
        self._commit(messages)

    def _commit(self, messages: Iterable[Message]) -> None:
        batch = list(messages)
        if not batch:
            return
        try:
            self._channel.commit(batch, 0)
        except RefusedError as refusal:
            raise IsolationError(
                f"cannot verify: the twin does not take the rules as they were dumped: {refusal}",
                "look for tables that are not ours: `cleanroomctl isolation show` names them",
            ) from refusal


@contextmanager
def built(scene: Scene, rules: Dump, hosts: Mapping[str, Iterable[IPv4Address]]) -> Iterator[Twin]:
    """A twin under the dumped rules, gone afterwards; IsolationError when there cannot be one."""
    try:
        with ExitStack() as resources:
            resources.enter_context(scratch_namespace())
            channel = resources.enter_context(netfilter())
            twin = Twin(scene, rules, channel, resources)
            twin.make(hosts)
            twin.load()
            yield twin
    except NetlinkError as error:
        raise _cannot(os.strerror(error.code)) from error
    except OSError as error:
        raise _cannot(error.strerror or str(error)) from error


def _cannot(cause: str) -> IsolationError:
    return IsolationError(
        f"cannot verify: no twin can be made: {cause}", "run as root, with /dev/net/tun and a writable /proc/sys/net"
    )


def _call(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")


def _write(path: Path, value: str) -> None:
    if path.read_text().strip() != value:
        path.write_text(value)
