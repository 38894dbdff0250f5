"""The run journal in systemd's own: every entry, with its message id and its fields."""

import json

import pytest

from cleanroomd.engine.journal import MESSAGE_IDS, Event
from rigs.nspawn.container import Container
from tests.appliance.enclosure import DAEMON, entries

pytestmark = pytest.mark.timeout(400)


def test_every_entry_of_the_run_journal_is_there_in_order(fresh: Container) -> None:
    assert fresh.run("cleanroomctl", "stop", "imaging").returncode == 0
    fresh.systemctl("stop", DAEMON)
    lines = fresh.run("cat", "/var/lib/cleanroom/state/journal.jsonl").stdout.splitlines()
    written = [json.loads(line) for line in lines]
    arrived = [entry for entry in entries(fresh, "SYSLOG_IDENTIFIER=cleanroomd") if "CLEANROOM_EVENT" in entry]
    assert [entry["CLEANROOM_EVENT"] for entry in arrived] == [entry["event"] for entry in written]
    for entry, line in zip(arrived, written, strict=True):
        service = line.get("service", "")
        assert entry["MESSAGE"] == (f"{service}: {line['text']}" if service else line["text"])
        assert entry["MESSAGE_ID"] == MESSAGE_IDS[Event(line["event"])]
        assert entry["_SYSTEMD_UNIT"] == DAEMON
        assert entry["PRIORITY"] == ("3" if line["event"] == Event.STEP_FAILED else "6")
        for key in line.keys() - {"time", "boottime", "event", "text", "service"}:
            assert entry[f"CLEANROOM_{key.upper()}"] == str(line[key])


def test_entries_are_found_by_message_id_and_by_service(fresh: Container) -> None:
    assert fresh.run("cleanroomctl", "stop", "imaging").returncode == 0
    (asked,) = entries(fresh, f"MESSAGE_ID={MESSAGE_IDS[Event.OPERATOR]}")
    assert asked["MESSAGE"] == "asked to stop imaging"
    assert {"blocked", "stopped"} >= {
        entry["CLEANROOM_STATE"]
        for entry in entries(fresh, f"MESSAGE_ID={MESSAGE_IDS[Event.SERVICE]}", "CLEANROOM_SERVICE=imaging")
        if "CLEANROOM_STATE" in entry
    }
