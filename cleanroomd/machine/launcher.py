"""Machines as direct child processes in a session of their own: the launcher where PID 1 is not systemd.

Each machine has a run directory: a lock that lives exactly as long as its QEMU, sockets bound before QEMU
starts, its console and QEMU's own words, and a record from which a restarted daemon goes on.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cleanroomd.clock import now
from cleanroomd.errors import CleanroomError, MachineError
from cleanroomd.machine import agent, logs, process, records
from cleanroomd.machine.arguments import DiskImage, Handles, qemu_arguments
from cleanroomd.machine.causes import in_words, way_out
from cleanroomd.machine.handles import closing, listening, take_lock, watchable
from cleanroomd.machine.monitor import Monitor
from cleanroomd.machine.queues import TapRepair, Wiring
from cleanroomd.model.observed import MachineFacts, MachinePhase, Made
from cleanroomd.model.plan import Service, StartKind

_QUIT_GRACE = 5.0
_KILL_GRACE = 30.0
_PRESS_AGAIN = 10.0
_AGENT_DEADLINE = 5.0
_ASK_AGAIN = 1.0
_TEND_EVERY = 5.0
_LAST_WORDS = 2.0
_NO_TUN = "check that /dev/net/tun is there, or load the module tun"


@dataclass(slots=True)
class _Machine:
    facts: MachineFacts
    directory: Path
    pidfd: int
    gone: asyncio.Event
    has_agent: bool
    wiring: Wiring
    monitor: Monitor | None = None

    @property
    def agent_socket(self) -> Path:
        return _agent_socket(self.directory)


class Launcher:
    """All machines of one enclosure. `on_change(description)` is called whenever one of them dies."""

    def __init__(
        self,
        directory: Path,
        *,
        accelerator: str,
        on_change: Callable[[str], None],
        open_tap: Callable[[str], int],
        taps: TapRepair | None = None,
        qemu: str = "qemu-system-x86_64",
    ) -> None:
        self._directory = directory
        self._accelerator = accelerator
        self._on_change = on_change
        self._open_tap = open_tap
        self._taps = taps
        self._qemu = qemu
        self._machines: dict[str, _Machine] = {}
        self._tending: asyncio.Task[None] | None = None

    def facts(self) -> dict[str, MachineFacts]:
        return {name: machine.facts for name, machine in self._machines.items()}

    def look_at_taps(self) -> None:
        """Find the machines that hold a dead queue, since somebody deleted or renamed their tap."""
        for machine in self._machines.values():
            if machine.facts.phase is not MachinePhase.DEAD:
                machine.facts = replace(machine.facts, severed=machine.wiring.severed())

    def rejoin(self, service: str, tap: str) -> None:
        """Attach the machine's own queue to the tap that was made anew: its guest goes on as if nothing had been."""
        machine = self._machines.get(service)
        if machine is None:
            raise MachineError(f"cannot connect {service} again: it does not run any more")
        try:
            machine.wiring.rejoin(tap)
        except OSError as error:
            raise MachineError(
                f"cannot connect {service} again: {error.strerror}", "stop and start it when care can spare it"
            ) from error
        self.look_at_taps()

    def resident_memory(self) -> int:
        """Bytes that all machines hold at this moment."""
        return sum(process.resident_memory(machine.facts.pid) for machine in self._machines.values())

    async def launch(
        self,
        service: Service,
        *,
        taps: tuple[str, ...],
        disks: tuple[DiskImage, ...],
        memory: int,
        start: StartKind,
        attempt: int,
        made: Made | None = None,
        variables: Path | None = None,
    ) -> None:
        """Start QEMU with its guest paused before the first instruction; MachineError if that does not work.

        `taps` are one for each of the service's cards; `variables` as for `qemu_arguments`.
        """
        directory = self._directory / service.name
        with in_words(f"start {service.name}"), ExitStack() as handles:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = await take_lock(handles, directory, service.name)
            for stale in ("pid", "qemu.log", "machine.json", "console.log"):
                (directory / stale).unlink(missing_ok=True)
            fds = Handles(
                taps=tuple(closing(handles, self._tap(service, tap)) for tap in taps),
                qmp=listening(handles, directory / "qmp.sock"),
                tools=listening(handles, directory / "tools.sock"),
                agent=listening(handles, _agent_socket(directory)),
            )
            arguments = qemu_arguments(
                service,
                memory=memory,
                disks=disks,
                directory=directory,
                accelerator=self._accelerator,
                handles=fds,
                variables=variables,
            )
            pid = self._spawn(service.name, directory, arguments, (lock, *fds.all))
            pidfd = watchable(pid)
        facts = MachineFacts(
            service.name, pid, MachinePhase.PAUSED, start, attempt, memory, launched_at=now(), made=made
        )
        machine = self._watch(facts, directory, pidfd, has_agent=service.guest_agent)
        await self._record(machine)
        try:
            await self._monitor(machine)
        except MachineError as error:
            # Its sockets close a moment before its process is gone, and only then it is known why.
            if await _within(machine.gone, _LAST_WORDS):
                raise MachineError(f"cannot start {service.name}: {machine.facts.death}") from error
            process.kill(machine.pidfd)
            raise

    async def run(self, service: str) -> None:
        """Let the guest execute its first instruction, and record when."""
        machine = self._machines[service]
        monitor = await self._monitor(machine)
        await monitor.execute("cont")
        machine.facts = replace(machine.facts, phase=MachinePhase.RUNNING, running_at=now())
        await self._record(machine)

    async def declare_ready(self, service: str, proof: str) -> None:
        """Record that `service` answered correctly; a restarted daemon then keeps its flows open."""
        machine = self._machines[service]
        machine.facts = replace(machine.facts, ready_at=now(), proof=proof)
        await self._record(machine)

    def agent_socket(self, service: str) -> Path:
        """Where the guest agent of `service` is talked to; it answers one client at a time."""
        return _agent_socket(self._directory / service)

    async def stop(self, service: str, grace: float) -> str:
        """Power the guest down, press again while it ignores that, and end QEMU after `grace` seconds.

        A guest with an agent that ignores the button for a while is asked through its agent too. Returns how it
        went, in words; a machine that is gone already is forgotten.
        """
        machine = self._machines.get(service)
        if machine is None:
            return "was not running"
        began = now()
        manner, how = "was switched off", ""
        if machine.facts.phase is MachinePhase.RUNNING:
            how = await self._power_down(machine, began + grace)
            manner = "powered down" if machine.gone.is_set() else manner
        if not machine.gone.is_set():
            await self._end(machine)
        await self._forget(machine)
        return f"{manner} after {now() - began:.1f} s{how}"

    async def end(self, service: str) -> None:
        """End what is left of a machine, letting QEMU write out what it holds if it still can."""
        machine = self._machines.get(service)
        if machine is not None:
            if not machine.gone.is_set():
                await self._end(machine)
            await self._forget(machine)

    async def _forget(self, machine: _Machine) -> None:
        """Drop the record of a machine whose process is gone."""
        if machine.monitor is not None:
            await machine.monitor.close()
        del self._machines[machine.facts.service]
        os.close(machine.pidfd)
        with suppress(OSError):
            (machine.directory / "machine.json").unlink(missing_ok=True)

    async def adopt(self) -> tuple[str, ...]:
        """Take over the machines that an earlier daemon left running; the names of those found now.

        They are asked side by side: one QEMU that hangs does not keep the others waiting.
        """
        if not self._directory.is_dir():
            return ()
        found = []
        for directory in sorted(self._directory.iterdir()):
            if directory.name in self._machines:
                continue
            pid = process.find_process(directory)
            pidfd = process.open_process(pid, directory) if pid is not None else None
            if pid is not None and pidfd is not None:
                has_agent = records.has_agent(directory, pid)
                found.append(self._watch(records.read(directory, pid), directory, pidfd, has_agent=has_agent))
        await asyncio.gather(*(self._learn_state(machine) for machine in found))
        return tuple(machine.facts.service for machine in found)

    async def _learn_state(self, machine: _Machine) -> None:
        try:
            running = await (await self._monitor(machine)).is_running()
        except MachineError:
            # It cannot be asked, but it may serve: it stays as recorded, and its probes will tell. One without
            # a record is taken to run, since ending one that does costs more than waiting for one that does not.
            running = not records.is_recorded(machine.directory, machine.facts.pid)
        facts = machine.facts
        if running and facts.phase is MachinePhase.PAUSED:
            machine.facts = replace(facts, phase=MachinePhase.RUNNING, running_at=facts.launched_at)
        await self._record(machine)

    async def _monitor(self, machine: _Machine) -> Monitor:
        """A connection that works as far as is known: one that was lost is made anew."""
        if machine.monitor is not None and not machine.monitor.usable:
            await machine.monitor.close()
            machine.monitor = None
        if machine.monitor is None:
            machine.monitor = await Monitor.connect(machine.facts.service, machine.directory / "qmp.sock")
        return machine.monitor

    async def close(self) -> None:
        """Leave all machines running and let go of them."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
            self._tending = None
        for machine in self._machines.values():
            asyncio.get_running_loop().remove_reader(machine.pidfd)
            os.close(machine.pidfd)
        monitors = [machine.monitor for machine in self._machines.values() if machine.monitor is not None]
        self._machines.clear()
        await asyncio.gather(*(monitor.close() for monitor in monitors))

    def console_tail(self, service: str, limit: int = 400) -> str:
        """The last words on the serial console, printable and at most `limit` characters."""
        return logs.tail(self._directory / service / "console.log", limit)

    def qemu_tail(self, service: str, limit: int = 400) -> str:
        """The same of what QEMU itself said."""
        return logs.tail(self._directory / service / "qemu.log", limit)

    def bound_logs(self) -> None:
        """Keep what guests say on their consoles, and QEMU of them, to about two megabytes each."""
        for machine in tuple(self._machines.values()):
            for path in (machine.directory / "console.log", machine.directory / "qemu.log"):
                logs.bound(path)

    def _tap(self, service: Service, tap: str) -> int:
        """A tap that does not open is this attempt's failure, with its back-off; the rules are not in question."""
        try:
            return self._open_tap(tap)
        except CleanroomError as error:
            raise MachineError(f"cannot start {service.name}: {error.message}", error.hint or _NO_TUN) from error
        except OSError as error:
            raise MachineError(f"cannot open the tap of {service.name}: {error.strerror}", _NO_TUN) from error

    def _spawn(self, service: str, directory: Path, arguments: tuple[str, ...], inherited: tuple[int, ...]) -> int:
        """QEMU's pid, in a session of its own. It inherits `inherited` under the same numbers and nothing else."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with ExitStack() as own:
            log = closing(own, os.open(directory / "qemu.log", flags, 0o644))
            null = closing(own, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            try:
                # A descriptor duplicated onto itself loses close-on-exec in the child: posix_spawn(3).
                return os.posix_spawnp(
                    self._qemu,
                    (self._qemu, *arguments),
                    os.environ,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, null, 0),
                        (os.POSIX_SPAWN_DUP2, log, 1),
                        (os.POSIX_SPAWN_DUP2, log, 2),
                        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited),
                    ],
                    setsid=True,
                )
            except OSError as error:
                raise MachineError(
                    f"cannot start {service}: {self._qemu}: {error.strerror}",
                    "install the package qemu-system-x86" if error.errno == errno.ENOENT else way_out(error),
                ) from error

    def _watch(self, facts: MachineFacts, directory: Path, pidfd: int, *, has_agent: bool) -> _Machine:
        taps = tuple(guard.interface for guard in facts.made.guards) if facts.made else ()
        wiring = Wiring(facts.pid, pidfd, taps, self._taps)
        machine = _Machine(facts, directory, pidfd, asyncio.Event(), has_agent, wiring)
        self._machines[facts.service] = machine
        asyncio.get_running_loop().add_reader(pidfd, self._died, machine)
        if self._tending is None:
            self._tending = asyncio.get_running_loop().create_task(self._tend())
        return machine

    async def _tend(self) -> None:
        """QEMU holds a guest whose write met a full disk, so that nothing is lost; somebody has to let it go on."""
        while True:
            await asyncio.sleep(_TEND_EVERY)
            for machine in tuple(self._machines.values()):
                with suppress(MachineError):
                    await self._let_go_on(machine)

    async def _let_go_on(self, machine: _Machine) -> None:
        """Try it, whether there is room by now or not: where there is none, QEMU holds the guest again at once."""
        service, monitor = machine.facts.service, machine.monitor
        if machine.facts.phase is not MachinePhase.RUNNING or monitor is None or not monitor.usable:
            return
        held = await monitor.is_held()
        if held is not machine.facts.held:
            machine.facts = replace(machine.facts, held=held)
            if held:
                self._on_change(f"{service} is held, its write met a full data disk; it goes on once there is room")
            else:
                self._on_change(f"{service} goes on, there is room on the data disk again")
        if held:
            await monitor.execute("cont")

    def _died(self, machine: _Machine) -> None:
        asyncio.get_running_loop().remove_reader(machine.pidfd)
        code = _reap(machine.pidfd)
        machine.facts = replace(machine.facts, phase=MachinePhase.DEAD, death=_death(machine.directory, code))
        machine.gone.set()
        self._on_change(f"machine of {machine.facts.service} ended")

    async def _power_down(self, machine: _Machine, deadline: float) -> str:
        """Press the power button until the machine is off or its time is over; what its agent had to do with that.

        Its agent is asked only once the button has gone unheeded for a while, since most systems heed it and are slow,
        or could not be pressed.
        """
        patience = min(_PRESS_AGAIN, (deadline - now()) / 3) if machine.has_agent else _PRESS_AGAIN
        asked, refusal = False, ""
        while (left := deadline - now()) > 0:
            # A QEMU that ends at this moment refuses the button too. One that only does not answer keeps the time
            # that its plan gives it: what the guest has not written out yet is lost when it is ended.
            pause = patience if await self._press(machine) else _ASK_AGAIN
            if await _within(machine.gone, min(left, pause)):
                break
            if machine.has_agent and not asked and now() < deadline:
                refusal = await self._ask_agent(machine, deadline)
                asked = not refusal
        if machine.gone.is_set():
            return ", once its guest agent was asked" if asked else ""
        if asked:
            return " (it ignored its guest agent)"
        return f" ({refusal})" if refusal else ""

    async def _press(self, machine: _Machine) -> bool:
        """Press the power button of a guest that runs; whether QEMU took that."""
        try:
            monitor = await self._monitor(machine)
            if not await monitor.is_running():
                # QEMU holds a guest whose write met a full or failing disk; it must run to shut down.
                await monitor.execute("cont")
            await monitor.execute("system_powerdown")
        except CleanroomError:
            return False
        return True

    async def _ask_agent(self, machine: _Machine, deadline: float) -> str:
        """Have the agent shut the guest down; empty when it takes that, else why not."""
        service = machine.facts.service
        left = deadline - now()
        try:
            async with (
                asyncio.timeout(left),
                agent.connect(machine.agent_socket, service, seconds=min(left, _AGENT_DEADLINE)) as connection,
            ):
                await connection.shut_down()
        except MachineError as error:
            return error.message
        except TimeoutError:
            return f"cannot reach the guest agent of {service}: no answer in time"
        return ""

    async def _end(self, machine: _Machine) -> None:
        """QEMU's own `quit` first, since it writes out its caches; SIGKILL if that does not end it."""
        with suppress(CleanroomError, TimeoutError):
            async with asyncio.timeout(_QUIT_GRACE):
                await (await self._monitor(machine)).execute("quit")
            if await _within(machine.gone, _QUIT_GRACE):
                return
        process.kill(machine.pidfd)
        if not await _within(machine.gone, _KILL_GRACE):
            raise MachineError(
                f"cannot end the machine of {machine.facts.service}: the kernel does not let go of it",
                "a disk of the enclosure may hang; restart the enclosure when the other services can be spared",
            )

    async def _record(self, machine: _Machine) -> None:
        await asyncio.to_thread(records.write, machine.directory, machine.facts, has_agent=machine.has_agent)


def _agent_socket(directory: Path) -> Path:
    return directory / "agent.sock"


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _reap(pidfd: int) -> int | None:
    """The exit code of a child that has ended, negative for a signal; None for a machine that was adopted."""
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _death(directory: Path, code: int | None) -> str:
    said = logs.tail(directory / "qemu.log", 200)
    if said and code != 0:
        return f"QEMU ended: {said}"
    if code == 0:
        return "the guest switched itself off"
    if code is not None and code < 0:
        return f"QEMU was killed by signal {-code}"
    return "QEMU ended" if code is None else f"QEMU ended with code {code}"
