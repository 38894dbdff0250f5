import struct

from hypothesis import given
from hypothesis import strategies as st

from rigs import intruder

MAC = "52:54:00:00:00:01"


def test_checksum_of_rfc_1071() -> None:
    assert intruder.checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


def test_a_packet_with_its_checksum_sums_to_zero() -> None:
    packet = intruder.tcp_syn(mark=intruder.FIRST_MARK, source="10.0.0.1", target="10.0.0.2", source_port=4, port=80)
    assert intruder.checksum(packet[:20]) == 0
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 6, len(packet) - 20)
    assert intruder.checksum(pseudo + packet[20:]) == 0


def test_its_own_packets_are_recognised_with_their_mark() -> None:
    packet = intruder.udp(mark=intruder.FIRST_MARK + 3, source="10.0.0.1", target="10.0.0.2", source_port=4, port=53)
    frame = intruder.ethernet(to=MAC, sender=MAC, kind=intruder.ETH_P_IP, payload=packet)
    assert intruder.describe(frame) == {
        "kind": "udp",
        "source": "10.0.0.1",
        "target": "10.0.0.2",
        "source_port": 4,
        "port": 53,
        "mark": intruder.FIRST_MARK + 3,
    }


def test_a_packet_with_the_same_identification_by_chance_has_no_mark() -> None:
    packet = bytearray(
        intruder.udp(mark=intruder.FIRST_MARK, source="10.0.0.1", target="10.0.0.2", source_port=4, port=53)
    )
    packet[1] = 0
    frame = intruder.ethernet(to=MAC, sender=MAC, kind=intruder.ETH_P_IP, payload=bytes(packet))
    assert intruder.describe(frame)["mark"] == 0


def test_arp_request_asks_for_the_target() -> None:
    found = intruder.describe(intruder.arp_request(sender=MAC, source="10.0.0.1", target="10.0.0.9"))
    assert found == {"kind": "arp-request", "source": "10.0.0.1", "target": "10.0.0.9", "mac": MAC}


@given(st.binary(max_size=200))
def test_whatever_arrives_is_described(frame: bytes) -> None:
    assert "kind" in intruder.describe(frame)


@given(st.binary(max_size=120), st.sampled_from([0x0800, 0x0806, 0x86DD]))
def test_whatever_a_known_protocol_carries_is_described(body: bytes, kind: int) -> None:
    assert "kind" in intruder.describe(bytes(12) + kind.to_bytes(2, "big") + body)


def test_a_volley_reaches_every_target_from_every_source() -> None:
    order = {
        "mark": intruder.FIRST_MARK,
        "sources": ["10.0.0.1", "10.0.0.7"],
        "targets": [{"address": "10.0.0.2", "tcp": [22, 80], "udp": [53]}],
    }
    found = [intruder.describe(frame) for frame in intruder.volley(order, sender=MAC, gateway=MAC, source_port=41000)]
    kinds = [each["kind"] for each in found]
    assert kinds == ["ipv6", *(["arp-request", "icmp", "tcp", "tcp", "udp"] * 2)]
    assert {each["source"] for each in found if "source" in each} == {"10.0.0.1", "10.0.0.7"}
