"""The model crosses the wire unchanged."""

import json
from dataclasses import replace

from asyncvarlink.conversion import VarlinkType
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroomd.control.interface import journal_entry
from cleanroomd.control.wire import from_json, mirror, to_wire
from cleanroomd.model.status import Finding, IsolationStatus, ServiceStatus, Status, Verdict
from tests.unit.control.fake import STATUS

numbers = st.floats(allow_nan=False)
strategies = {float: numbers, float | None: st.none() | numbers}


def of(kind: type) -> st.SearchStrategy[object]:
    hints = {name: strategies[hint] for name, hint in kind.__annotations__.items() if hint in strategies}
    return st.builds(kind, **hints)


statuses = st.builds(
    Status,
    now=numbers,
    power_on=numbers,
    restored_after=strategies[float | None],
    remaining=strategies[float | None],
    isolation=of(IsolationStatus),
    verdict=st.builds(Verdict, findings=st.lists(st.builds(Finding), max_size=3).map(tuple)),
    services=st.lists(of(ServiceStatus), max_size=4).map(tuple),
)


@settings(deadline=None)
@given(statuses)
def test_a_status_survives_the_crossing(status: Status) -> None:
    crossing = VarlinkType.from_type_annotation(mirror(Status))
    received = from_json(Status, json.loads(json.dumps(crossing.tojson(to_wire(status)))))
    assert received == status
    assert type(received.state) is type(status.state)
    assert all(type(service.state) is not str for service in received.services)


def test_integers_on_the_wire_become_the_seconds_of_the_model() -> None:
    crossing = VarlinkType.from_type_annotation(mirror(Status))
    document = json.loads(json.dumps(crossing.tojson(to_wire(STATUS))))
    assert from_json(Status, document | {"now": 572}) == replace(STATUS, now=572.0)


def test_journal_entries_cross_whatever_they_hold() -> None:
    entry = journal_entry(
        {"time": 12, "event": "step", "text": "run imaging", "seconds": 1.5, "steps": ["a"], "none": None}
    )
    assert (entry.time, entry.event, entry.text, entry.service) == (12.0, "step", "run imaging", "")
    assert entry.fields == {"seconds": "1.5", "steps": '["a"]', "none": ""}


def test_a_journal_entry_without_anything_is_an_entry() -> None:
    entry = journal_entry({"time": "yesterday", "text": object()})
    assert entry.time == 0.0
    assert "object" in entry.text
