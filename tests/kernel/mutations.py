"""Single changes to a ruleset, at random: what somebody with root could do to it, or a fault of ours."""

import sys
from dataclasses import dataclass, replace
from random import Random

from cleanroomd.isolation.expressions import (
    Action,
    Base,
    CmpOp,
    Compare,
    Decide,
    Expression,
    Load,
    MetaKey,
    Payload,
    Rule,
    SetMeta,
    Verdict,
)
from cleanroomd.isolation.policy import LET_THROUGH, MARK
from cleanroomd.isolation.ruleset import Chain, Element, Family, Hook, HookPoint, KeyField, Ruleset, Set, Table

ACCEPT, DROP = Decide(Verdict(Action.ACCEPT)), Decide(Verdict(Action.DROP))
RETURN = Decide(Verdict(Action.RETURN))
MARKED = (Load(0, MARK.to_bytes(4, sys.byteorder)), SetMeta(MetaKey.MARK, 0))


@dataclass(frozen=True, slots=True)
class Mutation:
    words: str
    ruleset: Ruleset
    named: str
    """What a difference must say for the change to be named."""


def mutation(ruleset: Ruleset, random: Random) -> Mutation:
    """One change, anywhere; it may be one that the kernel refuses."""
    while True:
        table = random.choice(sorted(ruleset.tables, key=lambda t: t.family))
        found = random.choice(_KINDS)(table, random)
        if found is not None:
            words, changed, named = found
            if changed != table:
                return Mutation(words, with_table(ruleset, changed), named)


def with_table(ruleset: Ruleset, table: Table) -> Ruleset:
    others = (t for t in ruleset.tables if (t.family, t.name) != (table.family, table.name))
    return Ruleset(frozenset({*others, table}))


def with_chain(table: Table, chain: Chain) -> Table:
    return replace(table, chains=frozenset({*(c for c in table.chains if c.name != chain.name), chain}))


def with_set(table: Table, item: Set) -> Table:
    return replace(table, sets=frozenset({*(s for s in table.sets if s.name != item.name), item}))


def inserted(ruleset: Ruleset, family: Family, name: str, rule: Rule) -> Ruleset:
    """With one more rule in a chain, before all others."""
    table, chain = found(ruleset, family, name)
    return with_table(ruleset, with_chain(table, replace(chain, rules=(rule, *chain.rules))))


def accepting(ruleset: Ruleset, family: Family, name: str) -> Ruleset:
    """With policy accept in a base chain."""
    table, chain = found(ruleset, family, name)
    assert chain.hook is not None
    return with_table(ruleset, with_chain(table, replace(chain, hook=replace(chain.hook, accepts=True))))


def found(ruleset: Ruleset, family: Family, name: str) -> tuple[Table, Chain]:
    (table,) = (t for t in ruleset.tables if t.family is family)
    chain = table.chain(name)
    assert chain is not None, name
    return table, chain


Change = tuple[str, Table, str]


def _with_rules(table: Table, chain: Chain, words: str, *rules: Rule) -> Change:
    text = f"{words} {chain.name}"
    return text, with_chain(table, replace(chain, rules=rules)), f"chain {chain.name} of table {table}"


def _chain(table: Table, random: Random) -> Chain:
    return random.choice(sorted((c for c in table.chains if c.rules), key=lambda c: c.name))


def _rule_removed(table: Table, random: Random) -> Change | None:
    chain = _chain(table, random)
    place = random.randrange(len(chain.rules))
    return _with_rules(table, chain, f"rule {place + 1} removed from", *chain.rules[:place], *chain.rules[place + 1 :])


def _rule_added(table: Table, random: Random) -> Change | None:
    chain = _chain(table, random)
    place = random.randint(0, len(chain.rules))
    octet = (Payload(Base.NETWORK, 9, 1, 0), Compare(CmpOp.EQUAL, 0, bytes([random.choice([1, 6, 17])])))
    verdict = random.choice([(ACCEPT,), (*MARKED, ACCEPT), (DROP,), (RETURN,)])
    rule = (*random.choice([(), octet]), *verdict)
    return _with_rules(table, chain, f"{rule[-1]} at {place + 1} in", *chain.rules[:place], rule, *chain.rules[place:])


def _rule_altered(table: Table, random: Random) -> Change | None:
    chain = _chain(table, random)
    place = random.randrange(len(chain.rules))
    rule = chain.rules[place]
    if not rule:
        return None
    where = random.randrange(len(rule))
    other = _altered(rule[where], random)
    changed = rule[:where] + ((other,) if other else ()) + rule[where + 1 :]
    words = f"expression {where + 1} of rule {place + 1} altered in"
    return _with_rules(table, chain, words, *chain.rules[:place], changed, *chain.rules[place + 1 :])


def _altered(expression: Expression, random: Random) -> Expression | None:
    """Another one of its kind; None to leave it out."""
    match expression:
        case Compare(op, register, value) if random.random() < 0.6:
            return random.choice(
                [
                    Compare(CmpOp.NOT_EQUAL if op is CmpOp.EQUAL else CmpOp.EQUAL, register, value),
                    Compare(op, register, value[:-1] + bytes([value[-1] ^ 1 << random.randrange(8)])),
                ]
            )
        case Payload(base, offset, length, register) if random.random() < 0.6:
            return Payload(base, offset + 4, length, register)
        case Decide(verdict):
            return ACCEPT if verdict.action is Action.DROP else DROP
    return None


def _rules_swapped(table: Table, random: Random) -> Change | None:
    chain = _chain(table, random)
    if len(chain.rules) < 2:
        return None
    place = random.randrange(len(chain.rules) - 1)
    first, second = chain.rules[place : place + 2]
    words = f"rules {place + 1} and {place + 2} swapped in"
    return _with_rules(table, chain, words, *chain.rules[:place], second, first, *chain.rules[place + 2 :])


def _element_changed(table: Table, random: Random) -> Change | None:
    choice = sorted((s for s in table.sets if not s.dynamic), key=lambda s: s.name)
    if not choice:
        return None
    item = random.choice(choice)
    elements = set(item.elements)
    there = random.choice(sorted(elements)) if elements else None
    kind = random.choice(["removed", "added", "altered"])
    if there is None and kind != "added":
        return None
    if kind in ("removed", "altered") and there is not None:
        elements.discard(there)
    if kind in ("added", "altered"):
        key = bytearray(there.key if there else bytes(item.key_size))
        # Only bits of fields, none of their padding: the kernel compares that too, and no packet has any there.
        key[random.choice([0, 3, 8] if len(key) == 16 and item.fields[0] is KeyField.IPV4_ADDRESS else [0])] ^= 1
        verdict = Verdict(random.choice([Action.ACCEPT, Action.DROP])) if item.verdicts else None
        elements.add(Element(bytes(key), verdict))
    named = f"set {item.name} of table {table}"
    return f"element {kind} in {item.name}", with_set(table, replace(item, elements=frozenset(elements))), named


def _hook_changed(table: Table, random: Random) -> Change | None:
    bases = sorted((c for c in table.chains if c.hook), key=lambda c: c.name)
    chain = random.choice(bases)
    assert chain.hook is not None
    hook = random.choice([replace(chain.hook, accepts=not chain.hook.accepts), replace(chain.hook, priority=7)])
    changed = with_chain(table, replace(chain, hook=hook))
    return f"{chain.name} now at {hook}", changed, f"chain {chain.name} of table {table}"


def _base_chain_removed(table: Table, random: Random) -> Change | None:
    chain = random.choice(sorted((c for c in table.chains if c.hook), key=lambda c: c.name))
    named = f"chain {chain.name} is missing"
    return f"{chain.name} removed", replace(table, chains=table.chains - {chain}), named


def _something_added(table: Table, random: Random) -> Change | None:
    name = f"extra-{random.randrange(100)}"
    number = random.choice([-300, -5, 5, 300])
    point = random.choice([HookPoint.INPUT, HookPoint.FORWARD, HookPoint.OUTPUT])
    hook = Hook(point, number, accepts=True) if table.family is Family.INET else None
    match random.choice(["chain", "set", "counter"]):
        case "chain":
            chain = Chain(name, random.choice([(), ((ACCEPT,),), ((DROP,),)]), hook)
            return f"chain {name} added", with_chain(table, chain), f"chain {name} is there and should not be"
        case "set":
            item = Set(name, (KeyField.IPV4_ADDRESS,), frozenset({Element(b"\x0a\1\x14\x0e")}))
            return f"set {name} added", with_set(table, item), f"set {name} is there and should not be"
        case _:
            changed = replace(table, counters=table.counters | {name})
            return f"counter {name} added", changed, f"counter {name} is there and should not be"


def _straight_through(table: Table, random: Random) -> Change | None:
    """A pair of interfaces that the map sends past its chain."""
    item = table.set("forward")
    if item is None or not item.elements:
        return None
    there = random.choice(sorted(item.elements))
    swapped = Element(there.key[16:] + there.key[:16], Verdict(Action.GOTO, LET_THROUGH))
    elements = frozenset(e for e in item.elements if e.key != swapped.key) | {swapped}
    changed = with_set(table, replace(item, elements=elements))
    return "a pair let through", changed, f"set forward of table {table}"


_KINDS = (
    _rule_removed,
    _rule_added,
    _rule_added,
    _rule_altered,
    _rule_altered,
    _rules_swapped,
    _element_changed,
    _element_changed,
    _hook_changed,
    _base_chain_removed,
    _something_added,
    _straight_through,
)

FOREIGN = (
    "table inet {name} {{ chain c {{ type filter hook forward priority {priority}; accept; }}; }}",
    "table inet {name} {{ chain c {{ type filter hook input priority {priority}; drop; }}; }}",
    "table ip {name} {{ chain c {{ type nat hook prerouting priority -100; tcp dport 81 redirect to :80; }}; }}",
    "table ip {name} {{ chain c {{ type nat hook postrouting priority 100; masquerade; }}; }}",
    "table netdev {name} {{ chain c {{ type filter hook ingress device care priority -{priority}; accept; }}; }}",
    "table netdev {name} {{ chain c {{ type filter hook ingress device care priority -1; fwd to cr-img; }}; }}",
    "table ip6 {name} {{ chain c {{ type filter hook output priority {priority}; }}; }}",
    "table arp {name} {{ chain c {{ type filter hook input priority 0; drop; }}; }}",
    "table inet {name}",
)
"""Tables that are not ours, as the nft tool takes them."""
FAMILIES = {template: template.split()[1] for template in FOREIGN}
