"""`cleanroomctl plan`, as it is called."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cleanroomd.cli.probes import describe_probe
from cleanroomd.cli.verbs import cli
from cleanroomd.model.plan import (
    DnsProbe,
    FhirProbe,
    GuestAgentProbe,
    HttpProbe,
    KerberosProbe,
    LdapProbe,
    MllpProbe,
    MssqlProbe,
    PostgresProbe,
    Probe,
    Quorum,
    SmbProbe,
    TcpProbe,
)

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "plan.toml"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    text = EXAMPLE.read_text()
    for right, wrong in (
        ('["identity", "record-db"]', '["identitty", "record-db"]'),
        ('"512M"', '"12 potatoes"'),
        ('from = "devices"', 'from = "uplink"'),
    ):
        assert right in text
        text = text.replace(right, wrong, 1)
    file = tmp_path / "plan.toml"
    file.write_text(text)
    return file


def line_of(file: Path, text: str) -> int:
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)


def test_a_plan_without_problem() -> None:
    result = call("check", EXAMPLE)
    assert (result.output, result.exit_code) == (f"{EXAMPLE}: no problem; 5 services, 7 flows\n", 0)
    assert json.loads(call("check", "--json", EXAMPLE).output) == {
        "file": str(EXAMPLE),
        "problems": [],
        "services": 5,
        "flows": 7,
    }


def test_problems_are_listed_with_their_lines(broken: Path) -> None:
    result = call("check", broken)
    assert result.exit_code == 1
    marks = ("identitty", "potatoes", 'from = "uplink"')
    depends_on, memory, flow = (line_of(broken, mark) for mark in marks)
    assert (
        result.output
        == f"""\
{broken}: 3 problems
  service[2].depends_on (line {depends_on}): "identitty" is no service; did you mean "identity"?
  service[4].memory (line {memory}): "12 potatoes" is no size; write for example "12G" or "512M"
  flow[2].from (line {flow}): "uplink" cannot be in a flow; declare a [[window]] and open it with a lease
"""
    )


@pytest.mark.parametrize("verb", ["check", "show"])
def test_problems_in_json(broken: Path, verb: str) -> None:
    result = call(verb, "--json", broken)
    assert result.exit_code == 1
    problems = json.loads(result.output)["problems"]
    assert [problem["path"] for problem in problems] == ["service[2].depends_on", "service[4].memory", "flow[2].from"]
    assert problems[1]["line"] == line_of(broken, "potatoes")


@pytest.mark.parametrize("verb", ["check", "show"])
def test_a_file_that_is_not_there(tmp_path: Path, verb: str) -> None:
    result = call(verb, tmp_path / "plan.toml")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cannot read the plan {tmp_path}/plan.toml: there is no such file\n  ")
    assert result.stdout == ""


def test_a_plan_in_words() -> None:
    result = call("show", EXAMPLE)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "Caisson 1, GHT Vaucluse, to be ready within 30 min"
    services = [line.split()[1] for line in lines if line[1:2].isdigit() and line[0] == " "]
    assert services == ["identity", "record", "imaging", "record-db", "laboratory"]
    for said in (
        "    10.1.20.14, 02:f6:e9:ce:c9:2c; memory 4 GiB, at least 2 GiB; warm start",
        "    UEFI firmware; disks on sata, network card e1000",
        "    after identity, record-db",
        "    ready when DICOM C-ECHO to ORTHANC on 4242 answers; HTTP /system on 8042 answers 200; within 3 min",
        "devices is 10.1.30.0/24 behind port care, VLAN 30",
        "workstations may connect to imaging, tcp 4242, 8042",
        "lease backup-feed: imaging to 192.168.40.10 on the uplink, tcp 443, at most 15 min",
    ):
        assert said in lines


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (HttpProbe(443, tls=True, pin="0a"), "HTTPS / on 443 answers 200 with certificate sha256:0a"),
        (HttpProbe(80, contains="é"), 'HTTP / on 80 answers 200 and contains "é"'),
        (TcpProbe(5000, expect=b"PONG"), 'TCP 5000 answers "PONG"'),
        (PostgresProbe(5432, database="record"), "PostgreSQL on 5432 accepts connections to record"),
        (MllpProbe(2575), "MLLP on 2575 acknowledges (AA, CA)"),
        (FhirProbe(8080, base="/fhir"), "FHIR over HTTP /fhir on 8080 states its capabilities"),
        (LdapProbe(636, tls=True, suffix="dc=a"), "LDAPS on 636 answers and holds dc=a"),
        (KerberosProbe("A", principal="b"), "Kerberos on 88 answers for A and knows b"),
        (SmbProbe(), "SMB on 445 agrees on a dialect"),
        (DnsProbe("a.example", accept=("NOERROR", "REFUSED")),
         "DNS on udp 53 answers A of a.example (NOERROR, REFUSED)"),
        (GuestAgentProbe(),
         "the guest agent answers (the system runs, which does not show that an application serves)"),
        (MssqlProbe(), "SQL Server on 1433 answers"),
        (Quorum(1, (SmbProbe(), MssqlProbe())), "any of (SMB on 445 agrees on a dialect; SQL Server on 1433 answers)"),
        (Quorum(1, (Quorum(1, (MssqlProbe(),)), SmbProbe())),
         "any of (all of (SQL Server on 1433 answers); SMB on 445 agrees on a dialect)"),
        (Quorum(2, (MssqlProbe(1), MssqlProbe(2), MssqlProbe(3))),
         "2 of (SQL Server on 1 answers; SQL Server on 2 answers; SQL Server on 3 answers)"),
    ],
)  # fmt: skip
def test_a_probe_in_words(probe: Probe, words: str) -> None:
    assert describe_probe(probe) == words


def test_a_plan_in_json() -> None:
    document = json.loads(call("show", "--json", EXAMPLE).output)
    imaging = document["services"][3]
    assert imaging["memory"] == 4 << 30
    assert imaging["ready"][0] == {"protocol": "dicom", "port": 4242, "aet": "ORTHANC", "calling_aet": "CLEANROOM"}
    assert document["windows"][0]["longest"] == 900.0
    assert document["zones"][0]["dhcp"] == {"first": "10.77.0.100", "last": "10.77.0.199"}


def test_the_schema_is_json() -> None:
    assert json.loads(call("schema").output)["properties"]["service"]["items"] == {"$ref": "#/$defs/ServiceTable"}
