"""What the vault says of images that are missing, damaged or not what they seem."""

import struct
from pathlib import Path

import pytest

from cleanroomd.vault.catalog import Catalog


def header(*, magic: bytes = b"QFI\xfb", version: int = 3, backing: int = 0) -> bytes:
    return struct.pack(">4sIQ", magic, version, backing) + bytes(488)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header(), ""),
        (header(version=2), ""),
        (header(magic=b"KDMV"), "is not a qcow2 image"),
        (header(version=9), "is not a qcow2 image"),
        (header(backing=512), "refers to another file; import it as a whole"),
        (b"QFI", "is cut short"),
        (b"", "is empty"),
    ],
)
def test_a_qcow2_image_is_looked_at_before_it_is_used(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "disk.qcow2").write_bytes(content)
    disk = Catalog(tmp_path, unsealed=True).disk("disk")
    assert disk.facts.problem == problem
    assert (disk.facts.data_as_of is None) == bool(problem)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    assert Catalog(tmp_path, unsealed=True).disk("disk").facts.problem == "is not in the vault"


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").mkdir()
    assert Catalog(tmp_path, unsealed=True).disk("disk").facts.problem == "is not a file"


def test_nothing_is_sealed_yet_so_nothing_starts_without_saying_so(tmp_path: Path) -> None:
    (tmp_path / "disk.qcow2").write_bytes(header())
    assert Catalog(tmp_path, unsealed=False).disk("disk").facts.problem == "is not sealed"
