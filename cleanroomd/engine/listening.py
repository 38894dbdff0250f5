"""Listening to the ports of the plan in force: which ones, and who may be behind them."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network

from cleanroomd.hardware.hearing import Expected
from cleanroomd.hardware.listening import PortListening
from cleanroomd.model.listening import Heard
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

    def attend(self, outline: Outline, interfaces: tuple[Interface, ...]) -> Mapping[str, Heard]:
        """Follow the cables, and tell what was heard on each; by interface."""
        if outline.plan is not self._plan:
            self._plan, self._expected = outline.plan, expectations(outline)
        found = match_ports(outline.plan, interfaces)
        wanted = {found[name].name: expected for name, expected in self._expected.items() if name in found}
        macs = frozenset(interface.mac for interface in interfaces)
        self._ports.attend(wanted, interfaces, macs)
        return self._ports.heard()

    def close(self) -> None:
        self._ports.close()


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
