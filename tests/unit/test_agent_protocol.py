"""What counts as an answer of a guest agent, whatever came before it and however it is cut into pieces."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.agent_protocol import (
    AgentAnswerError,
    AgentRefusalError,
    Incoming,
    agent_version,
    request,
    sync_request,
)

NUMBER = 1234
OURS = b'\xff{"return": 1234}\n'


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(places)]


def synchronised(*said: bytes) -> bool:
    incoming = Incoming()
    heard = False
    for piece in said:
        incoming.feed(piece)
        heard = heard or incoming.synchronised(NUMBER)
    return heard


def answer(*said: bytes) -> object:
    incoming = Incoming()
    for piece in said:
        incoming.feed(piece)
    return incoming.answer()


def test_requests_are_single_lines_and_the_first_has_the_delimiter() -> None:
    assert sync_request(NUMBER)[:1] == b"\xff"
    assert json.loads(sync_request(NUMBER)[1:]) == {"execute": "guest-sync-delimited", "arguments": {"id": NUMBER}}
    assert json.loads(request("guest-info")) == {"execute": "guest-info"}
    for line in (sync_request(NUMBER), request("guest-exec", {"path": "a\nb"})):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")


before = st.lists(
    st.one_of(
        st.binary(max_size=60).map(lambda data: data.replace(b"1234", b"")),
        st.sampled_from(
            [
                b'{"return": {"ver',
                b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n',
                b'\xff{"return": 99}\n',
                b'\xff{"retu\xff',
                b"\n",
            ]
        ),
    ),
    max_size=5,
).map(b"".join)


@given(before, st.lists(st.integers(0, 500), max_size=6))
def test_our_answer_is_found_after_whatever_was_somebody_elses(noise: bytes, cuts: list[int]) -> None:
    assert synchronised(*pieces(noise + OURS, cuts))


@given(before)
def test_nothing_else_is_taken_for_our_answer(noise: bytes) -> None:
    assert not synchronised(noise + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b'{"return": 1234}\n',
        b'\xff{"return": 1234}',
        b'\xff{"return": 1234.0}\n',
        b'\xff{"return": "1234"}\n',
        b'\xff{"return": [1234]}\n',
        b'\xff{"id": 1234}\n',
        b"\xff1234\n",
        b"\xff" + b"[" * 50_000 + b"\n",
        b'\xff{"return": ' + b"9" * 5000 + b"}\n",
    ],
)
def test_what_is_almost_our_answer_is_not(line: bytes) -> None:
    assert not synchronised(line)


def test_true_is_not_the_number_one() -> None:
    incoming = Incoming()
    incoming.feed(b'\xff{"return": true}\n')
    assert not incoming.synchronised(1)


def test_what_follows_our_answer_is_kept() -> None:
    incoming = Incoming()
    incoming.feed(OURS + b'{"return": {"version": "7.2"}}\n{"ret')
    assert incoming.synchronised(NUMBER)
    assert incoming.answer() == {"version": "7.2"}
    assert incoming.answer() is None


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_one_of_two_errors(data: bytes) -> None:
    try:
        returned = answer(data + b"\n")
    except (AgentAnswerError, AgentRefusalError):
        return
    assert returned is not None


@pytest.mark.parametrize(
    "line", [b"{}\n", b"[]\n", b"1\n", b'{"return": null}\n', b"\n", b"\xff\n", b"[" * 60_000 + b"\n"]
)
def test_what_returns_nothing_is_no_answer(line: bytes) -> None:
    with pytest.raises(AgentAnswerError):
        answer(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"error": {"class": "CommandNotFound", "desc": "has been disabled"}}\n', "has been disabled"),
        (b'{"error": {"desc": 7}}\n', "no reason"),
        (b'{"error": "x", "return": {}}\n', "no reason"),
    ],
)
def test_a_refusal_has_its_reason(line: bytes, words: str) -> None:
    with pytest.raises(AgentRefusalError, match=words):
        answer(line)


def test_an_end_and_a_flood_are_errors() -> None:
    with pytest.raises(AgentAnswerError, match="closed"):
        Incoming().feed(b"")
    incoming = Incoming(limit=10)
    incoming.feed(b"x" * 10)
    with pytest.raises(AgentAnswerError, match="too long"):
        incoming.feed(b"x")


@pytest.mark.parametrize("version", ["7.2.22", "10.0.8", "107.0.1", "9.2.0-rc1+dfsg~1"])
def test_versions_are_taken(version: str) -> None:
    assert agent_version({"version": version, "supported_commands": []}) == version


@given(
    st.none() | st.text() | st.integers() | st.dictionaries(st.sampled_from(["version", "x"]), st.text() | st.none())
)
def test_what_is_shown_as_a_version_is_harmless(info: object) -> None:
    try:
        version = agent_version(info)
    except AgentAnswerError:
        return
    assert version.isascii()
    assert version.isprintable()
    assert 0 < len(version) <= 32
