"""Builds the disks of the hospital's machines once, and finds them again as long as no recipe changes.

Root is not needed: what needs root's view of files runs in a user namespace of the caller (see `workshop`). An
interrupted build leaves nothing that counts: disks appear in the cache by one rename, after everything is on storage.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import IO

from .errors import HospitalError
from .machines import DISK_NAMES, GUEST_PYTHON, PYTHON_SETS
from .progress import Progress, Timeline
from .shell import need, search_path

RECIPES = Path(__file__).parent
CLIENT_FILES = frozenset({"workstation.py", "tryton.py", "plan.toml", "progress.py"})
"""Files of this folder that no disk depends on."""

TOOLS = (
    "mmdebstrap", "unshare", "qemu-img", "mke2fs", "mkfs.fat", "mcopy", "syslinux", "cpio", "depmod", "dpkg-deb",
)  # fmt: skip
WHEEL_PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_26_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)
TICK_SECONDS = 0.5
LOG_NAME = "hospital-build.log"
TIMELINE_NAME = "hospital-timeline.json"


@dataclass(frozen=True)
class Images:
    """The finished disks: name in the plan to qcow2 file. They are shared by every run: never write to them."""

    disks: Mapping[str, Path]


def build(cache: Path, report: Callable[[Progress], None]) -> Images:
    """The hospital's disks, from the cache or built now; another build of the same cache is waited for.

    `report` is called about twice a second from the calling thread; whatever it raises stops the build and cleans up.
    Raises HospitalError when the build cannot be done.
    """
    cache.mkdir(parents=True, exist_ok=True)
    cache = cache.resolve()
    with locked(cache / "hospital.lock", report):
        target = cache / f"hospital-{recipe_digest()}"
        for obsolete in cache.glob("hospital-*"):
            if obsolete.is_dir() and obsolete != target:
                remove_tree(obsolete)
        if not target.exists():
            build_into(target, report)
        return Images(MappingProxyType({name: target / f"{name}.qcow2" for name in DISK_NAMES}))


def recipe_digest() -> str:
    """Changes with any file that a disk is made from."""
    digest = hashlib.sha256()
    for path in sorted(RECIPES.rglob("*")):
        name = path.relative_to(RECIPES).as_posix()
        if not path.is_file() or "__pycache__" in path.parts or name in CLIENT_FILES:
            continue
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(path: Path, report: Callable[[Progress], None]) -> Iterator[None]:
    """Hold the cache; while another build holds it, say so and wait."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(Progress(step="wait for another build of the same disks", done=0, remaining_seconds=None))
                time.sleep(TICK_SECONDS)
            else:
                break
        yield


def build_into(target: Path, report: Callable[[Progress], None]) -> None:
    """Build in a sibling of `target`, then rename it into place."""
    need(*TOOLS)
    cache = target.parent
    timeline = Timeline.load(cache / TIMELINE_NAME)
    scratch = Path(tempfile.mkdtemp(prefix="hospital-building-", dir=cache))
    try:
        scratch.chmod(0o755)
        out = scratch / "disks"
        out.mkdir()
        with (cache / LOG_NAME).open("w", encoding="utf-8") as log:
            timeline.begin("packages")
            for name in PYTHON_SETS:
                fetch_packages(name, scratch / "packages" / name, log, lambda: report(timeline.progress()))
            timeline.end("packages")
            run_workshop(scratch, out, log, timeline, report)
        timeline.begin("seal")
        report(timeline.progress())
        for disk in out.iterdir():
            disk.chmod(0o444)
            flush(disk)
        flush(out)
        out.rename(target)
        flush(cache)
        timeline.end("seal")
        timeline.save(cache / TIMELINE_NAME)
    finally:
        remove_tree(scratch)


def fetch_packages(name: str, target: Path, log: IO[str], tick: Callable[[], None]) -> None:
    """One locked set of Python packages, for the guests' interpreter whatever the host's is."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-compile"]
    argv += ["--only-binary=:all:", "--implementation=cp", f"--python-version={GUEST_PYTHON}"]
    argv += [f"--abi={abi}" for abi in (f"cp{GUEST_PYTHON.replace('.', '')}", "abi3", "none")]
    argv += [f"--platform={platform}" for platform in WHEEL_PLATFORMS]
    argv += [f"--target={target}", f"--requirement={RECIPES / name}.lock"]
    with child(argv, log=log, stdout=log) as process:
        while process.poll() is None:
            tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TICK_SECONDS)
    if process.returncode != 0:
        raise failure(log, "pip could not fetch the Python packages")


def run_workshop(
    scratch: Path, out: Path, log: IO[str], timeline: Timeline, report: Callable[[Progress], None]
) -> None:
    """Everything that needs root's view of files, in namespaces that vanish with it."""
    argv = [*namespace_command(), sys.executable, "-m", "rigs.hospital.workshop", f"--work={scratch}/work"]
    argv += [f"--packages={scratch}/packages", f"--out={out}"]
    said: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    cause = "the workshop ended early"
    with child(argv, log=log, stdout=subprocess.PIPE, tmp=scratch) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        listener = threading.Thread(target=listen, args=(process.stdout, said), daemon=True)
        listener.start()
        while listener.is_alive() or not said.empty():
            listener.join(TICK_SECONDS)
            while not said.empty():
                message = said.get()
                if "error" in message:
                    cause = message["error"]
                elif message["event"] == "begin":
                    timeline.begin(message["step"])
                else:
                    timeline.end(message["step"])
            report(timeline.progress())
        process.wait()
    if process.returncode != 0:
        raise failure(log, cause)


def listen(stream: IO[str], said: queue.SimpleQueue[dict[str, str]]) -> None:
    for line in stream:
        said.put(json.loads(line))


def failure(log: IO[str], cause: str) -> HospitalError:
    """With the last words of the log, which name the tool's own reason."""
    log.flush()
    lines = [line.strip() for line in Path(log.name).read_text(encoding="utf-8", errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith(("+ ", "I: "))]
    message = cause if cause.startswith("cannot ") else f"cannot build the hospital: {cause}"
    if telling and telling[-1] not in message:
        message += f" ({telling[-1][:200]})"
    return HospitalError(message, f"read {log.name}")


def namespace_command() -> list[str]:
    """Mounts, processes and IPC of the build's own; for an ordinary user a range of user ids too."""
    command = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-auto", "--map-root-user"]
    return command


@contextlib.contextmanager
def child(
    argv: list[str], *, log: IO[str], stdout: IO[str] | int, tmp: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """One process of the build in its own session, killed with all that it started if the block ends early."""
    env = {**os.environ, "PATH": search_path(), "PYTHONPATH": str(RECIPES.parents[1])}
    if tmp is not None:
        env["TMPDIR"] = str(tmp)
    process = subprocess.Popen(
        argv, env=env, text=True, stdin=subprocess.PIPE, stdout=stdout, stderr=log, start_new_session=True
    )
    try:
        yield process
    finally:
        assert process.stdin is not None  # noqa: S101 - asked for above
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def remove_tree(path: Path) -> None:
    """Also where files belong to ids of the caller's own range, which only a user namespace may touch."""
    command = ["rm", "--recursive", "--force", "--one-file-system", str(path)]
    if os.geteuid() != 0 and shutil.which("newuidmap", path=search_path()):
        command = ["unshare", "--user", "--map-auto", "--map-root-user", *command]
    subprocess.run(command, env={**os.environ, "PATH": search_path()}, check=False, start_new_session=True)


def flush(path: Path) -> None:
    """On stable storage: the content of a file, the names of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def show(progress: Progress) -> None:
    """One line for the terminal that is rewritten, or one a step where there is no terminal."""
    left = "" if progress.remaining_seconds is None else f", about {progress.remaining_seconds:.0f} s left"
    line = f"{progress.done:4.0%}  {progress.step}{left}"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
    elif progress.step != show_state.get("step"):
        sys.stderr.write(f"{line}\n")
    show_state["step"] = progress.step
    sys.stderr.flush()


show_state: dict[str, str] = {}


def interrupt(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Print where each disk is."""
    parser = argparse.ArgumentParser(prog="python -m rigs.hospital.build", description="Build the hospital's machines.")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="where the disks are kept")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        images = build(options.cache, show)
    except HospitalError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        sys.stderr.write(f"\n{error.message}{hint}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    sys.stderr.write("\n")
    for name, path in images.disks.items():
        sys.stdout.write(f"{name} {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
