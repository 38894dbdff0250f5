"""A measurement that takes an enclosure of its own: its root, and a program in a sandbox that says what it found."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cleanroomd.errors import CleanroomError
from rigs import namespaces


@contextmanager
def enclosure_root(plan: str, disks: Mapping[str, Path]) -> Iterator[Path]:
    """A fresh root with `plan` (TOML) and links to `disks`; its path is short, because of the sockets below it."""
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        root = Path(name)
        (root / "vault").mkdir()
        (root / "logs").mkdir()
        for disk, image in disks.items():
            (root / f"vault/{disk}{image.suffix}").symlink_to(image)
        (root / "plan.toml").write_text(plan, encoding="utf-8")
        yield root


def measure(module: str, root: Path, *arguments: str) -> Any:
    """Run `python -m MODULE DESCRIPTOR ROOT ARGUMENTS...` in a sandbox; the JSON that it writes to the descriptor."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", module, str(write_end), str(root), *arguments]
    log = root / "logs/inside.log"
    with os.fdopen(read_end) as said, namespaces.sandbox(argv, log=log, pass_fds=(write_end,)):
        os.close(write_end)
        line = said.readline()
    if not line:
        raise CleanroomError(f"cannot measure with {module}: the sandbox ended early", log.read_text()[-2000:])
    return json.loads(line)
