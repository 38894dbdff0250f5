"""The one clock: seconds that go on while the enclosure sleeps, and that nobody sets."""

import time


def now() -> float:
    """CLOCK_BOOTTIME, seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
