"""Where a problem is said to be is where its author wrote it."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.model.plan import Plan
from cleanroomd.plan.lines import Lines
from tests.unit.plan.writer import Writer, plans, raw, unhurried


@unhurried
@given(plan=plans(), spread=st.booleans(), inline=st.booleans(), dotted=st.booleans())
def test_every_key_is_found_on_its_line(plan: Plan, spread: bool, inline: bool, dotted: bool) -> None:
    writer = Writer(spread=spread, inline=inline, dotted=dotted)
    lines = Lines(writer.write(raw(plan)))
    for loc, line in writer.lines.items():
        assert lines.line(loc) == line, loc


def test_what_is_missing_is_found_at_what_should_hold_it() -> None:
    lines = Lines(b'a = 1\n\n[b]\nc = [\n  { d = 1 },\n  { d = 2 },\n]\n[[e]]\n[[e]]\nf = "x"\n')
    assert lines.line(("b", "x")) == 3
    assert lines.line(("b", "c", 1, "x")) == 6
    assert lines.line(("b", "c", 7)) == 4
    assert lines.line(("e", 1, "x")) == 9
    assert lines.line(("e", 1, "f", "deeper")) == 10
    assert lines.line(("x",)) is None
    assert lines.line(()) is None


def test_headers_and_keys_of_every_spelling() -> None:
    text = b"""[ "a b" . 'c.d' ]
"e\\u0041" = 1
[[s]]
[s.t]
u = 1
[[s.v]]
w = 1
[[s]]
[[s.v]]
[[s.v]]
w . x = 2
[later] # sub-tables may come first
[later.than]
y = 1
"""
    tomllib.loads(text.decode())
    lines = Lines(text)
    assert lines.line(("a b", "c.d", "eA")) == 2
    assert lines.line(("s",)) == 3
    assert lines.line(("s", 0, "t", "u")) == 5
    assert lines.line(("s", 0, "v", 0, "w")) == 7
    assert lines.line(("s", 1)) == 8
    assert lines.line(("s", 1, "v", 1, "w", "x")) == 11
    assert lines.line(("later", "than", "y")) == 14
