"""When a request has come to its end, and to which; pure.

A request is answered before it is carried out, so what a status shows at first may be older than the request.
A bad state counts at once when it is newer, else after SETTLE seconds in which nothing moved.
"""

from dataclasses import dataclass

from cleanroomd.cli.text import clean, clock
from cleanroomd.errors import Exit
from cleanroomd.model.status import RunState, ServiceState, ServiceStatus, Status
from cleanroomd.model.units import format_duration

SETTLE = 5.0
"""Seconds after which a daemon has acted on a request, unless it says that something is under way."""


@dataclass(frozen=True, slots=True)
class Start:
    service: str


@dataclass(frozen=True, slots=True)
class Stop:
    service: str


@dataclass(frozen=True, slots=True)
class Restore:
    pass


@dataclass(frozen=True, slots=True)
class Shutdown:
    pass


@dataclass(frozen=True, slots=True)
class OpenUplink:
    window: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class CloseUplink:
    window: str | None
    """None for whatever is open."""


Request = Start | Stop | Restore | Shutdown | OpenUplink | CloseUplink


@dataclass(frozen=True, slots=True)
class Outcome:
    exit: Exit
    text: str
    """A sentence; with Exit.CANNOT it reads "cannot DO: CAUSE"."""


def judge(request: Request, before: Status, status: Status, *, waited: float) -> Outcome | None:
    """The outcome that `status` shows, None while there is none; `waited` is seconds since the answer."""
    settled = waited >= SETTLE
    match request:
        case Start(name):
            return _started(_named(before, name), _named(status, name), status, name, settled=settled)
        case Stop(name):
            return _stopped(_named(status, name), status, name, settled=settled)
        case Restore():
            return _restored(status, settled=settled)
        case Shutdown():
            return _shut_down(status, settled=settled)
        case OpenUplink(window):
            return _opened(status, window, settled=settled)
        case CloseUplink(window):
            return _closed(status, window, settled=settled)


def _started(
    before: ServiceStatus | None, service: ServiceStatus | None, status: Status, name: str, *, settled: bool
) -> Outcome | None:
    if service is None:
        return Outcome(Exit.CANNOT, f"cannot start {name}: the plan has no such service any more")
    failure = Outcome(Exit.CANNOT, f"cannot start {name}: {clean(service.reason)}")
    match service.state:
        case ServiceState.READY:
            after = f", {clock(service.elapsed)} after power-on" if service.elapsed is not None else ""
            return Outcome(Exit.DONE, f"{name} is ready{after}: {clean(service.proof or service.reason)}")
        case ServiceState.FAILED:
            newer = before is None or before.state is not service.state or before.since != service.since
            return failure if newer or settled else None
        case ServiceState.EXCLUDED:
            return failure if settled else None
        case ServiceState.BLOCKED | ServiceState.STOPPED:
            return failure if settled and status.state is not RunState.RESTORING else None
        case _:
            return None


def _stopped(service: ServiceStatus | None, status: Status, name: str, *, settled: bool) -> Outcome | None:
    if service is None or service.state is ServiceState.STOPPED:
        return Outcome(Exit.DONE, f"{name} is stopped")
    if settled and not _stopping(status):
        return Outcome(Exit.CANNOT, f"cannot stop {name}: it is still {service.state}")
    return None


def _restored(status: Status, *, settled: bool) -> Outcome | None:
    if status.state is RunState.RESTORED:
        after = f", {clock(status.restored_after)} after power-on" if status.restored_after is not None else ""
        return Outcome(Exit.DONE, f"every service is ready{after}")
    if not settled or status.state is RunState.RESTORING:
        return None
    missing = ", ".join(
        f"{clean(service.name)} is {service.state}"
        for service in status.services
        if service.state is not ServiceState.READY
    )
    if status.state is RunState.DEGRADED:
        return Outcome(Exit.DEGRADED, f"every required service is ready; {missing}")
    return Outcome(Exit.CANNOT, f"cannot restore every required service: {missing}")


def _shut_down(status: Status, *, settled: bool) -> Outcome | None:
    up = [
        service.name
        for service in status.services
        if service.state in (ServiceState.STARTING, ServiceState.BOOTING, ServiceState.READY, ServiceState.STOPPING)
    ]
    if not up:
        return Outcome(Exit.DONE, "every machine is stopped")
    if settled and not _stopping(status):
        return Outcome(Exit.CANNOT, f"cannot stop every machine: {', '.join(up)} still runs")
    return None


def _opened(status: Status, window: str, *, settled: bool) -> Outcome | None:
    lease = next((lease for lease in status.isolation.leases if lease.window == window), None)
    if lease is not None and not lease.problem:
        left = format_duration(lease.until - status.now)
        return Outcome(Exit.DONE, f"{clean(window)} is open for {left}: {clean(lease.flow)}")
    if not settled:
        return None
    if lease is not None:
        return Outcome(Exit.DEGRADED, f"{clean(window)} is leased, but {clean(lease.problem)}")
    return Outcome(Exit.CANNOT, f"cannot open {clean(window)}: it is closed again")


def _closed(status: Status, window: str | None, *, settled: bool) -> Outcome | None:
    if not any(window in (None, lease.window) for lease in status.isolation.leases):
        return Outcome(Exit.DONE, f"{clean(window)} is closed" if window else "the uplink is dark")
    return Outcome(Exit.CANNOT, "cannot close the uplink: it is still open") if settled else None


def _named(status: Status, name: str) -> ServiceStatus | None:
    return next((service for service in status.services if service.name == name), None)


def _stopping(status: Status) -> bool:
    return any(service.state is ServiceState.STOPPING for service in status.services)
