"""`manage.py import_vms FILE [--connection NAME] [--dry-run]`: the import page's twin for the command line."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from audit.commands import SignedCommand
from connectors.registry import simulated_kinds
from vms.choices import ImportDoor
from vms.import_models import ImportAnswer, ImportJob
from vms.import_pages import ImportPage, row_report
from vms.models import Connection
from vms.services.import_jobs import (
    PIECE_BYTES,
    add_piece,
    begin_import,
    check_size,
    file_arrived,
    forget_upload,
    work_on_imports,
)
from vms.services.imports import RowOutcome
from vms.services.inventory_files import InventoryFileError

_TURN_SECONDS = 5.0
_WAIT_SECONDS = 0.5  # while another process works on the job


class Command(SignedCommand):
    """Import virtual machines and print what became of the rows.

    It is the same job as the page's, worked on in this process. If the command is killed, a worker goes on with it.
    """

    help = "Import virtual machines from what “az vm list -o json” or Azure Resource Manager's list prints."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """FILE, and what to do with it."""
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument(
            "--connection",
            metavar="NAME",
            help="connection of new VMs (default: the first simulated connection)",
        )
        parser.add_argument("--dry-run", action="store_true", help="report what would happen, change nothing")

    def handle(self, *_args: Any, file: Path, connection: str | None, dry_run: bool, **_options: Any) -> None:
        """Import, or end with one sentence that says why not."""
        try:
            check_size(size=file.stat().st_size)
            job_id = _receive(file, connection, is_dry_run=dry_run)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        except InventoryFileError as error:
            raise CommandError(f"{file}: {error}") from None
        page = self._work(job_id)
        if page.error:
            raise CommandError(f"{file}: {page.error}")
        for answer in ImportAnswer.objects.filter(job=page.job).order_by("number").iterator():
            row = row_report(answer)
            name = row.name or row.arm_id or "-"
            self.stdout.write(f"{row.number:>6}  {row.outcome_label:<10} {name}  {row.explanation}".rstrip())
        if page.job.has_more_pages:
            self.stderr.write("This file is one page of a longer list (it names a next page). Import the others too.")
        counts = {outcome: page.job.counts.get(outcome.value, 0) for outcome in RowOutcome}
        words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        self.stdout.write(f"{words}{' (dry run: nothing was changed)' if dry_run else ''}")
        if page.job.row_count and counts[RowOutcome.SKIPPED] == page.job.row_count:
            raise CommandError("No row could be used.")

    def _work(self, job_id: UUID) -> ImportPage:
        """Work on the job until it is over, saying how far it is."""
        shown = ""
        while True:
            if not work_on_imports(seconds=_TURN_SECONDS, only=job_id):
                time.sleep(_WAIT_SECONDS)
            page = ImportPage(ImportJob.objects.select_related("connection", "requested_by").get(pk=job_id))
            if page.is_over:
                return page
            if (progress := f"{page.job.get_phase_display()}: {page.progress}") != shown:
                shown = progress
                self.stderr.write(shown)


def _receive(file: Path, connection: str | None, *, is_dry_run: bool) -> UUID:
    """The file as a job that is due."""
    target = _connection(connection)
    with file.open("rb") as opened:
        job = begin_import(door=ImportDoor.COMMAND)
        try:
            number = size = 0
            while piece := opened.read(PIECE_BYTES):
                add_piece(job_id=job.pk, number=number, data=piece)
                number, size = number + 1, size + len(piece)
            file_arrived(job_id=job.pk, connection=target, file_name=file.name, size=size, is_dry_run=is_dry_run)
        finally:
            forget_upload(job_id=job.pk)
    return job.pk


def _connection(name: str | None) -> Connection:
    if name is None:
        first = Connection.objects.filter(kind__in=simulated_kinds()).order_by("pk").first()
        if first is None:
            raise CommandError("There is no simulator connection. Create one in the admin site, or name a connection.")
        return first
    try:
        return Connection.objects.get(name=name)
    except Connection.DoesNotExist:
        names = ", ".join(Connection.objects.values_list("name", flat=True)) or "none"
        raise CommandError(f"There is no connection called “{name}”. There are: {names}.") from None
