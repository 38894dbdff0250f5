"""The rules in force: one batch to change them, one dump to know them, on the socket that owns the tables."""

import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETFLOWTABLE,
    NFT_MSG_GETGEN,
    NFT_MSG_GETOBJ,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
)

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import decode, encode
from cleanroomd.isolation.changes import changes
from cleanroomd.isolation.channel import Channel, InterruptedDumpError, RefusedError
from cleanroomd.isolation.expressions import Rule
from cleanroomd.isolation.leases import settled
from cleanroomd.isolation.policy import TABLE, compile_posture
from cleanroomd.isolation.ruleset import Chain, Family, Ruleset, Set, Table, Tally, differences
from cleanroomd.model.posture import Posture, Proof

Found = TypeVar("Found")

OWNER, PERSIST = 0x2, 0x4
"""NFT_TABLE_F_*"""
ATTEMPTS = 20
"""How often a dump or a batch is begun again because somebody changed rules meanwhile."""
NAMED = 5
"""Differences that an error names one by one."""

_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HINTS = {
    errno.EPERM: "another process owns the tables: restart the keeper, then the daemon",
    errno.ENOENT: "an interface must exist before its guard",
    errno.EMSGSIZE: "the rules are too many for this user's socket buffer: raise net.core.wmem_max, or run as root",
    errno.EOPNOTSUPP: "the kernel lacks something of nf_tables: 5.16 or later with the netdev family is needed",
}


@dataclass(frozen=True, slots=True)
class _State:
    """One consistent dump."""

    ruleset: Ruleset
    owners: dict[Family, decode.TableFacts]
    generation: int
    at: float
    """CLOCK_BOOTTIME seconds before the dump began; ends of elements are counted from here."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rules in force beside the compiled ones, at one generation."""

    differences: tuple[str, ...]
    """In words; empty if and only if the two are the same."""
    generation: int
    digest: str
    """SHA-256 of the canonical form of what is in force, in hexadecimal."""


class RuleWriter:
    """Changes and proves the rules of the two owned tables. Takes the socket over and closes it."""

    def __init__(self, owning: socket.socket) -> None:
        self._channel = Channel(owning)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    @property
    def port(self) -> int:
        """The netlink port of the owning socket: what is committed through it is ours."""
        return self._channel.port

    def apply(self, ruleset: Ruleset) -> None:
        """Make these rules the ones in force, in one batch; nothing is sent if they already are.

        The batch is computed against a dump and bound to that dump's generation, so a change in between makes
        the kernel refuse it, and it is computed anew. IsolationError leaves the rules as they were.
        """
        for _ in range(ATTEMPTS):
            state = self._state()
            wanted, found = settled(ruleset, state.ruleset, state.at)
            if found == wanted and not self._unowned(state, self.port):
                return
            messages = list(changes(found, wanted, self._claim_flags(state)))
            try:
                self._channel.commit(messages, state.generation)
            except RefusedError as refusal:
                if refusal.code == errno.ERESTART:
                    continue
                raise IsolationError(
                    f"cannot apply the rules: {refusal}; the old rules are still in force",
                    _HINTS.get(refusal.code, ""),
                ) from refusal
            return
        raise _restless("apply the rules")

    def read_back(self) -> tuple[Ruleset, int]:
        """The rules in force and the kernel's ruleset generation at which they were; other tables are left out."""
        state = self._state()
        return state.ruleset, state.generation

    def prove(self, posture: Posture) -> Proof:
        """Compare the rules in force with what the posture compiles to; IsolationError names the differences."""
        compared = self.compare(posture, owner=self._channel.port)
        problems = compared.differences
        if problems:
            named = "; ".join(problems[:NAMED])
            more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise IsolationError(
                f"cannot prove the isolation: {named}{more}", "apply the rules again, and find out who changed them"
            )
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Proof(posture=posture, generation=compared.generation, digest=compared.digest, at=at)

    def compare(self, posture: Posture, *, owner: int | None) -> Comparison:
        """Every difference between the rules in force and what the posture compiles to.

        `owner` is the netlink port of the socket that should own the tables, None for any owner; this socket may be
        another one that only reads.
        """
        state = self._state()
        wanted, found = settled(compile_posture(posture), state.ruleset, state.at)
        problems = (*self._unowned(state, owner), *differences(wanted, found))
        return Comparison(problems, state.generation, found.digest)

    def generation(self) -> int:
        """The kernel's ruleset generation of this network namespace; it moves with every change of any table."""
        (reply,) = self._channel.ask(NFT_MSG_GETGEN, dump=False)
        return decode.Attributes(reply.attributes).number(1)

    def foreign_tables(self) -> frozenset[str]:
        """Tables that are not ours, as "inet filter": they cannot accept what ours drop, but they can drop more."""
        tables, _ = self._steadily(self._tables)
        return frozenset(_table_name(facts) for facts in tables if not _is_ours(facts))

    def remove_table(self, table: str) -> str:
        """Remove a table that `foreign_tables` named, with all its rules; why it stays, "" once it is gone."""
        for _ in range(ATTEMPTS):
            found, generation = self._steadily(self._tables)
            for facts in found:
                if not _is_ours(facts) and _table_name(facts) == table:
                    break
            else:
                return ""
            try:
                self._channel.commit([encode.delete_foreign_table(facts.family, facts.name)], generation)
            except RefusedError as refusal:
                if refusal.code not in (errno.ERESTART, errno.ENOENT):
                    return "another process owns it" if refusal.code == errno.EPERM else str(refusal)
        return "it comes back all the time"

    def denied(self) -> dict[str, int]:
        """Packets that each chain has dropped since its counter was made, by chain."""
        objects, _ = self._steadily(lambda: [found for family in Family for found in self._objects(family)])
        return {
            name: decode.Attributes(data).number(2) for name, kind, data in objects if kind == encode.COUNTER_OBJECT
        }

    def tallies(self, name: str) -> dict[bytes, Tally]:
        """Key -> counter of the elements of a set of the deciding table; empty if there is no such set.

        Read once, whatever changes meanwhile: what is added or forgotten during the read may be missing.
        """
        wanted = _TABLE_ATTRIBUTE + encode.attribute(2, encode.wire_name(name) + b"\0")
        with suppress(InterruptedDumpError):
            lists = self._channel.ask(NFT_MSG_GETSETELEM, Family.INET, wanted)
            return dict(tally for part in lists for tally in decode.tallies(part.attributes))
        return {}

    def _claim_flags(self, state: _State) -> int:
        """Flags of the living tables, which the keeper chose as the kernel allows; those of an orphan lack owner."""
        flags = {facts.flags for facts in state.owners.values()}
        return OWNER if flags == {OWNER} else OWNER | PERSIST

    def _unowned(self, state: _State, owner: int | None) -> list[str]:
        return [
            f"table {_FAMILIES[family]} {TABLE} is not owned by the keeper's socket"
            for family, facts in state.owners.items()
            if not facts.flags & OWNER or owner not in (None, facts.owner)
        ]

    def _state(self) -> _State:
        def dump() -> tuple[Ruleset, dict[Family, decode.TableFacts], float]:
            at = time.clock_gettime(time.CLOCK_BOOTTIME)
            owners = {Family(facts.family): facts for facts in self._tables() if _is_ours(facts)}
            return Ruleset(frozenset(self._table(family, facts, at) for family, facts in owners.items())), owners, at

        (ruleset, owners, at), generation = self._steadily(dump)
        return _State(ruleset, owners, generation, at)

    def _steadily(self, read: Callable[[], Found]) -> tuple[Found, int]:
        """What was read while the rules stayed as they are, and their generation."""
        for _ in range(ATTEMPTS):
            generation = self.generation()
            with suppress(InterruptedDumpError):
                found = read()
                if self.generation() == generation:
                    return found, generation
        raise _restless("read the rules back")

    def _tables(self) -> list[decode.TableFacts]:
        return [decode.table(reply.family, reply.attributes) for reply in self._channel.ask(NFT_MSG_GETTABLE)]

    def _table(self, family: Family, facts: decode.TableFacts, at: float) -> Table:
        odd = [f"flags {facts.flags}"] if facts.flags & ~(OWNER | PERSIST) else []
        objects = self._objects(family)
        odd += [f"object {name} of type {kind}" for name, kind, _ in objects if kind != encode.COUNTER_OBJECT]
        if self._channel.ask(NFT_MSG_GETFLOWTABLE, family, _TABLE_ATTRIBUTE):
            odd.append("a flowtable")
        return Table(
            family,
            TABLE,
            frozenset(self._chains(family)),
            frozenset(self._sets(family, at)),
            frozenset(name for name, kind, _ in objects if kind == encode.COUNTER_OBJECT),
            "; ".join(odd),
        )

    def _objects(self, family: Family) -> list[tuple[str, int, bytes]]:
        """Name, type and data of the table's stateful objects."""
        found = []
        for reply in self._channel.ask(NFT_MSG_GETOBJ, family, _TABLE_ATTRIBUTE):
            attributes = decode.Attributes(reply.attributes)
            if attributes.text(1) == TABLE:
                found.append((attributes.text(2), attributes.number(3), attributes.take(4)))
        return found

    def _chains(self, family: Family) -> Iterator[Chain]:
        rules: dict[str, list[Rule]] = {}
        for reply in self._channel.ask(NFT_MSG_GETRULE, family, _TABLE_ATTRIBUTE):
            attributes = decode.Attributes(reply.attributes)
            if attributes.text(1) == TABLE:
                expressions = attributes.take(4) if 4 in attributes else b""
                rules.setdefault(attributes.text(2), []).append(decode.rule(expressions))
        for reply in self._channel.ask(NFT_MSG_GETCHAIN, family):
            if decode.Attributes(reply.attributes).text(1) == TABLE:
                chain = decode.chain(family, reply.attributes)
                yield replace(chain, rules=tuple(rules.get(chain.name, ())))

    def _sets(self, family: Family, at: float) -> Iterator[Set]:
        for reply in self._channel.ask(NFT_MSG_GETSET, family, _TABLE_ATTRIBUTE):
            if decode.Attributes(reply.attributes).text(1) != TABLE:
                continue
            item = decode.set_head(reply.attributes)
            wanted = _TABLE_ATTRIBUTE + encode.attribute(2, encode.wire_name(item.name) + b"\0")
            if item.dynamic:
                yield item
                continue
            lists = self._channel.ask(NFT_MSG_GETSETELEM, family, wanted)
            found = frozenset(element for part in lists for element in decode.elements(part.attributes, at))
            yield replace(item, elements=found)


_TABLE_ATTRIBUTE = encode.attribute(1, encode.wire_name(TABLE) + b"\0")


def _is_ours(facts: decode.TableFacts) -> bool:
    return facts.name == TABLE and facts.family in tuple(Family)


def _table_name(facts: decode.TableFacts) -> str:
    return f"{_FAMILIES.get(facts.family, facts.family)} {facts.name}"


def _restless(what: str) -> IsolationError:
    return IsolationError(
        f"cannot {what}: something keeps changing the packet filter",
        "look for a firewall service that reloads all the time, and stop it",
    )
