"""No Microsoft SQL Server is packaged for Debian: the peers here say what MS-TDS shows of one, byte for byte."""

import struct
from collections.abc import Callable

import pytest

from cleanroomd.model.plan import MssqlProbe
from cleanroomd.probes import mssql
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer

Attempt = Callable[[bytes], Answer]
VERSION = bytes.fromhex("0f0007d00000")
"""15.0.2000, sub-build 0."""


def packet(payload: bytes, *, kind: int = 4, status: int = 1, length: int | None = None) -> bytes:
    return struct.pack(">BBHHBB", kind, status, 8 + len(payload) if length is None else length, 0, 1, 0) + payload


def prelogin(*options: tuple[int, bytes]) -> bytes:
    at = 5 * len(options) + 1
    tokens, data = b"", b""
    for token, value in options:
        tokens += struct.pack(">BHH", token, at + len(data), len(value))
        data += value
    return tokens + b"\xff" + data


ANSWER = prelogin((0, VERSION), (1, b"\x02"), (2, b"\0"), (3, b""), (4, b"\0"))


@pytest.fixture
def attempt(peer: Peer, reply: Callable[[bytes], Handler]) -> Attempt:
    """The probe's judgement of a server that says these bytes."""
    return lambda said: mssql.attempt(MssqlProbe(port=peer(reply(said))), LOOPBACK, timeout=2)


def test_the_request_is_one_prelogin_packet() -> None:
    options = prelogin((0, bytes(6)), (1, b"\0"), (2, b"\0"), (3, bytes(4)))
    assert mssql.prelogin_request() == packet(options, kind=0x12)


@pytest.mark.parametrize("encryption", [0, 1, 2, 3])
def test_the_version_of_the_server_is_ready(attempt: Attempt, encryption: int) -> None:
    said = packet(prelogin((0, VERSION), (1, bytes([encryption]))))
    assert attempt(said) == attempt(packet(ANSWER)) == Answer(ok=True, detail="SQL Server 15.0.2000 answered")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (prelogin((1, b"\0"), (0, VERSION)), "the answer has no version"),
        (prelogin((0, VERSION[:5]), (1, b"\0")), "the answer has no version"),
        (prelogin((0, bytes(6)), (1, b"\0")), "the answer has no version"),
        (b"\xff", "the answer has no version"),
        (prelogin((0, VERSION)), "the answer has no encryption option"),
        (prelogin((0, VERSION), (1, b"\x04")), "the answer has no encryption option"),
        (prelogin((0, VERSION), (1, b"")), "the answer has no encryption option"),
        (prelogin((0, VERSION), (0, VERSION), (1, b"\0")), "the answer is not a PRELOGIN"),
        (prelogin((0, VERSION), (1, b"\0"))[:-1], "the answer is not a PRELOGIN"),
        (ANSWER.replace(b"\xff", b"\x05"), "the answer is not a PRELOGIN"),
        (bytes(range(200)), "the answer is not a PRELOGIN"),
    ],
)
def test_another_payload_is_not_ready(attempt: Attempt, payload: bytes, why: str) -> None:
    assert attempt(packet(payload)) == Answer(ok=False, detail=f"waiting for SQL Server ({why})")


@pytest.mark.parametrize(
    "said",
    [
        packet(ANSWER, kind=0x12),
        packet(ANSWER, status=0),
        packet(ANSWER, length=8),
        packet(prelogin((0, VERSION), (1, b"\0"), (5, bytes(4096)))),
        packet(b""),
        packet(ANSWER)[:-1],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_a_malformed_answer_is_not_ready(attempt: Attempt, said: bytes) -> None:
    assert not attempt(said).ok


def test_our_own_request_is_no_answer(attempt: Attempt) -> None:
    assert not attempt(mssql.prelogin_request()).ok
