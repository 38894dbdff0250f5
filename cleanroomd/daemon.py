"""The daemon: wiring, readiness towards systemd, signals."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import click
import sdnotify

from cleanroomd import __version__
from cleanroomd.control.server import ControlServer
from cleanroomd.engine.effects import Effects
from cleanroomd.engine.isolating import IsolationControl
from cleanroomd.engine.journal import Event, Journal
from cleanroomd.engine.listening import CareListening
from cleanroomd.engine.loop import Engine
from cleanroomd.engine.operator import Operator
from cleanroomd.engine.proving import Prover
from cleanroomd.engine.publisher import Publisher
from cleanroomd.engine.record import Record, power_on_time
from cleanroomd.engine.snapshot import look_only, measure_capacity
from cleanroomd.engine.storage import Storage
from cleanroomd.errors import CleanroomError, Exit
from cleanroomd.hardware.udev import DeviceWatch
from cleanroomd.isolation import links
from cleanroomd.machine.accelerator import probe
from cleanroomd.machine.causes import way_out
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.machine.launcher import Launcher
from cleanroomd.machine.queues import TapRepair
from cleanroomd.memory import keep_one_heap, settle
from cleanroomd.model.observed import Capacity, ProbeFacts
from cleanroomd.model.status import Status
from cleanroomd.model.units import format_duration
from cleanroomd.plan.apart import load_apart
from cleanroomd.probes.runner import ProbeRunner
from cleanroomd.restore.admission import admit
from cleanroomd.restore.order import Outline
from cleanroomd.restore.rehearsal import rehearse
from cleanroomd.vault.catalog import Catalog

_CONTROL_AGAIN = 10.0

_log = logging.getLogger("cleanroomd")


@dataclass(frozen=True, slots=True)
class Options:
    plan: Path
    root: Path
    """Holds vault/ (read only), crisis/, state/ and run/."""
    control: Path
    keeper: Path
    unsealed: bool
    qemu: Path
    drill: bool = False
    """An exercise: the uplink never opens."""


async def serve(options: Options) -> None:
    """Restore what the plan says and keep it so, until SIGTERM or SIGINT; every machine outlives this."""
    outline = Outline(load_apart(options.plan))
    async with AsyncExitStack() as resources:
        resources.enter_context(_only_daemon(options.root))
        journal = Journal(options.root / "state" / "journal.jsonl")
        resources.callback(journal.close)
        journal.record(Event.DAEMON, f"cleanroomd {__version__} begins", plan=outline.plan.digest)
        record = Record(run=options.root / "run", state=options.root / "state")
        accelerator = await probe(options.qemu, cache=options.root / "state" / "accelerator.json")
        journal.record(Event.DAEMON, f"machines run with {accelerator.kind}: {accelerator.reason}")

        # The loop exists last, but what it drives calls back into it: these two close the circle. A machine that
        # dies while it is adopted is seen in the first round.
        engine: Engine | None = None

        def wake(reason: str) -> None:
            if engine is not None:
                engine.wake(reason)

        def answered(service: str, facts: ProbeFacts) -> None:
            before = effects.answers.get(service)
            effects.answers[service] = facts
            if before is None or (before.ok, before.detail) != (facts.ok, facts.detail):
                wake(f"{service} answers: {facts.detail}" if facts.ok else f"{service}: {facts.detail}")

        def heard(text: str) -> None:
            journal.record(Event.ISOLATION, text)
            wake(text)

        def alarm(text: str, /, **fields: str | float) -> None:
            journal.record(Event.ISOLATION, text, service="", **fields)

        launcher = Launcher(
            options.root / "run" / "machines",
            accelerator=accelerator.kind,
            on_change=wake,
            open_tap=links.open_tap,
            taps=TapRepair(header=links.tap_header, rejoin=links.rejoin_tap),
            qemu=str(options.qemu),
        )
        resources.push_async_callback(launcher.close)
        isolation = IsolationControl(options.keeper, alarm=alarm)
        resources.callback(isolation.close)
        prover = Prover(isolation)
        resources.push_async_callback(prover.close)
        probes = ProbeRunner()
        resources.push_async_callback(probes.close)
        listening = CareListening(heard)
        resources.callback(listening.close)
        catalog = Catalog(options.root / "vault", unsealed=options.unsealed)
        crisis = CrisisStore(options.root / "crisis")
        storage = Storage(outline, catalog, crisis, launcher, wake)
        effects = Effects(
            outline=outline,
            journal=journal,
            record=record,
            isolation=isolation,
            launcher=launcher,
            crisis=crisis,
            catalog=catalog,
            storage=storage,
            probes=probes,
            listening=listening,
            on_answer=answered,
            drill=options.drill,
        )
        if options.drill:
            journal.record(Event.DAEMON, "this is an exercise: the uplink never opens")
        publisher = Publisher(journal)
        tell_systemd = SystemdNotice()

        def on_status(status: Status) -> None:
            publisher.publish(status)
            tell_systemd(status)

        for service in await launcher.adopt():
            journal.record(Event.ADOPTED, "adopted, it kept running", service=service)
        capacity = measure_capacity(accelerator.kind, launcher.resident_memory())
        await storage.look()
        engine = Engine(effects, capacity, power_on=power_on_time(), unsealed=options.unsealed, on_status=on_status)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, engine.end)
        settle()
        with DeviceWatch(wake), isolation.guard.listening(wake):
            async with asyncio.TaskGroup() as tasks:
                others = (
                    tasks.create_task(_control(effects, engine, publisher, prover, options.control)),
                    tasks.create_task(prover.now_and_then(lambda: effects.outline.plan, alarm)),
                    tasks.create_task(_read_again(options.plan, engine, journal, tell_systemd)),
                )
                await engine.run()
                for other in others:
                    other.cancel()
        tell_systemd.close()
        journal.record(Event.DAEMON, "cleanroomd ends; every machine runs on")


async def _control(effects: Effects, engine: Engine, publisher: Publisher, prover: Prover, path: Path) -> None:
    """Serve the control socket; while it cannot be had the restoration goes on, and it is tried again."""
    await publisher.first.wait()
    while True:
        try:
            await ControlServer(Operator(effects, engine, publisher, prover), path).serve()
        except (CleanroomError, OSError) as error:
            effects.journal.record(Event.DAEMON, f"no control for {_CONTROL_AGAIN:.0f} s: {error}")
            _log.error("%s", error)
        await asyncio.sleep(_CONTROL_AGAIN)


async def _read_again(plan: Path, engine: Engine, journal: Journal, tell_systemd: "SystemdNotice") -> None:
    """At each SIGHUP: a plan that can be read comes into force, one that cannot leaves the one before in force."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        tell_systemd.reloading()
        try:
            found = await asyncio.to_thread(load_apart, plan)
        except CleanroomError as error:
            journal.record(Event.DAEMON, f"the plan in force stays so: {error.message}", hint=error.hint)
            engine.keep_plan(error.message)
        else:
            journal.record(Event.DAEMON, f"the plan was read again: {len(found.services)} services", plan=found.digest)
            await engine.take_plan(found)
        tell_systemd.reloaded()


class SystemdNotice:
    """Tells the service manager: READY once the rules are proven, STATUS in words, WATCHDOG at every round.

    A round never waits for a disk, so that what the watchdog ends is a loop that is stuck, not one on a slow disk.
    """

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._ready = False

    def __call__(self, status: Status) -> None:
        ready = sum(service.proof != "" for service in status.services)
        words = f"{status.state}: {ready} of {len(status.services)} ready"
        if status.remaining is not None:
            words += f", about {format_duration(status.remaining)} left"
        notices = ["WATCHDOG=1", f"STATUS={words}"]
        if status.isolation.proven and not self._ready:
            self._ready = True
            notices.append("READY=1")
        self._notifier.notify("\n".join(notices))

    def reloading(self) -> None:
        """Say that the plan is being read again; sd_notify(3) wants to know since when."""
        if self._ready:
            self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        if self._ready:
            self._notifier.notify("READY=1")

    def close(self) -> None:
        """Say that the end is on purpose."""
        self._notifier.notify("STOPPING=1")
        if self._notifier.socket is not None:
            self._notifier.socket.close()


@contextmanager
def _only_daemon(root: Path) -> Iterator[None]:
    """Hold the root's lock; CleanroomError when another daemon has it, or when the root cannot be used."""
    try:
        (root / "run" / "machines").mkdir(parents=True, exist_ok=True)
        fd = os.open(root / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CleanroomError(
            f"cannot use {root}: {error.strerror}", "name a directory that this user may write with --root"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CleanroomError(
            f"cannot start: another cleanroomd already works on {root}",
            "use it with `cleanroomctl`, or stop it first",
        ) from error
    finally:
        os.close(fd)


def show_steps(options: Options) -> None:
    """Print the steps that a daemon would take from here, had every machine its usual duration; take none."""
    outline = Outline(load_apart(options.plan))
    catalog = Catalog(options.root / "vault", unsealed=options.unsealed)
    capacity: Capacity = measure_capacity("tcg", 0)
    observed = look_only(outline.plan, catalog, CrisisStore(options.root / "crisis"), capacity)
    verdict = admit(outline, capacity, observed.disks).verdict
    click.echo(f"{verdict.kind}: {verdict.summary}")
    for finding in verdict.findings:
        click.echo(f"  {finding.service} {finding.effect}: {finding.cause}; {finding.remedy}")
    for at, step in rehearse(outline, observed):
        click.echo(f"{format_duration(at - observed.now):>12}  {step}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--plan", required=True, type=click.Path(path_type=Path), help="Recovery plan (TOML).")
@click.option(
    "--root",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory that holds vault/ (only read), crisis/, state/ and run/.",
)
@click.option(
    "--control", type=click.Path(path_type=Path), default=Path("/run/cleanroom/control"), show_default=True,
    help="Control socket to serve.",
)  # fmt: skip
@click.option(
    "--keeper", type=click.Path(path_type=Path), default=Path("/run/cleanroom/keeper"), show_default=True,
    help="Socket of the keeper, which owns the firewall's rules.",
)  # fmt: skip
@click.option("--unsealed", is_flag=True, help="Accept a plan and a vault that nobody signed; every status says so.")
@click.option("--drill", is_flag=True, help="An exercise: the uplink never opens; every status says so.")
@click.option(
    "--qemu", type=click.Path(path_type=Path), default=Path("qemu-system-x86_64"), show_default=True,
    help="Program that runs the machines.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the steps that would be taken, and take none.")
def main(*, dry_run: bool, **values: object) -> None:
    """Restore the services of a recovery plan, isolated, in priority order."""
    keep_one_heap()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    options = Options(**values)  # type: ignore[arg-type]
    # A machine is recognised by the path of its directory, from whichever directory the daemon was started.
    options = replace(options, root=options.root.absolute())
    try:
        if dry_run:
            show_steps(options)
        else:
            asyncio.run(serve(options))
    except CleanroomError as error:
        _refuse(error)
    except OSError as error:
        what = error.filename or options.root
        _refuse(CleanroomError(f"cannot use {what}: {error.strerror or error}", way_out(error)))


def _refuse(error: CleanroomError) -> NoReturn:
    click.echo(error.message, err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    sys.exit(Exit.CANNOT)
