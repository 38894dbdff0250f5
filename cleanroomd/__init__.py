"""cleanroomd: the daemon of a recovery enclosure for hospitals."""

__version__ = "0.1.0"
