"""The control socket: what the daemon answers to people and programs of this enclosure, and to whom."""
