import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from cleanroomd.model.plan import DnsProbe, Protocol
from cleanroomd.probes import dns
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer

NAME = "dc1.hospital.example"
GOAL = f"DNS A of {NAME}"
A, CNAME, IN = 1, 5, 1
RESPONSE, TRUNCATED = 0x8000, 0x0200

Say = Callable[[bytes], list[bytes]]
"""What a peer says to a datagram."""


@pytest.fixture
def udp_peer() -> Iterator[Callable[[Say], int]]:
    """Start a peer that answers each datagram with those that a function makes of it; returns its port."""
    with contextlib.ExitStack() as stack:

        def serve(sock: socket.socket, say: Say) -> None:
            while True:
                received, sender = sock.recvfrom(65536)
                if received == b"stop":
                    return
                for datagram in say(received):
                    sock.sendto(datagram, sender)

        def start(say: Say) -> int:
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind((LOOPBACK, 0))
            thread = threading.Thread(target=serve, args=(sock, say))
            thread.start()

            def stop() -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                    ending.sendto(b"stop", sock.getsockname())
                thread.join()

            stack.callback(stop)
            return int(sock.getsockname()[1])

        yield start


def answer(asked: bytes, *, code: int = 0, flags: int = RESPONSE, records: int = 1, kind: int = A) -> bytes:
    """The answer to a question as RFC 1035 lays it out, with as many records of one address."""
    data = b"\x0a\x01\x14\x0a" if kind == A else b"\xc0\x0c"
    record = b"\xc0\x0c" + struct.pack(">HHIH", kind, IN, 60, len(data)) + data
    return asked[:2] + struct.pack(">HHHHH", flags | code, 1, records, 0, 0) + asked[12:] + record * records


def attempt(port: int, **options: object) -> Answer:
    return dns.attempt(DnsProbe(name=NAME, port=port, **options), LOOPBACK, timeout=1)  # type: ignore[arg-type]


def test_the_question_is_that_of_rfc_1035() -> None:
    sent = dns.question(DnsProbe(name=NAME)).to_wire()
    assert struct.unpack_from(">HHHHH", sent, 2) == (0x0100, 1, 0, 0, 0)
    assert sent[12:] == b"\x03dc1\x08hospital\x07example\x00" + struct.pack(">HH", A, IN)


def test_questions_cannot_be_guessed() -> None:
    assert len({dns.question(DnsProbe(name=NAME)).id for _ in range(50)}) > 25


def test_a_record_is_ready(udp_peer: Callable[[Say], int]) -> None:
    assert attempt(udp_peer(lambda asked: [answer(asked)])) == Answer(ok=True, detail=f"{GOAL} answered (NOERROR)")
    assert attempt(udp_peer(lambda asked: [answer(asked, kind=CNAME)])).ok


def test_a_record_over_tcp_is_ready(peer: Peer) -> None:
    def handle(connection: socket.socket) -> None:
        said = answer(connection.recv(65536)[2:])
        connection.sendall(len(said).to_bytes(2) + said)

    assert attempt(peer(handle), transport=Protocol.TCP).ok


def test_an_answer_that_is_cut_is_one(udp_peer: Callable[[Say], int]) -> None:
    assert attempt(udp_peer(lambda asked: [answer(asked, flags=RESPONSE | TRUNCATED, records=0)])).ok


def test_no_record_is_not_ready(udp_peer: Callable[[Say], int]) -> None:
    port = udp_peer(lambda asked: [answer(asked, records=0)])
    assert attempt(port) == Answer(ok=False, detail=f"waiting for {GOAL} (no such record)")


@pytest.mark.parametrize(("code", "name"), [(1, "FORMERR"), (2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED")])
def test_another_response_code_is_ready_only_where_the_plan_says_so(
    udp_peer: Callable[[Say], int], code: int, name: str
) -> None:
    port = udp_peer(lambda asked: [answer(asked, code=code, records=0)])
    assert attempt(port) == Answer(ok=False, detail=f"waiting for {GOAL} ({name})")
    assert attempt(port, accept=("NOERROR", name)) == Answer(ok=True, detail=f"{GOAL} answered ({name})")


def test_what_was_lost_is_asked_again(udp_peer: Callable[[Say], int]) -> None:
    received: list[bytes] = []

    def say(asked: bytes) -> list[bytes]:
        received.append(asked)
        return [answer(asked)] if len(received) == 3 else []

    probe = DnsProbe(name=NAME, port=udp_peer(say))
    assert dns.attempt(probe, LOOPBACK, timeout=5, connect_timeout=0.05).ok
    assert received[0] == received[1] == received[2]


def test_answers_to_others_are_passed_over(udp_peer: Callable[[Say], int]) -> None:
    def other(asked: bytes) -> bytes:
        return bytes([asked[0] ^ 1]) + answer(asked)[1:]

    assert attempt(udp_peer(lambda asked: [other(asked)] * 3 + [answer(asked)])).ok
    flooded = attempt(udp_peer(lambda asked: [other(asked)] * 20))
    assert flooded.detail == f"waiting for {GOAL} (what it sends is no answer)"


@pytest.mark.parametrize(
    "say",
    [
        lambda asked: [asked],
        lambda asked: [answer(asked, flags=0)],
        lambda asked: [answer(asked).replace(b"dc1", b"dc2")],
        lambda asked: [answer(asked)[:-1]],
        lambda asked: [answer(asked) + b"x"],
        lambda asked: [answer(asked)[:12]],
        lambda asked: [asked[:2]],
        lambda asked: [asked[:2] + b"\xc0\x0c" * 50],
        lambda asked: [b""],
        lambda asked: [],
    ],
)
def test_a_malformed_answer_is_not_ready(udp_peer: Callable[[Say], int], say: Say) -> None:
    probe = DnsProbe(name=NAME, port=udp_peer(say))
    assert not dns.attempt(probe, LOOPBACK, timeout=0.3, connect_timeout=0.1).ok


def test_nothing_listening_is_said_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        port = int(sock.getsockname()[1])
    assert attempt(port).detail == f"waiting for {GOAL} (connection refused)"


def test_a_malformed_answer_over_tcp_is_not_ready(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    for said in (b"", b"\0", b"\0\0", b"\0\x0c" + bytes(12), b"\xff\xffx", b"SSH-2.0-OpenSSH_9.2\r\n"):
        assert not attempt(peer(reply(said)), transport=Protocol.TCP).ok
