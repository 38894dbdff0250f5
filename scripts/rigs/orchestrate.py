"""The demonstration from inside the sandbox: power on, watch, act as the workstation, attack, cut the power, report."""

import argparse
import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanroomd.control.client import Client
from cleanroomd.errors import CleanroomError, ControlError, MachineError
from cleanroomd.model.status import RunState, Status
from cleanroomd.plan.load import load
from rigs import attack, guest_agent, intruder, namespaces, report
from rigs.attack import Attacker, Strike
from rigs.events import Acted, Changed, Ended, Event, Failed, Hosts, Said, encode
from rigs.namespaces import Node, Rig
from rigs.pid1 import Unit
from rigs.report import Act, PowerCut, Report
from rigs.scenario import ActOrder, Scenario, hospital, tiny_hospital

DAEMON_SECONDS = 60.0
"""How long the daemon may take to answer on its socket: it measures the accelerator first."""
RESTORE_SECONDS = 25 * 60.0
ACT_SECONDS = 180.0
STRIKE_SECONDS = 240.0
RECONNECT_SECONDS = 0.2
CONSOLE_BYTES = 2000
INTRUDER = Path(intruder.__file__).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Orders:
    scenario: Scenario
    root: Path
    logs: Path
    power_cut: bool
    keep: bool


def units(root: Path, logs: Path) -> tuple[Unit, ...]:
    """What the enclosure's PID 1 runs: the keeper, then the daemon."""
    keeper = root / "run/keeper"
    return (
        Unit(
            name="keeper",
            argv=(sys.executable, "-m", "cleanroomd.keeper", "--socket", str(keeper)),
            notify=True,
            log=str(logs / "keeper.log"),
        ),
        Unit(
            name="daemon",
            argv=(
                *(sys.executable, "-m", "cleanroomd", "--plan", str(root / "plan.toml"), "--root", str(root)),
                *("--control", str(root / "run/control"), "--keeper", str(keeper), "--unsealed"),
            ),
            notify=True,
            log=str(logs / "daemon.log"),
        ),
    )


class Demonstration:
    """One run; what it finds goes out as events as soon as it is known."""

    def __init__(self, orders: Orders, rig: Rig, events: int) -> None:
        self._orders = orders
        self._rig = rig
        self._events = events
        self._plan = load(orders.root / "plan.toml")
        self._client = Client(orders.root / "run/control")
        self._latest: Status | None = None
        self._proven_after: float | None = None

    async def run(self) -> None:
        self._tell(Hosts(workstation=self._rig.workstation.pid))
        record = f"Demo-{uuid.uuid4().hex[:8]}"
        async with listening(self._rig.hospital, emitted=False) as uplink:
            self._tell(Said("power on"))
            await asyncio.to_thread(self._rig.enclosure.power_on)
            await self._settle()
            acts = [await self._act(order) for order in self._orders.scenario.acts(record)]
            strikes = await self._strike()
            status = await self._client.status()
            cut = await self._cut_power(record) if self._orders.power_cut else None
            leaked = int((await uplink.stop())["frames"])
        self._tell(Ended(self._report(status, acts, strikes, leaked, cut)))

    def _report(
        self, status: Status, acts: Sequence[Act], strikes: Sequence[Strike], leaked: int, cut: PowerCut | None
    ) -> Report:
        isolated = report.isolation(status, proven_after=self._proven_after, strikes=strikes, leaked=leaked)
        consoles = {service.name: self._console(service.name) for service in status.services}
        problems = list(report.find_problems(status, isolated, acts, consoles=consoles))
        if cut is not None and not cut.found:
            problems.append(f"after the power cut: {cut.proof}")
        return Report(
            services=report.outcomes(status, acts),
            isolation=isolated,
            verdict=status.state,
            seconds=status.restored_after,
            acts=tuple(acts),
            power_cut=cut,
            problems=tuple(problems),
        )

    async def _settle(self) -> Status:
        """Follow the daemon's status until it is no longer restoring."""
        first_answer = asyncio.Event()
        following = asyncio.create_task(self._follow(first_answer))
        try:
            async with asyncio.timeout(DAEMON_SECONDS):
                await first_answer.wait()
            async with asyncio.timeout(RESTORE_SECONDS):
                return await following
        except TimeoutError as error:
            if not first_answer.is_set():
                last = _tail(self._orders.logs / "daemon.log") or _tail(self._orders.logs / "keeper.log")
                raise CleanroomError(
                    f"cannot follow the restoration: the daemon did not answer within {DAEMON_SECONDS:.0f} s",
                    f"it last said: {last or 'nothing'}",
                ) from error
            raise CleanroomError(
                f"cannot restore: not settled after {RESTORE_SECONDS / 60:.0f} minutes", "see the daemon's log"
            ) from error
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _follow(self, first_answer: asyncio.Event) -> Status:
        while True:
            try:
                async for status in self._client.watch():
                    first_answer.set()
                    self._note(status)
                    if status.state is not RunState.RESTORING:
                        return status
            except ControlError:
                # The daemon is not there yet, or PID 1 is starting it again.
                await asyncio.sleep(RECONNECT_SECONDS)

    def _note(self, status: Status) -> None:
        self._latest = status
        proven_at = status.isolation.proven_at
        if self._proven_after is None and status.isolation.proven and proven_at is not None:
            self._proven_after = proven_at - status.power_on
        self._tell(Changed(status))

    async def _act(self, order: ActOrder) -> Act:
        self._tell(Said(f"workstation: {order.name}"))
        act = await perform(self._rig.workstation, order)
        self._tell(Acted(act))
        return act

    async def _strike(self) -> list[Strike]:
        """Everybody attacks at once, while a listener in the enclosure sees what its rules let out."""
        self._tell(Said("attack from the hospital network, from the workstation and between machines"))
        plan = self._plan
        hospital_side = attack.hospital_attacker(
            plan,
            addresses=[address.split("/")[0] for address in namespaces.HOSPITAL_ADDRESSES],
            fallback_mac=namespaces.UPLINK_MAC,
        )
        workstation_side = attack.workstation_attacker(
            plan,
            zone="workstations",
            address=namespaces.WORKSTATION_ADDRESS.split("/")[0],
            fallback_mac=namespaces.CARE_MAC,
        )
        beyond = [each.split("/")[0] for each in (namespaces.WORKSTATION_ADDRESS, *namespaces.HOSPITAL_ADDRESSES)]
        machines = [
            attack.machine_attacker(plan, plan.service(name), beyond=beyond) for name in self._orders.scenario.infected
        ]
        async with listening(self._rig.enclosure, emitted=True) as inside:
            outcomes = await asyncio.gather(
                self._from_node(self._rig.hospital, hospital_side),
                self._from_node(self._rig.workstation, workstation_side),
                *(self._from_machine(machine) for machine in machines),
                return_exceptions=True,
            )
            heard = await inside.stop()
        strikes = []
        for attacker, outcome in zip((hospital_side, workstation_side, *machines), outcomes, strict=True):
            if isinstance(outcome, CleanroomError):
                finding = f"cannot attack from {attacker.name}: {outcome.message}"
                strikes.append(Strike(attacker.name, 0, 0, len(attacker.permitted), 0, (finding,)))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                strikes.append(attack.judge(attacker, outcome, heard["seen"]))
        return strikes

    async def _from_node(self, node: Node, attacker: Attacker) -> Mapping[str, Any]:
        order = {**attack.order(attacker, self._plan), "interface": namespaces.HOSPITAL_LINK}
        argv = (sys.executable, intruder.__file__, json.dumps(order))
        outcome: dict[str, Any] = json.loads(await run_in(node, argv, seconds=STRIKE_SECONDS))
        return outcome

    async def _from_machine(self, attacker: Attacker) -> Mapping[str, Any]:
        if not self._orders.scenario.guest_agent:
            return await self._by_request(attacker)
        order = json.dumps(attack.order(attacker, self._plan))
        agent = self._orders.root / "run/machines" / attacker.name / "agent.sock"
        argv = ("/usr/bin/python3", "-", order)
        output = await guest_agent.run(agent, argv, text=INTRUDER, seconds=STRIKE_SECONDS)
        outcome: dict[str, Any] = json.loads(output)
        return outcome

    async def _by_request(self, attacker: Attacker) -> Mapping[str, Any]:
        """A tiny machine has no agent: the workstation asks it, over its plan's flow, to knock on the others."""
        ports = attack.scanned_ports(self._plan)[:8]
        knocks = sorted(
            {(target, port) for target in attacker.targets for port in ports} | set(attacker.permitted),
        )
        query = ",".join(f"{address}:{port}" for address, port in knocks)
        url = f"http://{attacker.sources[0]}/scan?{query}"
        order = ActOrder("scan", attacker.name, (sys.executable, "-m", "rigs.tiny_workstation", url, "--expect="))
        output = json.loads(await run_in(self._rig.workstation, order.argv, seconds=STRIKE_SECONDS, strict=False))
        answers = [line.split() for line in str(output.get("text", "")).splitlines()]
        if len(answers) != len(knocks):
            raise MachineError(f"cannot have {attacker.name} knock on the others: {output.get('proof')}")
        heard = []
        for there, answer in answers:
            address, _, port = there.rpartition(":")
            if answer != "silent":
                heard.append({"kind": "tcp", "source": address, "source_port": int(port), "port": 0})
        return {"tried": len(knocks), "source_port": 0, "heard": heard}

    async def _cut_power(self, record: str) -> PowerCut:
        """Kill every process of the enclosure at once, power it on again, look for the record."""
        self._tell(Said("power cut: every process of the enclosure is killed"))
        await asyncio.to_thread(self._rig.enclosure.power_cut)
        self._tell(Said("power on again"))
        await asyncio.to_thread(self._rig.enclosure.power_on)
        status = await self._settle()
        act = await self._act(self._orders.scenario.read_back(record))
        return PowerCut(record=record, found=act.ok, proof=act.proof, seconds=status.restored_after)

    def _console(self, service: str) -> str:
        return _tail(self._orders.root / "run/machines" / service / "console.log")

    def _tell(self, event: Event) -> None:
        os.write(self._events, encode(event))


async def run_in(node: Node, argv: Sequence[str], *, seconds: float, strict: bool = True) -> str:
    """Standard output of a command in a host; CleanroomError when it fails (if `strict`) or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *namespaces.enter_argv(node.pid, argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise CleanroomError(f"cannot run {argv[0]} at the {node.name}: not done after {seconds:.0f} s") from error
    if strict and process.returncode != 0:
        raise CleanroomError(f"cannot run {argv[0]} at the {node.name}: {errors.decode(errors='replace')[-400:]}")
    return output.decode(errors="replace")


async def perform(node: Node, order: ActOrder) -> Act:
    """One act of the workstation; what went wrong is its proof then."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        output = await run_in(node, order.argv, seconds=ACT_SECONDS, strict=False)
        result = json.loads(output.strip().splitlines()[-1])
        ok, proof = bool(result["ok"]), str(result["proof"])
    except CleanroomError as error:
        ok, proof = False, error.message
    except (IndexError, ValueError, KeyError, TypeError):
        ok, proof = False, f"cannot {order.name}: it ended without a result"
    return Act(order.name, order.service, ok, proof, round(loop.time() - began, 2))


class Listener:
    """A running rigs.intruder that listens in one host."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: asyncio.StreamWriter) -> None:
        self._process = process
        self._stdin = stdin

    async def stop(self) -> Mapping[str, Any]:
        """What it heard; CleanroomError when it cannot vouch for having heard everything."""
        self._stdin.close()
        output, _ = await self._process.communicate()
        heard: dict[str, Any] = json.loads(output)
        if heard["lost"]:
            raise CleanroomError(
                f"cannot prove the isolation: the listener lost {heard['lost']} frames", "run it again"
            )
        return heard


@asynccontextmanager
async def listening(node: Node, *, emitted: bool) -> AsyncIterator[Listener]:
    """Listen on all interfaces of a host, those that appear later included."""
    order = json.dumps({"act": "watch", "emitted": emitted})
    process = await asyncio.create_subprocess_exec(
        *namespaces.enter_argv(node.pid, (sys.executable, intruder.__file__, order)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdin is None or process.stdout is None or await process.stdout.readline() != b"listening\n":
            raise CleanroomError(f"cannot listen at the {node.name}", "its log says why")
        yield Listener(process, process.stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - CONSOLE_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " | ".join(line.strip() for line in lines[-3:])


async def demonstrate(orders: Orders, rig: Rig, events: int) -> None:
    """Run it; with `keep` stay up for ever afterwards, unless it could not be carried through."""
    try:
        await Demonstration(orders, rig, events).run()
    except CleanroomError as error:
        os.write(events, encode(Failed(error.message, error.hint)))
        return
    os.close(events)
    if orders.keep:
        await asyncio.Event().wait()


def main() -> None:
    """Started by rigs.demo as the essential unit of a sandbox."""
    parser = argparse.ArgumentParser(prog="python -m rigs.orchestrate")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--power-cut", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    orders = Orders(
        scenario=tiny_hospital() if options.tiny else hospital(),
        root=options.root,
        logs=options.logs,
        power_cut=options.power_cut,
        keep=options.keep,
    )
    # pyroute2 runs a loop of its own, so the hosts are made before there is one here.
    with namespaces.rig(root=orders.root, units=units(orders.root, orders.logs), log=orders.logs / "hosts.log") as rig:
        asyncio.run(demonstrate(orders, rig, options.events))


if __name__ == "__main__":
    main()
