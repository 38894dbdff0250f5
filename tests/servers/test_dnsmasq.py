"""The DNS probe and the server of Debian's `dnsmasq-base` package."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cleanroomd.model.plan import DnsProbe, Protocol

from .conftest import LOOPBACK, Running, Watch

pytestmark = pytest.mark.timeout(120)

PORT = 5300
NAME = "dc1.hospital.example"
LONG = "long.hospital.example"
COMMAND = [
    "/usr/sbin/dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--pid-file=",
    "--no-resolv",
    "--no-hosts",
    "--bind-interfaces",
    f"--port={PORT}",
    f"--listen-address={LOOPBACK}",
    "--local=/hospital.example/",
    f"--host-record={NAME},10.1.20.10",
    *(f"--txt-record={LONG},{number:0250}" for number in range(4)),
]
PROBE = DnsProbe(name=NAME, port=PORT)


@pytest.mark.parametrize("transport", Protocol)
async def test_a_name_server_is_ready_by_its_answer(running: Running, watch: Watch, transport: Protocol) -> None:
    probe = replace(PROBE, transport=transport)
    answers = watch(probe)
    assert (await answers.until("")).detail == f"waiting for DNS A of {NAME} (connection refused)"
    with running(COMMAND):
        ready = await answers.until("answered")
        assert (ready.ok, ready.detail) == (True, f"DNS A of {NAME} answered (NOERROR)")
    assert not (await answers.until("connection refused")).ok


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda probe: replace(probe, name="nobody.hospital.example"), "NXDOMAIN"),
        (lambda probe: replace(probe, record="AAAA"), "no such record"),
        (lambda probe: replace(probe, name="elsewhere.example"), "REFUSED"),
    ],
)
async def test_a_name_that_it_does_not_have_is_not_ready(
    running: Running, watch: Watch, change: Callable[[DnsProbe], DnsProbe], detail: str
) -> None:
    answers = watch(change(PROBE))
    with running(COMMAND):
        missing = await answers.until(detail)
    assert not missing.ok


async def test_a_refusal_is_ready_where_the_plan_says_so(running: Running, watch: Watch) -> None:
    answers = watch(replace(PROBE, name="nobody.hospital.example", accept=("NXDOMAIN",)))
    with running(COMMAND):
        assert (await answers.until("answered (NXDOMAIN)")).ok


@pytest.mark.parametrize("transport", Protocol)
async def test_an_answer_too_long_for_a_datagram_is_one(running: Running, watch: Watch, transport: Protocol) -> None:
    answers = watch(replace(PROBE, name=LONG, record="TXT", transport=transport))
    with running(COMMAND):
        assert (await answers.until("answered (NOERROR)")).ok
