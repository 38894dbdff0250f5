"""Files that must be whole after a crash."""

import errno
import os
from pathlib import Path

import pytest

from cleanroomd.durable import make_directories, read_json, write_durably, write_json


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.json"
    write_json(target, {"a": 1})

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(target, b"new")
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_the_content_is_synced_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "mark"
    order = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), sync(fd))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (order.append("rename"), rename(self, to))[1])
    write_durably(target, b"x")
    assert order == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_record_reads_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    assert read_json(tmp_path / "record.json") == {}


def test_directories_are_made_down_from_what_exists(tmp_path: Path) -> None:
    make_directories(tmp_path / "a" / "b" / "c", durable_below=tmp_path)
    make_directories(tmp_path / "a" / "b" / "c", durable_below=tmp_path)
    assert (tmp_path / "a" / "b" / "c").is_dir()
