"""Network cards beside the first: what the plan makes of them."""

from cleanroomd.model.plan import Card, Nic
from cleanroomd.plan.load import parse
from cleanroomd.plan.units import derived_mac
from tests.unit.plan.test_problems import BASE

TWO = """nics = [
  { name = "modalities", address = "10.1.40.2", gateway = "10.1.40.1", nic = "e1000" },
  { name = "backup", address = "10.1.50.2", mac = "52:54:00:00:00:13" },
]
"""


def test_a_card_has_its_own_address_model_and_mac_and_flows_may_name_it() -> None:
    text = BASE.replace('firmware = "uefi"', TWO).replace('to = "imaging"', 'to = "imaging.modalities"')
    plan = parse(text.encode(), source="plan.toml")
    imaging = plan.service("imaging")
    assert [card.name for card in imaging.cards] == ["", "modalities", "backup"]
    modalities, backup = imaging.nics
    assert (str(modalities.address), str(modalities.gateway)) == ("10.1.40.2", "10.1.40.1")
    assert modalities.model is Nic.E1000
    assert modalities.mac == derived_mac("imaging.modalities") != derived_mac("imaging")
    assert backup == Card("backup", "52:54:00:00:00:13", backup.address)
    assert plan.flows[0].to == "imaging.modalities"
