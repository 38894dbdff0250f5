"""Steps: what the daemon is about to do, as data. Each is complete, printable and safe to repeat."""

from dataclasses import dataclass

from cleanroomd.model.listening import Found
from cleanroomd.model.plan import StartKind
from cleanroomd.model.posture import Posture


@dataclass(frozen=True, slots=True)
class MakeTap:
    """A persistent tap, down, without an address, before any guard names it."""

    service: str
    interface: str

    def __str__(self) -> str:
        return f"make tap {self.interface} for {self.service}"


@dataclass(frozen=True, slots=True)
class ApplyRules:
    """The whole posture in one batch, read back and compared before anything relies on it."""

    posture: Posture

    def __str__(self) -> str:
        posture = self.posture
        return (
            f"apply and prove the rules: {len(posture.ports)} ports, {len(posture.taps)} taps, "
            f"{len(posture.allowances)} allowances"
        )


@dataclass(frozen=True, slots=True)
class MakeZoneLink:
    """A VLAN sub-interface, down, without an address, before any guard names it; one with another tag is replaced."""

    zone: str
    interface: str
    parent: str
    vlan: int

    def __str__(self) -> str:
        return f"make {self.interface} on {self.parent} for zone {self.zone}, VLAN {self.vlan}"


@dataclass(frozen=True, slots=True)
class RemoveZoneLink:
    """A VLAN sub-interface of ours that no zone needs any more."""

    interface: str

    def __str__(self) -> str:
        return f"remove {self.interface}, which no zone needs"


@dataclass(frozen=True, slots=True)
class SetLink:
    """A port, or its sub-interface, up with exactly these addresses, or down without any."""

    role: str
    interface: str
    up: bool
    addresses: tuple[str, ...] = ()
    found: Found | None = None
    """What listening found, to be kept with the interface for as long as nobody touches the cable."""
    carrier_changes: int = 0
    """Of the interface when it was found."""
    until: float | None = None
    """From this instant on (CLOCK_BOOTTIME seconds) it must not come up any more."""

    def __str__(self) -> str:
        if not self.up:
            return f"keep port {self.role} ({self.interface}) dark"
        if self.found is not None and self.found.foreign:
            return f"keep port {self.role} ({self.interface}) closed: it heard {self.found.foreign}"
        if not self.addresses and self.found is None:
            return f"listen to port {self.role} ({self.interface}), closed"
        return f"bring up port {self.role} ({self.interface}) with {', '.join(self.addresses) or 'its tagged zones'}"


@dataclass(frozen=True, slots=True)
class HoldDeadline:
    """The keeper is to take a link down at `until` (CLOCK_BOOTTIME seconds); None when that is no longer needed.

    A link that leases open is up only while the keeper holds this.
    """

    interface: str
    until: float | None

    def __str__(self) -> str:
        if self.until is None:
            return f"tell the keeper that {self.interface} is dark"
        return f"have the keeper take {self.interface} down at {self.until:.3f}"


@dataclass(frozen=True, slots=True)
class EndLease:
    """Forget a lease that is over; its flows and its link are dealt with by the posture without it."""

    window: str
    until: float
    """Tells it from a later lease on the same window."""
    reason: str

    def __str__(self) -> str:
        return f"close {self.window}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LaunchMachine:
    """QEMU with its guest stopped before the first instruction (-S), on crisis overlays made if absent."""

    service: str
    start: StartKind
    attempt: int
    memory: int
    because: str = ""
    """Why a service that is staged for a warm start is started cold, in words."""

    def __str__(self) -> str:
        cause = f"; {self.because}" if self.because else ""
        return f"launch {self.service} ({self.start}, attempt {self.attempt}, {self.memory >> 20} MiB{cause})"


@dataclass(frozen=True, slots=True)
class RejoinTap:
    """Attach a running machine to its tap that was made anew, once the new one is guarded by proven rules."""

    service: str
    interface: str

    def __str__(self) -> str:
        return f"connect {self.service} again by {self.interface}"


@dataclass(frozen=True, slots=True)
class RunMachine:
    """The durable `ran` mark on its overlays, then the first instruction; only under proven rules."""

    service: str

    def __str__(self) -> str:
        return f"run {self.service}"


@dataclass(frozen=True, slots=True)
class WatchReadiness:
    service: str

    def __str__(self) -> str:
        return f"probe {self.service} until it answers"


@dataclass(frozen=True, slots=True)
class UnwatchReadiness:
    service: str

    def __str__(self) -> str:
        return f"stop probing {self.service}"


@dataclass(frozen=True, slots=True)
class DeclareReady:
    """Record that every probe was answered correctly; the flows open in the next round."""

    service: str
    proof: str

    def __str__(self) -> str:
        return f"declare {self.service} ready: {self.proof}"


@dataclass(frozen=True, slots=True)
class FailAttempt:
    """End an attempt: kill what is left of the machine, keep its overlays, record why."""

    service: str
    reason: str

    def __str__(self) -> str:
        return f"give up this attempt at {self.service}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SetAside:
    """Put the overlays of a service that does not run under a name of their own; nothing is deleted."""

    service: str
    reason: str

    def __str__(self) -> str:
        return f"keep the overlays of {self.service} aside: {self.reason}"


@dataclass(frozen=True, slots=True)
class FallBack:
    """End a warm start that no flow was open to: kill the machine, keep its overlays aside, go on cold."""

    service: str
    reason: str

    def __str__(self) -> str:
        return f"give up the warm start of {self.service}, go on cold: {self.reason}"


@dataclass(frozen=True, slots=True)
class StopMachine:
    """Ask the guest to power down, kill it after `timeout` seconds."""

    service: str
    timeout: float

    def __str__(self) -> str:
        return f"stop {self.service}, gracefully for up to {self.timeout:.0f} s"


Step = (
    MakeTap
    | ApplyRules
    | MakeZoneLink
    | RemoveZoneLink
    | SetLink
    | HoldDeadline
    | EndLease
    | LaunchMachine
    | RejoinTap
    | RunMachine
    | WatchReadiness
    | UnwatchReadiness
    | DeclareReady
    | FailAttempt
    | SetAside
    | FallBack
    | StopMachine
)
