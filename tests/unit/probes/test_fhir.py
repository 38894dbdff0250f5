"""No FHIR server of PyPI is kept well enough to test against: the peer here is the standard library's HTTP server."""

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from cleanroomd.model.plan import FhirProbe
from cleanroomd.probes import fhir
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK

STATEMENT = {"resourceType": "CapabilityStatement", "status": "active", "kind": "instance", "fhirVersion": "4.0.1"}
OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-supported"}]}


class Server(ThreadingHTTPServer):
    """Serves documents by path, as FHIR's JSON to whoever accepts that."""

    documents: dict[str, Any]


class Resource(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        document = self.server.documents.get(self.path)
        wanted = self.headers["Accept"] == "application/fhir+json"
        self.send_response(404 if document is None else 200 if wanted else 406)
        self.send_header("Content-Type", "application/fhir+json")
        self.end_headers()
        self.wfile.write(json.dumps(OUTCOME if document is None else document).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it
        return


@contextlib.contextmanager
def serving(documents: dict[str, Any], context: ssl.SSLContext | None = None) -> Iterator[int]:
    with Server((LOOPBACK, 0), Resource) as server:
        server.documents = documents
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


Attempt = Callable[..., Answer]


@pytest.fixture
def attempt() -> Iterator[Attempt]:
    """The probe's judgement of a server with one document on a path."""
    with contextlib.ExitStack() as stack:

        def judge(document: Any, *, path: str = "/metadata", base: str = "") -> Answer:
            port = stack.enter_context(serving({path: document}))
            return fhir.attempt(FhirProbe(port=port, base=base), LOOPBACK, timeout=5, connect_timeout=5)

        yield judge


@pytest.mark.parametrize("version", ["4.0.1", "5.0.0", "3.0.2"])
def test_a_capability_statement_is_ready(attempt: Attempt, version: str) -> None:
    said = STATEMENT | {"fhirVersion": version}
    assert attempt(said) == Answer(ok=True, detail=f"FHIR {version} on /")
    below = attempt(said, path="/fhir/r4/metadata", base="/fhir/r4")
    assert below == Answer(ok=True, detail=f"FHIR {version} on /fhir/r4")


@pytest.mark.parametrize("status", ["draft", "active", "retired", "unknown"])
def test_the_status_of_the_document_is_not_the_servers(attempt: Attempt, status: str) -> None:
    assert attempt(STATEMENT | {"status": status}).ok


def test_a_statement_of_a_megabyte_is_read(attempt: Attempt) -> None:
    rest = [{"mode": "server", "documentation": "x" * 1000}] * 1500
    assert attempt(STATEMENT | {"rest": rest}).ok


def test_one_of_many_megabytes_is_not(attempt: Attempt) -> None:
    assert "too long" in attempt(STATEMENT | {"text": "x" * fhir.BODY_LIMIT}).detail


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (OUTCOME, "the answer is OperationOutcome, not a CapabilityStatement"),
        ({"resourceType": "Pa\x1b[2Jtient"}, "the answer is Pa[2Jtient, not a CapabilityStatement"),
        ({"resourceType": ["CapabilityStatement"]}, "the answer is no resource, not a CapabilityStatement"),
        ([STATEMENT], "the answer is no resource, not a CapabilityStatement"),
        ("CapabilityStatement", "the answer is no resource, not a CapabilityStatement"),
        (STATEMENT | {"fhirVersion": ""}, "the CapabilityStatement has no FHIR version or no status"),
        (STATEMENT | {"fhirVersion": 4}, "the CapabilityStatement has no FHIR version or no status"),
        (STATEMENT | {"status": "up"}, "the CapabilityStatement has no FHIR version or no status"),
        (STATEMENT | {"status": ["active"]}, "the CapabilityStatement has no FHIR version or no status"),
    ],
)
def test_another_document_is_not_ready(attempt: Attempt, document: Any, why: str) -> None:
    goal = "waiting for the FHIR CapabilityStatement on /"
    assert attempt(document) == Answer(ok=False, detail=f"{goal} ({why})")


def test_another_status_is_not_ready(attempt: Attempt) -> None:
    answer = attempt(STATEMENT, path="/fhir/metadata")
    assert answer.detail == "waiting for the FHIR CapabilityStatement on / (HTTP 404 Not Found)"


@pytest.mark.parametrize("body", [b"", b"<CapabilityStatement/>", b"{", b"[" * 100_000, b"\xff\xfe", b"9" * 5000])
def test_what_is_not_json_is_not_ready(body: bytes) -> None:
    with pytest.raises(fhir.UnreadyError):
        fhir.judge(body)


def test_a_pin_holds_here_too(server_tls: ssl.SSLContext) -> None:
    with serving({"/metadata": STATEMENT}, server_tls) as port:
        plain, pinned = FhirProbe(port=port, tls=True), FhirProbe(port=port, tls=True, pin="0a" * 32)
        assert fhir.attempt(plain, LOOPBACK, timeout=5, connect_timeout=5).ok
        assert "another one" in fhir.attempt(pinned, LOOPBACK, timeout=5, connect_timeout=5).detail
