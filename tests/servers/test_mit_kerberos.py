"""The Kerberos probe and the server of Debian's `krb5-kdc` package."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroomd.model.plan import KerberosProbe

from .conftest import Running, Watch

pytestmark = pytest.mark.timeout(120)

PORT = 8800
REALM = "HOSPITAL.EXAMPLE"


@pytest.fixture
def with_configuration(directory: Path) -> list[str]:
    """The command prefix that gives a program the configuration of a KDC in `directory`."""
    (directory / "krb5.conf").write_text(f"[libdefaults]\ndefault_realm = {REALM}\n")
    (directory / "kdc.conf").write_text(f"""\
[kdcdefaults]
kdc_listen = ""
kdc_tcp_listen = 127.0.0.1:{PORT}
[realms]
{REALM} = {{
  database_name = {directory}/principal
  key_stash_file = {directory}/stash
  acl_file = {directory}/acl
}}
[logging]
kdc = FILE:{directory}/kdc.log
""")
    return ["env", f"KRB5_CONFIG={directory}/krb5.conf", f"KRB5_KDC_PROFILE={directory}/kdc.conf"]


@pytest.fixture
def realm(running: Running, with_configuration: list[str], directory: Path) -> None:
    """A new realm, which has principals of its own only."""
    create = ["/usr/sbin/kdb5_util", "create", "-s", "-r", REALM, "-P", os.urandom(8).hex()]
    with running([*with_configuration, *create]) as process:
        assert process.wait() == 0, (directory / "server.log").read_text()


@pytest.mark.usefixtures("realm")
async def test_a_kdc_is_ready_by_its_answer(
    running: Running, with_configuration: list[str], directory: Path, watch: Watch
) -> None:
    answers = watch(KerberosProbe(port=PORT, realm=REALM))
    assert (await answers.until("")).detail == f"waiting for Kerberos {REALM} (connection refused)"
    with running([*with_configuration, "/usr/sbin/krb5kdc", "-n"]):
        ready = await answers.until("answered")
        assert (ready.ok, ready.detail) == (True, f"Kerberos {REALM} answered (principal unknown)")
        missing = await watch(KerberosProbe(port=PORT, realm=REALM, principal="surgeon")).until("surgeon")
        assert (missing.ok, missing.detail) == (
            False,
            f"waiting for Kerberos {REALM} (surgeon is unknown in {REALM})",
        )
        changing = KerberosProbe(port=PORT, realm=REALM, principal="kadmin/changepw")
        assert (await watch(changing).until("answered (ticket given)")).ok
        assert not (await watch(replace(changing, realm="OTHER.EXAMPLE")).until("is unknown in OTHER.EXAMPLE")).ok
    assert not (await answers.until("connection refused")).ok
