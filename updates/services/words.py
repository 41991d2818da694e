"""The stored words follow the clock, the catalogue and the facts: one pass of the tick, in bounded blocks.

Three things make words due: an assessment grows too old, a release or a Patch Tuesday comes (or the catalogue changes),
and facts of a VM change. Each is found through an index or by digests; where nothing is due nothing is read of VMs. The next
reboots follow from the words and are told after them (`updates.services.outlooks`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction

from audit.services import Act, record
from audit.tags import Tag
from db.arrays import array
from patching.status import ASSESSMENT_IS_VALID_FOR
from updates.models import PatchSet, WordsClock
from updates.selectors.decisions import find_news
from updates.selectors.words import Reading, Words, digests, read_for_judging
from updates.services.outlooks import tell_outlooks
from vms.services.counters import fold_counters
from vms.services.summaries import VmSummary, record_summaries

log = structlog.get_logger(__name__)

BLOCK = 5_000
# An assessment that was judged before a release came may be written after the pass has seen its VM: who was judged is
# judged once more when every transaction of that time is over (a step ends within the lease, 90 s).
ONCE_MORE_AFTER = timedelta(minutes=3)


def refresh_words(*, now: datetime, seconds: float = 20.0) -> int:
    """Bring the words of every VM up to this moment, and the counters with them; how many VMs changed.

    Stops after `seconds` and goes on where it was at the next call. Where nothing is due it costs a few small reads.
    """
    ends_at = time.monotonic() + seconds
    work = _Work(now, ends_at)
    changed = work.due_vms() + work.aged_vms() + work.judged_vms()
    are_folded = fold_counters()
    reboots = tell_outlooks(now=now, is_over=lambda: work.is_over)
    work.tell_news(is_moved=bool(changed) or are_folded)
    if changed or reboots:
        log.info("words_refreshed", vms=changed, reboots=reboots, finished=time.monotonic() < ends_at)
    return changed


def follow_changes(*, now: datetime, seconds: float = 5.0) -> int:
    """Bring the words of those VMs up to date whose facts were changed, soon after it happened; how many VMs changed.

    It is meant to be called every few seconds: where no fact was changed it costs one look into a partial index. Counters,
    next reboots and news follow at the next `refresh_words`.
    """
    if not _ids(_DUE, [1]):
        return 0
    changed = _Work(now, time.monotonic() + seconds).due_vms()
    log.info("words_followed", vms=changed)
    return changed


class _Work:
    """One call's work. What VMs are judged by is read when the first block needs it."""

    def __init__(self, now: datetime, ends_at: float) -> None:
        self.now, self.ends_at = now, ends_at
        self.clock = WordsClock.objects.get_or_create(pk=1)[0]
        self.digests = digests(now)
        self._reading: Reading | None = None
        self._judged: dict[Any, Words] = {}

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    # --- facts that changed

    def due_vms(self) -> int:
        """VMs whose facts were changed: marked by a trigger, found through a partial index."""
        changed = 0
        while not self.is_over and (ids := _ids(_DUE, [BLOCK])):
            with transaction.atomic():
                _hold_assessments(ids)
                with connection.cursor() as cursor:
                    cursor.execute(_CLEAR, [array(ids)])
                changed += self._write_words(ids, are_held=True)
        return changed

    # --- assessments that grow old

    def aged_vms(self) -> int:
        """VMs whose assessment came to its seventh day since the last call (or, if the clock went back, is younger)."""
        until = self.clock.aged_until or _oldest_assessment()
        if until is None or until == self.now:
            _keep(aged_until=self.now)
            return 0
        changed = 0
        place, end = (moment - ASSESSMENT_IS_VALID_FOR for moment in sorted((until, self.now)))
        while not self.is_over:
            with connection.cursor() as cursor:
                cursor.execute(_AGED, [place, end, BLOCK])
                rows = cursor.fetchall()
            if not rows:
                _keep(aged_until=self.now)
                break
            with transaction.atomic():
                changed += self._write_words([row[0] for row in rows])
                place = rows[-1][1] + timedelta(microseconds=1)
                if until < self.now:
                    _keep(aged_until=place + ASSESSMENT_IS_VALID_FOR)
        return changed

    # --- releases, Patch Tuesdays, catalogues, connections

    def judged_vms(self) -> int:
        """VMs of the connections and product lines whose digest is not what they were judged by."""
        wanted = self.digests
        clock = self.clock
        due = {pair: digest for pair, digest in wanted.items() if self._is_due(clock.judged.get(pair), digest)}
        if not due:
            return 0
        if clock.passing != due:  # another digest than that of the pass that is under way: begin anew
            clock.passing, clock.cursor = due, 0
            _keep(passing=due, cursor=0)
        changed = 0
        pairs = [pair.split(":") for pair in due]
        connections, lines = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        while not self.is_over:
            with transaction.atomic():
                ids = _ids(_PASSED, [array(connections), lines, clock.cursor, BLOCK])
                changed += self._write_words(ids)
                if len(ids) < BLOCK:
                    _keep(passing={}, cursor=0, judged=self._after(clock.judged, wanted, due))
                    break
                clock.cursor = ids[-1]
                _keep(cursor=clock.cursor)
        return changed

    def _is_due(self, judged: list[str] | None, digest: str) -> bool:
        if judged is None or judged[0] != digest:
            return True
        if not judged[1]:
            return False
        again_at = datetime.fromisoformat(judged[1])
        return not again_at - ONCE_MORE_AFTER <= self.now < again_at

    def _after(self, judged: dict[str, list[str]], wanted: dict[str, str], due: dict[str, str]) -> dict[str, list[str]]:
        """What is judged once the pass is over; connections that are gone drop out."""
        again_at = (self.now + ONCE_MORE_AFTER).isoformat()
        after = {}
        for pair, digest in wanted.items():
            before = judged.get(pair)
            if pair not in due:
                after[pair] = before or [digest, ""]
            else:
                after[pair] = [digest, again_at if before is None or before[0] != digest else ""]
        return after

    # --- what pages tell of the fleet

    def tell_news(self, *, is_moved: bool) -> None:
        """Keep how old the catalogue is and what waits for a decision, where it is not what was told.

        It is asked where words moved, the catalogue or the clock did, a new combination of updates was offered, and
        every ten minutes.
        """
        newest = PatchSet.objects.order_by("-pk").values_list("pk", flat=True).first()
        cause = hashlib.sha256(repr((sorted(self.digests.items()), newest)).encode()).hexdigest()[:16]
        if not is_moved and cause == self.clock.news.get("cause") and self.now.minute % 10:
            return
        news = json.loads(json.dumps(find_news(self.now) | {"cause": cause}))
        if news != self.clock.news:
            with transaction.atomic():
                _tell_new_questions(self.clock.news, news)
                _keep(news=news)

    # --- writing

    def _write_words(self, ids: Sequence[int], *, are_held: bool = False) -> int:
        """Write the words of those of these VMs that differ. They are read again once no assessment can meet them."""
        if not ids:
            return 0
        if self._reading is None:
            self._reading = read_for_judging(self.now)
        found = self._reading.differing(ids, judged=self._judged)
        if found and not are_held:
            again = [row.vm_id for row in found]
            _hold_assessments(again)
            found = self._reading.differing(again, judged=self._judged)
        return record_summaries(
            summaries=[
                VmSummary(
                    vm_id=row.vm_id,
                    product_line=row.judged.product_line,
                    update_status=row.judged.update_status,
                    critical_and_security_count=row.critical_and_security_count,
                    other_count=row.other_count,
                    is_reboot_pending=row.is_reboot_pending,
                    hotpatch_status=row.judged.hotpatch_status,
                    hotpatch_track=row.judged.hotpatch_track,
                    patch_set=row.patch_set,
                )
                for row in found
            ]
        )


_DUE = "SELECT id FROM vms_virtualmachine WHERE are_words_due ORDER BY id LIMIT %s"
_CLEAR = "UPDATE vms_virtualmachine SET are_words_due = false WHERE id = ANY(%s::bigint[])"
# By the index of freshness; all that were assessed at one moment come together.
_AGED = """
SELECT vm_id, last_assessed_at FROM updates_vmupdatestate WHERE last_assessed_at >= %s AND last_assessed_at < %s
ORDER BY last_assessed_at FETCH FIRST %s ROWS WITH TIES
"""
_PASSED = """
SELECT v.id FROM vms_virtualmachine v
JOIN unnest(%s::bigint[], %s::text[]) AS due(connection_id, product_line)
    ON due.connection_id = v.connection_id AND due.product_line = v.product_line
WHERE v.id > %s ORDER BY v.id LIMIT %s
"""


def _ids(sql: str, parameters: Sequence[Any]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [row[0] for row in cursor.fetchall()]


def _hold_assessments(vm_ids: Collection[int]) -> None:
    """Until this transaction ends no assessment of these VMs is written; those that were being written are now there.

    Assessments write this table before the VMs, in the same order.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT vm_id FROM updates_vmupdatestate WHERE vm_id = ANY(%s::bigint[]) ORDER BY vm_id FOR NO KEY UPDATE",
            [array(vm_ids)],
        )


def _oldest_assessment() -> datetime | None:
    """Where the clock begins that has never run: no assessment is older."""
    found: datetime | None
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(last_assessed_at) FROM updates_vmupdatestate")
        (found,) = cursor.fetchone()
    return found + ASSESSMENT_IS_VALID_FOR if found else None


def _tell_new_questions(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Keep which updates wait for a decision that did not before."""
    asked = {(line, kb) for line, kb, *_rest in before.get("waiting", ())}
    new = [item for item in after.get("waiting", ()) if (item[0], item[1]) not in asked]
    record(
        acts=[
            Act(Tag.GUARD_WAIT, f"{line}:{kb}", f"KB{kb}", is_public=True, detail={"machines": machines})
            for line, kb, _title, _published, _reason, machines, _sets in new
        ]
    )


def _keep(**values: Any) -> None:
    WordsClock.objects.filter(pk=1).update(**values)
