"""What we do to VMs: the catalogue of patches and releases, patch sets, operations and their results."""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import Any

import pghistory
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Concat
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from audit.tags import Tag
from audit.triggers import kept, kept_links
from connectors.protocol import AssessmentSource
from patching import terms
from patching.lifecycle import IN_FLIGHT, TERMINAL
from patching.terms import Audience, Channel, OperationState, ProductLine, RebootBehavior, ReleaseType, Verification
from updates.choices import (
    AUDIENCES,
    CHANNELS,
    CLASSIFICATIONS,
    INSTALLATION_STATES,
    OPERATION_KINDS,
    OPERATION_STATES,
    REBOOT_BEHAVIORS,
    REBOOT_STATUSES,
    RELEASE_STATUSES,
    RELEASE_TYPES,
    VERIFICATIONS,
)
from vms.choices import PRODUCT_LINES
from vms.models import Connection, ResourceGroup, VirtualMachine

IN_FLIGHT_STATES = sorted(state.value for state in IN_FLIGHT)
_TERMINAL = sorted(state.value for state in TERMINAL)
WELL_ENDED_STATES = [OperationState.SUCCEEDED.value, OperationState.COMPLETED_WITH_WARNINGS.value]


# What a correction of a patch is kept of.
PATCH_FACTS = ("title", "classification", "reboot_behavior", "published_on", "release_type", "source", "evidence")


class Patch(models.Model):
    """One software update of the catalogue, identified by (product line, KB), else by its update id.

    By its update id also where another update of one assessment has the same KB. Title, version, update id and date are
    those of the newest sighting, together; they may change, the key never does.
    """

    product_line = models.CharField(
        _("product line"),
        max_length=20,
        choices=PRODUCT_LINES,
        blank=True,
        help_text=_("Empty: for every product line."),
    )
    kb_number = models.CharField(_("KB number"), max_length=10, blank=True, help_text=_("Digits only."))
    update_id = models.CharField(_("update id"), max_length=64, blank=True)
    is_known_by_id = models.BooleanField(
        _("known by its update id"),
        default=False,
        help_text=_("Another update of the same assessment had this KB number."),
    )
    key = models.GeneratedField(
        expression=models.Case(
            models.When(Q(kb_number="") | Q(is_known_by_id=True), then=Concat(Value("id:"), F("update_id"))),
            default=Concat(F("product_line"), Value(":"), F("kb_number")),
        ),
        output_field=models.CharField(max_length=100),
        db_persist=True,
        unique=True,
    )
    title = models.CharField(_("title"), max_length=300)
    classification = models.CharField(_("classification"), max_length=20, choices=CLASSIFICATIONS)
    reboot_behavior = models.CharField(
        _("reboot behavior"),
        max_length=30,
        choices=REBOOT_BEHAVIORS,
        default=RebootBehavior.UNKNOWN.value,
    )
    version = models.CharField(_("version"), max_length=60, blank=True)
    published_on = models.DateField(_("published on"), null=True, blank=True)
    release_type = models.CharField(_("release type"), max_length=20, choices=RELEASE_TYPES, blank=True)
    source = models.TextField(_("source"), blank=True)
    evidence = models.CharField(_("evidence"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("patch")
        verbose_name_plural = _("patches")
        ordering = ["-published_on", "kb_number", "pk"]
        indexes = [models.Index(fields=["kb_number"], name="updates_patch_kb")]
        constraints = [
            models.CheckConstraint(
                condition=~Q(update_id="") | (~Q(kb_number="") & Q(is_known_by_id=False)),
                name="updates_patch_has_identity",
                violation_error_message=_("A patch needs a KB number or an update id."),
            ),
            models.CheckConstraint(
                condition=Q(kb_number="") | Q(kb_number__regex=r"^\d{4,10}$"),
                name="updates_patch_kb_digits",
                violation_error_message=_("A KB number has digits only."),
            ),
        ]
        triggers = [
            kept(
                source="updates.patch",
                create=Tag.PATCH_CREATE,
                change=Tag.PATCH_CHANGE,
                remove=Tag.PATCH_REMOVE,
                name="it->>'title'",
                only=("kb_number", "product_line", *PATCH_FACTS),
                keys={"is_public": "true"},
                is_by_people_only=True,  # assessments note what they saw
            )
        ]

    def __str__(self) -> str:
        return f"KB{self.kb_number}" if self.kb_number else self.title

    @property
    def facts(self) -> terms.Patch:
        """This patch as the rules take it."""
        return terms.Patch(
            kb_number=self.kb_number,
            title=self.title,
            classification=terms.Classification(self.classification),
            reboot_behavior=RebootBehavior(self.reboot_behavior),
            product_line=ProductLine(self.product_line) if self.product_line else None,
            update_id=self.update_id,
            version=self.version,
            published_on=self.published_on,
            release_type=ReleaseType(self.release_type) if self.release_type else None,
            is_known_by_id=self.is_known_by_id,
        )


_FOR_THE_RULES = (
    "product_line",
    "month",
    "type",
    "released_on",
    "kb_number",
    "build",
    "is_planned",
    "is_date_inferred",
    "status",
    "channel",
    "audience",
    "is_type_confirmed",
)


@lru_cache(maxsize=4_096)
def _release_facts(*row: Any) -> terms.Release:
    """The release that a row of `_FOR_THE_RULES` says.

    Pages read every row of a catalogue that seldom changes: equal rows are one object, made once.
    """
    said = dict(zip(_FOR_THE_RULES, row, strict=True))
    return terms.Release(
        product_line=ProductLine(said["product_line"]),
        month=said["month"],
        type=ReleaseType(said["type"]),
        released_on=said["released_on"],
        kb_number=said["kb_number"],
        build=said["build"],
        is_planned=said["is_planned"],
        is_date_inferred=said["is_date_inferred"],
        is_scheduled=said["status"] == "scheduled",
        channel=Channel(said["channel"]),
        audience=Audience(said["audience"]),
        is_type_confirmed=said["is_type_confirmed"],
    )


class ReleaseQuerySet(models.QuerySet["Release"]):
    """Releases, and the way to what the rules take."""

    def facts(self) -> list[terms.Release]:
        """These releases as the rules take them; a page reads all of a product line, and needs nothing else of them."""
        return [_release_facts(*row) for row in self.values_list(*_FOR_THE_RULES)]


class Release(models.Model):
    """One monthly or out-of-band OS patch of a product line, with where it was read and how sure that is."""

    product_line = models.CharField(_("product line"), max_length=20, choices=PRODUCT_LINES)
    month = models.DateField(_("month"), help_text=_("The first day of the month."))
    type = models.CharField(_("type"), max_length=20, choices=RELEASE_TYPES)
    is_planned = models.BooleanField(
        _("planned"), null=True, blank=True, help_text=_("Means something on baselines only.")
    )
    released_on = models.DateField(_("released on"))
    is_date_inferred = models.BooleanField(
        _("date inferred"),
        default=False,
        help_text=_("The date is the second Tuesday by rule; no source gave it."),
    )
    kb_number = models.CharField(_("KB number"), max_length=10, blank=True, help_text=_("Digits only."))
    build = models.CharField(_("build"), max_length=20, blank=True)
    status = models.CharField(_("status"), max_length=20, choices=RELEASE_STATUSES, default=RELEASE_STATUSES[0][0])
    source = models.TextField(_("source"), blank=True)
    evidence = models.CharField(_("evidence"), max_length=200, blank=True)
    note = models.TextField(_("note"), blank=True)
    channel = models.CharField(
        _("channel"),
        max_length=20,
        choices=CHANNELS,
        default=Channel.UNKNOWN.value,
        help_text=_("How an out-of-band release reaches machines; monthly ones come through Windows Update."),
    )
    audience = models.CharField(
        _("audience"),
        max_length=20,
        choices=AUDIENCES,
        default=Audience.UNKNOWN.value,
        help_text=_("Whom an out-of-band release was offered to; monthly ones are for everybody."),
    )
    is_type_confirmed = models.BooleanField(
        _("type confirmed"),
        default=False,
        help_text=_("A primary source gives the type, or a person has confirmed or decided it."),
    )
    confirmed_by = models.CharField(_("type confirmed by"), max_length=150, blank=True, editable=False)
    confirmed_at = models.DateTimeField(_("type confirmed at"), null=True, blank=True, editable=False)
    patch = models.ForeignKey(
        Patch,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="releases",
        verbose_name=_("patch"),
    )

    objects = ReleaseQuerySet.as_manager()

    class Meta:
        verbose_name = _("release")
        verbose_name_plural = _("releases")
        ordering = ["product_line", "-released_on", "type"]
        constraints = [
            models.UniqueConstraint(
                fields=["product_line", "kb_number"],
                condition=~Q(kb_number=""),
                name="updates_release_unique_kb",
                violation_error_message=_("This release is recorded already."),
            ),
            models.UniqueConstraint(
                fields=["product_line", "month", "type"],
                condition=Q(kb_number=""),
                name="updates_release_unique_month_without_kb",
                violation_error_message=_("This month is recorded already."),
            ),
            models.CheckConstraint(
                condition=Q(kb_number="") | Q(kb_number__regex=r"^\d{4,10}$"),
                name="updates_release_kb_digits",
                violation_error_message=_("A KB number has digits only."),
            ),
            models.CheckConstraint(
                condition=Q(month__day=1),
                name="updates_release_month_is_first_day",
                violation_error_message=_("The month is its first day."),
            ),
        ]
        triggers = [
            kept(
                source="updates.release",
                create=Tag.RELEASE_CREATE,
                change=Tag.RELEASE_CHANGE,
                remove=Tag.RELEASE_REMOVE,
                name=(
                    "concat_ws(' ', it->>'product_line', left(it->>'month', 7), it->>'type', "
                    "'KB' || NULLIF(it->>'kb_number', ''))"
                ),
                left_out=("patch_id", "confirmed_by", "confirmed_at"),
                moves={
                    "was->>'is_type_confirmed' = 'false' AND is_now->>'is_type_confirmed' = 'true'": Tag.RELEASE_CONFIRM
                },
                keys={"is_public": "true"},
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_product_line_display()} {self.month:%Y-%m} {self.get_type_display()}"

    @property
    def facts(self) -> terms.Release:
        """This release as the rules take it."""
        return _release_facts(*(getattr(self, name) for name in _FOR_THE_RULES))


RELEASE_FACTS = (
    "product_line",
    "month",
    "type",
    "is_planned",
    "released_on",
    "is_date_inferred",
    "kb_number",
    "build",
    "status",
    "source",
    "evidence",
    "note",
    "channel",
    "audience",
    "is_type_confirmed",
)


def _corrections(model: type[models.Model], names: tuple[str, ...]) -> Any:
    """An event model that keeps what a row of the catalogue said before it was corrected."""
    return pghistory.create_event_model(
        model,
        pghistory.UpdateEvent("corrected", condition=pghistory.AnyChange(*names), row=pghistory.Old),
        fields=list(names),
        obj_field=pghistory.ObjForeignKey(related_name="+"),
        context_field=pghistory.ContextForeignKey(null=True),
    )


_PatchEvent: Any = _corrections(Patch, PATCH_FACTS)
_ReleaseEvent: Any = _corrections(Release, RELEASE_FACTS)


class PatchEvent(_PatchEvent):  # type: ignore[misc]  # made by pghistory at run time
    """What a patch of the catalogue was recorded as before a correction, with who made it and why."""

    class Meta:
        verbose_name = _("patch correction")
        verbose_name_plural = _("patch corrections")


class ReleaseEvent(_ReleaseEvent):  # type: ignore[misc]  # made by pghistory at run time
    """What a release was recorded as before a correction, with who made it and why."""

    class Meta:
        verbose_name = _("release correction")
        verbose_name_plural = _("release corrections")


class PatchSet(models.Model):
    """The available patches that an assessment found, content-addressed: VMs that lack the same share one row."""

    digest = models.BinaryField(max_length=32, unique=True)
    patches = models.ManyToManyField(Patch, through="PatchSetMember", related_name="patch_sets")
    critical_and_security_count = models.PositiveIntegerField(default=0)
    other_count = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("patch set")
        verbose_name_plural = _("patch sets")

    def __str__(self) -> str:
        return bytes(self.digest).hex()[:12]


class PatchSetMember(models.Model):
    """A patch in a patch set, with the version and update id that were offered."""

    patch_set = models.ForeignKey(
        PatchSet,
        on_delete=models.CASCADE,
        related_name="members",
        db_index=False,  # the constraint's index begins with it
    )
    patch = models.ForeignKey(Patch, on_delete=models.PROTECT, related_name="memberships")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["patch_set", "patch"], name="updates_patchsetmember_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.patch_set_id}/{self.patch_id}"


class VmUpdateState(models.Model):
    """What changes at every assessment of a VM. Narrow, half-empty pages, no index but freshness and patch set."""

    vm = models.OneToOneField(VirtualMachine, on_delete=models.CASCADE, primary_key=True, related_name="update_state")
    patch_set = models.ForeignKey(PatchSet, on_delete=models.PROTECT, null=True, db_index=False, related_name="+")
    # Whether the last assessment told everything that is installed, so that a KB that is not listed is not there.
    is_list_complete = models.BooleanField(default=False, db_default=False)
    # Whether the machine says that hotpatches work on it (Azure: not ActionRequired).
    is_ready_for_hotpatches = models.BooleanField(default=True, db_default=True)
    last_assessed_at = models.DateTimeField(_("last assessed"), null=True, db_index=True)
    # Who made that assessment: an operation of this portal, or another system.
    assessment_source = models.CharField(
        max_length=20, default=AssessmentSource.PORTAL.value, db_default=AssessmentSource.PORTAL.value
    )
    os_build = models.CharField(_("OS build"), max_length=20, blank=True)
    error_code = models.CharField(_("error"), max_length=60, blank=True)
    # After a run that fell silent nobody knows what is installed: no installation until an assessment has answered.
    is_awaiting_assessment = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("update state")
        verbose_name_plural = _("update states")
        # "which VMs lack this KB": the sets that contain it, then the VMs that point at them
        indexes = [models.Index(fields=["patch_set"], name="updates_state_patch_set")]

    def __str__(self) -> str:
        return str(self.vm_id)


class WordsClock(models.Model):
    """How far the stored words of VMs follow the clock and the catalogue (`updates.services.words`). One row.

    `aged_until`: assessments that grew too old by then are told as such. `judged`: for each connection and product line
    the digest of what its tracks were last judged by, and when they are to be judged once more. `passing` and `cursor`:
    the pass that is under way, and the last VM it came to. `news`: how old the catalogue is and which KBs wait for a
    decision, as the last tick found (`updates.selectors.decisions`).
    """

    aged_until = models.DateTimeField(null=True)
    judged = models.JSONField(default=dict)
    passing = models.JSONField(default=dict)
    cursor = models.BigIntegerField(default=0)
    news = models.JSONField(default=dict)

    class Meta:
        verbose_name = _("clock of the words")
        verbose_name_plural = _("clocks of the words")
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="updates_wordsclock_one_row")]

    def __str__(self) -> str:
        return str(self.aged_until)


class OperationQuerySet(models.QuerySet["Operation"]):
    """Operations by where they are."""

    def open(self) -> OperationQuerySet:
        """Operations that have not ended: those that are due one day, which a partial index holds (and a constraint)."""
        return self.filter(next_step_at__isnull=False)

    def in_flight(self) -> OperationQuerySet:
        """Operations that a machine may be working on."""
        return self.filter(state__in=IN_FLIGHT_STATES)

    def ended(self) -> OperationQuerySet:
        """Operations in a final state."""
        return self.filter(state__in=_TERMINAL)


class Priority(models.IntegerChoices):
    """Whose turn it is: interactive first, then looks at what is in flight, then bulk starts."""

    INTERACTIVE = 0
    OBSERVE = 1
    BULK = 2


class Operation(models.Model):
    """One long action on one VM. The id is activity id, ARM operation id and x-ms-request-id in one.

    `state` has one writer: `updates.engine.transition.transition`. `next_step_at` is start time, poll cadence, lease
    and crash recovery at once. `payload` is what it carries to the machine (`updates.payloads`), `progress` is JSON of
    `connectors.protocol.Progress`; `verification_detail` lists what was expected and what was found.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    vm = models.ForeignKey(
        VirtualMachine,
        on_delete=models.CASCADE,
        related_name="operations",
        db_index=False,  # the history's index begins with it
        verbose_name=_("virtual machine"),
    )
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(_("kind"), max_length=20, choices=OPERATION_KINDS)
    state = models.CharField(_("state"), max_length=30, choices=OPERATION_STATES, default=OperationState.QUEUED.value)
    priority = models.PositiveSmallIntegerField(choices=Priority, default=Priority.INTERACTIVE)
    is_bulk = models.BooleanField(default=False)
    bucket = models.CharField(
        max_length=100, blank=True, default="", db_default=""
    )  # the budget besides its connection's
    payload = models.JSONField(null=True, blank=True)
    handle = models.TextField(blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        db_index=False,
        related_name="+",
        verbose_name=_("requested by"),
    )
    created_at = models.DateTimeField(_("requested at"))
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    next_step_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    error_code = models.CharField(_("error"), max_length=60, blank=True)
    error_detail = models.TextField(blank=True)
    progress = models.JSONField(null=True, blank=True)
    reboot_status = models.CharField(_("reboot status"), max_length=20, choices=REBOOT_STATUSES, blank=True)
    is_maintenance_window_exceeded = models.BooleanField(_("maintenance window exceeded"), default=False)
    installed_count = models.PositiveSmallIntegerField(default=0)
    failed_count = models.PositiveSmallIntegerField(default=0)
    pending_count = models.PositiveSmallIntegerField(default=0)
    excluded_count = models.PositiveSmallIntegerField(default=0)
    not_selected_count = models.PositiveSmallIntegerField(default=0)
    verification = models.CharField(_("verification"), max_length=20, choices=VERIFICATIONS, blank=True)
    verification_detail = models.JSONField(null=True, blank=True)
    build_before = models.CharField(_("build before"), max_length=20, blank=True)
    build_after = models.CharField(_("build after"), max_length=20, blank=True)

    objects = OperationQuerySet.as_manager()

    class Meta:
        verbose_name = _("operation")
        verbose_name_plural = _("operations")
        indexes = [
            # A claim takes a share of each connection and of each budget that is not dry, in the order of priority.
            models.Index(
                fields=["connection", "bucket", "priority", "next_step_at"],
                condition=Q(state=OperationState.QUEUED.value),
                name="updates_operation_queued",
            ),
            models.Index(
                fields=["connection", "priority", "next_step_at"],
                condition=Q(state__in=IN_FLIGHT_STATES),
                name="updates_operation_in_flight",
            ),
            models.Index(fields=["vm", "-created_at"], name="updates_operation_vm_history"),
            models.Index(fields=["-created_at"], name="updates_operation_newest"),
            # every assessment asks for those of its VM, and nearly always there is none
            models.Index(
                fields=["vm"],
                condition=Q(verification=Verification.PENDING.value),
                name="updates_operation_unverified",
            ),
            # what went wrong with a machine lately, assessments aside: they only look, and are made again by themselves
            models.Index(
                fields=["-finished_at"],
                include=["vm", "error_code"],
                condition=~Q(kind=terms.OperationKind.ASSESSMENT.value)
                & (Q(state=OperationState.FAILED.value) | Q(verification=Verification.CONTRADICTED.value)),
                name="updates_operation_trouble",
            ),
            # The history of the fleet, newest first, without the assessments that are most of all operations: of each
            # kind, of each result (written once, when it is known), and what was contradicted.
            models.Index(
                fields=["kind", "-created_at", "-id"],
                condition=~Q(kind=terms.OperationKind.ASSESSMENT.value),
                name="updates_operation_acts",
            ),
            models.Index(
                fields=["state", "-created_at", "-id"],
                condition=~Q(kind=terms.OperationKind.ASSESSMENT.value) & Q(finished_at__isnull=False),
                name="updates_operation_results",
            ),
            models.Index(
                fields=["-created_at", "-id"],
                condition=Q(verification=Verification.CONTRADICTED.value),
                name="updates_operation_contradicted",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["vm"], condition=Q(state__in=IN_FLIGHT_STATES), name="updates_operation_one_in_flight"
            ),
            models.UniqueConstraint(
                fields=["vm", "kind"],
                condition=Q(state=OperationState.QUEUED.value),
                name="updates_operation_one_queued",
            ),
            models.CheckConstraint(
                condition=Q(state__in=_TERMINAL, finished_at__isnull=False, next_step_at__isnull=True)
                | (~Q(state__in=_TERMINAL) & Q(finished_at__isnull=True, next_step_at__isnull=False)),
                name="updates_operation_ended_or_due",
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_ended(self) -> bool:
        """True in a final state."""
        return OperationState(self.state) in TERMINAL

    @property
    def is_contradicted(self) -> bool:
        """Whether it reported success, and a later look found otherwise: neither a success nor a failure."""
        return self.state in WELL_ENDED_STATES and self.verification == Verification.CONTRADICTED


class PatchResult(models.Model):
    """What an installation did with one patch, and why."""

    operation = models.ForeignKey(
        Operation,
        on_delete=models.CASCADE,
        related_name="results",
        db_index=False,  # the constraint's index begins with it
    )
    patch = models.ForeignKey(Patch, on_delete=models.PROTECT, related_name="+", verbose_name=_("patch"))
    state = models.CharField(_("state"), max_length=20, choices=INSTALLATION_STATES)
    reason = models.CharField(_("reason"), max_length=40, blank=True)
    error_code = models.CharField(_("error"), max_length=60, blank=True)
    # What the run met, while the patch follows what is offered today. Empty on runs before 2026-11.
    update_id = models.CharField(_("update id"), max_length=64, blank=True, db_default="")
    version = models.CharField(_("version"), max_length=60, blank=True, db_default="")

    class Meta:
        verbose_name = _("patch result")
        verbose_name_plural = _("patch results")
        constraints = [
            models.UniqueConstraint(fields=["operation", "patch"], name="updates_patchresult_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.patch_id}: {self.state}"


class OperationEvent(models.Model):
    """One line of an installation's timeline. `code` is a message id; the templates word it."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(_("at"))
    code = models.CharField(_("event"), max_length=60)
    state = models.CharField(_("state"), max_length=30, choices=OPERATION_STATES)
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        verbose_name = _("operation event")
        verbose_name_plural = _("operation events")
        ordering = ["at", "pk"]

    def __str__(self) -> str:
        return self.code


class InstalledPatch(models.Model):
    """A patch that is on a VM, as Get-HotFix lists it. Written on change only."""

    vm = models.ForeignKey(
        VirtualMachine,
        on_delete=models.CASCADE,
        related_name="installed_patches",
        db_index=False,
        verbose_name=_("virtual machine"),
    )
    patch = models.ForeignKey(Patch, on_delete=models.PROTECT, related_name="+", verbose_name=_("patch"))
    version = models.CharField(_("version"), max_length=60, blank=True)
    installed_on = models.DateTimeField(_("installed on"))
    installed_by = models.ForeignKey(
        Operation,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("installed by"),
    )

    class Meta:
        verbose_name = _("installed patch")
        verbose_name_plural = _("installed patches")
        constraints = [
            models.UniqueConstraint(fields=["vm", "patch"], name="updates_installedpatch_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.vm_id}: {self.patch_id}"


class BulkRequest(models.Model):
    """One request for many VMs: what was asked, by whom, for which VMs, and how far it has been handed out.

    The VMs were settled when it was confirmed: `vm_count` of them, in blocks (`BulkBlock`) that workers hand out in their
    order; `cursor` is the next. Who may operate is judged at every block. `selection` says how the VMs were chosen, for
    people: nothing is chosen by it again. `removed_count`: VMs that were no longer in the inventory when their block came.
    `finished_at`: when its last operation was found to have ended, `failed_count` of them failed; `seen_at`: when who made it
    said that this is seen to.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(_("kind"), max_length=20, choices=OPERATION_KINDS)
    plan = models.JSONField(null=True, blank=True)
    selection = models.JSONField(default=dict)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("requested by"),
    )
    created_at = models.DateTimeField(_("requested at"), auto_now_add=True)
    cursor = models.BigIntegerField(default=0)
    vm_count = models.PositiveIntegerField(default=0)
    removed_count = models.PositiveIntegerField(default=0)
    is_handed_out = models.BooleanField(default=False)
    error_code = models.CharField(_("error"), max_length=60, blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    failed_count = models.PositiveIntegerField(default=0, db_default=0)
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("bulk request")
        verbose_name_plural = _("bulk requests")
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["created_at"], condition=Q(is_handed_out=False), name="updates_bulkrequest_open"),
            models.Index(fields=["id"], condition=Q(finished_at=None), name="updates_bulkrequest_unended"),
            # every page asks for the failed ones of its reader
            models.Index(
                fields=["requested_by", "finished_at"],
                condition=Q(seen_at=None, finished_at__isnull=False),
                name="updates_bulkrequest_unseen",
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    def get_absolute_url(self) -> str:
        """Its page."""
        return reverse("updates:bulk", args=[self.pk])


class BulkBlock(models.Model):
    """Some VMs that a bulk request means, by id; never changed. Whether they are still there is asked when their turn comes.

    `promise`: what the review said of all of them (`updates.plans.Promise`); empty where the plan of the request is taken as
    it is.
    """

    request = models.ForeignKey(
        BulkRequest, on_delete=models.CASCADE, related_name="blocks", db_index=False, db_constraint=False
    )
    number = models.PositiveIntegerField()
    vm_ids = ArrayField(models.BigIntegerField())
    promise = models.JSONField(null=True, blank=True)

    class Meta:
        verbose_name = _("bulk block")
        verbose_name_plural = _("bulk blocks")
        constraints = [
            models.UniqueConstraint(fields=["request", "number"], name="updates_bulkblock_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}: {self.number}"


class BulkOutcome(models.Model):
    """What became of a bulk request for one VM: the operation that answers it, or the code that says why not.

    A line of a log: PostgreSQL does not check what it refers to (docs/adr/0007).
    """

    request = models.ForeignKey(
        BulkRequest, on_delete=models.CASCADE, related_name="outcomes", db_index=False, db_constraint=False
    )
    vm = models.ForeignKey(VirtualMachine, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    verdict = models.CharField(max_length=10)
    operation = models.ForeignKey(
        Operation, on_delete=models.SET_NULL, null=True, related_name="+", db_constraint=False
    )
    code = models.CharField(max_length=60, blank=True)

    class Meta:
        verbose_name = _("bulk outcome")
        verbose_name_plural = _("bulk outcomes")
        constraints = [
            models.UniqueConstraint(fields=["request", "vm"], name="updates_bulkoutcome_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.vm_id}: {self.verdict}"


class RolloutSource(models.TextChoices):
    """Why a rollout is there."""

    AUTOMATIC = "automatic", _("Automatic guest patching")
    SCHEDULE = "schedule", _("Maintenance configuration")
    ON_DEMAND = "on_demand", _("On demand, availability first")


class RolloutState(models.TextChoices):
    """Where a rollout is."""

    RUNNING = "running", _("Running")
    PAUSED = "paused", _("Paused")
    FINISHED = "finished", _("Finished")
    ENDED = "ended", _("Ended by a person")


class MemberState(models.TextChoices):
    """Where a VM is in a rollout."""

    WAITING = "waiting", _("Waiting")
    STARTED = "started", _("Started")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    SKIPPED = "skipped", _("Skipped")
    CATCHING_UP = "catching_up", _("Waits until it runs")


class MaintenanceConfiguration(models.Model):
    """When windows open, what is installed in them, and on which VMs: Azure's maintenance configuration, scope InGuestPatch.

    `starts_on` and `starts_at` are the wall clock of `time_zone` (a Windows id), or of each machine where `is_own_clock`
    says so: then the zone is empty, and `next_run_at` is the next opening on any clock there is. `scope` narrows the dynamic members by
    names of the list's filters and `tag_name`/`tag_value`; empty: static members only. `next_run_at` is what the
    scheduler waits for. For `catch_up_hours` after a window machines that were off in it are updated once they run.
    `updates.selectors.maintenance` reads what is kept as JSON.
    """

    name = models.CharField(_("name"), max_length=100, unique=True)
    is_enabled = models.BooleanField(_("enabled"), default=True)
    starts_on = models.DateField(_("first day"))
    starts_at = models.TimeField(_("opens at"))
    expires_on = models.DateField(_("last day"), null=True, blank=True)
    duration_minutes = models.PositiveSmallIntegerField(_("duration (in minutes)"), default=120)
    time_zone = models.CharField(_("time zone"), max_length=80, blank=True)
    is_own_clock = models.BooleanField(_("on each machine's own clock"), default=False, db_default=False)
    recur_every = models.CharField(_("repeats"), max_length=100)
    plan = models.JSONField(_("plan"))
    scope = models.JSONField(_("scope"), default=dict, blank=True)
    blackouts = models.JSONField(_("blackout periods"), default=list, blank=True)
    is_availability_first = models.BooleanField(_("availability first"), default=False)
    catch_up_hours = models.PositiveSmallIntegerField(_("catch up (in hours)"), default=0)
    next_run_at = models.DateTimeField(null=True, blank=True, db_index=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    vms = models.ManyToManyField(VirtualMachine, related_name="maintenance_configurations", blank=True)

    class Meta:
        verbose_name = _("maintenance configuration")
        verbose_name_plural = _("maintenance configurations")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(duration_minutes__gte=90, duration_minutes__lte=235), name="updates_maintenance_duration"
            ),
            models.CheckConstraint(
                condition=Q(is_own_clock=False) | Q(time_zone=""), name="updates_maintenance_one_clock"
            ),
        ]
        triggers = [
            kept(
                source="updates.maintenanceconfiguration",
                create=Tag.MAINTENANCE_CREATE,
                change=Tag.MAINTENANCE_CHANGE,
                remove=Tag.MAINTENANCE_REMOVE,
                name="it->>'name'",
                left_out=("next_run_at",),
                moves={
                    "was->>'is_enabled' = 'false' AND is_now->>'is_enabled' = 'true'": Tag.MAINTENANCE_ENABLE,
                    "was->>'is_enabled' = 'true' AND is_now->>'is_enabled' = 'false'": Tag.MAINTENANCE_DISABLE,
                },
            )
        ]

    def __str__(self) -> str:
        return self.name


_ConfigurationMachine: Any = MaintenanceConfiguration.vms.through


class ConfigurationMachine(_ConfigurationMachine):  # type: ignore[misc]  # Django makes the class at run time
    """That a maintenance configuration names a machine; here only to keep who said so."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = kept_links(
            source="updates.maintenanceconfiguration",
            add=Tag.MAINTENANCE_ASSIGN,
            remove=Tag.MAINTENANCE_UNASSIGN,
            owner="maintenanceconfiguration_id",
            links="virtualmachine_id",
            name="(SELECT name FROM updates_maintenanceconfiguration WHERE id = link_owner)",
            counted="machines",
        )


class Freeze(models.Model):
    """A time in which nothing that changes a machine may run, on the whole fleet or on those that its scope means.

    From one instant up to but not with the other; `time_zone` (a Windows id) is only how they were typed. One that was
    ended holds no more. `patching.freezes` is the rule; `updates.selectors.freezes` says which machines it means.
    """

    name = models.CharField(_("reason"), max_length=100)
    begins_at = models.DateTimeField(_("begins"))
    ends_at = models.DateTimeField(_("ends"))
    time_zone = models.CharField(_("time zone"), max_length=80)
    is_for_all = models.BooleanField(_("whole fleet"), default=False)
    scope = models.JSONField(_("scope"), default=dict, blank=True)
    ended_at = models.DateTimeField(_("ended early"), null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        verbose_name = _("freeze")
        verbose_name_plural = _("freezes")
        ordering = ["begins_at", "pk"]
        indexes = [models.Index(fields=["ends_at"], condition=Q(ended_at=None), name="updates_freeze_open")]
        constraints = [
            models.CheckConstraint(condition=Q(ends_at__gt=F("begins_at")), name="updates_freeze_ordered"),
            models.CheckConstraint(
                condition=Q(is_for_all=True, scope={}) | (Q(is_for_all=False) & ~Q(scope={})),
                name="updates_freeze_means_some",
            ),
        ]
        triggers = [
            kept(
                source="updates.freeze",
                create=Tag.FREEZE_CREATE,
                change=Tag.FREEZE_CHANGE,
                remove=Tag.FREEZE_REMOVE,
                name="it->>'name'",
                moves={"was->>'ended_at' IS NULL AND is_now->>'ended_at' IS NOT NULL": Tag.FREEZE_END},
            )
        ]

    def __str__(self) -> str:
        return self.name


class FreezeException(models.Model):
    """Machines that a freeze lets through until a moment: those it names, and those that its scope means."""

    freeze = models.ForeignKey(Freeze, on_delete=models.CASCADE, related_name="exceptions", verbose_name=_("freeze"))
    reason = models.CharField(_("reason"), max_length=200)
    expires_at = models.DateTimeField(_("expires"))
    scope = models.JSONField(_("scope"), default=dict, blank=True)
    vms = models.ManyToManyField(VirtualMachine, related_name="+", blank=True)
    ended_at = models.DateTimeField(_("ended early"), null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        verbose_name = _("exception to a freeze")
        verbose_name_plural = _("exceptions to freezes")
        ordering = ["expires_at", "pk"]
        triggers = [
            kept(
                source="updates.freezeexception",
                create=Tag.EXCEPTION_MAKE,
                change=None,
                remove=Tag.EXCEPTION_REMOVE,
                name="concat_ws(': ', (SELECT name FROM updates_freeze WHERE id = (it->>'freeze_id')::bigint), it->>'reason')",
                moves={"was->>'ended_at' IS NULL AND is_now->>'ended_at' IS NOT NULL": Tag.EXCEPTION_END},
            )
        ]

    def __str__(self) -> str:
        return self.reason


_ExceptionMachine: Any = FreezeException.vms.through


class ExceptionMachine(_ExceptionMachine):  # type: ignore[misc]  # Django makes the class at run time
    """That an exception to a freeze names a machine; here only to keep who said so."""

    class Meta:
        proxy = True
        default_permissions = ()
        triggers = kept_links(
            source="updates.freezeexception",
            add=Tag.EXCEPTION_ASSIGN,
            remove=Tag.EXCEPTION_UNASSIGN,
            owner="freezeexception_id",
            links="virtualmachine_id",
            name="(SELECT reason FROM updates_freezeexception WHERE id = link_owner)",
            counted="machines",
        )


class Rollout(models.Model):
    """An installation on many VMs in waves: a frozen plan, gates between the waves, one row of due time.

    `next_step_at` is when the scheduler looks at it again, empty once it has ended. `reason` says why it waits or paused.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=150, blank=True)
    source = models.CharField(_("source"), max_length=20, choices=RolloutSource)
    configuration = models.ForeignKey(
        MaintenanceConfiguration,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="rollouts",
        verbose_name=_("maintenance configuration"),
    )
    kind = models.CharField(
        _("kind"), max_length=20, choices=OPERATION_KINDS, default=terms.OperationKind.INSTALLATION.value
    )
    plan = models.JSONField(_("plan"))  # of a rollback empty: each machine has an order of its own
    # What a review said of its machines, a `updates.plans.Promise` each; members name theirs by its place. Empty: no review.
    promises = models.JSONField(default=list)
    status = models.CharField(_("status"), max_length=20, choices=RolloutState, default=RolloutState.RUNNING)
    reason = models.CharField(max_length=60, blank=True)
    is_off_peak_only = models.BooleanField(_("off-peak only"), default=False)
    window_ends_at = models.DateTimeField(_("window ends at"), null=True, blank=True)
    catch_up_until = models.DateTimeField(_("catch up until"), null=True, blank=True)
    # IANA name of the clock of its machines, where the configuration opens on each machine's own; its blackouts are this clock's.
    clock = models.CharField(_("clock"), max_length=64, blank=True, default="", db_default="")
    most_failures = models.PositiveIntegerField(_("pause if failures exceed"), default=2)
    most_percent = models.PositiveSmallIntegerField(_("pause if the failure rate exceeds (%)"), default=5)
    # Failures that a person has seen and resumed in spite of.
    forgiven = models.PositiveIntegerField(_("failures accepted"), default=0)
    soak_minutes = models.PositiveIntegerField(_("wait between waves (in minutes)"), default=0)
    is_availability_first = models.BooleanField(_("availability first"), default=True)
    wave = models.PositiveIntegerField(default=0)  # the first that is not over
    wave_count = models.PositiveIntegerField(default=0)
    # When it was made; machines may be removed since.
    vm_count = models.PositiveIntegerField(_("machines"), default=0, db_default=0)
    # Its waves in order, split among lanes that go side by side: a `patching.rollout.LaneState` each.
    lanes = models.JSONField(default=list)
    # Rings are groups of machines in an order that a person chose, by name. Only what was installed without trouble in
    # the rings before reaches the next one: `proven`, none in the first.
    rings = models.JSONField(_("rings"), default=list)
    ring = models.PositiveSmallIntegerField(default=0)
    ring_ended_at = models.DateTimeField(null=True, blank=True)
    ring_soak_minutes = models.PositiveIntegerField(_("wait between rings (in minutes)"), default=0)
    proven = models.JSONField(null=True, blank=True)
    next_step_at = models.DateTimeField(null=True, blank=True, db_index=True)
    created_at = models.DateTimeField(_("created at"))
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        verbose_name = _("rollout")
        verbose_name_plural = _("rollouts")
        ordering = ["-created_at"]
        # every page asks how many are paused
        indexes = [
            models.Index(
                fields=["created_by", "created_at"],
                condition=Q(status=RolloutState.PAUSED.value),
                name="updates_rollout_paused",
            )
        ]
        constraints = [
            # A configuration's window opens once, whatever worker saw it first.
            models.UniqueConstraint(
                fields=["configuration", "created_at"],
                condition=Q(source="schedule"),
                name="updates_rollout_one_per_window",
            ),
        ]
        triggers = [
            # How far it is belongs to its page; what people (and gates) do to it is kept.
            kept(
                source="updates.rollout",
                create=Tag.ROLLOUT_CREATE,
                change=Tag.ROLLOUT_CHANGE,
                remove=Tag.ROLLOUT_REMOVE,
                name="COALESCE(NULLIF(it->>'name', ''), it->>'source')",
                left_out=(
                    "reason",
                    "wave",
                    "wave_count",
                    "lanes",
                    "ring",
                    "ring_ended_at",
                    "proven",
                    "promises",
                    "next_step_at",
                    "created_at",
                    "finished_at",
                ),
                moves={
                    f"was->>'status' <> is_now->>'status' AND is_now->>'status' = '{RolloutState.PAUSED.value}'": Tag.ROLLOUT_PAUSE,
                    f"was->>'status' <> is_now->>'status' AND is_now->>'status' = '{RolloutState.RUNNING.value}'": Tag.ROLLOUT_RESUME,
                    f"was->>'status' <> is_now->>'status' AND is_now->>'status' = '{RolloutState.ENDED.value}'": Tag.ROLLOUT_END,
                    f"was->>'status' <> is_now->>'status' AND is_now->>'status' = '{RolloutState.FINISHED.value}'": Tag.ROLLOUT_FINISH,
                    "was->>'forgiven' <> is_now->>'forgiven'": Tag.ROLLOUT_FORGIVE,
                },
                keys={
                    "owner_key": "(it->>'created_by_id')::bigint",
                    "detail": "CASE WHEN it->>'reason' = '' THEN '{}'::jsonb ELSE jsonb_build_object('code', it->'reason') END",
                },
            )
        ]

    def __str__(self) -> str:
        return self.name or str(self.get_source_display())

    def get_absolute_url(self) -> str:
        """Its page."""
        return reverse("updates:rollout", args=[self.pk])


class RolloutMember(models.Model):
    """A VM in a rollout: its wave, and what became of it.

    `probe_due_at` is when its health probe is to be asked, empty while nobody wants to know; the last answer is of
    `probed_at`, and `probe_failure` is empty if it was well (updates.services.health).
    """

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="members", db_index=False)
    vm = models.ForeignKey(VirtualMachine, on_delete=models.CASCADE, related_name="+")
    wave = models.PositiveIntegerField()
    status = models.CharField(max_length=20, choices=MemberState, default=MemberState.WAITING)
    code = models.CharField(max_length=60, blank=True)
    promise = models.PositiveSmallIntegerField(null=True, blank=True)  # its place among `Rollout.promises`
    operation = models.ForeignKey(Operation, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    probe_due_at = models.DateTimeField(null=True, blank=True)
    probed_at = models.DateTimeField(null=True, blank=True)
    probe_failure = models.CharField(max_length=40, blank=True, default="", db_default="")
    probe_detail = models.CharField(max_length=60, blank=True, default="", db_default="")

    class Meta:
        verbose_name = _("rollout member")
        verbose_name_plural = _("rollout members")
        indexes = [
            models.Index(fields=["rollout", "wave", "status"], name="updates_member_wave"),
            models.Index(
                fields=["probe_due_at"], condition=Q(probe_due_at__isnull=False), name="updates_member_probe_due"
            ),
        ]
        constraints = [models.UniqueConstraint(fields=["rollout", "vm"], name="updates_member_unique")]

    def __str__(self) -> str:
        return f"{self.vm_id}: {self.status}"


class KbHold(models.Model):
    """A KB that is held back on a VM since a rollback, until somebody lifts the hold: no installation takes it."""

    vm = models.ForeignKey(
        VirtualMachine,
        on_delete=models.CASCADE,
        related_name="kb_holds",
        db_index=False,
        verbose_name=_("virtual machine"),
    )
    kb_number = models.CharField(_("KB number"), max_length=10)
    operation = models.ForeignKey(
        Operation, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("operation")
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")

    class Meta:
        verbose_name = _("held KB")
        verbose_name_plural = _("held KBs")
        # on which machines a KB is held back
        indexes = [models.Index(fields=["kb_number", "vm"], name="updates_kbhold_kb")]
        constraints = [models.UniqueConstraint(fields=["vm", "kb_number"], name="updates_kbhold_unique")]
        triggers = [
            kept(
                source="updates.kbhold",
                create=Tag.HOLD_MAKE,
                change=None,
                remove=Tag.HOLD_LIFT,
                name=(
                    "concat_ws(' · ', 'KB' || (it->>'kb_number'), "
                    "(SELECT name FROM vms_virtualmachine WHERE id = (it->>'vm_id')::bigint))"
                ),
                left_out=("created_at",),
                keys={
                    "vm_key": "(it->>'vm_id')::bigint",
                    "group_key": "(SELECT resource_group_id FROM vms_virtualmachine WHERE id = (it->>'vm_id')::bigint)",
                },
            )
        ]

    def __str__(self) -> str:
        return f"{self.vm_id}: KB{self.kb_number}"


class Bucket(models.Model):
    """How many operations may still be started out of one budget; what has no rate is limited by what it is told alone.

    Empty name: the whole connection, whose rate is `Connection.starts_per_minute`. Others are named by the connector's kind
    (Azure: a subscription and region). `remaining` is what the other side last said, at `told_at`; before `not_before`
    nothing is started.
    """

    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="buckets", db_index=False)
    name = models.CharField(_("name"), max_length=100, blank=True)
    rate_per_minute = models.FloatField(null=True)
    burst = models.FloatField(null=True)
    tokens = models.FloatField(default=0)
    refilled_at = models.DateTimeField()
    remaining = models.PositiveIntegerField(null=True)
    told_at = models.DateTimeField(null=True)
    not_before = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("budget")
        verbose_name_plural = _("budgets")
        constraints = [models.UniqueConstraint(fields=["connection", "name"], name="updates_bucket_unique")]

    def __str__(self) -> str:
        return f"{self.connection_id}: {self.name}"


class ConnectionPace(models.Model):
    """How long one start and one look take on a connection, in seconds, as measured by whoever worked on it last."""

    connection = models.OneToOneField(Connection, on_delete=models.CASCADE, primary_key=True, related_name="pace")
    start_seconds = models.FloatField(null=True)
    look_seconds = models.FloatField(null=True)
    measured_at = models.DateTimeField()

    class Meta:
        verbose_name = _("connection pace")
        verbose_name_plural = _("connection paces")

    def __str__(self) -> str:
        return str(self.connection_id)


class WorkerHeartbeat(models.Model):
    """When a worker last carried out a sweep of its own timer, by the database's clock. Its processes share the row."""

    name = models.CharField(_("name"), max_length=200, primary_key=True)
    heard_at = models.DateTimeField(_("heard of at"))

    class Meta:
        verbose_name = _("worker heartbeat")
        verbose_name_plural = _("worker heartbeats")

    def __str__(self) -> str:
        return self.name


class FleetSnapshot(models.Model):
    """What was counted of a place on a day; written by `updates.services.fleet`.

    There is a row for each resource group, connection and product line, and of the whole fleet (no group) one for each
    connection and product line. Every machine is in one of the columns from `up_to_date` to `no_data`. `critical_late` are those of `critical` that
    have lacked it for more than a week since it was published.
    """

    day = models.DateField()
    resource_group = models.ForeignKey(
        ResourceGroup, on_delete=models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    connection = models.ForeignKey(
        Connection, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    product_line = models.CharField(max_length=20, blank=True)
    up_to_date = models.PositiveIntegerField()
    other = models.PositiveIntegerField()
    critical = models.PositiveIntegerField()
    no_data = models.PositiveIntegerField()
    critical_late = models.PositiveIntegerField()
    on_track = models.PositiveIntegerField()

    class Meta:
        verbose_name = _("snapshot of the fleet")
        verbose_name_plural = _("snapshots of the fleet")
        indexes = [models.Index(fields=["day"], name="updates_snapshot_day")]
        constraints = [
            models.UniqueConstraint(
                fields=["resource_group", "day", "connection", "product_line"],
                nulls_distinct=False,
                name="updates_snapshot_unique",
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.resource_group_id or ''}"
