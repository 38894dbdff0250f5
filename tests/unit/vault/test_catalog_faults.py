"""A vault that fails while services run."""

import os
from pathlib import Path

import pytest

from cleanroomd.vault import catalog as module
from cleanroomd.vault.catalog import Catalog


def test_a_disk_that_cannot_be_read_is_a_problem_of_that_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "record.raw").write_bytes(b"x")

    def broken(self: Path, **_: object) -> os.stat_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "stat", broken)
    assert Catalog(tmp_path, unsealed=True).disk("record").facts.problem == "cannot be read: Input/output error"


def test_an_image_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    header_problem = module._header_problem

    def counted(path: Path, image_format: str) -> str:
        read.append(path)
        return header_problem(path, image_format)

    monkeypatch.setattr(module, "_header_problem", counted)
    image = tmp_path / "record.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(8))
    catalog = Catalog(tmp_path, unsealed=True)
    assert [catalog.disk("record").facts.problem for _ in range(3)] == ["", "", ""]
    assert len(read) == 1
    image.write_bytes(b"no image, but longer than a header of one")
    assert catalog.disk("record").facts.problem == "is not a qcow2 image"
    assert len(read) == 2
