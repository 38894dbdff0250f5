"""Isolation steps: the rules, their proof, and the links that may only be up under them."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cleanroomd.clock import now
from cleanroomd.engine.alarms import Tell
from cleanroomd.engine.guarding import Guard
from cleanroomd.errors import CleanroomError, IsolationError
from cleanroomd.hardware.udev import network_devices
from cleanroomd.isolation import links
from cleanroomd.isolation.counts import DeniedFlow, denied_flows, denied_pairs
from cleanroomd.isolation.denials import Denials, Denied
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.isolation.processes import Process
from cleanroomd.isolation.ruleset import Tally
from cleanroomd.keeper.client import Copy, copy_of, deadline_at
from cleanroomd.model.observed import Deadline, Interface
from cleanroomd.model.posture import Posture, Proof
from cleanroomd.model.steps import HoldDeadline, MakeZoneLink, RemoveZoneLink, SetLink

_RETRY = 2.0
_PROVE_AGAIN = 10.0
_TELL_DENIALS = 5.0
_LONGEST_REST = 1.0
"""Seconds between two comparisons at most; otherwise as long as the one before took."""


class IsolationControl:
    """The rules in force as far as they are known.

    `alarm(text, **fields)` is called for each change that is not ours.
    """

    def __init__(self, keeper: Path, *, alarm: Tell) -> None:
        self._keeper = keeper
        self._alarm = alarm
        self.guard = Guard(alarm)
        self._not_before = 0.0
        self._copy: Copy | None = None
        self._writer: RuleWriter | None = None
        self._doubtful = False
        """An attempt failed: the keeper's socket may be another one by now."""
        self._orphaned = False
        self.proof: Proof | None = None
        self.problem = ""
        self.retry_at = 0.0
        self.deadline: Deadline | None = None
        """What the keeper holds, as far as it said."""
        self.deadline_retry_at = 0.0
        self.zone_problems: dict[str, str] = {}
        """Sub-interfaces that cannot be made -> why."""
        self._denials = Denials()
        self._denials_at = 0.0
        self._guards: dict[str, int] = {}
        self._denied = Denied({}, {}, {})

    @property
    def writer(self) -> RuleWriter | None:
        """To read with; None while there is no way to the rules."""
        return self._writer

    def apply(self, posture: Posture) -> None:
        """Put `posture` in force, prove it, then let the taps up that it guards.

        Whatever fails leaves the proof void: nothing starts until a later attempt has succeeded.
        """
        self.proof = None
        try:
            writer = self._connect()
            writer.apply(compile_posture(posture))
            self.guard.say(Counter(), *self.guard.remove_tables(writer), "")
            proof = writer.prove(posture)
            links.enable_forwarding()
            for tap in posture.taps:
                links.attach_tap(tap)
        except CleanroomError as error:
            self._fail(error.message)
            raise
        except OSError as error:
            failure = IsolationError(f"cannot apply the rules: {error.strerror or error}")
            self._fail(failure.message)
            raise failure from error
        self.proof = proof
        self.problem = ""
        self._doubtful = False
        self.guard.in_force(posture, proof.generation)

    @property
    def foreign_changes(self) -> int:
        return self.guard.alarms.count

    def hold(self, step: HoldDeadline) -> None:
        """The keeper takes the link down at its deadline; until it has said so, the link stays dark."""
        self.deadline = None
        try:
            if step.until is None:
                self.deadline = deadline_at(self._keeper, interface=step.interface)
            else:
                self.deadline = deadline_at(self._keeper, hold=Deadline(step.interface, step.until))
        except IsolationError:
            self.deadline_retry_at = now() + _RETRY
            raise

    def set_link(self, step: SetLink) -> None:
        """Up only before its end: this process may have been stopped since the step was decided."""
        if step.up and step.until is not None and now() >= step.until:
            raise IsolationError(f"cannot bring up port {step.role}: its time is over")
        links.set_port(
            step.interface,
            up=step.up,
            addresses=step.addresses,
            found=step.found,
            carrier_changes=step.carrier_changes,
        )

    def make_zone_link(self, step: MakeZoneLink) -> None:
        """One that cannot be made keeps its own zones closed, and nothing else."""
        try:
            links.make_zone_link(step.interface, parent=step.parent, vlan=step.vlan)
        except CleanroomError as error:
            self.zone_problems[step.interface] = error.message
            raise
        self.zone_problems.pop(step.interface, None)

    def remove_zone_link(self, step: RemoveZoneLink) -> None:
        links.remove_zone_link(step.interface)

    def make_tap(self, interface: str) -> None:
        """A tap that cannot be made keeps the rules from being applied, so that it is why nothing starts."""
        try:
            links.make_tap(interface)
        except CleanroomError as error:
            self._fail(error.message)
            raise

    def check(self) -> None:
        """Compare the rules in force with the proven ones; whatever is not ours is undone, or voids the proof."""
        replaced = self._look_after_the_keeper()
        writer = self._writer
        began = now()
        if writer is None:
            return
        if began < self._not_before:
            self.guard.wake_at(self._not_before)
            return
        self._not_before = 0.0
        try:
            generation = writer.generation()
            if replaced:
                self.guard.explained(generation)
            culprits = self.guard.who_changed(generation)
            self._compare(writer, culprits, look=replaced or bool(culprits))
            if culprits:
                # A storm of foreign changes gets a share of the loop's time, and not all of it.
                self._not_before = now() + min(_LONGEST_REST, now() - began)
            if self.proof is not None:
                self.guard.look_around()
        except (CleanroomError, OSError) as error:
            self._distrust(f"the rules cannot be looked at: {error}")

    def _compare(self, writer: RuleWriter, culprits: Counter[Process], *, look: bool) -> None:
        """Prove anew what may have changed, and take out what others added."""
        proof, broken = self.proof, ""
        if proof is not None:
            if not self.guard.same_devices():
                self.proof = proof = None
            elif look or now() - proof.at >= _PROVE_AGAIN or writer.generation() != proof.generation:
                try:
                    self.proof = writer.prove(proof.posture)
                except IsolationError as error:
                    broken = error.message
                    self._distrust(broken)
        removed, left = self.guard.remove_tables(writer) if look or self.proof is not proof else ([], {})
        if removed and self.proof is not None:
            # Ours are as they were a moment ago; only the generation has moved.
            self.proof = writer.prove(self.proof.posture)
        self.guard.say(culprits, removed, left, broken)

    def _distrust(self, why: str) -> None:
        self.proof = None
        self._doubtful = True
        self._alarm(f"the rules are not ours any more: {why}")

    def denials(self) -> list[str]:
        """What was denied since it was told last, a few lines at most; [] most of the time, and without rules."""
        proof, writer = self.proof, self._writer
        if proof is None or writer is None or now() < self._denials_at:
            return []
        self._denials_at = now() + _TELL_DENIALS
        try:
            guards = writer.denied()
            if guards == self._guards:
                return self._denials.lines(self._denied, proof.posture, now())
            self._guards = guards
            self._denied = Denied(guards, denied_pairs(writer), denied_flows(writer))
        except (CleanroomError, OSError):
            # Whoever checks the rules says what is wrong with them.
            return []
        return self._denials.lines(self._denied, proof.posture, now())

    def denied_flows(self) -> Mapping[DeniedFlow, Tally]:
        """The connections that were asked for in vain; IsolationError while there are no rules."""
        if self._writer is None:
            raise IsolationError("cannot read what was denied: there are no rules yet", "wait until they are proven")
        return denied_flows(self._writer)

    def holds(self) -> bool:
        """Whether the proven rules are in force at this very moment."""
        if self.proof is None or self._writer is None:
            return False
        try:
            same = self._writer.generation() == self.proof.generation
            return same and not self.guard.breach and self.guard.still_the_same()
        except (CleanroomError, OSError):
            return False

    def close(self) -> None:
        if self._copy is not None and self._writer is not None:
            self._writer.close()
            self._copy.close()
        self._copy = self._writer = None

    def _connect(self) -> RuleWriter:
        """Ours, unless the keeper has a newer one.

        Ours is never closed before another is at hand: while the keeper is dead it is the only one, and closing
        it would leave the tables to anyone, on kernels before 6.9 even remove them.
        """
        writer = self._writer
        if writer is None or self._doubtful:
            try:
                return self._take(copy_of(self._keeper, ours=self._copy.owning if self._copy else None))
            except IsolationError:
                if writer is None:
                    raise
        return writer

    def _take(self, copy: Copy) -> RuleWriter:
        self.close()
        self.deadline = None
        self._copy = copy
        # The writer closes its socket; this room keeps one to hand over.
        self._writer = RuleWriter(copy.owning.dup())
        with suppress(IsolationError):
            self.deadline, self.deadline_retry_at = deadline_at(self._keeper), 0.0
        self.guard.owned_by(self._writer.port)
        return self._writer

    def _look_after_the_keeper(self) -> bool:
        """A dead keeper's successor gets our copy, as soon as it is there; the rules are ours all the while.

        True if another keeper holds them from now on.
        """
        if self._copy is None or not self._copy.keeper_is_gone():
            return False
        self.deadline = None
        if not self._orphaned:
            self._orphaned = True
            self._alarm("the keeper of the rules is gone; they stay in force while this daemon holds them")
        try:
            self._take(copy_of(self._keeper, ours=self._copy.owning))
        except IsolationError:
            return False
        self._orphaned = False
        self._alarm("a new keeper holds the rules")
        return True

    def _fail(self, message: str) -> None:
        self.problem = message
        self.retry_at = now() + _RETRY
        self._doubtful = True


def links_in_sight() -> tuple[tuple[Interface, ...], frozenset[str]]:
    """The Ethernet interfaces, with what udev calls the place where each is plugged in, and the taps."""
    found, taps = links.look()
    paths = {device.name: device.path for device in network_devices(interface.name for interface in found)}
    ports = (replace(each, path=paths[each.name]) for each in found if each.name in paths)
    return tuple(ports), taps
