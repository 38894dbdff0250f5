"""`python -m cleanroomd` is the daemon."""

from cleanroomd.daemon import main

main()
