"""The status and the journal as lines of text; pure.

Every line fits the columns given, and says the same without colour.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cleanroomd.cli.text import about, clean, clock, moment, pad, stamp, width, wrap
from cleanroomd.control.wire import JournalEntry
from cleanroomd.model.status import RunState, ServiceState, ServiceStatus, Status, VerdictKind
from cleanroomd.model.units import format_duration

NARROWEST = 60
COLUMNS = 80

_WIDEST_NAME = 24
_STATE_COLUMNS = 9
_SINCE_COLUMNS = 7
_MOVING = frozenset({ServiceState.PENDING, ServiceState.STARTING, ServiceState.BOOTING, ServiceState.STOPPING})


class Mood(StrEnum):
    """How a line is to be taken; colour may say it again."""

    PLAIN = "plain"
    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    mood: Mood = Mood.PLAIN


_RUN_MOODS = {
    RunState.RESTORING: Mood.BUSY,
    RunState.RESTORED: Mood.GOOD,
    RunState.DEGRADED: Mood.BAD,
    RunState.HALTED: Mood.BAD,
    RunState.STOPPED: Mood.PLAIN,
}

_SERVICE_MOODS = {
    ServiceState.FAILED: Mood.BAD,
    ServiceState.BLOCKED: Mood.BAD,
    ServiceState.EXCLUDED: Mood.BAD,
    ServiceState.STARTING: Mood.BUSY,
    ServiceState.BOOTING: Mood.BUSY,
    ServiceState.STOPPING: Mood.BUSY,
}


def status_lines(status: Status, *, columns: int = COLUMNS) -> list[Line]:
    """The whole status, for a terminal of `columns` (at least NARROWEST)."""
    return [
        *_header(status, columns),
        *_summary(status, columns),
        Line(""),
        *_table(status, columns),
        *_findings(status, columns),
        *_alarms(status, columns),
        Line(""),
        *hanging("Next: ", f"{_sentence(status.next_action)} {_whereabouts(status)}", columns),
    ]


def uplink_lines(status: Status, *, columns: int = COLUMNS) -> Iterator[Line]:
    """What is open, by whom and for how long; what the plan allows to open."""
    isolation = status.isolation
    mood = Mood.PLAIN if isolation.uplink == "dark" else Mood.BUSY
    words = "dark: nothing passes in either direction" if isolation.uplink == "dark" else isolation.uplink
    yield from hanging("Uplink: ", words, columns, mood)
    if status.drill:
        yield from hanging("DRILL   ", "this is an exercise: the uplink never opens", columns, Mood.BUSY)
    for lease in isolation.leases:
        yield Line("")
        left = format_duration(max(0.0, lease.until - status.now))
        yield from hanging(f"{clean(lease.window)}  ", f"{lease.flow}; closes by itself in {left}", columns, mood)
        yield from hanging(
            "  ", f"opened by {lease.author} {_ago(status.now, lease.opened_at)}: {lease.reason}", columns
        )
        if lease.problem:
            yield from hanging("  ", f"nothing passes: {lease.problem}", columns, Mood.BAD)
    opened = {lease.window for lease in isolation.leases}
    closed = [window for window in isolation.windows if window.name not in opened]
    if closed:
        yield Line("")
        yield Line("Can be opened:")
    for window in closed:
        longest = format_duration(window.longest)
        yield from hanging(f"  {clean(window.name)}  ", f"{window.flow}; for {longest} at most", columns)


def entry_line(entry: JournalEntry) -> str:
    """One entry of the run journal; as long as it is, for a pager or grep."""
    about_whom = f"{clean(entry.service)}: " if entry.service else ""
    return f"{stamp(entry.time)}  {about_whom}{clean(entry.text)}"


def change_lines(before: Status | None, after: Status) -> list[str]:
    """What services did from one status to the next, a line each."""
    known = {service.name: service for service in before.services} if before else {}
    return [
        f"{clean(service.name)}: {service.state}{_because(service)}"
        for service in after.services
        if service.name not in known or known[service.name].state is not service.state
    ]


def _because(service: ServiceStatus) -> str:
    why = clean(service.proof if service.state is ServiceState.READY else service.reason)
    return f", {why}" if why else ""


def _header(status: Status, columns: int) -> Iterator[Line]:
    power_on = f"power-on {clock(status.now - status.power_on)} ago"
    name = clean(status.enclosure)
    if width(name) + 2 + len(power_on) <= columns:
        yield Line(pad(name, columns - len(power_on)) + power_on)
        return
    yield from (Line(text) for text in wrap(name, columns))
    yield Line(power_on.rjust(columns))


def _summary(status: Status, columns: int) -> Iterator[Line]:
    isolation = status.isolation
    label = "ISOLATED" if isolation.proven else "NOT ISOLATED"
    labels = [
        label,
        status.state.value,
        *(["UNSEALED"] if status.unsealed else []),
        *(["DRILL"] if status.drill else []),
    ]
    margin = max(len(text) for text in labels) + 2
    if isolation.proven:
        proven = _ago(status.now, isolation.proven_at)
        changes = isolation.foreign_changes
        detail = (
            f"proven {proven}, generation {isolation.generation}; uplink {isolation.uplink}; "
            f"{changes} foreign change{'' if changes == 1 else 's'}"
        )
    else:
        detail = isolation.problem or "the rules have not been proven"
    yield from hanging(pad(label, margin), detail, columns, Mood.GOOD if isolation.proven else Mood.BAD)
    yield from hanging(pad(status.state.value, margin), _progress(status), columns, _RUN_MOODS[status.state])
    if status.drill:
        yield from hanging(pad("DRILL", margin), "an exercise: the uplink never opens", columns, Mood.BUSY)
    if status.unsealed:
        yield from hanging(
            pad("UNSEALED", margin), "nothing here is signed: for tests and drills only", columns, Mood.BAD
        )


def _ago(now: float, then: float | None) -> str:
    if then is None:
        return "at an unknown time"
    seconds = now - then
    return f"{int(seconds)} s ago" if 0 <= seconds < 60 else f"{clock(seconds)} ago"


def _progress(status: Status) -> str:
    ready = sum(service.state is ServiceState.READY for service in status.services)
    parts = [f"{ready} of {len(status.services)} ready"]
    if status.state is RunState.RESTORING and status.remaining is not None:
        parts.append(f"all ready in {about(status.remaining)}")
    if status.restored_after is not None:
        parts.append(f"restored {clock(status.restored_after)} after power-on")
    missing = [
        service.name for service in status.services if service.required and service.state is not ServiceState.READY
    ]
    if status.state is RunState.HALTED and missing:
        parts.append(f"required and not ready: {', '.join(missing)}")
    return "; ".join(parts)


def _table(status: Status, columns: int) -> Iterator[Line]:
    names = [clean(service.name) for service in status.services]
    name_columns = min(max([len("service"), *(width(name) for name in names)]), _WIDEST_NAME)
    margin = 4 + name_columns + 2 + _STATE_COLUMNS + 2 + _SINCE_COLUMNS + 2
    header = f" P  {pad('service', name_columns)}  {'state':{_STATE_COLUMNS}}  {'since':{_SINCE_COLUMNS}}  detail"
    yield Line(header)
    for service, name in zip(status.services, names, strict=True):
        mood = _SERVICE_MOODS.get(service.state, Mood.PLAIN)
        priority = str(service.priority)[:2].rjust(2)
        since = "-" if service.state is ServiceState.PENDING else clock(status.now - service.since)
        if width(name) > name_columns:
            *before, name = wrap(name, columns - 4)
            if width(name) > name_columns:
                before.append(name)
                name = ""
            yield from (Line(f"    {text}", mood) for text in before)
        state = f"{service.state:{_STATE_COLUMNS}}"
        row = f"{priority}  {pad(name, name_columns)}  {state}  {since:{_SINCE_COLUMNS}}  "
        first, *others = wrap(_detail(service), columns - margin)
        yield Line((row + first).rstrip(), mood)
        yield from (Line(" " * margin + text, mood) for text in others)


def _detail(service: ServiceStatus) -> str:
    if not service.kept_aside:
        return _present(service)
    sets = "set" if service.kept_aside == 1 else "sets"
    return f"{_present(service)}; {service.kept_aside} earlier {sets} of crisis data kept aside"


def _present(service: ServiceStatus) -> str:
    if service.state is ServiceState.READY:
        parts = [service.proof or service.reason]
        if service.start == "warm":
            parts.append("warm")
        if service.data_as_of is not None:
            parts.append(f"data as of {moment(service.data_as_of)}")
        return "; ".join(parts)
    if service.remaining is not None and service.state in _MOVING:
        return f"{service.reason}; {about(service.remaining)} left"
    return service.reason


def _findings(status: Status, columns: int) -> Iterator[Line]:
    verdict = status.verdict
    if verdict.kind is VerdictKind.ADMISSIBLE:
        return
    yield Line("")
    yield from hanging("Plan: ", f"{verdict.kind}; {verdict.summary}", columns)
    for finding in verdict.findings:
        words = f"{finding.service}: {finding.effect}, {finding.cause}; {finding.remedy}"
        yield from hanging("  ", words, columns)


def _alarms(status: Status, columns: int) -> Iterator[Line]:
    """Those that stand, and of the others the newest; the journal has them all."""
    alarms = status.isolation.alarms
    shown = [alarm for alarm in alarms if not alarm.undone]
    shown += [alarm for alarm in alarms if alarm.undone][:1]
    if shown:
        yield Line("")
    for alarm in shown:
        often = f", {alarm.times} times" if alarm.times > 1 else ""
        words = f"{_ago(status.now, alarm.at)}: {alarm.what}{often}, by {alarm.who}"
        outcome = "undone" if alarm.undone else "; ".join(filter(None, ("it stands", alarm.remedy)))
        yield from hanging("Alarm: ", f"{words}; {outcome}", columns, Mood.PLAIN if alarm.undone else Mood.BAD)


def _whereabouts(status: Status) -> str:
    """Where to look on; nothing when the daemon's own sentence names a command already."""
    if "cleanroomctl" in status.next_action:
        return ""
    return "`cleanroomctl log --follow` shows what happens."


def _sentence(text: str) -> str:
    stripped = clean(text).rstrip(".")
    return f"{stripped}." if stripped else "nothing to do."


def hanging(label: str, text: str, columns: int, mood: Mood = Mood.PLAIN) -> Iterator[Line]:
    """A label with its text beside it, on as many lines as that takes; the text is cleaned, the label is not."""
    margin = width(label)
    first, *others = wrap(text, columns - margin)
    yield Line(label + first, mood)
    yield from (Line(" " * margin + other, mood) for other in others)
