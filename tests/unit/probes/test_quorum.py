from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroomd.model.plan import DnsProbe, Probe, Protocol, Quorum, SmbProbe, endpoints
from cleanroomd.probes import quorum
from cleanroomd.probes.answer import Answer

SMB = SmbProbe()


def several(need: int, count: int) -> Quorum:
    return Quorum(need, (SMB,) * count)


def answers(*oks: bool) -> list[Answer]:
    return [Answer(ok=ok, detail=f"{'answer' if ok else 'waiting for'} {number}") for number, ok in enumerate(oks, 1)]


def test_any_is_ready_with_the_first() -> None:
    said = iter(answers(False, True, True))
    assert quorum.judge(several(1, 3), said) == Answer(ok=True, detail="answer 2")
    assert len(list(said)) == 1


def test_without_any_all_say_why() -> None:
    detail = "0 of 1 answered: waiting for 1; waiting for 2"
    assert quorum.judge(several(1, 2), answers(False, False)) == Answer(ok=False, detail=detail)


def test_all_are_ready_together() -> None:
    assert quorum.judge(several(2, 2), answers(True, True)) == Answer(ok=True, detail="answer 1; answer 2")


def test_of_all_the_first_that_is_not_ready_speaks() -> None:
    assert quorum.judge(several(3, 3), answers(True, False, False)) == Answer(ok=False, detail="waiting for 2")


def test_some_are_enough() -> None:
    assert quorum.judge(several(2, 3), answers(True, False, True)) == Answer(ok=True, detail="answer 1; answer 3")
    detail = "1 of 2 answered: waiting for 1; waiting for 3"
    assert quorum.judge(several(2, 3), answers(False, True, False)) == Answer(ok=False, detail=detail)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 6))
def test_ready_is_the_number_that_is_needed(oks: list[bool], need: int) -> None:
    need = min(need, len(oks))
    assert quorum.judge(several(need, len(oks)), answers(*oks)).ok is (sum(oks) >= need)


def test_endpoints_are_those_of_every_probe_within() -> None:
    inner: tuple[Probe, ...] = (DnsProbe("a.example"), DnsProbe("a.example", transport=Protocol.TCP), SmbProbe(4450))
    probe = Quorum(1, (SMB, Quorum(2, inner)))
    assert endpoints(probe) == {
        (Protocol.TCP, 445),
        (Protocol.TCP, 4450),
        (Protocol.TCP, 53),
        (Protocol.UDP, 53),
    }
