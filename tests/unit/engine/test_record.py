"""What a restarted daemon finds again, and what a new power-on forgets."""

from pathlib import Path

import pytest

from cleanroomd.engine import record as module
from cleanroomd.engine.record import Record
from cleanroomd.model.observed import Failure, Intent


def fresh(tmp_path: Path) -> Record:
    return Record(run=tmp_path / "run", state=tmp_path / "state")


async def test_a_restarted_daemon_goes_on_with_failures_intents_and_durations(tmp_path: Path) -> None:
    before = fresh(tmp_path)
    await before.add_failure("record", Failure(5.0, "no answer"))
    await before.set_intents(["imaging"], Intent.STOP)
    await before.set_duration("record-db", 12.3456)
    after = fresh(tmp_path)
    assert after.failures == {"record": (Failure(5.0, "no answer"),)}
    assert after.intents == {"imaging": Intent.STOP}
    assert after.durations == {"record-db": 12.346}


async def test_powering_on_asks_for_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fresh(tmp_path)
    await before.add_failure("record", Failure(5.0, "no answer"))
    await before.set_intents(["imaging"], Intent.STOP)
    await before.set_duration("record-db", 12.0)
    monkeypatch.setattr(module, "power_on_identity", lambda: "another power-on")
    after = fresh(tmp_path)
    assert (after.failures, after.intents) == ({}, {})
    assert after.durations == {"record-db": 12.0}


@pytest.mark.parametrize("text", ["", "{", '{"record": 5}', '{"record": [{"at": "x"}]}', '{"record": "elsewhere"}'])
async def test_damaged_records_are_as_good_as_none(tmp_path: Path, text: str) -> None:
    fresh(tmp_path)
    for name in ("failures", "intents"):
        (tmp_path / "run" / f"{name}.json").write_text(text)
    (tmp_path / "state" / "durations.json").write_text(text)
    after = fresh(tmp_path)
    assert not any(after.failures.values())
    assert after.intents == {}
