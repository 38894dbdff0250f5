"""A plan and a status that the tests of the rigs share."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

from cleanroomd.model.plan import Disk, Enclosure, Flow, HttpProbe, Plan, Port, Service, Zone
from cleanroomd.model.status import (
    IsolationStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    Verdict,
    VerdictKind,
)

RECORD = "10.1.20.12"
DATABASE = "10.1.20.11"


def service(name: str, address: str) -> Service:
    return Service(
        name=name,
        title=name,
        priority=1,
        address=IPv4Address(address),
        mac="52:54:00:00:00:10",
        memory=1 << 27,
        memory_min=1 << 27,
        disks=(Disk(f"{name}-system"),),
        ready=(HttpProbe(port=80),),
        gateway=IPv4Address("10.1.20.1"),
    )


PLAN = Plan(
    enclosure=Enclosure(name="Test"),
    ports=(Port(name="uplink", address=IPv4Interface("192.168.40.5/24")), Port(name="care")),
    zones=(Zone(name="workstations", port="care", address=IPv4Interface("10.77.0.1/24")),),
    services=(service("database", DATABASE), service("record", RECORD)),
    flows=(Flow("workstations", "record", tcp=(8000,)), Flow("record", "database", tcp=(5432,))),
)


def state_of(name: str, state: ServiceState, **changes: object) -> ServiceStatus:
    found = ServiceStatus(
        name=name,
        title=name,
        priority=1,
        required=True,
        state=state,
        reason=f"why {state}",
        since=110.0,
        elapsed=31.25 if state is ServiceState.READY else None,
        remaining=20.0 if state is ServiceState.BOOTING else None,
        start="cold",
        proof="HTTP 200" if state is ServiceState.READY else "",
        attempt=1,
        address="10.1.20.12",
        data_as_of=None,
        kept_aside=0,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def status(services: Sequence[ServiceStatus], *, state: RunState = RunState.RESTORED, proven: bool = True) -> Status:
    return Status(
        enclosure="Caisson 1",
        state=state,
        now=130.0,
        power_on=100.0,
        restored_after=31.25 if state is RunState.RESTORED else None,
        remaining=20.0 if state is RunState.RESTORING else None,
        isolation=IsolationStatus(
            proven=proven,
            proven_at=101.0,
            generation=7,
            uplink="dark",
            foreign_changes=0,
            problem="" if proven else "the table is gone",
        ),
        verdict=Verdict(VerdictKind.ADMISSIBLE, "everything fits"),
        services=tuple(services),
        next_action="nothing to do",
        plan_problem="",
        unsealed=True,
    )
