"""An enclosure in thought: the pure core drives it, chance answers. Every transition is checked.

Long steps end when chance says so, well or badly, in any order; daemons are killed in the middle of them, power
fails, disks come and go, rules are changed by others, operators and stagers interfere. What holds at each moment is
checked at that moment (`check_*`), in the words of the design.
"""

import random
from dataclasses import dataclass, replace

from cleanroomd.engine.apply import LongStep
from cleanroomd.model.listening import Heard
from cleanroomd.model.observed import (
    Capacity,
    Deadline,
    DiskFacts,
    Failure,
    Fallback,
    Intent,
    Interface,
    Lease,
    MachineFacts,
    MachinePhase,
    Observed,
    OverlayFacts,
    ProbeFacts,
    WarmFacts,
)
from cleanroomd.model.plan import Plan, StartKind
from cleanroomd.model.posture import Posture
from cleanroomd.model.status import RunState, ServiceState
from cleanroomd.model.steps import (
    ApplyRules,
    DeclareReady,
    FailAttempt,
    FallBack,
    HoldDeadline,
    LaunchMachine,
    MakeTap,
    MakeZoneLink,
    RunMachine,
    SetAside,
    SetLink,
    Step,
    StopMachine,
)
from cleanroomd.restore.desired import guards
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import Round, reconcile
from cleanroomd.restore.rehearsal import outcome
from cleanroomd.restore.report import report, run_state

from .plans import UPLINK, observed

RETRY = 2.0
SETTLED = {RunState.RESTORED, RunState.DEGRADED, RunState.HALTED, RunState.STOPPED}
ENDING = FailAttempt | FallBack | StopMachine


@dataclass
class Cable:
    quiet_since: float | None
    """When it was plugged in, or a stranger was heard last; None while nothing is plugged in."""
    plugged_at: float = 0.0
    foreign: bool = False
    """It leads to a network of somebody else, and that was heard."""
    opened: bool = True


class Enclosure:
    """One enclosure over several daemons and power-ons; `rng` decides all that is not the pure core's to decide."""

    def __init__(
        self, plan: Plan, rng: random.Random, *, memory: int, slots: int, overhead: int, faults: float
    ) -> None:
        self.rng = rng
        self.faults = faults
        """How likely a step fails, or a machine never answers, from 0 to 1."""
        self.outline = Outline(plan)
        warm = {
            service.name: WarmFacts(rng.choice(["", "", "made for another machine"]))
            for service in plan.services
            if rng.random() < 0.8
        }
        begin = observed(plan, memory=memory, slots=slots)
        self.seen = replace(begin, warm=warm, capacity=Capacity(memory, slots, overhead))
        self.log: list[str] = []
        self.deaf: set[str] = set()
        """Services whose machine, as it runs now, never answers."""
        self.begun: dict[str, Outline] = {}
        """The plan in force when the step of a service that is under way began."""
        self.fallbacks: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.keeper = True
        """The keeper lives; what it holds is `promised`."""
        self.promised: Deadline | None = None
        self.leased: dict[str, float] = {}
        """Window -> the end that its lease was opened with."""
        self.cable = Cable(self.seen.now, self.seen.now)
        """The truth about what is plugged into the care port."""

    # What happens -----------------------------------------------------------------------------------------------

    def settle(self) -> Round:
        """Rounds, until one has nothing to do; ends, or the loop would spin for ever."""
        for _ in range(12):
            turn = reconcile(self.outline, self.seen)
            self.check_turn(turn)
            if not turn.steps:
                assert reconcile(self.outline, self.seen).steps == (), "replanning after apply is empty"
                self.check_uplink(settled=True)
                self.check_strays(turn.posture)
                self.check_patience(turn)
                return turn
            for step in turn.steps:
                self.take(step)
                self.check_uplink()
        raise AssertionError(f"no end of steps: {turn.steps}")

    def take(self, step: Step) -> None:
        self.log.append(f"{self.seen.now:.1f} {step}")
        self.check_step(step)
        if isinstance(step, LongStep):
            self.seen = replace(self.seen, busy={**self.seen.busy, step.service: step})
            self.begun[step.service] = self.outline
        elif isinstance(step, ApplyRules) and self.rng.random() < self.faults / 2:
            problem = {"proof": None, "isolation_problem": "cannot apply", "rules_retry_at": self.seen.now + RETRY}
            self.seen = replace(self.seen, **problem)  # type: ignore[arg-type]
        elif isinstance(step, HoldDeadline) and (not self.keeper or self.rng.random() < self.faults / 2):
            self.seen = replace(self.seen, deadline=None, deadline_retry_at=self.seen.now + RETRY)
        else:
            self.become(outcome(self.outline, step, self.seen))
            if isinstance(step, SetLink) and step.found is not None:
                self.mark(step.interface)
            if isinstance(step, SetLink) and step.interface == "care0" and not step.up and self.cable.quiet_since:
                # A link that was down is another cable as far as anybody can tell: it is listened to anew.
                self.cable = Cable(self.seen.now, self.seen.now, opened=False)
            if isinstance(step, SetLink) and self.cable.quiet_since is None and self.care().carrier:
                self.see_care(carrier=False)
            if isinstance(step, ApplyRules):
                # A daemon that connects to its keeper asks what that one holds.
                held = self.promised if self.keeper else None
                self.seen = replace(self.seen, isolation_problem="", deadline=self.seen.deadline or held)
            if isinstance(step, HoldDeadline):
                self.promised = self.seen.deadline

    def become(self, after: Observed) -> None:
        self.check_overlays(self.seen, after)
        self.seen = after

    def finish(self, name: str, *, well: bool) -> None:
        """The long step that is under way for `name` ends."""
        step = self.seen.busy[name]
        self.seen = replace(self.seen, busy={key: value for key, value in self.seen.busy.items() if key != name})
        self.log.append(f"{self.seen.now:.1f} {'done' if well else 'failed'}: {step}")
        if well:
            self.account(step)
            self.deaf.discard(name)
            if isinstance(step, RunMachine) and self.rng.random() < self.faults:
                self.deaf.add(name)
            self.become(outcome(self.begun[name], step, self.seen))
            return
        # As the engine does: a launch or a first instruction that fails ends the attempt, or the warm start.
        machine = self.seen.machines.get(name)
        if isinstance(step, RunMachine):
            self.become(replace(self.seen, overlays=self.marked(name)))
        start = step.start if isinstance(step, LaunchMachine) else machine.start if machine else StartKind.COLD
        if isinstance(step, LaunchMachine | RunMachine):
            ended = (FallBack if start is StartKind.WARM else FailAttempt)(name, "it failed")
            self.account(ended)
            self.become(outcome(self.outline, ended, self.seen))

    def account(self, step: Step) -> None:
        match step:
            case FailAttempt(service=name):
                self.failures[name] = self.failures.get(name, 0) + 1
            case FallBack(service=name):
                self.fallbacks[name] = self.fallbacks.get(name, 0) + 1
            case DeclareReady(service=name):
                self.forgive(name)

    def forgive(self, name: str) -> None:
        self.failures[name] = self.fallbacks[name] = 0

    def marked(self, name: str) -> dict[str, OverlayFacts]:
        machine = self.seen.machines.get(name)
        cold = machine is None or machine.start is StartKind.COLD
        before = self.seen.overlays.get(name, OverlayFacts())
        return {**self.seen.overlays, name: replace(before, exists=True, marked=True, opened=before.opened or cold)}

    def answer(self, name: str, *, ok: bool) -> None:
        facts = ProbeFacts(ok=ok, detail="answered" if ok else "no answer", at=self.seen.now)
        self.seen = replace(self.seen, probes={**self.seen.probes, name: facts})

    def die(self, name: str) -> None:
        self.log.append(f"{self.seen.now:.1f} {name} dies")
        dead = replace(self.seen.machines[name], phase=MachinePhase.DEAD, death="QEMU ended")
        self.seen = replace(self.seen, machines={**self.seen.machines, name: dead})

    def restart(self) -> None:
        """The daemon is killed in the middle of whatever it does; the next one finds what is there."""
        self.log.append(f"{self.seen.now:.1f} daemon killed")
        for name in list(self.seen.busy):
            self.break_off(name)
        machines = {
            name: replace(machine, adopted_at=self.seen.now)
            for name, machine in self.seen.machines.items()
            if machine.phase is not MachinePhase.DEAD
        }
        self.seen = replace(self.seen, machines=machines, probes={}, watched=frozenset(), proof=None, busy={}, heard={})
        self.seen = replace(self.seen, deadline=None, isolation_problem="")
        if not self.cable.opened and self.cable.quiet_since is not None:
            self.cable.quiet_since = self.cable.plugged_at = self.seen.now
        if self.care().up and self.care().carrier:
            self.seen = replace(self.seen, heard={"care0": Heard(self.care().carrier_changes, self.seen.now)})

    def break_off(self, name: str) -> None:
        """Each step leaves what it had done when the daemon was killed."""
        step = self.seen.busy[name]
        self.seen = replace(self.seen, busy={key: value for key, value in self.seen.busy.items() if key != name})
        how_far = self.rng.random()
        if how_far > 0.7:
            self.finish_silently(step)
        elif isinstance(step, RunMachine) and how_far > 0.3:
            self.become(replace(self.seen, overlays=self.marked(name)))
        elif isinstance(step, DeclareReady) and how_far > 0.3:
            before = self.seen.overlays[name]
            self.become(replace(self.seen, overlays={**self.seen.overlays, name: replace(before, opened=True)}))
        elif isinstance(step, FailAttempt) and how_far > 0.3:
            failures = (*self.seen.failures.get(name, ()), Failure(self.seen.now, step.reason))
            self.failures[name] = self.failures.get(name, 0) + 1
            self.seen = replace(self.seen, failures={**self.seen.failures, name: failures})
        elif isinstance(step, FallBack):
            incomplete = Fallback(step.reason, complete=False)
            self.seen = replace(self.seen, fallbacks={**self.seen.fallbacks, name: incomplete})
            if how_far > 0.4:
                self.become(outcome(self.outline, StopMachine(name, 0.0), self.seen))
            if how_far > 0.55:
                self.become(outcome(self.outline, SetAside(name, ""), self.seen))

    def finish_silently(self, step: Step) -> None:
        self.account(step)
        self.become(outcome(self.begun[step.service], step, self.seen))

    def cut_power(self) -> None:
        self.log.append(f"{self.seen.now:.1f} power cut")
        self.restart()
        self.failures.clear()
        self.fallbacks.clear()
        self.keeper, self.promised = True, None
        self.darken(UPLINK.name)
        self.seen = replace(self.seen, leases={}, deadline=None)
        self.seen = replace(self.seen, interfaces=tuple(each for each in self.seen.interfaces if each.vlan is None))
        self.see_care(carrier=False, up=False)
        # Plugged in or not: it is found when the port comes up.
        self.cable = Cable(self.seen.now, self.seen.now, opened=False)
        bare = tuple(replace(each, marked=False) for each in self.seen.interfaces)
        self.seen = replace(self.seen, interfaces=bare)
        self.seen = replace(
            self.seen, machines={}, taps=frozenset(), failures={}, fallbacks={}, intents={}, power_on=self.seen.now
        )

    def ask(self, names: frozenset[str], intent: Intent) -> None:
        self.log.append(f"{self.seen.now:.1f} {intent} {sorted(names)}")
        self.seen = replace(self.seen, intents={**self.seen.intents, **dict.fromkeys(names, intent)})
        if intent is Intent.RUN:
            for name in names:
                self.forgive(name)
            unfinished = {name: each for name, each in self.seen.fallbacks.items() if not each.complete}
            kept = {name: each for name, each in self.seen.fallbacks.items() if name not in names}
            failures = {name: each for name, each in self.seen.failures.items() if name not in names}
            self.seen = replace(self.seen, failures=failures, fallbacks={**kept, **unfinished})

    def take_plan(self, plan: Plan) -> None:
        self.log.append(f"{self.seen.now:.1f} another plan")
        self.outline = Outline(plan)
        disks = {disk.name: DiskFacts(disk.name) for service in plan.services for disk in service.disks}
        self.seen = replace(self.seen, disks={**disks, **self.seen.disks}, watched=frozenset(), probes={})

    def lose_disk(self, name: str, *, lost: bool) -> None:
        problem = "cannot be read: Input/output error" if lost else ""
        self.seen = replace(self.seen, disks={**self.seen.disks, name: DiskFacts(name, problem)})

    def unplug(self) -> None:
        self.log.append(f"{self.seen.now:.1f} cable out")
        self.cable = Cable(None, opened=False)
        self.see_care(carrier=False)

    def plug(self) -> None:
        """Another cable, or the same one in another place."""
        self.log.append(f"{self.seen.now:.1f} cable in")
        self.cable = Cable(self.seen.now, self.seen.now, opened=False)
        self.see_care(carrier=True)
        changes = self.care().carrier_changes
        self.seen = replace(self.seen, heard={"care0": Heard(changes, self.seen.now)} if self.care().up else {})

    def clone(self, of: Interface) -> None:
        """A second card with the MAC of a port comes, or goes."""
        twin = Interface(f"{of.name}-twin", of.mac)
        others = tuple(each for each in self.seen.interfaces if each.name != twin.name)
        come = len(others) == len(self.seen.interfaces)
        self.log.append(f"{self.seen.now:.1f} {twin.name} {'comes' if come else 'goes'}")
        self.seen = replace(self.seen, interfaces=(*others, twin) if come else others)

    def mark(self, interface: str) -> None:
        """The alias stays, whatever becomes of the cable."""
        marked = (replace(each, marked=each.marked or each.name == interface) for each in self.seen.interfaces)
        self.seen = replace(self.seen, interfaces=tuple(marked))

    def hear(self, *, router: bool) -> None:
        heard = self.seen.heard.get("care0")
        if heard is None or not self.care().carrier or heard.carrier_changes != self.care().carrier_changes:
            return
        self.log.append(f"{self.seen.now:.1f} hears {'a router' if router else 'a stranger'}")
        if router:
            self.cable.foreign = True
            self.seen = replace(self.seen, heard={"care0": replace(heard, router="a router")})
        else:
            self.cable.quiet_since = self.seen.now
            changed = replace(heard, stranger="a stranger", stranger_at=self.seen.now)
            self.seen = replace(self.seen, heard={"care0": changed})

    def care(self) -> Interface:
        return next(each for each in self.seen.interfaces if each.name == "care0")

    def see_care(self, *, carrier: bool, up: bool | None = None) -> None:
        """The kernel sees a change of the carrier, and what listening found of the cable before is void."""
        before = self.care()
        after = replace(
            before,
            up=before.up if up is None else up,
            carrier=carrier,
            carrier_changes=before.carrier_changes + 1,
            found=None,
        )
        others = (each for each in self.seen.interfaces if each.name != "care0")
        self.seen = replace(self.seen, interfaces=(after, *others), heard={})

    def lease(self, window: str, seconds: float) -> None:
        """As the operator does: refused while one is open."""
        self.log.append(f"{self.seen.now:.1f} lease of {window} for {seconds}")
        if window not in self.seen.leases:
            until = round(self.seen.now + seconds, 3)
            self.leased[window] = until
            lease = Lease(window, self.seen.now, until, "because", "somebody")
            self.seen = replace(self.seen, leases={**self.seen.leases, window: lease})

    def close(self, window: str) -> None:
        self.log.append(f"{self.seen.now:.1f} close {window}")
        self.seen = replace(self.seen, leases={key: each for key, each in self.seen.leases.items() if key != window})

    def lose_keeper(self) -> None:
        """It ends, and what it holds stays in its file."""
        self.log.append(f"{self.seen.now:.1f} the keeper {'ends' if self.keeper else 'begins'}")
        self.keeper = not self.keeper
        self.seen = replace(self.seen, deadline=self.promised if self.keeper else None, deadline_retry_at=0.0)
        self.keep()

    def pass_time(self, seconds: float) -> None:
        self.seen = replace(self.seen, now=self.seen.now + seconds)
        self.keep()

    def keep(self) -> None:
        """The keeper does what is due, whoever else is dead."""
        due = self.promised
        if not self.keeper or due is None or self.seen.now < due.until:
            return
        self.log.append(f"{self.seen.now:.1f} the keeper takes {due.interface} down")
        self.darken(due.interface)
        self.promised = None

    def darken(self, interface: str) -> None:
        dark = tuple(
            replace(each, up=False, addresses=frozenset()) if each.name == interface else each
            for each in self.seen.interfaces
        )
        self.seen = replace(self.seen, interfaces=dark)

    def change_rules(self) -> None:
        """Somebody else did."""
        self.seen = replace(self.seen, proof=None)

    def calm(self) -> Round:
        """No more faults; machines answer, or do not, as chance has it for each. Ends when nothing can change."""
        for _ in range(600):
            turn = self.settle()
            if self.seen.busy:
                self.finish(next(iter(self.seen.busy)), well=True)
                continue
            booting = [
                name
                for name, machine in self.seen.machines.items()
                if machine.phase is MachinePhase.RUNNING and machine.ready_at is None and name not in self.deaf
            ]
            answers = [name for name in booting if name in self.seen.watched]
            if answers:
                self.seen = replace(self.seen, now=self.seen.now + 1.0)
                self.answer(answers[0], ok=True)
            elif turn.wake_at is not None:
                self.seen = replace(self.seen, now=max(self.seen.now + 0.001, turn.wake_at))
            else:
                return turn
        raise AssertionError("every run ends")

    # What holds -------------------------------------------------------------------------------------------------

    def check_turn(self, turn: Round) -> None:
        judgement = turn.judgement
        grants = judgement.admission.grants
        coming = self.coming()
        slots = max(1, self.seen.capacity.slots)
        for name, judged in judgement.services.items():
            assert judged.reason, "always with a reason"
            if judged.reason.startswith("waits for a start slot"):
                launching = sum(isinstance(step, LaunchMachine) and step.start is StartKind.COLD for step in turn.steps)
                assert len(coming) + launching >= slots, "slots never idle while something may start"
            if judged.reason.startswith("waiting for memory"):
                new = sum(step.memory + self.overhead for step in turn.steps if isinstance(step, LaunchMachine))
                needed = grants[name].memory + self.overhead
                assert self.held() + new + needed > self.seen.capacity.memory, "waits for memory that is there"
        status = report(self.outline, self.seen, turn, unsealed=True)
        assert {service.name for service in status.services} == set(self.outline.services) | set(judgement.strangers)
        assert run_state(self.outline, judgement) is status.state
        # Whoever could start does, unless somebody of a higher priority could use what it would take.
        for step in turn.steps:
            if isinstance(step, LaunchMachine):
                before = self.outline.start_order[: self.outline.start_order.index(step.service)]
                for other in before:
                    waits = judgement.services[other].reason
                    assert not waits.startswith("waiting for memory"), "memory goes by priority"
                    if step.start is StartKind.COLD:
                        assert not waits.startswith("waits for a start slot"), "no priority inversion"

    def check_step(self, step: Step) -> None:
        seen, outline = self.seen, self.outline
        match step:
            case LaunchMachine(service=name):
                service = outline.services[name]
                for other in service.depends_on:
                    assert self.is_ready(other), "no start before its dependencies"
                assert name not in seen.machines, "two QEMUs never have one disk"
                assert name not in seen.busy
                assert all(not seen.disks[disk.name].problem for disk in service.disks)
                assert self.held() + step.memory + self.overhead <= seen.capacity.memory, "memory never exceeded"
                assert step.memory in (service.memory, service.memory_min)
                assert step.attempt == self.failures.get(name, 0) + 1, "attempts are counted"
                assert step.attempt <= service.retries + 1
                failures = seen.failures.get(name, ())
                if failures:
                    pause = min(60.0, 2.0 * 2.0 ** (len(failures) - 1))
                    assert seen.now >= failures[-1].at + pause, "retries back off"
                assert seen.intents.get(name, Intent.RUN) is Intent.RUN
                if step.start is StartKind.COLD:
                    assert len(self.coming()) < max(1, seen.capacity.slots), "slots never exceeded"
                else:
                    self.check_warm(step)
            case RunMachine(service=name):
                machine = seen.machines[name]
                assert machine.phase is MachinePhase.PAUSED
                assert seen.proof is not None
                guarded = {(tap.interface, tap.mac, tap.address) for tap in seen.proof.posture.taps}
                for tap in guards(outline, seen, name):
                    assert (tap.interface, tap.mac, tap.address) in guarded, "its own tap is proven"
                    assert tap.interface in seen.taps
            case ApplyRules(posture=posture):
                owners = {tap.interface: tap.service for tap in posture.taps}
                for allowance in posture.allowances:
                    if allowance.origin:
                        assert self.is_ready(owners[allowance.target]), "flows only at ready"
                        assert seen.overlays[owners[allowance.target]].opened
                self.check_ports(posture)
                self.check_passages(posture)
                assert len(set(owners)) == len(posture.taps)
            case StopMachine(service=name):
                wanted = seen.intents.get(name) is Intent.STOP or name not in outline.services
                assert wanted, "a verdict never stops a service that can run"
                if name in outline.services:
                    for other in outline.dependants[name]:
                        stopping = other in seen.machines and seen.intents.get(other) is Intent.STOP
                        assert not stopping, "stopping goes in reverse order"
            case FailAttempt(service=name) | FallBack(service=name):
                machine = seen.machines.get(name)
                if isinstance(step, FallBack) and machine is None:
                    assert not seen.fallbacks[name].complete
                elif machine is not None and machine.phase is not MachinePhase.DEAD:
                    interrupted = name in seen.fallbacks and not seen.fallbacks[name].complete
                    patience = outline.services[name].ready_timeout
                    patience = min(30.0, patience) if machine.start is StartKind.WARM else patience
                    assert interrupted or seen.now >= (machine.running_at or 0.0) + patience
                    assert machine.ready_at is None, "what was ready is never ended for its silence"
                if isinstance(step, FailAttempt) and machine is not None and machine.start is StartKind.WARM:
                    assert machine.ready_at is not None or seen.overlays[name].opened, "a warm start falls back"
            case MakeTap(interface=interface) | MakeZoneLink(interface=interface):
                assert len(interface) <= 15
            case SetLink(role="uplink", up=True):
                self.check_opening(step)
            case SetLink(addresses=addresses):
                assert not addresses or (seen.proof is not None and self.cable.opened and not self.cable.foreign)

    def check_ports(self, posture: Posture) -> None:
        """A port passes nothing, and has no address, before its cable was heard to be quiet."""
        cable = self.cable
        quiet = cable.quiet_since is not None and self.seen.now >= cable.quiet_since + 5.0
        waited = cable.quiet_since is not None and self.seen.now >= cable.plugged_at + 60.0
        may_open = self.care().carrier and not cable.foreign and (cable.opened or quiet or waited)
        assert may_open or all(
            port.dark and not port.addresses and not port.tags for port in posture.ports if port.role != "uplink"
        )
        shut = {port.interface for port in posture.ports if port.dark}
        for allowance in posture.allowances:
            assert not shut & {allowance.origin, allowance.target}, "no flow on a port that is not open"
        cable.opened = cable.opened or any(not port.dark for port in posture.ports)

    def check_passages(self, posture: Posture) -> None:
        windows = {window.name: window for window in self.outline.plan.windows}
        for passage in posture.passages:
            name = passage.label.removeprefix("lease ").split(":")[0]
            lease, window = self.seen.leases[name], windows[name]
            assert not self.seen.drill, "never in a drill"
            assert self.seen.now < passage.until <= self.leased[name] == lease.until, "its end never moves out"
            assert passage.until <= lease.opened_at + window.longest + 0.001
            assert passage.port in window.tcp
            assert passage.destination.network_address == window.to
        for port in posture.ports:
            if port.role == "uplink":
                assert port.dark is not bool(posture.passages), "the uplink is open for leases, and for nothing else"
                assert set(port.peers) == {passage.destination for passage in posture.passages}
        assert not any(UPLINK.name in (each.origin, each.target) for each in posture.allowances)

    def check_opening(self, step: SetLink) -> None:
        """The uplink comes up last: under proven rules with passages, and a keeper that holds their end."""
        proof = self.seen.proof
        assert proof is not None, "never without proven rules"
        assert not self.seen.isolation_problem
        assert proof.posture.passages, "never without a lease"
        assert self.keeper, "never without a keeper"
        assert self.promised is not None
        assert self.promised.interface == step.interface
        assert self.seen.deadline == self.promised, "and said so"
        assert self.promised.until <= max(passage.until for passage in proof.posture.passages)
        assert step.until is not None
        assert self.seen.now < step.until <= max(lease.until for lease in self.seen.leases.values())

    def check_uplink(self, *, settled: bool = False) -> None:
        (link,) = (each for each in self.seen.interfaces if each.name == UPLINK.name)
        assert link.up is bool(link.addresses), "no address without a link, and no link without one"
        if not settled or not link.up:
            return
        if self.lost_sight() and any(each.name == f"{link.name}-twin" for each in self.seen.interfaces):
            return
        proof = self.seen.proof
        assert proof is not None, "an uplink that is up is so under proven rules"
        assert proof.posture.passages
        ends = [lease.until for lease in self.seen.leases.values()]
        assert self.seen.now < max(ends), "no link outlives its leases"
        assert self.keeper, "nor its keeper"
        assert self.promised is not None
        assert self.seen.now < self.promised.until == max(passage.until for passage in proof.posture.passages)
        assert self.promised.until <= max(ends)

    def check_strays(self, posture: Posture) -> None:
        """What is no port any more, or one of two that claim to be it, is down and has no address."""
        planned = {guard.interface for guard in posture.ports}
        for link in self.seen.interfaces:
            # Every port that was opened bears a mark; one that never was is known by the rules and the keeper alone.
            if link.name not in planned and link.marked:
                assert not link.addresses, "no address on what is no port"
                assert not (link.up and link.marked), "what was a port is down"

    def lost_sight(self) -> bool:
        """Nobody can tell that the uplink was open: neither the rules, nor a keeper that was asked."""
        return self.seen.proof is None or not self.keeper

    def check_patience(self, turn: Round) -> None:
        """Strangers alone keep no port closed for ever."""
        heard = self.seen.heard.get("care0")
        guards_of_care = [guard for guard in turn.posture.ports if guard.interface == "care0"]
        if heard is None or not self.care().carrier or self.cable.foreign or self.seen.now < heard.since + 60.0:
            return
        if heard.carrier_changes == self.care().carrier_changes:
            assert not any(guard.dark for guard in guards_of_care), "no stranger outlasts twelve periods"

    def check_warm(self, step: LaunchMachine) -> None:
        name = step.service
        service = self.outline.services[name]
        overlay = self.seen.overlays.get(name, OverlayFacts())
        assert service.start is StartKind.WARM
        assert service.role != "domain-controller"
        assert not overlay.exists, "a warm start begins on fresh overlays"
        assert self.seen.warm[name].problem == ""
        assert step.memory == service.memory, "a warm state is all the memory that was sealed"
        assert self.fallbacks.get(name, 0) == 0, "the cold start takes over, once, within the same attempt"

    def check_overlays(self, before: Observed, after: Observed) -> None:
        """A marked overlay is never dropped, by no transition: it stays, or it is kept aside."""
        for name, old in before.overlays.items():
            new = after.overlays[name]
            if old.opened:
                assert new == replace(old, marked=new.marked), "what care wrote stays where it is"
            if old.marked:
                assert new.marked or new.aside == old.aside + 1, "a marked overlay is never dropped"
            assert new.aside >= old.aside
            if new.aside > old.aside:
                alive = after.machines.get(name)
                assert alive is None or alive.phase is MachinePhase.DEAD, "nothing moves below a machine that runs"

    @property
    def overhead(self) -> int:
        return self.seen.capacity.overhead

    def held(self) -> int:
        """Bytes that machines hold or are about to."""
        alive = {
            name: machine.memory
            for name, machine in self.seen.machines.items()
            if machine.phase is not MachinePhase.DEAD
        }
        for name, step in self.seen.busy.items():
            if isinstance(step, LaunchMachine):
                alive.setdefault(name, step.memory)
        return sum(memory + self.overhead for memory in alive.values())

    def coming(self) -> set[str]:
        """Services that start cold and are not ready yet; not those whose end is under way."""
        launching = {
            name
            for name, step in self.seen.busy.items()
            if isinstance(step, LaunchMachine)
            and step.start is StartKind.COLD
            and name in self.outline.services
            and self.seen.intents.get(name) is not Intent.STOP
        }
        return launching | {name for name, machine in self.seen.machines.items() if self.comes(name, machine)}

    def comes(self, name: str, machine: MachineFacts) -> bool:
        if isinstance(self.seen.busy.get(name), ENDING) or name not in self.outline.services:
            return False
        unfinished = name in self.seen.fallbacks and not self.seen.fallbacks[name].complete
        stopped = self.seen.intents.get(name) is Intent.STOP
        alive = machine.phase is not MachinePhase.DEAD and machine.ready_at is None
        return alive and machine.start is StartKind.COLD and not stopped and not unfinished

    def is_ready(self, name: str) -> bool:
        machine = self.seen.machines.get(name)
        return machine is not None and machine.phase is MachinePhase.RUNNING and machine.ready_at is not None

    def states(self, turn: Round) -> dict[str, ServiceState]:
        return {name: judged.state for name, judged in turn.judgement.services.items()}
