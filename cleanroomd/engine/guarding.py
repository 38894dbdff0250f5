"""The guard of the guard: who changed the rules, or the network around them, and what has been done about it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from cleanroomd.clock import now
from cleanroomd.engine.alarms import Alarms, Tell
from cleanroomd.errors import IsolationError
from cleanroomd.isolation import links, mending, surroundings
from cleanroomd.isolation.bypasses import Finding, RemoveAddress, RemoveQueueing, RemoveRoute, RemoveRule, findings
from cleanroomd.isolation.monitor import Change, LinksWatch, RulesWatch
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.processes import UNKNOWN, Process, behind_port, look_up, printable
from cleanroomd.model.posture import Posture

_LOOK_AGAIN = 10.0
"""Seconds between looks at the surroundings when no event asks for one: not every sysctl has an event."""
_SETTLES_IN = 5.0
"""Seconds for which what an earlier posture asked for may still be there."""
_WAKES_APART = 0.1
"""Seconds: a storm of events wakes the loop so often and no more."""
_UNDONE_AT_ONCE = 50
_TRY_AGAIN = 10.0
"""Seconds until what stood after its undoing is undone again: an attempt is an event itself, and wakes the loop."""
_NAMED = 3
_NAMES = 10
_LOOKED_UP = 20
"""Processes that are looked up between two rounds."""
_TOLD_PORT = (RemoveRoute, RemoveRule, RemoveAddress, RemoveQueueing)
"""What the kernel announces with the port of the socket that asked for it."""

TAMPERED = "our own rules were changed or removed"


class Guard:
    """Listens, looks, undoes and raises alarms. Without `listening` it only looks, and names nobody."""

    def __init__(self, tell: Tell) -> None:
        self.alarms = Alarms(tell)
        self._wake: Callable[[str], None] | None = None
        self._seen: dict[Change, Process] = {}
        """Looked up while the process may still live; most live for a moment only."""
        self._movers: dict[int, Process] = {}
        """Who changed addresses, routes, rules or queueing since the last look, by netlink port."""
        self._rules: RulesWatch | None = None
        self._links: LinksWatch | None = None
        self._port = 0
        """Of the owning socket: what is committed through it is ours."""
        self._known: int | None = None
        """The newest generation of which it is known who made it and all before it."""
        self._unexplained = 0
        self._look_at = 0.0
        self._posture = Posture()
        self._before: Posture | None = None
        self._settled_at = 0.0
        self._indexes: Mapping[str, int] = {}
        self._standing: frozenset[str] = frozenset()
        self._vanished: set[str] = set()
        self._undone: dict[Finding, float] = {}
        """What stands although its undoing was tried, and when."""
        self._around = ""
        self._tables: frozenset[str] = frozenset()
        self._tables_told = False
        self._leading = ""

    @property
    def breach(self) -> str:
        """What can lead packets around the rules and could not be undone, in words."""
        return self._leading or self._around

    @contextmanager
    def listening(self, wake: Callable[[str], None]) -> Iterator[None]:
        """Within, the kernel's own announcements wake the running loop, and say who made a change."""
        loop = asyncio.get_running_loop()
        quiet_until: dict[str, float] = {}

        def soon(reason: str) -> None:
            at = now()
            due = quiet_until.get(reason, 0.0)
            if due > at + _WAKES_APART:
                return
            quiet_until[reason] = max(at, due) + _WAKES_APART
            if due <= at:
                wake(reason)
            else:
                loop.call_later(due - at, wake, reason)

        def rules_changed() -> None:
            if self._rules is not None and self._rules.read(self._port):
                self._look_up_at_once(self._rules.newest)
                soon("somebody changed the kernel's rules")

        def links_changed() -> None:
            if self._links is not None and self._links.read():
                self._look_up_movers(self._links.take_ports())
                self._look_at = 0.0
                soon("the network around the rules changed")

        with ExitStack() as opened:
            self._rules = opened.enter_context(RulesWatch())
            self._links = opened.enter_context(LinksWatch())
            loop.add_reader(self._rules.fileno(), rules_changed)
            opened.callback(loop.remove_reader, self._rules.fileno())
            loop.add_reader(self._links.fileno(), links_changed)
            opened.callback(loop.remove_reader, self._links.fileno())
            self._wake = wake
            try:
                yield
            finally:
                self._rules = self._links = self._wake = None

    def _look_up_at_once(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.port != self._port and change not in self._seen and len(self._seen) < _LOOKED_UP:
                self._seen[change] = look_up(change.pid, change.name)

    def _look_up_movers(self, ports: Iterable[int]) -> None:
        for port in ports:
            if port not in self._movers and len(self._movers) < _LOOKED_UP:
                self._movers[port] = behind_port(port)

    def wake_at(self, at: float) -> None:
        """Have the loop look again then; CLOCK_BOOTTIME seconds."""
        if self._wake is not None:
            asyncio.get_running_loop().call_later(max(0.0, at - now()), self._wake, "changes are still to be judged")

    def owned_by(self, port: int) -> None:
        """The netlink port of the owning socket, from now on."""
        self._port = port

    def explained(self, generation: int) -> None:
        """Up to here everything was ours, or a keeper's that claimed the tables as they are; without ears only."""
        if self._rules is None:
            self._known = generation

    def in_force(self, posture: Posture, generation: int) -> None:
        """`posture` was written, proven and attached just now."""
        self.explained(generation)
        if posture != self._posture or not self._settled_at:
            self._before, self._posture = self._posture if self._settled_at else None, posture
            self._settled_at = now() + _SETTLES_IN
            self._undone.clear()
        self._indexes = surroundings.indexes(posture)
        self._look_at = 0.0
        self.alarms.settle(TAMPERED)
        for what in self._vanished:
            self.alarms.settle(what)
        self._vanished.clear()

    def settled(self) -> None:
        """Nothing that an earlier posture, or an earlier daemon, asked for is left: judge without forbearance."""
        self._settled_at = now()

    def same_devices(self) -> bool:
        """Whether the guarded interfaces are the devices that they were; one that is not is an alarm.

        A guard on an interface goes with the device, and a device that comes back under the same name has none.
        """
        found = surroundings.indexes(self._posture)
        if found == self._indexes:
            return True
        for tap in self._posture.taps:
            if found[tap.interface] != self._indexes.get(tap.interface):
                what = f"the network cable of {tap.service} ({tap.interface}) was removed"
                if what not in self._vanished:
                    self._vanished.add(what)
                    self.alarms.note(what, UNKNOWN, undone=False, remedy="it is put back by itself")
        return False

    def still_the_same(self) -> bool:
        """As `same_devices`, without a word."""
        return surroundings.indexes(self._posture) == self._indexes

    def who_changed(self, generation: int) -> Counter[Process]:
        """Whoever but ourselves committed to the packet filter since it was asked last -> how often.

        A generation that nobody announced, and that is not announced before the next question either, was made by
        an unknown process.
        """
        changes = self._rules.take().changes if self._rules is not None else ()
        found = self._by_name(change for change in changes if change.port != self._port)
        self._seen.clear()
        if self._known is None:
            self._known = generation
            return found
        newest = max([generation, *(change.generation for change in changes)])
        announced = sum(change.generation > self._known for change in changes)
        missing = max(0, newest - self._known - announced)
        if missing and self._rules is not None and not self._unexplained:
            # The kernel counts a moment before it announces.
            self._unexplained = missing
            self._known = newest - missing
            return found
        if missing:
            found[UNKNOWN] += missing
        self._unexplained = 0
        self._known = newest
        return found

    def _by_name(self, changes: Iterable[Change]) -> Counter[Process]:
        """The newest process of each name, and how often processes of that name made a change; ten names at most."""
        newest: dict[str, Process] = {}
        times: Counter[str] = Counter()
        for change in changes:
            process = self._seen.get(change) or Process(change.pid, printable(change.name))
            if process.name not in newest and len(newest) >= _NAMES:
                times[""] += 1
                continue
            if not newest.get(process.name, process).command or process.command:
                newest[process.name] = process
            times[process.name] += 1
        found = Counter({process: times[name] for name, process in newest.items()})
        if times[""] and "" not in newest:
            found[UNKNOWN] += times[""]
        return found

    def remove_tables(self, writer: RuleWriter) -> tuple[list[str], dict[str, str]]:
        """Foreign tables that were removed, and those that could not be -> why."""
        removed, left = [], {}
        for table in sorted(writer.foreign_tables()):
            why_not = writer.remove_table(table)
            if why_not:
                left[table] = why_not
            else:
                removed.append(table)
        for what in self._tables - {_table_left(left)}:
            self.alarms.settle(what)
        self._tables_told = _table_left(left) in self._tables
        self._tables = frozenset({_table_left(left)} if left else ())
        leading = sorted(left.keys() & surroundings.leading_tables()) if left else []
        self._leading = (
            f"rules of somebody else can lead packets around ours ({_names(leading)}): {_end(left)}" if leading else ""
        )
        return removed, left

    def say(self, culprits: Counter[Process], removed: list[str], left: Mapping[str, str], broken: str) -> None:
        """One alarm for each process of another name; what they did is not told apart."""
        if not culprits and not removed and not broken and (not left or self._tables_told):
            return
        if not culprits:
            culprits = Counter({UNKNOWN: 1})
        for process, times in culprits.items():
            if broken:
                self.alarms.note(
                    TAMPERED, process, undone=False, remedy="they are written again by itself", times=times
                )
            if left:
                self.alarms.note(_table_left(left), process, undone=False, remedy=_end(left), times=times)
            if removed:
                what = f"rules of somebody else came into the kernel ({_names(removed)})"
                self.alarms.note(what, process, undone=True, times=times)
            if not broken and not removed and not left:
                what = "somebody tried to change or clear the kernel's rules; ours stayed as planned"
                self.alarms.note(what, process, undone=True, times=times)

    def look_around(self) -> None:
        """Judge the surroundings if that is due, undo what can be undone, and judge what is there then.

        What a second reading finds again stands, whatever the kernel answered.
        """
        if now() < self._look_at:
            return
        self._look_at = now() + _LOOK_AGAIN
        found = self._found()
        (who,) = self._movers.values() if len(self._movers) == 1 else (UNKNOWN,)
        self._movers.clear()
        judged = found[:_UNDONE_AT_ONCE]
        why_not = {finding: _undo(finding) for finding in judged if self._is_due(finding)}
        left = self._found() if why_not else found
        stand = set(left)
        standing = {finding.what for finding in judged if finding in stand}
        for finding in judged:
            stands = finding in stand
            if finding.what in self._standing:
                # Told; settled below once it is gone.
                continue
            why = why_not.get(finding) or "it is there again after it was undone"
            remedy = f"{finding.remedy} ({why})" if finding.undo is not None else finding.remedy
            culprit = who if isinstance(finding.undo, _TOLD_PORT) else UNKNOWN
            self.alarms.note(finding.what, culprit, undone=not stands, remedy=remedy)
        for what in self._standing - standing:
            self.alarms.settle(what)
        self._standing = frozenset(standing)
        tried = self._undone | dict.fromkeys(why_not, now())
        self._undone = {finding: at for finding, at in tried.items() if finding in stand}
        self._around = next((f"{finding.what}: {finding.remedy}" for finding in left if finding.serious), "")

    def _is_due(self, finding: Finding) -> bool:
        """Whether to undo it now."""
        return finding.undo is not None and now() >= self._undone.get(finding, -_TRY_AGAIN) + _TRY_AGAIN

    def _found(self) -> tuple[Finding, ...]:
        """What is not as it should be, and was not asked for by an earlier posture either."""
        facts = surroundings.read(self._posture)
        found = findings(facts, self._posture, links.wanted_sysctls(self._posture))
        if now() >= self._settled_at:
            return found
        if self._before is None:
            # An earlier daemon, or the system's start, left it so: the steps to come see to it.
            return tuple(finding for finding in found if finding.serious)
        known = set(findings(facts, self._before, links.wanted_sysctls(self._before)))
        return tuple(finding for finding in found if finding.serious or finding in known)


def _undo(finding: Finding) -> str:
    """What the kernel said against it, in words; "" if nothing, which does not mean that it is gone."""
    if finding.undo is None:
        return "it is not ours to undo"
    try:
        mending.undo(finding.undo)
    except IsolationError as error:
        return error.message
    return ""


def _names(tables: list[str]) -> str:
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in table)[:40] for table in sorted(tables)[:_NAMED])
    return shown if len(tables) <= _NAMED else f"{shown} and {len(tables) - _NAMED} more"


def _end(left: Mapping[str, str]) -> str:
    why = next(iter(left.values()))
    return f"end the process that holds {_names(list(left))} ({why}), or restart the enclosure"


def _table_left(left: Mapping[str, str]) -> str:
    return f"rules of somebody else stay in the kernel ({_names(list(left))})" if left else ""
