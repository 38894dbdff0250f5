"""The verdict on a plan before anything starts: who fits, who shrinks, who stays out, by care priority."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cleanroomd.model.observed import Capacity, DiskFacts
from cleanroomd.model.plan import Service, StartKind
from cleanroomd.model.status import Finding, Verdict, VerdictKind
from cleanroomd.model.units import format_size
from cleanroomd.restore.order import Outline


@dataclass(frozen=True, slots=True)
class Grant:
    """What a service may use when its turn comes."""

    memory: int
    start: StartKind
    because: str = ""
    """Why a service that the plan starts warm is started cold."""


@dataclass(frozen=True, slots=True)
class Admission:
    verdict: Verdict
    grants: Mapping[str, Grant]
    refusals: Mapping[str, str]
    """Service -> why it stays out by itself, in words."""
    orphans: Mapping[str, str]
    """Service -> the dependency that stays out, so that it cannot start either."""


def admit(
    outline: Outline,
    capacity: Capacity,
    disks: Mapping[str, DiskFacts],
    running: Mapping[str, int] | None = None,
    cold_causes: Mapping[str, str] | None = None,
) -> Admission:
    """Hand out the memory of `capacity`.

    The machines of `running` (service -> bytes) have theirs, and keep it whatever the figures are by now: less
    memory than an earlier daemon found, or a disk that has left the vault, stops nothing that runs.
    Required services and what they depend on come first: each is sure of its least memory before any of them
    is given its full share. The others follow by effective priority, full share before least.
    A service that cannot run never stops one that can. `cold_causes` as of `warmth.cold_causes`; without it
    everything starts cold.
    """
    running = running or {}
    unusable = _unusable(outline, disks)
    refusals = {name: cause for name, cause in unusable.items() if name not in running}
    orphans: dict[str, str] = {}
    least: dict[str, int] = {}
    free = capacity.memory - sum(memory + capacity.overhead for memory in running.values())
    for name in outline.memory_order:
        if name not in outline.essential or name in refusals or name in running:
            continue
        service = outline.services[name]
        if (dependency := _missing_dependency(service, refusals, orphans)) is not None:
            orphans[name] = dependency
            continue
        cost = service.memory_min + capacity.overhead
        if cost > free:
            refusals[name] = _too_large(cost, free)
            continue
        least[name] = service.memory_min
        free -= cost
    granted = {name: memory for name, memory in running.items() if name in outline.services}
    for name in outline.memory_order:
        service = outline.services[name]
        if name in granted:
            continue
        if name in least:
            extra = service.memory - least[name]
            granted[name] = service.memory if extra <= free else least[name]
            free -= granted[name] - least[name]
            continue
        if name in refusals or name in orphans:
            continue
        if (dependency := _missing_dependency(service, refusals, orphans)) is not None:
            orphans[name] = dependency
            continue
        for size in (service.memory, service.memory_min):
            if size + capacity.overhead <= free:
                granted[name] = size
                free -= size + capacity.overhead
                break
        else:
            refusals[name] = _too_large(service.memory_min + capacity.overhead, free)
    causes = cold_causes or {}
    grants = {name: _grant(outline.services[name], size, causes.get(name)) for name, size in granted.items()}
    return Admission(
        _verdict(outline, capacity, grants, refusals, orphans, unusable, running, free), grants, refusals, orphans
    )


def _grant(service: Service, memory: int, cold_cause: str | None) -> Grant:
    """`cold_cause` is None for a service that is not staged for a warm start, and "" for one that may."""
    if cold_cause == "" and memory != service.memory:
        # A warm state is an image of all the memory that the machine was sealed with.
        cold_cause = (
            f"cold, since it gets {format_size(memory)} of memory and was sealed with {format_size(service.memory)}"
        )
    return Grant(memory, StartKind.WARM if cold_cause == "" else StartKind.COLD, cold_cause or "")


def _unusable(outline: Outline, disks: Mapping[str, DiskFacts]) -> dict[str, str]:
    found = {}
    for service in outline.plan.services:
        for disk in service.disks:
            facts = disks.get(disk.name)
            if facts is None:
                found[service.name] = f"disk {disk.name} is not in the vault"
            elif facts.problem:
                found[service.name] = f"disk {disk.name}: {facts.problem}"
            else:
                continue
            break
    return found


def _missing_dependency(service: Service, refusals: Mapping[str, str], orphans: Mapping[str, str]) -> str | None:
    return next((name for name in service.depends_on if name in refusals or name in orphans), None)


def _too_large(cost: int, free: int) -> str:
    return f"needs {format_size(cost)} at least, {format_size(max(free, 0))} left"


def _verdict(
    outline: Outline,
    capacity: Capacity,
    grants: Mapping[str, Grant],
    refusals: Mapping[str, str],
    orphans: Mapping[str, str],
    unusable: Mapping[str, str],
    running: Collection[str],
    free: int,
) -> Verdict:
    findings = []
    for service in outline.plan.services:
        name = service.name
        if name in unusable and name in grants:
            remedy = "leave it running, and put the disk into the vault"
            findings.append(Finding(name, "runs, but could not start again", unusable[name], remedy))
        elif name in unusable:
            findings.append(
                Finding(name, "cannot start", unusable[name], "put the disk into the vault, or import it again")
            )
        elif name in refusals:
            missing = service.memory_min + capacity.overhead
            remedy = f"add {format_size(missing)} of memory, or plan without a service of lower priority"
            findings.append(Finding(name, "excluded", refusals[name], remedy))
        elif name in orphans:
            findings.append(Finding(name, "cannot start", f"it depends on {orphans[name]}", f"see {orphans[name]}"))
        elif grants[name].memory < service.memory:
            findings.append(_shrunk(service, grants[name].memory, capacity, runs=name in running, free=free))
    stopped = [service.name for service in outline.plan.services if service.required and service.name not in grants]
    if stopped:
        cause = next(finding for finding in findings if finding.service == stopped[0])
        return Verdict(VerdictKind.BLOCKED, f"{', '.join(stopped)} cannot run: {cause.cause}", tuple(findings))
    if findings:
        first = findings[0]
        return Verdict(VerdictKind.DEGRADED, f"{first.service} {first.effect}: {first.cause}", tuple(findings))
    used = sum(grant.memory + capacity.overhead for grant in grants.values())
    return Verdict(
        VerdictKind.ADMISSIBLE,
        f"{len(grants)} services, {format_size(used)} of {format_size(capacity.memory)} of memory",
    )


def _shrunk(service: Service, memory: int, capacity: Capacity, *, runs: bool, free: int) -> Finding:
    name = service.name
    effect = f"runs with {format_size(memory)} instead of {format_size(service.memory)}"
    missing = service.memory - memory
    if runs and missing <= free:
        remedy = f"`cleanroomctl stop {name}`, then `start {name}`, when care can spare it"
        return Finding(name, effect, "it started with that", remedy)
    if service.start is StartKind.WARM and not runs:
        effect += ", and starts cold"
    cause = f"{format_size(capacity.memory)} of memory for all machines"
    return Finding(name, effect, cause, f"add {format_size(missing)} of memory")
