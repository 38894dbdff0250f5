"""What can be asked about the isolation: a view of it now, and the whole proof, in a process of its own."""

import asyncio
from collections.abc import Callable

from cleanroomd.clock import now
from cleanroomd.engine.alarms import Tell
from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.errors import CleanroomError, IsolationError
from cleanroomd.isolation.apart import Request, verify_apart
from cleanroomd.isolation.counts import denied_flows, denied_pairs, passed
from cleanroomd.isolation.endpoints import Scene
from cleanroomd.isolation.overview import Counted, overview
from cleanroomd.model.plan import Plan
from cleanroomd.model.posture import DENY_ALL
from cleanroomd.model.verification import IsolationView, Verification

_LOOK_EVERY = 60.0
_VERIFY_EVERY = 900.0
"""Seconds; the twin takes less than a second of one processor, at low priority."""
_NAMED = 3
_ATTEMPTS = 4


class Prover:
    """One verification at a time. Whoever asks meanwhile waits for the next one: the one under way may be too old."""

    def __init__(self, isolation: IsolationControl) -> None:
        self._isolation = isolation
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[Verification] | None = None
        """It has not begun yet."""
        self._tasks: set[asyncio.Task[Verification]] = set()

    def view(self, plan: Plan) -> IsolationView:
        """As the posture was proven last; some netlink reads, no wait."""
        proof, problem, counted = self._isolation.proof, self._isolation.problem, Counted()
        posture = proof.posture if proof else DENY_ALL
        writer = self._isolation.writer
        if writer is not None:
            try:
                counted = Counted(
                    guards=writer.denied(),
                    pairs=denied_pairs(writer),
                    flows=denied_flows(writer),
                    passed=passed(writer, posture.allowances),
                    foreign_tables=writer.foreign_tables(),
                )
            except (CleanroomError, OSError) as error:
                problem = problem or str(error)
        if proof is None:
            problem = problem or "the rules have not been proven"
        return overview(Scene(posture, now(), zone_names(plan)), proof, problem, counted)

    async def verify(self, plan: Plan) -> Verification:
        """The live kernel against the posture in force; IsolationError when there is none, or if it cannot be done."""
        waiting = self._next
        if waiting is None:
            waiting = self._next = asyncio.create_task(self._run(plan), name="verify the isolation")
            self._tasks.add(waiting)
            waiting.add_done_callback(self._ended)
        # Who hangs up must not take the answer from others.
        return await asyncio.shield(waiting)

    async def now_and_then(self, plan: Callable[[], Plan], tell: Tell) -> None:
        """For ever: soon after the rules have changed, and every quarter of an hour, tell what is new about them.

        The comparison in the daemon's own loop sees every change of the kernel's rules at once. What it cannot see is
        a compiler that is wrong, or a kernel that does not do what its rules say; neither happens from one minute
        to the next.
        """
        told, digest, at = "", "", 0.0
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            proof = self._isolation.proof
            if proof is None or (proof.digest == digest and now() - at < _VERIFY_EVERY):
                continue
            digest, at = proof.digest, now()
            try:
                found = await self.verify(plan())
            except CleanroomError as error:
                text = error.message
            else:
                text = _summary(found)
            if text != told:
                told = text
                tell(text)

    async def close(self) -> None:
        """End what is under way, with its process."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Verification]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever asked may have hung up; then nobody else looks at it.
            task.exception()

    async def _run(self, plan: Plan) -> Verification:
        async with self._one_at_a_time:
            self._next = None
            for _ in range(_ATTEMPTS):
                proof, writer = self._isolation.proof, self._isolation.writer
                if proof is None or writer is None:
                    cause = self._isolation.problem or "no rules of this daemon are in force"
                    raise IsolationError(
                        f"cannot verify: {cause}", "`cleanroomctl status` says what is being done about it"
                    )
                found = await verify_apart(Request(proof.posture, writer.port, zone_names(plan)))
                newest = self._isolation.proof
                if found.ok or (newest is not None and newest.posture == proof.posture):
                    return found
                # What was read was compared with a posture that had passed by then.
            raise IsolationError("cannot verify: the rules keep changing", "try again once the services are ready")


def _summary(found: Verification) -> str:
    """The same words for the same outcome, so that it is told once."""
    if found.ok:
        return "verified: every packet that was tried fared as the plan says"
    wrong = [*found.differences, *found.surroundings]
    wrong += [f"{each.origin} to {each.target}, {each.packet}: {each.found}" for each in found.mismatches]
    more = len(wrong) + found.unnamed - _NAMED
    return f"NOT AS PLANNED: {'; '.join(wrong[:_NAMED])}" + (f"; and {more} more" if more > 0 else "")


def zone_names(plan: Plan) -> dict[str, str]:
    return {str(zone.network): zone.name for zone in plan.zones}
