"""What we own: subscriptions, resource groups, connections, the image catalogue, VMs and role assignments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pghistory
import pgtrigger
from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector
from django.core.validators import MinValueValidator
from django.db import connection, models
from django.db.models import Case, Func, Q, Value, When
from django.db.models.functions import Cast, Concat, Lower
from django.utils.translation import gettext_lazy as _

from audit.tags import Tag
from audit.triggers import kept
from connectors.protocol import Capability, Orchestrator, Traits
from connectors.registry import (
    KINDS,
    Grade,
    Trouble,
    capabilities_of,
    catalogue_date_of,
    configuration_digest,
    traits_of,
    trouble_of,
)
from db.arrays import array
from patching.orchestrator import Patcher
from patching.terms import (
    AssessmentMode,
    CatalogImage,
    HotpatchStatus,
    HotpatchTrack,
    ImageReference,
    PatchMode,
    PatchSettings,
    Platform,
    ProductLine,
    RebootSetting,
    ScaleSetOrchestration,
    UpdateStatus,
)
from vms import import_models, principal_models  # noqa: F401 (their tables belong to this app)
from vms.choices import (
    ASSESSMENT_MODES,
    GRADES,
    HOTPATCH_STATUSES,
    HOTPATCH_TRACKS,
    OUTLOOKS,
    PATCH_MODES,
    PATCHERS,
    PLATFORMS,
    POWER_STATES,
    PRODUCT_LINES,
    REBOOT_SETTINGS,
    ROLES,
    SCALE_SET_ORCHESTRATIONS,
    SCOPES,
    UPDATE_STATUSES,
    Need,
    PowerState,
    Role,
    Scope,
    connection_kinds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from django.contrib.auth.models import AnonymousUser, User


class Subscription(models.Model):
    """An Azure subscription, or the id that stands for one on other platforms."""

    subscription_id = models.UUIDField(_("subscription id"), unique=True)
    name = models.CharField(_("name"), max_length=200)

    class Meta:
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        ordering = ["name", "pk"]
        triggers = [
            kept(
                source="vms.subscription",
                create=None,
                change=Tag.SUBSCRIPTION_CHANGE,
                remove=Tag.SUBSCRIPTION_REMOVE,
                name="it->>'name'",
                keys={"subscription_key": "(it->>'id')::bigint"},
            )
        ]

    def __str__(self) -> str:
        return self.name


class ResourceGroup(models.Model):
    """A resource group of a subscription; its name is compared without case, as Azure does."""

    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.PROTECT,
        related_name="resource_groups",
        verbose_name=_("subscription"),
    )
    name = models.CharField(_("name"), max_length=90)

    class Meta:
        verbose_name = _("resource group")
        verbose_name_plural = _("resource groups")
        ordering = ["name", "pk"]
        constraints = [
            models.UniqueConstraint("subscription", Lower("name"), name="vms_resourcegroup_unique_name"),
        ]
        triggers = [
            kept(
                source="vms.resourcegroup",
                create=None,
                change=Tag.GROUP_CHANGE,
                remove=Tag.GROUP_REMOVE,
                name="it->>'name'",
                keys={"group_key": "(it->>'id')::bigint"},
            )
        ]

    def __str__(self) -> str:
        return self.name


class Connection(models.Model):
    """Where and how a set of VMs is reached.

    `config` is what a connector of its kind is made from (connectors.registry), as JSON: no secret is in it, only names
    of secrets. It is read through the registry; what cannot be read is told by `trouble`. `qualification` is what the last
    report of the qualification kit says that counted (vms.services.qualification); empty: none ever did.
    """

    name = models.CharField(_("name"), max_length=100, unique=True)
    kind = models.CharField(_("kind"), max_length=20, choices=connection_kinds)
    platform = models.CharField(_("platform"), max_length=20, choices=PLATFORMS, default=Platform.AZURE.value)
    config = models.JSONField(_("configuration"), default=dict, blank=True)
    max_in_flight = models.PositiveIntegerField(
        _("operations at the same time"), default=5_000, validators=[MinValueValidator(1)]
    )
    starts_per_minute = models.PositiveIntegerField(
        _("starts per minute"),
        null=True,
        blank=True,
        help_text=_("How many operations may be started per minute. Empty: no limit."),
    )
    paused_until = models.DateTimeField(_("paused until"), null=True, blank=True)
    is_patching_automatically = models.BooleanField(
        _("automatic guest patching"),
        default=True,
        help_text=_(
            "Where this portal is in charge: Critical and Security updates are installed off-peak by themselves."
        ),
    )
    qualification = models.JSONField(_("qualification"), default=dict, blank=True, editable=False)

    class Meta:
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(max_in_flight__gt=0), name="vms_connection_max_in_flight_positive"),
        ]
        triggers = [
            kept(
                source="vms.connection",
                create=Tag.CONNECTION_CREATE,
                change=Tag.CONNECTION_CHANGE,
                remove=Tag.CONNECTION_REMOVE,
                name="it->>'name'",
                left_out=["qualification"],  # its service says what was done
                moves={
                    "was->'paused_until' <> 'null' AND is_now->'paused_until' = 'null'": Tag.CONNECTION_RESUME,
                    "was->'paused_until' <> is_now->'paused_until'": Tag.CONNECTION_PAUSE,
                },
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def traits(self) -> Traits:
        """How its connector is to be used."""
        return traits_of(self.kind)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What its connector can do."""
        return capabilities_of(self.kind)

    @property
    def grade(self) -> Grade | None:
        """How real it is; None where nobody knows its kind."""
        if self.kind not in KINDS:
            return None
        grade = KINDS[self.kind].grade
        return Grade.QUALIFIED if grade is Grade.PROTOCOL_PROVEN and self.qualified_at else grade

    @property
    def qualified_at(self) -> datetime | None:
        """When it was proven on the real thing; None: never, or another configuration was."""
        if not self.qualification or self.qualification.get("configuration") != self.configuration_digest:
            return None
        return datetime.fromisoformat(self.qualification["at"])

    @property
    def configuration_digest(self) -> str:
        """What its configuration is known by in reports."""
        return configuration_digest(self.kind, self.config)

    @property
    def grade_words(self) -> str:
        """How real it is, in words, with the day of the report where there is one; empty where nobody knows its kind."""
        if self.grade is None:
            return ""
        words, moment = str(dict(GRADES)[self.grade.value]), self.qualified_at
        return f"{words} ({moment:%Y-%m-%d})" if moment and self.grade is Grade.QUALIFIED else words

    @property
    def trouble(self) -> Trouble | None:
        """Why no connector can be made of it; None where nothing speaks against it."""
        return trouble_of(self.kind, self.config)

    @property
    def catalogue_date(self) -> date | None:
        """The day up to which releases count behind it; None: today."""
        return catalogue_date_of(self.config)

    @property
    def is_portal_in_charge(self) -> bool:
        """Whether this portal orchestrates, because nothing behind the connection does."""
        return self.traits.orchestrator is Orchestrator.PORTAL or self.platform != Platform.AZURE

    @property
    def lists_installed_updates(self) -> bool:
        """Whether its assessments tell every installed update. Azure tells only what runs reported."""
        return Capability.INSTALLED_UPDATES in self.capabilities


class ImageCatalogEntry(models.Model):
    """An exact publisher + offer + SKU that can be hotpatched; compared without case."""

    publisher = models.CharField(_("publisher"), max_length=100)
    offer = models.CharField(_("offer"), max_length=100)
    sku = models.CharField(_("SKU"), max_length=100)
    product_line = models.CharField(_("product line"), max_length=20, choices=PRODUCT_LINES)
    is_server_core = models.BooleanField(_("Server Core"), default=False)
    has_hotpatch_by_default = models.BooleanField(
        _("hotpatch on by default"),
        default=False,
        help_text=_("VMs made from this image have hotpatch switched on unless someone turns it off."),
    )
    note = models.TextField(_("note"), blank=True)

    class Meta:
        verbose_name = _("image catalog entry")
        verbose_name_plural = _("image catalog")
        ordering = ["publisher", "offer", "sku"]
        constraints = [
            models.UniqueConstraint(
                Lower("publisher"),
                Lower("offer"),
                Lower("sku"),
                name="vms_imagecatalogentry_unique_image",
                violation_error_message=_("This image is in the catalog already."),
            ),
        ]
        triggers = [
            kept(
                source="vms.imagecatalogentry",
                create=Tag.IMAGE_CREATE,
                change=Tag.IMAGE_CHANGE,
                remove=Tag.IMAGE_REMOVE,
                name="concat_ws(':', it->>'publisher', it->>'offer', it->>'sku')",
                keys={"is_public": "true"},
            )
        ]

    def __str__(self) -> str:
        return f"{self.publisher}:{self.offer}:{self.sku}"

    @property
    def facts(self) -> CatalogImage:
        """This entry as the rules take it."""
        return CatalogImage(
            publisher=self.publisher,
            offer=self.offer,
            sku=self.sku,
            product_line=ProductLine(self.product_line),
            is_server_core=self.is_server_core,
            has_hotpatch_by_default=self.has_hotpatch_by_default,
        )


# Names are split at "-", "_" and "." so that a search by word prefix finds "001" in "web-001".
NAME_SEARCH = SearchVector(
    Func(
        "name",
        Value("[-_.]"),
        Value(" "),
        Value("g"),
        function="regexp_replace",
        output_field=models.TextField(),
    ),
    config="simple",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """One role assignment of a principal: a role, and the ids of the one place it holds in."""

    role: Role
    scope: Scope
    subscription_id: int | None = None
    resource_group_id: int | None = None
    vm_id: int | None = None


# The assignments of a user and of the user's groups. Every page asks for them first.
_GRANTS = """
SELECT role, scope, subscription_id, resource_group_id, vm_id FROM vms_roleassignment
WHERE user_id = %(user)s OR group_id IN (SELECT group_id FROM auth_user_groups WHERE user_id = %(user)s)
"""


@dataclass(frozen=True, slots=True)
class Grants:
    """Everything a user was granted, read once (one query; none for superusers, who may do everything)."""

    rows: tuple[Grant, ...]

    @classmethod
    def of(cls, user: User | AnonymousUser) -> Grants:
        """The grants of a user and of the user's groups, as they are now."""
        found = cls(tuple(cls._read(user)))
        user.grants_last_read = found  # type: ignore[union-attr]  # for `last_read`
        return found

    @classmethod
    def last_read(cls, user: User | AnonymousUser) -> Grants:
        """What `of` last said of this very object, which lives as long as its request; for what a page shows, not for what acts."""
        found: Grants | None = getattr(user, "grants_last_read", None)
        return cls.of(user) if found is None else found

    @staticmethod
    def _read(user: User | AnonymousUser) -> Iterator[Grant]:
        if not user.is_active or user.is_anonymous:
            return
        if user.is_superuser:
            yield Grant(Role.OWNER, Scope.EVERYTHING)
            return
        with connection.cursor() as cursor:
            cursor.execute(_GRANTS, {"user": user.pk})
            for role, scope, *place in cursor.fetchall():
                yield Grant(Role(role), Scope(scope), *place)

    def at_least(self, role: Role) -> Grants:
        """The grants of this role or a stronger one."""
        enough = role.and_stronger
        return Grants(tuple(grant for grant in self.rows if grant.role in enough))

    @property
    def are_of_everything(self) -> bool:
        """Whether one of them holds everywhere."""
        return any(grant.scope is Scope.EVERYTHING for grant in self.rows)

    @property
    def subscription_ids(self) -> set[int]:
        """The subscriptions that they name."""
        return {grant.subscription_id for grant in self.rows if grant.subscription_id is not None}

    @property
    def group_ids(self) -> set[int]:
        """The resource groups that they name."""
        return {grant.resource_group_id for grant in self.rows if grant.resource_group_id is not None}

    @property
    def vm_ids(self) -> set[int]:
        """The single VMs that they name."""
        return {grant.vm_id for grant in self.rows if grant.vm_id is not None}

    def by_group(self) -> Grants:
        """The same, with the resource groups of subscriptions in their place (one query, none without subscriptions).

        For pages that ask for these machines several times: `granted_by` then need not find the groups each time.
        """
        if not self.subscription_ids:
            return self
        held = ResourceGroup.objects.filter(subscription__any=array(sorted(self.subscription_ids))).order_by("pk")
        groups = list(held.values_list("pk", "subscription_id"))
        rows = [grant for grant in self.rows if grant.subscription_id is None]
        rows += [
            Grant(grant.role, Scope.RESOURCE_GROUP, resource_group_id=pk)
            for grant in self.rows
            if grant.subscription_id is not None
            for pk, subscription_id in groups
            if subscription_id == grant.subscription_id
        ]
        return Grants(tuple(rows))

    def roles_on(self, vm: VirtualMachine) -> frozenset[Role]:
        """Every role that is held on the VM, whose resource group must be loaded; empty for who may not see it."""
        held = {
            grant.role
            for grant in self.rows
            if grant.scope is Scope.EVERYTHING
            or (grant.scope is Scope.SUBSCRIPTION and grant.subscription_id == vm.resource_group.subscription_id)
            or (grant.scope is Scope.RESOURCE_GROUP and grant.resource_group_id == vm.resource_group_id)
            or (grant.scope is Scope.VM and grant.vm_id == vm.pk)
        }
        return frozenset(role for role in Role if held & set(role.and_stronger))


class VirtualMachineQuerySet(models.QuerySet["VirtualMachine"]):
    """Who may see which VM, in one place."""

    def visible_to(self, user: User | AnonymousUser, role: Role = Role.READER) -> VirtualMachineQuerySet:
        """Only the VMs on which the user holds at least this role. The only door to VMs."""
        return self.granted_by(Grants.of(user), role)

    def granted_by(self, grants: Grants, role: Role = Role.READER) -> VirtualMachineQuerySet:
        """`visible_to` for grants that were read already.

        Subscription scopes are expanded to resource groups (one query) and single VMs come by UNION, so that
        PostgreSQL never has to OR over three columns.
        """
        enough = grants.at_least(role)
        if enough.are_of_everything:
            return self
        groups, vms = enough.group_ids, enough.vm_ids
        if subscriptions := enough.subscription_ids:
            groups |= set(ResourceGroup.objects.filter(subscription_id__in=subscriptions).values_list("pk", flat=True))
        if not (groups or vms):
            return self.none()
        if not vms:
            return self.filter(resource_group__any=array(sorted(groups)))
        if not groups:
            return self.filter(pk__any=array(sorted(vms)))
        everything = VirtualMachine.objects.order_by()
        return self.filter(
            pk__in=everything.filter(resource_group__any=array(sorted(groups)))
            .values("pk")
            .union(everything.filter(pk__any=array(sorted(vms))).values("pk"))
        )


SETTING_FIELDS = (
    "patch_mode",
    "assessment_mode",
    "enable_hotpatching",
    "reboot_setting",
    "bypass_platform_safety_checks",
    "enable_automatic_updates",
    "provision_vm_agent",
)


# A change of these by anybody makes the words of a VM due.
JUDGED_FIELDS = (
    "connection",
    "image_publisher",
    "image_offer",
    "image_sku",
    "image_version",
    "image_exact_version",
    "image_resource_id",
    "os_edition",
    "scale_set_orchestration",
    "enable_hotpatching",
)
# What the counters tell apart, by column.
COUNTED = (
    *("resource_group_id", "connection_id", "product_line"),
    *("update_status", "hotpatch_status", "hotpatch_track"),
    *("lacks_critical", "is_reboot_pending", "patcher", "reboot_setting", "patch_set"),
)
COUNTED_IN_FLEET = tuple(name for name in COUNTED if name != "resource_group_id")
# The same as what a query selects of VMs.
COUNTED_OF_VM = ", ".join(COUNTED).replace("lacks_critical", "critical_and_security_count > 0 AS lacks_critical")


# What decides when a machine reboots next, beside the clock and the catalogue: machines that agree in it have one forecast.
ALIKE = (
    *("connection_id", "product_line", "hotpatch_track", "is_reboot_pending"),
    *("patcher", "reboot_setting", "patch_set"),
)
# What the list says of the next reboot: of a machine, and of all that are alike.
NEXT_REBOOT = ("next_reboot", "next_reboot_outlook", "next_reboot_cause")


def alike_hash() -> Func[Any]:
    """The number of what decides a forecast, of machines and of their counters: one rule for both."""
    parts = [Cast(name.removesuffix("_id"), models.TextField()) for name in ALIKE]
    told = [part for each in parts for part in (each, Value("|"))][:-1]
    return Func(
        Concat(*told, output_field=models.TextField()),
        Value(0),
        function="hashtextextended",
        output_field=models.BigIntegerField(),
    )


# The same of the row that a trigger is about to write.
_ALIKE_OF_NEW = "hashtextextended({}, 0)".format(" || '|' || ".join(f"NEW.{name}::text" for name in ALIKE))


def _looking_up(name: str, operation: pgtrigger.Operation, condition: pgtrigger.Condition | None) -> pgtrigger.Trigger:
    """A row that is written takes its next reboot from the outlook of its kind; empty if that is not known yet."""
    none = "; ".join(f"NEW.{column} := ''" for column in NEXT_REBOOT)
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.Before,
        operation=operation,
        condition=condition,
        func=(
            f"SELECT {', '.join(NEXT_REBOOT)} INTO {', '.join(f'NEW.{column}' for column in NEXT_REBOOT)} "  # noqa: S608 (ours)
            f"FROM vms_outlook WHERE alike = {_ALIKE_OF_NEW} AND NEW.gone_at IS NULL; "
            f"IF NOT FOUND THEN {none}; END IF; RETURN NEW;"
        ),
    )


LOOKING_UP = (
    _looking_up("reboot_added", pgtrigger.Insert, None),
    _looking_up(
        "reboot_moved",
        pgtrigger.Update,
        pgtrigger.AnyChange(*(name.removesuffix("_id") for name in ALIKE), *NEXT_REBOOT, "gone_at"),
    ),
)


def _counting(name: str, operation: pgtrigger.Operation, rows: str, **tables: str) -> pgtrigger.Trigger:
    """Once a statement: add to the counters what it changed. No door and no cascade goes past it.

    The lines are added without a lock: those of statements that meet do not wait for each other (`fold_counters`).
    """
    keys = ", ".join(COUNTED)
    return pgtrigger.Trigger(
        name=name,
        level=pgtrigger.Statement,
        when=pgtrigger.After,
        operation=operation,
        referencing=pgtrigger.Referencing(**tables),  # type: ignore[no-untyped-call]  # it alone has no types there
        func=(
            f"INSERT INTO vms_wordcount ({keys}, machines, is_total) "  # noqa: S608 (ours)
            f"SELECT {keys}, sum(machines), false FROM ({rows.replace('KEYS', COUNTED_OF_VM)}) changed "
            f"GROUP BY {keys} HAVING sum(machines) <> 0; RETURN NULL;"
        ),
    )


# Machines that are gone count nowhere.
COUNTING = (
    _counting(
        "words_added", pgtrigger.Insert, "SELECT KEYS, 1 AS machines FROM added WHERE gone_at IS NULL", new="added"
    ),
    _counting(
        "words_moved",
        pgtrigger.Update,
        "SELECT KEYS, 1 AS machines FROM added WHERE gone_at IS NULL UNION ALL SELECT KEYS, -1 FROM gone WHERE gone_at IS NULL",
        old="gone",
        new="added",
    ),
    _counting(
        "words_removed", pgtrigger.Delete, "SELECT KEYS, -1 AS machines FROM gone WHERE gone_at IS NULL", old="gone"
    ),
)


# What a machine needs, the most urgent first.
_NEEDS = (
    (Q(hotpatch_track=HotpatchTrack.OFF_TRACK_SINCE_KB.value), Need.TRACK),
    (Q(hotpatch_track=HotpatchTrack.BASELINE_OVERDUE.value), Need.OVERDUE_BASELINE),
    (
        Q(is_reboot_pending=True)
        | Q(update_status=UpdateStatus.REBOOT_REQUIRED.value)
        | Q(hotpatch_track=HotpatchTrack.WAITS_FOR_REBOOT.value),
        Need.REBOOT,
    ),
    (Q(hotpatch_track=HotpatchTrack.BASELINE_DUE.value), Need.BASELINE),
)


def need_of(lacks_critical: Q, lacks_others: Q) -> Case:
    """What rows with the words of a machine need, as an expression: one rule for machines and for their counters.

    `lacks_critical`, `lacks_others`: how the rows say that updates are missing.
    """
    cases = [
        *_NEEDS,
        (lacks_critical & Q(patcher=Patcher.NOBODY.value), Need.INSTALLATION),
        (Q(update_status=UpdateStatus.NO_UPDATES_DATA.value), Need.ASSESSMENT),
        (lacks_critical, Need.UPDATES),
        (lacks_others, Need.OTHERS),
        (Q(update_status=UpdateStatus.UNSUPPORTED.value), Need.UNSUPPORTED),
    ]
    return Case(
        *(When(condition, then=Value(int(need))) for condition, need in cases),
        default=Value(int(Need.NOTHING)),
        output_field=models.PositiveSmallIntegerField(),
    )


class VirtualMachine(models.Model):
    """A VM with the facts that ARM holds, and the values of its patch status that lists filter or sort by.

    The summary fields at the end are written by `vms.services.summaries` alone, and only where they changed.
    """

    # identity
    # Compared byte by byte, so that the index of the constraint below also finds ids by how they begin.
    arm_id = models.CharField(_("resource id"), max_length=500, db_collation="C", help_text=_("Lower case."))
    name = models.CharField(_("name"), max_length=80)
    vm_id = models.UUIDField(_("VM id"), null=True, blank=True, db_index=True)
    # When another machine took this resource id (another VM id). What is older is the history of the machine before.
    replaced_at = models.DateTimeField(_("machine replaced at"), null=True, blank=True)
    # Since when its connection, which once listed the machine, lists it no more. It is kept, with its history.
    gone_at = models.DateTimeField(_("gone since"), null=True, blank=True)
    connection = models.ForeignKey(
        Connection,
        on_delete=models.PROTECT,
        related_name="vms",
        verbose_name=_("connection"),
        db_index=False,  # an index below begins with it
    )
    resource_group = models.ForeignKey(
        ResourceGroup,
        on_delete=models.PROTECT,
        related_name="vms",
        verbose_name=_("resource group"),
        db_index=False,  # an index below begins with it
    )
    location = models.CharField(_("location"), max_length=60)
    zones = models.JSONField(_("zones"), default=list, blank=True)
    tags = models.JSONField(_("tags"), default=dict, blank=True)

    # what it is
    computer_name = models.CharField(_("computer name"), max_length=64, blank=True)
    vm_size = models.CharField(_("size"), max_length=60, blank=True)
    os_type = models.CharField(_("operating system"), max_length=20, default="Windows")
    provisioning_state = models.CharField(_("provisioning state"), max_length=30, blank=True)
    power_state = models.CharField(
        _("power state"), max_length=20, choices=POWER_STATES, default=PowerState.RUNNING.value
    )
    # what an inventory knows beside: kept as it was said last, empty where nobody said it
    os_version = models.CharField(_("OS version"), max_length=60, blank=True, default="", db_default="")
    os_build = models.CharField(
        _("reported OS build"), max_length=20, blank=True, default="", db_default="", help_text=_("e.g. 20348.5020")
    )
    os_edition = models.CharField(
        _("edition"),
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text=_("Of a machine outside of Azure, which has no image: Windows Server 2025 Datacenter."),
    )
    arc_kind = models.CharField(
        _("host of the Arc machine"), max_length=20, blank=True, default="", db_default="", help_text=_("e.g. HCI")
    )
    agent_status = models.CharField(_("agent state"), max_length=60, blank=True, default="", db_default="")
    priority = models.CharField(_("priority"), max_length=20, blank=True, default="", db_default="")
    plan = models.CharField(
        _("purchase plan"), max_length=300, blank=True, default="", db_default="", help_text=_("publisher:product:name")
    )
    edge_zone = models.CharField(_("edge zone"), max_length=100, blank=True, default="", db_default="")
    patch_status = models.JSONField(
        _("patch status in Azure"), default=dict, blank=True, db_default=Value({}, models.JSONField())
    )
    license_type = models.CharField(_("license type"), max_length=40, blank=True)
    image_publisher = models.CharField(_("image publisher"), max_length=100, blank=True)
    image_offer = models.CharField(_("image offer"), max_length=100, blank=True)
    image_sku = models.CharField(_("image SKU"), max_length=100, blank=True)
    image_version = models.CharField(_("image version"), max_length=60, blank=True)
    image_exact_version = models.CharField(_("exact image version"), max_length=60, blank=True)
    image_resource_id = models.CharField(_("image resource id"), max_length=500, blank=True)
    availability_set = models.CharField(_("availability set"), max_length=500, blank=True)
    scale_set = models.CharField(_("scale set"), max_length=500, blank=True)
    scale_set_orchestration = models.CharField(
        _("scale set orchestration"),
        max_length=10,
        choices=SCALE_SET_ORCHESTRATIONS,
        default=ScaleSetOrchestration.NONE.value,
    )

    # patch settings (ARM: osProfile.windowsConfiguration)
    provision_vm_agent = models.BooleanField(_("VM agent"), default=True)
    allow_extension_operations = models.BooleanField(_("extension operations allowed"), default=True)
    enable_automatic_updates = models.BooleanField(_("automatic updates"), default=True)
    time_zone = models.CharField(_("time zone"), max_length=80, blank=True)
    patch_mode = models.CharField(
        _("patch orchestration"),
        max_length=30,
        choices=PATCH_MODES,
        default=PatchMode.AUTOMATIC_BY_OS.value,
    )
    assessment_mode = models.CharField(
        _("assessment mode"),
        max_length=30,
        choices=ASSESSMENT_MODES,
        default=AssessmentMode.IMAGE_DEFAULT.value,
    )
    enable_hotpatching = models.BooleanField(_("hotpatch"), default=False)
    reboot_setting = models.CharField(
        _("reboot setting"),
        max_length=20,
        choices=REBOOT_SETTINGS,
        default=RebootSetting.IF_REQUIRED.value,
    )
    bypass_platform_safety_checks = models.BooleanField(_("platform safety checks bypassed"), default=False)

    # What the machine shall have, as `PatchSettings.as_json`, where that is not what it reported last (the columns above).
    # NULL: it has what it shall have. Written by `vms.services.settings` alone.
    desired_settings = models.JSONField(_("settings as wanted"), null=True, blank=True, editable=False)

    # asked before and after each VM of a rollout (patching.probes); empty: not asked
    health_probe = models.CharField(_("health probe"), max_length=200, blank=True, default="", db_default="")

    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    # the summary that lists filter and sort by
    update_status = models.CharField(
        _("update status"),
        max_length=30,
        choices=UPDATE_STATUSES,
        default=UpdateStatus.NO_UPDATES_DATA.value,
    )
    critical_and_security_count = models.PositiveIntegerField(_("Critical and Security"), default=0)
    other_count = models.PositiveIntegerField(_("other updates"), default=0)
    is_reboot_pending = models.BooleanField(_("reboot pending"), default=False)
    hotpatch_status = models.CharField(
        _("hotpatch status"),
        max_length=30,
        choices=HOTPATCH_STATUSES,
        default=HotpatchStatus.PENDING_EVALUATION.value,
    )
    hotpatch_track = models.CharField(
        _("hotpatch track"),
        max_length=40,
        choices=HOTPATCH_TRACKS,
        default=HotpatchTrack.UNKNOWN.value,
    )
    product_line = models.CharField(
        _("product line"), max_length=20, choices=PRODUCT_LINES, blank=True, default="", db_default=""
    )
    # What the machine lacks, as the floor above numbers it; 0: nobody has looked yet.
    patch_set = models.BigIntegerField(default=0, db_default=0, editable=False)
    # What the words rest on was changed: the floor above judges this VM again within a minute. Set by a trigger.
    are_words_due = models.BooleanField(default=False, db_default=False)
    # What it needs most (`Need`), worked out by the database from the words above.
    need = models.GeneratedField(
        expression=need_of(Q(critical_and_security_count__gt=0), Q(other_count__gt=0)),
        output_field=models.PositiveSmallIntegerField(),
        db_persist=True,
        verbose_name=_("what it needs"),
    )
    # What decides its forecast, as one number (`alike_hash`), and what that foresees: looked up among the outlooks by a trigger.
    alike = models.GeneratedField(expression=alike_hash(), output_field=models.BigIntegerField(), db_persist=True)
    next_reboot = models.CharField(
        _("next reboot"), max_length=10, blank=True, default="", db_default="", editable=False
    )
    next_reboot_outlook = models.CharField(
        _("whether it reboots"), max_length=10, choices=OUTLOOKS, blank=True, default="", db_default="", editable=False
    )
    next_reboot_cause = models.CharField(
        _("why it reboots"), max_length=30, blank=True, default="", db_default="", editable=False
    )
    # Whether an enabled maintenance configuration means this VM: told by the floor above, which knows them.
    is_scheduled = models.BooleanField(_("has a schedule"), default=False)
    # The default is the answer for the default patch mode.
    patcher = models.CharField(_("who patches"), max_length=30, choices=PATCHERS, default=Patcher.GUEST_OS.value)

    objects = VirtualMachineQuerySet.as_manager()

    class Meta:
        verbose_name = _("virtual machine")
        verbose_name_plural = _("virtual machines")
        ordering = ["name", "pk"]
        indexes = [
            models.Index(fields=["name", "id"], name="vms_vm_name"),
            # with all that the list is filtered by: how many machines of some groups match is counted in here alone
            models.Index(
                fields=["resource_group", "name", "id"],
                include=[
                    *("connection", "location", "power_state", "patcher", "product_line"),
                    *("update_status", "hotpatch_status", "hotpatch_track", "gone_at", "alike"),
                ],
                name="vms_vm_group_name",
            ),
            models.Index(fields=["connection", "name", "id"], name="vms_vm_connection_name"),
            # whether a group has machines behind a connection: what filters and forms offer
            models.Index(fields=["resource_group", "connection"], name="vms_vm_group_connection"),
            models.Index(fields=["update_status", "name", "id"], name="vms_vm_status_name"),
            models.Index(fields=["hotpatch_status", "name", "id"], name="vms_vm_hpstatus_name"),
            models.Index(fields=["hotpatch_track", "name", "id"], name="vms_vm_track_name"),
            models.Index(fields=["patcher", "name", "id"], name="vms_vm_patcher_name"),
            models.Index(fields=["location", "name", "id"], name="vms_vm_location_name"),
            models.Index(fields=["power_state", "name", "id"], name="vms_vm_power_name"),
            models.Index(fields=["-critical_and_security_count", "name", "id"], name="vms_vm_critical_name"),
            models.Index(fields=["-need", "-critical_and_security_count", "name", "id"], name="vms_vm_need_name"),
            models.Index(fields=["next_reboot", "name", "id"], name="vms_vm_reboot_name"),
            models.Index(fields=["alike"], name="vms_vm_alike"),
            # machines whose next reboot is not known yet
            models.Index(fields=["id"], condition=Q(next_reboot="", gone_at__isnull=True), name="vms_vm_reboot_untold"),
            # the machines that nobody has assessed yet
            models.Index(fields=["name", "id"], condition=Q(patch_set=0), name="vms_vm_never_assessed"),
            # the machines whose settings are not as wanted, which are few
            models.Index(
                fields=["name", "id"],
                include=["resource_group", "connection"],
                condition=Q(desired_settings__isnull=False),
                name="vms_vm_settings_differ",
            ),
            GinIndex(NAME_SEARCH, name="vms_vm_name_search"),
            # the simulated machines with a misfortune, which are few
            models.Index(
                fields=["connection", "name"], condition=Q(tags__has_tag="simulate"), name="vms_vm_misfortune"
            ),
            models.Index(fields=["id"], condition=Q(are_words_due=True), name="vms_vm_words_due"),
            # the machines that are gone, which are few
            models.Index(
                fields=["name", "id"],
                include=["resource_group", "connection"],
                condition=Q(gone_at__isnull=False),
                name="vms_vm_gone",
            ),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="words_due",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(*JUDGED_FIELDS),
                func="NEW.are_words_due = true; RETURN NEW;",
            ),
            # Clears the wanted settings once the VM reports them, whatever statement wrote the row.
            pgtrigger.Trigger(
                name="desired_settings_met",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(*SETTING_FIELDS, "desired_settings"),
                func=(
                    "NEW.desired_settings = NULLIF(NEW.desired_settings, jsonb_build_object("
                    + ", ".join(f"'{name}', NEW.{name}" for name in SETTING_FIELDS)
                    + ")); RETURN NEW;"
                ),
            ),
            *LOOKING_UP,
            *COUNTING,
        ]
        constraints = [
            # "unique" on the field would make a second index, of which each change of a row pays its part
            models.UniqueConstraint(fields=["arm_id"], name="vms_vm_unique_arm_id"),
            models.CheckConstraint(
                condition=~Q(
                    scale_set_orchestration=ScaleSetOrchestration.UNIFORM.value,
                    enable_hotpatching=True,
                ),
                name="vms_vm_no_hotpatch_in_uniform_scale_set",
                violation_error_message=_("Hotpatch is not supported in a Uniform scale set."),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def where(self) -> dict[str, Any]:
        """What an event of the record says of this machine: which one it is, and in which group."""
        return {
            "object_id": str(self.pk),
            "object_name": self.name,
            "vm_key": self.pk,
            "group_key": self.resource_group_id,
        }

    @property
    def are_settings_reported(self) -> bool:
        """Whether settings are what the machine reports, changed on it alone (Azure Stack HCI); loads the connection."""
        return self.connection.platform == Platform.AZURE_STACK_HCI

    @property
    def image(self) -> ImageReference:
        """The image this VM was made from, as the rules take it."""
        return ImageReference(
            publisher=self.image_publisher,
            offer=self.image_offer,
            sku=self.image_sku,
            version=self.image_version,
            resource_id=self.image_resource_id,
            edition=self.os_edition,
        )

    @property
    def desired(self) -> PatchSettings:
        """The patch settings that this VM shall have."""
        return PatchSettings.from_json(self.desired_settings) if self.desired_settings else self.patch_settings

    @property
    def patch_settings(self) -> PatchSettings:
        """The patch settings of this VM as it reported them last, as the rules take them."""
        return PatchSettings(
            provision_vm_agent=self.provision_vm_agent,
            enable_automatic_updates=self.enable_automatic_updates,
            patch_mode=PatchMode(self.patch_mode),
            assessment_mode=AssessmentMode(self.assessment_mode),
            enable_hotpatching=self.enable_hotpatching,
            reboot_setting=RebootSetting(self.reboot_setting),
            bypass_platform_safety_checks=self.bypass_platform_safety_checks,
        )


class Outlook(models.Model):
    """What is foreseen of machines that are alike: when they reboot next, whether they will or may, and why.

    The floor above tells it (`updates.services.outlooks`); triggers let machines say the same. `next_reboot`: the month
    (2027-01), `none` or `unknown`. `settles_at`: machines may still say something older; they are told once more then.
    """

    alike = models.BigIntegerField(primary_key=True)
    next_reboot = models.CharField(max_length=10)
    next_reboot_outlook = models.CharField(max_length=10, choices=OUTLOOKS)
    next_reboot_cause = models.CharField(max_length=30, blank=True)
    is_told = models.BooleanField(default=False)
    settles_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("outlook of machines")
        verbose_name_plural = _("outlooks of machines")

    def __str__(self) -> str:
        return f"{self.next_reboot} {self.next_reboot_outlook}"


class Counted(models.Model):
    """Words that machines share, and how many machines have them; machines that are gone are not counted."""

    connection = models.ForeignKey(
        Connection, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    product_line = models.CharField(max_length=20, choices=PRODUCT_LINES, blank=True)
    update_status = models.CharField(max_length=30, choices=UPDATE_STATUSES)
    hotpatch_status = models.CharField(max_length=30, choices=HOTPATCH_STATUSES)
    hotpatch_track = models.CharField(max_length=40, choices=HOTPATCH_TRACKS)
    lacks_critical = models.BooleanField()  # a Critical or Security update
    is_reboot_pending = models.BooleanField()
    patcher = models.CharField(max_length=30, choices=PATCHERS)
    reboot_setting = models.CharField(max_length=20, choices=REBOOT_SETTINGS)
    patch_set = models.BigIntegerField()
    machines = models.IntegerField()

    class Meta:
        abstract = True


class WordCount(Counted):
    """How many VMs of a place have these words: totals, and lines that triggers have added since (`is_total` false).

    The sum over all lines is always exact; `vms.services.counters` folds the lines into the totals.
    """

    # A place that is gone leaves lines whose sum is nothing: they are folded like all others.
    resource_group = models.ForeignKey(
        ResourceGroup, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    is_total = models.BooleanField()

    class Meta:
        verbose_name = _("counter of words")
        verbose_name_plural = _("counters of words")
        indexes = [models.Index(fields=["id"], condition=Q(is_total=False), name="vms_wordcount_lines")]
        constraints = [
            models.UniqueConstraint(
                fields=[name.removesuffix("_id") for name in COUNTED],
                condition=Q(is_total=True),
                name="vms_wordcount_unique_total",
            )
        ]

    def __str__(self) -> str:
        return f"{self.resource_group_id}/{self.connection_id}: {self.machines}"


class FleetCount(Counted):
    """The totals of `WordCount` without their groups: what holds of the whole fleet costs the same at any size.

    With the lines that are not folded yet the sum is exact.
    """

    class Meta:
        verbose_name = _("counter of the fleet")
        verbose_name_plural = _("counters of the fleet")
        constraints = [
            models.UniqueConstraint(
                fields=[name.removesuffix("_id") for name in COUNTED_IN_FLEET],
                name="vms_fleetcount_unique",
            )
        ]

    def __str__(self) -> str:
        return f"{self.connection_id}: {self.machines}"


_SettingsEvent: Any = pghistory.create_event_model(
    VirtualMachine,
    pghistory.UpdateEvent("settings", condition=pghistory.AnyChange(*SETTING_FIELDS), row=pghistory.Old),
    fields=list(SETTING_FIELDS),
    obj_field=pghistory.ObjForeignKey(related_name="+"),
    context_field=pghistory.ContextForeignKey(null=True),
)


class SettingsEvent(_SettingsEvent):  # type: ignore[misc]  # made by pghistory at run time
    """What the settings of a VM were before a change, whatever the door it came through; written by a trigger."""

    class Meta:
        verbose_name = _("settings change")
        verbose_name_plural = _("settings changes")


FACT_FIELDS = (
    "vm_id",
    "name",
    "connection",
    "resource_group",
    "location",
    "zones",
    "tags",
    "image_publisher",
    "image_offer",
    "image_sku",
    "image_version",
    "image_exact_version",
    "image_resource_id",
    "availability_set",
    "scale_set",
    "scale_set_orchestration",
    "time_zone",
    "health_probe",
    "gone_at",
)
_FactsEvent: Any = pghistory.create_event_model(
    VirtualMachine,
    pghistory.InsertEvent("added"),
    pghistory.UpdateEvent("changed", condition=pghistory.AnyChange(*FACT_FIELDS), row=pghistory.Old),
    pghistory.DeleteEvent("removed"),
    fields=list(FACT_FIELDS),
    obj_field=pghistory.ObjForeignKey(related_name="+"),
    context_field=pghistory.ContextForeignKey(null=True),
)


class FactsEvent(_FactsEvent):  # type: ignore[misc]  # made by pghistory at run time
    """That a VM came into the inventory, what its facts were before a change, and what it was when it was removed."""

    class Meta:
        verbose_name = _("inventory change")
        verbose_name_plural = _("inventory changes")


class RoleAssignment(models.Model):
    """Principal (user or group) x role x scope."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        db_index=False,  # the constraint's index begins with it
        null=True,
        blank=True,
        verbose_name=_("user"),
    )
    group = models.ForeignKey(Group, on_delete=models.CASCADE, null=True, blank=True, verbose_name=_("group"))
    role = models.CharField(_("role"), max_length=20, choices=ROLES)
    scope = models.CharField(_("scope"), max_length=20, choices=SCOPES)
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        verbose_name=_("subscription"),
    )
    resource_group = models.ForeignKey(
        ResourceGroup,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        verbose_name=_("resource group"),
    )
    vm = models.ForeignKey(
        VirtualMachine,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        verbose_name=_("virtual machine"),
    )

    class Meta:
        verbose_name = _("role assignment")
        verbose_name_plural = _("role assignments")
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, group__isnull=True) | Q(user__isnull=True, group__isnull=False),
                name="vms_roleassignment_one_principal",
                violation_error_message=_("Choose a user or a group, not both."),
            ),
            models.CheckConstraint(
                condition=Q(
                    scope=Scope.EVERYTHING.value,
                    subscription__isnull=True,
                    resource_group__isnull=True,
                    vm__isnull=True,
                )
                | Q(
                    scope=Scope.SUBSCRIPTION.value,
                    subscription__isnull=False,
                    resource_group__isnull=True,
                    vm__isnull=True,
                )
                | Q(
                    scope=Scope.RESOURCE_GROUP.value,
                    subscription__isnull=True,
                    resource_group__isnull=False,
                    vm__isnull=True,
                )
                | Q(
                    scope=Scope.VM.value,
                    subscription__isnull=True,
                    resource_group__isnull=True,
                    vm__isnull=False,
                ),
                name="vms_roleassignment_scope_matches",
                violation_error_message=_("Fill in exactly what the scope names."),
            ),
            models.UniqueConstraint(
                fields=["user", "group", "role", "scope", "subscription", "resource_group", "vm"],
                nulls_distinct=False,
                name="vms_roleassignment_unique",
            ),
        ]
        triggers = [
            kept(
                source="vms.roleassignment",
                create=Tag.ROLE_GIVE,
                change=Tag.ROLE_CHANGE,
                remove=Tag.ROLE_TAKE,
                name=(
                    "COALESCE((SELECT username FROM auth_user WHERE id = (it->>'user_id')::bigint), "
                    "(SELECT name FROM auth_group WHERE id = (it->>'group_id')::bigint))"
                ),
                keys={
                    "vm_key": "(it->>'vm_id')::bigint",
                    "group_key": (
                        "COALESCE((it->>'resource_group_id')::bigint, "
                        "(SELECT resource_group_id FROM vms_virtualmachine WHERE id = (it->>'vm_id')::bigint))"
                    ),
                    "subscription_key": "(it->>'subscription_id')::bigint",
                },
            )
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group}: {self.get_role_display()}"


class SavedView(models.Model):
    """A list of machines by a name: the filters and the order of its address. A shared one is everybody's to open.

    The address is read anew whenever somebody opens it; what it says means nothing more than the same address typed by hand.
    """

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", verbose_name=_("owner")
    )
    name = models.CharField(_("name"), max_length=60)
    address = models.CharField(_("address"), max_length=8_000, blank=True)
    is_shared = models.BooleanField(_("shared with everybody"), default=False)

    class Meta:
        verbose_name = _("saved view")
        verbose_name_plural = _("saved views")
        constraints = [
            models.UniqueConstraint("owner", Lower("name"), name="vms_savedview_unique_name"),
        ]
        indexes = [models.Index(fields=["id"], condition=Q(is_shared=True), name="vms_savedview_shared")]
        triggers = [
            kept(
                source="vms.savedview",
                create=Tag.VIEW_CREATE,
                change=Tag.VIEW_CHANGE,
                remove=Tag.VIEW_REMOVE,
                name="it->>'name'",
            )
        ]

    def __str__(self) -> str:
        return self.name


class KeptTicks(models.Model):
    """Which machines of the list a person has ticked, while he pages, sorts and filters it (`vms.ticks`).

    Without `filters` these machines; with them all that match, except these. They mean nothing by themselves: whatever
    acts on them shows what they come to, and asks. Older than a while they are forgotten.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+")
    vm_ids = ArrayField(models.BigIntegerField(), default=list)
    filters = models.JSONField(null=True, blank=True)
    matching = models.PositiveIntegerField(default=0)  # how many matched when all that match were chosen
    changed_at = models.DateTimeField()

    class Meta:
        verbose_name = _("kept ticks")
        verbose_name_plural = _("kept ticks")

    def __str__(self) -> str:
        return f"{self.user_id}: {len(self.vm_ids)}"


class ListColumns(models.Model):
    """Which columns of the list a person wants to see, in which order; who has none sees the usual ones."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+")
    columns = models.JSONField(_("columns"), default=list)

    class Meta:
        verbose_name = _("columns of the list")
        verbose_name_plural = _("columns of the list")

    def __str__(self) -> str:
        return str(self.user)


_RoleEvent: Any = pghistory.create_event_model(
    RoleAssignment,
    pghistory.InsertEvent("given"),
    pghistory.UpdateEvent("changed", row=pghistory.Old),
    pghistory.DeleteEvent("taken"),
    fields=["user", "group", "role", "scope", "subscription", "resource_group", "vm"],
    obj_field=pghistory.ObjForeignKey(related_name="+"),
    context_field=pghistory.ContextForeignKey(null=True),
)


class RoleEvent(_RoleEvent):  # type: ignore[misc]  # made by pghistory at run time
    """That a role was given, taken back, or what it was before it was changed, with who did it."""

    class Meta:
        verbose_name = _("role change")
        verbose_name_plural = _("role changes")
