"""Hosts in Linux namespaces: a sandbox that ends with its launcher, and the three hosts of the rig inside it.

Nothing of the host machine is touched: the sandbox has its own mounts, processes, network and, without root, its own
user namespace. Hosts inside it are a PID 1 (rigs.pid1) each, so a power cut is one SIGKILL.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pyroute2 import IPRoute, NetlinkError

from cleanroomd.errors import CleanroomError
from rigs import pid1
from rigs.pid1 import Boot, Unit

UPLINK_MAC = "52:54:00:00:00:01"
CARE_MAC = "52:54:00:00:00:02"
HOSPITAL_ADDRESSES = ("192.168.40.1/24", "192.168.40.10/24")
WORKSTATION_ADDRESS = "10.77.0.100/24"
WORKSTATION_GATEWAY = "10.77.0.1"
HOSPITAL_LINK = "cable"
"""Name of the hospital's and of the workstation's end of their cables to the enclosure."""

END_DEADLINE = 20.0
"""Seconds that the kernel gets to end a sandbox; generous, since it also frees the machines' memory."""

_ENTER_FLAGS = ("--mount", "--root", "--wd", "--net", "--pid", "--uts", "--ipc")
"""Root and working directory too: setns(2) alone would lead a command out of the chroot that this may run in."""


def sandbox_argv(*, privileged: bool) -> list[str]:
    """The unshare(1) call that makes a sandbox, with everything in it ending with its PID 1."""
    user = [] if privileged else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--"]


def enter_argv(pid: int, argv: Sequence[str], *, user: bool = False) -> list[str]:
    """`argv` run in the namespaces of process `pid`; it dies with the process that runs this."""
    flags = [*_ENTER_FLAGS, *(("--user", "--preserve-credentials") if user else ())]
    return ["nsenter", f"--target={pid}", *flags, "--", "setpriv", "--pdeathsig=KILL", "--", *argv]


def child_of(pid: int) -> int:
    """The only child of `pid`, a process of unshare or nsenter; CleanroomError when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (OSError, IndexError):
        raise CleanroomError("cannot reach a host of the rig: its PID 1 has ended", "its log says why") from None


def check_means() -> None:
    """Raise CleanroomError when this machine lacks what the sandbox needs, with the way out."""
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "mount") if shutil.which(tool) is None]
    if missing:
        raise CleanroomError(f"cannot make namespaces: {', '.join(missing)} not found", "apt install util-linux mount")
    probe = subprocess.run(
        [*sandbox_argv(privileged=os.geteuid() == 0), "mount", "-t", "sysfs", "sysfs", "/sys"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        raise CleanroomError(
            f"cannot make namespaces: {probe.stderr.strip() or 'the kernel refused'}",
            "run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1)",
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise CleanroomError(
            "cannot make taps: /dev/net/tun cannot be opened", "run as root, or: sudo chmod 0666 /dev/net/tun"
        )


class Lifeline:
    """The writing end of a PID 1's lifeline."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC)

    def say(self, word: str) -> None:
        os.write(self._write_end, f"{word}\n".encode())

    def cut(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def handed_over(self) -> None:
        """Close the reading end here, once the PID 1 has its copy."""
        os.close(self.read_end)


def _boot(
    prefix: Sequence[str], boot: Boot, lifeline: Lifeline, *, stderr: IO[Any] | int, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a PID 1 behind `prefix` and wait until its mounts are made; raises CleanroomError if they cannot be."""
    up_read, up_write = os.pipe2(os.O_CLOEXEC)
    ready_boot = Boot(
        hostname=boot.hostname,
        lifeline=lifeline.read_end,
        mounts=boot.mounts,
        files=boot.files,
        binds=boot.binds,
        units=boot.units,
        held=boot.held,
        announce=up_write,
    )
    try:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-P", pid1.__file__, ready_boot.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            pass_fds=(lifeline.read_end, up_write, *boot.held, *pass_fds),
            start_new_session=True,
        )
    finally:
        os.close(up_write)
        lifeline.handed_over()
    try:
        with os.fdopen(up_read, "rb") as up:
            if up.readline() != b"up\n":
                raise CleanroomError(f"cannot boot {boot.hostname}: its mounts were refused", "its log says which")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _private_mounts() -> tuple[tuple[str, ...], ...]:
    """proc and sysfs of the new namespaces: a bare network namespace would still show the host's interfaces."""
    return (
        ("--make-rprivate", "/"),
        ("-t", "proc", "proc", "/proc"),
        ("-t", "sysfs", "sysfs", "/sys"),
        ("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"),
    )


@dataclass(slots=True)
class Sandbox:
    """A running sandbox as its launcher sees it."""

    process: "subprocess.Popen[bytes]"
    lifeline: Lifeline
    pid: int
    """PID 1 of the sandbox, as numbered outside."""
    kept: bool = False

    def wait(self) -> int:
        """Exit code of the essential unit."""
        return self.process.wait()

    def keep(self) -> None:
        """Let the sandbox outlive its launcher."""
        self.lifeline.say("keep")
        self.lifeline.cut()
        self.kept = True

    def end(self) -> None:
        """End everything in the sandbox and wait until it is gone."""
        self.lifeline.cut()
        try:
            self.process.wait(END_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def sandbox(
    argv: Sequence[str], *, log: Path, pass_fds: Sequence[int] = (), held: Sequence[int] = ()
) -> Iterator[Sandbox]:
    """Run `argv` in a new sandbox; on leaving, everything in it is ended unless it was kept.

    `pass_fds` reach `argv`; `held` stay open in the sandbox's PID 1 for as long as it lives.
    """
    lifeline = Lifeline()
    unit = Unit(name="orchestrator", argv=tuple(argv), essential=True, log=str(log))
    boot = Boot(hostname="rig", lifeline=-1, mounts=_private_mounts(), units=(unit,), held=tuple(held))
    with log.open("ab") as stderr:
        process = _boot(sandbox_argv(privileged=os.geteuid() == 0), boot, lifeline, stderr=stderr, pass_fds=pass_fds)
    made = Sandbox(process=process, lifeline=lifeline, pid=child_of(process.pid))
    try:
        lifeline.say("start")
        yield made
    finally:
        if not made.kept:
            made.end()


class Node:
    """A host of the rig: a PID 1 with network, mounts and processes of its own."""

    def __init__(self, name: str, *, log: Path) -> None:
        self.name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None

    @property
    def pid(self) -> int:
        """Its PID 1, as numbered in the sandbox."""
        if self._process is None:
            raise CleanroomError(f"cannot reach {self.name}: it is not powered on")
        return child_of(self._process.pid)

    @property
    def powered(self) -> bool:
        return self._process is not None

    def boot(self, *, units: Sequence[Unit] = (), files: Mapping[str, str], binds: Mapping[str, str]) -> None:
        self._lifeline = lifeline = Lifeline()
        boot = Boot(
            hostname=self.name,
            lifeline=-1,
            mounts=_private_mounts(),
            files=files,
            binds=binds,
            units=tuple(units),
        )
        prefix = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--"]
        with self._log.open("ab") as stderr:
            self._process = _boot(prefix, boot, lifeline, stderr=stderr)
        with self.netlink() as netlink:
            netlink.link("set", index=1, state="up")

    def start_units(self) -> None:
        if self._lifeline is not None:
            self._lifeline.say("start")

    def cut(self) -> None:
        """SIGKILL its PID 1: the kernel kills every process in it at once, and its interfaces go with it."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, CleanroomError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        if self._lifeline is not None:
            self._lifeline.cut()

    def netlink(self) -> IPRoute:
        return IPRoute(netns=f"/proc/{self.pid}/ns/net")

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 -- subprocess.run's own name for it
        timeout: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the host and collect what it says."""
        return subprocess.run(
            enter_argv(self.pid, argv),
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=None if environment is None else {**os.environ, **environment},
            check=False,
        )

    def popen(self, argv: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        return subprocess.Popen(enter_argv(self.pid, argv), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.cut()


class Peer(Node):
    """A host at the other end of one of the enclosure's cables."""

    def __init__(self, name: str, *, addresses: Sequence[str], gateway: str = "", log: Path) -> None:
        super().__init__(name, log=log)
        self.addresses = tuple(addresses)
        self.gateway = gateway

    def power_on(self) -> None:
        self.boot(files={}, binds={})

    def configure(self) -> None:
        """Give its end of the cable, just plugged in, its addresses."""
        with self.netlink() as netlink:
            index = netlink.link_lookup(ifname=HOSPITAL_LINK)[0]
            netlink.link("set", index=index, state="up")
            for each in self.addresses:
                address, prefix = each.split("/")
                netlink.addr("add", index=index, address=address, prefixlen=int(prefix))
            if self.gateway:
                netlink.route("add", dst="default", gateway=self.gateway, oif=index)

    def unplug(self) -> None:
        """Remove the cable, if there still is one."""
        with self.netlink() as netlink, suppress(NetlinkError, IndexError):
            netlink.link("del", index=netlink.link_lookup(ifname=HOSPITAL_LINK)[0])


@dataclass(frozen=True, slots=True)
class Cable:
    """A network port of the enclosure: its interface, its permanent MAC and who is at the other end."""

    interface: str
    mac: str
    peer: Peer


class Enclosure(Node):
    """The appliance: its ports are there before its first process, and gone with its last."""

    def __init__(self, *, root: Path, cables: Sequence[Cable], units: Sequence[Unit], log: Path) -> None:
        super().__init__("enclosure", log=log)
        self._root = root
        self._cables = tuple(cables)
        self._units = tuple(units)

    def power_on(self) -> None:
        """Boot: what lived in memory (ROOT/run) is gone, the boot id is new, the ports are down."""
        shutil.rmtree(self._root / "run", ignore_errors=True)
        (self._root / "run").mkdir(parents=True, mode=0o755)
        self.boot(
            units=self._units,
            files={"/run/rig/boot_id": f"{uuid.uuid4()}\n"},
            binds={"/proc/sys/kernel/random/boot_id": "/run/rig/boot_id"},
        )
        for cable in self._cables:
            self._plug(cable)
        self.start_units()

    def power_cut(self) -> None:
        """End every process of the enclosure at one instant, as a pulled mains plug would."""
        self.cut()
        for cable in self._cables:
            cable.peer.unplug()

    def _plug(self, cable: Cable) -> None:
        with Path(f"/proc/{cable.peer.pid}/ns/net").open("rb") as peer, self.netlink() as netlink:
            netlink.link(
                "add",
                ifname=cable.interface,
                kind="veth",
                address=cable.mac,
                peer={"ifname": HOSPITAL_LINK, "net_ns_fd": peer.fileno()},
            )
        cable.peer.configure()


@dataclass(slots=True)
class Rig:
    """The three hosts, of which the enclosure is not yet powered on."""

    hospital: Peer
    workstation: Peer
    enclosure: Enclosure
    _stack: ExitStack = field(default_factory=ExitStack)


@contextmanager
def rig(*, root: Path, units: Sequence[Unit], log: Path) -> Iterator[Rig]:
    """The hospital and the workstation, powered on, and an enclosure that runs `units` once it is."""
    with ExitStack() as stack:
        hospital = stack.enter_context(Peer("hospital", addresses=HOSPITAL_ADDRESSES, log=log))
        workstation = stack.enter_context(
            Peer("workstation", addresses=(WORKSTATION_ADDRESS,), gateway=WORKSTATION_GATEWAY, log=log)
        )
        hospital.power_on()
        workstation.power_on()
        cables = (Cable("uplink0", UPLINK_MAC, hospital), Cable("care0", CARE_MAC, workstation))
        enclosure = stack.enter_context(Enclosure(root=root, cables=cables, units=units, log=log))
        yield Rig(hospital=hospital, workstation=workstation, enclosure=enclosure)


def socket_path_fits(path: Path) -> bool:
    """Whether a Unix socket may have this path: sun_path holds 108 bytes with its final zero (unix(7))."""
    return len(os.fsencode(path)) < 108


def reachable(path: Path) -> bool:
    """Whether a server accepts connections on the Unix socket `path`."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
