"""Each sentence of the design's "Restoration, exactly" over random plans, faults and orders of events.

The simulator checks the sentences at every step (see its `check_*`); the tests here say what has to hold in the end.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cleanroomd.model.observed import Fallback, Intent, MachinePhase, Observed, OverlayFacts, ProbeFacts, WarmFacts
from cleanroomd.model.plan import Plan, StartKind
from cleanroomd.model.status import RunState, ServiceState
from cleanroomd.model.steps import FallBack, LaunchMachine, SetAside
from cleanroomd.restore.judgement import judge
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import Round, reconcile
from cleanroomd.restore.rehearsal import rehearse
from cleanroomd.restore.report import run_state

from .plans import CARE, MIB, UPLINK, observed, plan, plans, service
from .simulator import SETTLED, Enclosure

pytestmark = pytest.mark.timeout(300)

seeds = st.integers(0, 2**32)
memories = st.integers(1, 40).map(lambda units: units * 128 * MIB)


def enclosure(of: Plan, seed: int, memory: int, slots: int, faults: float) -> Enclosure:
    rng = random.Random(seed)
    return Enclosure(of, rng, memory=memory, slots=slots, overhead=rng.choice([0, 64 * MIB]), faults=faults)


def disturb(world: Enclosure, other: Plan) -> None:
    """One thing happens; which one is chance."""
    rng, seen = world.rng, world.seen
    alive = [name for name, machine in seen.machines.items() if machine.phase is not MachinePhase.DEAD]
    running = [name for name in alive if seen.machines[name].phase is MachinePhase.RUNNING and name in seen.watched]
    idle = [name for name in alive if name not in seen.busy]
    names = list(world.outline.services)
    disks = list(seen.disks)
    match rng.randrange(32):
        case 0 | 1 | 2 | 3 | 4 | 5 if seen.busy:
            world.finish(rng.choice(list(seen.busy)), well=rng.random() > world.faults)
        case 6 | 7 | 8 | 9 if running:
            name = rng.choice(running)
            world.answer(name, ok=name not in world.deaf and rng.random() < 0.8)
        case 10 if idle:
            world.die(rng.choice(idle))
        case 11:
            world.restart()
        case 12 if rng.random() < 0.3:
            world.cut_power()
        case 13:
            wanted = world.outline.needs_of((rng.choice(names),))
            world.ask(wanted, Intent.RUN)
        case 14:
            wanted = world.outline.needed_by((rng.choice(names),))
            world.ask(wanted, Intent.STOP)
        case 15:
            world.lose_disk(rng.choice(disks), lost=rng.random() < 0.5)
        case 16:
            world.change_rules()
        case 17 if rng.random() < 0.3:
            world.take_plan(other)
        case 20:
            world.plug()
        case 21:
            world.unplug()
        case 22 | 23:
            world.hear(router=rng.random() < 0.3)
        case 24 | 25 | 26:
            world.lease(rng.choice(["results", "images", "zone", "gone"]), rng.choice([5.0, 60.0, 300.0]))
        case 27:
            world.close(rng.choice(["results", "images", "zone"]))
        case 28:
            world.lose_keeper()
        case 29:
            world.clone(rng.choice([CARE, UPLINK]))
        case _:
            world.pass_time(rng.choice([0.1, 1.0, 5.0, 40.0, 400.0]))


@settings(max_examples=120, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(plans(warm=True), plans(warm=True), seeds, memories, st.integers(1, 4), st.sampled_from([0.0, 0.2, 0.6]))
def test_whatever_happens_every_sentence_holds_and_every_run_ends(
    of: Plan, other: Plan, seed: int, memory: int, slots: int, faults: float
) -> None:
    world = enclosure(of, seed, memory, slots, faults)
    try:
        for _ in range(60):
            world.settle()
            disturb(world, other)
        world.faults = 0.0
        turn = world.calm()
    except AssertionError as error:
        raise AssertionError("\n".join((str(error), *world.log[-40:]))) from error
    state = run_state(world.outline, turn.judgement)
    assert state in SETTLED, "every run ends"
    states = world.states(turn)
    required = [each.name for each in world.outline.plan.services if each.required]
    if state is RunState.RESTORED:
        assert set(states.values()) == {ServiceState.READY}
    if state is RunState.DEGRADED:
        assert all(states[name] is ServiceState.READY for name in required)
    if state is RunState.HALTED:
        assert any(states[name] is not ServiceState.READY for name in required)
    blame_is_right(world, turn)
    assert not turn.judgement.strangers, "machines of no plan are gone in the end"


def blame_is_right(world: Enclosure, turn: Round) -> None:
    """A service that is out is so for a cause of its own, or because of one that it depends on, which it names."""
    states = world.states(turn)
    for name, judged in turn.judgement.services.items():
        needs = world.outline.services[name].depends_on
        match judged.state:
            case ServiceState.BLOCKED:
                named = [other for other in needs if f"needs {other}, which is" in judged.reason]
                assert judged.reason.startswith("disk ") or states[named[0]] is not ServiceState.READY
            case ServiceState.FAILED:
                failures = world.seen.failures[name]
                assert len(failures) > world.outline.services[name].retries
                assert judged.reason == failures[-1].reason
            case ServiceState.EXCLUDED:
                assert "needs" in judged.reason
                assert "left" in judged.reason
            case ServiceState.STOPPED:
                assert world.seen.intents[name] is Intent.STOP


@given(plans(warm=True), seeds, st.integers(1, 4))
def test_without_faults_and_with_memory_for_all_everything_is_restored(of: Plan, seed: int, slots: int) -> None:
    world = enclosure(of, seed, 1 << 40, slots, 0.0)
    assert run_state(world.outline, world.calm().judgement) is RunState.RESTORED
    assert not world.seen.failures


@given(plans(warm=True), seeds, memories, st.integers(1, 3))
def test_after_a_shutdown_in_any_state_everything_is_stopped(of: Plan, seed: int, memory: int, slots: int) -> None:
    world = enclosure(of, seed, memory, slots, 0.3)
    for _ in range(30):
        world.settle()
        disturb(world, of)
    world.faults = 0.0
    world.ask(frozenset(world.outline.services), Intent.STOP)
    turn = world.calm()
    assert set(world.states(turn).values()) == {ServiceState.STOPPED}
    assert run_state(world.outline, turn.judgement) is RunState.STOPPED
    assert not world.seen.machines


def burst(world: Enclosure) -> list[tuple[str, object]]:
    """Independent news of one moment: an answer or a death of each machine, a disk, the rules."""
    news: list[tuple[str, object]] = []
    for name, machine in world.seen.machines.items():
        if machine.phase is MachinePhase.RUNNING and name not in world.seen.busy:
            dies = world.rng.random() < 0.3
            facts = ProbeFacts(ok=world.rng.random() < 0.5, detail="news", at=world.seen.now)
            news.append((name, replace(machine, phase=MachinePhase.DEAD, death="ended") if dies else facts))
    news.extend(("disk", name) for name in world.seen.disks if world.rng.random() < 0.2)
    return news


def hear(seen: Observed, news: list[tuple[str, object]]) -> Observed:
    for name, fact in news:
        if name == "disk":
            lost = replace(seen.disks[str(fact)], problem="is gone")
            others = {key: value for key, value in seen.disks.items() if key != fact}
            seen = replace(seen, disks={**others, str(fact): lost})
        elif isinstance(fact, ProbeFacts):
            others = {key: value for key, value in seen.probes.items() if key != name}
            seen = replace(seen, probes={**others, name: fact})
        else:
            machines = {key: value for key, value in seen.machines.items() if key != name}
            seen = replace(seen, machines={**machines, name: fact})  # type: ignore[dict-item]
    return seen


@given(plans(warm=True), seeds, memories, st.integers(1, 4), st.integers(0, 25))
def test_coalesced_events_commute(of: Plan, seed: int, memory: int, slots: int, moment: int) -> None:
    """In whichever order the news of one moment came in, the round that follows is the same, word for word."""
    world = enclosure(of, seed, memory, slots, 0.2)
    for _ in range(moment):
        world.settle()
        disturb(world, of)
    news = burst(world)
    first = reconcile(world.outline, hear(world.seen, news))
    for _ in range(3):
        world.rng.shuffle(news)
        assert reconcile(world.outline, hear(world.seen, news)) == first


WARM = plan(service("database", number=1, start=StartKind.WARM), service("record", number=2, depends_on=("database",)))


def warm_enclosure(**changes: object) -> Observed:
    return replace(observed(WARM), warm={"database": WarmFacts()}, **changes)  # type: ignore[arg-type]


def launches(seen: Observed, answers: dict[StartKind, float | None]) -> list[LaunchMachine]:
    steps = rehearse(Outline(WARM), seen, lambda machine: answers[machine.start])
    return [step for _, step in steps if isinstance(step, LaunchMachine) and step.service == "database"]


def test_a_warm_start_that_misses_its_deadline_goes_on_cold_within_the_attempt() -> None:
    found = launches(warm_enclosure(), {StartKind.WARM: None, StartKind.COLD: 10.0})
    assert [(step.start, step.attempt) for step in found] == [(StartKind.WARM, 1), (StartKind.COLD, 1)]
    assert "no correct answer within 30 s" in found[1].because


def test_a_warm_start_that_answers_is_all_there_is() -> None:
    found = launches(warm_enclosure(), {StartKind.WARM: 0.2, StartKind.COLD: 10.0})
    assert [step.start for step in found] == [StartKind.WARM]


def test_what_a_failed_warm_start_wrote_is_kept_aside() -> None:
    answers: dict[StartKind, float | None] = {StartKind.WARM: None, StartKind.COLD: 10.0}
    steps = [step for _, step in rehearse(Outline(WARM), warm_enclosure(), lambda machine: answers[machine.start])]
    fallen = [step for step in steps if isinstance(step, FallBack)]
    assert [step.service for step in fallen] == ["database"]


@pytest.mark.parametrize(
    ("overlay", "first"),
    [
        (OverlayFacts(), StartKind.WARM),
        (OverlayFacts(exists=True, marked=True), StartKind.WARM),
        (OverlayFacts(exists=True, marked=True, opened=True), StartKind.COLD),
    ],
    ids=["nothing", "no flow ever opened", "what care wrote"],
)
def test_what_care_wrote_is_started_cold(overlay: OverlayFacts, first: StartKind) -> None:
    seen = warm_enclosure(overlays={"database": overlay})
    steps = [step for _, step in rehearse(Outline(WARM), seen)]
    launch = next(step for step in steps if isinstance(step, LaunchMachine))
    assert launch.start is first
    aside = [step for step in steps if isinstance(step, SetAside)]
    assert bool(aside) == (overlay.exists and first is StartKind.WARM)


def test_a_fallback_that_was_cut_short_is_finished_before_anything_else() -> None:
    seen = warm_enclosure(fallbacks={"database": Fallback("no answer", complete=False)})
    judged = judge(Outline(WARM), seen).services["database"]
    assert judged.steps == (FallBack("database", "no answer"),)


def test_warm_starts_need_no_slot() -> None:
    names = [f"s{number}" for number in range(5)]
    of = plan(*(service(name, number=number + 1, start=StartKind.WARM) for number, name in enumerate(names)))
    seen = replace(observed(of, slots=1), warm={name: WarmFacts() for name in names})
    first = [step for at, step in rehearse(Outline(of), seen) if isinstance(step, LaunchMachine) and at == seen.now]
    assert [step.start for step in first] == [StartKind.WARM] * 5


def test_a_service_that_shrinks_starts_cold_and_the_verdict_says_so() -> None:
    of = plan(service("record", start=StartKind.WARM, memory=1024 * MIB, memory_min=512 * MIB))
    seen = replace(observed(of, memory=600 * MIB), warm={"record": WarmFacts()})
    admission = judge(Outline(of), seen).admission
    assert admission.grants["record"].start is StartKind.COLD
    assert admission.verdict.findings[0].effect == "runs with 512 MiB instead of 1 GiB, and starts cold"
