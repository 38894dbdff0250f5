"""`cleanroomctl uplink`: what is open towards the hospital's network, and opening it for a while."""

import click

from cleanroomd.cli.carry_out import carry_out, wait_option
from cleanroomd.cli.documents import Answer, Uplink
from cleanroomd.cli.outcome import CloseUplink, OpenUplink
from cleanroomd.cli.output import columns, json_option, print_json, print_lines
from cleanroomd.cli.render import uplink_lines
from cleanroomd.cli.services import completed_status
from cleanroomd.control.client.once import read_status
from cleanroomd.errors import Exit


def window_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Those of the plan that begin so, for the shell's completion."""
    status = completed_status(context)
    windows = status.isolation.windows if status else ()
    return [window.name for window in windows if window.name.startswith(incomplete)]


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """A duration as plans write them."""
    from cleanroomd.plan.units import duration  # which no other verb needs

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group("uplink", invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@json_option(Uplink)
@click.pass_context
def uplink(context: click.Context, *, as_json: bool) -> Exit | None:
    """Show, open or close the uplink.

    It leads to the hospital's network, and is dark but for leases: windows of the plan that somebody opens for a
    while. Each closes by itself. Without a command: what is open, by whom and for how long.
    """
    if context.invoked_subcommand is not None:
        return None
    status = read_status(context.obj)
    if as_json:
        isolation = status.isolation
        print_json(Uplink(isolation.uplink, status.now, isolation.leases, isolation.windows))
    else:
        print_lines(list(uplink_lines(status, columns=columns())))
    return Exit.DONE


@uplink.command("open")
@click.argument("window", shell_complete=window_names)
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=_seconds,
    required=True,
    help="How long, for example 10m; the plan says how long at most.",
)
@click.option("--reason", required=True, help="Why; it is kept in the journal, with your user name.")
@wait_option
@json_option(Answer)
@click.pass_obj
def open_(path: str, *, window: str, seconds: float, reason: str, wait: bool, as_json: bool) -> Exit:
    """Open WINDOW of the plan for a while; it closes by itself.

    What is connected through it then is cut, whether the enclosure's daemon lives or not.
    """
    return carry_out(path, OpenUplink(window, seconds, reason), wait=wait, as_json=as_json)


@uplink.command("close")
@click.argument("window", required=False, shell_complete=window_names)
@wait_option
@json_option(Answer)
@click.pass_obj
def close(path: str, *, window: str | None, wait: bool, as_json: bool) -> Exit:
    """Close WINDOW now, or whatever is open.

    Connections through it are cut.
    """
    return carry_out(path, CloseUplink(window), wait=wait, as_json=as_json)
