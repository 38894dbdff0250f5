"""What a clock does to rules: elements with an end, as wanted and as found, made comparable; pure.

The kernel counts an element's time down by itself, rounds it to its ticks, and lists only what is left of it. An
element is written to end EARLY before its lease, so that what passes between reading the clock and the commit does
not outlive the lease. A set's element that ends at its lease's end, or up to EARLY + SLACK before it, is as wanted;
one that lives longer, or has no end, is a difference like any other, and is replaced.
"""

from dataclasses import replace

from cleanroomd.isolation.ruleset import Element, Family, Ruleset, Set, Table

EARLY = 0.2
"""Seconds."""
SLACK = 1.0
"""Seconds: what may pass until a batch that the clock was read for is in force; a busy machine is no difference."""


def settled(wanted: Ruleset, found: Ruleset, now: float) -> tuple[Ruleset, Ruleset]:
    """Both rulesets as at `now` (CLOCK_BOOTTIME seconds, read before `found` was): equal where nothing is amiss.

    An element whose end has come is wanted no more. In the last moment before, it may be there or not. Where an end
    that was found fits, it is given as the one that was wanted, so that digests and differences do not move with
    the clock.
    """
    theirs = {(t.family, t.name, s.name): s for t in found.tables for s in t.sets if s.timed}
    ours = {(t.family, t.name, s.name): s for t in wanted.tables for s in t.sets if s.timed}
    if not ours:
        return wanted, found
    expected, seen = {}, {}
    for place, item in ours.items():
        there = theirs.get(place)
        known = {element.key: element for element in there.elements} if there else {}
        expected[place] = replace(
            item, elements=frozenset(each for each in item.elements if _is_wanted(each, known.get(each.key), now))
        )
        if there is not None:
            ends = {element.key: element.until for element in item.elements}
            fitting = frozenset(_fitted(each, ends.get(each.key)) for each in there.elements)
            seen[place] = replace(there, elements=fitting)
    return _with_sets(wanted, expected), _with_sets(found, seen)


def _is_wanted(element: Element, found: Element | None, now: float) -> bool:
    if element.until is None or element.until > now + EARLY + SLACK:
        return True
    return element.until > now and found is not None


def _fitted(found: Element, until: float | None) -> Element:
    if found.until is None or until is None or not until - EARLY - SLACK <= found.until <= until:
        return found
    return replace(found, until=until)


def _with_sets(ruleset: Ruleset, sets: dict[tuple[Family, str, str], Set]) -> Ruleset:
    def changed(table: Table) -> Table:
        return replace(
            table, sets=frozenset(sets.get((table.family, table.name, item.name), item) for item in table.sets)
        )

    return Ruleset(frozenset(changed(table) for table in ruleset.tables))
