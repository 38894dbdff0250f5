"""Readiness of a service with a protocol of its own: bytes that the plan sends, bytes that it expects."""

from cleanroomd.model.plan import TcpProbe
from cleanroomd.probes.answer import Answer, UnreadyError, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, in_words


def attempt(probe: TcpProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when `probe.expect` occurs in what is read (64 KiB at most) after `probe.send` was written.

    An empty `expect` is never ready: forwarders accept a bare connection long before the machine listens.
    """
    goal = f"the expected answer on TCP {probe.port}"
    if not probe.expect:
        return waiting(goal, "the plan expects no bytes, and a bare connection proves nothing")
    try:
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            if probe.send:
                connection.sendall(probe.send)
            untrusted = bytearray()
            while probe.expect not in untrusted:
                chunk = connection.receive()
                if not chunk:
                    raise UnreadyError("the connection was closed")
                untrusted += chunk
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    return Answer(ok=True, detail=f"TCP {probe.port} answered as expected")
