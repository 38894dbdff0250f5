"""Peers on loopback that answer as a test wants them to, truthful or not."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Handler = Callable[[socket.socket], None]
Peer = Callable[[Handler], int]

LOOPBACK = "127.0.0.1"


def _serve(listener: socket.socket, handler: Handler) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            handler(connection)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Start a peer that treats each connection with the given handler; returns its port."""
    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> int:
            listener = socket.create_server((LOOPBACK, 0))
            thread = threading.Thread(target=_serve, args=(listener, handler))
            thread.start()

            def stop() -> None:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()
                thread.join()

            stack.callback(stop)
            return int(listener.getsockname()[1])

        yield start


@pytest.fixture
def closed_port() -> int:
    """A port at which nothing listens."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def reply() -> Callable[[bytes], Handler]:
    """A handler that reads one request, says these bytes and closes in good order."""

    def make(payload: bytes) -> Handler:
        def handle(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(payload)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

        return handle

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for another name, in one file."""
    path = tmp_path_factory.mktemp("tls") / "machine.pem"
    # fmt: off
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=dpi.hospital.example",
         "-days", "1", "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )
    # fmt: on
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture(scope="session")
def server_tls(certificate: Path) -> ssl.SSLContext:
    """TLS of a server that shows `certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def secured(server_tls: ssl.SSLContext) -> Callable[[Handler], Handler]:
    """The same handler behind TLS."""

    def secure(handler: Handler) -> Handler:
        def handle(connection: socket.socket) -> None:
            with server_tls.wrap_socket(connection, server_side=True) as inside:
                handler(inside)

        return handle

    return secure
