"""Who may call what."""

from collections import Counter

import pytest

from cleanroomd.control.access import (
    ACT_GROUP,
    PLACES,
    PLACES_FOR_ACTING,
    PLACES_PER_USER,
    VIEW_GROUP,
    Peer,
    Verb,
    has_place,
    may,
    who_may,
)

READING = {Verb.STATUS, Verb.JOURNAL, Verb.ISOLATION, Verb.VERIFY}

ROOT = Peer(uid=0, pid=1)
DAEMON = Peer(uid=990, pid=1, owner=True)
ACTOR = Peer(uid=1000, pid=1, groups=frozenset({ACT_GROUP}))
VIEWER = Peer(uid=1001, pid=1, groups=frozenset({VIEW_GROUP}))
STRANGER = Peer(uid=1002, pid=1)


@pytest.mark.parametrize("verb", Verb)
def test_access_table(verb: Verb) -> None:
    assert may(ROOT, verb)
    assert may(DAEMON, verb)
    assert may(ACTOR, verb)
    assert may(VIEWER, verb) == (verb in READING)
    assert not may(STRANGER, verb)


@pytest.mark.parametrize("verb", Verb)
def test_refusal_names_the_groups_that_would_help(verb: Verb) -> None:
    assert ACT_GROUP in who_may(verb)
    assert (VIEW_GROUP in who_may(verb)) == (verb in READING)


def test_one_user_takes_a_share_of_the_places() -> None:
    assert has_place(Counter({VIEWER.uid: PLACES_PER_USER - 1}), VIEWER)
    assert not has_place(Counter({VIEWER.uid: PLACES_PER_USER}), VIEWER)


def test_readers_and_strangers_never_lock_out_who_may_act() -> None:
    crowd = Counter(dict.fromkeys(range(2000, 2000 + (PLACES - PLACES_FOR_ACTING) // 4), 4))
    assert not has_place(crowd, VIEWER)
    assert not has_place(crowd, STRANGER)
    assert has_place(crowd, ACTOR)
    assert has_place(crowd, ROOT)


def test_there_is_a_limit_for_all() -> None:
    assert not has_place(Counter(dict.fromkeys(range(3000, 3000 + PLACES // 8), 8)), ROOT)
