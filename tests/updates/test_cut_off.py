"""The doors of a portal whose record ends too early, over machines that are offered everything (simulated, in the database).

tests/connectors/test_cut_off.py goes through every month by the rules alone; here each door acts for real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from connectors.catalogue import Catalogue
from connectors.configuration import read
from connectors.protocol import Connector
from connectors.simulator import SimulatorConfiguration, make
from patching.terms import Audience, Channel, Classification, InstallationPlan
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.updates.world import make_due
from updates.models import (
    InstalledPatch,
    MaintenanceConfiguration,
    Operation,
    Patch,
    Release,
    Rollout,
    RolloutSource,
    VmUpdateState,
)
from updates.plans import plan_to_json
from updates.selectors.catalogue import LoadedCatalogue, load_catalogue
from updates.services.automation import open_windows, start_automatic_patching
from updates.services.engine import sweep
from updates.services.operations import request_assessments, request_installations
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.models import Connection, ResourceGroup, VirtualMachine
from vms.selection import VmSelection

pytestmark = pytest.mark.django_db
NIGHT = datetime(2026, 11, 24, 13, 30, tzinfo=UTC)  # 22:30 in Tokyo
SECURITY = InstallationPlan(classifications=frozenset({Classification.SECURITY, Classification.CRITICAL}))


class Site:
    """Two machines on track behind a connection of this day, in a portal whose record ends on `record_until`."""

    def __init__(self, group: ResourceGroup, *, build: str, day: date, record_until: date) -> None:
        call_command("seed_catalogue", verbosity=0)
        self.world: Catalogue = load_catalogue().facts
        Release.objects.filter(released_on__gt=record_until).delete()
        Patch.objects.filter(published_on__gt=record_until).delete()
        self.row = ConnectionFactory(catalogue_date=day, clock_factor=1e9, is_patching_automatically=True)
        self.vms = [
            VirtualMachineFactory(
                resource_group=group,
                connection=self.row,
                patch_mode="AutomaticByPlatform",
                assessment_mode="AutomaticByPlatform",
                time_zone="Tokyo Standard Time",
                power_state="running",
                location="japaneast",
            )
            for _ in range(2)
        ]
        VmUpdateState.objects.bulk_create([VmUpdateState(vm=vm, os_build=build) for vm in self.vms])
        self.assess()

    def _connector(self, row: Connection, catalogue: LoadedCatalogue) -> Connector:
        return make(read(SimulatorConfiguration, row.config), catalogue.facts, world=self.world)

    def run(self) -> None:
        """Let everything that is open end."""
        for _ in range(20):
            make_due()
            sweep(connector_factory=self._connector, seconds=5)
            if not Operation.objects.open().exists():
                return
        raise AssertionError("something never ends")

    def assess(self) -> None:
        request_assessments(vm_ids=self.ids, requested_by=None)
        self.run()

    def roll_out(self) -> None:
        """Let the rollouts that are open go through all of their waves."""
        for hours in range(12):
            Rollout.objects.filter(next_step_at__isnull=False).update(next_step_at=NIGHT)
            advance_rollouts(now=NIGHT + timedelta(minutes=10 * hours))
            self.run()

    @property
    def ids(self) -> list[int]:
        return [vm.pk for vm in self.vms]

    def having(self, kb_number: str) -> int:
        """How many of the machines have it."""
        return InstalledPatch.objects.filter(vm__in=self.ids, patch__kb_number=kb_number).count()


def automatically(site: Site) -> None:
    start_automatic_patching(now=NIGHT)
    site.roll_out()


def in_a_window(site: Site) -> None:
    VirtualMachine.objects.filter(pk__in=site.ids).update(bypass_platform_safety_checks=True)
    MaintenanceConfiguration.objects.create(
        name="tonight",
        starts_on=NIGHT.date(),
        starts_at=time(22, 30),
        time_zone="Tokyo Standard Time",
        recur_every="Day",
        duration_minutes=120,
        plan=plan_to_json(SECURITY),
        scope={"location": "japaneast"},
        next_run_at=NIGHT,
    )
    (rollout,) = open_windows(now=NIGHT)
    assert rollout.members.count() == len(site.vms)
    site.roll_out()


def from_the_wizard(site: Site) -> None:
    for pk in site.ids:
        request_installations(vm_ids=[pk], plan=SECURITY, requested_by=None)
    site.run()


def in_bulk(site: Site) -> None:
    request_installations(vm_ids=site.ids, plan=SECURITY, requested_by=None, is_bulk=True)
    site.run()


def in_a_rollout(site: Site) -> None:
    what = RolloutPlan(name="x", source=RolloutSource.ON_DEMAND, plan=SECURITY, is_availability_first=False)
    chief = User.objects.create_superuser("chief of the rollout")
    create_rollout(what=what, selection=VmSelection.of(site.ids), now=NIGHT, created_by=chief)
    site.roll_out()


Door = Callable[[Site], None]
DOORS = [automatically, in_a_window, from_the_wizard, in_bulk, in_a_rollout]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_planned_baseline_that_nobody_recorded_is_taken(door: Door, resource_group: ResourceGroup) -> None:
    site = Site(resource_group, build="20348.5020", day=date(2026, 7, 15), record_until=date(2026, 6, 30))
    assert not Release.objects.filter(kb_number="5099540").exists()
    door(site)
    assert site.having("5099540") == 2
    assert set(VmUpdateState.objects.values_list("os_build", flat=True)) == {"20348.5386"}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_an_unplanned_baseline_that_nobody_recorded_waits_for_a_decision(
    door: Door, resource_group: ResourceGroup
) -> None:
    site = Site(resource_group, build="20348.2582", day=date(2024, 8, 14), record_until=date(2024, 7, 31))
    door(site)
    assert site.having("5041160") == 0
    assert site.having("5040437") == 2, "its baseline is where it was"


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_an_out_of_band_update_that_nobody_recorded_takes_nobody_off(door: Door, resource_group: ResourceGroup) -> None:
    site = Site(resource_group, build="20348.4294", day=date(2025, 10, 24), record_until=date(2025, 10, 20))
    releases = tuple(
        replace(release, channel=Channel.WINDOWS_UPDATE, audience=Audience.EVERYBODY)
        if release.kb_number == "5070884"
        else release
        for release in site.world.releases
    )
    site.world = Catalogue(releases, site.world.patches)
    site.assess()
    assert Patch.objects.filter(kb_number="5070884", release_type="").exists(), "the portal has seen it, and no more"
    door(site)
    assert site.having("5070884") == 0
    assert site.having("5070892") == 2, "the hotpatch of that week is taken, though nobody recorded it"
