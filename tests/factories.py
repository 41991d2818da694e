"""Test data. Identity comes from sequences; what a test is about, it says itself."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from factory import declarations as factory
from factory.django import DjangoModelFactory

from connectors.configuration import day_of, to_json
from connectors.registry import SIMULATOR
from connectors.simulator import SimulatorConfiguration
from patching.orchestrator import Patcher
from patching.terms import (
    AssessmentMode,
    Classification,
    OperationKind,
    OperationState,
    PatchMode,
    Platform,
    ProductLine,
    RebootBehavior,
    ReleaseType,
    ScaleSetOrchestration,
)
from updates.models import Operation, Patch, Release, VmUpdateState
from vms.choices import Role, Scope
from vms.models import (
    Connection,
    ImageCatalogEntry,
    ResourceGroup,
    RoleAssignment,
    Subscription,
    VirtualMachine,
)

# --- people ------------------------------------------------------------------------------------------------------


class UserFactory(DjangoModelFactory[User]):
    """Somebody who may sign in and see nothing yet."""

    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"user{n}")
    password = "!"


class GroupFactory(DjangoModelFactory[Group]):
    """A group of users."""

    class Meta:
        model = Group

    name = factory.Sequence(lambda n: f"group{n}")


class RoleAssignmentFactory(DjangoModelFactory[RoleAssignment]):
    """Reader of everything, unless the test says otherwise."""

    class Meta:
        model = RoleAssignment

    role = Role.READER.value
    scope = Scope.EVERYTHING.value


# --- the inventory -----------------------------------------------------------------------------------------------


class SubscriptionFactory(DjangoModelFactory[Subscription]):
    """A subscription."""

    class Meta:
        model = Subscription

    subscription_id = factory.Sequence(lambda n: uuid.UUID(int=0x1000 + n))
    name = factory.Sequence(lambda n: f"Subscription {n}")


class ResourceGroupFactory(DjangoModelFactory[ResourceGroup]):
    """A resource group in a subscription of its own."""

    class Meta:
        model = ResourceGroup

    subscription = factory.SubFactory(SubscriptionFactory)
    name = factory.Sequence(lambda n: f"rg-{n}")


class ConnectionFactory(DjangoModelFactory[Connection]):
    """A simulator on Azure whose catalogue is of the main demo day."""

    class Meta:
        model = Connection

    class Params:
        azure_stack_hci = factory.Trait(platform=Platform.AZURE_STACK_HCI.value)
        other = factory.Trait(platform=Platform.OTHER.value)
        # what a simulator is made from
        catalogue_date = date(2026, 5, 20)
        clock_factor = 60.0
        seed = 1

    name = factory.Sequence(lambda n: f"Connection {n}")
    kind = SIMULATOR
    platform = Platform.AZURE.value
    config = factory.LazyAttribute(
        lambda made: to_json(SimulatorConfiguration(day_of(made.catalogue_date), float(made.clock_factor), made.seed))
    )


class ImageCatalogEntryFactory(DjangoModelFactory[ImageCatalogEntry]):
    """An image beyond the eight that the catalogue starts with."""

    class Meta:
        model = ImageCatalogEntry

    publisher = "MicrosoftWindowsServer"
    offer = "WindowsServer"
    sku = factory.Sequence(lambda n: f"test-sku-{n}")
    product_line = ProductLine.WS2022.value


class VirtualMachineFactory(DjangoModelFactory[VirtualMachine]):
    """A WS2022 Core VM with hotpatch on, never assessed."""

    class Meta:
        model = VirtualMachine

    class Params:
        ws2025 = factory.Trait(
            image_sku="2025-datacenter-azure-edition-core", image_exact_version="26100.1.1", product_line="ws2025"
        )
        desktop = factory.Trait(image_sku="2022-datacenter-azure-edition", enable_hotpatching=False)
        custom_image = factory.Trait(
            image_publisher="",
            image_offer="",
            image_sku="",
            image_version="",
            image_exact_version="",
            image_resource_id="/subscriptions/1/resourceGroups/images/providers/Microsoft.Compute/images/golden",
            enable_hotpatching=False,
            product_line="",
        )
        uniform = factory.Trait(scale_set_orchestration=ScaleSetOrchestration.UNIFORM.value, enable_hotpatching=False)

    name = factory.Sequence(lambda n: f"vm-{n:04}")
    connection = factory.SubFactory(ConnectionFactory)
    resource_group = factory.SubFactory(ResourceGroupFactory)
    arm_id = factory.LazyAttribute(
        lambda vm: (
            f"/subscriptions/{vm.resource_group.subscription.subscription_id}/resourcegroups/"
            f"{vm.resource_group.name}/providers/microsoft.compute/virtualmachines/{vm.name}"
        ).lower()
    )
    location = "japaneast"
    computer_name = factory.SelfAttribute("name")
    vm_size = "Standard_D4s_v5"
    provisioning_state = "Succeeded"
    image_publisher = "MicrosoftWindowsServer"
    image_offer = "WindowsServer"
    image_sku = "2022-datacenter-azure-edition-core"
    image_version = "latest"
    image_exact_version = "20348.5074.260507"
    product_line = ProductLine.WS2022.value
    patch_mode = PatchMode.AUTOMATIC_BY_PLATFORM.value
    assessment_mode = AssessmentMode.AUTOMATIC_BY_PLATFORM.value
    enable_hotpatching = True
    patcher = Patcher.PORTAL_AUTOMATICALLY.value


# --- updates -----------------------------------------------------------------------------------------------------


class PatchFactory(DjangoModelFactory[Patch]):
    """A security update that may reboot."""

    class Meta:
        model = Patch

    product_line = ProductLine.WS2022.value
    kb_number = factory.Sequence(lambda n: str(9_000_000 + n))
    title = factory.LazyAttribute(lambda patch: f"Update (KB{patch.kb_number})")
    classification = Classification.SECURITY.value
    reboot_behavior = RebootBehavior.CAN_REQUEST_REBOOT.value
    published_on = date(2026, 5, 12)


class ReleaseFactory(DjangoModelFactory[Release]):
    """A planned baseline."""

    class Meta:
        model = Release

    product_line = ProductLine.WS2022.value
    month = date(2026, 4, 1)
    type = ReleaseType.BASELINE.value
    is_planned = True
    released_on = date(2026, 4, 14)
    kb_number = factory.Sequence(lambda n: str(8_000_000 + n))


class VmUpdateStateFactory(DjangoModelFactory[VmUpdateState]):
    """A VM that was assessed."""

    class Meta:
        model = VmUpdateState

    vm = factory.SubFactory(VirtualMachineFactory)
    last_assessed_at = datetime(2026, 5, 20, 12, tzinfo=UTC)
    os_build = "20348.5074"
    is_list_complete = True


class OperationFactory(DjangoModelFactory[Operation]):
    """A queued assessment; traits put it elsewhere."""

    class Meta:
        model = Operation

    class Params:
        installation = factory.Trait(kind=OperationKind.INSTALLATION.value)
        in_progress = factory.Trait(
            state=OperationState.IN_PROGRESS.value, started_at=factory.SelfAttribute("created_at")
        )
        succeeded = factory.Trait(
            state=OperationState.SUCCEEDED.value,
            started_at=factory.SelfAttribute("created_at"),
            finished_at=factory.LazyAttribute(lambda operation: operation.created_at + timedelta(minutes=5)),
            next_step_at=None,
        )
        failed = factory.Trait(
            state=OperationState.FAILED.value,
            started_at=factory.SelfAttribute("created_at"),
            finished_at=factory.LazyAttribute(lambda operation: operation.created_at + timedelta(minutes=5)),
            next_step_at=None,
            error_code="connector.unreachable",
        )

    vm = factory.SubFactory(VirtualMachineFactory)
    connection = factory.SelfAttribute("vm.connection")
    kind = OperationKind.ASSESSMENT.value
    state = OperationState.QUEUED.value
    created_at = factory.LazyFunction(lambda: datetime.now(UTC))
    next_step_at: Any = factory.SelfAttribute("created_at")
