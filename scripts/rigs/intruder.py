"""The other side: knocks on everything with raw frames, or listens to what gets out. Standard library only.

It runs as a program of its own wherever malware would: on the hospital's network, at the workstation, and inside a
restored machine (through its guest agent, on standard input). One JSON argument says what to do; one JSON object on
standard output says what came of it.

Every packet that it sends carries a mark in two IP fields that routers keep: a listener in the enclosure recognises it
behind the rules, also when its source was forged and no answer could come back.
"""

import json
import os
import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

SERVICE_TYPE = 0x74
"""DSCP 29, which nobody has assigned. With it the identification below cannot be met by chance."""
FIRST_MARK = 0xC1E0
MARKS = 16
ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
BROADCAST = "ff:ff:ff:ff:ff:ff"
PACKET_OUTGOING = 4  # linux/if_packet.h
SOL_PACKET = 263
PACKET_STATISTICS = 6
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}
PAUSE = 0.002
"""Seconds between two frames, so that an emulated machine keeps up and no answer is lost for want of room."""


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(*, to: str, sender: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(to) + mac_bytes(sender) + struct.pack("!H", kind) + payload.ljust(46, b"\0")


def arp_request(*, sender: str, source: str, target: str) -> bytes:
    """Who has `target`, tell `source` (RFC 826)."""
    body = struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, 1) + mac_bytes(sender) + socket.inet_aton(source)
    return ethernet(to=BROADCAST, sender=sender, kind=ETH_P_ARP, payload=body + bytes(6) + socket.inet_aton(target))


def ipv4(*, mark: int, source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """A packet that carries `mark` as its identification (RFC 791)."""
    head = struct.pack("!BBHHHBBH", 0x45, SERVICE_TYPE, 20 + len(payload), mark, 0x4000, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def echo_request(*, mark: int, source: str, target: str) -> bytes:
    body = struct.pack("!BBHHH", 8, 0, 0, mark, 1) + b"cleanroom"
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    return ipv4(mark=mark, source=source, target=target, protocol=1, payload=body)


def tcp_syn(*, mark: int, source: str, target: str, source_port: int, port: int) -> bytes:
    body = struct.pack("!HHIIBBHHH", source_port, port, secrets.randbits(32), 0, 0x50, 0x02, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(body))
    body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
    return ipv4(mark=mark, source=source, target=target, protocol=6, payload=body)


def udp(*, mark: int, source: str, target: str, source_port: int, port: int) -> bytes:
    data = b"cleanroom"
    body = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    return ipv4(mark=mark, source=source, target=target, protocol=17, payload=body)


def ipv6_echo(*, sender: str) -> bytes:
    """An echo request from this link-local address to all nodes (RFC 4443)."""
    identifier = mac_bytes(sender)
    source = bytes.fromhex("fe80000000000000") + bytes(
        [identifier[0] ^ 2, *identifier[1:3], 0xFF, 0xFE, *identifier[3:]]
    )
    target = socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHHH", 128, 0, 0, FIRST_MARK, 1)
    pseudo = source + target + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + target + body
    return ethernet(to="33:33:00:00:00:01", sender=sender, kind=ETH_P_IPV6, payload=packet)


def describe(frame: bytes) -> dict[str, Any]:
    """What a frame is, as far as the judgement needs it; never fails, whatever was received."""
    if len(frame) < 14:
        return {"kind": "short"}
    (kind,) = struct.unpack("!H", frame[12:14])
    body = frame[14:]
    if kind == ETH_P_ARP and len(body) >= 28:
        operation = struct.unpack("!H", body[6:8])[0]
        return {
            "kind": "arp-reply" if operation == 2 else "arp-request",
            "source": socket.inet_ntoa(body[14:18]),
            "target": socket.inet_ntoa(body[24:28]),
            "mac": body[8:14].hex(":"),
        }
    if kind == ETH_P_IP and len(body) >= 20:
        length = (body[0] & 15) * 4
        protocol = PROTOCOLS.get(body[9], str(body[9]))
        found: dict[str, Any] = {
            "kind": protocol,
            "source": socket.inet_ntoa(body[12:16]),
            "target": socket.inet_ntoa(body[16:20]),
            "mark": _mark(body),
        }
        if protocol in ("tcp", "udp") and len(body) >= length + 4:
            found["source_port"], found["port"] = struct.unpack("!HH", body[length : length + 4])
        return found
    return {"kind": "ipv6" if kind == ETH_P_IPV6 else f"0x{kind:04x}"}


def _mark(packet: bytes) -> int:
    """The mark of an IPv4 packet, 0 when it is nobody's of ours."""
    (identification,) = struct.unpack("!H", packet[4:6])
    ours = packet[1] == SERVICE_TYPE and FIRST_MARK <= identification < FIRST_MARK + MARKS
    return int(identification) if ours else 0


def volley(order: dict[str, Any], *, sender: str, gateway: str, source_port: int) -> Iterator[bytes]:
    """All frames of a strike: ARP, ICMP, TCP and UDP from each source to each target, and IPv6 to everybody."""
    mark = int(order["mark"])
    yield ipv6_echo(sender=sender)
    for target in order["targets"]:
        address = target["address"]
        for source in order["sources"]:
            yield arp_request(sender=sender, source=source, target=address)
            packets = [echo_request(mark=mark, source=source, target=address)]
            for port in target["tcp"]:
                syn = tcp_syn(mark=mark, source=source, target=address, source_port=source_port, port=port)
                packets.append(syn)
            for port in target["udp"]:
                datagram = udp(mark=mark, source=source, target=address, source_port=source_port, port=port)
                packets.append(datagram)
            for packet in packets:
                yield ethernet(to=gateway, sender=sender, kind=ETH_P_IP, payload=packet)


def first_interface() -> str:
    return next(name for _, name in sorted(socket.if_nameindex()) if name != "lo")


def drain(link: socket.socket) -> Iterator[dict[str, Any]]:
    """What has arrived since the last call."""
    while True:
        try:
            frame, address = link.recvfrom(65535)
        except BlockingIOError:
            return
        except OSError:
            # The cable is pulled; whatever was received before has been read.
            return
        if address[2] != PACKET_OUTGOING:
            yield describe(frame)


def resolve(link: socket.socket, *, sender: str, source: str, address: str) -> str:
    """The MAC that answers for `address`, "" when nobody does."""
    for _ in range(3):
        send(link, arp_request(sender=sender, source=source, target=address))
        deadline = time.monotonic() + 1.0
        while (left := deadline - time.monotonic()) > 0:
            select.select([link], [], [], left)
            for heard in drain(link):
                if heard["kind"] == "arp-reply" and heard["source"] == address:
                    return str(heard["mac"])
    return ""


def send(link: socket.socket, frame: bytes) -> None:
    """A frame that the own kernel does not take, because the link is dark, counts as tried all the same."""
    try:
        link.send(frame)
    except OSError:
        return


def strike(order: dict[str, Any]) -> dict[str, Any]:
    """Send a whole volley, then listen; returns how many were tried and every distinct thing that came back."""
    interface = order.get("interface") or first_interface()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as link:
        link.bind((interface, ETH_P_ALL))
        link.settimeout(0)
        sender = link.getsockname()[4].hex(":")
        own = order["sources"][0]
        gateway = resolve(link, sender=sender, source=own, address=order["gateway"])
        source_port = 40000 + secrets.randbelow(20000)
        tried = 0
        heard: dict[str, dict[str, Any]] = {}

        def listen(seconds: float) -> None:
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                select.select([link], [], [], left)
                for each in drain(link):
                    each.pop("mark", None)
                    each.pop("mac", None)
                    heard[json.dumps(each, sort_keys=True)] = each

        for frame in volley(order, sender=sender, gateway=gateway or order["fallback_mac"], source_port=source_port):
            send(link, frame)
            tried += 1
            listen(PAUSE)
        listen(order["seconds"])
    return {"tried": tried, "gateway": gateway, "source_port": source_port, "heard": list(heard.values())}


def watch(order: dict[str, Any]) -> dict[str, Any]:
    """Listen on every interface until standard input ends.

    With `emitted` it counts frames that this host sends and that carry a mark; else all that it receives.
    """
    wanted_outgoing = bool(order["emitted"])
    seen: dict[str, dict[str, Any]] = {}
    frames = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        print("listening", flush=True)
        while True:
            readable, _, _ = select.select([link, sys.stdin], [], [])
            if link in readable:
                frame, address = link.recvfrom(65535)
                if address[0] == "lo" or (address[2] == PACKET_OUTGOING) != wanted_outgoing:
                    continue
                found = describe(frame)
                if wanted_outgoing and not found.get("mark"):
                    continue
                frames += 1
                found["interface"] = address[0]
                found.pop("source_port", None)
                if len(seen) < 200:
                    seen[json.dumps(found, sort_keys=True)] = found
            elif sys.stdin in readable and not os.read(0, 4096):
                break
        _, lost = struct.unpack("II", link.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return {"frames": frames, "seen": list(seen.values()), "lost": lost}


def main() -> None:
    order = json.loads(sys.argv[1])
    print(json.dumps({"strike": strike, "watch": watch}[order["act"]](order)))


if __name__ == "__main__":
    main()
