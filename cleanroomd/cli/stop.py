"""`cleanroomctl stop`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.outcome import Stop
from cleanroomd.cli.output import json_option
from cleanroomd.errors import Exit


@click.command()
@click.argument("service")
@wait_option
@json_option
@click.pass_obj
def stop(path: str, *, service: str, wait: bool, as_json: bool) -> Exit:
    """Stop SERVICE, after what depends on it, and wait until it is down."""
    return carry_out(path, Stop(service), wait=wait, as_json=as_json)
