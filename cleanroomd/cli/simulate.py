"""`cleanroomctl plan simulate`: when each service would be ready, before any machine exists."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from cleanroomd.cli.documents import Interval, Timeline
from cleanroomd.cli.output import json_option, print_json
from cleanroomd.errors import CleanroomError, Exit
from cleanroomd.model.observed import Capacity, DiskFacts
from cleanroomd.model.plan import Plan
from cleanroomd.model.status import Verdict, VerdictKind
from cleanroomd.model.units import format_clock, format_duration
from cleanroomd.restore.admission import admit
from cleanroomd.restore.estimate import ASSUMED_COLD
from cleanroomd.restore.order import Outline
from cleanroomd.restore.timeline import Span, critical_path, timeline

ROWS_AT_MOST = 60
BAR = 32


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a restoration would look like; instants in seconds from the first start."""

    verdict: Verdict
    spans: Mapping[str, Span]
    assumed: tuple[str, ...]
    """Services that nobody has measured yet."""
    bound: float
    """No order of starts can be faster: the critical path, or the work shared out among the slots."""

    @property
    def makespan(self) -> float:
        return max((span.ready for span in self.spans.values()), default=0.0)


def simulate_plan(plan: Plan, *, slots: int, memory: int, durations: Mapping[str, float], assume: float) -> Simulation:
    """Admit and schedule every service of `plan`; durations in seconds by service, `assume` for the others."""
    outline = Outline(plan)
    disks = {disk.name: DiskFacts(disk.name) for service in plan.services for disk in service.disks}
    admission = admit(outline, Capacity(memory, slots), disks)

    def duration(name: str) -> float:
        return durations.get(name, assume)

    names = [name for name in outline.start_order if name in admission.grants]
    waiting = {name: outline.services[name].depends_on for name in names}
    spans = timeline(outline, slots=slots, duration=duration, under_way={}, waiting=waiting)
    work = sum(duration(name) for name in names)
    return Simulation(
        verdict=admission.verdict,
        spans=spans,
        assumed=tuple(name for name in names if name not in durations),
        bound=max(critical_path(outline, names, duration), work / slots),
    )


@click.command("simulate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--slots",
    type=click.IntRange(1, 1024),
    default=2,
    show_default=True,
    metavar="N",
    help="How many services start at one time.",
)
@click.option("--memory", metavar="SIZE", help='Memory for all machines, such as "64G"; enough for all if not given.')
@click.option(
    "--assume",
    metavar="TIME",
    help=f"Duration of a start that was never measured; {format_duration(ASSUMED_COLD)} if not given.",
)
@click.option(
    "--durations",
    type=click.Path(path_type=Path),
    help="Measured durations: state/durations.json of an enclosure that ran this plan.",
)
@json_option(Timeline)
def simulate(
    file: Path, *, slots: int, memory: str | None, assume: str | None, durations: Path | None, as_json: bool
) -> Exit:
    """Say when each service would be ready.

    A forecast for the plan in FILE, from measured or assumed durations; nothing is started.

    The exit code is 3 when the memory given leaves the plan degraded, and 1 when it leaves it blocked.
    """
    from cleanroomd.plan import units
    from cleanroomd.plan.load import load

    try:
        space = None if memory is None else units.size(memory)
        assumed = ASSUMED_COLD if assume is None else units.duration(assume)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    plan = load(file)
    known = _read_durations(durations) if durations is not None else {}
    enough = sum(service.memory for service in plan.services)
    space = enough if space is None else space
    found = simulate_plan(plan, slots=slots, memory=space, durations=known, assume=assumed)
    if as_json:
        print_json(_document(found))
    else:
        click.echo("\n".join(describe(plan, found, slots=slots, limited=memory is not None)))
    return {VerdictKind.BLOCKED: Exit.CANNOT, VerdictKind.DEGRADED: Exit.DEGRADED}.get(found.verdict.kind, Exit.DONE)


def describe(plan: Plan, found: Simulation, *, slots: int, limited: bool) -> Iterator[str]:
    """The simulation in lines: the verdict, a bar for each service, and what no order could beat."""
    if limited:
        yield f"{found.verdict.kind}: {found.verdict.summary}"
        for finding in found.verdict.findings[:ROWS_AT_MOST]:
            yield f"  {finding.service} {finding.effect}: {finding.cause}"
    yield f"{slots} cold starts at one time" + (
        f"; {len(found.assumed)} of {len(found.spans)} services never measured" if found.assumed else ""
    )
    yield ""
    priorities = {service.name: service.priority for service in plan.services}
    width = max([7, *(len(name) for name in found.spans)])
    yield f" P  {'service':<{width}}  start   ready"
    rows = sorted(found.spans.items(), key=lambda item: (item[1].start, item[1].ready))
    for name, span in rows[:ROWS_AT_MOST]:
        bar = _bar(span, found.makespan)
        yield f" {priorities[name]}  {name:<{width}}  {format_clock(span.start)}   {format_clock(span.ready)}  {bar}"
    if len(rows) > ROWS_AT_MOST:
        yield f"    and {len(rows) - ROWS_AT_MOST} more"
    yield ""
    yield (
        f"all ready after {format_clock(found.makespan)}; "
        f"no order of these starts could be faster than {format_clock(found.bound)}"
    )
    if plan.enclosure.rto is not None:
        word = "within" if found.makespan <= plan.enclosure.rto else "beyond"
        yield f"{word} the target of {format_duration(plan.enclosure.rto)}"


def _bar(span: Span, makespan: float) -> str:
    begin = round(span.start / makespan * BAR)
    end = max(begin + 1, round(span.ready / makespan * BAR))
    return "[" + ("." * begin + "=" * (end - begin)).ljust(BAR)[: max(BAR, end)] + "]"


def _document(found: Simulation) -> Timeline:
    return Timeline(
        verdict=found.verdict.kind,
        summary=found.verdict.summary,
        makespan=found.makespan,
        bound=found.bound,
        assumed=found.assumed,
        services=tuple(Interval(name, start=span.start, ready=span.ready) for name, span in found.spans.items()),
    )


def _read_durations(path: Path) -> dict[str, float]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CleanroomError(
            f"cannot read the durations in {click.format_filename(path)}: {error}",
            "give the state/durations.json of an enclosure",
        ) from error
    if not isinstance(document, dict):
        document = {}
    return {
        str(name): float(seconds)
        for name, seconds in document.items()
        if isinstance(seconds, int | float) and 0 < seconds < 86_400
    }
