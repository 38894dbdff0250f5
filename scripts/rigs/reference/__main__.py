"""`scripts/reference [--check]`: write what is written from the code, or say whether it is what the code says."""

import argparse
import sys

from cleanroomd.errors import Exit
from rigs.reference import ROOT, stale, write


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/reference",
        description="Write docs/reference/, docs/man/, message catalogs and completions from the code.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is not what the code says")
    options = parser.parse_args()
    if not options.check:
        write(ROOT)
        return Exit.DONE
    names = stale(ROOT)
    for name in names:
        print(f"{name} is not what the code says; run scripts/reference", file=sys.stderr)
    return Exit.CANNOT if names else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
