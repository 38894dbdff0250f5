"""What `isolation verify` must see: every change of the live rules, a hole in any layer, a compiler that is wrong."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import links, netlink, policy, replay, twin
from cleanroomd.isolation.apart import Request, verify_apart
from cleanroomd.isolation.dump import Dump
from cleanroomd.isolation.endpoints import Scene
from cleanroomd.isolation.expressions import Action, Base, Payload, Rule, Verdict
from cleanroomd.isolation.frames import arp_answer, serial_of
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import LET_THROUGH, compile_posture
from cleanroomd.isolation.ruleset import Element, Family, Ruleset
from cleanroomd.isolation.trials import arp_trials, forbidden
from cleanroomd.isolation.verify import verify
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Passage, PortGuard, Posture
from cleanroomd.model.verification import Verification
from tests.kernel import world as worlds
from tests.kernel.mutations import (
    ACCEPT,
    FAMILIES,
    FOREIGN,
    MARKED,
    accepting,
    found,
    inserted,
    mutation,
    with_set,
    with_table,
)
from tests.kernel.world import IMG, POSTURE, TO_IMAGING, World
from tests.unit.isolation.reachable import postures

SEEDS = range(10)
CHANGES = 20
"""Of each seed: 200 in all."""


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[World, RuleWriter]]:
    """One enclosure for all: every test puts the rules back."""
    with worlds.built() as world, world.writer() as writer:
        world.allow(writer, *POSTURE.allowances)
        yield world, writer


@pytest.fixture
def live(shared: tuple[World, RuleWriter]) -> Iterator[tuple[World, RuleWriter]]:
    world, writer = shared
    yield world, writer
    writer.apply(compile_posture(POSTURE))


def said(verification: Verification) -> list[str]:
    return [*verification.differences, *verification.surroundings]


def test_an_untouched_enclosure_is_as_planned(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    verification = verify(POSTURE, owner=writer.port, names={"10.77.0.0/24": "workstations"})
    assert verification.ok, (said(verification), verification.mismatches)
    assert verification.flows == len(POSTURE.allowances)
    assert verification.generation == writer.generation()
    pairs = {(each.origin, each.target): each for each in verification.relations}
    names = ("enclosure", "uplink", "workstations", "imaging", "database")
    assert pairs.keys() >= {(a, b) for a in names for b in names if a != b}
    assert pairs["workstations", "imaging"].allowed == ("tcp 4242", "udp 9")
    assert all(each.forbidden > 10 for each in pairs.values())


def test_every_forbidden_packet_would_arrive_without_rules() -> None:
    """A trial that the kernel itself stops would prove nothing; the answer to ARP as well."""
    scene = Scene(POSTURE, 0.0)
    flows = list(scene.flows())
    with twin.built(scene, Dump(0, ()), replay.hosts(scene)) as bare:
        bare.without_kernel_checks()
        bare.drain()
        trials = list(forbidden(scene, flows, count(1)))
        assert len(trials) > 400
        for trial in trials:
            bare.send(trial.origin, trial.data)
            assert trial.serial in {serial_of(arrival.packet) for arrival in bare.drain()}, trial.words
        for question in arp_trials(scene):
            bare.send(question.origin, question.frame)
            answers = [arp_answer(arrival.frame) for arrival in bare.drain()]
            assert question.asker in {answer[0] for answer in answers if answer}, question.words


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(120)
def test_single_changes_are_named(live: tuple[World, RuleWriter], seed: int) -> None:
    """Made through the owning socket: nobody else could, and then the change of owner would be named first."""
    world, writer = live
    random = Random(seed)
    applied = seen_by_twin = 0
    while applied < CHANGES:
        if random.random() < 0.12:
            name = f"foreign{random.randrange(1000)}"
            template = random.choice(FOREIGN)
            world.enclosure.run("nft", template.format(name=name, priority=random.choice([1, 50, 300])))
            words, named = template, f"table {FAMILIES[template]} {name} is not ours"
        else:
            change = mutation(compile_posture(POSTURE), random)
            try:
                writer.apply(change.ruleset)
            except IsolationError:
                continue
            words, named, name = change.words, change.named, ""
        applied += 1
        verification = verify(POSTURE, owner=writer.port)
        assert not verification.ok, words
        assert any(named in text for text in said(verification)), (words, named, said(verification))
        seen_by_twin += bool(verification.mismatches)
        if name:
            world.enclosure.run("nft", "delete", "table", FAMILIES[template], name)
        writer.apply(compile_posture(POSTURE))
    assert verify(POSTURE, owner=writer.port).ok
    # Much of what changes opens nothing: a removed counter, a drop more, a return where a drop comes next.
    assert seen_by_twin >= CHANGES // 4
    print(f"{applied} single changes named, {seen_by_twin} of them seen by packets too")


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_any_single_change_is_named(shared: tuple[World, RuleWriter], random: Random) -> None:
    _, writer = shared
    writer.apply(compile_posture(POSTURE))
    change = mutation(compile_posture(POSTURE), random)
    try:
        writer.apply(change.ruleset)
    except IsolationError:
        return
    verification = verify(POSTURE, owner=writer.port)
    writer.apply(compile_posture(POSTURE))
    assert any(change.named in text for text in verification.differences), change.words


def element_added(ruleset: Ruleset, name: str, element: Element) -> Ruleset:
    table, _ = found(ruleset, Family.INET, "forward")
    item = table.set(name)
    assert item is not None
    return with_table(ruleset, with_set(table, replace(item, elements=item.elements | {element})))


NETDEV, INET = Family.NETDEV, Family.INET
HIDDEN: dict[str, Callable[[Ruleset], Ruleset]] = {
    "accept in forward": lambda r: inserted(r, INET, "forward", (*MARKED, ACCEPT)),
    "accept without a mark in forward": lambda r: inserted(r, INET, "forward", (ACCEPT,)),
    "accept in input": lambda r: inserted(r, INET, "input", (ACCEPT,)),
    "accept in output": lambda r: inserted(r, INET, "output", (*MARKED, ACCEPT)),
    "accept at a machine's entrance": lambda r: inserted(r, NETDEV, "ingress//cr-img", (ACCEPT,)),
    "accept at a port's entrance": lambda r: inserted(r, NETDEV, "ingress//care", (ACCEPT,)),
    "accept at a dark port's entrance": lambda r: inserted(r, NETDEV, "ingress//up0", (ACCEPT,)),
    "accept at a machine's exit": lambda r: inserted(r, NETDEV, "egress//cr-db", (ACCEPT,)),
    "accept at a dark port's exit": lambda r: inserted(r, NETDEV, "egress//up0", (ACCEPT,)),
    "accept in the chain of a pair": lambda r: inserted(r, INET, "forward//care//cr-img", (*MARKED, ACCEPT)),
    "accept where answers come back": lambda r: inserted(r, INET, "forward//cr-img//care", (*MARKED, ACCEPT)),
    "policy of forward": lambda r: accepting(inserted(r, INET, "denied", (ACCEPT,)), INET, "forward"),
    "policy of an entrance": lambda r: accepting(r, NETDEV, "ingress//cr-db"),
    "one port more": lambda r: element_added(
        r,
        "flows//care//cr-img//24-32",
        Element(bytes([10, 77, 0, 0, 10, 1, 20, 14, 6, 0, 0, 0, 0, 22, 0, 0])),
    ),
    "a pair that the map lets through": lambda r: element_added(
        r,
        "forward",
        Element(b"cr-db".ljust(16, b"\0") + b"care".ljust(16, b"\0"), Verdict(Action.GOTO, LET_THROUGH)),
    ),
}


@pytest.mark.parametrize("hole", HIDDEN)
def test_a_hidden_hole_is_found_by_packets_alone(live: tuple[World, RuleWriter], hole: str) -> None:
    """With the comparison switched off: the twin can fail, whatever layer the hole is in."""
    _, writer = live
    writer.apply(HIDDEN[hole](compile_posture(POSTURE)))
    verification = verify(POSTURE, compare=False, look_around=False)
    assert not verification.ok
    assert verification.mismatches
    assert not said(verification)
    assert any("chain" in each.rule for each in verification.mismatches), verification.mismatches[:3]


def test_a_foreign_table_that_takes_packets_away_is_found_by_packets_alone(live: tuple[World, RuleWriter]) -> None:
    """The twin has all tables of the dump, and the trace names the one that decided."""
    world, _ = live
    text = "table inet other { chain c { type filter hook forward priority -9; tcp dport 4242 drop; }; }"
    world.enclosure.run("nft", text)
    try:
        (lost,) = verify(POSTURE, compare=False, look_around=False).mismatches
    finally:
        world.enclosure.run("nft", "delete", "table", "inet", "other")
    assert (lost.packet, lost.found) == ("tcp 4242 from 10.77.0.2 to 10.1.20.14", "it did not arrive")
    assert lost.rule.startswith("chain c of table inet other, rule 1: ")


def test_the_rule_that_decided_is_named(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    writer.apply(inserted(compile_posture(POSTURE), INET, "forward//care//cr-img", (*MARKED, ACCEPT)))
    verification = verify(POSTURE, compare=False, look_around=False)
    rules = {each.rule for each in verification.mismatches}
    assert any("chain forward//care//cr-img of table inet cleanroom, rule 1: " in rule for rule in rules), rules
    writer.apply(inserted(compile_posture(POSTURE), INET, "forward//care//cr-img", ()))
    less = replace(POSTURE, allowances=POSTURE.allowances - {TO_IMAGING})
    writer.apply(compile_posture(less))
    verification = verify(POSTURE, compare=False, look_around=False)
    (lost,) = verification.mismatches
    assert (lost.origin, lost.target, lost.found) == ("care 10.77.0.0/24", "imaging", "it did not arrive")
    assert "chain denied of table inet cleanroom, rule" in lost.rule
    assert lost.rule.endswith("drop")


def wrong(name: str, change: Callable[[Callable[..., Rule]], Callable[..., object]]) -> tuple[str, object]:
    return name, change(getattr(policy, name))


def one_port_more(original: Callable[..., Rule]) -> Callable[..., object]:
    return lambda opened: original([*opened, *(replace(each, port=each.port ^ 1) for each in opened)])


def from_the_wrong_end(original: Callable[..., Rule]) -> Callable[..., Rule]:
    """The source port, where the destination port belongs."""
    return lambda prefixes: (*original(prefixes)[:-1], Payload(Base.TRANSPORT, 0, 2, 3))


WRONG: dict[str, Callable[[], tuple[str, object]]] = {
    "no source address at the entrance": lambda: wrong("_source_in", lambda f: lambda network: ()),
    "no MAC": lambda: wrong("_from_mac", lambda f: lambda mac: ()),
    "IP options pass": lambda: ("_is_plain_ipv4", policy._is_ipv4),
    "whatever the ethertype": lambda: wrong("_is_plain_ipv4", lambda f: tuple),
    "a gate without a mark": lambda: wrong("_egress", lambda f: lambda guard: ((ACCEPT,),)),
    "a neighbouring port too": lambda: wrong("_flows", one_port_more),
    "the port of the wrong end": lambda: wrong("_own_tuple", from_the_wrong_end),
    "no ARP check": lambda: wrong("_arp_sender_in", lambda f: lambda network: ()),
    "no answer passes": lambda: wrong("_original_tuple", lambda f: lambda prefixes: f((0, 0))),
    "masks of one bit less": lambda: wrong("_mask", lambda f: lambda length: f(max(0, length - 1))),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_compiler_is_found_by_packets(
    live: tuple[World, RuleWriter], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules and comparison come from the same compiler, so the comparison is blind to its faults."""
    _, writer = live
    name, replacement = WRONG[fault]()
    with monkeypatch.context() as patched:
        patched.setattr(policy, name, replacement)
        writer.apply(policy.compile_posture(POSTURE))
        verification = verify(POSTURE, owner=writer.port)
    assert said(verification) == []
    assert verification.mismatches
    assert not verification.ok


def test_a_lease_is_tried_with_its_translated_source(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    posture = leased(until=time.clock_gettime(time.CLOCK_BOOTTIME) + 60)
    writer.apply(compile_posture(posture))
    verification = verify(posture, owner=writer.port, look_around=False)
    assert verification.ok, (said(verification), verification.mismatches)
    assert verification.flows == len(POSTURE.allowances) + 1


def test_an_expired_lease_is_absent(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    posture = leased(until=time.clock_gettime(time.CLOCK_BOOTTIME) - 1)
    writer.apply(compile_posture(posture))
    verification = verify(posture, owner=writer.port, look_around=False)
    assert verification.ok, (said(verification), verification.mismatches)
    assert verification.flows == len(POSTURE.allowances)


def leased(*, until: float) -> Posture:
    """The uplink open to one host for one flow."""
    host, own = IPv4Network("192.168.40.10"), IPv4Interface("192.168.40.5/24")
    uplink = PortGuard("uplink", "up0", worlds.UPLINK_MAC, dark=False, addresses=(own,), peers=(host,))
    passage = Passage("cr-img", IMG, "up0", host, Protocol.TCP, 443, float(int(until)), IPv4Address(own.ip))
    return replace(POSTURE, ports=(uplink, *POSTURE.ports[1:]), passages=frozenset({passage}))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(posture=postures(ports=("up0", "care"), taps=("cr-img", "cr-db")))
def test_whatever_is_compiled_is_as_planned(shared: tuple[World, RuleWriter], posture: Posture) -> None:
    """The compiler and the twin read the same posture, each in its own way."""
    _, writer = shared
    writer.apply(compile_posture(posture))
    verification = verify(posture, owner=writer.port, look_around=False)
    assert verification.ok, (said(verification), verification.mismatches[:3])


def test_surroundings_are_part_of_it(live: tuple[World, RuleWriter]) -> None:
    world, writer = live
    world.enclosure.run("sysctl", "-qw", "net.ipv4.conf.cr-img.rp_filter=0")
    try:
        verification = verify(POSTURE, owner=writer.port)
    finally:
        world.enclosure.run("sysctl", "-qw", "net.ipv4.conf.cr-img.rp_filter=1")
    assert not verification.ok
    assert any("rp_filter" in text for text in verification.surroundings)


def test_two_with_one_address_cannot_be_verified(live: tuple[World, RuleWriter]) -> None:
    first, second = POSTURE.taps
    with pytest.raises(IsolationError, match="cannot verify: imaging and database both have"):
        verify(replace(POSTURE, taps=(first, replace(second, address=first.address))))


def test_it_leaves_the_live_rules_and_links_alone(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    before = writer.generation(), links.interfaces(), links.taps()
    verify(POSTURE, owner=writer.port)
    assert (writer.generation(), links.interfaces(), links.taps()) == before


def test_many_flows_are_tried_one_by_one(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    many = replace(POSTURE, allowances=frozenset(replace(TO_IMAGING, port=port) for port in range(1, 3001)))
    writer.apply(compile_posture(many))
    verification = verify(many, owner=writer.port)
    assert (verification.ok, verification.flows) == (True, 3000)


def test_too_many_flows_are_thinned_out_and_counted() -> None:
    many = replace(POSTURE, allowances=POSTURE.allowances | {replace(TO_IMAGING, port=port) for port in range(1, 301)})
    tried, left = replay.chosen(Scene(many, 0.0), at_most=100)
    assert len(tried) + len(left) == len(many.allowances)
    assert len(tried) <= 110
    assert {flow.pair for flow in tried} >= {flow.pair for flow in left}


REQUEST = Request(POSTURE, None, {})


def test_a_process_of_its_own_finds_the_same(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    apart = asyncio.run(verify_apart(replace(REQUEST, owner=writer.port)))
    here = verify(POSTURE, owner=writer.port)
    assert replace(apart, seconds=0.0) == replace(here, seconds=0.0)


def test_whoever_else_owns_the_tables_is_named(live: tuple[World, RuleWriter]) -> None:
    verification = asyncio.run(verify_apart(replace(REQUEST, owner=1)))
    assert "table inet cleanroom is not owned by the keeper's socket" in verification.differences


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the process that verifies was killed by SIGKILL"),
        ("raise SystemExit(3)", "the process that verifies ended with exit status 3"),
        ("import time; time.sleep(60)", "it took longer than 1 s"),
    ],
)
def test_a_process_that_does_not_answer_proves_nothing(code: str, cause: str) -> None:
    command = (sys.executable, "-c", code)
    with pytest.raises(IsolationError, match=f"^cannot verify: {cause}"):
        asyncio.run(verify_apart(REQUEST, command=command, deadline=1.0 if "sleep" in code else 30.0))


def test_a_program_that_is_not_there_proves_nothing() -> None:
    with pytest.raises(IsolationError, match=r"^cannot verify: No such file"):
        asyncio.run(verify_apart(REQUEST, command=("/nonexistent/verify",)))


def test_the_comparison_sees_the_same_as_the_proof(live: tuple[World, RuleWriter]) -> None:
    _, writer = live
    verification = verify(POSTURE, owner=writer.port)
    assert verification.digest == writer.prove(POSTURE).digest
    assert isinstance(writer.compare(POSTURE, owner=writer.port), netlink.Comparison)
