import contextlib
import hashlib
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cleanroomd.model.plan import HttpProbe
from cleanroomd.plan import units
from cleanroomd.probes import http
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer

CAPABILITY = b'{"resourceType": "CapabilityStatement"}'


class Record(BaseHTTPRequestHandler):
    """A patient record: /login is open, /system wants a password, / redirects, anything else is unknown."""

    def do_GET(self) -> None:
        status = {"/login": 200, "/metadata": 200, "/system": 401, "/": 302}.get(self.path, 404)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(b" " * 50_000 + CAPABILITY if self.path == "/metadata" else b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it
        return


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer((LOOPBACK, 0), Record) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def record() -> Iterator[int]:
    with serving() as port:
        yield port


def attempt(port: int, path: str, **options: object) -> Answer:
    probe = HttpProbe(port=port, path=path, **options)  # type: ignore[arg-type]
    return http.attempt(probe, LOOPBACK, timeout=5, connect_timeout=5)


def test_the_expected_status_is_ready(record: int) -> None:
    assert attempt(record, "/login") == Answer(ok=True, detail="HTTP 200 on /login")


def test_a_refusal_is_ready_where_the_plan_says_so(record: int) -> None:
    assert attempt(record, "/system", expect=401) == Answer(ok=True, detail="HTTP 401 on /system")


@pytest.mark.parametrize(
    ("path", "why"), [("/system", "HTTP 401 Unauthorized"), ("/", "HTTP 302 Found"), ("/x", "HTTP 404 Not Found")]
)
def test_another_status_is_not_ready(record: int, path: str, why: str) -> None:
    assert attempt(record, path) == Answer(ok=False, detail=f"waiting for HTTP 200 on {path} ({why})")


def test_the_body_must_contain_what_the_plan_wants(record: int) -> None:
    assert attempt(record, "/metadata", contains="CapabilityStatement").ok
    missing = attempt(record, "/metadata", contains="Patient")
    assert not missing.ok
    assert "the body does not contain 'Patient'" in missing.detail


def test_a_self_signed_certificate_for_another_name_is_accepted(server_tls: ssl.SSLContext) -> None:
    with serving(server_tls) as port:
        assert attempt(port, "/login", tls=True) == Answer(ok=True, detail="HTTP 200 on /login")
        assert not attempt(port, "/login").ok


def test_a_pinned_certificate_must_be_the_one_shown(server_tls: ssl.SSLContext, certificate: Path) -> None:
    said = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"], check=True, capture_output=True
    ).stdout.decode()
    pin = units.pin("sha256:" + said.partition("=")[2].strip())
    with serving(server_tls) as port:
        assert attempt(port, "/login", tls=True, pin=pin) == Answer(ok=True, detail="HTTP 200 on /login")
        other = attempt(port, "/login", tls=True, pin="00" + pin[2:])
    assert other == Answer(
        ok=False, detail=f"waiting for HTTP 200 on /login (the certificate is another one, sha256:{pin})"
    )


def test_nothing_is_asked_of_a_machine_with_another_certificate(
    peer: Peer, secured: Callable[[Handler], Handler]
) -> None:
    received: list[bytes] = []
    port = peer(secured(lambda connection: received.append(connection.recv(99))))
    assert "another one" in attempt(port, "/", tls=True, pin="0a" * 32).detail
    assert b"".join(received) == b""


def test_a_pin_is_never_met_without_tls(record: int) -> None:
    assert not attempt(record, "/login", pin=hashlib.sha256(b"").hexdigest()).ok


def test_tls_1_0_of_an_old_machine_is_accepted(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    context.load_cert_chain(certificate)
    with serving(context) as port:
        assert attempt(port, "/login", tls=True).ok


def test_https_to_a_plain_port_is_not_ready(record: int) -> None:
    answer = attempt(record, "/login", tls=True)
    assert not answer.ok
    assert "TLS" in answer.detail


def test_a_reason_phrase_cannot_write_to_the_terminal(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    port = peer(reply(b"HTTP/1.1 503 \x1b[2J\x07starting\r\n\r\n"))
    assert attempt(port, "/").detail == "waiting for HTTP 200 on / (HTTP 503 [2Jstarting)"


def test_the_request_is_one_get_for_the_path(peer: Peer) -> None:
    requests: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        requests.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    port = peer(handle)
    assert attempt(port, "/ws?x=1").ok
    assert requests == [
        f"GET /ws?x=1 HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nUser-Agent: cleanroomd\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n".encode()
    ]


def test_a_path_cannot_smuggle_a_second_request(record: int) -> None:
    assert not attempt(record, "/login HTTP/1.1\r\n\r\nDELETE /patient").ok
