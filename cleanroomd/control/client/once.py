"""The status, asked for once and synchronously: what `cleanroomctl status` does without importing asyncio."""

import os
import socket
import time

from cleanroomd.control.client.messages import END, PATIENCE, REPLY_LIMIT, StrPath, decode_reply, encode_call, explained
from cleanroomd.model.status import Status

_CHUNK = 64 * 1024


def read_status(path: StrPath, *, patience: float = PATIENCE) -> Status:
    """The status that the daemon at `path` has now; ControlError, after `patience` seconds at most, otherwise."""
    deed, method = "read the status", "GetStatus"
    with explained(deed, path):
        untrusted_message = _exchange(path, encode_call(method, {}, more=False), patience)
        status: Status
        status, _ = decode_reply(deed, method, untrusted_message)
    return status


def _exchange(path: StrPath, call: bytes, patience: float) -> bytes:
    """The first message that answers `call`, without its END."""
    deadline = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        connection.connect(os.fspath(path))
        connection.sendall(call)
        received = bytearray()
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            chunk = connection.recv(_CHUNK)
            if not chunk:
                raise EOFError
            message, end, _ = chunk.partition(END)
            received += message
            if len(received) > REPLY_LIMIT:
                raise ValueError("a reply beyond the limit")
            if end:
                return bytes(received)
