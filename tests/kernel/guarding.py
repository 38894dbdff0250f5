"""A daemon's part in guarding the rules, in a namespace: rounds whenever the kernel announces something."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.errors import CleanroomError
from cleanroomd.isolation import links
from cleanroomd.model.status import Alarm
from tests.kernel.namespaces import Namespace
from tests.kernel.world import DEADLINE, POSTURE

LONGEST_SLEEP = 0.2


@dataclass
class Guarded:
    space: Namespace
    control: IsolationControl
    told: list[tuple[str, dict[str, str | float]]] = field(default_factory=list)
    rounds: int = 0

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        return self.control.guard.alarms.newest

    async def attempt(self, *command: str, standard_input: str = "") -> int:
        """The exit code of a foreign command in the enclosure, while the daemon goes on."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await process.communicate(standard_input.encode())
        assert process.returncode is not None
        return process.returncode

    async def alarm(self, what: str, *, process: str | None = None, undone: bool = True) -> Alarm:
        """The alarm about something, once there is one in that state, of a process of that name."""

        def found() -> list[Alarm]:
            alike = [alarm for alarm in self.alarms if what in alarm.what and alarm.undone is undone]
            return [alarm for alarm in alike if process is None or alarm.process == process]

        await self.eventually(found)
        return found()[0]

    async def proven(self) -> None:
        """The rules are in force again, as far as the daemon knows."""
        await self.eventually(self.control.holds)

    def has_looked(self, times: int) -> bool:
        return self.rounds >= times

    async def eventually(self, holds: Callable[[], object]) -> None:
        """Wait for something that has no event, while the rounds go on."""
        async with asyncio.timeout(DEADLINE):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def guarded(space: Namespace, keeper: Path) -> AsyncIterator[Guarded]:
    """The whole posture in force and looked after, as the engine's loop does it."""
    told: list[tuple[str, dict[str, str | float]]] = []
    awake = asyncio.Event()
    with space.entered():
        control = IsolationControl(keeper, alarm=lambda text, /, **fields: told.append((text, fields)))
        made = Guarded(space, control, told)

        async def rounds() -> None:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LONGEST_SLEEP):
                        await awake.wait()
                        await asyncio.sleep(0.01)
                awake.clear()
                made.rounds += 1
                control.check()
                if control.proof is None:
                    with suppress(CleanroomError):
                        for tap in POSTURE.taps:
                            links.make_tap(tap.interface)
                        control.apply(POSTURE)

        with control.guard.listening(lambda _reason: awake.set()):
            control.apply(POSTURE)
            control.check()
            # Nothing is left from before that would have to settle.
            control.guard.settled()
            task = asyncio.get_running_loop().create_task(rounds())
            try:
                yield made
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                control.close()
