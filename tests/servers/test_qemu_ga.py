"""The guest agent of Debian's `qemu-guest-agent` package, which may do nothing here but talk."""

import shutil
from pathlib import Path

import pytest

from cleanroomd.errors import MachineError
from cleanroomd.machine.agent import connect
from cleanroomd.model.plan import GuestAgentProbe

from .conftest import Running, Watch

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def command(directory: Path) -> list[str | Path]:
    """Run as an ordinary user, in a namespace, and with every command refused that could touch the host."""
    program = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin")
    assert program is not None
    refused = "guest-shutdown,guest-exec,guest-file-open,guest-suspend-disk,guest-suspend-ram,guest-suspend-hybrid"
    listen = ["--method=unix-listen", f"--path={directory}/agent.sock"]
    return [program, *listen, f"--statedir={directory}", f"--pidfile={directory}/pid", f"--block-rpcs={refused}"]


async def test_an_agent_is_ready_by_its_version(
    running: Running, watch: Watch, directory: Path, command: list[str | Path]
) -> None:
    answers = watch(GuestAgentProbe(), agent=directory / "agent.sock")
    assert (await answers.until("")).detail == "waiting for guest agent (no such file or directory)"
    with running(command):
        ready = await answers.until("answered")
        assert ready.ok
        # Each attempt is a conversation of its own, and the agent serves them one after another.
        for _ in range(3):
            assert (await answers.until("answered")).detail == ready.detail
    assert not (await answers.until("connection refused")).ok


async def test_the_daemon_gets_its_version_and_hears_a_refusal(
    running: Running, watch: Watch, directory: Path, command: list[str | Path]
) -> None:
    path = directory / "agent.sock"
    answers = watch(GuestAgentProbe(), agent=path)
    with running(command):
        proven = await answers.until("answered")
        async with connect(path, "record", seconds=30) as agent:
            assert f"guest agent {await agent.version()} answered" == proven.detail
            with pytest.raises(MachineError, match=r"for guest-shutdown: .*disabled"):
                await agent.shut_down()
        async with connect(path, "record", seconds=30) as agent:
            with pytest.raises(MachineError, match=r"for guest-none-such: .*not .*found"):
                await agent.ask("guest-none-such")


async def test_half_a_request_of_another_client_is_forgotten(
    running: Running, watch: Watch, directory: Path, command: list[str | Path]
) -> None:
    path = directory / "agent.sock"
    with running(command):
        await watch(GuestAgentProbe(), agent=path).until("answered")
        async with connect(path, "record", seconds=30) as agent:
            agent._writer.write(b'{"execute": "guest-info", "arguments": {"')
            await agent._writer.drain()
            await agent.synchronise()
            assert await agent.version()
