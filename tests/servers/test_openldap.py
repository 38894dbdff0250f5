"""The LDAP probe and the server of Debian's `slapd` package."""

from pathlib import Path

import pytest

from cleanroomd.model.plan import LdapProbe, Quorum, SmbProbe

from .conftest import LOOPBACK, Running, Watch

pytestmark = pytest.mark.timeout(120)

PORT = 3890
SUFFIX = "dc=hospital,dc=example"


@pytest.fixture
def closed(configuration: Path) -> Path:
    """The same for a server that shows nothing to the anonymous."""
    configuration.write_text(f"require authc\n{configuration.read_text()}")
    return configuration


@pytest.fixture
def configuration(directory: Path) -> Path:
    data = directory / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    path = directory / "slapd.conf"
    path.write_text(f"""\
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "{SUFFIX}"
directory {data}
maxsize 10485760
""")
    return path


def command(configuration: Path) -> list[str | Path]:
    """In the foreground, with nothing to say."""
    return ["/usr/sbin/slapd", "-f", configuration, "-h", f"ldap://{LOOPBACK}:{PORT}/", "-d", "0"]


async def test_openldap_is_ready_by_its_root_dse(running: Running, configuration: Path, watch: Watch) -> None:
    answers = watch(LdapProbe(port=PORT, suffix="DC=Hospital, DC=Example"))
    assert (await answers.until("")).detail == "waiting for LDAP (connection refused)"
    with running(command(configuration)):
        ready = await answers.until("answered")
        assert (ready.ok, ready.detail) == (True, "LDAP answered")
        other = await watch(LdapProbe(port=PORT, suffix="dc=other")).until("not dc=other")
        assert (other.ok, other.detail) == (False, f"waiting for LDAP (it holds {SUFFIX}, not dc=other)")
    assert not (await answers.until("connection refused")).ok


async def test_a_directory_that_wants_a_login_is_ready_unless_it_must_say_what_it_holds(
    running: Running, closed: Path, watch: Watch
) -> None:
    with running(command(closed)):
        ready = await watch(LdapProbe(port=PORT)).until("answered")
        assert (ready.ok, ready.detail) == (True, "LDAP answered (asks for a login)")
        unseen = await watch(LdapProbe(port=PORT, suffix=SUFFIX)).until("result")
        assert (unseen.ok, unseen.detail) == (False, "waiting for LDAP (result 53: authentication required)")


async def test_one_of_several_probes_is_enough(running: Running, configuration: Path, watch: Watch) -> None:
    either = watch(Quorum(1, (SmbProbe(port=PORT + 1), LdapProbe(port=PORT))))
    neither = "0 of 1 answered: waiting for SMB (connection refused); waiting for LDAP (connection refused)"
    assert (await either.until("")).detail == neither
    with running(command(configuration)):
        ready = await either.until("LDAP answered")
        assert (ready.ok, ready.detail) == (True, "LDAP answered")
        both = await watch(Quorum(2, (LdapProbe(port=PORT), SmbProbe(port=PORT + 1)))).until("")
        assert (both.ok, both.detail) == (False, "waiting for SMB (connection refused)")
