"""Sizes and durations in the words that people read."""

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def format_size(size: int) -> str:
    """`size` bytes with a binary unit and at most one decimal: "1.5 GiB"."""
    for unit, factor in _UNITS:
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


def format_duration(seconds: float) -> str:
    """`seconds` for a sentence: "40 s", "1 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def format_clock(seconds: float, *, tenths: bool = False) -> str:
    """`seconds` as on a stopwatch: "01:12", "01:12.4", "1:02:03" from an hour on."""
    whole, tenth = divmod(max(0, round(seconds * 10)), 10)
    hours, rest = divmod(whole, 3600)
    text = f"{rest // 60:02}:{rest % 60:02}"
    if hours:
        text = f"{hours}:{text}"
    return f"{text}.{tenth}" if tenths else text
