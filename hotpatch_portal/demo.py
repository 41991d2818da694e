"""The demo fleet: five connections and about sixty VMs, each with a story. Everything in it is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from connectors.configuration import to_json
from connectors.registry import SIMULATOR
from connectors.simulator import SimulatorConfiguration
from patching.terms import (
    AssessmentMode,
    Classification,
    InstallationPlan,
    PatchMode,
    Platform,
    ProductLine,
    RebootSetting,
)
from updates.models import InstalledPatch, Operation, Patch, VmUpdateState
from updates.services.operations import request_assessments, request_installations
from vms.choices import PowerState, Role
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.services.roles import assign_role
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers

# An assessment of about 3 simulated minutes takes about 3 seconds, an installation 10 to 25.
CLOCK_FACTOR = 60.0
WS2022_CORE = "2022-datacenter-azure-edition-core"
WS2022_HOTPATCH = "2022-datacenter-azure-edition-hotpatch"
WS2022_DESKTOP = "2022-datacenter-azure-edition"
WS2025_CORE = "2025-datacenter-azure-edition-core"


@dataclass(frozen=True, slots=True)
class Story:
    """A VM of the demo: where it runs, what it is, how far it was patched, and what shall happen to it."""

    name: str
    connection: str
    group: str
    build: str = ""
    sku: str = WS2022_CORE
    image_resource_id: str = ""
    hotpatch: bool = True
    patch_mode: PatchMode = PatchMode.AUTOMATIC_BY_PLATFORM
    power_state: PowerState = PowerState.RUNNING
    location: str = "japaneast"
    simulate: str = ""
    is_assessed: bool = True
    install: InstallationPlan | None = None
    kbs: tuple[str, ...] = ()  # what is installed, where the build alone does not tell
    tags: dict[str, str] = field(default_factory=dict)


MAIN = "Main fleet (2026-05-20)"
HCI = "Osaka cluster (Azure Stack HCI)"
APRIL = "Baseline week (2026-04-16)"
OCTOBER = "October 2025 (KB5070881)"
AUGUST = "August 2024 (unplanned baseline)"
CONNECTIONS = {
    MAIN: (Platform.AZURE, date(2026, 5, 20)),
    HCI: (Platform.AZURE_STACK_HCI, date(2026, 5, 20)),
    APRIL: (Platform.AZURE, date(2026, 4, 16)),
    OCTOBER: (Platform.AZURE, date(2025, 10, 24)),
    AUGUST: (Platform.AZURE, date(2024, 8, 14)),
}
APRIL_2026, MAY_2026 = "20348.5020", "20348.5074"
SECURITY = InstallationPlan(classifications=frozenset({Classification.SECURITY, Classification.CRITICAL}))
EVERYTHING = InstallationPlan(classifications=frozenset(Classification))
_BASELINE_DUE = "20348.4830"  # the March 2026 hotpatch, on the January baseline


def stories() -> list[Story]:
    """Every VM of the demo."""
    return [
        # a web farm on track: the May hotpatch waits
        *(Story(f"web-{n:03}", MAIN, "rg-web", APRIL_2026) for n in range(1, 13)),
        Story("web-013", MAIN, "rg-web", APRIL_2026, is_assessed=False),
        Story("web-014", MAIN, "rg-web", APRIL_2026, is_assessed=False),
        # applications: hotpatched already, on the hotpatch image, or with settings of their own
        *(Story(f"app-{n:03}", MAIN, "rg-app", MAY_2026, sku=WS2022_HOTPATCH) for n in range(1, 9)),
        Story("app-009", MAIN, "rg-app", APRIL_2026, hotpatch=False),
        Story("app-010", MAIN, "rg-app", "20348.5139", hotpatch=False, patch_mode=PatchMode.AUTOMATIC_BY_OS),
        # databases on WS2025
        *(Story(f"sql-{n:03}", MAIN, "rg-data", "26100.32690", sku=WS2025_CORE, location="japanwest") for n in range(1, 7)),
        Story("sql-007", MAIN, "rg-data", "26100.32772", sku=WS2025_CORE, location="japanwest"),
        # runs that were asked for, with every kind of end
        Story("run-hotpatched", MAIN, "rg-runs", APRIL_2026, install=SECURITY),
        Story("run-everything", MAIN, "rg-runs", APRIL_2026, install=EVERYTHING),
        Story("run-never-reboot", APRIL, "rg-runs", _BASELINE_DUE, install=InstallationPlan(
            classifications=SECURITY.classifications, reboot_setting=RebootSetting.NEVER)),
        Story("run-failing-kb", MAIN, "rg-runs", APRIL_2026, simulate="fail:KB5087424", install=SECURITY),
        Story("run-window-exceeded", MAIN, "rg-runs", APRIL_2026, simulate="window-exceeded", install=EVERYTHING),
        Story("run-contradicted", MAIN, "rg-runs", APRIL_2026, simulate="lies:KB5087424", install=SECURITY),
        Story("run-reboot-hangs", APRIL, "rg-runs", _BASELINE_DUE, simulate="reboot-hangs", install=SECURITY),
        Story("run-agent-not-ready", MAIN, "rg-runs", APRIL_2026, simulate="agent-not-ready"),
        Story("run-stopped", MAIN, "rg-runs", APRIL_2026, power_state=PowerState.DEALLOCATED),
        # images that cannot be hotpatched, each for its own reason
        Story("img-desktop", MAIN, "rg-images", "20348.5139", sku=WS2022_DESKTOP, hotpatch=False),
        Story("img-custom", MAIN, "rg-images", "20348.5139", sku="", hotpatch=False, image_resource_id=(
            "/subscriptions/5e55e5f5-8a3f-4b2e-9c57-000000000001/resourceGroups/rg-images/providers/"
            "Microsoft.Compute/galleries/golden/images/ws2022-hardened/versions/1.4.0")),
        Story("img-container-host", MAIN, "rg-images", "20348.5139", sku="", hotpatch=False, image_resource_id=(
            "mcr.microsoft.com/windows/servercore:ltsc2022")),
        # the week after a planned baseline
        *(Story(f"fin-{n:03}", APRIL, "rg-finance", _BASELINE_DUE) for n in range(1, 5)),
        Story("fin-005", APRIL, "rg-finance", APRIL_2026),
        Story("fin-006", MAIN, "rg-finance", _BASELINE_DUE),  # the baseline of April is overdue
        # the week of KB5070881: hr-001 is one of the few machines with hotpatch that it reached, and hr-off-track took it.
        # KB5070893, which keeps a machine on the train, brings the same build.
        *(Story(f"hr-{n:03}", OCTOBER, "rg-people", "26100.6899", sku=WS2025_CORE, location="westeurope") for n in range(1, 4)),
        Story("hr-off-track", OCTOBER, "rg-people", "26100.6905", kbs=("5066835", "5070881"), sku=WS2025_CORE, location="westeurope"),
        Story("hr-005", OCTOBER, "rg-people", "20348.4294", location="westeurope"),
        # the unplanned baseline of August 2024
        *(Story(f"lab-{n:03}", AUGUST, "rg-lab", "20348.2582", location="northeurope") for n in range(1, 4)),
        Story("lab-004", AUGUST, "rg-lab", "20348.2655", location="northeurope"),
        # Azure Stack HCI
        *(Story(f"edge-{n:03}", HCI, "rg-edge", APRIL_2026, patch_mode=PatchMode.MANUAL, location="osaka") for n in range(1, 4)),
        Story("edge-004", HCI, "rg-edge", APRIL_2026, hotpatch=False, patch_mode=PatchMode.MANUAL, location="osaka"),
    ]  # fmt: skip


_SUBSCRIPTION = UUID("5e55e5f5-8a3f-4b2e-9c57-000000000001")


@transaction.atomic
def seed(owner: User) -> int:
    """Make the demo fleet and ask for its first assessments and runs; how many VMs were made (0: they are there).

    The runs are real operations: workers carry them out once they are up.
    """
    assign_role(role=Role.OWNER, users=[owner])
    if Connection.objects.filter(name=MAIN).exists():
        return 0
    return _make(owner)


@transaction.atomic
def reset(owner: User) -> int:
    """Make the demo fleet anew: everything on its connections goes first; how many VMs were made.

    Workers that are at work on one of its machines find nothing to write to and go on with the next.
    """
    demo = VirtualMachine.objects.filter(connection__name__in=CONNECTIONS)
    # In the order in which the engine locks them, so that neither waits for the other for ever.
    list(Operation.objects.open().filter(vm__in=demo).order_by("pk").select_for_update(of=("self",)).values_list("pk"))
    demo.delete()
    return _make(owner)


def _make(owner: User) -> int:
    connections = {
        name: Connection.objects.update_or_create(
            name=name,
            defaults={
                "kind": SIMULATOR,
                "platform": platform.value,
                "config": to_json(SimulatorConfiguration(catalogue_date=day, seed=seed_, clock_factor=CLOCK_FACTOR)),
                "paused_until": None,
                "is_patching_automatically": False,  # or its stories would be over after one night
            },
        )[0]
        for seed_, (name, (platform, day)) in enumerate(CONNECTIONS.items(), start=1)
    }
    subscription, _ = Subscription.objects.get_or_create(
        subscription_id=_SUBSCRIPTION, defaults={"name": "Contoso production"}
    )
    told = stories()
    groups = {
        name: ResourceGroup.objects.get_or_create(subscription=subscription, name=name)[0]
        for name in sorted({story.group for story in told})
    }
    vms = VirtualMachine.objects.bulk_create(
        [_vm(story, connections[story.connection], groups[story.group]) for story in told]
    )
    VmUpdateState.objects.bulk_create(
        VmUpdateState(vm=vm, os_build=story.build) for vm, story in zip(vms, told, strict=True) if story.build
    )
    _record_installed(vms, told)
    refresh_hotpatch_statuses(connection_ids=[connection.pk for connection in connections.values()])
    refresh_patchers(among=VirtualMachine.objects.filter(connection__in=connections.values()))
    by_story = list(zip(vms, told, strict=True))
    for vm, story in by_story:
        if story.install is not None:
            request_installations(vm_ids=[vm.pk], plan=story.install, requested_by=owner)
    request_assessments(
        vm_ids=[vm.pk for vm, story in by_story if story.is_assessed and story.install is None],
        requested_by=None,
        is_bulk=True,
    )
    return len(vms)


def _record_installed(vms: Sequence[VirtualMachine], told: Sequence[Story]) -> None:
    """Record the KBs that a story names as installed on the day after their release."""
    keys = {story.name: [f"{_line(story)}:{kb_number}" for kb_number in story.kbs] for story in told}
    patches = {
        patch.key: patch for patch in Patch.objects.filter(key__in=[key for row in keys.values() for key in row])
    }
    InstalledPatch.objects.bulk_create(
        InstalledPatch(vm=vm, patch=(patch := patches[key]), installed_on=_day_after(patch))
        for vm, story in zip(vms, told, strict=True)
        for key in keys[story.name]
    )


def _line(story: Story) -> ProductLine:
    return ProductLine.WS2025 if story.sku == WS2025_CORE else ProductLine.WS2022


def _day_after(patch: Patch) -> datetime:
    assert patch.published_on is not None
    return datetime.combine(patch.published_on + timedelta(days=1), time(18, 30), UTC)


def _vm(story: Story, connection: Connection, group: ResourceGroup) -> VirtualMachine:
    is_marketplace = bool(story.sku)
    return VirtualMachine(
        arm_id=(
            f"/subscriptions/{_SUBSCRIPTION}/resourcegroups/{group.name}/providers/microsoft.compute/"
            f"virtualmachines/{story.name}"
        ).lower(),
        name=story.name,
        connection=connection,
        resource_group=group,
        location=story.location,
        zones=["1"] if story.location == "japaneast" else [],
        tags=story.tags | ({"simulate": story.simulate} if story.simulate else {}),
        computer_name=story.name[:15],
        vm_size="Standard_D4s_v5",
        provisioning_state="Succeeded",
        power_state=story.power_state.value,
        image_publisher="MicrosoftWindowsServer" if is_marketplace else "",
        image_offer="WindowsServer" if is_marketplace else "",
        image_sku=story.sku,
        image_version="latest" if is_marketplace else "",
        image_resource_id=story.image_resource_id,
        time_zone="Tokyo Standard Time",
        patch_mode=story.patch_mode.value,
        assessment_mode=(
            AssessmentMode.AUTOMATIC_BY_PLATFORM if story.is_assessed else AssessmentMode.IMAGE_DEFAULT
        ).value,
        enable_automatic_updates=story.patch_mode is not PatchMode.MANUAL,
        enable_hotpatching=story.hotpatch,
    )
