"""From a machine's tree to its disk, without a loop device or a mount: every tool writes into the image file itself."""

import struct
from pathlib import Path

from .boot import KERNEL_OPTIONS, BootFiles
from .machines import Disk
from .shell import run

MIB = 1 << 20
SECTOR = 512
BOOT_START = MIB
BOOT_MIB = 40
ROOT_START = BOOT_START + BOOT_MIB * MIB
MASTER_BOOT_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
PARTITION_FAT16_LBA = 0x0E
PARTITION_LINUX = 0x83


def write_disk(*, disk: Disk, tree: Path, boot: BootFiles, recipe: Path, image: Path) -> None:
    """Make `image`, a qcow2 of the disk; a raw file beside it exists for the time of the call."""
    raw = image.with_suffix(".raw")
    source = tree / disk.source.lstrip("/")
    with raw.open("wb") as file:
        file.truncate(disk.mib * MIB)
    try:
        if disk.bootable:
            write_boot_partition(raw=raw, disk=disk, boot=boot, recipe=recipe)
            write_filesystem(raw=raw, label=disk.label, source=source, offset=ROOT_START, size=disk.mib * MIB)
        else:
            write_filesystem(raw=raw, label=disk.label, source=source, offset=0, size=disk.mib * MIB)
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image])
    finally:
        raw.unlink()


def write_filesystem(*, raw: Path, label: str, source: Path, offset: int, size: int) -> None:
    """ext4 with the features of the machines' kernel, whatever the host's defaults are by now."""
    features = "^orphan_file,^metadata_csum_seed"
    extended = f"offset={offset},assume_storage_prezeroed=1"
    form = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", features, "-E", extended]
    run([*form, "-L", label, "-d", source, raw, f"{(size - offset) // 1024}k"])


def write_boot_partition(*, raw: Path, disk: Disk, boot: BootFiles, recipe: Path) -> None:
    """A partition table, and a FAT partition from which the BIOS loads kernel and initial system."""
    options = " ".join((f"rootlabel={disk.label}", *KERNEL_OPTIONS))
    configuration = raw.with_suffix(".cfg")
    template = (recipe / "syslinux.cfg").read_text(encoding="ascii")
    configuration.write_text(template.replace("@APPEND@", options), encoding="ascii")
    with raw.open("r+b") as file:
        file.write(partition_table(MASTER_BOOT_CODE.read_bytes(), root_bytes=disk.mib * MIB - ROOT_START))
    place = f"--offset={BOOT_START // SECTOR}"
    run(["mkfs.fat", "-F", "16", "-n", "BOOT", place, raw, str(BOOT_MIB * 1024)])
    drive = f"{raw}@@{BOOT_START}"
    run(["mcopy", "-i", drive, boot.kernel, "::vmlinuz"])
    run(["mcopy", "-i", drive, boot.initrd, "::initrd"])
    run(["mcopy", "-i", drive, configuration, "::syslinux.cfg"])
    run(["syslinux", "--install", "--offset", str(BOOT_START), raw])
    configuration.unlink()


def partition_table(boot_code: bytes, *, root_bytes: int) -> bytes:
    """The first sector: boot code, one active FAT partition, one Linux partition, in sectors only (no cylinders)."""
    entries = (
        (0x80, PARTITION_FAT16_LBA, BOOT_START // SECTOR, BOOT_MIB * MIB // SECTOR),
        (0x00, PARTITION_LINUX, ROOT_START // SECTOR, root_bytes // SECTOR),
    )
    table = b"".join(
        struct.pack("<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, count)
        for flag, kind, first, count in entries
    )
    return boot_code[:440].ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"
