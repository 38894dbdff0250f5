"""Listening to the ports of the plan in force: which ones, and who may be behind them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network

from cleanroomd.clock import now
from cleanroomd.hardware.hearing import Doubts, Expected
from cleanroomd.hardware.listening import PortListening
from cleanroomd.model.listening import Found, Heard
from cleanroomd.model.observed import Interface
from cleanroomd.model.plan import UPLINK, Plan
from cleanroomd.restore.order import Outline
from cleanroomd.restore.quarantine import care_ports, match_ports


class CareListening:
    """What is heard on the ports that zones are behind."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._ports = PortListening(on_change)
        self._plan: Plan | None = None
        self._expected: Mapping[str, Expected] = {}
        self._doubts: dict[tuple[int, int], Doubts] = {}
        """Of the ports that are open, by interface and count of carrier changes: each is of one cable."""

    def attend(self, outline: Outline, interfaces: tuple[Interface, ...]) -> Mapping[str, Heard]:
        """Follow the cables, and tell what was heard on each; by interface."""
        if outline.plan is not self._plan:
            self._plan, self._expected = outline.plan, expectations(outline)
        found = match_ports(outline.plan, interfaces)
        opened = {_cable(each) for each in found.values() if each.found == Found()}
        self._doubts = {cable: self._doubts.get(cable) or Doubts(now) for cable in opened}
        wanted = {
            found[name].name: replace(expected, doubts=self._doubts.get(_cable(found[name])))
            for name, expected in self._expected.items()
            if name in found
        }
        macs = frozenset(interface.mac for interface in interfaces)
        self._ports.attend(wanted, interfaces, macs)
        return self._ports.heard()

    def close(self) -> None:
        self._ports.close()


def _cable(interface: Interface) -> tuple[int, int]:
    return interface.index, interface.carrier_changes


def expectations(outline: Outline) -> Mapping[str, Expected]:
    """Who may be behind each port that zones are behind."""
    plan = outline.plan
    hospital = next((port.address.network for port in plan.ports if port.name == UPLINK and port.address), None)
    machines = {card.address: service.title for service, card in outline.cards.values()}
    found = {}
    for port in care_ports(plan):
        zones = [zone for zone in plan.zones if zone.port == port.name]
        networks: dict[int | None, tuple[IPv4Network, ...]] = {}
        for zone in zones:
            networks[zone.vlan] = (*networks.get(zone.vlan, ()), zone.network)
        own = frozenset(zone.address.ip for zone in zones)
        found[port.name] = Expected(networks, own, hospital, machines)
    return found
