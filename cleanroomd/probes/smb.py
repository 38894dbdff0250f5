"""Readiness of a file server: an SMB 2 NEGOTIATE, which comes before any login.

MS-SMB2 sections 2.1 (transport), 2.2.1.2 (header), 2.2.3 (NEGOTIATE request), 2.2.3.1 (negotiate contexts) and 2.2.4
(response). All dialects from 2.0.2 to 3.1.1 are offered, since a hardened server may take the last only. SMB 1 is not:
a server that speaks nothing else closes the connection.
"""

import secrets
import struct

from cleanroomd.model.plan import SmbProbe
from cleanroomd.probes.answer import Answer, UnreadyError, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

_DIALECTS = {0x0202: "2.0.2", 0x0210: "2.1", 0x0300: "3.0", 0x0302: "3.0.2", 0x0311: "3.1.1"}

_PROTOCOL = b"\xfeSMB"
_NEGOTIATE = 0
_FROM_SERVER = 0x00000001
_STATUS_SUCCESS = 0

_HEADER = struct.Struct("<4sHHIHHIIQIIQ16s")
"""ProtocolId, StructureSize, CreditCharge, Status, Command, Credits, Flags, NextCommand, MessageId, Reserved, TreeId,
SessionId, Signature: 64 bytes."""

_REQUEST = struct.Struct("<HHHHI16sIHH")
"""StructureSize, DialectCount, SecurityMode, Reserved, Capabilities, ClientGuid, NegotiateContextOffset,
NegotiateContextCount, Reserved2: 36 bytes."""

_RESPONSE = struct.Struct("<HHHH16sIIIIQQHHI")
"""StructureSize, SecurityMode, DialectRevision, NegotiateContextCount, ServerGuid, Capabilities, MaxTransactSize,
MaxReadSize, MaxWriteSize, SystemTime, ServerStartTime, SecurityBufferOffset, SecurityBufferLength,
NegotiateContextOffset: 64 bytes, before the buffer of variable length that makes StructureSize 65."""

_SIGNING_ENABLED = 0x0001
_PREAUTH_INTEGRITY, _SHA_512 = 0x0001, 0x0001

_MESSAGE_LIMIT = 16 * 1024


def negotiate_request() -> bytes:
    """A NEGOTIATE with the length that goes before it on TCP. Its preauthentication hash is what 3.1.1 asks for."""
    header = _HEADER.pack(_PROTOCOL, 64, 0, 0, _NEGOTIATE, 1, 0, 0, 0, 0, 0, 0, bytes(16))
    dialects = struct.pack(f"<{len(_DIALECTS)}H", *_DIALECTS)
    # Contexts begin at the first multiple of 8 after the dialects, counted from the header.
    end = len(header) + _REQUEST.size + len(dialects)
    padding = bytes(-end % 8)
    salt = secrets.token_bytes(32)
    integrity = struct.pack("<HHH", 1, len(salt), _SHA_512) + salt
    context = struct.pack("<HHI", _PREAUTH_INTEGRITY, len(integrity), 0) + integrity
    body = _REQUEST.pack(36, len(_DIALECTS), _SIGNING_ENABLED, 0, 0, secrets.token_bytes(16), end + len(padding), 1, 0)
    message = header + body + dialects + padding + context
    return len(message).to_bytes(4) + message


def judge(untrusted: bytes) -> str:
    """The dialect agreed on, in words; UnreadyError when `untrusted` is no good answer to our NEGOTIATE."""
    if len(untrusted) < _HEADER.size or not untrusted.startswith(_PROTOCOL):
        raise UnreadyError("the answer is not SMB 2")
    _, size, _, status, command, _, flags, *_, message_id, _, _, _, _ = _HEADER.unpack_from(untrusted)
    if size != _HEADER.size or command != _NEGOTIATE or not flags & _FROM_SERVER or message_id != 0:
        raise UnreadyError("the answer is not one to our NEGOTIATE")
    if status != _STATUS_SUCCESS:
        raise UnreadyError(f"status 0x{status:08X}")
    if len(untrusted) < _HEADER.size + _RESPONSE.size:
        raise UnreadyError("the answer is too short")
    size, _, dialect, *_, offset, length, _ = _RESPONSE.unpack_from(untrusted, _HEADER.size)
    if size != 65 or offset + length > len(untrusted):
        raise UnreadyError("the answer is not SMB 2")
    if dialect not in _DIALECTS:
        raise UnreadyError(f"dialect 0x{dialect:04X} was not offered")
    return f"SMB {_DIALECTS[dialect]}"


def _receive(connection: Connection) -> bytes:
    """The next message: a zero byte, then its length in three (MS-SMB2 section 2.1)."""
    length = int.from_bytes(connection.receive_exactly(4))
    if length > _MESSAGE_LIMIT:
        # Its first byte is part of this: anything but zero is far too long.
        raise UnreadyError("the answer is not SMB 2")
    return connection.receive_exactly(length)


def attempt(probe: SmbProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when the server agrees on one of the dialects offered; nobody logs in and no share is looked at."""
    try:
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            connection.sendall(negotiate_request())
            dialect = judge(_receive(connection))
    except (UnreadyError, OSError) as error:
        return waiting("SMB", in_words(error))
    return Answer(ok=True, detail=f"{dialect} agreed on")
