from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.probes.answer import QUOTE_LIMIT, printable


@given(st.one_of(st.binary(), st.text()))
def test_printable_is_one_short_line_without_controls(untrusted: bytes | str) -> None:
    text = printable(untrusted)
    assert len(text) <= QUOTE_LIMIT
    assert text.isprintable()


def test_terminal_escapes_and_bidirectional_overrides_are_removed() -> None:
    assert printable(b"a\x1b[31mred\x07\r\n\tb") == "a[31mred b"
    assert printable("safe\u202eexe.txt") == "safeexe.txt"


def test_long_text_is_cut_visibly() -> None:
    assert printable("x" * 10_000) == "x" * (QUOTE_LIMIT - 1) + "…"


def test_a_short_text_is_kept_as_it_is() -> None:
    assert printable("le système démarre") == "le système démarre"
