"""Readiness of an LDAP directory: an anonymous search of its root DSE.

RFC 4511 sections 4.1.1 (message), 4.5.1 (search), 4.5.2 (result); RFC 4512 section 5.1 (root DSE). No bind comes
first: LDAP 3 takes a connection without one for anonymous, and nearly every directory shows its root DSE to it.
"""

from collections.abc import Iterator
from typing import Any

from pyasn1.codec.ber import decoder, encoder
from pyasn1_modules import rfc2251

from cleanroomd.model.plan import LdapProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.asn1 import DECODE_ERRORS
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words
from cleanroomd.probes.tls import tls_context

_MESSAGE_ID = 1
_SEQUENCE = 0x30
_SUCCESS = 0
_REFUSALS = frozenset({8, 13, 48, 50, 53})
"""strongerAuthRequired, confidentialityRequired, inappropriateAuthentication, insufficientAccessRights and
unwillingToPerform (RFC 4511 appendix A): for the root DSE, which is in no database, a matter of policy alone."""
_NAMING_CONTEXTS = "namingContexts"

_MESSAGES = 8
"""A search of one entry is answered by two messages; a server that says more than this says something else."""

_UNBIND = bytes((_SEQUENCE, 5, 0x02, 1, _MESSAGE_ID + 1, 0x42, 0))
"""The notice that ends a connection in good order (RFC 4511 section 4.3); pyasn1's tables have it as constructed,
which servers log as an error."""


def search_request() -> bytes:
    """The search for the root DSE: base object "", any object class, its naming contexts."""
    message = rfc2251.LDAPMessage()
    message["messageID"] = _MESSAGE_ID
    search = message["protocolOp"]["searchRequest"]
    search["baseObject"] = ""
    search["scope"] = "baseObject"
    search["derefAliases"] = "neverDerefAliases"
    search["sizeLimit"] = 1
    search["timeLimit"] = 0
    search["typesOnly"] = False
    search["filter"]["present"] = "objectClass"
    search["attributes"].append(_NAMING_CONTEXTS)
    return bytes(encoder.encode(message))


def _receive(connection: Connection) -> Any:
    """The operation of the next message to us."""
    untrusted = connection.receive_exactly(2)
    if untrusted[0] != _SEQUENCE:
        raise UnreadyError("the answer is not LDAP")
    length = untrusted[1]
    if length & 0x80:
        # X.690 8.1.3.5; RFC 4511 section 5.1 forbids the indefinite form, which has no such octets.
        octets = length & 0x7F
        if not 1 <= octets <= 4:
            raise UnreadyError("the answer is not LDAP")
        untrusted_length = connection.receive_exactly(octets)
        untrusted += untrusted_length
        length = int.from_bytes(untrusted_length)
    untrusted += connection.receive_exactly(length)
    message, rest = decoder.decode(untrusted, asn1Spec=rfc2251.LDAPMessage())
    if rest or int(message["messageID"]) != _MESSAGE_ID:
        raise UnreadyError("the answer is not one to our search")
    return message["protocolOp"]


class _RefusedError(UnreadyError):
    """The directory shows its root DSE to nobody who has not logged in."""


def _read_contexts(connection: Connection) -> tuple[str, ...]:
    """The naming contexts of the root DSE, once the search for it has ended with success."""
    contexts: tuple[str, ...] | None = None
    for _ in range(_MESSAGES):
        operation = _receive(connection)
        kind = operation.getName()
        if kind == "searchResEntry":
            contexts = tuple(_contexts(operation["searchResEntry"]))
        elif kind == "searchResDone":
            _require_success(operation["searchResDone"])
            if contexts is None:
                raise UnreadyError("the directory does not show its root DSE")
            return contexts
        else:
            raise UnreadyError("the answer is not one to our search")
    raise UnreadyError("the answer is too long")


def _contexts(untrusted_entry: Any) -> Iterator[str]:
    if bytes(untrusted_entry["objectName"]):
        raise UnreadyError("the answer is not the root DSE")
    for attribute in untrusted_entry["attributes"]:
        if bytes(attribute["type"]).lower() == _NAMING_CONTEXTS.lower().encode():
            for value in attribute["vals"]:
                yield bytes(value).decode("utf-8", "replace")


def _require_success(result: Any) -> None:
    code = int(result["resultCode"])
    if code != _SUCCESS:
        text = printable(bytes(result["errorMessage"]), 80)
        kind = _RefusedError if code in _REFUSALS else UnreadyError
        raise kind(f"result {code}{': ' if text else ''}{text}")


def normal(name: str) -> str:
    """A distinguished name as it compares here: without regard to case, and to spaces around its parts."""
    parts = (part.split("=", 1) for part in name.casefold().split(","))
    return ",".join("=".join(map(str.strip, part)) for part in parts)


def _require_suffix(contexts: tuple[str, ...], suffix: str) -> None:
    if suffix and normal(suffix) not in map(normal, contexts):
        held = printable(" and ".join(contexts), 80) or "nothing"
        raise UnreadyError(f"it holds {held}, not {suffix}")


def _search(connection: Connection, suffix: str) -> str:
    """What the search proves, in words; UnreadyError when that is nothing."""
    connection.sendall(search_request())
    try:
        _require_suffix(_read_contexts(connection), suffix)
    except _RefusedError:
        if suffix:
            raise
        return "LDAP answered (asks for a login)"
    connection.sendall(_UNBIND)
    return "LDAP answered"


def attempt(probe: LdapProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when the root DSE is shown and names `probe.suffix`, if given, among its naming contexts.

    Without a suffix its being kept from the anonymous will do.
    """
    goal = "LDAP"
    try:
        with Connection.open(
            address,
            probe.port,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=tls_context() if probe.tls else None,
        ) as connection:
            return Answer(ok=True, detail=_search(connection, probe.suffix))
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except DECODE_ERRORS as error:
        return waiting(goal, f"the answer is not LDAP: {printable(type(error).__name__)}")
