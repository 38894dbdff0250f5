"""What one attempt of a probe found, in words that people read."""

from dataclasses import dataclass

QUOTE_LIMIT = 120
"""Most characters ever quoted from a machine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` is printable: "C-ECHO 0x0000", or "waiting for C-ECHO 0x0000 (connection refused)"."""

    ok: bool
    detail: str


class UnreadyError(Exception):
    """The machine answered, but not what the probe wants; the message says what, already printable."""


def waiting(goal: str, why: str) -> Answer:
    """Not ready: what the probe waits for, and why it did not get it this time."""
    return Answer(ok=False, detail=f"waiting for {goal} ({why})")


def printable(untrusted: str | bytes, limit: int = QUOTE_LIMIT) -> str:
    """`untrusted` as one line of at most `limit` harmless characters.

    Controls, terminal escapes, bidirectional overrides, surrogates and unassigned characters are removed
    (`str.isprintable`), runs of white space become one space. Markup is kept: a board must not interpret it.
    """
    head = untrusted[: 16 * limit]
    text = head.decode("utf-8", "replace") if isinstance(head, bytes) else head
    words = " ".join(text.split())
    clean = "".join(character for character in words if character.isprintable())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
