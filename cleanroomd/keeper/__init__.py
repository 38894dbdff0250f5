"""The tiny process that owns the two rule tables for as long as the enclosure is up.

The kernel ties an owned nftables table to the netlink socket that made it: while any process has that socket
open, no other can change or flush the table. The keeper makes the tables deny-all before any link is up,
holds the socket, and hands copies of it to each daemon over a unix socket. So the death of a daemon opens
nothing.

A keeper that dies is replaced without a gap as well: its successor finds the tables owned by the daemon's copy
and asks for it, and the daemon, which watches the keeper's process, hands it over and keeps its own.

It also holds the deadline of the uplink: at that instant it takes the link down, whether a daemon lives or not.

All copies are one socket: they share one netlink port and one receive queue, so the keeper never reads from
it after its start, and whoever takes a copy first drops what a predecessor left unread.
"""
