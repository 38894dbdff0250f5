"""The run journal reaches systemd's journal as structured fields; its socket is played in a mount namespace."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, socket, sys
from pathlib import Path

Path("/run/systemd/journal").mkdir(parents=True)
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind("/run/systemd/journal/socket")
server.settimeout(5)

from cleanroomd.engine.journal import Event, Journal

async def main():
    journal = Journal(Path("/run/journal.jsonl"))
    journal.record(Event.SERVICE, "ready, C-ECHO 0x0000", service="imaging", state="ready")
    journal.close()

asyncio.run(main())
print(server.recv(65536).decode())
"""


def test_entries_carry_a_message_id_and_their_fields() -> None:
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs tmpfs /run && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            PROGRAM,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    fields = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert fields["MESSAGE"] == "imaging: ready, C-ECHO 0x0000"
    assert len(fields["MESSAGE_ID"]) == 32
    assert fields["CLEANROOM_SERVICE"] == "imaging"
    assert fields["CLEANROOM_STATE"] == "ready"
    assert fields["SYSLOG_IDENTIFIER"] == "cleanroomd"
