"""From the rules in force to the rules wanted, as the messages of one batch.

What is equal stays untouched: sets change by elements, a chain is refilled only where its rules differ. The
kernel switches to the whole batch at once, so no packet sees half of it, and none that is allowed before and
after is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cleanroomd.isolation import encode
from cleanroomd.isolation.encode import Message
from cleanroomd.isolation.ruleset import Chain, Ruleset, Set, Table


def changes(found: Ruleset, wanted: Ruleset, flags: int) -> Iterator[Message]:
    """The messages between batch begin and end; with nothing to change only the tables are claimed again.

    `flags` are the table flags to claim with. A table that holds things which the policy never writes is
    replaced as a whole, in the same batch.
    """
    for table in sorted(wanted.tables, key=lambda t: (t.family, t.name)):
        there = found.table(table.family, table.name)
        yield encode.new_table(table, flags)
        if there is not None and not _comparable(there, table):
            yield encode.delete_table(table)
            yield encode.new_table(table, flags)
            there = None
        yield from _table_changes(_Difference(there or Table(table.family, table.name), table))


def _comparable(found: Table, wanted: Table) -> bool:
    """Whether the one can be turned into the other in place."""
    if found.oddity or any(chain.oddity for chain in found.chains):
        return False
    for item in found.sets:
        other = wanted.set(item.name)
        if item.oddity or any(element.oddity for element in item.elements):
            return False
        if other and item.kind != other.kind:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Difference:
    """Names of what a table has and what it should have."""

    found: Table
    wanted: Table

    def chains(self) -> Iterator[tuple[Chain | None, Chain | None]]:
        there = {chain.name: chain for chain in self.found.chains}
        want = {chain.name: chain for chain in self.wanted.chains}
        return ((there.get(name), want.get(name)) for name in sorted(there.keys() | want.keys()))

    def sets(self) -> Iterator[tuple[Set | None, Set | None]]:
        there = {item.name: item for item in self.found.sets}
        want = {item.name: item for item in self.wanted.sets}
        return ((there.get(name), want.get(name)) for name in sorted(there.keys() | want.keys()))


def _table_changes(difference: _Difference) -> Iterator[Message]:
    """Each thing is added before what refers to it and deleted after that is gone."""
    table = difference.wanted
    gone_counters = difference.found.counters - table.counters
    yield from (encode.new_counter(table, name) for name in sorted(table.counters - difference.found.counters))
    yield from (encode.new_set(table, new) for old, new in difference.sets() if new and not old)
    yield from _emptied_chains(difference)
    yield from _element_changes(difference)
    for old, new in difference.chains():
        if new and (not old or (old.rules, old.hook) != (new.rules, new.hook)):
            yield from (encode.new_rule(table, new, n, rule) for n, rule in enumerate(new.rules, start=1))
    yield from (encode.delete_chain(table, old) for old, new in difference.chains() if old and not new)
    yield from (encode.delete_set(table, old) for old, new in difference.sets() if old and not new)
    yield from (encode.delete_counter(table, name) for name in sorted(gone_counters))


def _emptied_chains(difference: _Difference) -> Iterator[Message]:
    table = difference.wanted
    for old, new in difference.chains():
        if old and (not new or (old.rules, old.hook) != (new.rules, new.hook)):
            yield encode.delete_rules(table, old)
        if old and new and old.hook != new.hook:
            yield encode.delete_chain(table, old)
            yield encode.new_chain(table, new)
        if new and not old:
            yield encode.new_chain(table, new)


def _element_changes(difference: _Difference) -> Iterator[Message]:
    """Deletions first: a key whose verdict changes is both."""
    table = difference.wanted
    for old, new in difference.sets():
        if old and new:
            yield from encode.delete_elements(table, new, old.elements - new.elements)
    for old, new in difference.sets():
        if new:
            yield from encode.new_elements(table, new, new.elements - (old.elements if old else frozenset()))
