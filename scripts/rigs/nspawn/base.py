"""Builds the Debian system that the container boots from, and finds it again as long as its recipe does not change.

It holds Debian's systemd and Python and the locked libraries. The package under test, its units and its plan are not in
it: they come with each boot.
"""

import fcntl
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from cleanroomd.control.access import ACT_GROUP, VIEW_GROUP
from cleanroomd.errors import CleanroomError
from rigs.hospital import debian, shell
from rigs.hospital.errors import HospitalError
from rigs.hospital.machines import GUEST_SUITE

SUITE = "trixie"
PYTHON = "3.13"
"""Debian 13's."""
LIBRARIES = f"usr/local/lib/python{PYTHON}/dist-packages"
"""Where Debian's Python looks before its own."""
PACKAGES = ("dbus", "libudev1", "procps", "python3", "python3-systemd", "systemd", "systemd-sysv", "util-linux")
FROM_DEBIAN = ("systemd-python",)
"""Locked libraries that Debian has compiled already: a compiler would make the system three times its size."""
TOOLS = ("mmdebstrap", "unshare", "chroot")

STAGER = "stager"
VIEWER = "viewer"
STRANGER = "stranger"
USERS = {STAGER: ACT_GROUP, VIEWER: VIEW_GROUP, STRANGER: ""}
"""People of the container, and the group that each is in beside their own."""

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
LOCK_FILE = Path(__file__).parents[3] / "requirements.lock"


@contextmanager
def base(cache: Path, report: Callable[[str], None]) -> Iterator[Path]:
    """The system's root, from the cache or built now; nobody removes it before this is left. Never write to it.

    Raises CleanroomError when it cannot be built.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"appliance-{recipe_digest()}"
    with (cache / "appliance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not target.exists():
            # From shared to exclusive is no single act: whoever had it in between may have built, or removed.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                report("build the appliance's system (a minute or two)")
                _build(target)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield target


def recipe_digest() -> str:
    """Changes with anything that the system is made from."""
    digest = hashlib.sha256()
    for path in (Path(__file__), Path(debian.__file__), LOCK_FILE):
        content = path.read_bytes()
        digest.update(f"{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def libraries(lock: str) -> str:
    """The lock file without what comes from Debian; an entry begins in the first column."""
    entries = re.split(r"\n(?=[A-Za-z])", lock)
    return "\n".join(entry for entry in entries if entry.partition("==")[0] not in FROM_DEBIAN)


def _build(target: Path) -> None:
    """Build beside the final name and rename, so that what is in the cache is whole."""
    cache = target.parent
    log_file = cache / "appliance-build.log"
    for obsolete in cache.glob(f"appliance-{'[0-9a-f]' * 16}"):
        shutil.rmtree(obsolete)
    try:
        shell.need(*TOOLS)
        with (
            tempfile.TemporaryDirectory(prefix="appliance-building-", dir=cache) as name,
            log_file.open("w", encoding="utf-8") as log,
            redirect_stderr(log),
        ):
            work = Path(name)
            # What apt runs as another user reads the tree through this folder.
            work.chmod(0o755)
            tree = work / "root"
            _bootstrap(tree)
            _install_libraries(tree, work)
            tree.rename(target)
    except HospitalError as error:
        message = error.message.replace("the hospital", "the appliance's system")
        raise CleanroomError(message, error.hint or f"its tools say why in {log_file}") from error


def _bootstrap(tree: Path) -> None:
    targets = debian.parse_targets(shell.output(["apt-get", "indextargets", "--format", debian.TARGET_FORMAT]))
    options = ('Acquire::Languages "none";', *debian.apt_options(shell.output(["apt-config", "dump"])))
    people = [f"groupadd --system {group}" for group in (ACT_GROUP, VIEW_GROUP)]
    people += [f"useradd --user-group {f'--groups={group} ' if group else ''}{user}" for user, group in USERS.items()]
    # Should a package leave a process or a mount behind, it ends with the namespaces.
    shell.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--architectures=amd64"),
            "--skip=chroot/mount/sys",
            f"--include={','.join(PACKAGES)}",
            *(f"--aptopt={option}" for option in options),
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *(f'--customize-hook=chroot "$1" {command}' for command in people),
            *(SUITE, tree),
            *(of_this_suite(line) for line in debian.sources(targets)),
        ]
    )


def of_this_suite(line: str) -> str:
    """A line of apt's for the hospital's machines, as one for this system."""
    kind, uri, suite, component = line.split()
    return f"{kind} {uri} {suite.replace(GUEST_SUITE, SUITE, 1)} {component}"


def _install_libraries(tree: Path, work: Path) -> None:
    """By the host's pip with the host's settings, for the Python of `tree`; what is no wheel is built by the host."""
    lock = work / "libraries.lock"
    lock.write_text(libraries(LOCK_FILE.read_text(encoding="utf-8")), encoding="utf-8")
    shell.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--no-build-isolation", "--no-compile", "--root-user-action=ignore"),
            *("--implementation=cp", f"--python-version={PYTHON}"),
            *(f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")),
            *(f"--platform={platform}" for platform in _PLATFORMS),
            f"--target={tree / LIBRARIES}",
            f"--requirement={lock}",
        ]
    )
    shutil.rmtree(tree / LIBRARIES / "bin", ignore_errors=True)
    shell.run(
        ["chroot", tree, "python3", "-m", "compileall", "-q", f"/{LIBRARIES}"],
        env=shell.GUEST_ENVIRONMENT,
    )
