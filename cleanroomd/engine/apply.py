"""Which effect belongs to which step."""

from cleanroomd.engine import ending, readying, starting
from cleanroomd.engine.effects import Effects
from cleanroomd.engine.leasing import end_lease
from cleanroomd.model.steps import (
    ApplyRules,
    DeclareReady,
    EndLease,
    FailAttempt,
    FallBack,
    HoldDeadline,
    LaunchMachine,
    MakeTap,
    MakeZoneLink,
    RejoinTap,
    RemoveZoneLink,
    RunMachine,
    SetAside,
    SetLink,
    Step,
    StopMachine,
    UnwatchReadiness,
    WatchReadiness,
)

LongStep = LaunchMachine | RunMachine | DeclareReady | FailAttempt | SetAside | FallBack | StopMachine
"""Steps that run as tasks of their own: the loop never waits for one."""


async def apply(step: Step, effects: Effects) -> None:
    """Carry `step` out; CleanroomError says in words why it could not be."""
    match step:
        case MakeTap():
            effects.isolation.make_tap(step.interface)
        case ApplyRules():
            effects.isolation.apply(step.posture)
        case MakeZoneLink():
            effects.isolation.make_zone_link(step)
        case RemoveZoneLink():
            effects.isolation.remove_zone_link(step)
        case HoldDeadline():
            effects.isolation.hold(step)
        case EndLease():
            end_lease(step, effects)
        case SetLink():
            effects.isolation.set_link(step)
        case RejoinTap():
            effects.launcher.rejoin(step.service, step.interface)
        case LaunchMachine():
            await starting.launch(step, effects)
        case RunMachine():
            await starting.run(step, effects)
        case FailAttempt():
            await ending.fail_attempt(step, effects)
        case SetAside():
            await ending.set_aside(step, effects)
        case FallBack():
            await ending.fall_back(step, effects)
        case StopMachine():
            await ending.stop(step, effects)
        case WatchReadiness():
            await readying.watch(step, effects)
        case UnwatchReadiness():
            await readying.unwatch(step, effects)
        case DeclareReady():
            await readying.declare_ready(step, effects)
