import struct
from collections.abc import Callable
from typing import Any

import pytest

from cleanroomd.model.plan import SmbProbe
from cleanroomd.probes import smb
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer

Attempt = Callable[[bytes], Answer]


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4) + message


def response(**changes: Any) -> bytes:
    """A NEGOTIATE response, field by field as in MS-SMB2 2.2.1.2 and 2.2.4, with some of them changed."""
    header = {
        "protocol": b"\xfeSMB", "header_size": 64, "charge": 0, "status": 0, "command": 0, "credits": 1, "flags": 1,
        "next": 0, "message_id": 0, "reserved": 0, "tree": 0, "session": 0, "signature": bytes(16),
    }  # fmt: skip
    body = {
        "size": 65, "security": 1, "dialect": 0x0311, "contexts": 0, "server": bytes(16), "capabilities": 0,
        "transact": 1 << 20, "read": 1 << 20, "write": 1 << 20, "time": 0, "start": 0, "offset": 128, "length": 4,
        "context_offset": 0,
    }  # fmt: skip
    values = header | body
    assert changes.keys() <= values.keys()
    values |= changes
    return struct.pack("<4sHHIHHIIQIIQ16sHHHH16sIIIIQQHHI", *values.values()) + b"SPNG"


@pytest.fixture
def attempt(peer: Peer, reply: Callable[[bytes], Handler]) -> Attempt:
    """The probe's judgement of a file server that says these bytes."""
    return lambda said: smb.attempt(SmbProbe(port=peer(reply(said))), LOOPBACK, timeout=2)


def test_the_request_offers_every_dialect_as_ms_smb2_lays_it_out() -> None:
    framing, sent = smb.negotiate_request()[:4], smb.negotiate_request()[4:]
    assert int.from_bytes(framing) == len(sent)
    assert sent[:8] == b"\xfeSMB\x40\0\0\0"
    assert sent[8:64] == bytes(6) + b"\x01\0" + bytes(48)
    size, count, mode, _, capabilities, _, offset, contexts, _ = struct.unpack_from("<HHHHI16sIHH", sent, 64)
    assert (size, count, mode, capabilities, contexts) == (36, 5, 1, 0, 1)
    assert struct.unpack_from("<5H", sent, 100) == (0x0202, 0x0210, 0x0300, 0x0302, 0x0311)
    assert offset % 8 == 0
    kind, length, _, algorithms, salt, algorithm = struct.unpack_from("<HHIHHH", sent, offset)
    assert (kind, algorithms, salt, algorithm) == (1, 1, 32, 1)
    assert offset + 8 + length == len(sent)


def test_no_two_requests_are_the_same() -> None:
    assert smb.negotiate_request() != smb.negotiate_request()


@pytest.mark.parametrize(
    ("dialect", "name"), [(0x0202, "2.0.2"), (0x0210, "2.1"), (0x0300, "3.0"), (0x0302, "3.0.2"), (0x0311, "3.1.1")]
)
def test_an_agreed_dialect_is_ready(attempt: Attempt, dialect: int, name: str) -> None:
    assert attempt(framed(response(dialect=dialect))) == Answer(ok=True, detail=f"SMB {name} agreed on")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": 0xC00000BB}, "status 0xC00000BB"),
        ({"status": 0xC0000016}, "status 0xC0000016"),
        ({"dialect": 0x02FF}, "dialect 0x02FF was not offered"),
        ({"dialect": 0}, "dialect 0x0000 was not offered"),
        ({"protocol": b"\xffSMB"}, "the answer is not SMB 2"),
        ({"header_size": 63}, "the answer is not one to our NEGOTIATE"),
        ({"command": 1}, "the answer is not one to our NEGOTIATE"),
        ({"flags": 0}, "the answer is not one to our NEGOTIATE"),
        ({"message_id": 1}, "the answer is not one to our NEGOTIATE"),
        ({"size": 9}, "the answer is not SMB 2"),
        ({"offset": 129}, "the answer is not SMB 2"),
        ({"length": 5}, "the answer is not SMB 2"),
    ],
)
def test_another_answer_is_not_ready(attempt: Attempt, changes: dict[str, Any], why: str) -> None:
    assert attempt(framed(response(**changes))) == Answer(ok=False, detail=f"waiting for SMB ({why})")


@pytest.mark.parametrize(
    "said",
    [
        framed(response()[:127]),
        framed(response()[:63]),
        framed(b""),
        framed(response())[:-1],
        b"\x81" + framed(response())[1:],
        framed(bytes(16 * 1024 + 1)),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_a_malformed_answer_is_not_ready(attempt: Attempt, said: bytes) -> None:
    assert not attempt(said).ok


def test_a_length_beyond_all_answers_is_not_believed(attempt: Attempt) -> None:
    assert attempt(framed(response() + bytes(16 * 1024))).detail == "waiting for SMB (the answer is not SMB 2)"


def test_our_own_request_is_no_answer(attempt: Attempt) -> None:
    assert not attempt(smb.negotiate_request()).ok
