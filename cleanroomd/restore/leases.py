"""What leases open towards the uplink, for how long, and what has to hold before its link may be up.

The order on the way in: the rules with their timed elements, proven; the keeper, holding the deadline; the link with
its address. On the way out it is reversed: the link first, which relies on nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

from cleanroomd.model.observed import Deadline, Interface, Lease, Observed
from cleanroomd.model.plan import UPLINK, Plan, Protocol, Window
from cleanroomd.model.posture import Passage, PortGuard, Posture
from cleanroomd.model.steps import EndLease, HoldDeadline
from cleanroomd.restore.order import Outline

Endpoint = tuple[str, IPv4Network]


def end_of(window: Window, lease: Lease) -> float:
    """No plan that came into force since makes a lease longer; one that allows less makes it shorter."""
    return round(min(lease.until, lease.opened_at + window.longest), 3)


def open_leases(outline: Outline, observed: Observed) -> Mapping[str, tuple[Window, Lease]]:
    """Those whose end is still to come, on windows of the plan in force; none in a drill."""
    if observed.drill:
        return {}
    windows = {window.name: window for window in outline.plan.windows}
    return {
        name: (windows[name], lease)
        for name, lease in observed.leases.items()
        if name in windows and observed.now < end_of(windows[name], lease)
    }


def words(window: Window) -> str:
    """Who may connect to whom: "imaging to 192.168.40.10, tcp 104, 2575"."""
    return f"{window.origin} to {window.to}, tcp {', '.join(map(str, window.tcp))}"


def passages(
    outline: Outline, observed: Observed, uplink: Interface | None, endpoint: Callable[[str], Endpoint | None]
) -> Iterator[Passage]:
    """What open leases let through; `endpoint` is None for who cannot connect at this moment."""
    address = uplink_address(outline.plan)
    if uplink is None or address is None:
        return
    for window, lease in open_leases(outline, observed).values():
        origin = endpoint(window.origin)
        if origin is None:
            continue
        for port in window.tcp:
            yield Passage(
                origin=origin[0],
                source=origin[1],
                target=uplink.name,
                destination=IPv4Network(window.to),
                protocol=Protocol.TCP,
                port=port,
                until=end_of(window, lease),
                appears_as=address.ip,
                label=f"{_label(window)}{window.origin} to {window.to}, tcp {port}",
            )


def _label(window: Window) -> str:
    return f"lease {window.name}: "


def uplink_address(plan: Plan) -> IPv4Interface | None:
    return next((port.address for port in plan.ports if port.name == UPLINK), None)


def lit(guard: PortGuard, plan: Plan, opened: frozenset[Passage]) -> PortGuard:
    """The guard of a port with what leads through it; only passages make the uplink anything but dark."""
    peers = tuple(sorted({passage.destination for passage in opened if passage.target == guard.interface}))
    address = uplink_address(plan)
    if guard.role != UPLINK or address is None or not peers:
        return guard
    return replace(guard, dark=False, addresses=(address,), peers=peers)


def darkened(guard: PortGuard, posture: Posture, observed: Observed) -> PortGuard:
    """The guard as its link has to be at this moment.

    The uplink is dark, whatever is leased, while isolation cannot be proven, and while the keeper holds no deadline.
    Not yet when a daemon has just begun, and has neither proven the rules nor asked the keeper.
    """
    if not guard.peers:
        return guard
    proven = observed.proof is not None and observed.proof.posture == posture
    held = observed.deadline is not None and observed.deadline.interface == guard.interface
    if observed.isolation_problem or (proven and not held):
        return replace(guard, dark=True, addresses=(), peers=())
    return guard


def deadline_steps(posture: Posture, observed: Observed) -> Iterator[HoldDeadline]:
    """What the keeper has to be told before the link of a lease may be up, and once no link needs it any more."""
    for interface, until in posture.ends.items():
        if observed.deadline != Deadline(interface, until):
            yield HoldDeadline(interface, until)
    if not posture.ends and observed.deadline is not None:
        name = observed.deadline.interface
        if not any(each.name == name and (each.up or each.addresses) for each in observed.interfaces):
            yield HoldDeadline(name, None)


def lease_steps(outline: Outline, observed: Observed) -> Iterator[EndLease]:
    """Leases that are over, with the reason why."""
    still_open = open_leases(outline, observed)
    windows = {window.name for window in outline.plan.windows}
    for name, lease in observed.leases.items():
        if name in still_open:
            continue
        if observed.drill:
            yield EndLease(name, lease.until, "this is an exercise")
        elif name in windows:
            yield EndLease(name, lease.until, "its time is over")
        else:
            yield EndLease(name, lease.until, "the plan in force has no such window")


def held_up(outline: Outline, observed: Observed, posture: Posture, window: Window) -> str:
    """Why nothing passes through an open window at this moment; "" when it does."""
    guard = next((port for port in posture.ports if port.role == UPLINK), None)
    if guard is None:
        return f"port {UPLINK} is not there"
    if not any(passage.label.startswith(_label(window)) for passage in posture.passages):
        return f"{window.origin} is not {'ready' if window.origin in outline.cards else 'open'}"
    if observed.isolation_problem or observed.proof is None or observed.proof.posture != posture:
        return "isolation is not proven"
    if observed.deadline != Deadline(guard.interface, posture.ends[guard.interface]):
        return "the keeper does not hold its end yet"
    link = next((each for each in observed.interfaces if each.name == guard.interface), None)
    if link is None or not link.up:
        return "the link is not up yet"
    return "" if link.carrier else f"no cable is seen in port {UPLINK}"


def wakes(outline: Outline, observed: Observed) -> Iterator[float]:
    """The ends of open leases."""
    for window, lease in open_leases(outline, observed).values():
        yield end_of(window, lease)
