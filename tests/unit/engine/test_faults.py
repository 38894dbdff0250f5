"""The loop and its records when things fail: full disks, surprises inside steps, rounds that cannot look."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from cleanroomd.engine import isolating, loop
from cleanroomd.engine import journal as journal_module
from cleanroomd.engine import record as record_module
from cleanroomd.engine.effects import Effects
from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.engine.journal import Event, Journal
from cleanroomd.engine.loop import Engine
from cleanroomd.engine.record import Record
from cleanroomd.errors import IsolationError, MachineError
from cleanroomd.model.observed import Capacity, Failure, Intent, MachineFacts, MachinePhase, Observed, ProbeFacts
from cleanroomd.model.plan import StartKind
from cleanroomd.model.posture import DENY_ALL, Proof
from cleanroomd.model.status import Status
from cleanroomd.model.steps import ApplyRules, LaunchMachine, MakeTap, Step, WatchReadiness
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile
from tests.unit.restore.plans import observed, plan, service

PLAN = plan(service("record"))
FULL = OSError(28, "No space left on device")


class FakeLauncher:
    """Knows `machines`; `left_behind` are those that an earlier daemon left and that adopt() finds."""

    def __init__(self) -> None:
        self.machines: dict[str, MachineFacts] = {}
        self.left_behind: dict[str, MachineFacts] = {}

    def facts(self) -> dict[str, MachineFacts]:
        return dict(self.machines)

    async def adopt(self) -> tuple[str, ...]:
        found = {name: facts for name, facts in self.left_behind.items() if name not in self.machines}
        self.machines.update(found)
        return tuple(found)


class FakeStorage:
    def look_soon(self) -> None:
        pass


@dataclass
class FakeEffects:
    journal: Journal
    outline: Outline = field(default_factory=lambda: Outline(PLAN))
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    storage: FakeStorage = field(default_factory=FakeStorage)
    answers: dict[str, ProbeFacts] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    now: float = 1000.0

    async def fail(self, service: str, reason: str) -> None:
        self.failures.append((service, reason))
        self.now += 0.001


@pytest.fixture
def effects(tmp_path: Path) -> Iterator[FakeEffects]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield FakeEffects(journal)
    journal.close()


def look(effects: FakeEffects, busy: Mapping[str, Step]) -> Observed:
    """A proven enclosure whose record may be launched."""
    posture = reconcile(effects.outline, observed(PLAN)).posture
    failures = {name: (Failure(1000.0, reason),) for name, reason in effects.failures}
    return replace(
        observed(PLAN),
        taps=frozenset(tap.interface for tap in posture.taps),
        proof=Proof(posture, 1, "", 1000.0),
        machines=effects.launcher.facts(),
        failures=failures,
        busy=dict(busy),
    )


def engine_on(effects: FakeEffects, monkeypatch: pytest.MonkeyPatch, **patched: Any) -> Engine:
    def observe(_effects: object, _capacity: object, *, power_on: float, busy: Mapping[str, Step]) -> Observed:
        return look(effects, busy)

    for name, value in {"observe": observe, **patched}.items():
        monkeypatch.setattr(loop, name, value)

    def done(_status: Status) -> None:
        if effects.failures or effects.launcher.machines:
            engine.end()

    engine = Engine(cast("Effects", effects), Capacity(1 << 40, 1), power_on=0.0, unsealed=True, on_status=done)
    return engine


@pytest.mark.parametrize("surprise", [RuntimeError("odd"), KeyError("record"), FULL, MachineError("cannot start it")])
async def test_whatever_a_launch_dies_of_is_one_failed_attempt(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch, surprise: Exception
) -> None:
    async def apply(step: Step, _effects: object) -> None:
        if isinstance(step, LaunchMachine):
            raise surprise

    await engine_on(effects, monkeypatch, apply=apply).run()
    assert [name for name, _ in effects.failures] == ["record"]


def facts(phase: MachinePhase = MachinePhase.PAUSED) -> MachineFacts:
    return MachineFacts("record", 1, phase, StartKind.COLD, 1, 1 << 20, 1000.0)


async def test_a_launch_that_left_its_own_machine_half_started_has_failed(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QEMU that does not greet is known to the launcher; it is no machine of an earlier daemon."""

    async def apply(step: Step, _effects: object) -> None:
        if isinstance(step, LaunchMachine):
            effects.launcher.machines["record"] = facts()
            raise MachineError("cannot talk to the machine of record: no answer in time")

    await engine_on(effects, monkeypatch, apply=apply).run()
    assert effects.failures[0][1].endswith("no answer in time")


async def test_a_launch_that_meets_a_machine_of_an_earlier_daemon_adopts_it(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.launcher.left_behind["record"] = facts(MachinePhase.RUNNING)

    async def apply(step: Step, _effects: object) -> None:
        if isinstance(step, LaunchMachine):
            raise MachineError("cannot start record: another QEMU of it is still running")

    await engine_on(effects, monkeypatch, apply=apply).run()
    assert effects.failures == []
    assert "record" in effects.launcher.machines


async def test_a_full_disk_in_an_immediate_step_does_not_end_the_loop(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def apply(_step: Step, _effects: object) -> None:
        raise FULL

    engine = engine_on(effects, monkeypatch, apply=apply)
    assert await engine._apply_now(WatchReadiness("record")) is False
    entries = [entry async for entry in effects.journal.entries(follow=False)]
    assert entries[-1]["text"] == "cannot probe record until it answers: No space left on device"


async def test_a_step_that_fails_again_and_again_is_in_the_journal_once(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch
) -> None:
    causes = [MachineError("cannot: a"), MachineError("cannot: a"), MachineError("cannot: b"), None, None]

    async def apply(_step: Step, _effects: object) -> None:
        cause = causes.pop(0)
        if cause is not None:
            raise cause

    engine = engine_on(effects, monkeypatch, apply=apply)
    step = WatchReadiness("record")
    assert [await engine._apply_now(step) for _ in range(5)] == [False, False, False, True, True]
    said = [entry["text"] async for entry in effects.journal.entries(follow=False)]
    assert said == [str(step), "cannot: a", "cannot: b", f"at last: {step}", str(step)]


async def test_a_loop_that_gives_up_leaves_no_step_behind(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its launcher is closed next: a step that goes on would work on descriptors that are somebody else's by then."""
    monkeypatch.setattr(loop, "_LOOK_AGAIN", 0.0)
    began = asyncio.Event()

    async def apply(_step: Step, _effects: object) -> None:
        began.set()
        await asyncio.Event().wait()

    engine = engine_on(effects, monkeypatch, apply=apply)
    engine._start(LaunchMachine("record", StartKind.COLD, 1, 1 << 20))
    (task,) = (task for _, task in engine._tasks.values())
    await began.wait()

    def blind(*_args: object, **_kwargs: object) -> Observed:
        raise RuntimeError("cannot look")

    monkeypatch.setattr(loop, "observe", blind)
    with pytest.raises(RuntimeError, match="cannot look"):
        await engine.run()
    assert task.cancelled()


async def test_a_full_disk_takes_nothing_from_the_daemon_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(record_module, "write_json", full)
    record = Record(run=tmp_path / "run", state=tmp_path / "state")
    await record.set_intents(["record"], Intent.STOP)
    await record.add_failure("record", Failure(5.0, "no answer"))
    await record.set_duration("record", 12.0)
    assert record.intents == {"record": Intent.STOP}
    assert record.failures == {"record": (Failure(5.0, "no answer"),)}
    await record.clear_failures(["record"])
    assert record.failures == {}


async def texts(journal: Journal) -> list[str]:
    return [str(entry["text"]) async for entry in journal.entries(follow=False)]


async def test_a_follower_goes_on_in_the_next_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_LARGEST_FILE", 300)
    journal = Journal(tmp_path / "journal.jsonl")
    entries = journal.entries(follow=True)
    for number in range(12):
        journal.record(Event.DAEMON, f"entry {number}")
        assert (await anext(entries))["text"] == f"entry {number}"
    assert (tmp_path / "journal.jsonl.1").exists()
    await entries.aclose()
    journal.close()


async def test_a_line_that_a_power_cut_left_half_written_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"event": "daemon", "te')
    journal = Journal(path)
    journal.record(Event.DAEMON, "after")
    events = [entry["event"] async for entry in journal.entries(follow=False)]
    assert events == ["unreadable", "daemon"]
    journal.close()


async def test_a_journal_that_cannot_be_opened_costs_entries_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.mkdir()
    journal = Journal(path)
    journal.record(Event.DAEMON, "lost")
    path.rmdir()
    journal.record(Event.DAEMON, "kept")
    assert await texts(journal) == ["kept"]
    journal.close()


class FakeWriter:
    """Rules that can be had, or not; remembers whether it was closed."""

    def __init__(self) -> None:
        self.closed = False
        self.works = True

    def apply(self, _rules: object) -> None:
        if not self.works:
            raise IsolationError("cannot apply the rules: an interface is gone")

    def prove(self, posture: object) -> Proof:
        return Proof(DENY_ALL, 1, "", isolating.now())

    def generation(self) -> int:
        return 1

    def foreign_tables(self) -> frozenset[str]:
        return frozenset()

    @property
    def port(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeCopy:
    gone: bool = False
    owning: Any = field(default_factory=lambda: FakeSocket())
    closed: bool = False

    def keeper_is_gone(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.closed = True


class FakeSocket:
    def dup(self) -> "FakeSocket":
        return self


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[FakeWriter]:
    made: list[FakeWriter] = []

    def writer(_owning: object) -> FakeWriter:
        made.append(FakeWriter())
        return made[-1]

    monkeypatch.setattr(isolating, "RuleWriter", writer)
    monkeypatch.setattr(isolating.links, "enable_forwarding", lambda: None)
    # This network is nobody's to judge, and nobody's to put right.
    monkeypatch.setattr(isolating.Guard, "look_around", lambda _self: None)
    return made


def test_the_last_copy_of_the_owning_socket_is_kept_while_there_is_no_keeper(
    writers: list[FakeWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = [FakeCopy()]

    def copy_of(_path: Path, *, ours: object = None) -> FakeCopy:
        if not copies:
            raise IsolationError("cannot get the owning socket: Connection refused")
        return copies.pop()

    monkeypatch.setattr(isolating, "copy_of", copy_of)
    control = IsolationControl(Path("keeper"), alarm=lambda _, /, **_fields: None)
    control.apply(DENY_ALL)
    (writer,) = writers
    for _ in range(2):
        writer.works = False
        with pytest.raises(IsolationError):
            control.apply(DENY_ALL)
        assert control.proof is None
        assert not writer.closed
    writer.works = True
    control.apply(DENY_ALL)
    assert control.proof is not None
    assert writers == [writer]


def test_a_dead_keepers_successor_is_given_our_copy(writers: list[FakeWriter], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeCopy(), FakeCopy()
    at_the_keeper: list[FakeCopy] = [first]
    offered: list[object] = []

    def copy_of(_path: Path, *, ours: object = None) -> FakeCopy:
        offered.append(ours)
        if not at_the_keeper:
            raise IsolationError("cannot get the owning socket: Connection refused")
        return at_the_keeper.pop()

    monkeypatch.setattr(isolating, "copy_of", copy_of)
    alarms: list[str] = []
    control = IsolationControl(Path("keeper"), alarm=lambda text, /, **_fields: alarms.append(text))
    control.apply(DENY_ALL)
    first.gone = True
    control.check()
    control.check()
    assert alarms == ["the keeper of the rules is gone; they stay in force while this daemon holds them"]
    assert not writers[0].closed
    assert control.proof is not None
    at_the_keeper.append(second)
    control.check()
    assert offered[-1] is first.owning
    assert first.closed
    assert control.proof is not None
    assert alarms[1:] == ["a new keeper holds the rules"]
    assert control.foreign_changes == 0


def test_a_tap_that_cannot_be_made_is_why_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> None:
        raise IsolationError("cannot make tap tap-record: No such file or directory")

    monkeypatch.setattr(isolating.links, "make_tap", refuse)
    control = IsolationControl(Path("keeper"), alarm=lambda _, /, **_fields: None)
    with pytest.raises(IsolationError):
        control.make_tap("tap-record")
    assert control.problem == "cannot make tap tap-record: No such file or directory"
    assert control.retry_at > isolating.now()


async def test_rules_are_not_applied_over_a_tap_that_is_missing(
    effects: FakeEffects, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[type] = []

    async def apply(step: Step, _effects: object) -> None:
        applied.append(type(step))
        if isinstance(step, MakeTap):
            raise IsolationError("cannot make tap tap-record: No such file or directory")

    engine = engine_on(effects, monkeypatch, apply=apply)
    monkeypatch.setattr(loop, "observe", lambda *_args, **_kwargs: observed(PLAN))
    await engine._round()
    assert MakeTap in applied
    assert ApplyRules not in applied
