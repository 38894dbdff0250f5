"""Readiness of Microsoft SQL Server: a TDS PRELOGIN, which comes before any login.

MS-TDS sections 2.2.3.1 (packet header) and 2.2.6.5 (PRELOGIN). The server answers it as soon as it takes logins, which
may be before it has recovered every database.
"""

import struct

from cleanroomd.model.plan import MssqlProbe
from cleanroomd.probes.answer import Answer, UnreadyError, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

_PRELOGIN, _TABULAR_RESULT = 0x12, 0x04
_END_OF_MESSAGE = 0x01

_HEADER = struct.Struct(">BBHHBB")
"""Type, Status, Length (of the whole packet), SPID, PacketID, Window."""

_OPTION = struct.Struct(">BHH")
"""Token, offset from the beginning of the payload, length."""

_VERSION, _ENCRYPTION, _INSTANCE, _THREAD, _TERMINATOR = 0x00, 0x01, 0x02, 0x03, 0xFF
_ENCRYPT_OFF = 0
_ENCRYPT_ANSWERS = range(4)
"""Off, on, not supported, required."""

_PACKET_LIMIT = 4096
"""Default size of a packet; the answer fits one by far."""

_OPTIONS = 16


def prelogin_request() -> bytes:
    """One packet that says what every client says: its version (none), no encryption of its own, any instance."""
    options = {_VERSION: bytes(6), _ENCRYPTION: bytes([_ENCRYPT_OFF]), _INSTANCE: b"\0", _THREAD: bytes(4)}
    offset = len(options) * _OPTION.size + 1
    tokens, data = b"", b""
    for token, value in options.items():
        tokens += _OPTION.pack(token, offset + len(data), len(value))
        data += value
    payload = tokens + bytes([_TERMINATOR]) + data
    return _HEADER.pack(_PRELOGIN, _END_OF_MESSAGE, _HEADER.size + len(payload), 0, 1, 0) + payload


def options(untrusted_payload: bytes) -> dict[int, bytes]:
    """The options of a PRELOGIN by their tokens; UnreadyError when it is not well formed."""
    found: dict[int, bytes] = {}
    for number in range(_OPTIONS):
        at = number * _OPTION.size
        if untrusted_payload[at : at + 1] == bytes([_TERMINATOR]):
            return found
        if len(untrusted_payload) < at + _OPTION.size:
            break
        token, offset, length = _OPTION.unpack_from(untrusted_payload, at)
        if token in found or offset + length > len(untrusted_payload):
            break
        found[token] = untrusted_payload[offset : offset + length]
    raise UnreadyError("the answer is not a PRELOGIN")


def judge(untrusted_payload: bytes) -> str:
    """The server's version; UnreadyError when the answer is no PRELOGIN of a server."""
    found = options(untrusted_payload)
    version, encryption = found.get(_VERSION, b""), found.get(_ENCRYPTION, b"")
    if next(iter(found), None) != _VERSION or len(version) != 6:
        raise UnreadyError("the answer has no version")
    if len(encryption) != 1 or encryption[0] not in _ENCRYPT_ANSWERS:
        raise UnreadyError("the answer has no encryption option")
    major, minor, build = struct.unpack_from(">BBH", version)
    if not major:
        raise UnreadyError("the answer has no version")
    return f"{major}.{minor}.{build}"


def _receive(connection: Connection) -> bytes:
    """The payload of the answer, one packet."""
    kind, status, length, *_ = _HEADER.unpack(connection.receive_exactly(_HEADER.size))
    if kind != _TABULAR_RESULT or not status & _END_OF_MESSAGE or not _HEADER.size < length <= _PACKET_LIMIT:
        raise UnreadyError("the answer is not SQL Server's")
    return connection.receive_exactly(length - _HEADER.size)


def attempt(probe: MssqlProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when the PRELOGIN is answered with the server's version; nobody logs in."""
    try:
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            connection.sendall(prelogin_request())
            version = judge(_receive(connection))
    except (UnreadyError, OSError) as error:
        return waiting("SQL Server", in_words(error))
    return Answer(ok=True, detail=f"SQL Server {version} answered")
