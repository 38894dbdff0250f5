import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cleanroomd.errors import MachineError
from rigs import guest_agent

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


@asynccontextmanager
async def agent(folder: Path, answer: Answer, *, noise: bytes = b"") -> AsyncIterator[Path]:
    """A machine's agent socket; `answer` gives the reply to each request, None to stay silent."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(noise)
        while line := await reader.readline():
            request = json.loads(line.lstrip(b"\xff"))
            prefix = b"\xff" if request["execute"] == "guest-sync-delimited" else b""
            reply = answer(request)
            if reply is not None:
                writer.write(prefix + json.dumps(reply).encode() + b"\n")

    path = folder / "agent.sock"
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        try:
            yield path
        finally:
            for writer in writers:
                writer.close()


def machine(exit_code: int, output: str) -> tuple[Answer, list[dict[str, Any]]]:
    """An agent whose programs end at the second look."""
    looks = iter([{"exited": False}])
    requests: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        requests.append(request)
        match request["execute"]:
            case "guest-sync-delimited":
                return {"return": request["arguments"]["id"]}
            case "guest-exec":
                return {"return": {"pid": 7}}
        data = base64.b64encode(output.encode()).decode()
        ended = {"exited": True, "exitcode": exit_code, "out-data": data, "err-data": data}
        return {"return": next(looks, ended)}

    return answer, requests


async def test_a_program_gets_its_input_and_gives_its_output(tmp_path: Path) -> None:
    answer, requests = machine(0, "done")
    async with agent(tmp_path, answer) as path:
        assert await guest_agent.run(path, ("/usr/bin/python3", "-"), text="print()", seconds=5) == "done"
    executed = requests[1]["arguments"]
    assert (executed["path"], executed["arg"]) == ("/usr/bin/python3", ["-"])
    assert base64.b64decode(executed["input-data"]) == b"print()"


async def test_what_an_earlier_client_left_is_skipped(tmp_path: Path) -> None:
    answer, _ = machine(0, "done")
    async with agent(tmp_path, answer, noise=b'{"return": {}}\n{"error": {}}\n') as path:
        assert await guest_agent.run(path, ("true",), text="", seconds=5) == "done"


async def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    answer, _ = machine(1, "no such file")
    async with agent(tmp_path, answer) as path:
        with pytest.raises(MachineError, match="no such file"):
            await guest_agent.run(path, ("true",), text="", seconds=5)


async def test_an_error_of_the_agent_is_an_error(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["execute"] == "guest-sync-delimited":
            return {"return": request["arguments"]["id"]}
        return {"error": {"class": "GenericError", "desc": "guest-exec is disabled"}}

    async with agent(tmp_path, answer) as path:
        with pytest.raises(MachineError, match="guest-exec is disabled"):
            await guest_agent.run(path, ("true",), text="", seconds=5)


async def test_a_machine_without_an_agent_does_not_hold_up_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "ANSWER_SECONDS", 0.1)
    async with agent(tmp_path, lambda _: None) as path:
        with pytest.raises(MachineError, match="no answer"):
            await guest_agent.run(path, ("true",), text="", seconds=5)
