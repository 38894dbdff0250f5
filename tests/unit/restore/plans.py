"""Random recovery plans and what is observed of an enclosure, for hypothesis."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

from hypothesis import strategies as st

from cleanroomd.model.listening import Found
from cleanroomd.model.observed import Capacity, DiskFacts, Interface, Observed
from cleanroomd.model.plan import Disk, Enclosure, Flow, Plan, Port, Service, StartKind, TcpProbe, Window, Zone

MIB = 1 << 20
CARE = Interface("care0", "52:54:00:00:00:02", up=True, carrier=True, found=Found())
"""Its cable was listened to, and found clean."""
UPLINK = Interface("uplink0", "52:54:00:00:00:01")
OUTSIDE = IPv4Interface("192.168.40.50/24")
DEVICES = Zone("devices", "care", IPv4Interface("10.78.0.1/24"), vlan=30)


def service(
    name: str,
    *,
    number: int = 1,
    priority: int = 1,
    required: bool = True,
    depends_on: tuple[str, ...] = (),
    memory: int = 512 * MIB,
    memory_min: int | None = None,
    retries: int = 1,
    start: StartKind = StartKind.COLD,
    role: str = "",
) -> Service:
    return Service(
        name=name,
        title=name,
        priority=priority,
        address=IPv4Address("10.1.0.0") + number,
        mac=f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}",
        memory=memory,
        memory_min=memory if memory_min is None else memory_min,
        disks=(Disk(f"{name}-system"),),
        ready=(TcpProbe(80, b"ok"),),
        required=required,
        depends_on=depends_on,
        retries=retries,
        start=start,
        role=role,
    )


def plan(*services: Service, flows: tuple[Flow, ...] = ()) -> Plan:
    return Plan(
        enclosure=Enclosure("test"),
        ports=(Port("uplink", mac=UPLINK.mac, address=OUTSIDE), Port("care", mac=CARE.mac)),
        zones=(Zone("workstations", "care", IPv4Interface("10.77.0.1/24")),),
        services=services,
        flows=flows,
    )


def observed(of: Plan, *, memory: int = 1 << 40, slots: int = 2) -> Observed:
    return Observed(
        now=1000.0,
        power_on=1000.0,
        capacity=Capacity(memory, slots),
        interfaces=(CARE, UPLINK),
        disks={disk.name: DiskFacts(disk.name) for each in of.services for disk in each.disks},
    )


def windows(names: list[str]) -> st.SearchStrategy[tuple[Window, ...]]:
    """Towards two hosts behind the uplink, from services and from a zone, of different lengths."""
    hosts = st.sampled_from([IPv4Address("192.168.40.10"), IPv4Address("192.168.40.11")])
    lengths = st.sampled_from([60.0, 300.0])

    def window(name: str, origins: list[str]) -> st.SearchStrategy[Window]:
        return st.builds(Window, st.just(name), st.sampled_from(origins), hosts, st.just((2575,)), lengths)

    return st.tuples(window("results", names), window("images", names), window("zone", ["workstations"]))


@st.composite
def plans(draw: st.DrawFn, *, largest: int = 8, warm: bool = False) -> Plan:
    """Plans without cycles: each service depends on some of those before it, in shuffled order.

    With `warm` some services are staged for a warm start.
    """
    count = draw(st.integers(1, largest))
    made = []
    for number in range(count):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        memory = draw(st.integers(1, 8)) * 128 * MIB
        made.append(
            service(
                f"s{number}",
                number=number + 1,
                priority=draw(st.integers(1, 5)),
                required=draw(st.booleans()),
                depends_on=tuple(f"s{other}" for other in sorted(needs)),
                memory=memory,
                memory_min=draw(st.sampled_from([memory, memory // 2])),
                retries=draw(st.integers(0, 2)),
                start=draw(st.sampled_from([StartKind.COLD, StartKind.WARM])) if warm else StartKind.COLD,
                role=draw(st.sampled_from(["", "", "", "domain-controller"])) if warm else "",
            )
        )
    order = draw(st.permutations(made))
    tagged = draw(st.booleans())
    names = [each.name for each in made]
    zones = ["devices"] if tagged else []
    flows = draw(
        st.lists(
            st.builds(
                lambda origin, to, port: Flow(origin, to, tcp=(port,)),
                st.sampled_from(["workstations", *zones, *names]),
                st.sampled_from(names),
                st.integers(1, 65535),
            ).filter(lambda flow: flow.origin != flow.to),
            max_size=6,
        )
    )
    made_plan = replace(plan(*order, flows=tuple(flows)), windows=draw(windows(names)))
    return replace(made_plan, zones=(*made_plan.zones, DEVICES)) if tagged else made_plan
