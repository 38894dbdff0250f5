"""An enclosure that does what a test tells it, served on a real socket."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cleanroomd.control.credentials import Credentials
from cleanroomd.control.server import ControlServer
from cleanroomd.errors import CleanroomError
from cleanroomd.model.lesson import Lesson, ProposedFlow
from cleanroomd.model.status import (
    IsolationStatus,
    RunState,
    ServiceState,
    ServiceStatus,
    Status,
    Verdict,
    VerdictKind,
)
from cleanroomd.model.verification import (
    Denied,
    EndpointKind,
    EndpointView,
    IsolationView,
    Relation,
    TriedRelation,
    Verification,
)

SERVICE = ServiceStatus(
    name="imaging",
    title="Imagerie (PACS)",
    priority=2,
    required=True,
    state=ServiceState.READY,
    reason="every probe answered",
    since=520.0,
    elapsed=31.0,
    remaining=None,
    start="warm",
    proof="C-ECHO 0x0000",
    attempt=1,
    address="10.1.20.14",
    data_as_of=1_795_475_400.0,
    kept_aside=0,
)

STATUS = Status(
    enclosure="Caisson 1, GHT Vaucluse",
    state=RunState.RESTORING,
    now=572.0,
    power_on=500.0,
    restored_after=None,
    remaining=38.0,
    isolation=IsolationStatus(
        proven=True, proven_at=569.0, generation=41, uplink="dark", foreign_changes=0, problem=""
    ),
    verdict=Verdict(kind=VerdictKind.ADMISSIBLE, summary="everything fits"),
    services=(
        SERVICE,
        replace(
            SERVICE,
            name="record",
            title="Dossier patient",
            state=ServiceState.BOOTING,
            reason="waiting for HTTP 200 on /login",
            since=552.0,
            elapsed=None,
            remaining=25.0,
            start="cold",
            proof="",
            data_as_of=None,
        ),
    ),
    next_action="nothing to do",
    plan_problem="",
    unsealed=False,
)

LESSON = Lesson(
    flows=(ProposedFlow("workstations", "imaging", (4242,), (), 12, "tcp 4242 (12)"),),
    others=("3 packets: imaging asked 192.0.2.1 for udp 53, which is no service and in no zone",),
)

VIEW = IsolationView(
    proven=True,
    problem="",
    generation=41,
    endpoints=(
        EndpointView("enclosure", EndpointKind.ENCLOSURE, interface="", address="", dark=False),
        EndpointView("uplink", EndpointKind.PORT, interface="up0", address="", dark=True),
        EndpointView("workstations", EndpointKind.ZONE, interface="care", address="10.77.0.0/24", dark=False),
        EndpointView("imaging", EndpointKind.MACHINE, interface="tap-imaging", address="10.1.20.14", dark=False),
    ),
    relations=(
        Relation("workstations", "imaging", ("tcp 4242, 8042",), ("workstations to imaging, tcp 4242",), packets=12),
    ),
    denied=(Denied("from imaging to uplink", packets=3),),
    foreign_tables=(),
)

VERIFIED = Verification(
    ok=True,
    generation=41,
    digest="ab" * 32,
    seconds=0.3,
    packets=1761,
    flows=2,
    differences=(),
    surroundings=(),
    relations=(
        TriedRelation("workstations", "imaging", ("tcp 4242, 8042",), flows=2, untried=0, forbidden=93, mismatches=0),
        TriedRelation("imaging", "uplink", (), flows=0, untried=0, forbidden=82, mismatches=0),
    ),
    mismatches=(),
    unnamed=0,
)


def with_service(status: Status, name: str, state: ServiceState, **changes: object) -> Status:
    """`status` with one service in another state, one second later."""
    services = tuple(
        replace(service, state=state, since=status.now + 1, **changes) if service.name == name else service  # type: ignore[arg-type]
        for service in status.services
    )
    return replace(status, now=status.now + 1, services=services)


class FakeEnclosure:
    """Every subscriber gets every status, as from a naive daemon; `answers` are what requests lead to."""

    def __init__(self, status: Status = STATUS, entries: Sequence[Mapping[str, object]] = ()) -> None:
        self.current = status
        self.entries = entries
        self.asked: list[str] = []
        self.refusal: CleanroomError | None = None
        self.verification = VERIFIED
        self.answers: list[Status] = []
        self.subscribers: set[asyncio.Queue[Status]] = set()
        self.changed = asyncio.Event()

    def publish(self, status: Status) -> None:
        self.current = status
        for subscriber in self.subscribers:
            subscriber.put_nowait(status)

    def status(self) -> Status:
        return self.current

    async def subscribe(self) -> AsyncIterator[Status]:
        mine: asyncio.Queue[Status] = asyncio.Queue()
        self.subscribers.add(mine)
        self.changed.set()
        try:
            yield self.current
            while True:
                yield await mine.get()
        finally:
            self.subscribers.discard(mine)
            self.changed.set()

    async def until_subscribers(self, count: int) -> None:
        while len(self.subscribers) != count:
            self.changed.clear()
            await self.changed.wait()

    async def start(self, service: str) -> str:
        return self._request(f"start {service}")

    async def stop(self, service: str) -> str:
        return self._request(f"stop {service}")

    async def restore(self) -> str:
        return self._request("restore")

    async def shutdown(self) -> str:
        return self._request("shutdown")

    async def open_uplink(self, window: str, seconds: float, reason: str, author: str) -> str:
        return self._request(f"open {window} for {seconds:g} s as {author}: {reason}")

    async def close_uplink(self, window: str | None, author: str) -> str:
        return self._request(f"close {window or 'everything'} as {author}")

    def isolation(self) -> IsolationView:
        return VIEW

    def learn(self) -> Lesson:
        if self.refusal is not None:
            raise self.refusal
        return LESSON

    async def verify_isolation(self) -> Verification:
        if self.refusal is not None:
            raise self.refusal
        return self.verification

    async def journal(
        self, *, follow: bool, last: int | None = None, service: str = ""
    ) -> AsyncIterator[Mapping[str, object]]:
        entries = [entry for entry in self.entries if not service or entry.get("service") == service]
        for entry in entries if last is None else entries[len(entries) - min(last, len(entries)) :]:
            yield entry
        if follow:
            await asyncio.Event().wait()

    def _request(self, what: str) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(what)
        for status in self.answers:
            self.publish(status)
        return f"asked to {what}"


NOBODY_SPECIAL = Credentials(own_uid=4_000_000, names=())
"""Credentials under which only root has rights."""


@contextmanager
def served(enclosure: FakeEnclosure, path: Path) -> Iterator[None]:
    """Served from a thread, for clients that bring a loop of their own or are processes."""
    ready, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        async with ControlServer(enclosure, path):
            ready.set()
            await loop.run_in_executor(None, done.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]
