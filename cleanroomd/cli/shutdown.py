"""`cleanroomctl shutdown`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.outcome import Shutdown
from cleanroomd.cli.output import json_option
from cleanroomd.errors import Exit


@click.command()
@wait_option
@json_option
@click.pass_obj
def shutdown(path: str, *, wait: bool, as_json: bool) -> Exit:
    """Stop every machine in reverse order, and wait until all are down."""
    return carry_out(path, Shutdown(), wait=wait, as_json=as_json)
