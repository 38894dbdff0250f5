"""From what is observed to the steps that lead to what should be. Nothing to do yields no step."""

from dataclasses import dataclass

from cleanroomd.model.observed import Interface, Observed
from cleanroomd.model.posture import PortGuard, Posture
from cleanroomd.model.steps import ApplyRules, MakeTap, SetLink, Step
from cleanroomd.restore.desired import desired_posture
from cleanroomd.restore.judgement import Judgement, judge, unwatch_steps
from cleanroomd.restore.order import Outline


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
    links = [(guard, _link_step(guard, interfaces[guard.interface])) for guard in posture.ports]
    steps.extend(step for guard, step in links if step is not None and guard.dark)
    missing = [tap for tap in posture.taps if tap.interface not in observed.taps]
    if missing or observed.proof is None or observed.proof.posture != posture:
        if observed.now >= observed.rules_retry_at:
            steps.extend(MakeTap(tap.service, tap.interface) for tap in missing)
            steps.append(ApplyRules(posture))
        else:
            wakes.append(observed.rules_retry_at)
    else:
        steps.extend(step for guard, step in links if step is not None and not guard.dark)
    for name in outline.start_order:
        steps.extend(judgement.services[name].steps)
    for stranger in judgement.strangers.values():
        steps.extend(stranger.steps)
    steps.extend(unwatch_steps(outline, observed))
    return Round(judgement, posture, tuple(steps), min(wakes, default=None))


def _link_step(guard: PortGuard, interface: Interface) -> Step | None:
    wanted = frozenset(str(address) for address in guard.addresses)
    if guard.dark:
        if interface.up or interface.addresses:
            return SetLink(guard.role, guard.interface, up=False)
        return None
    if not interface.up or interface.addresses != wanted:
        return SetLink(guard.role, guard.interface, up=True, addresses=tuple(sorted(wanted)))
    return None
