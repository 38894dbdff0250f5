"""The two hospitals that the demonstration can restore: the real small one, and four tiny machines of its shape."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.errors import CleanroomError
from rigs import tiny

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ActOrder:
    """Something to do as the workstation: a command that prints one JSON object with `ok` and `proof`."""

    name: str
    service: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildStep:
    """What the build does now; `done` from 0 to 1, `remaining` in seconds, None while not known."""

    text: str
    done: float | None = None
    remaining: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A plan, its machines, and what a workstation does with them once they are back."""

    name: str
    plan: Path
    build: Callable[[Path, Callable[[BuildStep], None]], Mapping[str, Path]]
    acts: Callable[[str], tuple[ActOrder, ...]]
    """From the name of the record that they write."""
    read_back: Callable[[str], ActOrder]
    """Finds the record again."""
    infected: tuple[str, ...]
    """Services whose machines attack the others."""
    example: tuple[str, ...]
    """A command for somebody at the workstation."""
    guest_agent: bool
    """Whether the machines run whatever their guest agent is told to; else they knock on request (rigs.tiny)."""


def hospital() -> Scenario:
    """GNU Health on PostgreSQL, Orthanc, and a laboratory interface."""
    return Scenario(
        name="hospital",
        plan=_HERE / "hospital/plan.toml",
        build=_build_hospital,
        acts=lambda record: (
            _clinical("record-login", "record"),
            _clinical("record-write", "record", "--name", record),
            _clinical("imaging-echo", "imaging"),
            _clinical("imaging-store-retrieve", "imaging"),
            _clinical("laboratory-result", "laboratory"),
        ),
        read_back=lambda record: _clinical("record-read", "record", "--name", record),
        infected=("laboratory", "record", "imaging"),
        example=("curl", "http://10.1.20.13:8042/system"),
        guest_agent=True,
    )


def tiny_hospital() -> Scenario:
    """Four machines that are ready within seconds, for tests."""
    return Scenario(
        name="tiny",
        plan=_HERE / "tiny_plan.toml",
        build=_build_tiny,
        acts=lambda record: (
            _http("record-login", "record", "/", "ready"),
            _http("record-write", "record", f"/write?{record}", "written"),
            _http("imaging-echo", "imaging", "/", "ready"),
            _http("laboratory-result", "laboratory", "/", "ready"),
        ),
        read_back=lambda record: _http("record-read", "record", "/read", record),
        infected=("laboratory", "record"),
        example=("curl", "http://10.1.20.12/read"),
        guest_agent=False,
    )


_TINY_GUESTS = {
    name: tiny.Guest(name=name, address=f"10.1.20.{number}", gateway="10.1.20.1")
    for number, name in enumerate(("record-db", "record", "imaging", "laboratory"), start=11)
}


def _clinical(act: str, service: str, *arguments: str) -> ActOrder:
    return ActOrder(act, service, (sys.executable, "-m", "rigs.hospital.workstation", act, "--timeout=60", *arguments))


def _http(act: str, service: str, path: str, expect: str) -> ActOrder:
    url = f"http://{_TINY_GUESTS[service].address}{path}"
    return ActOrder(act, service, (sys.executable, "-m", "rigs.tiny_workstation", url, f"--expect={expect}"))


def _build_hospital(cache: Path, report: Callable[[BuildStep], None]) -> Mapping[str, Path]:
    from rigs.hospital.build import build
    from rigs.hospital.errors import HospitalError

    try:
        images = build(
            cache,
            lambda progress: report(BuildStep(progress.step, progress.done, progress.remaining_seconds)),
        )
    except HospitalError as error:
        raise CleanroomError(error.message, error.hint) from error
    return images.disks


def _build_tiny(cache: Path, report: Callable[[BuildStep], None]) -> Mapping[str, Path]:
    return tiny.build(tuple(_TINY_GUESTS.values()), cache, lambda text: report(BuildStep(text)))
