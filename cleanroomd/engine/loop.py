"""The one loop: events mark it dirty, it looks, decides, applies the difference, publishes, and sleeps."""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from cleanroomd.clock import now
from cleanroomd.engine.apply import LongStep, apply
from cleanroomd.engine.effects import Effects
from cleanroomd.engine.journal import Event
from cleanroomd.engine.snapshot import observe
from cleanroomd.errors import CleanroomError, IsolationError, MachineError
from cleanroomd.model.observed import Capacity, Observed
from cleanroomd.model.plan import Plan, StartKind
from cleanroomd.model.status import Status
from cleanroomd.model.steps import ApplyRules, LaunchMachine, MakeTap, RunMachine, Step
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile
from cleanroomd.restore.report import report

_LOOK_AGAIN = 1.0
"""Longest sleep, seconds: what no event tells (carrier, lost events, ageing proofs) is seen after that."""
_COALESCE = 0.01
_STUMBLES_ALLOWED = 5
_LONGEST_PROBLEM = 300
"""Characters that a status gives to what is wrong with a plan; the journal has all of it."""

_log = logging.getLogger(__name__)


class Engine:
    """Restores the services of one plan. `on_status` is called with every new status."""

    def __init__(
        self,
        effects: Effects,
        capacity: Capacity,
        *,
        power_on: float,
        unsealed: bool,
        on_status: Callable[[Status], None],
    ) -> None:
        self._effects = effects
        self._capacity = capacity
        self._power_on = power_on
        self._unsealed = unsealed
        self._on_status = on_status
        self._dirty = asyncio.Event()
        self._reasons: list[str] = []
        self._tasks: dict[str, tuple[Step, asyncio.Task[None]]] = {}
        self._plan_problem = ""
        self._refused: dict[str, str] = {}
        """Steps that failed when they were tried last -> why; a plan has few of them."""
        self._wake_at: float | None = None
        self._ended = False

    def wake(self, reason: str) -> None:
        """Have the loop look again soon; the reason goes into the journal once."""
        if len(self._reasons) < 100:
            self._reasons.append(reason)
        self._dirty.set()

    async def run(self) -> None:
        """Loop until `end`; a long step that is still under way is cut short, and taken up by the next daemon."""
        try:
            await self._loop()
        finally:
            await self._leave()

    async def _loop(self) -> None:
        stumbles = 0
        while not self._ended:
            try:
                changed = await self._round()
                stumbles = 0
            except Exception as error:
                # A round that fails must not take the running services' supervisor with it; one that
                # fails again and again is better off with a fresh process.
                _log.exception("a round of the loop failed")
                self._effects.journal.record(Event.DAEMON, f"a round of the loop failed: {error!r}")
                stumbles += 1
                if stumbles >= _STUMBLES_ALLOWED:
                    raise
                # Whatever woke the loop does so again at once, and what is missing takes time to come back.
                await asyncio.sleep(_LOOK_AGAIN)
                changed = False
            await self._sleep(self._wake_at, stay_awake=changed)

    async def _leave(self) -> None:
        for _, task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._tasks.values()), return_exceptions=True)

    def end(self) -> None:
        """Let `run` return; every machine runs on."""
        self._ended = True
        self.wake("the daemon is asked to end")

    async def take_plan(self, plan: Plan) -> None:
        """From the next round on `plan` is in force; machines run on as they were made until they are started again."""
        effects = self._effects
        outline = Outline(plan)
        await effects.storage.switch(outline)
        before, effects.outline = effects.outline, outline
        self._plan_problem = ""
        for name in effects.probes.watched():
            old, new = before.services.get(name), effects.outline.services.get(name)
            if new is None or old is None or (old.ready, old.address) != (new.ready, new.address):
                # Asked anew in the next round, in the words of the plan in force.
                effects.probes.unwatch(name)
                effects.answers.pop(name, None)
        self.wake("the plan was read again")

    def keep_plan(self, problem: str) -> None:
        """The plan could not be read again; the one in force stays so, and the status says why."""
        words = " ".join(problem.split())
        self._plan_problem = words if len(words) <= _LONGEST_PROBLEM else f"{words[:_LONGEST_PROBLEM]}..."
        self.wake("the plan could not be read again")

    def observe(self) -> Observed:
        busy = {name: step for name, (step, _) in self._tasks.items()}
        return observe(self._effects, self._capacity, power_on=self._power_on, busy=busy)

    async def _round(self) -> bool:
        """One turn; True if something was done at once, so that another look is due."""
        outline = self._effects.outline
        self._effects.storage.look_soon()
        observed = self.observe()
        turn = reconcile(outline, observed)
        self._wake_at = turn.wake_at
        done = False
        taps_made = True
        for step in turn.steps:
            if isinstance(step, LongStep):
                self._start(step)
            elif isinstance(step, ApplyRules) and not taps_made:
                # Guards for a tap that is not there fail as well, and would hide the cause.
                continue
            elif await self._apply_now(step):
                done = True
            elif isinstance(step, MakeTap):
                taps_made = False
        if done or turn.steps:
            observed = self.observe()
            turn = reconcile(outline, observed)
        self._on_status(report(outline, observed, turn, unsealed=self._unsealed, plan_problem=self._plan_problem))
        return done

    async def _apply_now(self, step: Step) -> bool:
        """Whether it succeeded. One that fails for the same reason each time is in the journal once."""
        known = self._refused.get(str(step))
        if known is None:
            self._effects.journal.record(Event.STEP, str(step), service=getattr(step, "service", ""))
        try:
            await apply(step, self._effects)
        except CleanroomError as error:
            return self._refuse(step, error)
        except OSError as error:
            return self._refuse(step, CleanroomError(f"cannot {step}: {error.strerror or error}"))
        if self._refused.pop(str(step), None) is not None:
            self._effects.journal.record(Event.STEP, f"at last: {step}", service=getattr(step, "service", ""))
        return True

    def _refuse(self, step: Step, error: CleanroomError) -> Literal[False]:
        if self._refused.get(str(step)) != error.message:
            self._note_failure(step, error)
        self._refused[str(step)] = error.message
        return False

    def _start(self, step: LongStep) -> None:
        self._effects.journal.record(Event.STEP, str(step), service=step.service)
        task = asyncio.get_running_loop().create_task(self._long_step(step), name=str(step))
        self._tasks[step.service] = (step, task)

    async def _long_step(self, step: LongStep) -> None:
        """Apply a step whose outcome is an event; whatever goes wrong is that service's failure alone."""
        try:
            await apply(step, self._effects)
        except IsolationError as error:
            self._note_failure(step, error)
            # No attempt is lost by it, so nothing else keeps this from being tried without end.
            await asyncio.sleep(_LOOK_AGAIN)
        except CleanroomError as error:
            await self._attempt_failed(step, error)
        except OSError as error:
            cause = f"{error.strerror or error}"
            await self._attempt_failed(step, MachineError(f"cannot {step}: {cause}"))
        except Exception as error:  # noqa: BLE001 - the boundary of one service
            # What nobody foresaw costs the service an attempt, with its back-off, and not the loop, nor a step
            # that is taken again and again without end.
            _log.exception("cannot %s", step)
            await self._attempt_failed(step, MachineError(f"cannot {step}: {error!r}"))
        finally:
            del self._tasks[step.service]
            self.wake(f"done: {step}")

    async def _attempt_failed(self, step: LongStep, error: CleanroomError) -> None:
        self._note_failure(step, error)
        try:
            if isinstance(step, LaunchMachine) and await self._found_running(step.service):
                return
            if isinstance(step, LaunchMachine) and step.start is StartKind.WARM:
                await self._effects.fall_back(step.service, error.message)
            elif isinstance(step, LaunchMachine):
                await self._effects.fail(step.service, error.message)
            elif isinstance(step, RunMachine):
                await self._run_failed(step.service, error.message)
            else:
                # The next round wants the same again, and what is missing takes time to come back.
                await asyncio.sleep(_LOOK_AGAIN)
        except CleanroomError as second:
            self._note_failure(step, second)
        except OSError as second:
            self._note_failure(step, MachineError(f"cannot end {step.service}: {second.strerror or second}"))

    async def _run_failed(self, service: str, reason: str) -> None:
        facts = self._effects.launcher.facts().get(service)
        if facts is not None and facts.start is StartKind.WARM and facts.ready_at is None:
            await self._effects.fall_back(service, reason)
        else:
            await self._effects.fail(service, reason)

    async def _found_running(self, service: str) -> bool:
        """Whether a launch failed because a machine of an earlier daemon holds the place; it is ours from now on."""
        launcher = self._effects.launcher
        if service in launcher.facts():
            return False
        found = await launcher.adopt()
        for name in found:
            self._effects.journal.record(Event.ADOPTED, "adopted the machine that runs already", service=name)
        return service in found

    def _note_failure(self, step: Step, error: CleanroomError) -> None:
        self._effects.journal.record(
            Event.STEP_FAILED,
            error.message,
            service=getattr(step, "service", ""),
            step=str(step),
            hint=error.hint,
        )

    async def _sleep(self, wake_at: float | None, *, stay_awake: bool) -> None:
        longest = _LOOK_AGAIN if wake_at is None else min(_LOOK_AGAIN, max(0.0, wake_at - now()))
        if stay_awake:
            longest = 0.0
        try:
            async with asyncio.timeout(longest):
                await self._dirty.wait()
                # What comes within the same moment is one event.
                await asyncio.sleep(_COALESCE)
        except TimeoutError:
            pass
        self._dirty.clear()
        for reason in dict.fromkeys(self._reasons):
            self._effects.journal.record(Event.WAKE_UP, reason)
        self._reasons.clear()
