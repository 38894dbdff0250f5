from collections.abc import Callable

import pytest

from cleanroomd.model.plan import KerberosProbe
from cleanroomd.probes import kerberos
from cleanroomd.probes.answer import Answer

from .ber import GENERAL_STRING, OCTETS, SEQUENCE, TIME, field, integer, tlv
from .conftest import LOOPBACK, Handler, Peer

REALM = "HOSPITAL.EXAMPLE"
Attempt = Callable[..., Answer]


def text(value: str) -> bytes:
    return tlv(GENERAL_STRING, value.encode())


def principal(*parts: str, kind: int = 2) -> bytes:
    return tlv(SEQUENCE, field(0, integer(kind)), field(1, tlv(SEQUENCE, *map(text, parts))))


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4) + message


def error(code: int, *, realm: str = REALM, version: int = 5, said: str = "") -> bytes:
    fields = [
        field(0, integer(version)),
        field(1, integer(30)),
        field(4, tlv(TIME, b"20261123031400Z")),
        field(5, integer(0)),
        field(6, integer(code)),
        field(9, text(realm)),
        field(10, principal("krbtgt", realm)),
    ]
    if said:
        fields.append(field(11, text(said)))
    return framed(tlv(0x7E, tlv(SEQUENCE, *fields)))


def ticket(*, realm: str = REALM, kind: int = 11) -> bytes:
    encrypted = tlv(SEQUENCE, field(0, integer(18)), field(2, tlv(OCTETS, b"secret")))
    inner = [field(0, integer(5)), field(1, text(realm)), field(2, principal("krbtgt", realm)), field(3, encrypted)]
    fields = [
        field(0, integer(5)),
        field(1, integer(kind)),
        field(3, text(realm)),
        field(4, principal("cleanroom-probe", kind=1)),
        field(5, tlv(0x61, tlv(SEQUENCE, *inner))),
        field(6, encrypted),
    ]
    return framed(tlv(0x6B, tlv(SEQUENCE, *fields)))


@pytest.fixture
def attempt(peer: Peer, reply: Callable[[bytes], Handler]) -> Attempt:
    """The probe's judgement of a KDC that says these bytes."""
    return lambda said, **options: kerberos.attempt(
        KerberosProbe(port=peer(reply(said)), realm=REALM, **options), LOOPBACK, timeout=2
    )


def test_the_request_is_that_of_rfc_4120() -> None:
    sent = kerberos.as_request(KerberosProbe(realm=REALM, principal="host/dc1"))
    nonce = sent[sent.index(b"\xa7") :][: sent[sent.index(b"\xa7") + 1] + 2]
    body = [
        field(0, tlv(0x03, bytes(5))),
        field(1, principal("host", "dc1", kind=1)),
        field(2, text(REALM)),
        field(3, principal("krbtgt", REALM)),
        field(5, tlv(TIME, b"19700101000000Z")),
        nonce,
        field(8, tlv(SEQUENCE, *map(integer, (18, 17, 20, 19, 23, 16)))),
    ]
    fields = [field(1, integer(5)), field(2, integer(10)), field(4, tlv(SEQUENCE, *body))]
    assert sent == framed(tlv(0x6A, tlv(SEQUENCE, *fields)))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (25, "pre-authentication required"),
        (18, "principal locked"),
        (23, "password expired"),
        (14, "no encryption type in common"),
    ],
)
def test_what_a_kdc_says_of_a_principal_that_it_knows_is_ready(attempt: Attempt, code: int, said: str) -> None:
    ready = Answer(ok=True, detail=f"Kerberos {REALM} answered ({said})")
    assert attempt(error(code)) == attempt(error(code), principal="surgeon") == ready


def test_an_unknown_principal_is_ready_unless_the_plan_names_it(attempt: Attempt) -> None:
    assert attempt(error(6)) == Answer(ok=True, detail=f"Kerberos {REALM} answered (principal unknown)")
    missing = attempt(error(6), principal="surgeon")
    assert missing == Answer(ok=False, detail=f"waiting for Kerberos {REALM} (surgeon is unknown in {REALM})")


def test_a_ticket_is_ready(attempt: Attempt) -> None:
    assert attempt(ticket()) == Answer(ok=True, detail=f"Kerberos {REALM} answered (ticket given)")


@pytest.mark.parametrize("code", [7, 12, 29, 60, 68, -1, 1 << 40])
def test_other_errors_are_not_ready(attempt: Attempt, code: int) -> None:
    answer = attempt(error(code, said="LOOKING_UP\x1b[1m"))
    assert answer == Answer(ok=False, detail=f"waiting for Kerberos {REALM} (error {code}: LOOKING_UP[1m)")


@pytest.mark.parametrize("said", [error(25, realm="OTHER"), error(6, realm="OTHER"), ticket(realm="OTHER")])
def test_another_realm_is_not_ready(attempt: Attempt, said: bytes) -> None:
    assert attempt(said) == Answer(ok=False, detail=f"waiting for Kerberos {REALM} (the answer is for the realm OTHER)")


@pytest.mark.parametrize(
    "said",
    [
        error(25, version=4),
        ticket(kind=13),
        framed(error(25)[4:] + b"\0"),
        framed(error(25)[4:-3]),
        framed(b"\x7e\x00"),
        framed(tlv(0x7E, tlv(SEQUENCE))),
        b"\x80\0\0\x05" + error(25)[4:],
        framed(b""),
        b"\0\0",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_a_malformed_answer_is_not_ready(attempt: Attempt, said: bytes) -> None:
    assert not attempt(said).ok
