"""Alarms: a storm is one, what stands is kept, and neither memory nor the journal grows with what others do."""

from cleanroomd.engine.alarms import KEPT, Alarms
from cleanroomd.isolation.processes import UNKNOWN, Process

NFT = Process(7, "nft", 0, "nft -f -")


class Told:
    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, str | float]]] = []
        self.now = 100.0

    def __call__(self, text: str, /, **fields: str | float) -> None:
        self.entries.append((text, fields))


def alarms() -> tuple[Alarms, Told]:
    told = Told()
    return Alarms(told, clock=lambda: told.now), told


def test_it_says_who_with_what_is_known() -> None:
    kept, told = alarms()
    kept.note("rules came", NFT, undone=True)
    text, fields = told.entries[0]
    assert text == "rules came, by nft (pid 7, uid 0, `nft -f -`); undone"
    assert fields == {"undone": "true", "pid": 7, "process": "nft", "uid": 0, "command": "nft -f -"}
    kept.note("a route came", UNKNOWN, undone=False, remedy="remove it")
    assert told.entries[1] == ("a route came, by an unknown process; NOT undone", {"undone": "false"})


def test_a_storm_is_told_once_and_counted() -> None:
    kept, told = alarms()
    for pid in range(1000):
        kept.note("rules came", Process(pid + 1, "nft"), undone=True)
        told.now += 0.01
    (alarm,) = kept.newest
    assert (alarm.times, alarm.who) == (1000, "nft (pid 1000)")
    assert kept.count == 1000
    assert len(told.entries) == 1


def test_what_stands_comes_first_is_kept_longest_and_settles() -> None:
    kept, told = alarms()
    kept.note("stands", NFT, undone=False, remedy="end it")
    for number in range(3 * KEPT):
        told.now += 1
        kept.note(f"change {number}", NFT, undone=True)
    assert len(kept.newest) == KEPT
    assert kept.newest[0].what == "stands"
    assert [alarm.what for alarm in kept.standing] == ["stands"]
    kept.settle("stands")
    assert kept.standing == ()
    assert told.entries[-1][0] == "put right: stands"


def test_the_journal_is_not_flooded_by_ever_new_names() -> None:
    kept, told = alarms()
    for number in range(5000):
        kept.note(f"table {number} came", NFT, undone=True)
        told.now += 0.01
    assert len(told.entries) < 150
    assert kept.count == 5000
