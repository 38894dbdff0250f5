"""Readiness of a FHIR server: its capability statement.

FHIR R4, "RESTful API": the capabilities interaction and the media type of JSON; resource CapabilityStatement. Every
server has to give it; nothing of any patient is asked for.
"""

import functools
import http.client
import json
from typing import Any

from cleanroomd.model.plan import FhirProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words
from cleanroomd.probes.http import get, host_header, require_status
from cleanroomd.probes.tls import require_pin, tls_context

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of a statement; those that list every resource and search parameter of R4 have about 1 MiB."""

_JSON = "application/fhir+json"

_STATUS = frozenset({"draft", "active", "retired", "unknown"})
"""PublicationStatus, required. It is the document's, not the server's: any of them will do."""


def judge(untrusted_body: bytes) -> str:
    """The FHIR version of the capability statement in a body; UnreadyError when it is none."""
    try:
        untrusted = json.loads(untrusted_body)
    except (ValueError, RecursionError):
        raise UnreadyError("the answer is not JSON") from None
    kind = _text(untrusted, "resourceType")
    if kind != "CapabilityStatement":
        raise UnreadyError(f"the answer is {printable(kind, 40) or 'no resource'}, not a CapabilityStatement")
    version = printable(_text(untrusted, "fhirVersion"), 20)
    if not version or _text(untrusted, "status") not in _STATUS:
        raise UnreadyError("the CapabilityStatement has no FHIR version or no status")
    return version


def _read(response: http.client.HTTPResponse) -> bytes:
    """The whole body, in pieces: the length that a machine announces is not memory to set aside."""
    return b"".join(iter(functools.partial(response.read1, 64 * 1024), b""))


def _text(untrusted: Any, key: str) -> str:
    value = untrusted.get(key) if isinstance(untrusted, dict) else None
    return value if isinstance(value, str) else ""


def attempt(probe: FhirProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when `probe.base`/metadata is a CapabilityStatement that names its status and FHIR version."""
    goal = f"the FHIR CapabilityStatement on {probe.base or '/'}"
    try:
        with Connection.open(
            address,
            probe.port,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=tls_context() if probe.tls else None,
            budget=BODY_LIMIT,
        ) as connection:
            require_pin(connection, probe.pin)
            host = host_header(address, probe.port, tls=probe.tls)
            with get(connection, f"{probe.base}/metadata", host=host, accept=_JSON) as response:
                require_status(response, http.client.OK)
                version = judge(_read(response))
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except (http.client.HTTPException, UnicodeError) as error:
        return waiting(goal, f"the answer is not HTTP: {printable(type(error).__name__)}")
    return Answer(ok=True, detail=f"FHIR {version} on {probe.base or '/'}")
