"""`cleanroomctl restore`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.outcome import Restore
from cleanroomd.cli.output import json_option
from cleanroomd.errors import Exit


@click.command()
@wait_option
@json_option
@click.pass_obj
def restore(path: str, *, wait: bool, as_json: bool) -> Exit:
    """Start every service of the plan by priority, and wait until none can be added.

    The exit code is 0 when all are ready, 3 when only required ones are, 1 otherwise.
    """
    return carry_out(path, Restore(), wait=wait, as_json=as_json)
