"""Readiness by clinical protocol: what a machine answers is hostile input, read in a sandboxed child.

`runner` is what the daemon uses; `child` is the process that it spawns, one for each service; the other
modules run inside that process.
"""
