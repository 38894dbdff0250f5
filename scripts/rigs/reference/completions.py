"""What makes shells complete `cleanroomctl`: click's own scripts, which ask the command itself."""

from collections.abc import Mapping

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from cleanroomd.cli.verbs import cli

_NAME = "cleanroomctl"
_FILES: Mapping[str, type[ShellComplete]] = {
    f"{_NAME}.bash": BashComplete,
    f"_{_NAME}": ZshComplete,
    f"{_NAME}.fish": FishComplete,
}
"""As bash-completion, zsh and fish look for them."""


def files() -> Mapping[str, str]:
    return {name: _source(shell) for name, shell in _FILES.items()}


def _source(shell: type[ShellComplete]) -> str:
    # Not the method of bash's own class: that one also asks the bash of this computer how old it is.
    text = ShellComplete.source(shell(cli, {}, _NAME, f"_{_NAME}_complete".upper()))
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"
