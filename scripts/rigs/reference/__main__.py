"""`scripts/reference [--check]`: write docs/reference/ from the code, or say whether it is what the code says."""

import argparse
import sys

from cleanroomd.errors import Exit
from rigs.reference import FOLDER, stale, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/reference", description="Write docs/reference/ from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is not what the code says")
    options = parser.parse_args()
    if not options.check:
        write(FOLDER)
        return Exit.DONE
    names = stale(FOLDER)
    for name in names:
        print(f"docs/reference/{name} is not what the code says; run scripts/reference", file=sys.stderr)
    return Exit.CANNOT if names else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
