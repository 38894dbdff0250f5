"""`cleanroomctl start`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.documents import Answer
from cleanroomd.cli.outcome import Start
from cleanroomd.cli.output import json_option
from cleanroomd.cli.services import service_names
from cleanroomd.errors import Exit


@click.command()
@click.argument("service", shell_complete=service_names)
@wait_option
@json_option(Answer)
@click.pass_obj
def start(path: str, *, service: str, wait: bool, as_json: bool) -> Exit:
    """Start SERVICE, after what it depends on.

    Waits until it is ready, or says why it will not be. Failures from before no longer count: it gets new attempts.
    """
    return carry_out(path, Start(service), wait=wait, as_json=as_json)
