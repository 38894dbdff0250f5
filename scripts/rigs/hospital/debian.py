"""The common Debian system of the machines, from the mirror that the host itself is configured to use."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import HospitalError
from .machines import BASE_PACKAGES, GUEST_SUITE, INITRD_PACKAGE, KERNEL_PACKAGE, MACHINES
from .shell import output, run

TARGET_FORMAT = "$(ORIGIN)|$(LABEL)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
PASSED_ON = re.compile(r"Acquire::(https?::|Check-Valid-Until|Retries|ForceIPv4)", re.IGNORECASE)
LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/lib/x86_64-linux-gnu/libLLVM*",
    "/usr/lib/x86_64-linux-gnu/libz3*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
)
"""No machine reads these: documentation, and PostgreSQL's just-in-time compiler, which costs more than all the rest of
the database and which its configuration here turns off."""


@dataclass(frozen=True)
class Target:
    """One repository that the host's apt knows."""

    origin: str
    label: str
    release: str
    component: str
    uri: str


def parse_targets(text: str) -> tuple[Target, ...]:
    rows = (line.split("|") for line in text.splitlines())
    return tuple(Target(*row) for row in rows if len(row) == 5)


def sources(targets: Iterable[Target]) -> tuple[str, ...]:
    """apt lines for the guests' suite: the host's Debian mirror, and security and updates where the host has them."""
    lines: dict[str, None] = {}
    for target in targets:
        if target.origin != "Debian" or target.component != "main":
            continue
        _, _, pocket = target.release.partition("-")
        if pocket not in {"", "security", "updates"}:
            continue
        suite = f"{GUEST_SUITE}-{pocket}" if pocket else GUEST_SUITE
        lines[f"deb {target.uri} {suite} main"] = None
    if not any(line.split()[2] == GUEST_SUITE for line in lines):
        raise HospitalError(
            "cannot build the hospital: apt knows no Debian mirror",
            "add a Debian source to /etc/apt/sources.list.d and run apt-get update",
        )
    return tuple(lines)


def apt_options(dump: str) -> tuple[str, ...]:
    """What the guests' packages must be fetched with to pass where the host's own pass: proxies, trust, retries."""
    return tuple(line for line in dump.splitlines() if PASSED_ON.match(line) and line.endswith('";'))


def bootstrap(tree: Path) -> None:
    """Install the common system into `tree`, and fetch (not install) what single machines add to it.

    Only this step of the build uses the network; it runs the host's apt, with the host's trust.
    """
    lines = sources(parse_targets(output(["apt-get", "indextargets", "--format", TARGET_FORMAT])))
    options = ('Acquire::Languages "none";', *apt_options(output(["apt-config", "dump"])))
    extra = [package for machine in MACHINES for package in machine.packages]
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--architectures=amd64",
            "--skip=chroot/mount/sys,cleanup/apt",
            f"--include={','.join(BASE_PACKAGES)}",
            *(f"--aptopt={option}" for option in options),
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            f"--customize-hook={fetch_command((*extra, KERNEL_PACKAGE, INITRD_PACKAGE))}",
            GUEST_SUITE,
            tree,
            *lines,
        ]
    )


def fetch_command(packages: Sequence[str]) -> str:
    """A shell line for mmdebstrap's hook: apt of the host, acting for the tree, downloads and installs nothing."""
    return (
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install --yes --no-install-recommends --download-only '
        + " ".join(packages)
    )


def archive(tree: Path, pattern: str) -> Path:
    """One package file that the bootstrap fetched."""
    found = sorted((tree / "var/cache/apt/archives").glob(pattern))
    if not found:
        raise HospitalError(f"cannot build the hospital: no package {pattern} was fetched")
    return found[-1]
