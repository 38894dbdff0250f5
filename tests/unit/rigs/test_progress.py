"""How far a build is, as a person reads it: never backwards, early steps shorten it, late ones lengthen it."""

import itertools
from pathlib import Path

from rigs.hospital.progress import ASSUMED, Progress, Timeline


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(*, pace: float) -> list[Progress]:
    """Pictures of a build that takes `pace` times what is expected, one for each second of the expected time."""
    clock = Clock()
    timeline = Timeline(expected=ASSUMED, clock=clock)
    pictures = []
    for second in range(235):
        clock.now = 100.0 + second * pace
        for name, span in ASSUMED.items():
            if span.end == second:
                timeline.end(name)
            if span.begin == second:
                timeline.begin(name)
        pictures.append(timeline.progress())
    return pictures


def test_a_build_as_expected_counts_down_to_its_end() -> None:
    assert [picture.remaining_seconds for picture in run(pace=1.0)] == [235.0 - second for second in range(235)]


def test_a_faster_build_never_goes_backwards_and_says_that_less_is_left() -> None:
    pictures = run(pace=0.5)
    assert all(later.done >= before.done for before, later in itertools.pairwise(pictures))
    assert pictures[200].remaining_seconds is not None
    assert pictures[200].remaining_seconds < 60, "135 are expected at this second, and it is 95 early"


def test_a_slower_build_always_has_something_left() -> None:
    pictures = run(pace=3.0)
    assert all((picture.remaining_seconds or 0.0) >= 1.0 for picture in pictures)
    assert all(picture.done < 1.0 for picture in pictures)


def test_between_two_steps_the_last_one_is_named() -> None:
    timeline = Timeline(expected=ASSUMED)
    assert timeline.progress().step == "prepare"
    timeline.begin("images")
    timeline.end("images")
    assert timeline.progress().step == "write the disks"


def test_a_damaged_file_of_an_earlier_build_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    for damaged in ("", "[]", '{"packages": 3}', '{"packages": [0, 1]}'):
        path.write_text(damaged, encoding="utf-8")
        assert Timeline.load(path).expected is ASSUMED
