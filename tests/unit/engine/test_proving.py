"""Who asks for the proof of the isolation, and when it is made."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cleanroomd.engine import proving
from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.engine.proving import Prover
from cleanroomd.errors import IsolationError
from cleanroomd.isolation.apart import Request
from cleanroomd.isolation.counts import DeniedFlow
from cleanroomd.isolation.endpoints import Scene
from cleanroomd.isolation.overview import Counted, overview
from cleanroomd.isolation.ruleset import Tally
from cleanroomd.model.plan import Enclosure, Plan, Zone
from cleanroomd.model.posture import Proof
from cleanroomd.model.verification import Mismatch, Verification
from tests.kernel.world import IMG, POSTURE, TO_IMAGING
from tests.unit.control.fake import VERIFIED

PLAN = Plan(
    enclosure=Enclosure(name="Test"),
    ports=(),
    zones=(Zone(name="workstations", port="care", address=IPv4Interface("10.77.0.1/24")),),
    services=(),
)
PROOF = Proof(posture=POSTURE, generation=7, digest="ab", at=1.0)


def isolation(**facts: Any) -> IsolationControl:
    return cast("IsolationControl", SimpleNamespace(**{"proof": PROOF, "problem": "", **facts}))


class Verifier:
    """In place of the other process: answers when it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.answer: Verification | IsolationError = VERIFIED

    async def __call__(self, request: Request) -> Verification:
        self.asked.append(request)
        self.begun.release()
        await self.go.wait()
        if isinstance(self.answer, IsolationError):
            raise self.answer
        return self.answer


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> Verifier:
    found = Verifier()
    monkeypatch.setattr(proving, "verify_apart", found)
    return found


async def test_the_posture_that_is_proven_is_what_is_verified(verifier: Verifier) -> None:
    verifier.go.set()
    prover = Prover(isolation(writer=SimpleNamespace(port=42)))
    assert await prover.verify(PLAN) == VERIFIED
    (request,) = verifier.asked
    assert request == Request(POSTURE, 42, {"10.77.0.0/24": "workstations"})


async def test_without_a_proof_there_is_nothing_to_verify(verifier: Verifier) -> None:
    prover = Prover(isolation(proof=None, problem="the keeper is gone", writer=None))
    with pytest.raises(IsolationError, match=r"^cannot verify: the keeper is gone$"):
        await prover.verify(PLAN)
    assert verifier.asked == []


async def test_whoever_asks_meanwhile_gets_a_later_answer(verifier: Verifier) -> None:
    """What is under way may have read the rules before they were changed; those who wait share one."""
    prover = Prover(isolation(writer=SimpleNamespace(port=42)))
    first = asyncio.create_task(prover.verify(PLAN))
    await verifier.begun.acquire()
    others = [asyncio.create_task(prover.verify(PLAN)) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(verifier.asked) == 1
    verifier.go.set()
    assert await asyncio.gather(first, *others) == [VERIFIED] * 4
    assert len(verifier.asked) == 2


async def test_a_caller_that_hangs_up_takes_nothing_from_the_others(verifier: Verifier) -> None:
    prover = Prover(isolation(writer=SimpleNamespace(port=42)))
    hasty, patient = (asyncio.create_task(prover.verify(PLAN)) for _ in range(2))
    await verifier.begun.acquire()
    hasty.cancel()
    verifier.go.set()
    assert await patient == VERIFIED


async def test_closing_ends_what_is_under_way(verifier: Verifier) -> None:
    prover = Prover(isolation(writer=SimpleNamespace(port=42)))
    asked = asyncio.create_task(prover.verify(PLAN))
    await verifier.begun.acquire()
    await prover.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_what_is_new_is_told_once(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(proving, "_VERIFY_EVERY", 0.0)
    verifier.go.set()
    control = isolation(writer=SimpleNamespace(port=42))
    told: list[str] = []
    prover = Prover(control)
    task = asyncio.create_task(prover.now_and_then(lambda: PLAN, lambda text, /, **_: told.append(text)))

    async def several() -> None:
        for _ in range(3):
            await verifier.begun.acquire()

    await several()
    wrong = Mismatch("imaging", "uplink", "tcp 445", "it came out at uplink", "chain forward, rule 1")
    verifier.answer = replace(VERIFIED, ok=False, mismatches=(wrong,), unnamed=4)
    await several()
    verifier.answer = IsolationError("cannot verify: it took longer than 60 s")
    await several()
    task.cancel()
    assert told == [
        "verified: every packet that was tried fared as the plan says",
        "NOT AS PLANNED: imaging to uplink, tcp 445: it came out at uplink; and 2 more",
        "cannot verify: it took longer than 60 s",
    ]


def test_the_view_says_who_may_talk_and_what_was_denied() -> None:
    counted = Counted(
        guards={"ingress//cr-img": 3, "egress//up0": 0},
        pairs={("cr-img", "up0"): Tally(packets=5, bytes=300), ("", "cr-db"): Tally(packets=9, bytes=1)},
        flows={DeniedFlow(IMG[0], IPv4Network("192.168.40.9")[0], 6, 445): Tally(packets=4, bytes=240)},
        passed={TO_IMAGING: Tally(packets=12, bytes=1)},
        foreign_tables=frozenset({"inet firewalld"}),
    )
    view = overview(Scene(POSTURE, 0.0, {"10.77.0.0/24": "workstations"}), PROOF, "", counted)
    assert [(each.name, each.dark) for each in view.endpoints] == [
        ("enclosure", False),
        ("uplink", True),
        ("workstations", False),
        ("imaging", False),
        ("database", False),
    ]
    assert [(r.origin, r.target, r.allowed, r.packets) for r in view.relations] == [
        ("enclosure", "database", ("tcp 5432",), 0),
        ("workstations", "imaging", ("tcp 4242", "udp 9"), 12),
        ("imaging", "database", ("tcp 5432", "udp 9"), 0),
    ]
    assert [(each.what, each.packets) for each in view.denied] == [
        ("from enclosure to database", 9),
        ("from imaging to uplink", 5),
        ("from imaging, at its guard: not in its own name, or not IPv4", 3),
        ("connection tcp 445 from 10.1.20.14 to 192.168.40.9", 4),
    ]
    assert view.foreign_tables == ("inet firewalld",)


def test_a_view_without_a_proof_says_why() -> None:
    view = Prover(isolation(proof=None, problem="", writer=None)).view(PLAN)
    assert (view.proven, view.problem, view.relations) == (False, "the rules have not been proven", ())


async def test_rules_that_change_meanwhile_are_asked_about_again(verifier: Verifier) -> None:
    """What was read then is no fault of rules that had been replaced by others of ours."""
    newer = replace(PROOF, posture=replace(POSTURE, ports=()), generation=8)
    seen = isolation(writer=SimpleNamespace(port=42))
    prover = Prover(seen)
    wrong = replace(VERIFIED, ok=False, differences=("chain x is there and should not be",))
    verifier.answer = wrong
    asked = asyncio.create_task(prover.verify(PLAN))
    await verifier.begun.acquire()
    cast("Any", seen).proof = newer
    verifier.go.set()
    assert await asked == wrong
    assert [request.posture for request in verifier.asked] == [POSTURE, newer.posture]
