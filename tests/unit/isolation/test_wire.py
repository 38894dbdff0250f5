"""Encoder and decoder against each other, and the decoder against what the encoder never writes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.isolation import decode, encode
from cleanroomd.isolation.expressions import Unknown
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.isolation.ruleset import Chain, Element, Family, Table
from cleanroomd.model.posture import Posture
from tests.unit.isolation.postures import postures, unhurried

MESSAGE_HEAD = 20
"""nlmsghdr and nfgenmsg."""


@unhurried
@given(postures(ports=("care", "up0"), taps=("cr-img", "cr.é")))
def test_what_is_encoded_is_decoded_to_the_same(posture: Posture) -> None:
    for table in compile_posture(posture).tables:
        for chain in table.chains:
            head = decode.chain(table.family, encode.new_chain(table, chain).data[MESSAGE_HEAD:])
            assert (head.name, head.hook, head.oddity) == (chain.name, chain.hook, "")
            for rule in chain.rules:
                message = decode.Attributes(encode.new_rule(table, chain, 1, rule).data[MESSAGE_HEAD:])
                assert message.text(2) == chain.name
                assert decode.rule(message.take(4)) == rule
        for item in table.sets:
            found = decode.set_head(encode.new_set(table, item).data[MESSAGE_HEAD:])
            assert (found.name, found.fields, found.verdicts, found.oddity) == (
                item.name,
                item.fields,
                item.verdicts,
                "",
            )
            messages = encode.new_elements(table, item, item.elements)
            elements = [e for message in messages for e in decode.elements(message.data[MESSAGE_HEAD:])]
            assert len(elements) == len(item.elements)
            assert frozenset(elements) == item.elements


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes_are_an_element_or_an_oddity_or_refused(data: bytes) -> None:
    try:
        found = list(decode.elements(data))
    except ValueError:
        return
    assert all(element.oddity or element.key is not None for element in found)


def expression(name: str, attributes: bytes) -> bytes:
    body = encode.attribute(1, name.encode() + b"\0") + encode.attribute(2, attributes)
    return encode.attribute(1, body)


def number(kind: int, value: int) -> bytes:
    return encode.attribute(kind, struct.pack(">I", value))


def data(kind: int, value: bytes) -> bytes:
    return encode.attribute(kind, encode.attribute(1, value))


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("numgen", number(1, 1)),
        ("cmp", number(1, 8) + number(2, 2) + data(3, b"\1")),
        ("cmp", number(1, 40) + number(2, 0) + data(3, b"\1")),
        ("cmp", number(1, 8) + number(2, 0) + data(3, b"\1") + number(9, 1)),
        ("lookup", encode.attribute(1, b"set\0") + number(2, 8) + number(5, 1)),
        ("lookup", encode.attribute(1, b"map\0") + number(2, 8) + number(3, 9)),
        ("bitwise", number(1, 8) + number(2, 8) + number(3, 1) + data(4, b"\xff") + data(5, b"\1")),
        ("bitwise", number(1, 8) + number(2, 9) + number(3, 1) + data(4, b"\xff") + data(5, b"\0")),
        ("immediate", number(1, 0) + encode.attribute(2, encode.attribute(2, number(1, 3)))),
        ("meta", number(1, 8) + number(2, 999)),
        ("meta", number(1, 8) + number(2, 3) + number(3, 8)),
        ("objref", number(1, 7) + encode.attribute(2, b"quota\0")),
        ("payload", b"\1"),
    ],
)
def test_what_the_encoder_never_writes_is_unknown(name: str, attributes: bytes) -> None:
    (found,) = decode.rule(expression(name, attributes))
    assert isinstance(found, Unknown)
    assert found.name == name


def test_two_unknown_expressions_differ() -> None:
    assert decode.rule(expression("numgen", number(1, 1))) != decode.rule(expression("numgen", number(1, 2)))


def test_an_unknown_expression_is_never_written() -> None:
    table = Table(Family.INET, "cleanroom")
    with pytest.raises(ValueError, match="only ever read"):
        encode.new_rule(table, Chain("forward"), 1, (Unknown("numgen", ""),))


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        (4, struct.pack(">Q", 5000), "attribute 5"),
        (5, struct.pack(">Q", 5000), "attribute 5"),
        (3, struct.pack(">I", 1), "flags"),
        (9, b"counter\0", "attribute 9"),
        (10, encode.attribute(1, b"\2\0\0\0"), "attribute 10"),
    ],
)
def test_an_element_with_more_than_a_key_is_odd(kind: int, payload: bytes, words: str) -> None:
    body = data(1, b"\1\0\0\0") + encode.attribute(kind, payload)
    (found,) = decode.elements(encode.attribute(3, encode.attribute(1, body)))
    assert words in found.oddity


def test_a_map_to_nothing_is_not_a_map_to_a_verdict() -> None:
    (plain,) = decode.elements(encode.attribute(3, encode.attribute(1, data(1, b"\1\0\0\0"))))
    assert plain == Element(b"\1\0\0\0", None)


@pytest.mark.parametrize("hook", [number(1, 0) + number(2, 0), number(1, 2) + number(2, 0) + number(9, 1)])
def test_a_hook_that_the_policy_never_uses_is_odd(hook: bytes) -> None:
    chain = (
        encode.attribute(3, b"forward\0") + encode.attribute(4, hook) + number(5, 0) + encode.attribute(7, b"filter\0")
    )
    assert decode.chain(Family.INET, chain).oddity


@pytest.mark.parametrize("more", [number(3, 0x20), encode.attribute(11, bytes(8)), encode.attribute(17, b"\1")])
def test_a_set_that_does_more_than_hold_keys_is_odd(more: bytes) -> None:
    plain = encode.attribute(2, b"flows\0") + number(4, 12) + number(5, 1)
    assert decode.set_head(plain).oddity == ""
    assert decode.set_head(plain + more).oddity != ""
