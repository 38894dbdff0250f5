"""Alarms about changes that are not ours: the newest few, all of them counted, each told once.

A storm of the same is one alarm that counts. What is kept is bounded, and so is what the journal gets.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from cleanroomd.clock import now
from cleanroomd.isolation.processes import Process
from cleanroomd.model.status import Alarm

KEPT = 8
"""Alarms that the status shows."""
_ONE_STORM = 10.0
"""Seconds within which the same again, of a process of the same name, belongs to the alarm before."""


_TOLD_AT_MOST = 20
_TOLD_WITHIN = 10.0
"""The journal gets so many alarms in so many seconds; those beyond are told as a number."""


class Tell(Protocol):
    """Where alarms are told: the journal, as text with fields."""

    def __call__(self, text: str, /, **fields: str | float) -> None: ...


class Alarms:
    def __init__(self, tell: Tell, *, clock: Callable[[], float] = now) -> None:
        self._tell = tell
        self._clock = clock
        self._kept: list[Alarm] = []
        self._told: deque[float] = deque(maxlen=_TOLD_AT_MOST)
        self._untold = 0
        self.count = 0

    @property
    def newest(self) -> tuple[Alarm, ...]:
        """The newest first; what still stands before what does not."""
        return tuple(sorted(self._kept, key=lambda alarm: (alarm.undone, -alarm.at)))

    @property
    def standing(self) -> tuple[Alarm, ...]:
        return tuple(alarm for alarm in self.newest if not alarm.undone)

    def note(self, what: str, who: Process, *, undone: bool, remedy: str = "", times: int = 1) -> None:
        """Something happened, `times` times; `remedy` is what a person can do as long as it is not undone."""
        at = self._clock()
        self.count += times
        remedy = "" if undone else remedy
        for place, alarm in enumerate(self._kept):
            if alarm.what == what and alarm.process == who.name and at - alarm.at <= _ONE_STORM:
                del self._kept[place]
                again = replace(alarm, at=at, who=str(who), undone=undone, remedy=remedy, times=alarm.times + times)
                self._kept.append(again)
                if undone is not alarm.undone:
                    self._say(again, who)
                return
        alarm = Alarm(at=at, what=what, who=str(who), process=who.name, undone=undone, remedy=remedy, times=times)
        self._kept.append(alarm)
        if len(self._kept) > KEPT:
            # What stands is kept longer than what is over.
            self._kept.remove(next((each for each in self._kept if each.undone), self._kept[0]))
        self._say(alarm, who)

    def settle(self, what: str) -> None:
        """What was noted as `what` and stood is right again."""
        for place, alarm in enumerate(self._kept):
            if alarm.what == what and not alarm.undone:
                self._kept[place] = replace(alarm, undone=True, remedy="")
                self._tell(f"put right: {what}")

    def _say(self, alarm: Alarm, who: Process) -> None:
        if len(self._told) == _TOLD_AT_MOST and alarm.at - self._told[0] < _TOLD_WITHIN:
            self._untold += 1
            return
        self._told.append(alarm.at)
        if self._untold:
            self._tell(f"{self._untold} more alarms came meanwhile")
            self._untold = 0
        outcome = "undone" if alarm.undone else "NOT undone"
        fields: dict[str, str | float] = {"pid": who.pid, "process": who.name} if who.pid else {}
        if who.uid is not None:
            fields["uid"] = who.uid
        if who.command:
            fields["command"] = who.command
        often = f" ({alarm.times} times)" if alarm.times > 1 else ""
        self._tell(f"{alarm.what}{often}, by {who}; {outcome}", undone=str(alarm.undone).lower(), **fields)
