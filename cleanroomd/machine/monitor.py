"""A machine's QMP connection; the one module that touches qemu.qmp."""

import asyncio
import logging
from pathlib import Path

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

from cleanroomd.errors import MachineError

# The library logs as errors what is raised here as well, in words.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

_CONNECT_DEADLINE = 20.0
_COMMAND_DEADLINE = 20.0


class Monitor:
    """QMP to one QEMU. Every call has a deadline: a QEMU that hangs costs its own service and nothing else."""

    def __init__(self, service: str, client: QMPClient) -> None:
        self._service = service
        self._client = client
        self._answered = True
        self._events = asyncio.get_running_loop().create_task(self._take_events())

    async def _take_events(self) -> None:
        """The library keeps events until somebody takes them, and a guest can cause any number."""
        async for _event in self._client.events:
            pass

    @classmethod
    async def connect(cls, service: str, path: Path) -> "Monitor":
        """Connect and negotiate; MachineError when QEMU does not greet in time."""
        client = QMPClient(service)
        try:
            async with asyncio.timeout(_CONNECT_DEADLINE):
                await client.connect(str(path))
        except (QMPError, TimeoutError, OSError) as error:
            raise MachineError(
                f"cannot talk to the machine of {service}: {_words(error)}",
                "it is started again by itself; `cleanroomctl log` shows what QEMU said",
            ) from error
        return cls(service, client)

    @property
    def usable(self) -> bool:
        """Whether the connection stands and the last command on it was answered in time."""
        return self._answered and self._client.runstate is Runstate.RUNNING

    async def execute(self, command: str) -> object:
        """Run `command`; MachineError when it is refused, or not answered in time."""
        try:
            async with asyncio.timeout(_COMMAND_DEADLINE):
                return await self._client.execute(command)
        except ExecuteError as error:
            raise MachineError(f"cannot {command} the machine of {self._service}: {error}") from error
        except (QMPError, TimeoutError, OSError) as error:
            self._answered = False
            raise MachineError(f"cannot {command} the machine of {self._service}: {_words(error)}") from error

    async def is_running(self) -> bool:
        """Whether the guest has been let go; MachineError when QEMU does not say."""
        return bool((await self._status())["running"])

    async def is_held(self) -> bool:
        """Whether QEMU stopped the guest because a write met a full disk; MachineError when QEMU does not say.

        That is its default (werror=enospc); the write is made again when the guest goes on.
        """
        return (await self._status()).get("status") == "io-error"

    async def _status(self) -> dict[str, object]:
        answer = await self.execute("query-status")
        if not isinstance(answer, dict) or not isinstance(answer.get("running"), bool):
            raise MachineError(f"cannot learn the state of {self._service}: QEMU answered something else")
        return answer

    async def close(self) -> None:
        """Drop the connection; QEMU runs on."""
        self._events.cancel()
        try:
            async with asyncio.timeout(_COMMAND_DEADLINE):
                await self._client.disconnect()
        except (QMPError, TimeoutError, OSError, EOFError):
            return


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
