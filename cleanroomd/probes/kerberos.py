"""Readiness of a Kerberos key distribution centre (KDC): a request for a ticket, without any password.

RFC 4120 sections 3.1 (the exchange), 5.4.1 (KDC-REQ), 5.4.2 (KDC-REP), 5.9.1 (KRB-ERROR), 7.2.2 (TCP), 7.5.7 and
7.5.9 (names and error codes). The request carries no pre-authentication, so that it is no login of anybody: a KDC
answers it with an error that only one which can read its database gives.
"""

import secrets
from typing import Any

from pyasn1.codec.der import decoder, encoder

from cleanroomd.model.plan import KerberosProbe
from cleanroomd.probes import kerberos_messages as messages
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.asn1 import DECODE_ERRORS
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

_VERSION = 5
_AS_REQ, _AS_REP, _KRB_ERROR = 10, 11, 30
_APPLICATION = 0x60
"""Identifier octet of a constructed [APPLICATION n], to which n is added."""

_NT_PRINCIPAL, _NT_SRV_INST = 1, 2

_ENCRYPTION_TYPES = (18, 17, 20, 19, 23, 16)
"""AES (RFC 3962, RFC 8009) first, then RC4 and triple DES for the KDCs of old."""

_WHENEVER = "19700101000000Z"
"""In `till`: for as long as the KDC allows (RFC 4120 section 5.4.1). So no clock has to be right."""

_NOBODY = "cleanroom-probe"

_UNKNOWN = 6
_KNOWN = {
    14: "no encryption type in common",
    18: "principal locked",
    23: "password expired",
    25: "pre-authentication required",
}
"""Errors that a KDC gives about a principal that it has found: ETYPE_NOSUPP, CLIENT_REVOKED, KEY_EXPIRED,
PREAUTH_REQUIRED."""


def as_request(probe: KerberosProbe) -> bytes:
    """An AS-REQ for the realm's ticket-granting service, preceded by its length as on TCP."""
    request = messages.AS_REQ.clone()
    request["pvno"] = _VERSION
    request["msg-type"] = _AS_REQ
    body = request["req-body"]
    body["kdc-options"] = "0" * 32
    _name(body["cname"], _NT_PRINCIPAL, (probe.principal or _NOBODY).split("/"))
    body["realm"] = probe.realm
    _name(body["sname"], _NT_SRV_INST, ["krbtgt", probe.realm])
    body["till"] = _WHENEVER
    body["nonce"] = secrets.randbits(31)
    body["etype"].extend(_ENCRYPTION_TYPES)
    encoded = bytes(encoder.encode(request))
    return len(encoded).to_bytes(4) + encoded


def _name(name: Any, kind: int, parts: list[str]) -> None:
    name["name-type"] = kind
    name["name-string"].extend(parts)


def judge(untrusted: bytes, probe: KerberosProbe) -> str:
    """What the KDC said, in words, when it proves the probe's realm; UnreadyError otherwise."""
    if untrusted[:1] == bytes([_APPLICATION + _AS_REP]):
        reply = _decode(untrusted, messages.AS_REP, _AS_REP)
        _require_realm(reply["crealm"], probe.realm)
        return "ticket given"
    if untrusted[:1] != bytes([_APPLICATION + _KRB_ERROR]):
        raise UnreadyError("the answer is not Kerberos")
    error = _decode(untrusted, messages.KRB_ERROR, _KRB_ERROR)
    code = int(error["error-code"])
    if code == _UNKNOWN and not probe.principal:
        said = "principal unknown"
    elif code in _KNOWN:
        said = _KNOWN[code]
    elif code == _UNKNOWN:
        raise UnreadyError(f"{probe.principal} is unknown in {probe.realm}")
    else:
        text = printable(bytes(error["e-text"]), 60) if error["e-text"].isValue else ""
        raise UnreadyError(f"error {code}{': ' if text else ''}{text}")
    _require_realm(error["realm"], probe.realm)
    return said


def _decode(untrusted: bytes, kind: Any, number: int) -> Any:
    message, rest = decoder.decode(untrusted, asn1Spec=kind)
    if rest or int(message["pvno"]) != _VERSION or int(message["msg-type"]) != number:
        raise UnreadyError("the answer is not Kerberos")
    return message


def _require_realm(untrusted_realm: Any, realm: str) -> None:
    found = printable(bytes(untrusted_realm))
    if found != realm:
        raise UnreadyError(f"the answer is for the realm {found}")


def attempt(probe: KerberosProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when the KDC gives a ticket, or says of `probe.principal` that it needs to log in properly.

    Without a principal, its saying that a made-up one is unknown will do: it has looked into its database. MIT's KDC
    says that of any realm, so only a principal proves that it serves this one.
    """
    goal = f"Kerberos {probe.realm}"
    try:
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            connection.sendall(as_request(probe))
            untrusted_length = int.from_bytes(connection.receive_exactly(4))
            said = judge(connection.receive_exactly(untrusted_length), probe)
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except DECODE_ERRORS as error:
        return waiting(goal, f"the answer is not Kerberos: {printable(type(error).__name__)}")
    return Answer(ok=True, detail=f"{goal} answered ({said})")
