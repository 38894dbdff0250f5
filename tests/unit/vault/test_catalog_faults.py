"""A vault that fails while services run."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroomd.vault import catalog as module
from cleanroomd.vault.catalog import Catalog

_LIBC = ctypes.CDLL(None, use_errno=True)
_VERSION_3 = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3, linux/capability.h."""
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@pytest.fixture
def without_overriding_modes() -> Iterator[None]:
    """Modes count for root too, as they do for a daemon whose unit takes these capabilities from it."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()
    assert _LIBC.capget(header, before) == 0
    fewer = (ctypes.c_uint32 * 6)(*before)
    fewer[0] &= ~_OVERRIDES
    assert _LIBC.capset(header, fewer) == 0
    yield
    assert _LIBC.capset(header, before) == 0


def test_a_disk_that_cannot_be_read_is_a_problem_of_that_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "record.raw").write_bytes(b"x")

    def broken(self: Path, **_: object) -> os.stat_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "stat", broken)
    assert Catalog(tmp_path, unsealed=True).disk("record").facts.problem == "cannot be read: Input/output error"


def test_a_link_that_leads_round_in_a_circle_is_a_problem_of_that_disk(tmp_path: Path) -> None:
    (tmp_path / "record.qcow2").symlink_to(tmp_path / "record.qcow2")
    problem = Catalog(tmp_path, unsealed=True).disk("record").facts.problem
    assert problem == "cannot be read: Too many levels of symbolic links"


def test_an_image_that_may_not_be_read_is_a_problem_of_that_disk(
    tmp_path: Path, without_overriding_modes: None
) -> None:
    for name, mode in (("record", 0o000), ("imaging", 0o400)):
        image = tmp_path / f"{name}.qcow2"
        image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(200))
        image.chmod(mode)
    catalog = Catalog(tmp_path, unsealed=True)
    assert catalog.disk("record").facts.problem == "cannot be read: Permission denied"
    assert catalog.disk("imaging").facts.problem == ""


def test_an_image_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    header_problem = module._header_problem

    def counted(path: Path, image_format: str, size: int) -> str:
        read.append(path)
        return header_problem(path, image_format, size)

    monkeypatch.setattr(module, "_header_problem", counted)
    image = tmp_path / "record.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(200))
    catalog = Catalog(tmp_path, unsealed=True)
    assert [catalog.disk("record").facts.problem for _ in range(3)] == ["", "", ""]
    assert len(read) == 1
    image.write_bytes(b"no image, but as long as a header of one".ljust(300))
    assert catalog.disk("record").facts.problem == "is not a qcow2 image"
    assert len(read) == 2
