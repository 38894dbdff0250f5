"""Leases as an operator asks for them, with every refusal in words, and as they end."""

from cleanroomd.clock import now
from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.errors import ControlError
from cleanroomd.model.observed import Lease, MachinePhase
from cleanroomd.model.plan import UPLINK, Window
from cleanroomd.model.steps import EndLease
from cleanroomd.model.units import format_duration
from cleanroomd.restore.leases import end_of, words

SHORTEST = 5.0
"""Seconds; less is over before anybody could have used it."""
LONGEST_REASON = 200
"""Characters."""


async def open_lease(effects: Effects, window: str, seconds: float, untrusted_reason: str, author: str) -> str:
    """Record a lease from now on; ControlError says what it is refused for. The sentence is for whoever asked."""
    planned = _window(effects, window)
    reason = _checked_reason(planned, untrusted_reason)
    _check_duration(planned, seconds)
    _check_moment(effects, planned)
    opened_at = now()
    lease = Lease(window, opened_at, round(opened_at + seconds, 3), reason, author)
    lasting = format_duration(seconds)
    effects.journal.record(
        Event.OPERATOR,
        f"{author} opened the uplink for {window}, {words(planned)}, for {lasting}: {reason}",
        window=window,
        author=author,
        reason=reason,
        until=lease.until,
    )
    await effects.record.set_lease(lease)
    return f"{window} is being opened for {lasting}: {words(planned)}; it closes by itself"


async def close_leases(effects: Effects, window: str | None, author: str) -> str:
    """Forget the lease on `window`, or all; that nothing is open is no error, since it is what was asked for."""
    if window is not None:
        _window(effects, window)
    names = [name for name in effects.record.leases if window in (None, name)]
    if not names:
        return "the uplink is dark already" if window is None else f"{window} is not open"
    for name in names:
        effects.journal.record(Event.OPERATOR, f"{author} closed the uplink for {name}", window=name, author=author)
    await effects.record.drop_leases(names)
    return f"{', '.join(names)} is being closed"


def end_lease(step: EndLease, effects: Effects) -> None:
    lease = effects.record.leases.get(step.window)
    if lease is None or lease.until != step.until:
        return
    effects.journal.record(
        Event.ISOLATION,
        f"{step.window} is closed again: {step.reason}; {lease.author} had opened it: {lease.reason}",
        window=step.window,
        author=lease.author,
        reason=lease.reason,
    )
    effects.record.drop_lease_soon(step.window)


def _window(effects: Effects, name: str) -> Window:
    windows = {window.name: window for window in effects.outline.plan.windows}
    if name in windows:
        return windows[name]
    raise ControlError(
        f"cannot find a window {name[:64]!r}: the plan has none of that name",
        f"the plan has {', '.join(windows)}" if windows else "declare a [[window]] in the plan first",
    )


def _checked_reason(window: Window, untrusted_reason: str) -> str:
    reason = untrusted_reason.strip()
    if reason and len(reason) <= LONGEST_REASON and reason.isprintable():
        return reason
    raise ControlError(
        f"cannot open {window.name}: it needs a reason, of at most {LONGEST_REASON} printable characters",
        'say why, as in --reason "laboratory results of the night"; it is kept in the journal',
    )


def _check_duration(window: Window, seconds: float) -> None:
    # Written so that what is no number at all is refused too.
    if not seconds >= SHORTEST:
        raise ControlError(f"cannot open {window.name}: {SHORTEST:.0f} s is the shortest time", "ask for longer")
    if not seconds <= window.longest:
        longest = format_duration(window.longest)
        raise ControlError(
            f"cannot open {window.name}: the plan allows {longest} at most", f"ask for {longest}, and again afterwards"
        )


def _check_moment(effects: Effects, window: Window) -> None:
    """Whether it may be opened just now."""
    if effects.drill:
        raise ControlError(
            f"cannot open {window.name}: this is an exercise, in which the uplink never opens",
            "restart cleanroomd without --drill when this is no exercise any more",
        )
    lease = effects.record.leases.get(window.name)
    if lease is not None and (left := end_of(window, lease) - now()) > 0:
        raise ControlError(
            f"cannot open {window.name}: {lease.author} has opened it already, for another {format_duration(left)}",
            f"`cleanroomctl uplink close {window.name}` first, if that is too short",
        )
    isolation = effects.isolation
    if isolation.proof is None or isolation.problem or isolation.guard.breach:
        raise ControlError(
            f"cannot open {window.name}: isolation is not proven",
            "`cleanroomctl status` says why, and what to do; the uplink stays dark until then",
        )
    posture = isolation.proof.posture
    if not any(port.role == UPLINK for port in posture.ports):
        raise ControlError(
            f"cannot open {window.name}: port {UPLINK} is not there", "check the enclosure's network card"
        )
    card = effects.outline.cards.get(window.origin)
    if card is None:
        return
    machine = effects.launcher.facts().get(card[0].name)
    if machine is None or machine.phase is not MachinePhase.RUNNING or machine.ready_at is None:
        raise ControlError(
            f"cannot open {window.name}: {card[0].name}, which connects, is not ready",
            f"open it once `cleanroomctl status` says that {card[0].name} is ready",
        )
