"""Words for a terminal."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cleanroomd.cli.text import about, clean, clock, moment, pad, stamp, width, wrap

anything = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "00:00"),
        (52.9, "00:52"),
        (-3, "00:00"),
        (3723, "1:02:03"),
        (36_000, "10h 00m"),
        (86_400 * 3 + 4 * 3600, "3d 04h"),
        (86_400 * 400, "400d"),
        (float("nan"), "-"),
        (float("inf"), "-"),
    ],
)
def test_clock(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3, "some seconds"),
        (38, "about 40 s"),
        (94, "about 95 s"),
        (100, "about 2 min"),
        (5 * 3600, "about 5 h"),
        (float("inf"), "an unknown time"),
    ],
)
def test_about(seconds: float, expected: str) -> None:
    assert about(seconds) == expected


@settings(deadline=None)
@given(anything)
@example(-62_135_596_800.0)
def test_times_are_words_whatever_the_number(seconds: float) -> None:
    assert 1 <= len(clock(seconds)) <= 7
    assert about(seconds)
    assert moment(seconds)
    assert len(stamp(seconds)) >= 19


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\rb", "\u202e", "\ud800", "\x9b1m", "\x00", "\u200b", "a\nb"])
def test_nothing_that_a_terminal_obeys_gets_through(hostile: str) -> None:
    cleaned = clean(hostile)
    assert cleaned.isprintable()
    cleaned.encode()


def test_accents_survive() -> None:
    assert clean("Échographie  à\nl'étage") == "Échographie à l'étage"


@settings(deadline=None)
@given(st.text(), st.integers(2, 40))
@example("a" * 100, 10)
@example("漢字 漢字漢字漢字", 5)
def test_wrapped_text_fits_and_loses_nothing(text: str, columns: int) -> None:
    lines = wrap(text, columns)
    assert lines
    assert all(width(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == clean(text).replace(" ", "")


@settings(deadline=None)
@given(st.text(max_size=10))
def test_padding_fills_the_columns(text: str) -> None:
    assert width(pad(clean(text), 30)) == 30
