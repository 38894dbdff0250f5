"""Readiness of a machine's system, by its QEMU guest agent: it shows that the system runs, not that anything serves.

The agent is reached over a virtual serial port and not over the network, so nothing has to be opened for it, and a
machine whose network is broken is ready by it all the same.
"""

import secrets
import socket

from cleanroomd.agent_protocol import (
    REPLY_LIMIT,
    AgentAnswerError,
    AgentRefusalError,
    Incoming,
    agent_version,
    request,
    sync_request,
)
from cleanroomd.model.plan import GuestAgentProbe
from cleanroomd.probes import handover
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import Connection, Deadline, in_words


def converse(connection: Connection) -> str:
    """The agent's version, after it has shown that it answers us and nobody else."""
    incoming = Incoming()
    number = secrets.randbits(31)
    connection.sendall(sync_request(number))
    while not incoming.synchronised(number):
        incoming.feed(connection.receive())
    connection.sendall(request("guest-info"))
    while (info := incoming.answer()) is None:
        incoming.feed(connection.receive())
    return agent_version(info)


def attempt(
    _probe: GuestAgentProbe,
    _address: str,
    *,
    timeout: float,
    connect_timeout: float = 0.0,  # noqa: ARG001 QEMU takes the connection at once, whatever the machine does
    agents: socket.socket,
) -> Answer:
    """Ready when the agent answers guest-sync-delimited and names its version; `agents` hands over connections.

    What is asked waits in QEMU until the agent starts, so an attempt takes all its time where there is none yet, and
    the answer comes as soon as there is one.
    """
    deadline = Deadline(timeout)
    try:
        with Connection(handover.ask(agents, deadline), deadline, REPLY_LIMIT) as connection:
            version = converse(connection)
    except AgentRefusalError as refusal:
        return waiting("guest agent", f"it refused: {printable(str(refusal))}")
    except AgentAnswerError as error:
        return waiting("guest agent", str(error))
    except (UnreadyError, OSError) as error:
        return waiting("guest agent", in_words(error))
    return Answer(ok=True, detail=f"guest agent {version} answered")
