"""`cleanroomctl shutdown`."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.documents import Answer
from cleanroomd.cli.outcome import Shutdown
from cleanroomd.cli.output import json_option
from cleanroomd.errors import Exit


@click.command()
@wait_option
@json_option(Answer)
@click.pass_obj
def shutdown(path: str, *, wait: bool, as_json: bool) -> Exit:
    """Stop every machine, in reverse order.

    Waits until all are down. The enclosure itself stays on, and `cleanroomctl restore` starts them again.
    """
    return carry_out(path, Shutdown(), wait=wait, as_json=as_json)
