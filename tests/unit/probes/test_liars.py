"""Every protocol against machines that lie, stall, flood or say nonsense: never ready, never an exception.

Deadlines are proven by the attempt's return: a liar goes on until its connection is closed.
"""

import contextlib
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from cleanroomd.model.plan import (
    DicomProbe,
    DnsProbe,
    FhirProbe,
    HttpProbe,
    KerberosProbe,
    LdapProbe,
    MllpProbe,
    MssqlProbe,
    PostgresProbe,
    Protocol,
    SmbProbe,
    TcpProbe,
)
from cleanroomd.probes import dicom, dns, fhir, http, kerberos, ldap, mllp, mssql, postgres, smb, tcp
from cleanroomd.probes.answer import QUOTE_LIMIT, Answer, UnreadyError

from . import test_dns, test_kerberos, test_ldap, test_mssql, test_smb
from .ber import SEQUENCE, tlv
from .conftest import LOOPBACK, Handler, Peer

TIMEOUT = 0.4
UNGUESSABLE = "b6f1e0c5-never-said"


def accepted_association() -> bytes:
    """An A-ASSOCIATE-AC that accepts what the probe proposes."""
    request = A_ASSOCIATE_RQ()
    request.decode(dicom.associate_request(DicomProbe(port=1)))
    primitive = request.to_primitive()
    for context in primitive.presentation_context_definition_list:
        context.result = 0
    primitive.presentation_context_definition_results_list = primitive.presentation_context_definition_list
    return bytes(A_ASSOCIATE_AC(primitive).encode())


def fragment(data: bytes, *, last: bool) -> bytes:
    """A P-DATA-TF with one piece of a command set."""
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((1, (b"\x03" if last else b"\x01") + data))
    return bytes(P_DATA_TF(primitive).encode())


ATTEMPTS: dict[str, Callable[[int], Answer]] = {
    "http": lambda port: http.attempt(HttpProbe(port=port, contains=UNGUESSABLE), LOOPBACK, timeout=TIMEOUT),
    "https": lambda port: http.attempt(HttpProbe(port=port, tls=True), LOOPBACK, timeout=TIMEOUT),
    "tcp": lambda port: tcp.attempt(
        TcpProbe(port=port, send=b"hello", expect=UNGUESSABLE.encode()), LOOPBACK, timeout=TIMEOUT
    ),
    "postgres": lambda port: postgres.attempt(PostgresProbe(port=port), LOOPBACK, timeout=TIMEOUT),
    "mllp": lambda port: mllp.attempt(MllpProbe(port=port), LOOPBACK, timeout=TIMEOUT),
    "dicom": lambda port: dicom.attempt(DicomProbe(port=port), LOOPBACK, timeout=TIMEOUT),
    "fhir": lambda port: fhir.attempt(FhirProbe(port=port), LOOPBACK, timeout=TIMEOUT),
    "ldap": lambda port: ldap.attempt(LdapProbe(port=port, suffix=UNGUESSABLE), LOOPBACK, timeout=TIMEOUT),
    "kerberos": lambda port: kerberos.attempt(KerberosProbe(UNGUESSABLE, port=port), LOOPBACK, timeout=TIMEOUT),
    "smb": lambda port: smb.attempt(SmbProbe(port=port), LOOPBACK, timeout=TIMEOUT),
    "dns": lambda port: dns.attempt(
        DnsProbe(UNGUESSABLE, port=port, transport=Protocol.TCP), LOOPBACK, timeout=TIMEOUT
    ),
    "mssql": lambda port: mssql.attempt(MssqlProbe(port=port), LOOPBACK, timeout=TIMEOUT),
}

OPENINGS: dict[str, bytes] = {
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n",
    "https": b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03",
    "tcp": b"",
    "postgres": b"N" + struct.pack(">i", 16_000),
    "mllp": mllp.START_BLOCK + b"MSH|",
    "dicom": accepted_association() + b"\x04\x00" + struct.pack(">I", 60_000),
    "fhir": b'HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n{"resourceType": "CapabilityStatement", "x": "',
    "ldap": test_ldap.entry("dc=a") + b"\x30\x84\x00\x00\xf0\x00",
    "kerberos": b"\x00\x00\xf0\x00\x7e",
    "smb": b"\x00\x00\x3f\xff\xfeSMB",
    "dns": b"\xff\xff",
    "mssql": test_mssql.packet(b"", length=4096),
}
"""How an honest answer begins: what follows is read, not refused at its first byte."""


def _until_closed(connection: socket.socket, data: bytes, pause: float) -> None:
    connection.settimeout(pause or 5)
    while True:
        with contextlib.suppress(TimeoutError):
            connection.sendall(data)
            if pause and connection.recv(4096) == b"":
                return


def silent(_: str) -> Handler:
    return lambda connection: _until_closed(connection, b"", 0.05)


def drip(protocol: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OPENINGS[protocol])
        _until_closed(connection, b"x", 0.01)

    return handle


def endless(protocol: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OPENINGS[protocol])
        _until_closed(connection, b"x" * 16384, 0)

    return handle


def endless_headers(_: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        _until_closed(connection, b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100, 0)

    return handle


def endless_fragments(_: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(accepted_association())
        _until_closed(connection, fragment(b"x", last=False), 0)

    return handle


def reset(_: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return handle


def close_at_once(_: str) -> Handler:
    return lambda connection: None


def close_midway(protocol: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OPENINGS[protocol])

    return handle


def garbage(_: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(bytes(range(256)) * 40)

    return handle


def echo(_: str) -> Handler:
    def handle(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)

    return handle


LIARS = [
    silent,
    drip,
    endless,
    endless_headers,
    endless_fragments,
    reset,
    close_at_once,
    close_midway,
    garbage,
    echo,
]


def assert_not_ready(answer: Answer) -> None:
    assert not answer.ok
    assert answer.detail.startswith("waiting for ")
    assert answer.detail.isprintable()
    assert len(answer.detail) < 3 * QUOTE_LIMIT


@pytest.mark.parametrize("liar", LIARS)
@pytest.mark.parametrize("protocol", ATTEMPTS)
def test_a_liar_is_never_ready(protocol: str, liar: Callable[[str], Handler], peer: Peer) -> None:
    assert_not_ready(ATTEMPTS[protocol](peer(liar(protocol))))


@pytest.mark.parametrize("protocol", ATTEMPTS)
def test_nothing_listening_is_said_so(protocol: str, closed_port: int) -> None:
    answer = ATTEMPTS[protocol](closed_port)
    assert_not_ready(answer)
    assert "connection refused" in answer.detail


@pytest.mark.parametrize("protocol", ["http", "tcp", "mllp"])
def test_a_flood_is_cut_by_its_length(protocol: str, peer: Peer) -> None:
    answer = ATTEMPTS[protocol](peer(endless(protocol)))
    assert "too long" in answer.detail


def test_an_announced_length_is_not_waited_for(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    answer = ATTEMPTS["dicom"](peer(reply(b"\x02\x00\xff\xff\xff\xff")))
    assert "too long" in answer.detail


def damaged(answer: bytes) -> st.SearchStrategy[bytes]:
    """An answer with one byte of it changed."""
    places = st.tuples(st.integers(0, len(answer) - 1), st.integers(0, 255))
    return places.map(lambda place: answer[: place[0]] + bytes([place[1]]) + answer[place[0] + 1 :])


OTHER_QUESTION = dns.question(DnsProbe("other.example")).to_wire()

random_answers: dict[str, st.SearchStrategy[bytes]] = {
    "http": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail),
        st.binary(max_size=400).map(lambda tail: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + tail),
        st.binary(max_size=400).map(lambda tail: b"HTTP/1.1 " + tail),
    ),
    "https": st.one_of(
        st.binary(max_size=400), st.binary(max_size=400).map(lambda tail: b"\x16\x03\x03\x00\x80\x02" + tail)
    ),
    "tcp": st.binary(max_size=400),
    "postgres": st.one_of(
        # Not "R" or "E": there, four random bytes may be the right ones.
        st.binary(max_size=400).filter(lambda data: data[:1] not in (b"R", b"E")),
        st.binary(max_size=100).map(lambda body: b"N" + struct.pack(">i", 4 + len(body)) + body),
        st.binary(max_size=100).map(
            lambda body: b"E" + struct.pack(">i", 11 + len(body)) + b"C57P03\0" + body.replace(b"C", b"D")
        ),
    ),
    "mllp": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(lambda body: mllp.START_BLOCK + body + mllp.END_BLOCK),
        st.binary(max_size=400).map(lambda body: mllp.START_BLOCK + b"MSH|^~\\&|A\rMSA|AA|" + body + mllp.END_BLOCK),
        st.text("MSHA|^~\\&\r123", max_size=60).map(
            lambda body: mllp.START_BLOCK + b"MSH" + body.encode() + mllp.END_BLOCK
        ),
    ),
    "dicom": st.one_of(
        st.binary(max_size=400),
        st.tuples(st.sampled_from([2, 3, 4, 5, 6, 7]), st.binary(max_size=300)).map(
            lambda pdu: struct.pack(">BxI", pdu[0], len(pdu[1])) + pdu[1]
        ),
        st.binary(max_size=300).map(lambda body: accepted_association() + struct.pack(">BxI", 4, len(body)) + body),
        st.binary(max_size=300).map(lambda body: accepted_association() + fragment(body, last=True)),
        damaged(accepted_association()),
    ),
    "fhir": st.one_of(
        st.binary(max_size=400).map(lambda tail: b"HTTP/1.1 200 OK\r\n\r\n" + tail),
        st.text(max_size=99).map(lambda text: b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps({"status": text}).encode()),
        st.recursive(
            st.text(max_size=9) | st.integers() | st.none(),
            lambda parts: st.lists(parts) | st.dictionaries(st.sampled_from(["resourceType", "status", "x"]), parts),
        ).map(lambda document: b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(document).encode()),
    ),
    # Damage to one byte cannot make these say what the probe wants.
    "ldap": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(lambda body: tlv(SEQUENCE, body)),
        st.binary(max_size=400).map(test_ldap.message),
        damaged(test_ldap.entry("dc=hospital", "dc=example") + test_ldap.done()),
    ),
    "kerberos": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(test_kerberos.framed),
        st.binary(max_size=400).map(lambda body: test_kerberos.framed(tlv(0x7E, tlv(SEQUENCE, body)))),
        damaged(test_kerberos.error(25)),
        damaged(test_kerberos.ticket()),
    ),
    "smb": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(test_smb.framed),
        st.binary(max_size=63).map(lambda body: test_smb.framed(test_smb.response()[:64] + body)),
        damaged(test_smb.framed(test_smb.response(dialect=0x0505))),
    ),
    "dns": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=400).map(lambda body: len(body).to_bytes(2) + body),
        damaged(test_dns.answer(OTHER_QUESTION)).map(lambda body: len(body).to_bytes(2) + body),
    ),
    "mssql": st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=5).map(test_mssql.packet),
        damaged(test_mssql.packet(test_mssql.prelogin((1, b"\x77"), (0, test_mssql.VERSION)))),
    ),
}


@pytest.mark.parametrize("protocol", ATTEMPTS)
def test_random_answers_are_never_ready(protocol: str, peer: Peer) -> None:
    said = b""

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    port = peer(handle)

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(random_answers[protocol])
    def attempt(answer: Any) -> None:
        nonlocal said
        said = answer
        assert_not_ready(ATTEMPTS[protocol](port))

    attempt()


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=600),
        st.binary(max_size=600).map(
            lambda tail: OTHER_QUESTION[:2] + b"\x80\x00\x00\x01\x00\x03\x00\x03\x00\x03" + tail
        ),
        damaged(test_dns.answer(OTHER_QUESTION, records=0)),
        st.lists(st.binary(max_size=40), max_size=5).map(
            lambda data: test_dns.answer(OTHER_QUESTION, records=0) + b"".join(data)
        ),
    )
)
def test_a_random_datagram_is_never_ready(untrusted: bytes) -> None:
    asked = dns.question(DnsProbe(UNGUESSABLE))
    with contextlib.suppress(UnreadyError, *dns.DECODE_ERRORS):
        pytest.fail(dns.judge(untrusted, asked, ("NOERROR",)))
