"""The control interface as the socket describes it, and what protects it."""

import textwrap

from asyncvarlink import varlinksignature

from cleanroomd.control import access
from cleanroomd.control.access import PLACES, PLACES_FOR_ACTING, PLACES_PER_USER, Verb, who_may
from cleanroomd.control.connection import MESSAGE_LIMIT
from cleanroomd.control.interface import ControlInterface
from rigs.reference.markdown import COLUMNS, bullets, code, page, paragraph, prose

_LIMITS = (
    f"A call is at most {MESSAGE_LIMIT // 1024} KiB long.",
    f"At most {PLACES} clients are connected at one time, and {PLACES_PER_USER} of one user.",
    f"Of these places {PLACES_FOR_ACTING} are kept for those who may do everything.",
    "Calls of one client are taken one at a time.",
    "A client that calls while replies stream, or that breaks the protocol, is disconnected.",
)


def document() -> str:
    name = ControlInterface.name
    return page(
        "The control socket",
        "cleanroomd/control/",
        paragraph(
            f"The daemon answers at `/run/cleanroom/control`, or where `--control` says, to the varlink interface "
            f"`{name}`. `cleanroomctl` is a client of it; any other varlink client is as good."
        ),
        code(
            f"varlinkctl introspect /run/cleanroom/control {name}\n"
            f"varlinkctl call /run/cleanroom/control {name}.GetStatus '{{}}'\n"
            f"varlinkctl call --more /run/cleanroom/control {name}.WatchStatus '{{}}'",
            "sh",
        ),
        "## Interface",
        paragraph(
            f"As the socket describes it; long lines are broken here. [Status](status.md) explains the fields. "
            f"{' and '.join(_streaming())} reply again and again, and want to be called with `more`."
        ),
        code("\n".join(map(_broken, ControlInterface.render_interface_description().strip().splitlines()))),
        "## Who may call",
        prose((access.__doc__ or "").partition("\n\n")[2]),
        bullets(f"{verb.value}: {who_may(verb)}" for verb in Verb),
        paragraph("The user that the daemon runs under may do all of this."),
        "## Limits",
        bullets(_LIMITS),
    )


def _streaming() -> list[str]:
    signatures = {name: varlinksignature(getattr(ControlInterface, name)) for name in sorted(dir(ControlInterface))}
    return [name for name, signature in signatures.items() if signature is not None and signature.more]


def _broken(line: str) -> str:
    """varlink cares about the ends of comments only; those are short already."""
    if len(line) <= COLUMNS or line.startswith("#"):
        return line.rstrip()
    return textwrap.fill(line, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
