from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

from cleanroomd.engine import readying
from cleanroomd.engine.effects import Effects
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.plan import GuestAgentProbe
from cleanroomd.model.steps import WatchReadiness


async def test_probes_are_told_where_the_guest_agent_of_their_own_machine_is() -> None:
    service = SimpleNamespace(name="record", ready=(GuestAgentProbe(),), address="10.1.20.12")
    launcher = Launcher(Path("/run/machines"), accelerator="tcg", on_change=Mock(), open_tap=Mock())
    probes = Mock()
    effects = SimpleNamespace(
        outline=SimpleNamespace(services={"record": service}), launcher=launcher, probes=probes, on_answer=Mock()
    )
    await readying.watch(WatchReadiness("record"), cast("Effects", effects))
    assert probes.watch.call_args.kwargs["agent"] == Path("/run/machines/record/agent.sock")
