"""Runs a program inside a machine through its QEMU guest agent, as malware there would.

What comes back is written by the machine and is not trusted: sizes are capped, and only plain values are taken.
"""

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cleanroomd.errors import MachineError
from cleanroomd.machine.agent import GuestAgent, connect

LARGEST_REPLY = 8 << 20
ANSWER_SECONDS = 30.0
"""An emulated machine that is still starting others answers slowly."""
LOOK_AGAIN_SECONDS = 0.3


async def run(path: Path, argv: Sequence[str], *, text: str, seconds: float) -> str:
    """Standard output of `argv` run in the machine whose agent is at the socket `path`, with `text` on standard input.

    MachineError if it cannot be run, fails, or takes more than `seconds`.
    """
    async with connect(path, path.parent.name, seconds=ANSWER_SECONDS, limit=LARGEST_REPLY) as agent:
        started = await _ask(
            agent,
            "guest-exec",
            {
                "path": argv[0],
                "arg": list(argv[1:]),
                "input-data": base64.b64encode(text.encode()).decode(),
                "capture-output": True,
            },
        )
        try:
            async with asyncio.timeout(seconds):
                while True:
                    status = await _ask(agent, "guest-exec-status", {"pid": int(started["pid"])})
                    if status.get("exited"):
                        break
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
        except TimeoutError as error:
            raise MachineError(f"cannot run {argv[0]} in the machine: not done after {seconds:.0f} s") from error
    output = base64.b64decode(status.get("out-data", ""))
    if status.get("exitcode") != 0:
        said = base64.b64decode(status.get("err-data", "")).decode(errors="replace").strip()
        raise MachineError(f"cannot run {argv[0]} in the machine: {said[-300:] or status}")
    return output.decode(errors="replace")


async def _ask(agent: GuestAgent, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    untrusted_reply = await agent.ask(command, arguments)
    if not isinstance(untrusted_reply, dict):
        raise MachineError(f"cannot ask the guest agent for {command}: it answered {str(untrusted_reply)[:200]}")
    return untrusted_reply
