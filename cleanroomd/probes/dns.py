"""Readiness of a name server: one question, over UDP or TCP.

RFC 1035 sections 4.1 (messages), 4.2.1 (UDP) and 4.2.2 (TCP). The question is asked without EDNS, which servers of old
take for an error; an answer that does not fit a datagram for that reason is one all the same.
"""

import contextlib
import socket

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype

from cleanroomd.model.plan import DnsProbe, Protocol
from cleanroomd.probes.answer import Answer, UnreadyError, printable, waiting
from cleanroomd.probes.connection import CONNECT_TIMEOUT, Connection, Deadline, in_words

_DATAGRAMS = 16
"""More of them that are no answer to our question than this come from no name server."""

_LONGEST_DATAGRAM = 64 * 1024

DECODE_ERRORS = (dns.exception.DNSException, ValueError, TypeError, LookupError, AssertionError)
"""What dnspython raises on bytes that are not DNS."""

# It would import the module of each record type when it first meets one, which the sandbox would not let it.
dns.rdata.load_all_types()  # type: ignore[no-untyped-call]


def question(probe: DnsProbe) -> dns.message.Message:
    """The question, with an unguessable identifier, and recursion desired."""
    return dns.message.make_query(probe.name, dns.rdatatype.from_text(probe.record), use_edns=False)


def judge(untrusted: bytes, asked: dns.message.Message, accept: tuple[str, ...]) -> str:
    """The response code of the answer to `asked` when it proves it; UnreadyError otherwise."""
    answer = dns.message.from_wire(untrusted)
    if not asked.is_response(answer):
        raise UnreadyError("the answer is to another question")
    code = dns.rcode.to_text(answer.rcode())
    if code not in accept:
        raise UnreadyError(code)
    if answer.rcode() == dns.rcode.NOERROR and not answer.answer and not answer.flags & dns.flags.TC:
        raise UnreadyError("no such record")
    return code


def _exchange(sock: socket.socket, query: bytes, *, deadline: Deadline, patience: float) -> bytes:
    """The first datagram with the query's identifier. What was lost is asked again every `patience` seconds."""
    left = _DATAGRAMS
    while True:
        again = Deadline(min(patience, deadline.remaining()))
        sock.send(query)
        with contextlib.suppress(TimeoutError):
            while left:
                sock.settimeout(again.remaining())
                untrusted = sock.recv(_LONGEST_DATAGRAM)
                if untrusted[:2] == query[:2]:
                    return untrusted
                left -= 1
            raise UnreadyError("what it sends is no answer")


def _ask(query: bytes, probe: DnsProbe, address: str, *, timeout: float, connect_timeout: float) -> bytes:
    if probe.transport is Protocol.TCP:
        with Connection.open(address, probe.port, timeout=timeout, connect_timeout=connect_timeout) as connection:
            connection.sendall(len(query).to_bytes(2) + query)
            return connection.receive_exactly(int.from_bytes(connection.receive_exactly(2)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # Connected, so that only the machine's own datagrams arrive, and its refusal is heard of.
        sock.connect((address, probe.port))
        return _exchange(sock, query, deadline=Deadline(timeout), patience=connect_timeout)


def attempt(probe: DnsProbe, address: str, *, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Answer:
    """Ready when the response code is one of `probe.accept`, and where that is NOERROR, there is a record."""
    goal = f"DNS {probe.record} of {probe.name}"
    try:
        asked = question(probe)
        untrusted = _ask(asked.to_wire(), probe, address, timeout=timeout, connect_timeout=connect_timeout)
        code = judge(untrusted, asked, probe.accept)
    except (UnreadyError, OSError) as error:
        return waiting(goal, in_words(error))
    except DECODE_ERRORS as error:
        return waiting(goal, f"the answer is not DNS: {printable(type(error).__name__)}")
    return Answer(ok=True, detail=f"{goal} answered ({code})")
