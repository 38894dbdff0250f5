"""What several answers come to together."""

from collections.abc import Iterable, Sequence

from cleanroomd.model.plan import Quorum
from cleanroomd.probes.answer import Answer


def judge(probe: Quorum, answers: Iterable[Answer]) -> Answer:
    """The answer of `probe` to those of its parts, in their order; takes no more of them than it needs.

    Where all are needed the first that is not ready speaks for them, as it does for a service as a whole.
    """
    taken: list[Answer] = []
    good = 0
    for answer in answers:
        taken.append(answer)
        good += answer.ok
        if good >= probe.need:
            return Answer(ok=True, detail="; ".join(_details(taken, ok=True)))
        if not answer.ok and probe.need == len(probe.of):
            return answer
    return Answer(ok=False, detail=f"{good} of {probe.need} answered: {'; '.join(_details(taken, ok=False))}")


def _details(answers: Sequence[Answer], *, ok: bool) -> list[str]:
    return [answer.detail for answer in answers if answer.ok is ok]
