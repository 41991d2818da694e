"""What the import's pages show: how far a job is, what became of its rows, and the imports before it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet, Sum
from django.http import Http404
from django.template.defaultfilters import filesizeformat
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from patching.terms import UpdateStatus
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from vms.choices import BEFORE_WRITING, ImportPhase, ImportSource, PowerState
from vms.import_models import ImportAnswer, ImportJob, InventorySync
from vms.models import Connection, VirtualMachine, WordCount
from vms.services.import_jobs import INTERNAL, MOST_ANSWERS, RIGHT_LOST
from vms.services.imports import ROW_OUTCOMES, RowOutcome, RowReport
from vms.services.inventory_files import FileProblem, file_problem_words
from vms.services.inventory_rows import RowProblem

MOST_SHOWN = 1_000
_ERRORS: dict[str, Promise] = {
    RIGHT_LOST: gettext_lazy(
        "Whoever started it may not import any more. What had been imported before stays; nothing more was."
    ),
    INTERNAL: gettext_lazy(
        "The portal failed several times at the same place; the log of the worker says why. What had been imported before "
        "stays. Import the file again once it is mended."
    ),
}


@dataclass(frozen=True)
class ImportPage:
    """A job as its page shows it."""

    job: ImportJob

    @property
    def phase(self) -> ImportPhase:
        """The phase of the job, in words."""
        return ImportPhase(self.job.phase)

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, or waits for a person."""
        return self.phase.is_over

    @property
    def is_sync(self) -> bool:
        """Whether its rows come from the connection itself."""
        return self.job.source == ImportSource.DISCOVERY.value

    @property
    def can_cancel(self) -> bool:
        """Whether nothing was taken over yet."""
        return self.job.phase in BEFORE_WRITING

    @property
    def can_take_over(self) -> bool:
        """Whether its checked rows wait to be imported."""
        return self.phase is ImportPhase.TRIED and self.job.are_rows_kept

    @property
    def progress(self) -> str:
        """How far it is: "340,000 of 1,000,000"."""
        job = self.job
        if self.phase is ImportPhase.READING and not self.is_sync:
            parts = {"read": filesizeformat(job.read_bytes), "size": filesizeformat(job.size)}
            rows = _("%(count)s rows") % {"count": f"{job.row_count:,}"}
            read = _("%(read)s of %(size)s") % parts
            return f"{read} · {rows}"
        if self.phase is ImportPhase.READING:
            return _("%(count)s rows") % {"count": f"{job.row_count:,}"}
        if self.phase is ImportPhase.RECEIVING:
            return ""
        return _("%(done)s of %(total)s") % {"done": f"{job.done_count:,}", "total": f"{job.row_count:,}"}

    @property
    def fraction(self) -> float | None:
        """How much of the phase is done, 0 to 1; None: nobody knows how much there is."""
        job = self.job
        done, total = job.done_count, job.row_count
        if self.phase is ImportPhase.READING:
            done, total = job.read_bytes, job.size
        return min(1.0, done / total) if total else None

    @property
    def error(self) -> str:
        """Why nothing, or not all, was taken over; empty where all was."""
        code = self.job.error_code
        if not code:
            return ""
        if code in _ERRORS:
            return str(_ERRORS[code])
        if code in set(FileProblem):
            return file_problem_words(FileProblem(code), facts=self.job.error_facts)
        detail = self.job.error_facts.get("detail", "")
        return _("The connection did not list its machines: %(reason)s") % {"reason": f"{code} {detail}".strip()}

    @property
    def totals(self) -> list[tuple[str, str]]:
        """Outcome in words and its number of rows."""
        counts = self.job.counts
        return [(str(words), f"{counts.get(outcome.value, 0):,}") for outcome, words in ROW_OUTCOMES.items()]

    @property
    def linux(self) -> int:
        """How many of the skipped rows are Linux machines."""
        return int(self.job.counts.get("linux", 0))

    @cached_property
    def rows(self) -> list[RowReport]:
        """What was changed first, then what was left out (Linux last), then what is as it was; the first thousand."""
        found: list[RowReport] = []
        for outcome in RowOutcome:
            if len(found) < MOST_SHOWN:
                answers = ImportAnswer.objects.filter(job=self.job, outcome=outcome.value).order_by("number")
                found += sorted(map(row_report, answers[:MOST_ANSWERS]), key=lambda row: row.urgency)
        return found[:MOST_SHOWN]

    @property
    def shows_all(self) -> bool:
        """Whether every row is on the page."""
        return self.job.done_count <= MOST_SHOWN


def row_report(answer: ImportAnswer) -> RowReport:
    """What became of a row, as it is told."""
    return RowReport(
        answer.number,
        answer.name,
        answer.arm_id,
        RowOutcome(answer.outcome),
        tuple(answer.changed),
        RowProblem(answer.problem) if answer.problem else None,
        answer.detail,
        tuple(answer.cleaned),
    )


def job_or_404(pk: UUID) -> ImportJob:
    """The job with this id, its person and its connection read along; Http404 if there is none."""
    job = ImportJob.objects.select_related("connection", "requested_by").filter(pk=pk).first()
    if job is None:
        raise Http404
    return job


def earlier_imports(*, most: int = 20) -> list[ImportPage]:
    """The newest imports, also those that are under way."""
    jobs: QuerySet[ImportJob] = ImportJob.objects.select_related("connection", "requested_by")
    return [ImportPage(job) for job in jobs.order_by("-created_at", "pk")[:most]]


def answer_lines(job: ImportJob) -> Iterator[str]:
    """Every answer that is kept, as CSV, in the order of the rows."""
    yield BYTE_ORDER_MARK + _csv_line(
        [_("Row"), _("Name"), _("Resource id"), _("Outcome"), _("Reason or changed facts")]
    )
    for answer in ImportAnswer.objects.filter(job=job).order_by("number").iterator(chunk_size=2_000):
        row = row_report(answer)
        yield _csv_line([str(row.number), row.name, row.arm_id, row.outcome_label, row.explanation])


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([harmless(cell) for cell in cells])
    return buffer.getvalue()


def import_limit() -> str:
    """How large a file may be, in words."""
    return filesizeformat(settings.MAX_IMPORT_BYTES)


MOST_SUBSCRIPTIONS = 20  # that a connection's page lists
MOST_STOPPED = 1_000  # that it counts
_NOT_RUNNING = (PowerState.DEALLOCATED, PowerState.DEALLOCATING, PowerState.STOPPED, PowerState.STOPPING)


@dataclass(frozen=True, slots=True)
class Share:
    """How many machines a connection has in a subscription."""

    name: str
    subscription_id: UUID
    key: int
    machines: int


@dataclass(frozen=True)
class SyncPage:
    """The last sync of a connection, when the next one is due, and how many of the machines are not patched from here.

    `stopped` is counted up to one more than `MOST_STOPPED`.
    """

    last: ImportPage | None
    next_at: datetime | None
    all_shares: tuple[Share, ...]
    unsupported: int
    stopped: int

    @property
    def shares(self) -> tuple[Share, ...]:
        """The subscriptions with the most machines."""
        return self.all_shares[:MOST_SUBSCRIPTIONS]

    @property
    def hidden_shares(self) -> int:
        """How many subscriptions more there are."""
        return len(self.all_shares) - len(self.shares)

    @property
    def linux(self) -> int:
        """Machines of the last sync that run Linux."""
        return self.last.linux if self.last else 0

    @property
    def unnamed(self) -> int:
        """Machines of the last sync that do not say what they run."""
        return int(self.last.job.counts.get(RowProblem.OS_NOT_NAMED.value, 0)) if self.last else 0

    @property
    def unreadable(self) -> int:
        """Machines of the last sync that were left out for another reason."""
        skipped = int(self.last.job.counts.get(RowOutcome.SKIPPED.value, 0)) if self.last else 0
        return max(0, skipped - self.linux - self.unnamed)

    @property
    def stopped_text(self) -> str:
        """How many do not run: 1,000+ beyond 1,000."""
        return f"{self.stopped:,}" if self.stopped <= MOST_STOPPED else f"{MOST_STOPPED:,}+"

    @property
    def is_anything_left_alone(self) -> bool:
        """Whether there is a line to show."""
        return any((self.linux, self.unnamed, self.unreadable, self.unsupported, self.stopped))


def sync_of(connection: Connection) -> SyncPage:
    """The last time that a connection was asked for its machines, or the one under way, and what it has (three queries)."""
    found = InventorySync.objects.select_related("job__connection", "job__requested_by").filter(connection=connection)
    sync = found.first()
    place = "resource_group__subscription"
    counted = WordCount.objects.filter(connection=connection).values(
        *(f"{place}__{name}" for name in ("pk", "name", "subscription_id")), "update_status"
    )
    shares: dict[int, Share] = {}
    unsupported = 0
    for row in counted.annotate(count=Sum("machines")).filter(count__gt=0):
        key, count = row[f"{place}__pk"], row["count"]
        machines = count + (shares[key].machines if key in shares else 0)
        shares[key] = Share(row[f"{place}__name"], row[f"{place}__subscription_id"], key, machines)
        unsupported += count if row["update_status"] == UpdateStatus.UNSUPPORTED else 0
    here = VirtualMachine.objects.filter(connection=connection, gone_at=None, power_state__in=_NOT_RUNNING)
    return SyncPage(
        last=ImportPage(sync.job) if sync is not None and sync.job is not None else None,
        next_at=sync.next_at if sync is not None else None,
        all_shares=tuple(sorted(shares.values(), key=lambda share: (-share.machines, share.name, share.key))),
        unsupported=unsupported,
        stopped=len(here.order_by()[: MOST_STOPPED + 1].values_list("pk", flat=True)),
    )
