"""`cleanroomctl restore`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.documents import Answer
from cleanroomd.cli.outcome import Restore
from cleanroomd.cli.output import json_option
from cleanroomd.errors import Exit


@click.command()
@wait_option
@json_option(Answer)
@click.pass_obj
def restore(path: str, *, wait: bool, as_json: bool) -> Exit:
    """Start every service that is not running.

    As at power-on: by priority, after what each depends on. Failures from before no longer count.

    Waits until no further service can become ready. The exit code is 0 when all are, 3 when only the required ones
    are, 1 otherwise.
    """
    return carry_out(path, Restore(), wait=wait, as_json=as_json)
