"""What the vault holds, and what is wrong with it, in words."""

import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.model.observed import DiskFacts

_QCOW2_HEADER = struct.Struct(">4sIQ16xIIQ24x")
"""Magic, version, offset of the backing file's name, encryption, entries and offset of the L1 table: QEMU
docs/interop/qcow2.rst, "Header"."""
_QCOW2_L1_ENTRY = 8
_QCOW2_FEATURES = struct.Struct(">Q")
"""Incompatible features, which follow from version 3 on."""
_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_CORRUPT = 1 << 1
_QCOW2_EXTERNAL_DATA = 1 << 2


@dataclass(frozen=True, slots=True)
class VaultDisk:
    """An image of the vault: `format` is "qcow2" or "raw"."""

    path: Path
    format: str
    facts: DiskFacts


class Catalog:
    """The images in `directory`, as NAME.qcow2 or NAME.raw."""

    def __init__(self, directory: Path, *, unsealed: bool) -> None:
        self._directory = directory
        self._unsealed = unsealed
        self._problems: dict[Path, tuple[tuple[int, ...], str]] = {}

    def disk(self, name: str) -> VaultDisk:
        """The image called `name`; its facts say what keeps it from being used, if anything does."""
        for image_format in ("qcow2", "raw"):
            path = self._directory / f"{name}.{image_format}"
            try:
                return VaultDisk(path, image_format, self._inspect(name, path, image_format))
            except FileNotFoundError:
                continue
            except OSError as error:
                return VaultDisk(path, image_format, DiskFacts(name, f"cannot be read: {error.strerror}"))
        path = self._directory / f"{name}.qcow2"
        return VaultDisk(path, "qcow2", DiskFacts(name, "is not in the vault"))

    def _inspect(self, name: str, path: Path, image_format: str) -> DiskFacts:
        """Looks into an image once for as long as its inode says that it is the same: every round asks."""
        facts = path.stat()
        identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if not stat.S_ISREG(facts.st_mode):
            return DiskFacts(name, "is not a file")
        if facts.st_size == 0:
            return DiskFacts(name, "is empty")
        known = self._problems.get(path)
        if known is None or known[0] != identity:
            known = (identity, _header_problem(path, image_format, facts.st_size))
            self._problems[path] = known
        if known[1]:
            return DiskFacts(name, known[1])
        if not self._unsealed:
            return DiskFacts(name, "is not sealed")
        return DiskFacts(name, data_as_of=facts.st_mtime)


def _header_problem(path: Path, image_format: str, size: int) -> str:
    with path.open("rb") as stream:
        untrusted_header = stream.read(_QCOW2_HEADER.size + _QCOW2_FEATURES.size)
    return _qcow2_problem(untrusted_header, size) if image_format == "qcow2" else ""


def _qcow2_problem(untrusted_header: bytes, size: int) -> str:
    """Anything beyond the file itself is refused: another file's place is known only where the image was made.

    And QEMU takes what lies beyond its end for zeros: without its tables an image would be an empty disk.
    """
    if len(untrusted_header) < _QCOW2_HEADER.size:
        return "is cut short"
    magic, version, backing_offset, encryption, l1_entries, l1_offset = _QCOW2_HEADER.unpack_from(untrusted_header)
    if magic != _QCOW2_MAGIC or version not in (2, 3):
        return "is not a qcow2 image"
    features = 0
    if version == 3:
        if len(untrusted_header) < _QCOW2_HEADER.size + _QCOW2_FEATURES.size:
            return "is cut short"
        (features,) = _QCOW2_FEATURES.unpack_from(untrusted_header, _QCOW2_HEADER.size)
    if backing_offset != 0:
        return "refers to another file; import it as a whole"
    if features & _QCOW2_EXTERNAL_DATA:
        return "keeps its data in another file; import it as a whole"
    if encryption != 0:
        return "is encrypted; import it decrypted, since nobody is there to give its key"
    if l1_offset + l1_entries * _QCOW2_L1_ENTRY > size:
        return "is cut short"
    if features & _QCOW2_CORRUPT:
        return "is marked as corrupt; put a sound copy in its place, or try `qemu-img check -r all` on a copy"
    return ""
