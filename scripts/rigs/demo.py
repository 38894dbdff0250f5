"""`scripts/demo`: a small hospital comes back in priority order, isolated, on this machine and without a trace on it.

This process builds, shows and decides the exit code. Everything that runs, runs in a sandbox that the kernel ends when
this process does, however it ends (see rigs.namespaces), unless --keep was given.
"""

import argparse
import json
import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cleanroomd.errors import CleanroomError, Exit
from cleanroomd.model.status import Status
from rigs import board, namespaces
from rigs.events import Acted, Changed, Ended, Failed, Hosts, Said, decode
from rigs.namespaces import Sandbox
from rigs.place import Place, Running, default_cache
from rigs.report import Report, table
from rigs.scenario import BuildStep, Scenario, hospital, tiny_hospital

TICK = 1.0
"""Seconds between two pictures of the board when nothing changes: its clocks show whole ones."""
ACTIVITY_LINES = 8
NARROWEST, WIDEST = 60, 120


class Stopped(BaseException):
    """A signal ended the demonstration; like KeyboardInterrupt it is no Exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    """Unwind, and let nothing interrupt the unwinding."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


class Screen:
    """What a person sees: a live picture on a terminal, a line for each change elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._status: Status | None = None
        self._received = 0.0
        self._activity: list[str] = []
        self._step = ""

    @property
    def columns(self) -> int:
        return min(WIDEST, max(NARROWEST, self._console.width))

    @contextmanager
    def open(self) -> Iterator[None]:
        """The picture stays on the terminal when this is left."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, vertical_overflow="crop") as self._live:
            try:
                yield
            finally:
                self._live = None

    def build(self, step: BuildStep) -> None:
        if self._live is not None:
            self._live.update(Text(board.build_line(step)), refresh=True)
        elif step.text != self._step:
            self.line(board.build_line(step))
        self._step = step.text

    def say(self, text: str) -> None:
        self._activity = board.newest([*self._activity, text], most=ACTIVITY_LINES)
        if self._live is None:
            self.line(text)
        self.tick()

    def show(self, status: Status) -> None:
        before, self._status, self._received = self._status, status, time.monotonic()
        if self._live is None:
            for text in board.plain_lines(before, status):
                self.line(text)
        self.tick()

    def tick(self) -> None:
        if self._live is None or self._status is None:
            return
        age = time.monotonic() - self._received
        picture = board.board(self._status, age=age, activity=self._activity, columns=self.columns)
        self._live.update(picture, refresh=True)

    def line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def carry_out(options: argparse.Namespace, place: Place, screen: Screen) -> int:
    """Build, run, report; the exit code."""
    scenario = tiny_hospital() if options.tiny else hospital()
    namespaces.check_means()
    if place.cache.resolve().is_relative_to("/run"):
        raise CleanroomError(f"cannot use {place.cache}: the enclosure has a /run of its own", "choose another --cache")
    with place.locked() as lock:
        place.clear()
        with screen.open():
            disks = scenario.build(place.cache, screen.build)
        root = place.prepare(plan=scenario.plan, disks=disks)
        kept = False
        try:
            report, kept = _run(options, place, root, lock, screen)
        finally:
            place.save_outcome(scenario.plan)
            if not kept:
                place.clear()
    _print_outcome(options, scenario, place, report, screen, kept=kept, root=root)
    return report.exit_code()


def _run(options: argparse.Namespace, place: Place, root: Path, lock: int, screen: Screen) -> tuple[Report, bool]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "rigs.orchestrate", f"--root={root}", f"--logs={place.logs}", f"--events={write_end}"]
    argv += [f"--{name}" for name in ("tiny", "power-cut", "keep") if getattr(options, name.replace("-", "_"))]
    with (
        os.fdopen(read_end, "rb", buffering=0) as events,
        namespaces.sandbox(argv, log=place.logs / "orchestrator.log", pass_fds=(write_end,), held=(lock,)) as made,
    ):
        os.close(write_end)
        with screen.open():
            report = _follow(events.fileno(), made, place, screen)
        if options.keep:
            made.keep()
        return report, bool(options.keep)


def _follow(events: int, made: Sandbox, place: Place, screen: Screen) -> Report:
    """Show what the orchestrator tells until it tells the outcome."""
    for line in _lines(events, screen.tick):
        match decode(line):
            case Hosts(workstation=workstation):
                place.write_running(Running.of(made.pid, workstation=workstation))
            case Said(text=text):
                screen.say(text)
            case Changed(status=status):
                screen.show(status)
            case Acted(act=act):
                screen.say(board.act_line(act))
            case Ended(report=report):
                return report
            case Failed(message=message, hint=hint):
                raise CleanroomError(message, hint or f"the logs are in {place.logs}")
    last = (place.logs / "orchestrator.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise CleanroomError(f"cannot go on: the sandbox ended early ({''.join(last)})", f"the logs are in {place.logs}")


def _lines(events: int, tick: Callable[[], None]) -> Iterator[bytes]:
    """The lines of a pipe as they come; `tick` is called about once a second while none does."""
    pending = b""
    while True:
        if not select.select([events], [], [], TICK)[0]:
            tick()
            continue
        data = os.read(events, 1 << 16)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        yield from lines


def _print_outcome(
    options: argparse.Namespace,
    scenario: Scenario,
    place: Place,
    report: Report,
    screen: Screen,
    *,
    kept: bool,
    root: Path,
) -> None:
    document = json.dumps(report.document(), ensure_ascii=False, indent=2)
    (place.outcome / "status.json").write_text(document + "\n", encoding="utf-8")
    for text in ("", *table(report, columns=screen.columns)):
        screen.line(text)
    if kept:
        ours = "scripts/demo" if options.cache == default_cache() else f"scripts/demo --cache {options.cache}"
        beside = Path(sys.executable).parent / "cleanroomctl"
        screen.line("It goes on running:")
        screen.line(f"  {beside if beside.exists() else 'cleanroomctl'} --socket {root}/run/control status")
        screen.line(f"  {ours} --workstation -- {shlex.join(scenario.example)}")
        screen.line(f"  {ours} --stop")
    else:
        screen.line(f"Nothing is left running. Details: {place.outcome}/status.json, journal.jsonl")
    if options.json:
        print(document)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """`workstation` is the command that follows --workstation, None without it."""
    ours, command = list(argv), None
    if "--workstation" in ours:
        index = ours.index("--workstation")
        ours, command = ours[:index], ours[index + 1 :]
        command = command[1:] if command[:1] == ["--"] else command
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Restore a small hospital in an enclosure made of namespaces, use it, attack it.",
        epilog="--workstation [--] CMD...  runs a command at the workstation of the one that was kept running",
    )
    parser.add_argument("--json", action="store_true", help="the outcome as one JSON document on standard output")
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards; --stop ends it")
    parser.add_argument("--power-cut", action="store_true", help="cut the power too, and find the record again")
    parser.add_argument("--tiny", action="store_true", help="four tiny machines instead of the real ones")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--stop", action="store_true", help="end the one that was kept running")
    options = parser.parse_args(ours)
    options.workstation = command
    return options


def main() -> int:
    """Exit codes: 0 as planned, 1 not, 2 usage, 3 degraded, 128 + n ended by signal n."""
    options = parse(sys.argv[1:])
    console = Console(stderr=options.json, highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    place = Place(options.cache)
    try:
        if options.stop:
            place.stop()
            return Exit.DONE
        if options.workstation is not None:
            place.enter_workstation(options.workstation or [os.environ.get("SHELL", "/bin/sh")])
        return carry_out(options, place, Screen(console))
    except CleanroomError as error:
        print(error.message, file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return Exit.CANNOT
    except Stopped as stopped:
        print(f"ended by {signal.Signals(stopped.number).name}; nothing is left running", file=sys.stderr)
        return 128 + stopped.number


if __name__ == "__main__":
    sys.exit(main())
