"""What the vault says of images that are missing, damaged or not what they seem."""

import struct
from pathlib import Path

import pytest

from cleanroomd.vault.catalog import Catalog


def header(
    *,
    magic: bytes = b"QFI\xfb",
    version: int = 3,
    backing: int = 0,
    encryption: int = 0,
    l1: tuple[int, int] = (0, 0),
    features: int = 0,
) -> bytes:
    return struct.pack(">4sIQ16xIIQ24xQ", magic, version, backing, encryption, *l1, features) + bytes(432)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (header(), ""),
        (header(version=2), ""),
        (header(magic=b"KDMV"), "is not a qcow2 image"),
        (header(version=9), "is not a qcow2 image"),
        (header(backing=512), "refers to another file; import it as a whole"),
        (header(encryption=1), "is encrypted; import it decrypted, since nobody is there to give its key"),
        (header(version=2, encryption=2), "is encrypted; import it decrypted, since nobody is there to give its key"),
        (header(features=1 << 2), "keeps its data in another file; import it as a whole"),
        (header(version=2, features=1 << 2), ""),
        (
            header(features=1 << 1),
            "is marked as corrupt; put a sound copy in its place, or try `qemu-img check -r all` on a copy",
        ),
        (header(features=1 << 0 | 1 << 3), ""),
        (b"QFI", "is cut short"),
        (header()[:79], "is cut short"),
        (header(l1=(54, 80)), ""),
        (header(l1=(55, 80)), "is cut short"),
        (header(l1=(1, 1 << 50)), "is cut short"),
        (header(l1=(0xFFFFFFFF, 80)), "is cut short"),
        (header(version=2)[:71], "is cut short"),
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
