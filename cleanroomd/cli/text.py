"""Words for a terminal: what a column can hold, and nothing that a terminal obeys; pure."""

import math
import time
import unicodedata
from collections.abc import Iterator

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def clean(text: str) -> str:
    """`text` on one line, without what could drive a terminal.

    Reasons and proofs quote what machines answered: escape sequences, direction marks and the like become
    question marks.
    """
    spaced = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in spaced)


def width(text: str) -> int:
    """Columns that cleaned `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_width(letter) for letter in text)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def wrap(text: str, columns: int) -> list[str]:
    """`text` cleaned, in lines of at most `columns` (2 or more); words that are longer are broken."""
    lines = [""]
    for word in _words(clean(text), columns):
        if not lines[-1]:
            lines[-1] = word
        elif width(lines[-1]) + 1 + width(word) <= columns:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def clock(seconds: float) -> str:
    """At most seven columns: "00:52", "1:02:03", "12h 05m", "3d 04h"; "-" for what is no duration."""
    if not math.isfinite(seconds):
        return "-"
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days > 99:
        return f"{min(days, 999_999)}d"
    if days:
        return f"{days}d {hour:02}h"
    if hours > 9:
        return f"{hours}h {minute:02}m"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def about(seconds: float) -> str:
    """An estimate, no more precise than it is: "about 40 s", "about 3 min"."""
    if not math.isfinite(seconds):
        return "an unknown time"
    whole = max(0, int(seconds))
    if whole < 10:
        return "some seconds"
    if whole < 95:
        return f"about {(whole + 4) // 5 * 5} s"
    if whole < 95 * 60:
        return f"about {(whole + 30) // 60} min"
    return f"about {min((whole + 1800) // 3600, 99_999)} h"


def moment(unix: float) -> str:
    """A local date and time: "22 Nov 2026 23:10"; "an unknown date" for what is none."""
    local = _local(unix)
    if local is None:
        return "an unknown date"
    return f"{local.tm_mday} {_MONTHS[local.tm_mon - 1]} {local.tm_year} {local.tm_hour:02}:{local.tm_min:02}"


def stamp(unix: float) -> str:
    """A local date and time to sort by: "2026-11-22 23:10:05"; as wide a dash for what is none."""
    local = _local(unix)
    if local is None:
        return f"{'-':19}"
    date = f"{local.tm_year:04}-{local.tm_mon:02}-{local.tm_mday:02}"
    return f"{date} {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}"


def _local(unix: float) -> time.struct_time | None:
    try:
        return time.localtime(unix)
    except (OverflowError, ValueError, OSError):
        return None


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _words(text: str, columns: int) -> Iterator[str]:
    for word in text.split(" "):
        part = ""
        for letter in word:
            if width(part) + _width(letter) > columns:
                yield part
                part = ""
            part += letter
        yield part
