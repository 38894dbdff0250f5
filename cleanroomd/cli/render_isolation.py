"""Who may talk to whom, and the proof of it, as lines of text; pure."""

from collections.abc import Iterator, Sequence

from cleanroomd.cli.render import COLUMNS, Line, Mood, hanging
from cleanroomd.cli.text import clean, pad, width
from cleanroomd.model.verification import EndpointKind, IsolationView, TriedRelation, Verification

_WIDEST = 24
_DENIALS = 20
"""Lines about what was denied; --json has all of them."""
_FAILING = 40
"""Mismatches that are told one by one."""
_KINDS = {
    EndpointKind.ENCLOSURE: "the enclosure itself",
    EndpointKind.MACHINE: "machine",
    EndpointKind.ZONE: "equipment",
    EndpointKind.PORT: "port",
}


def view_lines(view: IsolationView, *, columns: int = COLUMNS) -> Iterator[Line]:
    """`cleanroomctl isolation show`."""
    if view.proven:
        yield from hanging("ISOLATED  ", f"proven, generation {view.generation}", columns, Mood.GOOD)
    else:
        yield from hanging("NOT ISOLATED  ", view.problem, columns, Mood.BAD)
    for table in view.foreign_tables:
        yield from hanging("  ", f"table {table} of the packet filter is not ours", columns, Mood.BAD)
    yield Line("")
    margin = _margin([endpoint.name for endpoint in view.endpoints])
    for endpoint in view.endpoints:
        where = f" at {endpoint.address}" if endpoint.address else ""
        behind = f", {endpoint.interface}" if endpoint.interface else ""
        dark = "; nothing passes to it or from it" if endpoint.dark else ""
        yield from hanging(_name(endpoint.name, margin), f"{_KINDS[endpoint.kind]}{where}{behind}{dark}", columns)
    yield Line("")
    if not view.relations:
        yield Line("Nobody may connect to anybody.")
    for relation in view.relations:
        allowed = "; ".join(relation.allowed)
        passed = f"{_packets(relation.packets)} passed"
        yield from hanging(f"{clean(relation.origin)} to {clean(relation.target)}  ", f"{allowed}; {passed}", columns)
    if view.relations:
        yield Line("Nothing else may pass.")
    yield Line("")
    yield Line("Denied:" if view.denied else "Nothing was denied.")
    for denied in view.denied[:_DENIALS]:
        yield from hanging("  ", f"{_packets(denied.packets)} {denied.what}", columns)
    if len(view.denied) > _DENIALS:
        yield Line(f"  and {len(view.denied) - _DENIALS} more; --json has them all")


def verification_lines(found: Verification, *, columns: int = COLUMNS) -> Iterator[Line]:
    """`cleanroomctl isolation verify`: the matrix, then what is wrong, then the verdict."""
    margin = _margin([f"{each.origin} to {each.target}" for each in found.relations], widest=44)
    for each in found.relations:
        mood = Mood.BAD if each.mismatches else Mood.PLAIN
        yield from hanging(_name(f"{each.origin} to {each.target}", margin), _tried(each), columns, mood)
    if found.relations:
        yield Line("")
    for text in (*found.differences, *found.surroundings):
        yield from hanging("DIFFERS   ", text, columns, Mood.BAD)
    for wrong in found.mismatches[:_FAILING]:
        yield from hanging("MISMATCH  ", f"{wrong.origin} to {wrong.target}: {wrong.packet}", columns, Mood.BAD)
        yield from hanging("          ", f"{wrong.found}; {wrong.rule}", columns)
    more = found.unnamed + max(0, len(found.mismatches) - _FAILING)
    if more:
        yield Line(f"and {more} more", Mood.BAD)
    tried = f"{_packets(found.packets)} tried in {found.seconds:.1f} s, generation {found.generation}"
    if found.ok:
        text = f"the kernel's rules are those of the plan, and do what it says; {tried}"
        yield from hanging("ISOLATED  ", text, columns, Mood.GOOD)
    else:
        text = f"what the kernel does is not what the plan says; {tried}"
        yield from hanging("NOT AS PLANNED  ", text, columns, Mood.BAD)


def _tried(each: TriedRelation) -> str:
    parts = []
    if each.allowed:
        parts.append("; ".join(each.allowed))
        parts.append(f"{each.flows} opened and answered")
        if each.untried:
            parts.append(f"{each.untried} not tried")
    else:
        parts.append("nothing may pass")
    parts.append(f"{each.forbidden} forbidden tried")
    parts.append(f"MISMATCHES: {each.mismatches}" if each.mismatches else "ok")
    return ", ".join(parts)


def _packets(number: int) -> str:
    return f"{number} packet" if number == 1 else f"{number} packets"


def _margin(names: Sequence[str], widest: int = _WIDEST) -> int:
    return min(max((width(clean(name)) for name in names), default=0), widest) + 2


def _name(name: str, margin: int) -> str:
    return pad(clean(name), margin) if width(clean(name)) < margin else f"{clean(name)}  "
