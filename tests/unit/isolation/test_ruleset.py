"""Equality, digest and differences of whole rulesets."""

import sys
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.isolation.expressions import Action, Compare, Decide, Unknown, Verdict, describe
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.isolation.ruleset import Chain, Element, Family, Ruleset, Table, differences
from cleanroomd.model.posture import Posture
from tests.unit.isolation.postures import postures, unhurried

PORTS, TAPS = ("care", "up0"), ("cr-img", "cr-db")


def mutants(ruleset: Ruleset) -> Iterator[Ruleset]:
    """Every ruleset that differs in one thing of one kind from the one given."""
    for table in ruleset.tables:
        others = ruleset.tables - {table}
        yield Ruleset(others)
        for mutant in _table_mutants(table):
            yield Ruleset(others | {mutant})
    yield Ruleset(ruleset.tables | {Table(Family.INET, "other")})


def _table_mutants(table: Table) -> Iterator[Table]:
    yield replace(table, oddity="flags 7")
    yield replace(table, counters=table.counters | {"extra"})
    for chain in table.chains:
        others = table.chains - {chain}
        yield replace(table, chains=others)
        for mutant in _chain_mutants(chain):
            yield replace(table, chains=others | {mutant})
    for item in table.sets:
        rest = table.sets - {item}
        yield replace(table, sets=rest)
        yield replace(table, sets=rest | {replace(item, oddity="flags 16")})
        yield replace(table, sets=rest | {replace(item, verdicts=not item.verdicts)})
        yield replace(table, sets=rest | {replace(item, elements=item.elements | {Element(b"extra")})})
        for element in item.elements:
            fewer = item.elements - {element}
            yield replace(table, sets=rest | {replace(item, elements=fewer)})
            yield replace(table, sets=rest | {replace(item, elements=fewer | {replace(element, oddity="timeout")})})


def _chain_mutants(chain: Chain) -> Iterator[Chain]:
    yield replace(chain, oddity="flags 2")
    yield replace(chain, rules=(*chain.rules, (Decide(Verdict(Action.ACCEPT)),)))
    if chain.hook:
        yield replace(chain, hook=replace(chain.hook, accepts=True))
        yield replace(chain, hook=replace(chain.hook, priority=7))
        yield replace(chain, hook=replace(chain.hook, device="other"))
        yield replace(chain, hook=None)
    for number, rule in enumerate(chain.rules):
        before, after = chain.rules[:number], chain.rules[number + 1 :]
        yield replace(chain, rules=before + after)
        yield replace(chain, rules=(*before, rule[:-1], *after))
        yield replace(chain, rules=(*before, (Unknown("numgen", "00"), *rule), *after))
        for place, expression in enumerate(rule):
            if isinstance(expression, Compare):
                other = replace(expression, value=bytes(byte ^ 1 for byte in expression.value))
                yield replace(chain, rules=(*before, (*rule[:place], other, *rule[place + 1 :]), *after))


@unhurried
@given(postures(ports=PORTS, taps=TAPS), st.data())
def test_any_single_change_is_found(posture: Posture, data: st.DataObject) -> None:
    expected = compile_posture(posture)
    mutant = data.draw(st.sampled_from(list(mutants(expected))))
    assert differences(expected, mutant)
    assert differences(mutant, expected)
    assert mutant.digest != expected.digest


@unhurried
@given(postures(ports=PORTS, taps=TAPS), postures(ports=PORTS, taps=TAPS))
def test_differences_digest_and_equality_agree(one: Posture, other: Posture) -> None:
    first, second = compile_posture(one), compile_posture(other)
    assert differences(first, first) == ()
    assert (first == second) is (first.digest == second.digest) is (differences(first, second) == ())


@unhurried
@given(postures(ports=PORTS, taps=TAPS))
def test_the_digest_does_not_depend_on_order(posture: Posture) -> None:
    """Frozensets built in another order iterate in another order where hashes collide; the canonical form sorts."""
    ruleset = compile_posture(posture)
    shuffled = Ruleset(
        frozenset(
            replace(
                table,
                chains=frozenset(sorted(table.chains, key=lambda chain: chain.name, reverse=True)),
                sets=frozenset(
                    replace(item, elements=frozenset(sorted(item.elements, key=lambda e: e.key, reverse=True)))
                    for item in sorted(table.sets, key=lambda item: item.name, reverse=True)
                ),
            )
            for table in sorted(ruleset.tables, key=lambda table: table.family, reverse=True)
        )
    )
    assert shuffled == ruleset
    assert shuffled.canonical() == ruleset.canonical()


def test_rules_in_another_order_are_another_chain() -> None:
    first, second = (Decide(Verdict(Action.ACCEPT)),), (Decide(Verdict(Action.DROP)),)
    chains = [frozenset({Chain("c", rules)}) for rules in ((first, second), (second, first))]
    one, other = (Ruleset(frozenset({Table(Family.INET, "t", chains=each)})) for each in chains)
    assert differences(one, other) == (
        "chain c of table inet t, rule 1: drop instead of accept",
        "chain c of table inet t, rule 2: accept instead of drop",
    )


def test_a_rule_is_described_on_one_line() -> None:
    rules = compile_posture(Posture())
    table = rules.table(Family.INET, "cleanroom")
    assert table is not None
    chain = table.chain("forward")
    assert chain is not None
    assert [describe(rule) for rule in chain.rules] == [
        "meta nfproto -> r0; r0 != 0x02; count forward; goto denied",
        f"ct state -> r0; r0 &= 0x{(1).to_bytes(4, sys.byteorder).hex()}; r0 != 0x00000000; count forward; goto denied",
        "meta iifname -> r0; meta oifname -> r4; r0.. decides by @forward",
        "count forward; goto denied",
    ]
