"""The machines of the hospital, as data: what each is made of, where it lives, which disks it has.

The addresses, MACs and names are the ones that `plan.toml` restores; the two must agree.
"""

from dataclasses import dataclass

GATEWAY = "10.1.20.1"
PREFIX_LENGTH = 24
KERNEL_PACKAGE = "linux-image-cloud-amd64"
INITRD_PACKAGE = "busybox-static"
GUEST_SUITE = "bookworm"
GUEST_PYTHON = "3.11"

BASE_PACKAGES = (
    "dbus",
    "kmod",
    "python3",
    "qemu-guest-agent",
    "systemd-sysv",
    "udev",
)

INITRD_MODULES = ("virtio_pci", "virtio_blk")
GUEST_MODULES = (
    "autofs4",
    "button",
    "evdev",
    "virtio_balloon",
    "virtio_console",
    "virtio_net",
    "virtio_rng",
)

MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    "systemd-pcrphase-initrd.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
)
"""Nothing of this is needed to serve, and each costs up to a second of every power-on under emulation."""

DATABASE = "health"
DATABASE_ROLE = "tryton"
DATABASE_SECRET = "demonstration-only"  # noqa: S105 - synthetic hospital, no real patient will ever be in it
RECORD_USER = "admin"
RECORD_SECRET = "demonstration-only"  # noqa: S105 - what the synthetic clinician types
INSTITUTION_BADGE = "ready"
"""Stored in the record's database at build time, as the institution's picture: answering it proves the whole chain."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One disk of a machine: `source` is the folder of the machine's tree that it holds.

    `mib` is its virtual size; what the tree does not fill costs nothing in the image. `label` names the file system.
    """

    name: str
    source: str
    mib: int
    label: str
    bootable: bool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine: Debian packages on the common base, a locked set of Python packages, units to start."""

    name: str
    address: str
    packages: tuple[str, ...] = ()
    python: str | None = None
    units: tuple[str, ...] = ()
    data: Disk | None = None

    @property
    def system_disk(self) -> Disk:
        return Disk(name=f"{self.name}-system", source="/", mib=4096, label=f"{self.name}-root", bootable=True)

    @property
    def disks(self) -> tuple[Disk, ...]:
        """In the order in which the machine must see them: it boots from the first."""
        return (self.system_disk,) if self.data is None else (self.system_disk, self.data)


RECORD_DB = Machine(
    name="record-db",
    address="10.1.20.11",
    packages=("postgresql-15",),
    data=Disk(name="record-db-data", source="/var/lib/postgresql", mib=4096, label="record-db-data", bootable=False),
)
RECORD = Machine(name="record", address="10.1.20.12", python="gnuhealth", units=("record.service",))
IMAGING = Machine(name="imaging", address="10.1.20.13", packages=("orthanc",), units=("orthanc.service",))
LABORATORY = Machine(name="laboratory", address="10.1.20.14", python="laboratory", units=("laboratory.service",))
MACHINES = (RECORD_DB, RECORD, IMAGING, LABORATORY)
DISK_NAMES = tuple(disk.name for machine in MACHINES for disk in machine.disks)
PYTHON_SETS = tuple(machine.python for machine in MACHINES if machine.python is not None)
