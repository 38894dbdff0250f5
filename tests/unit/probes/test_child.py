"""The child as a process: what it gave up, and that every protocol still works without it."""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroomd.model.plan import (
    DicomProbe,
    DnsProbe,
    FhirProbe,
    HttpProbe,
    KerberosProbe,
    LdapProbe,
    MllpProbe,
    MssqlProbe,
    PostgresProbe,
    Probe,
    Protocol,
    Quorum,
    SmbProbe,
    TcpProbe,
)
from cleanroomd.probes import child
from cleanroomd.probes.answer import Answer
from cleanroomd.probes.runner import child_command, child_environment
from cleanroomd.probes.spec import Pace, Round, Spec, decode_round, encode_spec

from .conftest import LOOPBACK, Handler, Peer

PACE = Pace(interval=0.05, steady_interval=0.05, timeout=2)
LIBRARIES = {"pynetdicom", "pydicom", "hl7", "http.client", "ssl", "pyasn1", "pyasn1_modules", "dns"}


@contextmanager
def running(*probes: Probe, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A child that probes loopback; ended by closing its standard input, as the daemon's death would."""
    with subprocess.Popen(
        [*prefix, *child_command()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath} | child_environment(),
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(encode_spec(Spec(address=LOOPBACK, probes=probes, pace=PACE)))
        process.stdin.flush()
        yield process
        process.stdin.close()
        assert process.wait(timeout=8) == 0


def next_round(process: subprocess.Popen[bytes], probes: int = 1) -> Round:
    assert process.stdout is not None
    return decode_round(process.stdout.readline(), probes)


def status(process: subprocess.Popen[bytes]) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def limits(process: subprocess.Popen[bytes]) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:47].strip() for line in lines}


def can_become_nobody() -> bool:
    """User 0, unless in a user namespace that maps no other user."""
    rows = [map(int, row.split()) for row in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(first <= 65534 < first + count for first, _, count in rows)


def test_a_live_child_has_nothing_to_lose(closed_port: int) -> None:
    with running(DicomProbe(port=closed_port)) as process:
        assert not next_round(process).ok
        facts = status(process)
        assert facts["NoNewPrivs"] == "1"
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert facts["Threads"] == "1"
        assert os.getsid(process.pid) == process.pid
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
        assert limits(process) | {
            "Max address space": str(512 << 20),
            "Max file size": "0",
            "Max core file size": "0",
            "Max processes": "0",
            "Max open files": "16",
        } == limits(process)
        if os.geteuid() == 0:
            assert facts["CapBnd"] == "0" * 16
        if can_become_nobody():
            assert facts["Uid"].split() == ["65534"] * 4
            assert facts["Groups"] == ""


def test_where_user_0_is_the_only_user_it_is_user_0_without_capabilities(closed_port: int) -> None:
    with running(DicomProbe(port=closed_port), prefix=["unshare", "--user", "--map-root-user"]) as process:
        assert not next_round(process).ok
        facts = status(process)
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")} == {"0" * 16}


CONFINED = """
import json, os, socket, sys
from cleanroomd.probes import sandbox
allowed, other = int(sys.argv[1]), int(sys.argv[2])
def result(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0
sandbox.confine([allowed], parent=os.getppid())
print(json.dumps({
    "read": result(lambda: open("/etc/hostname")),
    "list": result(lambda: os.listdir("/")),
    "run": result(lambda: os.execv("/bin/true", ["true"])),
    "fork": result(lambda: os.fork() or os._exit(0)),
    "allowed": result(lambda: socket.socket().connect(("127.0.0.1", allowed))),
    "other": result(lambda: socket.socket().connect(("127.0.0.1", other))),
    "listen": result(lambda: socket.create_server(("127.0.0.1", 0))),
    "signal": result(lambda: os.kill(os.getppid(), 0)),
}))
"""


def _kernel_has_landlock_scopes() -> bool:
    release = platform.release().split(".")
    return (int(release[0]), int(release[1])) >= (6, 12)


@pytest.mark.skipif(not _kernel_has_landlock_scopes(), reason="needs Landlock ABI 6 (Linux 6.12)")
def test_a_child_that_was_taken_over_reaches_one_port_and_nothing_else(peer: Peer) -> None:
    allowed, other = peer(lambda _: None), peer(lambda _: None)
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(allowed), str(other)],
        env=child_environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        check=True,
        timeout=8,
    )
    results = json.loads(done.stdout)
    assert results.pop("allowed") == 0
    if os.geteuid() == 0 and not can_become_nobody():
        # The kernel exempts the host's own user 0 from RLIMIT_NPROC, and here nobody else can be become.
        del results["fork"]
    assert all(results.values()), results


def greet(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"READY HTTP/1.1 \x0bMSH")


@pytest.mark.parametrize(
    "make",
    [
        lambda port: HttpProbe(port=port),
        lambda port: HttpProbe(port=port, tls=True),
        lambda port: PostgresProbe(port=port),
        lambda port: MllpProbe(port=port),
        lambda port: DicomProbe(port=port),
        lambda port: FhirProbe(port=port),
        lambda port: LdapProbe(port=port),
        lambda port: LdapProbe(port=port, tls=True),
        lambda port: KerberosProbe(port=port, realm="A"),
        lambda port: SmbProbe(port=port),
        lambda port: DnsProbe(port=port, name="a.example", transport=Protocol.TCP),
        lambda port: MssqlProbe(port=port),
        lambda port: Quorum(1, (SmbProbe(port=port), LdapProbe(port=port, tls=True))),
    ],
)
def test_every_protocol_judges_inside_the_sandbox_what_it_judges_outside(
    make: Callable[[int], Probe], peer: Peer, reply: Callable[[bytes], Handler]
) -> None:
    said = reply(b"\x0bMSH|^~\\&|\xff\x1c\x0d\x1c\x0d")
    probe = make(peer(said))
    spec = Spec(LOOPBACK, (probe,), PACE)
    outside = child.attempt_round(child.load((probe,)), spec, connect_timeout=1)
    with running(probe) as process:
        assert next_round(process) == outside


def test_all_probes_of_a_service_are_attempted(peer: Peer, reply: Callable[[bytes], Handler], closed_port: int) -> None:
    web = HttpProbe(port=peer(reply(b"HTTP/1.1 200 OK\r\n\r\n")), path="/system")
    line = TcpProbe(port=peer(greet), send=b"?", expect=b"READY")
    database = PostgresProbe(port=closed_port)
    with running(web, line, database) as process:
        outcome = next_round(process, 3)
    assert [answer.ok for answer in outcome.answers] == [True, True, False]
    assert outcome.detail == "waiting for PostgreSQL (connection refused)"
    with running(web, line) as process:
        first, second = next_round(process, 2), next_round(process, 2)
    assert first == second
    assert first.detail == f"HTTP 200 on /system; TCP {line.port} answered as expected"


@pytest.mark.parametrize(
    ("probe", "library"),
    [
        (TcpProbe(port=1, expect=b"x"), set()),
        (PostgresProbe(port=1), set()),
        (MllpProbe(port=1), {"hl7"}),
        (SmbProbe(), set()),
        (KerberosProbe("A"), {"pyasn1"}),
        (LdapProbe(), {"pyasn1", "pyasn1_modules"}),
        (DnsProbe("a.example"), {"dns"}),
        (Quorum(1, (SmbProbe(), Quorum(1, (MssqlProbe(),)))), set()),
    ],
)
def test_only_the_libraries_of_the_spec_are_imported(probe: Probe, library: set[str]) -> None:
    program = (
        "import sys; from cleanroomd.probes import child, spec\n"
        "child.load(spec.decode_spec(sys.stdin.buffer.readline()).probes)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(),
        input=encode_spec(Spec(address=LOOPBACK, probes=(probe,))),
        stdout=subprocess.PIPE,
        check=True,
        timeout=8,
    )
    loaded = set(done.stdout.decode().split())
    # ssl's types are named by every connection.
    assert (loaded & LIBRARIES) - {"ssl"} == library
    assert "asyncio" not in loaded


@pytest.mark.parametrize("line", [b"", b"{}\n", b"nonsense\n", b'{"address":"localhost"}\n'])
def test_without_a_spec_nothing_is_probed(line: bytes) -> None:
    done = subprocess.run(
        child_command(), env=child_environment(), input=line, capture_output=True, check=False, timeout=8
    )
    assert done.stdout == b""
    assert done.returncode == (1 if line else 0)


def test_a_child_follows_its_parent_into_death(closed_port: int) -> None:
    """The parent is killed while someone else still holds the child's standard input open."""
    spec = encode_spec(Spec(address=LOOPBACK, probes=(TcpProbe(port=closed_port, expect=b"x"),), pace=PACE))
    program = "import subprocess, sys\nsubprocess.run(sys.argv[1:])"
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, *child_command()],
        env=child_environment(),
        stdin=reader,
        stdout=subprocess.PIPE,
    ) as parent:
        os.close(reader)
        os.write(writer, spec)
        next_round(parent)
        parent.kill()
        assert parent.stdout is not None
        # End of file: no process holds the other end any more.
        while parent.stdout.readline():
            pass
    os.close(writer)


def test_rounds_are_patient_once_ready_and_quick_until_then() -> None:
    spec = Spec(LOOPBACK, (), Pace(interval=1, steady_interval=1000, connect_timeout=0.5, steady_connect_timeout=3))
    outcomes = iter([False, True, True, False, True])
    patience: list[float] = []
    pauses: list[float] = []

    def attempts(connect_timeout: float) -> Round:
        patience.append(connect_timeout)
        return Round((Answer(ok=next(outcomes), detail="x"),))

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) < 5

    said: list[bytes] = []
    child.repeat(attempts, spec, say=said.append, pause=pause)
    assert patience == [0.5, 0.5, 3, 3, 0.5]
    assert [seconds > 1 for seconds in pauses] == [False, True, True, False, True]
    assert [json.loads(line)["ok"] for line in said] == [False, True, True, False, True]


def test_a_fault_in_one_probe_is_an_answer_and_the_others_go_on() -> None:
    def faulty(probe: Probe, address: str, *, timeout: float, connect_timeout: float) -> Answer:
        raise ZeroDivisionError("by \x1b[0m")

    def sound(probe: Probe, address: str, *, timeout: float, connect_timeout: float) -> Answer:
        return Answer(ok=True, detail="fine")

    spec = Spec(LOOPBACK, (TcpProbe(port=1, expect=b"x"), SmbProbe()))
    outcome = child.attempt_round({TcpProbe: faulty, SmbProbe: sound}, spec, connect_timeout=1)
    assert outcome.answers == (
        Answer(ok=False, detail="probe failed: ZeroDivisionError: by [0m"),
        Answer(ok=True, detail="fine"),
    )
    either = Spec(LOOPBACK, (Quorum(1, spec.probes),))
    assert child.attempt_round({TcpProbe: faulty, SmbProbe: sound}, either, connect_timeout=1).ok
