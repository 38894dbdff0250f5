"""`cleanroomctl status`."""

import click

from cleanroomd.cli.output import columns, json_option, print_json, print_lines
from cleanroomd.cli.render import status_lines
from cleanroomd.control.client.once import read_status
from cleanroomd.errors import Exit
from cleanroomd.model.status import RunState, Status

_EXITS = {RunState.DEGRADED: Exit.DEGRADED, RunState.HALTED: Exit.CANNOT}


@click.command()
@click.option("--watch", is_flag=True, help="Go on showing it as it changes, until Ctrl-C.")
@json_option(Status)
@click.pass_obj
def status(path: str, *, watch: bool, as_json: bool) -> Exit:
    """Show what works, what does not yet and why, and what to do next.

    The exit code is 0 while services are being restored and when all are ready or all were stopped, 3 when
    only required ones are (DEGRADED), 1 when a required one is not (HALTED) or the daemon cannot be reached.

    With --json it is one JSON object; with --watch as well, one in each line.
    """
    if watch:
        from cleanroomd.cli.watch import watch_status

        watch_status(path, as_json=as_json)
        return Exit.DONE
    current = read_status(path)
    if as_json:
        print_json(current)
    else:
        print_lines(status_lines(current, columns=columns()))
    return _EXITS.get(current.state, Exit.DONE)
