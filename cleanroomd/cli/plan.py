"""`cleanroomctl plan`: what can be said of a plan file without a daemon."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cleanroomd.cli.documents import PlanCheck, PlanProblem
from cleanroomd.cli.output import json_option, print_json
from cleanroomd.cli.probes import describe_probe, protocol_name
from cleanroomd.cli.simulate import simulate
from cleanroomd.errors import Exit
from cleanroomd.model.plan import DiskKind, Flow, Plan, Probe, Service, Zone

if TYPE_CHECKING:
    from cleanroomd.plan.problems import PlanError

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group("plan")
def plan_group() -> None:
    """Check and describe recovery plans; needs no daemon."""


plan_group.add_command(simulate)


@plan_group.command("check")
@_FILE
@json_option(PlanCheck)
def check(file: Path, *, as_json: bool) -> Exit:
    """Say what is wrong with the plan in FILE.

    Every problem at once, each with its line and a way out. The exit code is 1 when there is one.
    """
    # Reading plans takes a validator that the other verbs should not wait for.
    from cleanroomd.plan.load import load
    from cleanroomd.plan.problems import PlanError

    try:
        plan = load(file)
    except PlanError as error:
        _report(error, as_json=as_json)
        return Exit.CANNOT
    if as_json:
        print_json(PlanCheck(click.format_filename(file), (), services=len(plan.services), flows=len(plan.flows)))
    else:
        services, flows = _count(plan.services, "service"), _count(plan.flows, "flow")
        click.echo(f"{click.format_filename(file)}: no problem; {services}, {flows}")
    return Exit.DONE


@plan_group.command("show")
@_FILE
@json_option(Plan)
def show(file: Path, *, as_json: bool) -> Exit:
    """Say what the plan in FILE restores.

    Its services by priority, what proves each of them ready, and who may talk to whom. The exit code is 1, and the
    output that of `cleanroomctl plan check`, when the plan has problems.
    """
    from cleanroomd.plan.load import load
    from cleanroomd.plan.problems import PlanError

    try:
        plan = load(file)
    except PlanError as error:
        _report(error, as_json=as_json)
        return Exit.CANNOT
    if as_json:
        print_json(_plain(plan))
    else:
        click.echo("\n".join(describe(plan)))
    return Exit.DONE


@plan_group.command("schema")
def schema() -> None:
    """Print the JSON schema of plan files.

    For editors that check and complete what is written.
    """
    from cleanroomd.plan.jsonschema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def describe(plan: Plan) -> Iterator[str]:
    """The plan in words, line by line; services by priority, then in the plan's own order."""
    target = f", to be ready within {_time(plan.enclosure.rto)}" if plan.enclosure.rto else ""
    yield f"{plan.enclosure.name}{target}"
    yield ""
    for service in sorted(plan.services, key=lambda service: service.priority):
        yield from _service(service)
    yield ""
    for zone in plan.zones:
        yield _zone(zone)
    if plan.zones:
        yield ""
    for flow in plan.flows:
        yield f"{flow.origin} may connect to {flow.to}, {_ports(flow)}"
    if not plan.flows:
        yield "no flow: nobody may connect to anything"
    for window in plan.windows:
        yield (
            f"lease {window.name}: {window.origin} to {window.to} on the uplink, "
            f"tcp {_list(window.tcp)}, at most {_time(window.longest)}"
        )


def _service(service: Service) -> Iterator[str]:
    required = ", required" if service.required else ""
    yield f" {service.priority}  {service.name} ({service.title}){required}"
    memory = _size(service.memory)
    if service.memory_min < service.memory:
        memory += f", at least {_size(service.memory_min)}"
    yield f"    {service.address}, {service.mac}; memory {memory}; {service.start} start"
    yield f"    {service.firmware.upper()} firmware; disks on {service.controller}, network card {service.nic}"
    if service.depends_on:
        yield f"    after {_list(service.depends_on)}"
    disks = (f"{disk.name} (data)" if disk.kind is DiskKind.DATA else disk.name for disk in service.disks)
    yield f"    disks {_list(disks)}"
    probes = "; ".join(map(describe_probe, service.ready))
    yield f"    ready when {probes}; within {_time(service.ready_timeout)}"


def _zone(zone: Zone) -> str:
    tag = f", VLAN {zone.vlan}" if zone.vlan is not None else ""
    dhcp = f"; hands out {zone.dhcp.first} to {zone.dhcp.last}" if zone.dhcp else ""
    return f"{zone.name} is {zone.network} behind port {zone.port}{tag}{dhcp}"


def _ports(flow: Flow) -> str:
    pairs = (("tcp", flow.tcp), ("udp", flow.udp))
    return "; ".join(f"{protocol} {_list(ports)}" for protocol, ports in pairs if ports)


def _report(error: "PlanError", *, as_json: bool) -> None:
    if as_json:
        problems = tuple(PlanProblem(problem.path, problem.line, problem.message) for problem in error.problems)
        print_json(PlanCheck(error.source, problems, services=None, flows=None))
        return
    lines = (f"  {problem}" for problem in error.problems)
    click.echo("\n".join([f"{error.source}: {_count(error.problems, 'problem')}", *lines]))


def _plain(value: object) -> Any:
    """A model value as JSON has it: sizes in bytes, durations in seconds."""
    match value:
        case Enum():
            return value.value
        case bytes():
            return value.decode()
        case tuple():
            return [_plain(item) for item in value]
        case bool() | int() | float() | str() | None:
            return value
        case _ if is_dataclass(value):
            named = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
            return {"protocol": protocol_name(type(value)), **named} if isinstance(value, Probe) else named
        case _:
            return str(value)


def _size(size: int) -> str:
    return f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"
