import socket
from collections.abc import Callable

import pytest

from cleanroomd.model.plan import LdapProbe
from cleanroomd.probes import ldap
from cleanroomd.probes.answer import Answer

from .ber import ENUMERATED, OCTETS, SEQUENCE, SET, integer, tlv
from .conftest import LOOPBACK, Handler, Peer

SEARCH_ENTRY, SEARCH_DONE, BIND_RESPONSE = 0x64, 0x65, 0x61
ANSWERED = Answer(ok=True, detail="LDAP answered")
Attempt = Callable[..., Answer]


def message(operation: bytes, *, number: int = 1) -> bytes:
    return tlv(SEQUENCE, integer(number), operation)


def entry(*contexts: str, name: str = "") -> bytes:
    values = (tlv(OCTETS, context.encode()) for context in contexts)
    attribute = tlv(SEQUENCE, tlv(OCTETS, b"namingContexts"), tlv(SET, *values))
    other = tlv(SEQUENCE, tlv(OCTETS, b"vendorName"), tlv(SET, tlv(OCTETS, b"dc=other")))
    return message(tlv(SEARCH_ENTRY, tlv(OCTETS, name.encode()), tlv(SEQUENCE, other, attribute)))


def done(code: int = 0, text: str = "", *, number: int = 1) -> bytes:
    result = tlv(SEARCH_DONE, integer(code, ENUMERATED), tlv(OCTETS), tlv(OCTETS, text.encode()))
    return message(result, number=number)


@pytest.fixture
def attempt(peer: Peer, reply: Callable[[bytes], Handler]) -> Attempt:
    """The probe's judgement of a directory that says these bytes."""
    return lambda said, **options: ldap.attempt(LdapProbe(port=peer(reply(said)), **options), LOOPBACK, timeout=2)


def test_the_request_searches_the_root_dse_as_rfc_4511_encodes_it() -> None:
    flags = tlv(0x0A, b"\0") + tlv(0x0A, b"\0") + integer(1) + integer(0) + tlv(0x01, b"\0")
    wanted = tlv(0x87, b"objectClass") + tlv(SEQUENCE, tlv(OCTETS, b"namingContexts"))
    assert ldap.search_request() == message(tlv(0x63, tlv(OCTETS), flags, wanted))


def test_the_root_dse_is_ready(attempt: Attempt) -> None:
    assert attempt(entry("dc=a") + done()) == ANSWERED
    assert attempt(entry() + done()) == ANSWERED


@pytest.mark.parametrize("suffix", ["dc=hospital,dc=example", "DC=Hospital, dc = example"])
def test_the_suffix_must_be_a_naming_context(attempt: Attempt, suffix: str) -> None:
    assert attempt(entry("cn=config", "DC=hospital,DC=example") + done(), suffix=suffix) == ANSWERED
    other = attempt(entry("dc=\x1b[2Jother", "cn=x") + done(), suffix=suffix)
    assert other == Answer(ok=False, detail=f"waiting for LDAP (it holds dc=[2Jother and cn=x, not {suffix})")
    assert attempt(entry() + done(), suffix=suffix).detail == f"waiting for LDAP (it holds nothing, not {suffix})"


@pytest.mark.parametrize("code", [8, 13, 48, 50, 53])
def test_a_directory_that_wants_a_login_is_ready_unless_it_must_say_what_it_holds(attempt: Attempt, code: int) -> None:
    assert attempt(done(code, "no")) == Answer(ok=True, detail="LDAP answered (asks for a login)")
    assert attempt(done(code, "no"), suffix="dc=a").detail == f"waiting for LDAP (result {code}: no)"


@pytest.mark.parametrize("code", [1, 2, 51, 52, 80, 127])
def test_other_results_are_not_ready(attempt: Attempt, code: int) -> None:
    said = done(code, "starting\x1b[1m")
    assert attempt(said) == Answer(ok=False, detail=f"waiting for LDAP (result {code}: starting[1m)")
    assert not attempt(entry("dc=a") + said).ok


@pytest.mark.parametrize(
    "said",
    [
        done(),
        entry("dc=a"),
        entry("dc=a") + done(number=2),
        entry("dc=a") * 9 + done(),
        entry("dc=a", name="dc=a") + done(),
        message(tlv(BIND_RESPONSE, integer(0, ENUMERATED), tlv(OCTETS), tlv(OCTETS))),
        b"\x30\x80" + entry("dc=a")[2:] + b"\0\0",
        b"\x30\x85\0\0\0\0\x01x",
        tlv(SEQUENCE, entry("dc=a")),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_a_malformed_answer_is_not_ready(attempt: Attempt, said: bytes) -> None:
    assert not attempt(said).ok


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x30\x85\0\0\0\0\x01x", b"\x30\x80" + entry("dc=a")[2:]]
)
def test_what_cannot_be_ldap_is_refused_before_its_length_is_believed(attempt: Attempt, said: bytes) -> None:
    assert attempt(said).detail == "waiting for LDAP (the answer is not LDAP)"


def test_a_length_in_many_octets_is_understood(attempt: Attempt) -> None:
    """Active Directory writes every length in four."""
    whole = done()
    assert attempt(entry("dc=a") + b"\x30\x84" + len(whole[2:]).to_bytes(4) + whole[2:]) == ANSWERED


def test_the_connection_ends_in_good_order(peer: Peer) -> None:
    received: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(entry("dc=a") + done())
        received.append(connection.recv(65536))

    port = peer(handle)
    assert ldap.attempt(LdapProbe(port=port), LOOPBACK, timeout=2) == ANSWERED
    # The peer takes one connection after another: it has finished with the first.
    ldap.attempt(LdapProbe(port=port), LOOPBACK, timeout=2)
    assert received[0] == message(b"\x42\x00", number=2)


def test_ldap_over_tls_is_ready(
    peer: Peer, reply: Callable[[bytes], Handler], secured: Callable[[Handler], Handler]
) -> None:
    port = peer(secured(reply(entry("dc=a") + done())))
    assert ldap.attempt(LdapProbe(port=port, tls=True), LOOPBACK, timeout=5, connect_timeout=5) == ANSWERED
