"""The fast schedule says what the loop then does, and keeps to the bounds of list scheduling."""

from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.model.plan import Plan
from cleanroomd.model.steps import DeclareReady, RunMachine
from cleanroomd.restore.order import Outline
from cleanroomd.restore.rehearsal import rehearse
from cleanroomd.restore.timeline import Span, critical_path, timeline
from tests.unit.restore.plans import observed, plan, plans, service

lengths = st.lists(st.integers(1, 60), min_size=8, max_size=8)


def schedule(of: Plan, slots: int, length: dict[str, float]) -> dict[str, Span]:
    waiting = {each.name: each.depends_on for each in of.services}
    return dict(timeline(Outline(of), slots=slots, duration=length.__getitem__, under_way={}, waiting=waiting))


@given(plans(), st.integers(1, 4), lengths)
def test_the_schedule_is_what_a_rehearsal_does(of: Plan, slots: int, seconds: list[int]) -> None:
    length = {f"s{number}": float(each) for number, each in enumerate(seconds)}
    begin = observed(of, slots=slots)
    run, ready = {}, {}
    for at, step in rehearse(Outline(of), begin, lambda machine: length[machine.service]):
        if isinstance(step, RunMachine):
            run[step.service] = at - begin.now
        if isinstance(step, DeclareReady):
            ready[step.service] = at - begin.now
    assert {name: (span.start, span.ready) for name, span in schedule(of, slots, length).items()} == {
        name: (run[name], ready[name]) for name in ready
    }


@given(plans(), st.integers(1, 4), lengths)
def test_no_schedule_beats_the_critical_path_and_none_exceeds_the_bound(
    of: Plan, slots: int, seconds: list[int]
) -> None:
    length = {f"s{number}": float(each) for number, each in enumerate(seconds)}
    spans = schedule(of, slots, length)
    assert set(spans) == {each.name for each in of.services}
    makespan = max(span.ready for span in spans.values())
    names = [each.name for each in of.services]
    path = critical_path(Outline(of), names, length.__getitem__)
    work = sum(length[name] for name in names)
    assert makespan >= max(path, work / slots) - 1e-9
    # Graham 1966: a list schedule takes at most the critical path plus the rest of the work shared out.
    assert makespan <= path + (work - path) / slots + 1e-9


def test_a_service_whose_dependency_never_comes_is_left_out() -> None:
    made = plan(service("database", number=1), service("record", number=2, depends_on=("database",)))
    spans = timeline(
        Outline(made), slots=1, duration=lambda _name: 5.0, under_way={}, waiting={"record": ("database",)}
    )
    assert spans == {}
