"""Elements with an end: how they are written, compared as the clock goes on, and compiled from passages."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from cleanroomd.isolation import decode, encode
from cleanroomd.isolation.changes import changes
from cleanroomd.isolation.expressions import Load, SourceNat
from cleanroomd.isolation.leases import EARLY, SLACK, settled
from cleanroomd.isolation.policy import APPEARANCE, compile_posture
from cleanroomd.isolation.ruleset import Element, Family, Ruleset, Set, differences
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Allowance, Passage, PortGuard, Posture, TapGuard
from tests.unit.isolation.test_wire import MESSAGE_HEAD

NOW, UNTIL = 1000.0, 1060.0
MACHINE, HOSPITAL = IPv4Network("10.1.20.14"), IPv4Network("192.168.40.10")
OUTSIDE = IPv4Interface("192.168.40.50/24")
UPLINK = PortGuard("uplink", "up0", "52:54:00:00:00:09", dark=False, addresses=(OUTSIDE,), peers=(HOSPITAL,))
TAP = TapGuard("imaging", "tap-imaging", "52:54:00:00:00:01", IPv4Address("10.1.20.14"), None)
PASSAGE = Passage("tap-imaging", MACHINE, "up0", HOSPITAL, Protocol.TCP, 2575, UNTIL, OUTSIDE.ip)
POSTURE = Posture(ports=(UPLINK,), taps=(TAP,), passages=frozenset({PASSAGE}))
RULES = compile_posture(POSTURE)


def timed(ruleset: Ruleset) -> Set:
    table = ruleset.table(Family.INET, "cleanroom")
    assert table is not None
    (found,) = (item for item in table.sets if item.timed)
    return found


def ending(until: float | None) -> Ruleset:
    """The rules as a kernel lists them whose element ends then; without that element for an end before 0."""
    table = RULES.table(Family.INET, "cleanroom")
    assert table is not None
    (element,) = timed(RULES).elements
    gone = until is not None and until < 0
    item = replace(timed(RULES), elements=frozenset() if gone else frozenset({replace(element, until=until)}))
    sets = frozenset(item if each.timed else each for each in table.sets)
    return Ruleset((RULES.tables - {table}) | {replace(table, sets=sets)})


@pytest.mark.parametrize("until", [UNTIL, UNTIL - EARLY, UNTIL - EARLY - SLACK])
def test_an_end_that_fits_is_no_difference_and_moves_no_digest(until: float) -> None:
    wanted, found = settled(RULES, ending(until), NOW)
    assert differences(wanted, found) == ()
    assert found.digest == RULES.digest


@pytest.mark.parametrize("until", [None, UNTIL + 0.001, UNTIL + 3600, UNTIL - EARLY - SLACK - 0.1, -1.0])
def test_any_other_end_is_a_difference_and_is_put_right(until: float | None) -> None:
    wanted, found = settled(RULES, ending(until), NOW)
    assert any("192.168.40.10" in text for text in differences(wanted, found))
    assert any("set flows" in message.words for message in changes(found, wanted, 0))


def test_an_element_is_not_missed_once_its_end_has_come() -> None:
    for now in (UNTIL - EARLY, UNTIL, UNTIL + 5):
        assert differences(*settled(RULES, ending(-1.0), now)) == ()
    assert differences(*settled(RULES, ending(UNTIL), UNTIL)) != (), "one that is still there is one too many"


def test_an_element_is_written_to_end_a_little_early() -> None:
    (element,) = timed(RULES).elements
    assert encode.lifetime(element, UNTIL - 10) == pytest.approx(10_000 - EARLY * 1000, abs=1)
    assert encode.lifetime(element, UNTIL + 10) == 1, "0 would be for ever"
    assert encode.lifetime(replace(element, until=None), NOW) is None


def test_a_timed_set_is_read_as_it_was_written() -> None:
    table = RULES.table(Family.INET, "cleanroom")
    assert table is not None
    found = decode.set_head(encode.new_set(table, timed(RULES)).data[MESSAGE_HEAD:])
    assert (found.kind, found.oddity) == (timed(RULES).kind, "")


def test_what_is_left_of_an_element_becomes_its_end() -> None:
    body = encode.attribute(1, encode.attribute(1, b"\1\0\0\0"))
    body += encode.attribute(4, (9000).to_bytes(8, "big")) + encode.attribute(5, (2500).to_bytes(8, "big"))
    (found,) = decode.elements(encode.attribute(3, encode.attribute(1, body)), NOW)
    assert found == Element(b"\1\0\0\0", until=NOW + 2.5)


def test_no_allowance_leads_to_or_from_the_uplink() -> None:
    stray = {
        Allowance("tap-imaging", MACHINE, "up0", HOSPITAL, Protocol.TCP, 80),
        Allowance("up0", HOSPITAL, "tap-imaging", MACHINE, Protocol.TCP, 80),
        Allowance("", IPv4Network("0.0.0.0/0"), "up0", HOSPITAL, Protocol.TCP, 80),
    }
    assert compile_posture(replace(POSTURE, allowances=frozenset(stray))) == RULES


def test_without_a_passage_nothing_is_translated_and_the_uplink_has_no_accept() -> None:
    dark = replace(POSTURE, ports=(PortGuard("uplink", "up0", UPLINK.mac),))
    for rules in (compile_posture(dark), compile_posture(replace(POSTURE, passages=frozenset()))):
        table = rules.table(Family.INET, "cleanroom")
        assert table is not None
        assert table.chain(APPEARANCE) is None
        assert not any(item.timed for item in table.sets)
        assert not any("up0" in chain.name for chain in table.chains)


def test_connections_bear_the_uplinks_own_address() -> None:
    table = RULES.table(Family.INET, "cleanroom")
    assert table is not None
    chain = table.chain(APPEARANCE)
    assert chain is not None
    (rule,) = chain.rules
    assert rule[-2:] == (Load(0, OUTSIDE.ip.packed), SourceNat(0))


def test_of_two_passages_that_open_the_same_the_later_end_counts() -> None:
    both = replace(POSTURE, passages=frozenset({PASSAGE, replace(PASSAGE, until=UNTIL + 60)}))
    assert {element.until for element in timed(compile_posture(both)).elements} == {UNTIL + 60}
