"""Steps: what the daemon is about to do, as data. Each is complete, printable and safe to repeat."""

from dataclasses import dataclass

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
class SetLink:
    """A physical port up with exactly these addresses, or down without any."""

    role: str
    interface: str
    up: bool
    addresses: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.up:
            return f"keep port {self.role} ({self.interface}) dark"
        return f"bring up port {self.role} ({self.interface}) with {', '.join(self.addresses)}"


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
    | SetLink
    | LaunchMachine
    | RunMachine
    | WatchReadiness
    | UnwatchReadiness
    | DeclareReady
    | FailAttempt
    | SetAside
    | FallBack
    | StopMachine
)
