"""Running the tools of a build, and the trees that they run in."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HospitalError

TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GUEST_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, text: str | None = None) -> None:
    """Run one tool to its end; its command and all it says go to the log, so that it can be run again by hand."""
    words = [str(word) for word in argv]
    print(f"+ {shlex.join(words)}", file=sys.stderr, flush=True)
    environment = dict(env) if env is not None else {**os.environ, "PATH": search_path()}
    result = subprocess.run(
        words, env=environment, input=text, text=True, stdout=sys.stderr, stderr=sys.stderr, check=False
    )
    if result.returncode != 0:
        raise HospitalError(f"cannot build the hospital: {words[0]} ended with status {result.returncode}")


def output(argv: Sequence[str | Path]) -> str:
    """What a tool printed."""
    words = [str(word) for word in argv]
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C"}
    result = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    if result.returncode != 0:
        cause = result.stderr.strip().splitlines()[-1:] or [f"status {result.returncode}"]
        raise HospitalError(f"cannot build the hospital: {words[0]}: {cause[0]}")
    return result.stdout


def search_path() -> str:
    """The caller's PATH with the administration folders that an ordinary user's lacks."""
    return f"{os.environ.get('PATH', '')}:{TOOL_PATH}"


@dataclass(frozen=True)
class Guest:
    """A machine's tree, entered: what runs in it sees its own processes and no network."""

    tree: Path

    def run(self, *argv: str, env: Mapping[str, str] | None = None, text: str | None = None) -> None:
        run(
            ["unshare", "--net", "chroot", self.tree, *argv],
            env={**GUEST_ENVIRONMENT, **(env or {})},
            text=text,
        )

    def install(self, packages: Sequence[str]) -> None:
        """Debian packages whose archives the bootstrap has already fetched; services stay stopped."""
        policy = self.tree / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        policy.chmod(0o755)
        self.run(
            "apt-get", "install", "--yes", "--no-install-recommends", "--no-download",
            "-o", "Dpkg::Options::=--force-unsafe-io", "-o", "APT::Sandbox::User=root", *packages,
        )  # fmt: skip
        policy.unlink()


DEVICES = ("full", "null", "random", "urandom", "zero")


@contextlib.contextmanager
def entered(tree: Path, *, shared: Mapping[Path, str] | None = None) -> Iterator[Guest]:
    """Mount what programs expect in `tree`; `shared` maps folders from outside to places in it.

    The mounts live in the build's own mount namespace: whatever happens to the build, the host never sees them. Of the
    host's devices only the harmless ones are there, so that nothing done to the tree can reach the others.
    """
    devices = inside(tree, "dev")
    processes = inside(tree, "proc")
    with contextlib.ExitStack() as stack:

        def mount(arguments: Sequence[str | Path], target: Path) -> None:
            run(["mount", *arguments, target])
            stack.callback(run, ["umount", "--lazy", target])

        mount(["-t", "tmpfs", "-o", "mode=755", "tmpfs"], devices)
        for name in DEVICES:
            (devices / name).touch()
            mount(["--bind", f"/dev/{name}"], devices / name)
        for name in ("shm", "pts"):
            (devices / name).mkdir(mode=0o1777)
        (devices / "shm").chmod(0o1777)
        (devices / "fd").symlink_to("/proc/self/fd")
        mount(["-t", "proc", "proc"], processes)
        for outside, place in (shared or {}).items():
            target = inside(tree, place)
            target.mkdir(parents=True, exist_ok=True)
            mount(["--bind", outside], target)
        yield Guest(tree)


def inside(tree: Path, place: str) -> Path:
    """A place in a tree that is certain to be in it: a tree's absolute links would lead to the host's own folders."""
    path = tree / place.lstrip("/")
    if not path.resolve().is_relative_to(tree.resolve()):
        raise HospitalError(f"cannot build the hospital: {place} of a machine leads out of its tree")
    return path


def copy_tree(source: Path, target: Path) -> None:
    """Owners, modes, links and all; blocks are shared where the file system can."""
    run(["cp", "--archive", "--reflink=auto", "--no-target-directory", source, target])


def need(*tools: str) -> None:
    """Refuse to begin a build that would fail half-way for want of a tool."""
    missing = [tool for tool in tools if shutil.which(tool, path=search_path()) is None]
    if missing:
        raise HospitalError(
            f"cannot build the hospital: {', '.join(missing)} not installed", "apt-get install " + HOST_PACKAGES
        )


HOST_PACKAGES = "mmdebstrap uidmap qemu-utils e2fsprogs dosfstools mtools syslinux syslinux-common cpio kmod util-linux"
