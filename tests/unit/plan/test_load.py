"""Valid plans become what they say; whatever else arrives ends in an error that a person can use."""

import gc
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.errors import CleanroomError
from cleanroomd.model.plan import HttpProbe, MllpProbe, Plan, StartKind
from cleanroomd.plan.load import LARGEST, load, parse
from cleanroomd.plan.problems import PlanError
from tests.unit.plan.writer import Raw, Writer, plans, raw, unhurried

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "plan.toml"
SMALLEST = b"""
[enclosure]
name = "Test"
[[service]]
name = "one"
priority = 1
address = "10.1.0.1"
memory = "512M"
disks = ["one"]
ready = [{ http = "http://:80" }]
"""


AT_FAULT = "; correct what stands there"
TOO_DEEP = "lists or tables are nested too deeply; the deepest in a plan is a table in a list in a table"
LONG_KEY = "a key has more than 64 parts, nested too deeply; no key of a plan has more than 3"


def problems_of(text: bytes) -> list[str]:
    with pytest.raises(PlanError) as caught:
        parse(text, source="plan.toml")
    return [str(problem) for problem in caught.value.problems]


def check_error(error: PlanError, text: bytes) -> None:
    """Every problem is one printable line that points into the file."""
    assert error.problems
    for problem in error.problems:
        assert problem.message
        assert str(problem).isprintable()
        assert problem.line is None or 1 <= problem.line <= text.count(b"\n") + 1
    assert list(error.problems) == sorted(error.problems, key=lambda problem: problem.line or 0)


def parse_or_report(text: bytes) -> Plan | None:
    try:
        return parse(text, source="plan.toml")
    except PlanError as error:
        check_error(error, text)
        return None


def test_the_example_is_valid() -> None:
    plan = load(EXAMPLE)
    assert [service.name for service in plan.services] == [
        "identity",
        "record-db",
        "record",
        "imaging",
        "laboratory",
    ]
    imaging = plan.service("imaging")
    assert (imaging.memory, imaging.memory_min, imaging.ready_timeout) == (4 << 30, 2 << 30, 180.0)
    assert imaging.start is StartKind.WARM
    assert imaging.ready[1] == HttpProbe(8042, path="/system", expect=200)
    assert plan.enclosure.rto == 1800.0
    assert plan.digest == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()


@unhurried
@given(plan=plans(), spread=st.booleans(), inline=st.booleans(), dotted=st.booleans(), crlf=st.booleans())
def test_a_plan_survives_being_written_and_read(
    plan: Plan, spread: bool, inline: bool, dotted: bool, crlf: bool
) -> None:
    text = Writer(spread=spread, inline=inline, dotted=dotted).write(raw(plan))
    text = text.replace(b"\n", b"\r\n") if crlf else text
    assert parse(text, source="plan.toml") == replace(plan, digest=hashlib.sha256(text).hexdigest())


def test_what_a_plan_leaves_out_has_its_default() -> None:
    (service,) = parse(SMALLEST, source="plan.toml").services
    assert service.title == "one"
    assert service.memory_min == service.memory
    assert service.ready_timeout == 300.0
    assert service.shutdown_timeout == 90.0
    assert service.ready == (HttpProbe(80),)
    assert not service.required
    assert parse(SMALLEST, source="plan.toml").flows == ()
    mllp = SMALLEST.replace(b'http = "http://:80"', b"mllp = 2575")
    assert parse(mllp, source="plan.toml").services[0].ready == (MllpProbe(),)


def test_a_derived_mac_is_stable_local_and_unicast() -> None:
    (service,) = parse(SMALLEST, source="plan.toml").services
    assert service.mac == "02:76:92:c3:ad:35"
    assert int(service.mac[:2], 16) & 3 == 2


def test_what_is_listed_twice_is_meant_once() -> None:
    text = SMALLEST + b'[[service]]\nname="two"\npriority=1\naddress="10.1.0.2"\nmemory="1G"\ndisks=["two"]\n'
    text += b'depends_on=["one","one"]\nready=[{tcp=1,expect="x"}]\n[[flow]]\nfrom="one"\nto="two"\ntcp=[80,80]\n'
    plan = parse(text, source="plan.toml")
    assert plan.services[1].depends_on == ("one",)
    assert plan.flows[0].tcp == (80,)


def test_a_byte_order_mark_is_no_problem() -> None:
    assert parse(b"\xef\xbb\xbf" + SMALLEST, source="plan.toml").services


def test_no_service_has_a_long_list_of_problems_in_the_message() -> None:
    text = SMALLEST + b'[[flow]]\nfrom="one"\nto="one"\n' * 50
    with pytest.raises(PlanError) as caught:
        parse(text, source="plan.toml")
    assert len(caught.value.problems) == 100
    lines = caught.value.message.splitlines()
    assert lines[0] == "cannot use the plan plan.toml: 100 problems"
    assert lines[-1] == "  and 80 more problems"
    assert len(lines) == 22


def test_the_collector_runs_again_after_a_plan_was_read() -> None:
    assert gc.isenabled()
    assert problems_of(b"x = 1")
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a = 1\nb = \xff\n", "line 2: byte 0xff is not UTF-8; save the file as UTF-8 text"),
        (b"\xff\xfea\x00", "line 1: byte 0xff is not UTF-8; save the file as UTF-8 text"),
        (b"a = 1\nb 2\n", "line 2: is not TOML: Expected '=' after a key in a key/value pair, at column 3" + AT_FAULT),
        (b"a = 1\nb = [1,\n", "line 2: is not TOML: Invalid value, at the end of the file; complete it"),
        (b"a = 1\na = 2\n", "line 2: is not TOML: Cannot overwrite a value, at column 6" + AT_FAULT),
        (b"a = " + b"[" * 100_000, TOO_DEEP),
        (b"a = " + b"{a=" * 100_000, TOO_DEEP),
        (b"\na" + b'."b"' * 200_000 + b"=1", f"line 2: {LONG_KEY}"),
        (b"[a" + b" . b" * 200_000 + b"]", f"line 1: {LONG_KEY}"),
        (b"#" * (LARGEST + 1), "the file has more than 16 MiB, which no plan needs; is it a plan?"),
    ],
)
def test_a_file_that_is_no_toml_has_one_problem(text: bytes, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_a_number_of_thousands_of_digits_is_a_problem_not_a_crash() -> None:
    (problem,) = problems_of(b"a = " + b"1" * 5000)
    assert problem.startswith("is not TOML: ")
    hexadecimal = SMALLEST.replace(b"priority = 1", b"priority = 0x" + b"f" * 50_000)
    assert problems_of(hexadecimal) == [
        "service[0].priority (line 6): so large a number is out of range; the most is 5"
    ]


def test_an_empty_file_says_what_a_plan_needs() -> None:
    assert problems_of(b"") == [
        "enclosure: is missing; write a section [enclosure]",
        "service: is missing; write a section [[service]]",
    ]


@unhurried
@given(st.binary(max_size=200))
def test_random_bytes_are_reported(text: bytes) -> None:
    assert parse_or_report(text) is None


@unhurried
@given(
    plan=plans(),
    edits=st.lists(
        st.tuples(
            st.integers(0),
            st.integers(0, 40),
            st.sampled_from(
                [b"", b"[", b"]", b'"', b"=", b"\n", b".", b"[[service]]\n", b"\x00", b"\xc3", b"-1", b"{}"]
            ),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_damaged_text_is_read_or_reported(plan: Plan, edits: list[tuple[int, int, bytes]]) -> None:
    text = Writer().write(raw(plan))
    for place, length, insert in edits:
        start = place % (len(text) + 1)
        text = text[:start] + insert + text[start + length :]
    parse_or_report(text)


toml_values = st.recursive(
    st.one_of(
        st.integers(), st.booleans(), st.floats(), st.text(max_size=20), st.sampled_from(["uplink", "care", "1G", "2m"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every value in a document, as its container and the key there."""
    if not isinstance(node, (dict, list)):
        return []
    found = []
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        found += [(node, key), *places(node[key])]
    return found


@unhurried
@given(plan=plans(), data=st.data(), inline=st.booleans())
def test_any_value_anywhere_is_read_or_reported(plan: Plan, data: st.DataObject, inline: bool) -> None:
    document: Raw = raw(plan)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        what = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "remove":
            del container[key]
        elif what == "add" and isinstance(container, dict):
            container[data.draw(st.text(max_size=8))] = data.draw(toml_values)
        else:
            container[key] = data.draw(toml_values)
        if not document:
            return
    parse_or_report(Writer(inline=inline).write(document))


@pytest.mark.parametrize("name", ["missing.toml", "bad\0name"])
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(CleanroomError, match="cannot read the plan") as caught:
        load(tmp_path / name)
    assert caught.value.hint
    assert not isinstance(caught.value, PlanError)


def test_a_directory_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(CleanroomError, match=r"cannot read the plan .*: Is a directory"):
        load(tmp_path)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(PlanError, match="more than 16 MiB"):
        load(Path("/dev/zero"))


def test_a_file_name_need_not_be_text(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"plan\xff.toml")
    file.write_bytes(b"x = 1")
    with pytest.raises(PlanError) as caught:
        load(file)
    assert caught.value.source.endswith("plan\ufffd.toml")


def test_ten_thousand_services_load() -> None:
    service = SMALLEST.partition(b"[[service]]")[2]
    rows = [
        b"[[service]]"
        + service.replace(b'"one"', b'"s%d"' % number).replace(b"10.1.0.1", b"10.%d.%d.9" % divmod(number, 250))
        + (b'depends_on = ["s%d"]\n' % (number - 1) if number else b"")
        for number in range(10_000)
    ]
    head = b'[enclosure]\nname = "Test"\n'
    assert len(parse(head + b"".join(rows), source="plan.toml").services) == 10_000
    rows[0] += b'depends_on = ["s9999"]\n'
    (problem,) = problems_of(head + b"".join(rows))
    assert problem.startswith(
        'service[0].depends_on (line 10): none of these could ever start: "s0" needs "s9999" needs'
    )
