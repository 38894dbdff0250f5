"""Isolation steps: the rules, their proof, and the links that may only be up under them."""

from collections.abc import Callable
from pathlib import Path

from cleanroomd.clock import now
from cleanroomd.errors import CleanroomError, IsolationError
from cleanroomd.isolation import links
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.keeper.client import Copy, copy_of
from cleanroomd.model.observed import Interface
from cleanroomd.model.posture import Posture, Proof
from cleanroomd.model.steps import SetLink

_RETRY = 2.0
_PROVE_AGAIN = 10.0


class IsolationControl:
    """The rules in force as far as they are known. `alarm(text)` is called for each change that is not ours."""

    def __init__(self, keeper: Path, *, alarm: Callable[[str], None]) -> None:
        self._keeper = keeper
        self._alarm = alarm
        self._copy: Copy | None = None
        self._writer: RuleWriter | None = None
        self._doubtful = False
        """An attempt failed: the keeper's socket may be another one by now."""
        self._orphaned = False
        self.proof: Proof | None = None
        self.problem = ""
        self.retry_at = 0.0
        self.foreign_changes = 0

    def apply(self, posture: Posture) -> None:
        """Put `posture` in force, prove it, then let the taps up that it guards.

        Whatever fails leaves the proof void: nothing starts until a later attempt has succeeded.
        """
        self.proof = None
        try:
            writer = self._connect()
            writer.apply(compile_posture(posture))
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

    def set_link(self, step: SetLink) -> None:
        links.set_port(step.interface, up=step.up, addresses=step.addresses)

    def make_tap(self, interface: str) -> None:
        """A tap that cannot be made keeps the rules from being applied, so that it is why nothing starts."""
        try:
            links.make_tap(interface)
        except CleanroomError as error:
            self._fail(error.message)
            raise

    def check(self) -> None:
        """Compare the kernel's generation with the proven one; a foreign change is proven anew or voids the proof."""
        replaced = self._look_after_the_keeper()
        proof = self.proof
        if proof is None or self._writer is None:
            return
        try:
            moved = self._writer.generation() != proof.generation
            if not moved and not replaced and now() - proof.at < _PROVE_AGAIN:
                return
            self.proof = self._writer.prove(proof.posture)
        except (CleanroomError, OSError) as error:
            self.proof = None
            self._doubtful = True
            self.foreign_changes += 1
            self._alarm(f"the rules are not ours any more: {error}")
            return
        # A keeper that takes the tables over claims them once more, as they are, which counts as a change too.
        if moved and not replaced:
            self.foreign_changes += 1
            self._alarm("another process changed the kernel's rules; ours are still as planned")

    def holds(self) -> bool:
        """Whether the proven rules are in force at this very moment."""
        if self.proof is None or self._writer is None:
            return False
        try:
            return self._writer.generation() == self.proof.generation
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
        self._copy = copy
        # The writer closes its socket; this room keeps one to hand over.
        self._writer = RuleWriter(copy.owning.dup())
        return self._writer

    def _look_after_the_keeper(self) -> bool:
        """A dead keeper's successor gets our copy, as soon as it is there; the rules are ours all the while.

        True if another keeper holds them from now on.
        """
        if self._copy is None or not self._copy.keeper_is_gone():
            return False
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


def interfaces(paths: dict[str, str]) -> tuple[Interface, ...]:
    """The physical interfaces with the udev paths in `paths` (by kernel name) filled in."""
    return tuple(
        Interface(
            name=interface.name,
            mac=interface.mac,
            path=paths[interface.name],
            up=interface.up,
            carrier=interface.carrier,
            addresses=interface.addresses,
        )
        for interface in links.interfaces()
        if interface.name in paths
    )
