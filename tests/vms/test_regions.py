"""Regions: complete, with clocks that exist, pairs that agree, and names that compare as people write them."""

from __future__ import annotations

import json
from zoneinfo import ZoneInfo

import pytest

from tests.factories import VirtualMachineFactory
from updates.selectors.health import find_trouble
from vms.models import VirtualMachine
from vms.regions import DATA, clock_of, region_name, region_pairs, regions


def test_every_region_has_a_clock_a_source_and_a_known_partner() -> None:
    document = json.loads(DATA.read_text())
    assert len(document["regions"]) == len(regions()) >= 60
    for region in regions().values():
        assert ZoneInfo(region.time_zone)
        assert region.source in document["sources"]
        assert region.name == region_name(region.display_name)
        assert region.paired_region == "" or region.paired_region in regions()


def test_pairs_hold_from_both_sides() -> None:
    for name, partners in region_pairs().items():
        for partner in partners:
            assert partner != name
            assert name in region_pairs()[partner]
    assert region_pairs()["eastus"] == {"westus", "westus3"}
    assert "polandcentral" not in region_pairs()


@pytest.mark.parametrize(
    ("time_zone", "location", "key"),
    [
        ("Tokyo Standard Time", "westeurope", "Asia/Tokyo"),
        ("tokyo standard time", "", "Asia/Tokyo"),
        ("", "Japan East", "Asia/Tokyo"),
        ("", "JAPANEAST", "Asia/Tokyo"),
        ("", "ＪａｐａｎＥａｓｔ", "Asia/Tokyo"),
        ("Mars Standard Time", "West US 3", "America/Phoenix"),
        ("", "newzealandnorth", "Pacific/Auckland"),
        ("", "moonbase", None),
        ("", "", None),
        ("UTC", "moonbase", "UTC"),
    ],
)
def test_whose_clock_it_is(time_zone: str, location: str, key: str | None) -> None:
    found = clock_of(time_zone, location)
    assert (found and found.key) in {key, "Etc/UTC" if key == "UTC" else key}


@pytest.mark.django_db
def test_the_doctor_names_regions_in_use_without_a_clock() -> None:
    assert "clock_unknown" not in {finding.code for finding in find_trouble()}
    names = sorted(VirtualMachineFactory(location="moonbase", time_zone="").name for _ in range(3))
    other = VirtualMachineFactory(location="moonbase", time_zone="Moon Standard Time")
    VirtualMachineFactory(location="moonbase", time_zone="UTC")
    VirtualMachine.objects.update(patcher="portal_automatically")
    (found,) = [finding for finding in find_trouble() if finding.code == "clock_unknown"]
    assert found.count == 4
    assert found.examples == (
        f"moonbase: {names[0]} and 2 more",
        f"moonbase, time zone Moon Standard Time: {other.name}",
    )
