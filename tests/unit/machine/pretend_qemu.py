"""A program that speaks QMP and guest agent on the sockets that it inherits, as QEMU and a guest would.

Its folder has a file `conduct`, with words for what the guest does: "heeds" the power button, and its agent "obeys",
"refuses" or "ignores" a shutdown, or is "absent". What it was told is appended to the file `told`, a line each.
"""

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(sys.argv[0]).parent
CONDUCT = (HERE / "conduct").read_text().split()
ENDED = threading.Event()


def told(what: str) -> None:
    with (HERE / "told").open("a") as stream:
        stream.write(f"{what}\n")


def requests(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """A client of QMP need not end its lines."""
    held = ""
    while data := connection.recv(4096):
        held += data.decode()
        with suppress(ValueError):
            document, end = json.JSONDecoder().raw_decode(held)
            held = held[end:].lstrip()
            yield document


def qmp(connection: socket.socket) -> None:
    def say(document: object) -> None:
        connection.sendall(json.dumps(document).encode() + b"\n")

    say({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}})
    for request in requests(connection):
        command = request["execute"]
        told(command)
        returned = {"running": True, "status": "running"} if command == "query-status" else {}
        say({"return": returned} | ({"id": request["id"]} if "id" in request else {}))
        if command == "quit" or (command == "system_powerdown" and "heeds" in CONDUCT):
            ENDED.set()


def agent(connection: socket.socket) -> None:
    stream = connection.makefile("rwb", buffering=0)
    while line := stream.readline():
        if "absent" in CONDUCT:
            continue
        request = json.loads(line.lstrip(b"\xff"))
        told(request["execute"])
        if request["execute"] == "guest-sync-delimited":
            stream.write(b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n")
        elif "obeys" in CONDUCT:
            ENDED.set()
        elif "refuses" in CONDUCT:
            stream.write(b'{"error": {"class": "CommandNotFound", "desc": "it has been disabled"}}\n')


def serve(name: str, conversation: Callable[[socket.socket], None]) -> None:
    """One client at a time, as QEMU does."""
    inherited = re.search(rf"socket,id={name},fd=(\d+)", " ".join(sys.argv))
    assert inherited is not None
    with socket.socket(fileno=int(inherited[1])) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                conversation(connection)


for named, conversing in (("qmp", qmp), ("agent", agent)):
    threading.Thread(target=serve, args=(named, conversing), daemon=True).start()
ENDED.wait()
