"""Every kind of mistake, with the path, the line and the way out that its author gets."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroomd.plan.load import parse
from cleanroomd.plan.problems import PlanError, Problem
from tests.unit.plan.writer import Raw, Writer, unhurried

FLOW_OF_A_THOUSAND = f"""
[[flow]]
from = "imaging"
to = "identity"
tcp = {list(range(1, 1001))}
"""
BASE = """\
[enclosure]
name = "Test"
[ports.uplink]
match = { path = "pci-1" }
address = "192.168.40.5/24"
gateway = "192.168.40.1"
[ports.care]
match = { mac = "52:54:00:00:00:02" }
[zones.workstations]
port = "care"
address = "10.77.0.1/24"
dhcp = { from = "10.77.0.100", to = "10.77.0.199" }
[zones.devices]
port = "care"
vlan = 30
address = "10.1.30.1/24"
[[service]]
name = "identity"
priority = 1
address = "10.1.20.1"
memory = "2G"
disks = ["identity-system"]
ready = [{ postgres = 5432 }]
[[service]]
name = "imaging"
title = "Imagerie"
priority = 2
depends_on = ["identity"]
address = "10.1.20.2"
gateway = "10.1.20.254"
mac = "52:54:00:00:00:12"
memory = "4G"
memory_min = "2G"
disks = ["imaging-system", { name = "imaging-data", kind = "data" }]
firmware = "uefi"
ready = [{ dicom = 104 }, { http = "http://:8042/system", expect = 200 }]
ready_timeout = "3m"
[[flow]]
from = "workstations"
to = "imaging"
tcp = [104]
[[window]]
name = "feed"
from = "imaging"
to = "192.168.40.10"
tcp = [443]
max = "15m"
"""

NAME = "write a lower-case letter, then up to 30 lower-case letters, digits or hyphens"
AGENTLESS = (
    "asks a guest agent that the machine is not said to have; write guest_agent = true in the service "
    "if it is installed there, else another probe"
)
IN_A_ZONE = (
    '10.77.0.5 is in the network 10.77.0.0/24 of zone "workstations", whose equipment would look for it '
    "behind the port; give the zone another network"
)
IDENTITY = """\
[[service]]
name = "identity"
"""

# What is replaced, by what (the line that a problem belongs to ends in "#!"), then the paths and messages.
MISTAKES: list[tuple[str, str, *tuple[tuple[str, str], ...]]] = [
    # Keys and types.
    ('name = "Test"', 'name = "Test"\nlanguage = "fr"\nrtoo = "1m" #!',
     ("enclosure.rtoo", 'is no key here; did you mean "rto"?')),
    ('name = "Test"', 'name = "Test"\nlanguage = "de" #!',
     ("enclosure.language", '"de" is not possible here; write "fr" or "en"')),
    ('name = "Test"', 'name = "a\\nb" #!',
     ("enclosure.name", '"a\\nb" is not plain text; remove line breaks and control characters')),
    ('name = "Test"', f'name = "{"x" * 81}" #!', ("enclosure.name", "has 81 characters; write 80 at most")),
    ('[enclosure]\nname = "Test"', "zzz = 1 #!",
     ("enclosure", "is missing; write a section [enclosure]"),
     ("zzz", "is no key here; the keys are enclosure, ports, zones, service, flow, window")),
    ("priority = 2", "priority = 6 #!", ("service[1].priority", "6 is out of range; the most is 5")),
    ("priority = 2", "priority = 0 #!", ("service[1].priority", "0 is out of range; the least is 1")),
    ("priority = 2", 'priority = "high" #!',
     ("service[1].priority", '"high" is no whole number; write for example priority = 2')),
    ("priority = 2", "priority = true #!",
     ("service[1].priority", "true is no whole number; write for example priority = 2")),
    ("priority = 2", "priority = 2\nrequired = 1 #!",
     ("service[1].required", "1 is neither true nor false; write for example required = true")),
    ('priority = 2\n', '', ("service[1].priority", "is missing; write for example priority = 2")),
    ('memory = "4G"', 'memory = "12 potatoes" #!',
     ("service[1].memory", '"12 potatoes" is no size; write for example "12G" or "512M"')),
    ('memory = "4G"', "memory = 4 #!", ("service[1].memory", '4 is no size; write for example "12G" or "512M"')),
    ('memory_min = "2G"', 'memory_min = "8G" #!',
     ("service[1].memory_min", "is more than memory; write at most as much, or leave it out")),
    ('depends_on = ["identity"]', 'depends_on = "identity" #!',
     ("service[1].depends_on", '"identity" is no list; write for example depends_on = ["identity"]')),
    ('firmware = "uefi"', 'firmware = "uefy" #!',
     ("service[1].firmware", '"uefy" is not possible here; did you mean "uefi"?')),
    ('firmware = "uefi"', 'controller = "pata" #!',
     ("service[1].controller", '"pata" is not possible here; did you mean "sata"?')),
    ('firmware = "uefi"', 'nic = "pcnet" #!',
     ("service[1].nic", '"pcnet" is not possible here; write "virtio", "e1000", "e1000e" or "rtl8139"')),
    ('ready_timeout = "3m"', 'ready_timeout = "0s" #!',
     ("service[1].ready_timeout", '"0s" is out of range; write more than "0s" and at most "168h"')),
    ('ready_timeout = "3m"', 'ready_timeout = "soon" #!',
     ("service[1].ready_timeout", '"soon" is no duration; write for example "90s", "3m" or "1h30m"')),
    ('name = "feed"\n', "name = 5 #!\n", ("window[0].name", f"5 is no name; {NAME}")),
    ("[[flow]]\n", "[flow] #!\n", ("flow", "a table is no list; write a section [[flow]]")),
    ("[ports.care]", "[[ports.care]] #!",
     ("ports.care", "a list is no table; write sections [ports.NAME]"),
     ("zones.workstations.port", '"care" is no port; declare it in [ports.NAME]'),
     ("zones.devices.port", '"care" is no port; declare it in [ports.NAME]')),
    # Network cards.
    ('firmware = "uefi"', 'nics = [{ name = "../x", address = "10.1.40.2" }]',
     ("service[1].nics[0].name", f'"../x" is no name; {NAME}')),
    ('firmware = "uefi"', 'nics = [{ name = "b", address = "10.1.20.1" }]',
     ("service[1].nics[0].address",
      '10.1.20.1 is also the address of service[0] "identity"; every machine needs its own')),
    ('firmware = "uefi"', 'nics = [{ name = "b", address = "10.1.20.2", mac = "52:54:00:00:00:12" }]',
     ("service[1].nics[0].address", "10.1.20.2 is also the address of another card of it; each has its own"),
     ("service[1].nics[0].mac", "52:54:00:00:00:12 is also the MAC of another card of it; each has its own")),
    ('firmware = "uefi"', 'nics = [{ name = "b", address = "10.1.40.2", gateway = "10.1.40.2" }]',
     ("service[1].nics[0].gateway", "10.1.40.2 is the card's own address; write its gateway's")),
    ('firmware = "uefi"',
     'nics = [{ name = "b", address = "10.1.40.2" }, { name = "b", mac = "52:54:00:00:00:13", address = "10.1.40.3" }]',
     ("service[1].nics[1].name", '"b" is the name of another card of it; give each its own')),
    ('firmware = "uefi"', 'nics = [{ name = "b", address = "10.77.0.5" }]',
     ("service[1].nics[0].address",
      IN_A_ZONE)),
    ('to = "imaging"', 'to = "imaging.b" #!',
     ("flow[0].to", '"imaging.b" is no zone or service; did you mean "imaging"?')),
    # Names.
    ('["imaging-system", ', '["../etc/passwd", ',
     ("service[1].disks[0]", f'"../etc/passwd" is no name; {NAME}')),
    ('name = "imaging-data"', f'name = "{"x" * 300}"',
     ("service[1].disks[1].name", f'"{"x" * 60}…" is no name; {NAME}')),
    (IDENTITY, '[[service]]\nname = "iden\\ntity" #!\n',
     ("service[0].name", f'"iden\\ntity" is no name; {NAME}'),
     ("service[1].depends_on", '"identity" is no service; did you mean "iden\\ntity"?')),
    (IDENTITY, '[[service]]\nname = "imaging"\n',
     ("service[1].depends_on", '"identity" is no service; declare it in a [[service]], or remove it here'),
     ("service[1].name", '"imaging" is also the name of service[0]; give each service a name of its own')),
    (IDENTITY, '[[service]]\nname = "workstations" #!\n',
     ("service[0].name", '"workstations" is also the name of a zone; flows could mean either, so rename one'),
     ("service[1].depends_on", '"identity" is no service; declare it in a [[service]], or remove it here')),
    ("[[flow]]\n", (IDENTITY.replace("\n", " #!\n").replace("]] #!", "]]") + 'priority = 1\naddress = "10.1.20.3"\n'
      'memory = "1G"\ndisks = ["x"]\nready = [{ postgres = 1 }]\n[[flow]]\n'),
     ("service[2].name", '"identity" is also the name of service[0]; give each service a name of its own')),
    ("[ports.care]", "[ports.identity]\nmatch = { path = 'x' }\n[ports.care]",
     ("service[0].name", '"identity" is the name of a port; give the service another name')),
    ("[zones.devices]", "[zones.uplink] #!",
     ("zones.uplink", 'the name "uplink" is reserved for the port; give the zone another name')),
    ("[zones.devices]", '[zones."a b"] #!', ('zones."a b"', f'"a b" is no name; {NAME}')),
    # Ports and zones.
    ('match = { mac = "52:54:00:00:00:02" }\n', "",
     ("ports.care.match", 'is missing; write for example match = { path = "pci-0000:01:00.0" }')),
    ('{ mac = "52:54:00:00:00:02" }', '{ mac = "52:54:00:00:00:02", path = "pci-2" } #!',
     ("ports.care.match", 'needs exactly one of path and mac; write for example { path = "pci-0000:01:00.0" }')),
    ('{ mac = "52:54:00:00:00:02" }', '{ path = "pci-1" } #!',
     ("ports.care.match.path", '"pci-1" is also the match of port "uplink"; each port has its own')),
    ('mac = "52:54:00:00:00:02"', 'mac = "53:54:00:00:00:02"',
     ("ports.care.match.mac", ('"53:54:00:00:00:02" is the MAC address of no single interface; '
      "copy it from the machine's old configuration"))),
    ('[ports.care]', '[ports.care]\naddress = "10.9.0.1/24" #!',
     ("ports.care.address", "only the uplink has its address here; give it to a [zones.NAME] with this port instead")),
    ('gateway = "192.168.40.1"', 'gateway = "192.168.41.1" #!',
     ("ports.uplink.gateway", "192.168.41.1 is not in the uplink's network 192.168.40.0/24; correct one of them")),
    ('gateway = "192.168.40.1"', 'gateway = "192.168.40.5" #!',
     ("ports.uplink.gateway", "192.168.40.5 is the enclosure's own address; write the hospital's gateway")),
    ('address = "192.168.40.5/24"', "",
     ("ports.uplink.gateway", 'is of no use without an address; write for example address = "192.168.40.5/24"'),
     ("window[0]", "needs the uplink; declare [ports.uplink] with match and address")),
    ('port = "care"\nvlan', 'port = "uplink" #!\nvlan',
     ("zones.devices.port", "no zone can be behind the uplink; name a care port, and declare a [[window]] to go out")),
    ('port = "care"\nvlan', 'port = "car" #!\nvlan', ("zones.devices.port", '"car" is no port; did you mean "care"?')),
    ("vlan = 30", "vlan = 4095 #!", ("zones.devices.vlan", "4095 is out of range; the most is 4094")),
    ('address = "10.1.30.1/24"', 'address = "10.77.0.129/25" #!',
     ("zones.devices.address", ('10.77.0.128/25 overlaps 10.77.0.0/24 of zone "workstations"; '
      'give zone "devices" a network of its own'))),
    ('address = "10.1.30.1/24"', 'address = "192.168.40.9/24" #!',
     ("zones.devices.address", ("192.168.40.0/24 overlaps 192.168.40.0/24 of the uplink; "
      'give zone "devices" a network of its own'))),
    ('address = "10.1.30.1/24"', 'address = "192.168.0.1/16"',
     ("ports.uplink.address", ('192.168.40.0/24 overlaps 192.168.0.0/16 of zone "devices"; '
      "give the uplink a network of its own"))),
    ('address = "10.1.30.1/24"', 'address = "10.1.30.1" #!',
     ("zones.devices.address", ('"10.1.30.1" is no IPv4 address with a prefix length; '
      'write for example "10.77.0.1/24"'))),
    ('address = "10.1.30.1/24"', 'address = "10.1.30.0/24" #!',
     ("zones.devices.address", ('"10.1.30.0/24" is no host\'s address in its network; '
      'write for example "10.1.30.1/24"'))),
    ('to = "10.77.0.199"', 'to = "10.77.1.5"',
     ("zones.workstations.dhcp", ("10.77.0.100 to 10.77.1.5 is not within the zone's network 10.77.0.0/24; "
      "write addresses from 10.77.0.1 to 10.77.0.254"))),
    ('from = "10.77.0.100"', 'from = "10.77.0.200"',
     ("zones.workstations.dhcp", "begins at 10.77.0.200, after its end 10.77.0.199; exchange from and to")),
    ('from = "10.77.0.100"', 'from = "10.77.0.1"',
     ("zones.workstations.dhcp", "includes the enclosure's own address 10.77.0.1; leave that one out")),
    ("vlan = 30\n", 'dhcp = { from = "10.1.30.5", to = "10.1.30.9" } #!\n',
     ("zones.devices.dhcp", ('zone "workstations" hands out addresses on the same port and VLAN; '
      "keep one of the two ranges, or give one zone another VLAN"))),
    # Addresses, MACs and disks of services.
    ('address = "10.1.20.2"', 'address = "10.1.20.1" #!',
     ("service[1].address", '10.1.20.1 is also the address of service[0] "identity"; every machine needs its own')),
    ('address = "10.1.20.2"', 'address = "10.1.30.1" #!',
     ("service[1].address", '10.1.30.1 is the enclosure\'s own address on zone "devices"; change one of the two')),
    ('address = "10.1.20.2"', 'address = "192.168.40.5" #!',
     ("service[1].address", "192.168.40.5 is the enclosure's own address on the uplink; change one of the two")),
    ('address = "10.1.20.2"', 'address = "10.1.30.7" #!',
     ("service[1].address", ('10.1.30.7 is in the network 10.1.30.0/24 of zone "devices", whose equipment would '
      "look for it behind the port; give the zone another network"))),
    ('address = "10.1.20.2"', 'address = "127.0.0.1" #!',
     ("service[1].address", '"127.0.0.1" is no address that a machine can have; write the one that it always had')),
    ('address = "10.1.20.2"', 'address = "::1" #!',
     ("service[1].address", '"::1" is no IPv4 address; write for example "10.1.20.14"')),
    ('gateway = "10.1.20.254"', 'gateway = "10.1.20.2" #!',
     ("service[1].gateway", "10.1.20.2 is the service's own address; write its gateway's")),
    ('mac = "52:54:00:00:00:12"', 'mac = "02:68:9F:6A:62:73" #!',
     ("service[1].mac", '02:68:9f:6a:62:73 is also the MAC of service[0] "identity"; every machine needs its own')),
    ('disks = ["imaging-system", { name = "imaging-data", kind = "data" }]', 'disks = ["identity-system"] #!',
     ("service[1].disks[0]", ('"identity-system" is already a disk of service[0] "identity"; '
      "two machines never share a disk"))),
    ('name = "imaging-data"', 'name = "imaging-system"',
     ("service[1].disks[1]", '"imaging-system" is listed twice; remove one of the two')),
    ('disks = ["identity-system"]', "disks = [] #!",
     ("service[0].disks", 'is empty; write for example disks = ["imaging-system"]')),
    ('firmware = "uefi"', 'role = "domain-controller"\nstart = "warm" #!',
     ("service[1].start", ("a domain controller must not go back in time, so it starts cold only; "
      'write start = "cold"'))),
    ('disks = ["identity-system"]', 'controller = "ide"\ndisks = ["a", "b", "c", "d", "e"] #!',
     ("service[0].disks", ('are more than the 4 that fit on controller "ide"; write controller = "sata" '
      "if the system has a driver for it, or join some of them before they are imported"))),
    ('disks = ["identity-system"]', 'controller = "sata"\ndisks = ["a", "b", "c", "d", "e", "f", "g"] #!',
     ("service[0].disks", ('are more than the 6 that fit on controller "sata"; write controller = "virtio" '
      "if the system has a driver for it, or join some of them before they are imported"))),
    ('disks = ["identity-system"]', f"disks = {[f'd{n}' for n in range(25)]} #!",
     ("service[0].disks", ('are more than the 24 that fit on controller "virtio"; write controller = "scsi" '
      "if the system has a driver for it, or join some of them before they are imported"))),
    ('disks = ["identity-system"]', f"controller = 'scsi'\ndisks = {[f'd{n}' for n in range(201)]} #!",
     ("service[0].disks", ('are more than the 200 that fit on controller "scsi"; '
      "join some of them before they are imported"))),
    # Dependencies.
    ('depends_on = ["identity"]', 'depends_on = [\n"identity",\n"identitty", #!\n]',
     ("service[1].depends_on", '"identitty" is no service; did you mean "identity"?')),
    ('depends_on = ["identity"]', 'depends_on = ["devices"] #!',
     ("service[1].depends_on", '"devices" is a zone, no service; declare it in a [[service]], or remove it here')),
    ('depends_on = ["identity"]', 'depends_on = ["imaging"] #!',
     ("service[1].depends_on", '"imaging" depends on itself and could never start; remove it here')),
    (IDENTITY, IDENTITY + 'depends_on = ["imaging"] #!\n',
     ("service[0].depends_on", ('none of these could ever start: "identity" needs "imaging" needs "identity"; '
      "remove one of these dependencies"))),
    # Probes.
    ("ready = [{ postgres = 5432 }]", "ready = [] #!",
     ("service[0].ready", 'is empty; write for example ready = [{ dicom = 4242, aet = "ORTHANC" }]')),
    ("{ postgres = 5432 }", "{ postgres = 5432, tcp = 1 }",
     ("service[0].ready[0]", "names postgres and tcp; write one table for each protocol")),
    ("{ postgres = 5432 }", "{ postgre = 5432 }",
     ("service[0].ready[0]", 'names no protocol; did you mean "postgres"?')),
    ("{ postgres = 5432 }", "{}",
     ("service[0].ready[0]", ("names no protocol; write one of http, tcp, postgres, mllp, dicom, fhir, ldap, "
      "kerberos, smb, dns, mssql, guest_agent, any, all, quorum"))),
    ("{ postgres = 5432 }", "{ guest_agent = true }", ("service[0].ready[0]", AGENTLESS)),
    ("{ postgres = 5432 }", "{ any = [{ smb = 445 }, { all = [{ guest_agent = true }] }] }",
     ("service[0].ready[0]", AGENTLESS)),
    ("ready = [{ postgres = 5432 }]", "guest_agent = true\nready = [{ guest_agent = false }] #!",
     ("service[0].ready[0].guest_agent", "asks nothing; write guest_agent = true, or leave the probe out")),
    ("ready = [{ postgres = 5432 }]", "guest_agent = 'yes' #!\nready = [{ guest_agent = true }]",
     ("service[0].guest_agent", '"yes" is neither true nor false; write for example guest_agent = true')),
    ("{ postgres = 5432 }", '"ping"',
     ("service[0].ready[0]", '"ping" is no probe; write for example { dicom = 4242 }')),
    ("{ postgres = 5432 }", "{ tcp = 5432 }",
     ("service[0].ready[0].expect", 'is missing; write for example expect = "220 "')),
    ("{ postgres = 5432 }", '{ tcp = 5432, expect = "" }',
     ("service[0].ready[0].expect", "is empty, so any answer would do; write what a working service answers")),
    ("{ postgres = 5432 }", "{ postgres = 65536 }",
     ("service[0].ready[0].postgres", "65536 is out of range; the most is 65535")),
    ("{ postgres = 5432 }", '{ mllp = 2575, message = "hello" }',
     ("service[0].ready[0].message", ('"hello" is no HL7 v2 message; write segments separated by \\n '
      'that begin with "MSH|^~\\\\&|"'))),
    ("{ postgres = 5432 }", '{ mllp = 2575, accept = ["OK"] }',
     ("service[0].ready[0].accept[0]", ('"OK" is not possible here; '
      'write "AA", "AE", "AR", "CA", "CE" or "CR"'))),
    ("dicom = 104 ", "dicom = 104, aet = 'a\\b' ",
     ("service[1].ready[0].aet", ('"a\\b" is no application entity title; '
      'write 1 to 16 ASCII characters, for example "ORTHANC"'))),
    ("dicom = 104 ", "dicom = 104, expects = 200 ",
     ("service[1].ready[0].expects", "is no key here; the keys are dicom, aet, calling_aet")),
    ("http://:8042/system", "http://10.1.20.1:8042/system",
     ("service[1].ready[1].http", ('"http://10.1.20.1:8042/system" is not this service\'s own; '
      'leave out the host: "http://:8042/system"'))),
    ("http://:8042/system", "ftp://:8042/system",
     ("service[1].ready[1].http", '"ftp://:8042/system" is no URL of a probe; write for example "http://:8042/system"')),
    ("{ postgres = 5432 }", '{ http = "http://:80/", pin = "sha256:' + 32 * "0a" + '" }',
     ("service[0].ready[0]", "pins a certificate, which only https shows; write https, or leave out pin")),
    ("{ postgres = 5432 }", '{ fhir = "https://:443/fhir?_format=json" }',
     ("service[0].ready[0].fhir", ('"https://:443/fhir?_format=json" is no URL of a probe; '
      'write for example "http://:8080/fhir"'))),
    ("{ postgres = 5432 }", '{ fhir = "https://:443/fhir", pin = "sha1:0a" }',
     ("service[0].ready[0].pin", ('"sha1:0a" is no pin; '
      'write "sha256:" and what `openssl x509 -fingerprint -sha256` prints'))),
    ("{ postgres = 5432 }", "{ kerberos = 88 }",
     ("service[0].ready[0].realm", 'is missing; write for example realm = "HOSPITAL.EXAMPLE"')),
    ("{ postgres = 5432 }", '{ kerberos = 88, realm = "A", principal = "a@B" }',
     ("service[0].ready[0].principal", ('"a@B" is no principal; '
      'write its name without the realm, for example "surgeon"'))),
    ("{ postgres = 5432 }", '{ dns = 53, name = "a", transport = "quic" }',
     ("service[0].ready[0].transport", '"quic" is not possible here; write "tcp" or "udp"')),
    ("{ postgres = 5432 }", '{ ldap = 389, suffix = "hospital" }',
     ("service[0].ready[0].suffix", ('"hospital" is no distinguished name; '
      'write for example "dc=hospital,dc=example"'))),
    # Probes within probes.
    ("{ postgres = 5432 }", "{ any = [] }",
     ("service[0].ready[0].any", "is empty; write for example any = [{ dicom = 4242 }, { dicom = 104 }]")),
    ("{ postgres = 5432 }", "{ any = [{ smb = 445 }, { all = [{ postgres = 0 }, { smb = 445 }] }] }",
     ("service[0].ready[0].any[1].all[0].postgres", "0 is out of range; the least is 1")),
    ("{ postgres = 5432 }", "{ any = [{ smb = 445 }, { smbs = 445 }] }",
     ("service[0].ready[0].any[1]", 'names no protocol; did you mean "smb"?')),
    ("{ postgres = 5432 }", "{ quorum = 3, of = [{ smb = 445 }, { ldap = 389 }] }",
     ("service[0].ready[0]", "needs 3 of 2 probes; write at most 2")),
    ("{ postgres = 5432 }", "{ quorum = 1 }",
     ("service[0].ready[0].of", "is missing; write for example of = [{ ldap = 389 }, { smb = 445 }]")),
    ("{ postgres = 5432 }", "{ all = [{ any = [{ all = [{ any = [{ smb = 445 }] }] }] }] }",
     ("service[0].ready[0]", "has probes nested more than 4 deep; write fewer of any, all and quorum")),
    # Flows.
    ('from = "workstations"', 'from = "uplink" #!',
     ("flow[0].from", '"uplink" cannot be in a flow; declare a [[window]] and open it with a lease')),
    ('to = "imaging"', 'to = "uplink" #!',
     ("flow[0].to", '"uplink" cannot be in a flow; declare a [[window]] and open it with a lease')),
    ('from = "workstations"', 'from = "care" #!',
     ("flow[0].from", '"care" is a port; name a zone behind it: "workstations", "devices"')),
    ('to = "imaging"', 'to = "imagine" #!', ("flow[0].to", '"imagine" is no zone or service; did you mean "imaging"?')),
    ('to = "imaging"', 'to = "payroll" #!',
     ("flow[0].to", '"payroll" is no zone or service; declare it in a [zones.NAME] or a [[service]]')),
    ('from = "workstations"', 'from = "imaging"',
     ("flow[0].to", '"imaging" is where the flow comes from; name its other end')),
    ("tcp = [104]\n", "", ("flow[0]", "opens no port; write for example tcp = [443]")),
    ("tcp = [104]", f"tcp = {list(range(1, 1001))}\nudp = {list(range(1, 26))}",
     ("flow[0]", ("opens 1025 ports, which keeps next to nothing apart; name the 1024 at most that the service "
                  "listens on, and narrow its range of dynamic ports if it has one"))),
    ("tcp = [104]", f"tcp = {list(range(1, 1001))}" + FLOW_OF_A_THOUSAND * 100,
     ("flow", "all flows together open 101000 ports; 100000 at most can be proven in time")),
    ("tcp = [104]", 'tcp = ["8000-8010"] #!',
     ("flow[0].tcp[0]", '"8000-8010" is no whole number; write for example tcp = [4242, 8042]')),
    # Windows.
    ('to = "192.168.40.10"', 'to = "192.168.50.10" #!',
     ("window[0].to", "192.168.50.10 is not in the uplink's network 192.168.40.0/24; name a host in it")),
    ('to = "192.168.40.10"', 'to = "192.168.40.5" #!',
     ("window[0].to", "192.168.40.5 is the enclosure's own address; name the hospital's host")),
    ('name = "feed"\nfrom = "imaging"', 'name = "feed"\nfrom = "uplink" #!',
     ("window[0].from", "a window opens towards the uplink, never from it; name the service that connects")),
    ('name = "feed"\nfrom = "imaging"', 'name = "feed"\nfrom = "imagings" #!',
     ("window[0].from", '"imagings" is no zone or service; did you mean "imaging"?')),
    ('max = "15m"\n', ('max = "15m"\n[[window]]\nname = "feed" #!\nfrom = "imaging"\nto = "192.168.40.11"\n'
     'tcp = [1]\nmax = "1m"\n'),
     ("window[1].name", '"feed" is also the name of window[0]; give each its own')),
    ("tcp = [443]", "tcp = [] #!", ("window[0].tcp", "is empty; write for example tcp = [443]")),
]  # fmt: skip


def problems(text: str | bytes) -> list[Problem]:
    untrusted = text if isinstance(text, bytes) else text.encode()
    try:
        parse(untrusted, source="plan.toml")
    except PlanError as error:
        return list(error.problems)
    return []


def test_the_base_has_no_problem() -> None:
    assert problems(BASE) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake[2][0]}: {mistake[1][:30]!r}")
def test_a_mistake_is_told_with_its_path_and_a_way_out(mistake: tuple[str, str, tuple[str, str]]) -> None:
    old, new, *expected = mistake
    assert BASE.count(old) >= 1
    text = BASE.replace(old, new, 1)
    found = problems(text)
    assert sorted((problem.path, problem.message) for problem in found) == sorted(expected)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("#!")]
    assert set(marked) <= {problem.line for problem in found}


def test_lines_point_at_the_header_when_a_key_is_missing() -> None:
    (problem,) = problems(BASE.replace("priority = 2\n", ""))
    assert BASE.splitlines()[(problem.line or 0) - 1] == "[[service]]"


def test_a_problem_reads_as_one_line() -> None:
    assert str(Problem("flow[0].to", 4, "is wrong")) == "flow[0].to (line 4): is wrong"
    assert str(Problem("enclosure", None, "is missing")) == "enclosure: is missing"
    assert str(Problem("", 4, "is not TOML")) == "line 4: is not TOML"
    assert str(Problem("", None, "is too large")) == "is too large"


def test_everybody_in_a_circle_is_named_in_order() -> None:
    services = "".join(
        f'[[service]]\nname = "s{number}"\npriority = 1\naddress = "10.1.0.{number + 1}"\nmemory = "1G"\n'
        f'disks = ["d{number}"]\nready = [{{ postgres = 1 }}]\ndepends_on = ["s{(number + 1) % 4}"]\n'
        for number in range(4)
    )
    (problem,) = problems('[enclosure]\nname = "x"\n' + services)
    assert problem.path == "service[0].depends_on"
    assert '"s0" needs "s1" needs "s2" needs "s3" needs "s0"' in problem.message


def test_thousands_of_unknown_names_are_all_told() -> None:
    """Looking for what was meant stops after a while; telling does not."""
    flows = "".join(f'[[flow]]\nfrom = "imaging"\nto = "imaging{number}"\ntcp = [1]\n' for number in range(5000))
    found = problems(BASE + flows)
    assert len(found) == 5000
    assert "did you mean" in found[0].message
    assert "declare it" in found[-1].message


def many_services(count: int) -> Raw:
    """A valid plan of machines without relations, so that defects in two of them are independent."""
    return {
        "enclosure": {"name": "Test"},
        "ports": {"care": {"match": {"path": "pci-1"}}},
        "zones": {"devices": {"port": "care", "address": "10.77.0.1/24"}},
        "service": [
            {
                "name": f"s{number}",
                "priority": 1,
                "address": f"10.1.0.{number + 1}",
                "memory": "1G",
                "disks": [f"disk{number}"],
                "depends_on": [],
                "ready": [{"postgres": 5432}],
            }
            for number in range(count)
        ],
        "flow": [{"from": "devices", "to": f"s{number}", "tcp": [1]} for number in range(count)],
    }


# Each damages service `n` of a plan (or its flow) and says where; service `n + 1` is its partner and stays whole.
DEFECTS: list[tuple[str, Callable[[Raw, int], object]]] = [
    ("service[{n}].priority", lambda plan, n: plan["service"][n].update(priority=9)),
    ("service[{n}].memory", lambda plan, n: plan["service"][n].update(memory="a lot")),
    ("service[{n}].memory_min", lambda plan, n: plan["service"][n].update(memory_min="2G")),
    ("service[{n}].address", lambda plan, n: plan["service"][n].update(address=plan["service"][n + 1]["address"])),
    ("service[{n}].address", lambda plan, n: plan["service"][n].update(address="10.77.0.9")),
    ("service[{n}].disks[0]", lambda plan, n: plan["service"][n].update(disks=plan["service"][n + 1]["disks"])),
    ("service[{n}].disks[0]", lambda plan, n: plan["service"][n].update(disks=[f"../{n}"])),
    ("service[{n}].depends_on", lambda plan, n: plan["service"][n].update(depends_on=["nobody"])),
    ("service[{n}].depends_on", lambda plan, n: plan["service"][n].update(depends_on=[f"s{n}"])),
    ("service[{n}].ready", lambda plan, n: plan["service"][n].update(ready=[])),
    ("service[{n}].ready[0].tcp", lambda plan, n: plan["service"][n].update(ready=[{"tcp": 0, "expect": "x"}])),
    ("service[{n}].surprise", lambda plan, n: plan["service"][n].update(surprise={"a": [1]})),
    ("service[{n}].cpus", lambda plan, n: plan["service"][n].update(cpus="two")),
    ("service[{n}].mac", lambda plan, n: plan["service"][n].update(mac="00:00:00:00:00:00")),
    ("flow[{n}].from", lambda plan, n: plan["flow"][n].update({"from": "uplink"})),
    ("flow[{n}].to", lambda plan, n: plan["flow"][n].update(to="nowhere")),
    ("flow[{n}]", lambda plan, n: plan["flow"][n].update(tcp=[])),
    ("flow[{n}].udp[0]", lambda plan, n: plan["flow"][n].update(udp=[-1])),
]


@unhurried
@given(chosen=st.lists(st.sampled_from(DEFECTS), min_size=1, max_size=12), inline=st.booleans(), spread=st.booleans())
def test_all_independent_defects_are_told_at_once(
    chosen: list[tuple[str, Callable[[Raw, int], object]]], inline: bool, spread: bool
) -> None:
    plan = many_services(2 * len(chosen))
    paths = set()
    for position, (path, damage) in enumerate(chosen):
        damage(plan, 2 * position)
        paths.add(path.format(n=2 * position))
    writer = Writer(inline=inline, spread=spread)
    found = problems(writer.write(plan))
    # Of two services with one address or disk the later one is told, whichever was damaged.
    told = {problem.path for problem in found}
    assert len(found) == len(chosen)
    for path in paths:
        number = int(path[path.index("[") + 1 : path.index("]")])
        partner = path.replace(f"[{number}]", f"[{number + 1}]", 1)
        assert path in told or (partner in told and path.rpartition(".")[2] in ("address", "disks[0]"))
    assert all(problem.line for problem in found)
