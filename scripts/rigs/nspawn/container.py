"""One boot of the appliance's user space: systemd as PID 1 in namespaces of its own, gone without a trace afterwards.

Everything that the boot writes, the mounts, the network and the control groups are the container's alone. The host need
not run systemd.
"""

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cleanroomd.errors import CleanroomError
from rigs import namespaces
from rigs.nspawn.base import LIBRARIES

REPOSITORY = Path(__file__).parents[3]
UNITS = ("cleanroom-keeper.service", "cleanroomd.service")
TOOLS = ("systemd-nspawn", "systemctl", "unshare", "nsenter", "setpriv", "mount", "find")
BOOT_DEADLINE = 120.0
"""Longest boot, seconds: longer than systemd waits for one unit."""
END_DEADLINE = 60.0

_CONTROL_GROUPS = """
[ -d /sys/fs/cgroup ] || mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
"""
_BOOT = f"""
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/rig /run/rig/base /run/rig/layer /run/rig/package /run/rig/upper /run/rig/work /run/rig/root
mount --bind "$1" /run/rig/base
mount --bind "$2" /run/rig/layer
mount --bind "$3" /run/rig/package
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t proc proc /proc
{_CONTROL_GROUPS}
mkdir "/sys/fs/cgroup/$4"
echo $$ >"/sys/fs/cgroup/$4/cgroup.procs"
mount -t overlay -o lowerdir=/run/rig/layer:/run/rig/base,upperdir=/run/rig/upper,workdir=/run/rig/work \\
  overlay /run/rig/root
systemctl --root=/run/rig/root --quiet enable $6
exec systemd-nspawn --quiet --directory=/run/rig/root --machine="$4" --boot --register=no --keep-unit \\
  --notify-ready=yes --private-network --capability=CAP_NET_ADMIN --bind=/dev/net/tun --console=pipe \\
  --bind-ro=/run/rig/package:"/$5/cleanroomd"
"""
"""$1 the base, $2 the layer above it, $3 the package, $4 a name, $5 where libraries are, $6 the units.

The cache may be below /tmp, where systemd-nspawn has its own folders: hence the mounts under /run. The host may have
no control groups of version 2, or none at all, and systemd 257 boots with no others.
"""

_TRY = f"""
mount -t proc proc /proc
{_CONTROL_GROUPS}
[ -w /sys/fs/cgroup/cgroup.procs ] || {{ echo "control groups cannot be written" >&2; exit 1; }}
[ -c /dev/net/tun ] || {{ echo "no /dev/net/tun" >&2; exit 1; }}
"""
_FORGET = f"""
{_CONTROL_GROUPS}
cd /sys/fs/cgroup
[ ! -d "$1" ] || find "$1" -depth -type d -exec rmdir {{}} +
"""
"""Control groups are in no namespace that ends with its processes."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container that has booted."""

    leader: int
    """Its PID 1, as numbered here."""

    def run(
        self, *argv: str, user: str = "root", deadline: float = 60.0, text: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container as one of its users, and collect what it says."""
        return subprocess.run(
            self.argv(*argv, user=user),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )

    @contextmanager
    def started(self, *argv: str, user: str = "root", **options: Any) -> "Iterator[subprocess.Popen[Any]]":
        """Run a command in the container beside others; on leaving it is ended."""
        with subprocess.Popen(self.argv(*argv, user=user), **options) as process:
            try:
                yield process
            finally:
                _kill_entered(process)

    def argv(self, *argv: str, user: str = "root") -> list[str]:
        """The command for outside; what it starts inside ends with it."""
        as_user = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        plain = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TERM=dumb"]
        enter = ["nsenter", f"--target={self.leader}", "--all", "--"]
        return [*enter, *plain, "setpriv", "--pdeathsig=KILL", "--", *as_user, *argv]

    def systemctl(self, *arguments: str) -> str:
        """Output of systemctl; CleanroomError if it fails."""
        done = self.run("systemctl", *arguments)
        if done.returncode != 0:
            raise CleanroomError(f"cannot run systemctl {' '.join(arguments)}: {done.stderr.strip()}", "")
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--property", name, "--value", unit).strip()

    def pid_here(self, pid: int) -> int:
        """The number that process `pid` of the container has here; ProcessLookupError if there is none."""
        own = Path(f"/proc/{self.leader}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                if (entry / "ns/pid").readlink() == own and _innermost_pid(entry) == pid:
                    return int(entry.name)
        raise ProcessLookupError(f"the container has no process {pid}")


def problem() -> str:
    """Why no container can be booted here, "" if one can."""
    missing = [
        tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    if missing:
        return f"{', '.join(missing)} not found"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--", "sh", "-euc", _TRY],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return tried.stderr.strip() or "the kernel refused"
    return ""


@contextmanager
def layer(files: Mapping[str, str]) -> Iterator[Path]:
    """A folder to lay over the base: the repository's units and programs, and `files`, by their place in the root."""
    with tempfile.TemporaryDirectory(prefix="appliance-layer-") as name:
        root = Path(name)
        root.chmod(0o755)
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        programs = {f"usr/bin/{name}": _program(*entry.split(":")) for name, entry in project["scripts"].items()}
        units = {f"usr/lib/systemd/system/{unit}": (REPOSITORY / "units" / unit).read_text() for unit in UNITS}
        for place, content in {"etc/hostname": "enclosure\n", **programs, **units, **files}.items():
            path = root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o755 if "/bin/" in place else 0o644)
        yield root


def _program(module: str, function: str) -> str:
    """What an installed package has for an entry point."""
    return f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"


@contextmanager
def booted(root: Path, *, files: Mapping[str, str], log: BinaryIO) -> Iterator[Container]:
    """A container of `root` with `files` in it, once systemd says that it is up; ended when this is left.

    Raises CleanroomError when it does not come up; the container's console goes to `log`.
    """
    name = f"cleanroom-{secrets.token_hex(4)}"
    with layer(files) as above, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        # Abstract: the container's launcher sees none of the folders that it could lie in here.
        ready.bind(f"\0{name}")
        arguments = [str(root), str(above), str(REPOSITORY / "cleanroomd"), name, LIBRARIES, " ".join(UNITS)]
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL", "--"),
                *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL", "--"),
                *("sh", "-euc", _BOOT, "sh", *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": f"@{name}"},
        )
        try:
            _wait_until_up(ready, process)
            yield Container(leader=_leader(process))
        finally:
            _end(process)
            _forget(name)


def _wait_until_up(ready: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    end = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + BOOT_DEADLINE
        while (left := deadline - time.monotonic()) > 0:
            found, _, _ = select.select([ready.fileno(), end], [], [], left)
            if ready.fileno() in found and b"READY=1" in ready.recv(4096).splitlines():
                return
            if end in found:
                raise CleanroomError("cannot boot the container: it ended", "its log says why")
    finally:
        os.close(end)
    raise CleanroomError(f"cannot boot the container: not up after {BOOT_DEADLINE:.0f} s", "its log says why")


def _leader(process: "subprocess.Popen[bytes]") -> int:
    """systemd-nspawn is the one child of unshare, and the container's PID 1 the one child of that."""
    return namespaces.child_of(namespaces.child_of(process.pid))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Power the container off; pull the plug where it does not comply."""
    with suppress(CleanroomError, ProcessLookupError):
        os.kill(_leader(process), signal.SIGRTMIN + 4)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_DEADLINE)
    with suppress(CleanroomError, ProcessLookupError):
        # The namespaces' PID 1: unshare returns when all that was in them is gone.
        os.kill(namespaces.child_of(process.pid), signal.SIGKILL)
    try:
        process.wait(END_DEADLINE)
    except subprocess.TimeoutExpired:
        raise CleanroomError(
            "cannot end the container: something of it is still there", "ps --forest shows it"
        ) from None


def _kill_entered(process: "subprocess.Popen[Any]") -> None:
    """Kill what nsenter started, then let nsenter collect it.

    An orphan of nsenter's goes to the PID 1 of outside, not of the container, and the container's end waits for
    whoever that is. And nsenter stops with its child, as it does when the container is powered off.
    """
    with suppress(CleanroomError, ProcessLookupError):
        os.kill(namespaces.child_of(process.pid), signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)


def _forget(name: str) -> None:
    argv = ["unshare", "--mount", "--", "sh", "-euc", _FORGET, "sh", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CleanroomError(f"cannot remove the container's control groups: {done.stderr.strip()}", "")


def _innermost_pid(process: Path) -> int:
    (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])
