"""The run journal keeps what it is given, and goes on when the disk does not."""

import asyncio
from pathlib import Path

import pytest

from cleanroomd.engine.journal import Event, Journal


async def collect(journal: Journal) -> list[str]:
    return [str(entry["text"]) async for entry in journal.entries(follow=False)]


async def test_entries_come_back_in_order_and_those_of_the_last_daemon_too(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.jsonl"
    first = Journal(path)
    first.record(Event.DAEMON, "one")
    first.close()
    second = Journal(path)
    second.record(Event.SERVICE, "deux, é", service="imaging", console="text")
    assert await collect(second) == ["one", "deux, é"]
    second.close()


async def test_a_follower_gets_each_new_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record(Event.DAEMON, "before")
    entries = journal.entries(follow=True)
    assert (await anext(entries))["text"] == "before"
    waiting = asyncio.ensure_future(anext(entries))
    await asyncio.sleep(0)
    journal.record(Event.DAEMON, "after")
    assert (await waiting)["text"] == "after"
    await entries.aclose()
    journal.close()


async def test_a_damaged_line_is_shown_as_such(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"event": "daemon", "text": "good"}\n\xff\xfe{half\n[1]\n')
    journal = Journal(path)
    events = [entry["event"] async for entry in journal.entries(follow=False)]
    assert events == ["daemon", "unreadable", "unreadable"]
    journal.close()


async def test_a_full_disk_costs_entries_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")

    class Full:
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    journal.close()
    monkeypatch.setattr(journal, "_file", Full())
    journal.record(Event.DAEMON, "lost")
    journal.record(Event.DAEMON, "kept")
    assert await collect(journal) == ["kept"]
    journal.close()
