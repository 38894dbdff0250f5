"""What is read back from the kernel is what was compiled, and every difference is named."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETSETELEM

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import encode, links
from cleanroomd.isolation.netlink import PERSIST, RuleWriter
from cleanroomd.isolation.policy import TABLE, compile_posture
from cleanroomd.isolation.ruleset import Family, Ruleset, Set, Table, differences
from cleanroomd.keeper.tables import NETLINK_NETFILTER, own_tables
from cleanroomd.model.posture import DENY_ALL, Posture
from tests.kernel.namespaces import Namespace
from tests.kernel.world import POSTURE, TO_IMAGING, World
from tests.unit.isolation.postures import postures

PORTS = ("up0", "p" + "'$(x)\"`;\\&*"[:14])
TAPS = ("cr-plain", "cr.été", "a-b//"[:3] + "_", "x" * 15)
DORMANT = 0x1
"""NFT_TABLE_F_DORMANT"""


@pytest.fixture(scope="module")
def links_only() -> Iterator[RuleWriter]:
    """A namespace with links of plain and of odd names, and the tables owned."""
    space = Namespace()
    with space.entered():
        for number, port in enumerate(PORTS):
            space.run("ip", "link", "add", port, "type", "veth", "peer", "name", f"peer{number}")
        for tap in TAPS:
            links.make_tap(tap)
        with RuleWriter(own_tables()) as writer:
            yield writer
    space.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(posture=postures(ports=PORTS, taps=TAPS))
def test_what_is_read_back_is_what_was_compiled(links_only: RuleWriter, posture: Posture) -> None:
    """Each posture is reached from the one before by differences in place."""
    wanted = compile_posture(posture)
    links_only.apply(wanted)
    found, generation = links_only.read_back()
    assert differences(wanted, found) == ()
    assert found == wanted
    proof = links_only.prove(posture)
    assert (proof.digest, proof.generation) == (wanted.digest, generation)


def test_applying_what_is_in_force_changes_nothing(writer: RuleWriter) -> None:
    generation = writer.generation()
    writer.apply(compile_posture(POSTURE))
    assert writer.generation() == generation


def test_another_program_reads_the_same(world: World, writer: RuleWriter) -> None:
    """nft as the oracle: base chains with policy drop on the right hooks and devices, sets that it can show."""
    with world.enclosure.entered():
        text = world.enclosure.run("nft", "list", "ruleset")
    hooks = re.findall(r'type filter hook (\w+) (?:device "(\S+)" )?priority filter; policy (\w+);', text)
    guarded = {(hook, name) for hook in ("ingress", "egress") for name in ("care", "up0", "cr-img", "cr-db")}
    base = {("input", ""), ("forward", ""), ("output", "")}
    assert sorted(hooks) == sorted((hook, name, "drop") for hook, name in base | guarded)
    assert "10.77.0.0 . 10.1.20.14 . tcp . 4242" in text
    assert '"care" . "cr-img" : jump forward//care//cr-img' in text


def test_a_missing_element_is_named(world: World, writer: RuleWriter) -> None:
    with world.enclosure.entered():
        less = compile_posture(replace(POSTURE, allowances=POSTURE.allowances - {TO_IMAGING}))
        writer.apply(less)
    with pytest.raises(IsolationError) as caught:
        writer.prove(POSTURE)
    assert "flows//care//cr-img//24-32 of table inet cleanroom lacks 10.77.0.0 . 10.1.20.14 . tcp . 4242" in (
        caught.value.message
    )


FOREIGN = {
    "insert rule inet cleanroom forward counter accept": "chain forward of table inet cleanroom, rule 1",
    "add rule inet cleanroom forward numgen random mod 3 1 accept": "unknown numgen",
    "add element inet cleanroom icmp-errors { 8 }": "set icmp-errors of table inet cleanroom has 8",
    "add chain inet cleanroom extra": "chain extra is there",
    "add set inet cleanroom extra { type ipv4_addr; timeout 5s; }": "set extra is there",
    "add counter netdev cleanroom extra": "counter extra is there",
    "delete table netdev cleanroom": "chain egress//care is missing",
}


@pytest.mark.parametrize("edit", FOREIGN)
def test_a_foreign_change_is_named_and_undone(world: World, edit: str) -> None:
    """As root inside the enclosure could do it, once the keeper and the daemon are killed."""
    orphaned(world)
    with world.enclosure.entered():
        world.enclosure.run("nft", *edit.split())
    with world.writer() as writer:
        with pytest.raises(IsolationError) as caught:
            writer.prove(POSTURE)
        assert FOREIGN[edit] in caught.value.message
        writer.apply(compile_posture(POSTURE))
        writer.prove(POSTURE)


@contextmanager
def stranger(world: World) -> Iterator[RuleWriter]:
    """A writer on a socket that owns nothing."""
    with world.enclosure.entered():
        unowning = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        unowning.bind((0, 0))
        with RuleWriter(unowning) as writer:
            yield writer


def orphaned(world: World) -> None:
    """The posture in force, and nobody left who owns the tables."""
    with world.writer() as writer:
        world.allow(writer, *POSTURE.allowances)


def test_a_dormant_table_is_named_and_claiming_it_wakes_it(world: World) -> None:
    """The flag that switches all of a table's rules off."""
    orphaned(world)
    with stranger(world) as writer:
        sleep = encode.new_table(Table(Family.INET, TABLE), PERSIST | DORMANT)
        writer._channel.commit([sleep], writer.generation())
        with pytest.raises(IsolationError, match="table inet cleanroom has flags 5"):
            writer.prove(POSTURE)
    with world.writer() as writer:
        writer.prove(POSTURE)


def test_a_changed_policy_is_named_and_claiming_restores_it(world: World) -> None:
    orphaned(world)
    with stranger(world) as writer:
        world.enclosure.run("nft", "add chain inet cleanroom forward { policy accept; }")
        with pytest.raises(IsolationError, match=r"chain forward .* policy accept, not at .* policy drop"):
            writer.prove(POSTURE)
    with world.writer() as writer:
        writer.prove(POSTURE)


def test_rules_that_another_socket_owns_prove_nothing(world: World) -> None:
    with world.writer() as owner:
        world.allow(owner, *POSTURE.allowances)
        with stranger(world) as writer:
            with pytest.raises(IsolationError, match="table inet cleanroom is not owned by the keeper's socket"):
                writer.prove(POSTURE)
            with pytest.raises(IsolationError, match="Operation not permitted") as caught:
                writer.apply(compile_posture(DENY_ALL))
            assert "restart the keeper" in caught.value.hint
        owner.prove(POSTURE)


def test_foreign_tables_are_named_and_do_not_disturb_the_proof(world: World, writer: RuleWriter) -> None:
    with world.enclosure.entered():
        world.enclosure.run("nft", "add", "table", "inet", "other")
    assert writer.foreign_tables() == {"inet other"}
    assert writer.prove(POSTURE).generation == writer.generation()


def test_thousands_of_elements_need_more_than_one_message(writer: RuleWriter) -> None:
    many = replace(POSTURE, allowances=frozenset(replace(TO_IMAGING, port=port) for port in range(1, 3001)))
    for posture in (many, DENY_ALL):
        writer.apply(compile_posture(posture))
        writer.prove(posture)


def test_a_set_of_another_kind_is_replaced(writer: RuleWriter) -> None:
    wanted = compile_posture(POSTURE)
    table = wanted.table(Family.INET, "cleanroom")
    assert isinstance(table, Table)
    item = next(s for s in table.sets if s.name.startswith("flows"))
    other = Set(item.name, item.fields[:1], frozenset())
    chains = frozenset(replace(chain, rules=()) for chain in table.chains)
    odd = replace(table, sets=table.sets - {item} | {other}, chains=chains)
    writer.apply(Ruleset(wanted.tables - {table} | {odd}))
    writer.apply(wanted)
    writer.prove(POSTURE)


def test_replies_that_a_killed_predecessor_did_not_read_do_no_harm(world: World, writer: RuleWriter) -> None:
    """A dump of thousands of elements, asked for and left half done on the same socket."""
    many = replace(POSTURE, allowances=frozenset(replace(TO_IMAGING, port=port) for port in range(1, 3001)))
    writer.apply(compile_posture(many))
    wanted = encode.attribute(1, b"cleanroom\0") + encode.attribute(2, b"flows//care//cr-img//24-32\0")
    body = struct.pack("=BBH", Family.INET, 0, 0) + wanted
    header = struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM, 0x301, 77, 0)
    owning = writer._channel._socket
    owning.send(header + body)
    assert owning.recv(16, socket.MSG_PEEK)
    writer.prove(many)
