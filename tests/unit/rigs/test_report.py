from dataclasses import replace

from cleanroomd.errors import Exit
from cleanroomd.model.status import RunState, ServiceState, Status
from rigs import report
from rigs.attack import Strike
from rigs.events import Changed, Ended, decode, encode
from rigs.report import Act, PowerCut, Report
from tests.unit.rigs.samples import state_of, status

CLEAN = Strike("hospital network", tried=1892, through=0, permitted=0, answered=0)


def made(found: Status, *, acts: tuple[Act, ...] = (), strike: Strike = CLEAN, leaked: int = 0) -> Report:
    isolated = report.isolation(found, proven_after=0.9, strikes=(strike,), leaked=leaked)
    return Report(
        services=report.outcomes(found, acts),
        isolation=isolated,
        verdict=found.state,
        seconds=found.restored_after,
        acts=acts,
        problems=report.find_problems(found, isolated, acts, consoles={"record": "Kernel panic"}),
    )


def test_a_good_run_is_done_and_its_table_says_so() -> None:
    login = Act("record-login", "record", ok=True, proof="signed in", seconds=1.0)
    outcome = made(status([state_of("record", ServiceState.READY)]), acts=(login,))
    assert outcome.exit_code() is Exit.DONE
    text = "\n".join(report.table(outcome, columns=100))
    assert "record      1             00:31.2   cold    signed in" in text
    assert "1 892 packets tried" in text
    assert text.endswith("RESTORED in 00:31.2.")
    assert all(len(line) <= 80 for line in report.table(outcome, columns=80))


def test_a_failed_act_fails_the_run() -> None:
    login = Act("record-login", "record", ok=False, proof="cannot sign in", seconds=1.0)
    outcome = made(status([state_of("record", ServiceState.READY)]), acts=(login,))
    assert outcome.exit_code() is Exit.CANNOT
    assert outcome.services[0].proof == "HTTP 200"
    assert "not as planned: record: cannot sign in" in report.table(outcome, columns=100)


def test_one_packet_through_or_one_frame_emitted_fails_the_run() -> None:
    found = status([state_of("record", ServiceState.READY)])
    assert made(found, leaked=1).exit_code() is Exit.CANNOT
    pierced = replace(CLEAN, through=1, findings=("hospital network received icmp",))
    assert made(found, strike=pierced).exit_code() is Exit.CANNOT


def test_unproven_isolation_fails_the_run() -> None:
    assert made(status([state_of("record", ServiceState.READY)], proven=False)).exit_code() is Exit.CANNOT


def test_an_optional_service_that_failed_is_degraded() -> None:
    services = [
        state_of("record", ServiceState.READY),
        state_of("imaging", ServiceState.FAILED, required=False),
    ]
    outcome = made(status(services, state=RunState.DEGRADED))
    assert outcome.problems == ()
    assert outcome.exit_code() is Exit.DEGRADED


def test_a_required_service_that_failed_is_quoted_with_its_console() -> None:
    outcome = made(status([state_of("record", ServiceState.FAILED)], state=RunState.HALTED))
    assert outcome.exit_code() is Exit.CANNOT
    assert any("Kernel panic" in problem for problem in outcome.problems)


def test_the_power_cut_is_told() -> None:
    outcome = made(status([state_of("record", ServiceState.READY)]))
    cut = PowerCut(record="Demo-1", found=True, proof="patient 'Demo-1' found", seconds=61.0)
    assert "After a power cut: patient 'Demo-1' found; all ready again in 01:01.0." in report.table(
        replace(outcome, power_cut=cut), columns=100
    )


def test_the_document_lists_what_was_promised() -> None:
    document = made(status([state_of("record", ServiceState.READY)])).document()
    assert {"services", "isolation", "verdict", "seconds", "acts", "power_cut"} <= set(document)
    assert {"name", "state", "priority", "seconds", "proof"} <= set(document["services"][0])
    assert document["verdict"] == "RESTORED"


def test_events_cross_the_pipe_unchanged() -> None:
    changed = Changed(status([state_of("record", ServiceState.READY)]))
    ended = Ended(made(status([state_of("record", ServiceState.READY)])))
    assert decode(encode(changed)) == changed
    assert decode(encode(ended)) == ended
