"""From what is observed to the steps that lead to what should be. Nothing to do yields no step."""

from collections.abc import Iterator
from dataclasses import dataclass

from cleanroomd.model.observed import Interface, Observed
from cleanroomd.model.plan import UPLINK
from cleanroomd.model.posture import PortGuard, Posture
from cleanroomd.model.steps import ApplyRules, MakeTap, MakeZoneLink, RemoveZoneLink, SetLink, Step
from cleanroomd.restore.desired import ZONE_LINK, desired_posture, is_zone_link, zone_links
from cleanroomd.restore.judgement import Judgement, judge, unwatch_steps
from cleanroomd.restore.leases import darkened, deadline_steps, lease_steps
from cleanroomd.restore.leases import wakes as lease_ends
from cleanroomd.restore.order import Outline
from cleanroomd.restore.quarantine import PortJudgement, judge_ports, match_ports


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of the loop, decided."""

    judgement: Judgement
    posture: Posture
    steps: tuple[Step, ...]
    wake_at: float | None
    """When to look again even if no event comes; CLOCK_BOOTTIME seconds."""


def reconcile(outline: Outline, observed: Observed) -> Round:
    """Decide the next steps, in the order in which they are to be applied.

    Isolation comes before links, links before machines: a step may rely on those before it having succeeded.
    Taking a link down relies on nothing, and comes first: also when no rules can be had at all.
    """
    judgement = judge(outline, observed)
    posture = desired_posture(outline, observed, frozenset(judgement.admission.grants))
    steps: list[Step] = []
    wakes = [service.wake_at for service in judgement.services.values() if service.wake_at is not None]
    interfaces = {interface.name: interface for interface in observed.interfaces}
    judged = judge_ports(outline.plan, observed)
    wakes.extend(lease_ends(outline, observed))
    wakes.extend(port.wake_at for port in judged.values() if port.wake_at is not None)
    links = [
        (_only_closes(guard, interfaces[guard.interface]), step)
        for guard in (darkened(guard, posture, observed) for guard in posture.ports)
        if (step := _link_step(guard, interfaces[guard.interface], judged.get(guard.role), posture)) is not None
    ]
    steps.extend(_stray_steps(posture, observed))
    steps.extend(step for only_closes, step in links if only_closes)
    missing = [tap for tap in posture.taps if tap.interface not in observed.taps]
    if missing or observed.proof is None or observed.proof.posture != posture:
        if observed.now >= observed.rules_retry_at:
            steps.extend(MakeTap(tap.service, tap.interface) for tap in missing)
            steps.append(ApplyRules(posture))
        else:
            wakes.append(observed.rules_retry_at)
    else:
        steps.extend(_zone_link_steps(outline, observed))
        holding = list(deadline_steps(posture, observed))
        if holding and observed.now < observed.deadline_retry_at:
            wakes.append(observed.deadline_retry_at)
        else:
            steps.extend(holding)
        # A step that fails keeps none of those after it from being taken, so a link waits for the round after.
        waiting = {step.interface for step in holding}
        steps.extend(step for only_closes, step in links if not only_closes and step.interface not in waiting)
    steps.extend(lease_steps(outline, observed))
    for name in outline.start_order:
        steps.extend(judgement.services[name].steps)
    for stranger in judgement.strangers.values():
        steps.extend(stranger.steps)
    steps.extend(unwatch_steps(outline, observed))
    return Round(judgement, posture, tuple(steps), min(wakes, default=None))


def _stray_steps(posture: Posture, observed: Observed) -> Iterator[SetLink]:
    """Take down what was a port, and is none any more: nothing guards it once the rules of `posture` are in force.

    Another card in the plan, no such port any more, or a second claimant. What was a port is known from the rules in
    force, from the keeper, from the mark that listening left on the interface, and a sub-interface from its name.
    """
    roles = {} if observed.proof is None else {guard.interface: guard.role for guard in observed.proof.posture.ports}
    if observed.deadline is not None:
        roles.setdefault(observed.deadline.interface, UPLINK)
    planned = {guard.interface for guard in posture.ports}
    for interface in observed.interfaces:
        name = interface.name
        was_port = name in roles or interface.marked or interface.found is not None or _is_named_by_us(interface)
        if was_port and name not in planned and (interface.up or interface.addresses):
            yield SetLink(roles.get(name, "that is none any more"), name, up=False)


def _is_named_by_us(interface: Interface) -> bool:
    return interface.vlan is not None and interface.name.startswith(ZONE_LINK)


def _only_closes(guard: PortGuard, interface: Interface) -> bool:
    """Whether a link is to be taken down, or to lose its address: the rules need not be proven for that."""
    return guard.dark and (interface.up or not guard.quarantined)


def _link_step(
    guard: PortGuard, interface: Interface, judged: PortJudgement | None, posture: Posture
) -> SetLink | None:
    """`judged` is None for a port without zones."""
    wanted = frozenset(str(address) for address in guard.addresses)
    found = judged.found if judged is not None and interface.vlan is None else None
    if guard.dark and not guard.quarantined:
        if interface.up or interface.addresses:
            return SetLink(guard.role, guard.interface, up=False)
        return None
    if not interface.up or interface.addresses != wanted or (found is not None and interface.found != found):
        return SetLink(
            guard.role,
            guard.interface,
            up=True,
            addresses=tuple(sorted(wanted)),
            found=found,
            carrier_changes=interface.carrier_changes if found is not None else 0,
            until=posture.ends.get(guard.interface),
        )
    return None


def _zone_link_steps(outline: Outline, observed: Observed) -> Iterator[Step]:
    """Sub-interfaces that are not needed go before those that are missing come: both may have one name."""
    wanted = zone_links(outline.plan, match_ports(outline.plan, observed.interfaces))
    there = {interface.name: interface for interface in observed.interfaces if interface.vlan is not None}
    for name, interface in there.items():
        if _is_named_by_us(interface) and not (name in wanted and is_zone_link(interface, *wanted[name][:2])):
            yield RemoveZoneLink(name)
    for name, (parent, vlan, zones) in wanted.items():
        if name not in there:
            yield MakeZoneLink(", ".join(zone.name for zone in zones), name, parent.name, vlan)
