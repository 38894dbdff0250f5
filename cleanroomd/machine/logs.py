"""What guests say on their consoles, and QEMU of them: kept, bounded, and quoted."""

import os
from contextlib import suppress
from pathlib import Path

_LIMIT = 1 << 20


def bound(path: Path) -> None:
    """Keep a log to about two megabytes: its newest one, and at most as much before that in a file beside it.

    The disk that it would fill holds the crisis data. It is written in append mode, so that whoever writes goes on
    at the new end.
    """
    with suppress(OSError):
        if path.stat().st_size > _LIMIT:
            _halve(path)


def _halve(path: Path) -> None:
    """Keep the end of `path` beside it, if there is room for that, and empty it in any case."""
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(-_LIMIT, os.SEEK_END)
        path.with_name(f"{path.name}.1").write_bytes(stream.read(_LIMIT))
    os.truncate(path, 0)


def tail(path: Path, limit: int) -> str:
    """The last words in `path`, printable and at most `limit` characters."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 4 * limit))
            untrusted_text = stream.read(4 * limit).decode(errors="replace")
    except OSError:
        return ""
    words = " ".join("".join(c if c.isprintable() else " " for c in untrusted_text).split())
    return words[-limit:]
