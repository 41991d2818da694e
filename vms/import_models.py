"""Importing: files as they arrive, their rows while they are checked, the jobs, and what each machine's source said of it.

Rows that wait for a job live in tables of their own, never on the machines. The database is the queue: a job is due when
`next_step_at` has come, and belongs to one worker until `leased_until`.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from vms.choices import IMPORT_DOORS, IMPORT_PHASES, IMPORT_SOURCES, ImportDoor, ImportPhase, ImportSource


class ImportJob(models.Model):
    """One import: a file, or the list that a connection gave, from its first byte to its last machine.

    `cursor` is where the phase goes on: the reader's state, the connector's cursor, or the last row that was written.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.CharField(
        _("source"), max_length=10, choices=IMPORT_SOURCES, default=ImportSource.FILE.value, editable=False
    )
    door = models.CharField(_("door"), max_length=10, choices=IMPORT_DOORS, default=ImportDoor.PAGE.value)
    connection = models.ForeignKey(
        # empty while the file arrives
        "vms.Connection",
        on_delete=models.CASCADE,
        null=True,
        related_name="+",
        verbose_name=_("connection"),
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("started by"),
    )
    file_name = models.CharField(_("file name"), max_length=200, blank=True)
    is_dry_run = models.BooleanField(_("dry run"), default=False)
    phase = models.CharField(
        _("phase"), max_length=10, choices=IMPORT_PHASES, default=ImportPhase.RECEIVING.value, db_index=True
    )
    cursor = models.JSONField(default=dict)
    size = models.BigIntegerField(_("size"), default=0, help_text=_("In bytes."))
    read_bytes = models.BigIntegerField(default=0)
    row_count = models.PositiveIntegerField(_("rows"), default=0)
    done_count = models.PositiveIntegerField(default=0)
    # how many rows had which outcome (vms.services.imports.RowOutcome), and of those left out "linux" and "os_not_named"
    counts = models.JSONField(default=dict)
    gone_count = models.PositiveIntegerField(default=0)
    # what a sync could not look at, each as the fields of `connectors.protocol.Unread`: nothing of it counts as gone
    unread = models.JSONField(default=list, db_default=Value([], models.JSONField()))
    has_more_pages = models.BooleanField(default=False)
    passed_over = models.CharField(max_length=200, blank=True)
    # why nothing or not all was taken over: a message id and the facts to word it with
    error_code = models.CharField(max_length=40, blank=True)
    error_facts = models.JSONField(default=dict)
    # whether the checked rows are still here, so that a dry run can be followed by the import
    are_rows_kept = models.BooleanField(default=True)

    # when it is due; in hand, when its lease ends
    next_step_at = models.DateTimeField(null=True)
    failures = models.PositiveSmallIntegerField(default=0)
    lease = models.UUIDField(null=True)
    created_at = models.DateTimeField(_("requested"), db_default=Now())
    began_at = models.DateTimeField(_("started"), null=True)
    finished_at = models.DateTimeField(_("finished"), null=True)

    class Meta:
        verbose_name = _("import")
        verbose_name_plural = _("imports")
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["next_step_at"], condition=Q(next_step_at__isnull=False), name="vms_importjob_due"),
            models.Index(fields=["-created_at", "id"], name="vms_importjob_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["connection"],
                condition=Q(source=ImportSource.DISCOVERY.value, finished_at__isnull=True),
                name="vms_importjob_one_discovery",
            ),
        ]

    def __str__(self) -> str:
        return self.file_name or str(self.pk)


class ImportPiece(models.Model):
    """A part of a file that is being imported: `IMPORT_PIECE_BYTES` of it (the last one may be shorter), compressed."""

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="pieces", db_index=False)
    number = models.PositiveIntegerField()
    content = models.BinaryField()

    class Meta:
        verbose_name = _("piece of an import file")
        verbose_name_plural = _("pieces of import files")
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="vms_importpiece_unique")]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}"


class ImportRow(models.Model):
    """A row of an inventory that was read and checked, and waits to be written. `problem`: why it will be left out.

    `turn`: rows of one turn are written in their order, after those of the turns before (docs/rules.md).
    """

    MOVES, MACHINES, COPIES = range(3)

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="rows", db_index=False)
    number = models.PositiveIntegerField()
    turn = models.PositiveSmallIntegerField(db_default=MACHINES)
    arm_id = models.TextField()
    name = models.TextField()
    vm_id = models.UUIDField(null=True)
    problem = models.CharField(max_length=40)
    detail = models.TextField()
    facts = models.JSONField(null=True)
    document = models.JSONField(null=True)

    class Meta:
        verbose_name = _("row of an import")
        verbose_name_plural = _("rows of imports")
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="vms_importrow_unique")]
        indexes = [
            models.Index(fields=["job", "turn", "number"], condition=~Q(turn=1), name="vms_importrow_turn"),
            models.Index(fields=["job", "vm_id"], condition=Q(turn=0), name="vms_importrow_move"),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}"


class ImportAnswer(models.Model):
    """What became of a row: of each outcome the first `MOST_ANSWERS`; of a large import the rest is counted."""

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="answers", db_index=False)
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=10)
    name = models.TextField()
    arm_id = models.TextField()
    changed = models.JSONField(default=list)
    problem = models.CharField(max_length=40, blank=True)
    detail = models.TextField(blank=True)
    cleaned = models.JSONField(default=list)

    class Meta:
        verbose_name = _("answer of an import")
        verbose_name_plural = _("answers of imports")
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="vms_importanswer_unique")]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}: {self.outcome}"


class MachineDocument(models.Model):
    """The raw document of a machine, in ARM's JSON, as its source last sent it; fields that we do not use are kept, too.

    `is_listed`: the connection's own inventory has the machine. Once it does not have it any more, the machine is gone.
    """

    vm = models.OneToOneField("vms.VirtualMachine", on_delete=models.CASCADE, primary_key=True, related_name="document")
    document = models.JSONField()
    is_listed = models.BooleanField(db_default=False)
    taken_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = _("document of a machine")
        verbose_name_plural = _("documents of machines")

    def __str__(self) -> str:
        return str(self.vm_id)


class InventorySync(models.Model):
    """When a connection is asked for its machines, and the job that asked last; its lease, cursor and counts are there."""

    connection = models.OneToOneField(
        "vms.Connection", on_delete=models.CASCADE, primary_key=True, related_name="inventory_sync"
    )
    job = models.ForeignKey(ImportJob, on_delete=models.SET_NULL, null=True, related_name="+")
    next_at = models.DateTimeField(_("next"), db_default=Now(), db_index=True)

    class Meta:
        verbose_name = _("inventory sync")
        verbose_name_plural = _("inventory syncs")

    def __str__(self) -> str:
        return str(self.connection_id)
