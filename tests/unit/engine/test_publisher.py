"""Subscribers get the newest status; the journal gets each change once; states are dated."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroomd.engine.journal import Event, Journal
from cleanroomd.engine.publisher import Publisher
from cleanroomd.model.status import ServiceState, Status
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile
from cleanroomd.restore.report import report
from tests.unit.restore.plans import observed, plan, service


def status(**changes: object) -> Status:
    outline = Outline(plan(service("record")))
    seen = observed(outline.plan)
    made = report(outline, seen, reconcile(outline, seen), unsealed=True)
    return replace(made, **changes)  # type: ignore[arg-type]


def with_state(of: Status, state: ServiceState, now: float) -> Status:
    return replace(of, now=now, services=tuple(replace(each, state=state) for each in of.services))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.jsonl")
    yield made
    made.close()


async def test_a_slow_subscriber_gets_the_newest_and_nobody_waits_for_it(journal: Journal) -> None:
    publisher = Publisher(journal)
    publisher.publish(status(enclosure="one"))
    watching = publisher.subscribe()
    assert (await anext(watching)).enclosure == "one"
    for name in ("two", "three", "four"):
        publisher.publish(status(enclosure=name))
    assert (await anext(watching)).enclosure == "four"


async def test_the_passing_of_time_alone_is_no_news(journal: Journal) -> None:
    publisher = Publisher(journal)
    first = status()
    publisher.publish(first)
    before = [entry async for entry in journal.entries(follow=False)]
    publisher.publish(replace(first, now=first.now + 5, remaining=1.0))
    assert [entry async for entry in journal.entries(follow=False)] == before


async def test_each_change_of_state_is_dated_and_in_the_journal_once(journal: Journal) -> None:
    publisher = Publisher(journal)
    first = status()
    publisher.publish(first)
    publisher.publish(with_state(first, ServiceState.STOPPED, first.now + 7))
    publisher.publish(with_state(first, ServiceState.STOPPED, first.now + 9))
    assert publisher.status.services[0].since == first.now + 7
    states = [entry["state"] async for entry in journal.entries(follow=False) if entry["event"] == Event.SERVICE.value]
    assert states == ["pending", "stopped"]
