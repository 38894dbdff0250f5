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


@pytest.mark.parametrize(
    ("last", "service", "texts"),
    [
        (0, "", []),
        (2, "", ["three", "four"]),
        (9, "", ["one", "two", "three", "four"]),
        (1, "imaging", ["three"]),
        (9, "imaging", ["one", "three"]),
        (None, "imaging", ["one", "three"]),
        (9, "image", []),
    ],
)
async def test_the_last_entries_and_those_of_a_service(
    tmp_path: Path, last: int | None, service: str, texts: list[str]
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for text, about in (("one", "imaging"), ("two", ""), ("three", "imaging"), ("four", "record")):
        journal.record(Event.SERVICE, text, service=about)
    found = [entry["text"] async for entry in journal.entries(follow=False, last=last, service=service)]
    assert found == texts
    journal.close()


async def test_what_a_text_quotes_is_not_what_it_is_about(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record(Event.SERVICE, 'the guest said "service": "imaging"', service="record")
    assert [entry async for entry in journal.entries(follow=False, service="imaging")] == []
    journal.close()


async def test_a_follower_of_the_last_entries_misses_none_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the next file too, where the place of the first one means nothing."""
    monkeypatch.setattr("cleanroomd.engine.journal._LARGEST_FILE", 300)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record(Event.DAEMON, "old")
    journal.record(Event.DAEMON, "last")
    entries = journal.entries(follow=True, last=1)
    assert (await anext(entries))["text"] == "last"
    for number in range(9):
        # Two at a time: more than `last` may wait in a file that is new.
        for half in ("a", "b"):
            journal.record(Event.DAEMON, f"new {number}{half}")
        assert [(await anext(entries))["text"] for _ in range(2)] == [f"new {number}a", f"new {number}b"]
    assert (tmp_path / "journal.jsonl.1").exists()
    await entries.aclose()
    journal.close()


@pytest.mark.parametrize("last", [None, 1, 4, 99])
async def test_the_file_before_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int | None) -> None:
    """Else the journal would seem empty whenever a new file begins."""
    monkeypatch.setattr("cleanroomd.engine.journal._LARGEST_FILE", 300)
    journal = Journal(tmp_path / "journal.jsonl")
    written: list[str] = []
    while not (tmp_path / "journal.jsonl.1").exists():
        written.append(f"entry {len(written)}")
        journal.record(Event.DAEMON, written[-1])
    assert not (tmp_path / "journal.jsonl").exists()
    for _ in range(2):
        found = [entry["text"] async for entry in journal.entries(follow=False, last=last)]
        assert found == (written if last is None else written[-last:])
        written.append(f"entry {len(written)}")
        journal.record(Event.DAEMON, written[-1])
    journal.close()


async def test_a_follower_may_come_before_the_first_entry_of_a_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    (tmp_path / "journal.jsonl").unlink()
    journal.close()
    entries = journal.entries(follow=True, last=10)
    waiting = asyncio.ensure_future(anext(entries))
    for _ in range(5):
        await asyncio.sleep(0)
    journal.record(Event.DAEMON, "first")
    assert (await waiting)["text"] == "first"
    await entries.aclose()
    journal.close()
