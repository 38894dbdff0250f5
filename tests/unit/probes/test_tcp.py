from collections.abc import Callable

from cleanroomd.model.plan import TcpProbe
from cleanroomd.probes import tcp
from cleanroomd.probes.answer import Answer

from .conftest import LOOPBACK, Handler, Peer


def attempt(port: int, *, expect: bytes, send: bytes = b"?") -> Answer:
    return tcp.attempt(TcpProbe(port=port, expect=expect, send=send), LOOPBACK, timeout=2)


def test_the_expected_bytes_are_ready(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    port = peer(reply(b"\x00\xffPONG\r\n"))
    assert attempt(port, expect=b"PONG") == Answer(ok=True, detail=f"TCP {port} answered as expected")


def test_other_bytes_are_not(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    port = peer(reply(b"-LOADING\r\n"))
    detail = f"waiting for the expected answer on TCP {port} (the connection was closed)"
    assert attempt(port, expect=b"PONG") == Answer(ok=False, detail=detail)


def test_a_greeting_needs_nothing_sent(peer: Peer) -> None:
    port = peer(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"))
    assert attempt(port, send=b"", expect=b"SSH-2.0-").ok


def test_a_bare_connection_proves_nothing(peer: Peer, reply: Callable[[bytes], Handler]) -> None:
    answer = attempt(peer(reply(b"anything")), expect=b"")
    assert not answer.ok
    assert "proves nothing" in answer.detail
