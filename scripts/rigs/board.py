"""The live board: the status as cleanroomctl shows it, and under it what the demonstration does; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.text import Text

from cleanroomd.cli.render import Line, Mood, change_lines, status_lines
from cleanroomd.cli.text import about, clean, wrap
from cleanroomd.model.status import Status
from rigs.report import Act
from rigs.scenario import BuildStep

_STYLES = {Mood.PLAIN: "", Mood.GOOD: "green", Mood.BUSY: "yellow", Mood.BAD: "red"}
_BAR = 20


def board(status: Status, *, age: float, activity: Sequence[str], columns: int) -> Text:
    """The picture `age` seconds after `status` was made, with the newest lines of `activity` under it."""
    lines: list[Line] = status_lines(aged(status, age), columns=columns)[:-1]
    lines += [Line(text) for said in activity for text in wrap(said, columns)]
    return Text("\n").join(Text(line.text, style=_STYLES[line.mood]) for line in lines)


def aged(status: Status, age: float) -> Status:
    """The same status with its clocks moved on."""
    return replace(
        status,
        now=status.now + age,
        remaining=None if status.remaining is None else max(0.0, status.remaining - age),
        services=tuple(
            replace(each, remaining=None if each.remaining is None else max(0.0, each.remaining - age))
            for each in status.services
        ),
    )


def plain_lines(before: Status | None, after: Status) -> list[str]:
    """What changed, for a place that keeps its lines: a log, a pipe."""
    lines = []
    if before is None or before.isolation.proven != after.isolation.proven:
        proven = after.isolation.proven
        lines.append("ISOLATED, proven" if proven else f"NOT ISOLATED: {clean(after.isolation.problem)}")
    lines += change_lines(before, after)
    if before is None or before.state is not after.state:
        lines.append(f"{after.state}")
    return lines


def act_line(act: Act) -> str:
    return f"{clean(act.service)}: {'' if act.ok else 'FAILED: '}{clean(act.proof)} ({act.seconds:.1f} s)"


def build_line(step: BuildStep) -> str:
    """How far the build is: "build [=====     ]  34 %  install imaging; about 80 s left"."""
    bar = ":"
    if step.done is not None:
        filled = int(max(0.0, min(1.0, step.done)) * _BAR)
        bar = f" [{'=' * filled:{_BAR}}] {step.done:4.0%} "
    left = "" if step.remaining is None else f"; {about(step.remaining)} left"
    return f"build{bar} {clean(step.text)}{left}"


def newest(lines: Iterable[str], *, most: int) -> list[str]:
    return list(lines)[-most:]
