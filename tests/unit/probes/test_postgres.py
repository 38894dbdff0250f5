import struct
from collections.abc import Callable

import pytest

from cleanroomd.model.plan import PostgresProbe
from cleanroomd.probes import postgres
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer

ANSWERED = Answer(ok=True, detail="PostgreSQL answered")


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", 4 + len(body)) + body


def error(code: str, text: str) -> bytes:
    return message(b"E", b"SFATAL\0VFATAL\0C" + code.encode() + b"\0M" + text.encode() + b"\0\0")


@pytest.fixture
def attempt(peer: Peer, reply: Callable[[bytes], Handler]) -> Callable[[bytes], Answer]:
    """The probe's judgement of a server that says these bytes."""
    return lambda said: postgres.attempt(PostgresProbe(port=peer(reply(said))), LOOPBACK, timeout=2)


def test_the_start_up_message_is_that_of_protocol_3_0() -> None:
    said = postgres.startup_message(user="record", database="health")
    assert struct.unpack(">iHH", said[:8]) == (len(said), 3, 0)
    assert said[8:] == b"user\0record\0database\0health\0application_name\0cleanroomd probe\0\0"


def test_a_name_cannot_end_its_field() -> None:
    assert b"user\0ab\0" in postgres.startup_message(user="a\0b", database="x")


@pytest.mark.parametrize("code", [0, 3, 5, 10])
def test_a_request_for_authentication_is_ready(attempt: Callable[[bytes], Answer], code: int) -> None:
    assert attempt(message(b"R", struct.pack(">i", code) + b"salt")) == ANSWERED


@pytest.mark.parametrize("code", ["28000", "28P01"])
def test_a_refusal_of_authorisation_is_ready(attempt: Callable[[bytes], Answer], code: str) -> None:
    assert attempt(error(code, "no pg_hba.conf entry")) == ANSWERED


def test_a_server_that_is_starting_is_not_ready(attempt: Callable[[bytes], Answer]) -> None:
    answer = attempt(error("57P03", "the database system is starting up"))
    assert answer == Answer(ok=False, detail="waiting for PostgreSQL (the database system is starting up)")


@pytest.mark.parametrize("code", ["53300", "57P01", "XX000", "28", "2800000", "", "\x00"])
def test_other_errors_are_not_ready(attempt: Callable[[bytes], Answer], code: str) -> None:
    assert not attempt(error(code, "sorry")).ok


def test_notices_before_the_answer_are_passed_over(attempt: Callable[[bytes], Answer]) -> None:
    notice = message(b"N", b"SWARNING\0C01000\0Mold\0\0")
    versions = message(b"v", struct.pack(">ii", 0, 0))
    assert attempt(notice + versions + message(b"R", struct.pack(">i", 0))) == ANSWERED
    assert not attempt(notice * 20 + message(b"R", struct.pack(">i", 0))).ok


@pytest.mark.parametrize(
    "said",
    [
        b"R" + struct.pack(">i", 3) + b"\0\0\0\0",
        b"R" + struct.pack(">i", -8) + b"\0\0\0\0",
        message(b"R", b"\0\0"),
        message(b"R", struct.pack(">i", 77)),
        message(b"Z", b"I"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_a_malformed_answer_is_not_ready(attempt: Callable[[bytes], Answer], said: bytes) -> None:
    assert not attempt(said).ok
