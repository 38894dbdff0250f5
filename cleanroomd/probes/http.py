"""Readiness of HTTP and HTTPS services: a status on a path, and optionally a text in the body."""

import http.client
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cleanroomd.model.plan import HttpProbe
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words
from cleanroomd.probes.tls import require_pin, tls_context

BODY_LIMIT = 1024 * 1024
"""Bytes of answer within which `contains` must occur."""


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


@contextmanager
def get(connection: Connection, path: str, *, host: str, accept: str = "*/*") -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET of `path`, its body still unread. `host` goes into the header of that name.

    Raises HTTPException or UnicodeError when the answer is not HTTP, or the path none.
    """
    client = http.client.HTTPConnection(host)
    client.sock = _ClientSocket(connection)
    client.auto_open = 0
    client.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    client.putheader("Host", host)
    client.putheader("User-Agent", "cleanroomd")
    client.putheader("Accept", accept)
    client.putheader("Connection", "close")
    client.endheaders()
    with client.getresponse() as response:
        yield response


def host_header(address: str, port: int, *, tls: bool) -> str:
    """What the Host header says: the port only where it is not the scheme's own (RFC 9110 section 7.2)."""
    return address if port == (443 if tls else 80) else f"{address}:{port}"


def require_status(response: http.client.HTTPResponse, expect: int) -> None:
    """Return for the status `expect`; UnreadyError with status and reason otherwise."""
    if response.status != expect:
        raise UnreadyError(f"HTTP {response.status} {printable(response.reason or '', 60)}".rstrip())


def _require_text(response: http.client.HTTPResponse, contains: str) -> None:
    wanted = contains.encode()
    untrusted_body = bytearray()
    while wanted not in untrusted_body:
        chunk = response.read1(16 * 1024)
        if not chunk:
            raise UnreadyError(f"the body does not contain {contains!r}")
        untrusted_body += chunk


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
            require_pin(connection, probe.pin)
            with get(connection, probe.path, host=host_header(address, probe.port, tls=probe.tls)) as response:
                require_status(response, probe.expect)
                _require_text(response, probe.contains)
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except (http.client.HTTPException, UnicodeError) as error:
        return waiting(goal, f"the answer is not HTTP: {printable(type(error).__name__)}")
    return Answer(ok=True, detail=goal)
