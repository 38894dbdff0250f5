"""Readiness of PostgreSQL, by its frontend/backend protocol 3.0, without a password and without a session.

PostgreSQL documentation, part "Internals", chapter "Frontend/Backend Protocol": "Message Flow, Start-up",
"Message Formats" and "Error and Notice Message Fields"; SQLSTATE codes in appendix A.
"""

import struct

from cleanroomd.model.plan import PostgresProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

_PROTOCOL_3_0 = 196608
"""Major version in the upper 16 bits, minor in the lower ("Message Formats", StartupMessage)."""

_AUTHENTICATION_OK = 0
_AUTHENTICATION_CODES = frozenset({0, 2, 3, 5, 6, 7, 8, 9, 10})
"""What may follow the length of an AuthenticationRequest: Ok, KerberosV5, CleartextPassword, MD5Password,
SCMCredential, GSS, GSSContinue, SSPI, SASL."""

_MESSAGE_LIMIT = 16 * 1024
_MESSAGES = 8
"""Notices and a NegotiateProtocolVersion may come first; more of them than this is no PostgreSQL."""

_TERMINATE = b"X" + struct.pack(">i", 4)


def startup_message(*, user: str, database: str) -> bytes:
    """A StartupMessage for `user` and `database`, named so in the server's log."""
    parameters = {"user": user, "database": database, "application_name": "cleanroomd probe"}
    body = b"".join(
        name.encode() + b"\0" + value.replace("\0", "").encode() + b"\0" for name, value in parameters.items()
    )
    return struct.pack(">ii", 4 + 4 + len(body) + 1, _PROTOCOL_3_0) + body + b"\0"


def error_fields(untrusted_body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse by their one-letter type, printable; malformed ones are left out."""
    fields = {}
    for untrusted_field in untrusted_body.split(b"\0"):
        if untrusted_field:
            fields[chr(untrusted_field[0])] = printable(untrusted_field[1:])
    return fields


def judge_error(untrusted_body: bytes) -> None:
    """Return for an error of class 28 (invalid authorisation): only a server that takes connections gives it.

    Everything else raises UnreadyError, first of all 57P03 (cannot_connect_now: starting, recovering).
    """
    fields = error_fields(untrusted_body)
    code = fields.get("C", "")
    if len(code) == 5 and code.startswith("28"):
        return
    raise UnreadyError(fields.get("M") or f"SQLSTATE {code or 'missing'}")


def _await_authentication(connection: Connection) -> None:
    for _ in range(_MESSAGES):
        kind, length = struct.unpack(">ci", connection.receive_exactly(5))
        if kind not in b"RENv" or not 4 <= length <= _MESSAGE_LIMIT:
            raise UnreadyError("the answer is not PostgreSQL's")
        untrusted_body = connection.receive_exactly(length - 4)
        if kind == b"E":
            judge_error(untrusted_body)
            return
        if kind == b"R":
            code = int.from_bytes(untrusted_body[:4]) if len(untrusted_body) >= 4 else None
            if code not in _AUTHENTICATION_CODES:
                raise UnreadyError("the answer is not PostgreSQL's")
            if code == _AUTHENTICATION_OK:
                # A session has begun. Where a password is asked for, silence is the orderly end: the server
                # logs anything else that it gets as an error.
                connection.sendall(_TERMINATE)
            return
    raise UnreadyError("the answer is not PostgreSQL's")


def attempt(probe: PostgresProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when the server asks for authentication, waives it, or refuses it: all three say that it accepts
    connections, which it does not say (57P03) while it starts, recovers or shuts down."""
    try:
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            connection.sendall(startup_message(user=probe.user, database=probe.database))
            _await_authentication(connection)
    except (UnreadyError, OSError) as error:
        return waiting("PostgreSQL", in_words(error))
    return Answer(ok=True, detail="PostgreSQL answered")
