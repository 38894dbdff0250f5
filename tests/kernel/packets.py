"""Frames for tests, built by hand, since the interesting ones are those that no well-behaved stack sends."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

IPV4, ARP, IPV6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(target: str, source: str, ethertype: int, payload: bytes) -> bytes:
    return mac(target) + mac(source) + struct.pack(">H", ethertype) + payload


def vlan_tagged(frame: bytes, tag: int = 0) -> bytes:
    return frame[:12] + struct.pack(">HH", VLAN, tag) + frame[12:]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1])) + (
        data[-1] << 8 if len(data) % 2 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def ipv4(
    source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0, ttl: int = 64, options: bytes = b""
) -> bytes:
    """`fragment` is the flags and offset field as it stands in the header; options come in whole words."""
    size = 20 + len(options)
    header = bytearray(
        struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | size // 4,
            0,
            size + len(payload),
            7,
            fragment,
            ttl,
            protocol,
            0,
            IPv4Address(source).packed,
            IPv4Address(target).packed,
        )
        + options
    )
    header[10:12] = struct.pack(">H", checksum(bytes(header)))
    return bytes(header) + payload


def udp(source_port: int, target_port: int, payload: bytes) -> bytes:
    """Without a checksum, which IPv4 allows."""
    return struct.pack(">HHHH", source_port, target_port, 8 + len(payload), 0) + payload


def tcp(source: str, target: str, source_port: int, target_port: int, flags: int, payload: bytes) -> bytes:
    segment = struct.pack(">HHIIBBHHH", source_port, target_port, 1000, 2000, 0x50, flags, 1024, 0, 0) + payload
    pseudo = IPv4Address(source).packed + IPv4Address(target).packed + struct.pack(">BBH", 0, 6, len(segment))
    return segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]


def icmp(kind: int, code: int, rest: bytes) -> bytes:
    message = struct.pack(">BBH", kind, code, 0) + rest
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


def arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """RFC 826; operation 1 asks, 2 answers."""
    head = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    return head + mac(sender_mac) + IPv4Address(sender).packed + mac(target_mac) + IPv4Address(target).packed


def ipv6(source: str, target: str, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    ends = IPv6Address(source).packed + IPv6Address(target).packed
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def icmpv6(source: str, target: str, kind: int, rest: bytes) -> bytes:
    message = struct.pack(">BBH", kind, 0, 0) + rest
    return message[:2] + _ipv6_checksum(source, target, socket.IPPROTO_ICMPV6, message) + message[4:]


def ipv6_udp(
    source: str, target: str, target_port: int, payload: bytes, *, extension: tuple[int, bytes] | None = None
) -> bytes:
    """`extension` is the number of an extension header before UDP and what follows its first two bytes."""
    segment = struct.pack(">HHHH", target_port, target_port, 8 + len(payload), 0) + payload
    segment = segment[:6] + _ipv6_checksum(source, target, socket.IPPROTO_UDP, segment) + segment[8:]
    if extension is None:
        return ipv6(source, target, socket.IPPROTO_UDP, segment)
    kind, rest = extension
    return ipv6(source, target, kind, bytes([socket.IPPROTO_UDP, (2 + len(rest)) // 8 - 1]) + rest + segment)


def _ipv6_checksum(source: str, target: str, protocol: int, segment: bytes) -> bytes:
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed + struct.pack(">II", len(segment), protocol)
    return struct.pack(">H", checksum(pseudo + segment))
