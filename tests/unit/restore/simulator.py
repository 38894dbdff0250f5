"""An enclosure in thought: the pure core drives it, chance answers. Every transition is checked.

Long steps end when chance says so, well or badly, in any order; daemons are killed in the middle of them, power
fails, disks come and go, rules are changed by others, operators and stagers interfere. What holds at each moment is
checked at that moment (`check_*`), in the words of the design.
"""

import random
from dataclasses import replace

from cleanroomd.engine.apply import LongStep
from cleanroomd.model.observed import (
    Capacity,
    DiskFacts,
    Failure,
    Fallback,
    Intent,
    MachineFacts,
    MachinePhase,
    Observed,
    OverlayFacts,
    ProbeFacts,
    WarmFacts,
)
from cleanroomd.model.plan import Plan, StartKind
from cleanroomd.model.status import RunState, ServiceState
from cleanroomd.model.steps import (
    ApplyRules,
    DeclareReady,
    FailAttempt,
    FallBack,
    LaunchMachine,
    MakeTap,
    RunMachine,
    SetAside,
    Step,
    StopMachine,
)
from cleanroomd.restore.desired import guards
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import Round, reconcile
from cleanroomd.restore.rehearsal import outcome
from cleanroomd.restore.report import report, run_state

from .plans import observed

RETRY = 2.0
SETTLED = {RunState.RESTORED, RunState.DEGRADED, RunState.HALTED, RunState.STOPPED}
ENDING = FailAttempt | FallBack | StopMachine


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

    # What happens -----------------------------------------------------------------------------------------------

    def settle(self) -> Round:
        """Rounds, until one has nothing to do; ends, or the loop would spin for ever."""
        for _ in range(12):
            turn = reconcile(self.outline, self.seen)
            self.check_turn(turn)
            if not turn.steps:
                assert reconcile(self.outline, self.seen).steps == (), "replanning after apply is empty"
                return turn
            for step in turn.steps:
                self.take(step)
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
        else:
            self.become(outcome(self.outline, step, self.seen))
            if isinstance(step, ApplyRules):
                self.seen = replace(self.seen, isolation_problem="")

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
        self.seen = replace(self.seen, machines=machines, probes={}, watched=frozenset(), proof=None, busy={})

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
                assert len(set(owners)) == len(posture.taps)
                assert all(port.dark for port in posture.ports if port.role == "uplink")
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
            case MakeTap(interface=interface):
                assert len(interface) <= 15

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
