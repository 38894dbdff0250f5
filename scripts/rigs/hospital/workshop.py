"""The part of a build that needs root's view of files: it runs as process 1 of namespaces of its own.

`build` starts it with `unshare`. Every mount and process that it makes belongs to these namespaces, so its end, however
it comes, takes them all away. It says on its standard output which step begins and ends, one JSON object a line, and
ends itself when its standard input closes: a builder that is gone leaves no workshop behind.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import boot, debian, disks, machines
from .errors import HospitalError
from .machines import DATABASE, DATABASE_ROLE, DATABASE_SECRET, IMAGING, LABORATORY, RECORD, RECORD_DB, Machine
from .shell import Guest, copy_tree, entered

RECIPES = Path(__file__).parent
POSTGRES_SETTINGS = """\
# What the machine needs to be found; nothing here weakens what PostgreSQL promises about acknowledged writes.
listen_addresses = '*'
max_connections = 40
shared_buffers = 48MB
jit = off
"""


@dataclass(frozen=True)
class Workshop:
    """The folders of one build: `work` is scratch, `packages` holds what pip fetched, `out` gets the disks."""

    work: Path
    packages: Path
    out: Path

    def tree(self, machine: Machine) -> Path:
        return self.work / "trees" / machine.name

    def build(self) -> None:
        """Everything, on two threads where steps do not need one another."""
        base = self.work / "trees/base"
        base.parent.mkdir(parents=True)
        with step("debian"):
            debian.bootstrap(base)
        with step("boot"):
            files = boot.prepare(
                kernel_archive=debian.archive(base, "linux-image-[0-9]*-cloud-amd64_*.deb"),
                initrd_archive=debian.archive(base, "busybox-static_*.deb"),
                recipe=RECIPES / "guests/boot",
                work=self.work,
            )
        with ThreadPoolExecutor(max_workers=2) as pool:
            chains = [pool.submit(self.build_record, base, files), pool.submit(self.build_others, base, files)]
            for chain in chains:
                chain.result()

    def build_record(self, base: Path, files: boot.BootFiles) -> None:
        """The record and its database together: the record's own code creates the tables."""
        with step("record"):
            self.furnish(RECORD, base, files)
        with step("record-db"):
            self.furnish(RECORD_DB, base, files)
        with step("schema"):
            self.create_schema()
        with step("images"):
            self.finish(RECORD_DB, files)
            self.finish(RECORD, files)

    def build_others(self, base: Path, files: boot.BootFiles) -> None:
        for machine in (IMAGING, LABORATORY):
            with step(machine.name):
                self.furnish(machine, base, files)
                self.finish(machine, files)

    def furnish(self, machine: Machine, base: Path, files: boot.BootFiles) -> None:
        """From the common system to the machine's own tree."""
        tree = self.tree(machine)
        copy_tree(base, tree)
        with entered(tree) as guest:
            if machine.packages:
                guest.install(machine.packages)
            PREPARATIONS[machine.name](self, guest)
            common_settings(guest, machine)
            shutil.copytree(files.modules, tree / "lib/modules" / files.modules.name)
            guest.run("depmod", files.modules.name)

    def python_packages(self, guest: Guest, name: str) -> None:
        """Put one locked set of Python packages under /opt, compiled once here instead of at every start."""
        target = guest.tree / "opt" / name
        shutil.copytree(self.packages / name, target)
        guest.run("chown", "--recursive", "0:0", f"/opt/{name}")
        guest.run("python3", "-m", "compileall", "-q", "-j", "2", f"/opt/{name}")

    def create_schema(self) -> None:
        """The record's server initialises its database over PostgreSQL's local socket, without a network."""
        sockets = self.tree(RECORD_DB) / "run/postgresql"
        with entered(self.tree(RECORD_DB)) as database:
            fast = "-o '-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses='"
            database.run("sh", "-c", f"pg_ctlcluster 15 main start {fast} || exit 1")
            try:
                sql = f"CREATE ROLE {DATABASE_ROLE} LOGIN PASSWORD '{DATABASE_SECRET}';\n"
                sql += f"CREATE DATABASE {DATABASE} OWNER {DATABASE_ROLE} TEMPLATE template0 ENCODING 'UTF8';\n"
                as_postgres = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
                database.run(*as_postgres, "psql", "-v", "ON_ERROR_STOP=1", "-q", text=sql)
                with entered(self.tree(RECORD), shared={sockets: "/run/postgresql"}) as record:
                    record.run(
                        "python3", "/root/schema.py", DATABASE_ROLE, DATABASE_SECRET, machines.INSTITUTION_BADGE,
                        env={"TRYTONPASSFILE": "/root/secret"},
                    )  # fmt: skip
                database.run(*as_postgres, "vacuumdb", "--analyze", "--quiet", DATABASE)
            finally:
                database.run("pg_ctlcluster", "15", "main", "stop", "-m", "fast")
        for leftover in ("schema.py", "secret"):
            (self.tree(RECORD) / "root" / leftover).unlink()

    def finish(self, machine: Machine, files: boot.BootFiles) -> None:
        """Write the machine's disks; a tree that a data disk holds leaves an empty mount point on the system disk."""
        tree = self.tree(machine)
        for disk in reversed(machine.disks):
            disks.write_disk(
                disk=disk,
                tree=tree,
                boot=files,
                recipe=RECIPES / "guests/boot",
                image=self.out / f"{disk.name}.qcow2",
            )
            if not disk.bootable:
                held = tree / disk.source.lstrip("/")
                shutil.rmtree(held)
                held.mkdir()
        shutil.rmtree(tree)


def prepare_record_db(_: Workshop, guest: Guest) -> None:
    settings = guest.tree / "etc/postgresql/15/main"
    (settings / "conf.d/hospital.conf").write_text(POSTGRES_SETTINGS, encoding="utf-8")
    rules = settings / "pg_hba.conf"
    # The gateway is where readiness is asked from: it gets as far as the question for a password.
    allowed = f"host {DATABASE} {DATABASE_ROLE} {RECORD.address}/32 scram-sha-256\n"
    allowed += f"host {DATABASE} {DATABASE_ROLE} {machines.GATEWAY}/32 scram-sha-256\n"
    allowed += f"local {DATABASE} {DATABASE_ROLE} scram-sha-256\n"
    rules.write_text(allowed + rules.read_text(encoding="utf-8"), encoding="utf-8")


def prepare_record(workshop: Workshop, guest: Guest) -> None:
    workshop.python_packages(guest, "gnuhealth")
    guest.run("useradd", "--system", "--home-dir", "/var/lib/trytond", "--create-home", "trytond")
    configuration = guest.tree / "etc/trytond.conf"
    text = (RECIPES / "guests/record/etc/trytond.conf").read_text(encoding="utf-8")
    values = {"@ROLE@": DATABASE_ROLE, "@SECRET@": DATABASE_SECRET, "@ADDRESS@": RECORD_DB.address}
    for name, value in values.items():
        text = text.replace(name, value)
    configuration.write_text(text, encoding="utf-8")
    install_program(guest, "record")
    shutil.copy(RECIPES / "programs/schema.py", guest.tree / "root/schema.py")
    (guest.tree / "root/secret").write_text(machines.RECORD_SECRET, encoding="utf-8")


def prepare_imaging(_: Workshop, guest: Guest) -> None:
    configuration = guest.tree / "etc/orthanc"
    for packaged in configuration.glob("*.json"):
        packaged.unlink()
    shutil.copy(RECIPES / "guests/imaging/etc/orthanc/hospital.json", configuration / "hospital.json")


def prepare_laboratory(workshop: Workshop, guest: Guest) -> None:
    workshop.python_packages(guest, "laboratory")
    guest.run("useradd", "--system", "--home-dir", "/var/lib/laboratory", "--no-create-home", "laboratory")
    install_program(guest, "laboratory")


PREPARATIONS = {
    RECORD_DB.name: prepare_record_db,
    RECORD.name: prepare_record,
    IMAGING.name: prepare_imaging,
    LABORATORY.name: prepare_laboratory,
}


def install_program(guest: Guest, name: str) -> None:
    """One file of `programs/`, and the unit that runs it."""
    programs = guest.tree / "usr/local/lib/hospital"
    programs.mkdir(parents=True)
    shutil.copy(RECIPES / "programs" / f"{name}.py", programs / f"{name}.py")
    unit = f"etc/systemd/system/{name}.service"
    shutil.copy(RECIPES / "guests" / name / unit, guest.tree / unit)


def common_settings(guest: Guest, machine: Machine) -> None:
    """Identity, network and units; without Debian's package lists, which nothing in a closed hospital can use."""
    tree = guest.tree
    identity = uuid.UUID(bytes=hashlib.sha256(machine.name.encode()).digest()[:16], version=4).hex
    (tree / "etc/machine-id").write_text(f"{identity}\n", encoding="ascii")
    (tree / "etc/hostname").write_text(f"{machine.name}\n", encoding="ascii")
    (tree / "etc/hosts").write_text(f"127.0.0.1 localhost\n{machine.address} {machine.name}\n", encoding="ascii")
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").write_text("", encoding="ascii")
    (tree / "etc/fstab").write_text(
        "".join(f"LABEL={disk.label} {disk.source} ext4 noatime 0 0\n" for disk in machine.disks if not disk.bootable),
        encoding="ascii",
    )
    network = tree / "etc/systemd/network/10-care.network"
    network.write_text(
        f"[Match]\nType=ether\n\n[Network]\nAddress={machine.address}/{machines.PREFIX_LENGTH}\n"
        f"Gateway={machines.GATEWAY}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n",
        encoding="ascii",
    )
    shutil.copytree(RECIPES / "guests/common", tree, dirs_exist_ok=True)
    for unit in machines.MASKED_UNITS:
        link = tree / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    guest.run("systemctl", "enable", "systemd-networkd.service", *machine.units)
    guest.run("passwd", "--lock", "root")
    for folder in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        empty(tree / folder)
    guest.run("ldconfig")
    for folder in ("etc", "var"):
        (tree / folder / ".updated").touch()


def empty(folder: Path) -> None:
    """Remove the files below a folder; the folders stay, with their owners."""
    for path in folder.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            path.unlink()


_saying = threading.Lock()


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Tell the builder that a step runs."""
    say({"step": name, "event": "begin"})
    yield
    say({"step": name, "event": "end"})


def say(message: dict[str, str]) -> None:
    with _saying:
        print(json.dumps(message), flush=True)


def end_with_builder() -> None:
    """Process 1 of a namespace takes all others with it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> int:
    """Build into --out, or say why not as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("work", "packages", "out"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    options = parser.parse_args()
    threading.Thread(target=end_with_builder, daemon=True).start()
    try:
        Workshop(work=options.work, packages=options.packages, out=options.out).build()
    except (HospitalError, OSError) as error:
        cause = str(error) if isinstance(error, HospitalError) else f"cannot build the hospital: {error}"
        say({"error": cause})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
