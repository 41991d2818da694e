"""Importing a file in a test: through the same steps as the page and the command, worked on by the test itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User

from vms.choices import ImportDoor
from vms.import_models import ImportAnswer, ImportJob
from vms.import_pages import ImportPage, row_report
from vms.models import Connection
from vms.services.import_jobs import PIECE_BYTES, add_piece, begin_import, file_arrived, work_on_imports
from vms.services.imports import RowOutcome, RowReport


class ImportFailedError(Exception):
    """The job failed; its text is what the page says."""


@dataclass(frozen=True)
class Report:
    """What became of a file, as its page tells it."""

    job: ImportJob

    @property
    def rows(self) -> list[RowReport]:
        return [row_report(answer) for answer in ImportAnswer.objects.filter(job=self.job).order_by("number")]

    @property
    def counts(self) -> dict[RowOutcome, int]:
        return {outcome: self.job.counts.get(outcome.value, 0) for outcome in RowOutcome}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def page(self) -> ImportPage:
        return ImportPage(self.job)


def queue_file(data: bytes, connection: Connection, *, by: User | None = None, is_dry_run: bool = False) -> ImportJob:
    """A job whose file has arrived, and that nobody has worked on."""
    door = ImportDoor.PAGE if by else ImportDoor.COMMAND
    job = begin_import(door=door, requested_by=by)
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        add_piece(job_id=job.pk, number=number, data=data[start : start + PIECE_BYTES])
    file_arrived(job_id=job.pk, connection=connection, file_name="vms.json", size=len(data), is_dry_run=is_dry_run)
    return job


def work(seconds: float = 60, **only: Any) -> None:
    """Work on what is due until nothing is."""
    while work_on_imports(seconds=seconds, **only):
        pass


def import_file(data: bytes, connection: Connection, *, is_dry_run: bool = False) -> Report:
    """Import it; raises ImportFailedError where the file cannot be used."""
    job = queue_file(data, connection, is_dry_run=is_dry_run)
    work()
    job.refresh_from_db()
    report = Report(job)
    if report.page.error:
        raise ImportFailedError(report.page.error)
    return report
