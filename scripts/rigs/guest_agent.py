"""A small client of the QEMU guest agent: runs a program inside a machine, as malware there would.

The agent's protocol is JSON lines over the machine's socket (QEMU's "Guest Agent Protocol Reference"). What comes back
is written by the machine and is not trusted: sizes are capped, and only plain values are taken.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cleanroomd.errors import MachineError

LARGEST_REPLY = 8 << 20
ANSWER_SECONDS = 30.0
"""An emulated machine that is still starting others answers slowly."""
LOOK_AGAIN_SECONDS = 0.3


class GuestAgent:
    """One connection to the agent of one machine; the agent serves one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._path, limit=LARGEST_REPLY)
        number = secrets.randbits(31)
        # 0xFF makes the agent forget half a request of an earlier client, and announces the reply to ours.
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._writer.write(b"\xff" + json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._reader.readuntil(b"\xff")
                reply = json.loads(await self._reader.readline())
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            self._writer.close()
            raise MachineError(
                f"cannot reach the guest agent at {self._path}: no answer", "is it in the guest?"
            ) from error
        if reply.get("return") != number:
            self._writer.close()
            raise MachineError(f"cannot reach the guest agent at {self._path}: it answers somebody else", "try again")
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def run(self, argv: Sequence[str], *, text: str, seconds: float) -> str:
        """Standard output of `argv` run in the machine with `text` on standard input; MachineError if it fails."""
        started = await self._call(
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
                    status = await self._call("guest-exec-status", {"pid": int(started["pid"])})
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

    async def _call(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._writer.drain()
                untrusted_reply = json.loads(await self._reader.readline())
        except (TimeoutError, ConnectionError, ValueError, asyncio.LimitOverrunError) as error:
            raise MachineError(f"cannot ask the guest agent for {command}: {error or 'no answer'}") from error
        if not isinstance(untrusted_reply, dict) or not isinstance(untrusted_reply.get("return"), dict):
            raise MachineError(f"cannot ask the guest agent for {command}: it answered {str(untrusted_reply)[:200]}")
        reply: dict[str, Any] = untrusted_reply["return"]
        return reply
