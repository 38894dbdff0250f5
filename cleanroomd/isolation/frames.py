"""Ethernet frames that the twin sends, byte by byte; pure.

Whatever carries a payload ends in `MAGIC` and a serial number of 32 bits, and still does after it was forwarded,
translated or quoted in an ICMP error: that is how a frame that comes out is known again. Formats: RFC 791 (IPv4),
793 (TCP), 768 (UDP), 792 (ICMP), 826 (ARP), 8200 (IPv6), IEEE 802.1Q.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address

MAGIC = b"twin"
BROADCAST = "ff:ff:ff:ff:ff:ff"
TCP, UDP, ICMP = 6, 17, 1
"""IANA protocol numbers."""
SYN, ACK = 0x02, 0x10
ETHERNET = 14
"""Bytes of an Ethernet header."""

_IPV4, _ARP, _IPV6, _VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
_TTL = 64
_TAIL = struct.Struct(">4sI")
_PORTS = struct.Struct(">HH")
_TCP = struct.Struct(">HHIIBBHHH")
_UDP = struct.Struct(">HHHH")
_TCP_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Tuple4:
    """Who sends what to whom over IPv4."""

    source: IPv4Address
    target: IPv4Address
    protocol: int


Maker = Callable[[int, int, int], bytes]
"""Source port, target port, serial -> packet."""


def template(ends: Tuple4, *, flags: int = SYN, sequence: int = 0, acknowledged: int = 0) -> Maker:
    """A function (source port, target port, serial) -> IPv4 packet, made for thousands of calls.

    For TCP `flags`, `sequence` and `acknowledged` are those of every segment. What has no ports carries them where
    its header has other fields.
    """
    size = _TCP.size if ends.protocol == TCP else _UDP.size
    head = _ipv4_header(ends.source, ends.target, ends.protocol, size + _TAIL.size)
    pack, ports, tail = _TCP.pack, _UDP.pack, _TAIL.pack
    if ends.protocol == TCP:
        pseudo = ends.source.packed + ends.target.packed + struct.pack(">BBH", 0, TCP, size + _TAIL.size)
        fixed = pack(0, 0, sequence, acknowledged, 0x50, flags, _TCP_WINDOW, 0, 0) + MAGIC
        base = _sum(pseudo + fixed)

        def segment(source: int, target: int, serial: int) -> bytes:
            total = base + source + target + (serial >> 16) + (serial & 0xFFFF)
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16)
            checksum = ~total & 0xFFFF
            header = pack(source, target, sequence, acknowledged, 0x50, flags, _TCP_WINDOW, checksum, 0)
            return head + header + tail(MAGIC, serial)

        return segment
    length = size + _TAIL.size

    def datagram(source: int, target: int, serial: int) -> bytes:
        # Without a checksum, which IPv4 allows.
        return head + ports(source, target, length, 0) + tail(MAGIC, serial)

    return datagram


def icmp(source: IPv4Address, target: IPv4Address, kind: int, code: int, rest: bytes, serial: int) -> bytes:
    """An ICMP message; `rest` is what follows its checksum."""
    body = rest + _TAIL.pack(MAGIC, serial)
    checksum = ~_sum(struct.pack(">BBH", kind, code, 0) + body) & 0xFFFF
    message = struct.pack(">BBH", kind, code, checksum) + body
    return _ipv4_header(source, target, ICMP, len(message)) + message


def other(source: IPv4Address, target: IPv4Address, protocol: int, serial: int) -> bytes:
    """A packet of a protocol of which only the number matters."""
    return _ipv4_header(source, target, protocol, 8 + _TAIL.size) + bytes(8) + _TAIL.pack(MAGIC, serial)


def ipv6_udp(source: IPv6Address, target: IPv6Address, port: int, serial: int) -> bytes:
    tail = _TAIL.pack(MAGIC, serial)
    length = _UDP.size + len(tail)
    ends = source.packed + target.packed
    checksum = ~_sum(ends + struct.pack(">II", length, UDP) + _UDP.pack(port, port, length, 0) + tail) & 0xFFFF
    return struct.pack(">IHBB", 6 << 28, length, UDP, _TTL) + ends + _UDP.pack(port, port, length, checksum) + tail


def arp_request(sender_mac: str, sender: IPv4Address, target: IPv4Address) -> bytes:
    head = struct.pack(">HHBBH", 1, _IPV4, 6, 4, 1)
    return head + mac(sender_mac) + sender.packed + bytes(6) + target.packed


def ethernet(target: str, source: str, packet: bytes) -> bytes:
    """A frame around an IPv4 or IPv6 packet."""
    return link_header(target, source, _IPV6 if packet[0] >> 4 == 6 else _IPV4) + packet


def arp_frame(source: str, request: bytes) -> bytes:
    return link_header(BROADCAST, source, _ARP) + request


@cache
def link_header(target: str, source: str, ethertype: int = _IPV4) -> bytes:
    return mac(target) + mac(source) + struct.pack(">H", ethertype)


def vlan_tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + struct.pack(">HH", _VLAN, tag) + frame[12:]


def with_option(packet: bytes) -> bytes:
    """An IPv4 packet with one more word in its header: a router alert (RFC 2113), which every router forwards."""
    head = bytes([0x46]) + packet[1:2] + struct.pack(">H", len(packet) + 4) + packet[4:10] + b"\0\0" + packet[12:20]
    head += b"\x94\4\0\0"
    return head[:10] + struct.pack(">H", ~_sum(head) & 0xFFFF) + head[12:] + packet[20:]


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def serial_of(data: bytes) -> int | None:
    """The serial of a frame or packet of ours; None for anything else."""
    magic, serial = _TAIL.unpack_from(data, len(data) - _TAIL.size) if len(data) >= _TAIL.size else (b"", 0)
    return int(serial) if magic == MAGIC else None


def ports(packet: bytes) -> tuple[int, int]:
    """Source and target port of an IPv4 packet without options."""
    source, target = _PORTS.unpack_from(packet, 20)
    return source, target


def ends(packet: bytes) -> tuple[IPv4Address, IPv4Address]:
    return IPv4Address(packet[12:16]), IPv4Address(packet[16:20])


def is_ipv4(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00"


def is_arp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x06"


def arp_answer(frame: bytes) -> tuple[bytes, IPv4Address] | None:
    """Who is answered (MAC) for which address; None for what is no ARP reply."""
    if not is_arp(frame) or frame[20:22] != b"\0\2":
        return None
    return frame[32:38], IPv4Address(frame[28:32])


def describe(frame: bytes) -> str:
    """A frame in a few words, for one that nobody sent."""
    if is_ipv4(frame) and len(frame) >= ETHERNET + 24:
        packet = frame[ETHERNET:]
        source, target = ends(packet)
        return f"IPv4 from {source} to {target}, protocol {packet[9]}"
    return f"ethertype 0x{frame[12:14].hex()} from {frame[6:12].hex(':')} to {frame[:6].hex(':')}"


def _ipv4_header(source: IPv4Address, target: IPv4Address, protocol: int, payload: int) -> bytes:
    size = 20 + payload
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 7, 0, _TTL, protocol, 0, source.packed, target.packed)
    checksum = ~_sum(head) & 0xFFFF
    return head[:10] + struct.pack(">H", checksum) + head[12:]


def _sum(data: bytes) -> int:
    """The one's complement sum of RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
