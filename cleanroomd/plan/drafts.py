"""What can be known of a plan that is not valid yet, so that its cross-references can be checked already.

Every value is None, or missing from its list, where the file gives none or a wrong one: the schema says so,
and what refers to it is not blamed for it. Names are as written, valid or not: references repeat them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import TypeVar

from cleanroomd.model.plan import Controller, StartKind, endpoint_name
from cleanroomd.plan import units
from cleanroomd.plan.probes import DEEPEST

T = TypeVar("T")
Named = tuple[int, str]
"""A name with its index in the list that it was written in."""


@dataclass(frozen=True, slots=True)
class PortDraft:
    name: str
    path: str | None
    mac: str | None
    address: IPv4Interface | None
    gateway: IPv4Address | None
    has_address: bool


@dataclass(frozen=True, slots=True)
class ZoneDraft:
    name: str
    port: str | None
    address: IPv4Interface | None
    vlan: object
    dhcp: tuple[IPv4Address, IPv4Address] | None


@dataclass(frozen=True, slots=True)
class CardDraft:
    loc: tuple[str | int, ...]
    """Where it is written; the first card of a service is written in the service's own table."""
    name: str | None
    address: IPv4Address | None
    gateway: IPv4Address | None
    mac: str | None


@dataclass(frozen=True, slots=True)
class ServiceDraft:
    index: int
    name: str | None
    cards: tuple[CardDraft, ...]
    """All its network cards, the first one first."""
    memory: int | None
    memory_min: int | None
    depends_on: tuple[Named, ...]
    disks: tuple[Named, ...]
    controller: Controller | None
    warm_controller: bool
    agentless: tuple[int, ...]
    """Where in `ready` the guest agent is asked, if the service is without one."""


@dataclass(frozen=True, slots=True)
class FlowDraft:
    index: int
    origin: str | None
    to: str | None
    openings: int
    """How many ports it lists, of both protocols."""


@dataclass(frozen=True, slots=True)
class WindowDraft:
    index: int
    name: str | None
    origin: str | None
    to: IPv4Address | None


@dataclass(frozen=True, slots=True)
class Draft:
    ports: tuple[PortDraft, ...]
    zones: tuple[ZoneDraft, ...]
    services: tuple[ServiceDraft, ...]
    flows: tuple[FlowDraft, ...]
    windows: tuple[WindowDraft, ...]


def draft(document: dict[str, object]) -> Draft:
    return Draft(
        ports=tuple(_port(name, table) for name, table in _named(document.get("ports"))),
        zones=tuple(_zone(name, table) for name, table in _named(document.get("zones"))),
        services=tuple(_service(index, table) for index, table in _listed(document.get("service"))),
        flows=tuple(
            FlowDraft(index, _text(table.get("from")), _text(table.get("to")), _openings(table))
            for index, table in _listed(document.get("flow"))
        ),
        windows=tuple(
            WindowDraft(
                index,
                _text(table.get("name")),
                _text(table.get("from")),
                _try(units.address, table.get("to")),
            )
            for index, table in _listed(document.get("window"))
        ),
    )


def _port(name: str, table: dict[str, object]) -> PortDraft:
    match = table.get("match")
    match = match if isinstance(match, dict) else {}
    return PortDraft(
        name=name,
        path=_try(units.id_path, match.get("path")),
        mac=_try(units.mac, match.get("mac")),
        address=_try(units.interface, table.get("address")),
        gateway=_try(units.address, table.get("gateway")),
        has_address="address" in table,
    )


def _zone(name: str, table: dict[str, object]) -> ZoneDraft:
    dhcp = table.get("dhcp")
    dhcp = dhcp if isinstance(dhcp, dict) else {}
    first, last = _try(units.address, dhcp.get("from")), _try(units.address, dhcp.get("to"))
    return ZoneDraft(
        name=name,
        port=_text(table.get("port")),
        address=_try(units.interface, table.get("address")),
        vlan=table.get("vlan"),
        dhcp=(first, last) if first and last else None,
    )


def _service(index: int, table: dict[str, object]) -> ServiceDraft:
    name = _text(table.get("name"))
    further = (
        _card(("service", index, "nics", number), name, _text(card.get("name")), card)
        for number, card in _listed(table.get("nics"))
    )
    return ServiceDraft(
        index=index,
        name=name,
        cards=(_card(("service", index), name, "", table), *further),
        memory=_try(units.size, table.get("memory")),
        memory_min=_try(units.size, table.get("memory_min")),
        depends_on=_names(table.get("depends_on")),
        disks=_names(table.get("disks")),
        controller=_controller(table.get("controller", Controller.VIRTIO)),
        warm_controller=table.get("role") == "domain-controller" and table.get("start") == StartKind.WARM,
        agentless=_asking_agent(table.get("ready")) if table.get("guest_agent", False) is False else (),
    )


def _card(loc: tuple[str | int, ...], service: str | None, name: str | None, table: dict[str, object]) -> CardDraft:
    """`name` is "" for the first card of a service."""
    mac = _try(units.mac, table.get("mac"))
    if "mac" not in table and service is not None and name is not None:
        mac = units.derived_mac(endpoint_name(service, name))
    return CardDraft(
        loc=loc,
        name=name,
        address=_try(units.address, table.get("address")),
        gateway=_try(units.address, table.get("gateway")),
        mac=mac,
    )


def _named(section: object) -> Iterator[tuple[str, dict[str, object]]]:
    tables = section if isinstance(section, dict) else {}
    return ((name, table) for name, table in tables.items() if isinstance(table, dict))


def _listed(section: object) -> Iterator[tuple[int, dict[str, object]]]:
    tables = section if isinstance(section, list) else []
    return ((index, table) for index, table in enumerate(tables) if isinstance(table, dict))


def _names(values: object) -> tuple[Named, ...]:
    """Names in a list, each as a string or as the `name` of a table."""
    values = values if isinstance(values, list) else []
    plain = (value.get("name") if isinstance(value, dict) else value for value in values)
    return tuple((index, name) for index, name in enumerate(plain) if isinstance(name, str))


def _asking_agent(ready: object) -> tuple[int, ...]:
    """Indexes of the probes that ask the guest agent, or have one within them that does."""
    probes = ready if isinstance(ready, list) else []
    return tuple(index for index, probe in enumerate(probes) if _asks_agent(probe, DEEPEST))


def _asks_agent(probe: object, levels: int) -> bool:
    if not isinstance(probe, dict) or not levels:
        return False
    parts = (part for value in probe.values() if isinstance(value, list) for part in value)
    return "guest_agent" in probe or any(_asks_agent(part, levels - 1) for part in parts)


def _controller(value: object) -> Controller | None:
    return next((controller for controller in Controller if controller == value), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _try(parse: Callable[[object], T], value: object) -> T | None:
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError:
        return None


def _openings(untrusted_flow: Mapping[str, object]) -> int:
    listed = (untrusted_flow.get(key) for key in ("tcp", "udp"))
    return sum(len(ports) for ports in listed if isinstance(ports, list))
