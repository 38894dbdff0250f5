"""The expressions of nf_tables that the policy uses, one to one as the kernel evaluates and dumps them.

A rule is a tuple of them. They keep the kernel's own level (load into a register, compare, look up) so that
what is read back can be compared without interpretation. Registers are counted in words of 4 bytes, 0 to
15; the kernel's two ways of numbering them stay in the netlink module. Data are in network byte order as in
the packet, except what the kernel itself keeps in host order (marks, conntrack state bits). Figures are
those of include/uapi/linux/netfilter/nf_tables.h and nf_conntrack_common.h.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

WORD = 4
"""Bytes of one register; every field of a concatenation starts at a register of its own."""


class Base(IntEnum):
    """What a payload offset counts from."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


class MetaKey(IntEnum):
    MARK = 3
    IIFNAME = 6
    OIFNAME = 7
    NFPROTO = 15
    L4PROTO = 16


class CtKey(IntEnum):
    STATE = 0
    DIRECTION = 1
    PROTOCOL = 10
    PROTO_DST = 12
    SRC_IP = 19
    DST_IP = 20


class Direction(IntEnum):
    ORIGINAL = 0
    REPLY = 1


class CtState(IntEnum):
    """Bits of NFT_CT_STATE, as NF_CT_STATE_BIT gives them."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8


class CmpOp(IntEnum):
    EQUAL = 0
    NOT_EQUAL = 1


class Action(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"


@dataclass(frozen=True, slots=True, order=True)
class Verdict:
    action: Action
    chain: str = ""
    """Where to, for jump and goto."""

    def __str__(self) -> str:
        return f"{self.action} {self.chain}".rstrip()


@dataclass(frozen=True, slots=True)
class Payload:
    """Load `length` bytes of the packet; past the packet's end the rule does not match."""

    base: Base
    offset: int
    length: int
    register: int

    def __str__(self) -> str:
        return f"{self.base.name.lower()}[{self.offset}:{self.offset + self.length}] -> r{self.register}"


@dataclass(frozen=True, slots=True)
class Meta:
    key: MetaKey
    register: int

    def __str__(self) -> str:
        return f"meta {self.key.name.lower()} -> r{self.register}"


@dataclass(frozen=True, slots=True)
class SetMeta:
    key: MetaKey
    register: int

    def __str__(self) -> str:
        return f"meta {self.key.name.lower()} <- r{self.register}"


@dataclass(frozen=True, slots=True)
class Ct:
    """Load a fact of the packet's connection; without a tracked connection the rule does not match.

    The state is always there: a packet that conntrack refused has CtState.INVALID.
    """

    key: CtKey
    register: int
    direction: Direction | None = None

    def __str__(self) -> str:
        direction = "" if self.direction is None else f"{self.direction.name.lower()} "
        return f"ct {direction}{self.key.name.lower()} -> r{self.register}"


@dataclass(frozen=True, slots=True)
class Bitwise:
    """register = register & mask; as many bytes as the mask has."""

    register: int
    mask: bytes

    def __str__(self) -> str:
        return f"r{self.register} &= 0x{self.mask.hex()}"


@dataclass(frozen=True, slots=True)
class Compare:
    """Go on only if the register compares as said."""

    op: CmpOp
    register: int
    value: bytes

    def __str__(self) -> str:
        return f"r{self.register} {'==' if self.op is CmpOp.EQUAL else '!='} 0x{self.value.hex()}"


@dataclass(frozen=True, slots=True)
class Lookup:
    """Go on only if the set has the key that starts at `register`; with `decide`, take the map's verdict."""

    set: str
    register: int
    decide: bool = False

    def __str__(self) -> str:
        return f"r{self.register}.. {'decides by' if self.decide else 'in'} @{self.set}"


@dataclass(frozen=True, slots=True)
class Load:
    """Put a constant into a register."""

    register: int
    value: bytes

    def __str__(self) -> str:
        return f"r{self.register} = 0x{self.value.hex()}"


@dataclass(frozen=True, slots=True)
class Decide:
    verdict: Verdict

    def __str__(self) -> str:
        return str(self.verdict)


@dataclass(frozen=True, slots=True)
class SourceNat:
    """Give the connection the IPv4 address in a register as its source; valid in chains of type nat only."""

    register: int

    def __str__(self) -> str:
        return f"source becomes r{self.register}"


@dataclass(frozen=True, slots=True)
class Count:
    """Add the packet to a named counter of the table."""

    counter: str

    def __str__(self) -> str:
        return f"count {self.counter}"


@dataclass(frozen=True, slots=True)
class Record:
    """Note the key that starts at `register` in a dynamic set, or count it once more there and keep it longer.

    When the set is full the rule ends here.
    """

    set: str
    register: int

    def __str__(self) -> str:
        return f"record r{self.register}.. in @{self.set}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression that the policy never writes; whatever it does, it is a difference."""

    name: str
    attributes: str
    """Its netlink attributes in hexadecimal, or what else tells it apart."""

    def __str__(self) -> str:
        return f"unknown {self.name} {self.attributes}".rstrip()


Expression = (
    Payload | Meta | SetMeta | Ct | Bitwise | Compare | Lookup | Load | Decide | SourceNat | Count | Record | Unknown
)
Rule = tuple[Expression, ...]


def describe(rule: Rule) -> str:
    """The rule on one line, as in `meta nfproto -> r0; r0 != 0x02; drop`."""
    return "; ".join(str(expression) for expression in rule) or "(matches everything, does nothing)"
