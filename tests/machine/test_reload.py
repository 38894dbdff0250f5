"""The plan is changed under a running enclosure, and read again at SIGHUP."""

import pytest

from rigs.bench.sandboxed import enclosure_root, measure
from rigs.place import default_cache
from rigs.scenario import tiny_hospital


@pytest.mark.timeout(400)
def test_a_changed_plan_comes_into_force_through_verdict_and_steps() -> None:
    scenario = tiny_hospital()
    disks = scenario.build(default_cache(), lambda _step: None)
    with enclosure_root(scenario.plan.read_text(encoding="utf-8"), disks) as root:
        found = measure("tests.machine.reload_inside", root)
    assert "ready" in found["before"]

    assert set(found["reasons"]) == {"record-db", "record", "imaging"}
    assert found["laboratory"] == {"memory": [], "reached": "nothing"}
    assert found["kept"], "the crisis data of a service that left the plan are gone"
    assert found["title"] == "PACS"
    assert found["state"] == "RESTORED"
    assert found["reasons"]["imaging"].endswith("it runs as an earlier plan described it")
    assert "earlier plan" not in found["reasons"]["record"]
    assert "`cleanroomctl stop imaging`, then `start imaging`" in found["next"]
    assert found["running"] == ["128M"]

    assert found["problem"].startswith("cannot use the plan")
    assert "line 1: is not TOML" in found["problem"]
    assert found["still"]["state"] == "RESTORED"
    assert "ready" in found["still"]["record"]

    assert found["again"]["problem"] == ""
    assert "ready" in found["again"]["reached"]

    assert found["applied"]["memory"] == ["160M"]
    assert "earlier plan" not in found["applied"]["reason"]
