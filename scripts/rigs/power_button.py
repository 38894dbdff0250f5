"""The smallest machine that powers down when asked: a boot sector, in 16-bit code, that waits for its power button.

It has no network, so that no probe of it is ever answered. It says `LISTENS` on its serial console once the power
button works: before that the chipset forgets a press.
"""

from pathlib import Path

LISTENS = b"R"
SECTOR = 512
DISK_SIZE = 1 << 20
"""A BIOS reads the boot sector by cylinder, head and sector, and a disk needs at least one cylinder for that."""

_SIGNATURE = b"\x55\xaa"  # what a BIOS wants at the end of a boot sector

_CODE = bytes.fromhex(
    # The registers are ACPI's "PM1 event" and "PM1 control" blocks (ACPI specification, sections 4.8.3.1 and 4.8.3.2),
    # at port 0x600, where SeaBIOS puts them: status, enable, control, two bytes each.
    "ba0206"  # mov dx, 0x602     PM1_EN
    "b80001"  # mov ax, 0x0100    PWRBTN_EN, bit 8
    "ef"  #     out dx, ax
    "baf803"  # mov dx, 0x3f8     the first serial port's data
    "b052"  #   mov al, 'R'
    "ee"  #     out dx, al
    "fb"  #     sti
    "f4"  #     hlt               until the timer's next tick, of which a BIOS has 18 a second
    "ba0006"  # mov dx, 0x600     PM1_STS
    "ed"  #     in ax, dx
    "f6c401"  # test ah, 1        PWRBTN_STS, bit 8
    "74f5"  #   jz                back to sti
    "ba0406"  # mov dx, 0x604     PM1_CNT
    "b80020"  # mov ax, 0x2000    SLP_EN, bit 13; SLP_TYP 0 is soft off (QEMU, hw/acpi/core.c)
    "ef"  #     out dx, ax
    "ebec"  #   jmp               back to sti
)


def boot_sector() -> bytes:
    """All that the disk holds."""
    return _CODE.ljust(SECTOR - len(_SIGNATURE), b"\0") + _SIGNATURE


def write_disk(path: Path) -> Path:
    """A raw image at `path`, which should end in `.raw`; takes one block of it."""
    with path.open("wb") as stream:
        stream.write(boot_sector())
        stream.truncate(DISK_SIZE)
    return path
