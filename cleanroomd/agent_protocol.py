"""What is said to a QEMU guest agent, and what an answer of one may be: bytes and values, no sockets.

QEMU's "Guest Agent Protocol Reference": one JSON object a line in both directions. An agent does not know where one
client ends and the next begins, so every conversation opens with guest-sync-delimited: a byte 0xFF, which no UTF-8
text has, makes the agent forget half a request, and comes before the answer that carries our number. All before that
answer was meant for somebody else.
"""

import json
import re
from collections.abc import Mapping

REPLY_LIMIT = 64 * 1024
"""Bytes taken from an agent in one conversation; guest-info, the longest answer that we ask for, takes about 5,000."""

_DELIMITER = b"\xff"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,31}")


class AgentAnswerError(Exception):
    """What an agent said is not the answer to what it was asked; the message says what is wrong with it."""


class AgentRefusalError(Exception):
    """The agent answered with an error; the message has its words, unchecked, of whatever length and characters."""


def request(command: str, arguments: Mapping[str, object] | None = None) -> bytes:
    """One command as the agent reads it."""
    document = {"execute": command} | ({"arguments": dict(arguments)} if arguments else {})
    return json.dumps(document).encode() + b"\n"


def sync_request(number: int) -> bytes:
    """What opens a conversation; `number` tells its answer from those of other clients."""
    return _DELIMITER + request("guest-sync-delimited", {"id": number})


class Incoming:
    """What an agent has said in one conversation so far, at most `limit` bytes of it."""

    def __init__(self, limit: int = REPLY_LIMIT) -> None:
        self._budget = limit
        self._held = bytearray()

    def feed(self, untrusted: bytes) -> None:
        """Take what was read; AgentAnswerError when it is nothing, the end of the stream, or too much."""
        if not untrusted:
            raise AgentAnswerError("the connection was closed")
        self._budget -= len(untrusted)
        if self._budget < 0:
            raise AgentAnswerError("the answer is too long")
        self._held += untrusted

    def synchronised(self, number: int) -> bool:
        """Whether the answer to `sync_request(number)` is there; all up to its end is then forgotten."""
        while (untrusted_line := self._line()) is not None:
            _, delimiter, untrusted_answer = untrusted_line.rpartition(_DELIMITER)
            if delimiter and _is_answer(untrusted_answer, number):
                return True
        return False

    def answer(self) -> object | None:
        """What the next command returned, None while the answer is not complete.

        AgentAnswerError for what is no answer, AgentRefusalError for one that says no.
        """
        untrusted_line = self._line()
        if untrusted_line is None:
            return None
        document = _object(untrusted_line)
        if "error" in document:
            untrusted_error = document["error"]
            words = untrusted_error.get("desc") if isinstance(untrusted_error, dict) else None
            raise AgentRefusalError(words if isinstance(words, str) else "it gives no reason")
        if document.get("return") is None:
            raise AgentAnswerError("the answer is not the guest agent's")
        result: object = document["return"]
        return result

    def _line(self) -> bytes | None:
        end = self._held.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line


def agent_version(untrusted_info: object) -> str:
    """The version in what guest-info returned, harmless to show; AgentAnswerError when there is none."""
    untrusted_version = untrusted_info.get("version") if isinstance(untrusted_info, dict) else None
    if not isinstance(untrusted_version, str) or _VERSION.fullmatch(untrusted_version) is None:
        raise AgentAnswerError("guest-info names no version")
    return untrusted_version


def _is_answer(untrusted_line: bytes, number: int) -> bool:
    try:
        returned = _object(untrusted_line).get("return")
    except AgentAnswerError:
        return False
    # True is equal to 1, and 1.0 as well.
    return type(returned) is int and returned == number


def _object(untrusted_line: bytes) -> dict[str, object]:
    try:
        document = json.loads(untrusted_line)
    except (ValueError, RecursionError):
        raise AgentAnswerError("the answer is not JSON") from None
    if not isinstance(document, dict):
        raise AgentAnswerError("the answer is not the guest agent's")
    return document
