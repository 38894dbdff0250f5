"""The SMB probe and the server of Debian's `samba` package."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroomd.model.plan import SmbProbe

from .conftest import LOOPBACK, Running, Watch

pytestmark = pytest.mark.timeout(120)

PORT = 4450


@pytest.fixture
def command(directory: Path) -> Callable[..., list[str | Path]]:
    """The command that runs a file server of an ordinary user's with further lines of its configuration."""
    for name in ("state", "locks"):
        (directory / name).mkdir()
        (directory / name).chmod(0o777)

    def make(*settings: str) -> list[str | Path]:
        path = directory / "smb.conf"
        lines = [
            "[global]",
            "server role = standalone server",
            f"smb ports = {PORT}",
            f"interfaces = {LOOPBACK}",
            "bind interfaces only = yes",
            f"private dir = {directory}/state",
            f"state directory = {directory}/state",
            f"cache directory = {directory}/state",
            f"lock directory = {directory}/locks",
            f"pid directory = {directory}/locks",
            f"ncalrpc dir = {directory}/state/ncalrpc",
            "disable spoolss = yes",
            *settings,
        ]
        path.write_text("\n".join(lines) + "\n")
        return ["/usr/sbin/smbd", "--foreground", "--no-process-group", "--debug-stdout", f"--configfile={path}"]

    return make


@pytest.mark.parametrize(
    ("settings", "dialect"),
    [((), "3.1.1"), (("server max protocol = SMB2_02",), "2.0.2"), (("server min protocol = SMB3_11",), "3.1.1")],
)
async def test_samba_is_ready_by_negotiation(
    running: Running, command: Callable[..., list[str | Path]], watch: Watch, settings: tuple[str, ...], dialect: str
) -> None:
    answers = watch(SmbProbe(port=PORT))
    assert (await answers.until("")).detail == "waiting for SMB (connection refused)"
    with running(command(*settings)):
        ready = await answers.until("agreed")
        assert (ready.ok, ready.detail) == (True, f"SMB {dialect} agreed on")


async def test_a_server_of_the_dialect_before_is_not_ready(
    running: Running, command: Callable[..., list[str | Path]], watch: Watch
) -> None:
    answers = watch(SmbProbe(port=PORT))
    with running(command("server min protocol = NT1", "server max protocol = NT1")):
        refused = await answers.until("closed")
        assert (refused.ok, refused.detail) == (False, "waiting for SMB (the connection was closed)")
