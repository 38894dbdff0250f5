"""`cleanroomctl start`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.outcome import Start
from cleanroomd.cli.output import json_option
from cleanroomd.errors import Exit


@click.command()
@click.argument("service")
@wait_option
@json_option
@click.pass_obj
def start(path: str, *, service: str, wait: bool, as_json: bool) -> Exit:
    """Start SERVICE, after what it depends on, and wait until it answers."""
    return carry_out(path, Start(service), wait=wait, as_json=as_json)
