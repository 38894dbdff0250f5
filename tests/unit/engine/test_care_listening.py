"""What a port that is listened to, and one that is open, expect of whom they hear."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cleanroomd.engine import listening
from cleanroomd.engine.listening import CareListening
from cleanroomd.hardware.hearing import Doubts, Expected
from cleanroomd.model.listening import Found, Heard
from cleanroomd.model.observed import Interface
from cleanroomd.restore.order import Outline
from tests.unit.restore.plans import CARE, plan, service


class Ears:
    def __init__(self, _: object) -> None:
        self.wanted: Mapping[str, Expected] = {}

    def attend(self, wanted: Mapping[str, Expected], *_: object) -> None:
        self.wanted = wanted

    def heard(self) -> Mapping[str, Heard]:
        return {}


def test_weak_signs_are_doubted_on_an_open_port_only_and_with_each_cable_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ears = Ears(None)
    monkeypatch.setattr(listening, "PortListening", lambda _: ears)
    care, outline = CareListening(lambda _: None), Outline(plan(service("a")))

    def doubts(interface: Interface) -> Doubts | None:
        care.attend(outline, (interface,))
        return ears.wanted[CARE.name].doubts

    first = doubts(CARE)
    assert first is not None
    assert doubts(CARE) is first
    assert doubts(replace(CARE, found=None)) is None
    assert doubts(replace(CARE, found=Found("a router"))) is None
    assert doubts(CARE) is not first
    assert doubts(replace(CARE, carrier_changes=2)) is not None
