"""Isolation steps: the rules, their proof, and the links that may only be up under them."""

from collections.abc import Callable
from pathlib import Path

from cleanroomd.errors import CleanroomError
from cleanroomd.isolation import links
from cleanroomd.isolation.netlink import RuleWriter
from cleanroomd.isolation.policy import compile_posture
from cleanroomd.keeper.client import owning_socket
from cleanroomd.machine.launcher import now
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
        self._writer: RuleWriter | None = None
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
        self.proof = proof
        self.problem = ""

    def set_link(self, step: SetLink) -> None:
        links.set_port(step.interface, up=step.up, addresses=step.addresses)

    def make_tap(self, interface: str) -> None:
        links.make_tap(interface)

    def check(self) -> None:
        """Compare the kernel's generation with the proven one; a foreign change is proven anew or voids the proof."""
        proof = self.proof
        if proof is None or self._writer is None:
            return
        try:
            moved = self._writer.generation() != proof.generation
            if not moved and now() - proof.at < _PROVE_AGAIN:
                return
            self.proof = self._writer.prove(proof.posture)
        except CleanroomError as error:
            self.proof = None
            self.foreign_changes += 1
            self._alarm(f"the rules are not ours any more: {error.message}")
            return
        if moved:
            self.foreign_changes += 1
            self._alarm("another process changed the kernel's rules; ours are still as planned")

    def holds(self) -> bool:
        """Whether the proven rules are in force at this very moment."""
        if self.proof is None or self._writer is None:
            return False
        try:
            return self._writer.generation() == self.proof.generation
        except CleanroomError:
            return False

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _connect(self) -> RuleWriter:
        if self._writer is None:
            self._writer = RuleWriter(owning_socket(self._keeper))
        return self._writer

    def _fail(self, message: str) -> None:
        self.problem = message
        self.retry_at = now() + _RETRY
        # The keeper may be another one by now: the next attempt asks it for its socket again.
        self.close()


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
