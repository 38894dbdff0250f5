"""Readiness of HTTP and HTTPS services: a status on a path, and optionally a text in the body.

A restored machine shows the certificate that it always had: usually self-signed, often expired, for a name
that nothing here resolves. So TLS is transport only: no chain, name or date is checked, and old protocol
versions are accepted as far as OpenSSL still speaks them. That is no loss, since the routed tap, not a
certificate, says which machine answers.
"""

import functools
import http.client
import io
import ssl
from typing import Any

from cleanroomd.model.plan import HttpProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words

BODY_LIMIT = 1024 * 1024
"""Bytes of answer within which `contains` must occur; a FHIR capability statement fits."""

_LEGACY_SERVER_CONNECT = 0x4
"""SSL_OP_LEGACY_SERVER_CONNECT: servers without secure renegotiation (Python's ssl names it since 3.12)."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The one context; the first call reads OpenSSL's configuration file, so make it before the sandbox."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.options |= _LEGACY_SERVER_CONNECT
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


class _ClientSocket:
    """What http.client uses of a socket. It closes it before the body is read; the connection's `with` does so."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def sendall(self, data: Any) -> None:
        self._connection.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._connection)

    def close(self) -> None:
        return


def _get(connection: Connection, probe: HttpProbe, address: str) -> int:
    """The status of the answer, once the body was found to contain what it should."""
    client = http.client.HTTPConnection(address, probe.port)
    client.sock = _ClientSocket(connection)
    client.auto_open = 0
    default_port = probe.port == (443 if probe.tls else 80)
    client.putrequest("GET", probe.path, skip_host=True, skip_accept_encoding=True)
    client.putheader("Host", address if default_port else f"{address}:{probe.port}")
    client.putheader("User-Agent", "cleanroomd")
    client.putheader("Accept", "*/*")
    client.putheader("Connection", "close")
    client.endheaders()
    with client.getresponse() as response:
        if response.status != probe.expect:
            raise UnreadyError(f"HTTP {response.status} {printable(response.reason or '', 60)}".rstrip())
        wanted = probe.contains.encode()
        untrusted_body = bytearray()
        while wanted not in untrusted_body:
            chunk = response.read1(16 * 1024)
            if not chunk:
                raise UnreadyError(f"the body does not contain {probe.contains!r}")
            untrusted_body += chunk
        return response.status


def attempt(probe: HttpProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when a GET of `probe.path` answers `probe.expect`, with `probe.contains` in the body if given.

    Redirections are answers like any other: they are not followed.
    """
    goal = f"HTTP {probe.expect} on {probe.path}"
    try:
        with Connection.open(
            address,
            probe.port,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=tls_context() if probe.tls else None,
            budget=BODY_LIMIT,
        ) as connection:
            status = _get(connection, probe, address)
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except (http.client.HTTPException, UnicodeError) as error:
        return waiting(goal, f"the answer is not HTTP: {printable(type(error).__name__)}")
    return Answer(ok=True, detail=f"HTTP {status} on {probe.path}")
