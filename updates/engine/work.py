"""Working on a claim: decide what each of its operations needs next, speak to the connector, write what it answered."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar
from uuid import UUID

import structlog
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection

from connectors.protocol import (
    BucketNews,
    Capability,
    Connector,
    ConnectorError,
    Observation,
    Started,
    StartOutcome,
    StartRequest,
)
from db.arrays import array
from patching.codes import ErrorCode, EventCode
from patching.lifecycle import MAX_START_ATTEMPTS, Step, next_step, retry_delay
from patching.terms import OperationKind, OperationState
from updates.engine import record
from updates.engine.budget import WHOLE, tell
from updates.engine.claim import Claim, held_rows
from updates.engine.kinds import HANDLERS, is_answer
from updates.engine.pace import keep_pace
from updates.engine.rows import COLUMNS, SOURCE, ClaimedRow
from updates.engine.telemetry import Called, count_call
from updates.engine.transition import transition, write_events
from updates.models import Operation, Priority
from updates.selectors.catalogue import LoadedCatalogue
from updates.selectors.vm_facts import load_vm_facts

log = structlog.get_logger(__name__)

S = OperationState
A = TypeVar("A")
Observed = tuple[ClaimedRow, Observation | ConnectorError]
Seen = Sequence[tuple[ClaimedRow, Observation]]
# What the connector left in the queue although there was time is asked again after this long.
DECLINED = timedelta(seconds=2)
UNREADABLE = ConnectorError(ErrorCode.CONNECTOR_GARBAGE, is_retryable=True)
NEVER_ARRIVED = ConnectorError(ErrorCode.CONNECTOR_UNREACHABLE)

_READ = f"SELECT {COLUMNS} FROM {SOURCE} WHERE o.id = ANY(%s::uuid[]) AND o.next_step_at IS NOT NULL"  # noqa: S608 (ours)


class Requests(Iterator[StartRequest]):
    """The starts of a claim as their connector draws them: none any more once the time for sending is over.

    What was drawn counts as sent until it is answered; what was not drawn was not sent.
    """

    def __init__(self, rows: Sequence[ClaimedRow], claim: Claim) -> None:
        self._rows = iter(rows)
        self._claim = claim
        self._is_closed = False
        self._dry: set[str] = set()
        self._passed_over: list[ClaimedRow] = []
        self.drawn: dict[UUID, ClaimedRow] = {}

    def __next__(self) -> StartRequest:
        while not self._is_closed and not self._claim.is_over:
            row = next(self._rows)
            if self._dry and self._dry & {WHOLE, row.bucket}:
                self._passed_over.append(row)
                continue
            self.drawn[row.pk] = row
            return row.start_request()
        raise StopIteration

    def rest(self, buckets: Collection[str]) -> None:
        """Hand out nothing more of these buckets: they have run dry."""
        self._dry.update(buckets)

    def close(self) -> list[ClaimedRow]:
        """Hand out nothing more; what was never drawn."""
        self._is_closed = True
        return [*self._passed_over, *self._rows]


class Work:
    """One worker's work on one claim, with the connector of its connection."""

    def __init__(self, claim: Claim, connector: Connector, catalogue: LoadedCatalogue) -> None:
        self.claim = claim
        self.connector = connector
        self.catalogue = catalogue
        self._sent: set[UUID] = set()  # drawn by the connector under this claim
        self._unreadable: set[UUID] = set()  # answered in a way that nobody can read or keep
        self._seconds: defaultdict[str, float] = defaultdict(float)  # spent in calls, by call
        self._counts: Counter[str] = Counter()  # operations that they were for

    def do(self) -> int:
        """Step every operation of the claim; how many. One that cannot be stepped stays leased and is due again by itself.

        They go together; if that fails, one by one, so that one bad row stops no other.
        """
        rows = self.claim.rows
        try:
            self._step(rows)
        except Exception:
            log.exception("operation_batch_failed", connection_id=self.claim.connection_id, count=len(rows))
            self._step_each(rows)
        self._keep_pace()
        return len(rows)

    def _step_each(self, rows: Sequence[ClaimedRow]) -> None:
        unsent = {row.pk for row in rows if row.is_unsent} - self._sent
        with connection.cursor() as cursor:
            cursor.execute(_READ, [array(row.pk for row in rows)])
            fresh = [ClaimedRow.of(row) for row in cursor.fetchall()]
        for number, row in enumerate(fresh):
            if self.claim.is_over:
                self._hand_back(
                    [left for left in fresh[number:] if left.pk in unsent and left.state is S.STARTING], timedelta(0)
                )
                return
            try:
                self._step([row._replace(is_unsent=row.state is S.STARTING and row.pk in unsent)])
            except Exception:
                log.exception("operation_step_failed", operation_id=str(row.pk))

    def _step(self, rows: Sequence[ClaimedRow]) -> None:
        self._fail_unreadable([row for row in rows if row.problem])
        rows = [row for row in rows if not row.problem]
        facts = load_vm_facts({row.vm_id for row in rows}, self.catalogue)
        batches: dict[Step, list[ClaimedRow]] = defaultdict(list)
        # A start that is sent again is a start: what a freeze holds is asked after, or stays unconfirmed.
        held = held_rows([row for row in rows if row.state is S.STARTING and not row.is_unsent], self.claim.now)
        for row in rows:
            if row.vm_id not in facts:
                continue  # the VM was removed, and its operations with it
            step = next_step(
                S.QUEUED if row.is_unsent else row.state,
                is_past_deadline=row.is_past_deadline,
                can_resend=Capability.IDEMPOTENT_START in self.connector.capabilities and row.pk not in held,
                can_find=Capability.FIND_BY_REQUEST in self.connector.capabilities,
            )
            batches[step].append(row._replace(facts=facts[row.vm_id]))
        # Rows that are back in the queue after a batch that failed are passed over here; the next claim takes them.
        starts = self._not_gone([row for row in batches[Step.START] if row.is_unsent])
        starts = self._still_needed(starts)
        self._send([row for row in starts if row.priority == Priority.INTERACTIVE])
        self._give_up(batches[Step.GIVE_UP_UNCONFIRMED], ErrorCode.START_UNCONFIRMED)
        self._find(batches[Step.RECOVER_BY_FIND])
        self._resend(batches[Step.RECOVER_BY_RESEND])
        self._observe(batches[Step.OBSERVE])
        self._observe_last(batches[Step.OBSERVE_LAST])
        self._send([row for row in starts if row.priority != Priority.INTERACTIVE])

    def _fail_unreadable(self, rows: Sequence[ClaimedRow]) -> None:
        """End what nobody can tell how to do or how to look at. What has begun may have changed its machine already."""
        for is_begun in (False, True):
            record.fail(
                [
                    (row, ConnectorError(ErrorCode.PAYLOAD_UNREADABLE, row.problem))
                    for row in rows
                    if row.is_unsent is not is_begun
                ],
                now=self.claim.present,
                leased_until=self.claim.leased_until,
                is_silent=is_begun,
            )

    # --- starting

    def _not_gone(self, rows: list[ClaimedRow]) -> list[ClaimedRow]:
        """End what no person asked for on machines that are gone since it was queued; the rest may be started."""
        gone = {row.pk: row for row in rows if row.facts is not None and row.facts.is_gone}
        if not gone:
            return rows
        own = set(
            Operation.objects.filter(pk__any=array(gone), requested_by=None).order_by().values_list("pk", flat=True)
        )
        refusal = ConnectorError(ErrorCode.VM_GONE)
        record.fail(
            [(gone[pk], refusal) for pk in sorted(own)], now=self.claim.present, leased_until=self.claim.leased_until
        )
        return [row for row in rows if row.pk not in own]

    def _still_needed(self, rows: Sequence[ClaimedRow]) -> list[ClaimedRow]:
        """End restarts of machines whose reboot is no longer pending: something else restarted them since it was queued."""
        needless = [row for row in rows if row.kind is OperationKind.RESTART and not row.vm.ref.is_reboot_pending]
        refusal = ConnectorError(ErrorCode.RESTART_NOT_NEEDED)
        record.fail([(row, refusal) for row in needless], now=self.claim.present, leased_until=self.claim.leased_until)
        ended = {row.pk for row in needless}
        return [row for row in rows if row.pk not in ended]

    def _send(self, rows: Sequence[ClaimedRow], *, is_recovery: bool = False) -> None:
        """Let the connector draw starts as long as there is time, and record each answer before it may send more.

        What it drew and did not answer stays in `starting`, to be recovered. What it never drew was not sent.
        """
        if not rows:
            return
        requests = Requests(rows, self.claim)
        answered: set[UUID] = set()
        try:
            for chunk in self._started(requests):
                answers = self._vouched(chunk, requests, answered)
                answered.update(row.pk for row, _answer in answers)
                requests.rest(self._tell_budgets(answers))
                if is_recovery:
                    answers = self._counted(answers)
                prompt = record.record_starts(
                    answers,
                    now=self.claim.present,
                    leased_until=self.claim.leased_until,
                    can_find=Capability.FIND_BY_REQUEST in self.connector.capabilities and not is_recovery,
                )
                self._observe_at_once(prompt)
        finally:
            self._sent.update(requests.drawn)
        never_drawn = requests.close()
        doubtful = [row for pk, row in requests.drawn.items() if pk not in answered]
        if is_recovery:
            doubtful = record.count_attempt(doubtful) if doubtful else []
            # These may have been sent by a worker that died: they wait for recovery, not in the queue.
            record.postpone([row.pk for row in never_drawn], S.STARTING, self.claim.present)
        else:
            self._hand_back(never_drawn, timedelta(0) if self.claim.is_over else DECLINED)
        record.leave_in_doubt(doubtful, now=self.claim.present, leased_until=self.claim.leased_until)

    def _started(self, requests: Requests) -> Iterator[object]:
        """The chunks that the connector yields, until it ends or fails."""
        spent, outcome = 0.0, "answered"
        try:
            chunks = iter(self.connector.start(requests, now=self.claim.present, until=self.claim.until))
            while True:
                began = time.monotonic()
                try:
                    chunk = next(chunks)
                except StopIteration:
                    break
                finally:
                    spent += time.monotonic() - began
                yield chunk
        except Exception:
            outcome = "failed"
            log.exception("start_failed", connection_id=self.claim.connection_id)
        finally:
            self._count("start", outcome, len(requests.drawn), spent)

    def _vouched(self, chunk: object, requests: Requests, answered: set[UUID]) -> list[tuple[ClaimedRow, StartOutcome]]:
        """Those answers of a chunk that the protocol allows. Everything else says nothing about anybody."""
        try:
            pairs = [(request_id, answer) for request_id, answer in chunk]  # type: ignore[attr-defined]  # it may be anything
        except (TypeError, ValueError):
            log.error("start_answer_unreadable", connection_id=self.claim.connection_id, answer=repr(chunk)[:200])
            return []
        often = Counter(request_id for request_id, _answer in pairs if isinstance(request_id, UUID))
        good: list[tuple[ClaimedRow, StartOutcome]] = []
        bad: list[str] = []
        for request_id, answer in pairs:
            row = requests.drawn.get(request_id) if isinstance(request_id, UUID) else None
            if row is None or request_id in answered or often[request_id] > 1 or not _is_start_outcome(answer):
                bad.append(f"{request_id!r:.60}: {answer!r:.100}")
            else:
                good.append((row, answer))
        if bad:
            log.error("start_answers_refused", connection_id=self.claim.connection_id, count=len(bad), first=bad[0])
        return good

    def _counted(self, answers: list[tuple[ClaimedRow, StartOutcome]]) -> list[tuple[ClaimedRow, StartOutcome]]:
        """These answers with one attempt more, but for those that a budget refused."""
        refused: list[tuple[ClaimedRow, StartOutcome]] = []
        others: list[tuple[ClaimedRow, StartOutcome]] = []
        for row, answer in answers:
            is_refused = isinstance(answer, ConnectorError) and answer.bucket is not None
            (refused if is_refused else others).append((row, answer))
        rows = record.count_attempt([row for row, _answer in others]) if others else []
        return [*refused, *((row, answer) for row, (_row, answer) in zip(rows, others, strict=True))]

    def _tell_budgets(self, answers: Sequence[tuple[ClaimedRow, object]]) -> set[str]:
        """Keep what answers say about the budgets of their operations; the names of those that have run dry."""
        news: list[BucketNews] = []
        for row, answer in answers:
            if isinstance(answer, Started):
                news += [one for one in answer.news if one.name in {WHOLE, row.bucket}]
            elif isinstance(answer, ConnectorError) and answer.bucket is not None and record.shares_budget(row, answer):
                news.append(BucketNews(answer.bucket, is_dry=True, retry_after=answer.retry_after))
        if news:
            tell(self.claim.connection_id, news, self.claim.present)
        return {one.name for one in news if one.is_dry}

    def _hand_back(self, rows: Sequence[ClaimedRow], delay: timedelta) -> None:
        """What was not sent goes back to the queue as if nothing had happened."""
        record.requeue(
            [(row, delay) for row in rows],
            "",
            now=self.claim.present,
            leased_until=self.claim.leased_until,
            is_attempt=False,
        )

    def _resend(self, rows: Sequence[ClaimedRow]) -> None:
        """Found in `starting` after its lease: a worker died. The connector starts nothing twice for one request id."""
        tired = [row for row in rows if row.attempts >= MAX_START_ATTEMPTS]
        self._give_up(tired, ErrorCode.START_UNCONFIRMED)
        fresh = [row for row in rows if row.attempts < MAX_START_ATTEMPTS]
        write_events(
            (row.pk, self.claim.now, EventCode.RECOVERED, S.STARTING, {})
            for row in fresh
            if row.kind.changes_the_machine
        )
        self._send(fresh, is_recovery=True)

    def _find(self, rows: Sequence[ClaimedRow]) -> None:
        """Found in `starting`, and the connector would start it a second time: ask whether the first start arrived.

        What is not answered stays in doubt until its deadline. What never arrives, however often it is sent, ends.
        """
        for chunk in self._in_time(rows):
            pairs = self._found_all_or_each(chunk)
            told = {row.pk for row, _answer in pairs}
            never_sent = [row for row, answer in pairs if answer is None]
            record.requeue(
                [(row, timedelta(0)) for row in never_sent if row.attempts < MAX_START_ATTEMPTS],
                "",
                now=self.claim.present,
                leased_until=self.claim.leased_until,
            )
            record.fail(
                [(row, NEVER_ARRIVED) for row in never_sent if row.attempts >= MAX_START_ATTEMPTS],
                now=self.claim.present,
                leased_until=self.claim.leased_until,
            )
            good = [(row, answer) for row, answer in pairs if answer is not None]
            good += [(row, UNREADABLE) for row in chunk if row.pk not in told]
            prompt = record.record_starts(
                good, now=self.claim.present, leased_until=self.claim.leased_until, can_find=True
            )
            self._observe_at_once(prompt)

    def _found_all_or_each(self, rows: Sequence[ClaimedRow]) -> list[tuple[ClaimedRow, StartOutcome | None]]:
        """What `find` says of all of them; if the connector chokes on one, of each alone. What cannot be read is left out."""
        asked = [row.start_request() for row in rows]
        try:
            answers = self._called("find", len(rows), partial(self.connector.find, asked, now=self.claim.present))
            pairs = list(zip(rows, answers, strict=True))
        except Exception:
            log.exception("find_failed", connection_id=self.claim.connection_id, count=len(rows))
            each = rows if len(rows) > 1 and not self.claim.is_over else ()
            return [pair for row in each for pair in self._found_all_or_each([row])]
        return [(row, answer) for row, answer in pairs if answer is None or _is_start_outcome(answer)]

    def _give_up(self, rows: Sequence[ClaimedRow], code: str) -> None:
        record.give_up(rows, code, now=self.claim.present, leased_until=self.claim.leased_until)

    # --- looking

    def _observe(self, rows: Sequence[ClaimedRow]) -> None:
        for chunk in self._in_time(rows):
            self._record_observed(self._observe_all_or_each(chunk))

    def _observe_last(self, rows: Sequence[ClaimedRow]) -> None:
        """Observe once more what is past its deadline (the portal may have been stopped); what has no end is silent."""
        for chunk in self._in_time(rows):
            observed = self._observe_all_or_each(chunk)
            ends = [(row, answer) for row, answer in observed if _is_end(answer)]
            self._record_observed(ends)
            ended = {row.pk for row, _answer in ends} - self._unreadable
            left = [row for row in chunk if row.pk not in ended]
            self._give_up([row for row in left if row.pk in self._unreadable], ErrorCode.CONNECTOR_GARBAGE)
            self._give_up([row for row in left if row.pk not in self._unreadable], ErrorCode.CONNECTOR_SILENT)

    def _observe_at_once(self, rows: Sequence[ClaimedRow]) -> None:
        """Observe what has just been started, under the same claim; without time for it the next observation will tell."""
        if not rows:
            return
        observed = [] if self.claim.is_over else self._observe_all_or_each(rows)
        ended = {row.pk for row, answer in observed if isinstance(answer, Observation) and answer.is_final}
        running = [row for row in rows if row.kind is OperationKind.ASSESSMENT and row.pk not in ended]
        now = self.claim.present
        # They stay claimed until what was seen is written.
        transition(changes=[record.started_change(row, row.handle, None) for row in running], now=now)
        under_way = {row.pk: row.in_progress() for row in running}
        self._record_observed([(under_way.get(row.pk, row), answer) for row, answer in observed])
        # An end that could not be kept: it has been taken all the same, and its deadline ends it if no other look does.
        unkept = [row for row in rows if row.kind is OperationKind.ASSESSMENT and row.pk in ended & self._unreadable]
        transition(changes=[record.started_change(row, row.handle, now + retry_delay(1)) for row in unkept], now=now)
        seen = {row.pk for row, _answer in observed}
        if unseen := [row.pk for row in rows if row.pk not in seen]:
            record.postpone(unseen, S.IN_PROGRESS, now + (retry_delay(1) if observed else timedelta(0)))

    def _observe_all_or_each(self, rows: Sequence[ClaimedRow]) -> list[Observed]:
        """Observe all of them; if the connector chokes on one, at each alone. What cannot be read is left out."""
        try:
            return self._ask_observe(rows)
        except Exception:
            log.exception("observe_failed", connection_id=self.claim.connection_id, count=len(rows))
        observed: list[Observed] = []
        for row in rows if len(rows) > 1 else ():
            if self.claim.is_over:
                break
            try:
                observed += self._ask_observe([row])
            except Exception:
                log.exception("observe_failed", operation_id=str(row.pk))
        return observed

    def _ask_observe(self, rows: Sequence[ClaimedRow]) -> list[Observed]:
        asked = [row.observe_request() for row in rows]
        answers = self._called("observe", len(rows), partial(self.connector.observe, asked, now=self.claim.present))
        pairs = list(zip(rows, answers, strict=True))
        good: list[Observed] = [
            (row, answer)
            for row, answer in pairs
            if _is_error(answer) or (isinstance(answer, Observation) and is_answer(row, answer))
        ]
        if len(good) < len(pairs):
            log.error("looks_refused", connection_id=self.claim.connection_id, count=len(pairs) - len(good))
        self._unreadable.update({row.pk for row, _answer in pairs} - {row.pk for row, _answer in good})
        return good

    def _record_observed(self, observed: Sequence[Observed]) -> None:
        now = self.claim.present
        running: list[tuple[ClaimedRow, Observation]] = []
        ended: dict[OperationKind, list[tuple[ClaimedRow, Observation]]] = defaultdict(list)
        later: dict[tuple[OperationState, timedelta], list[UUID]] = defaultdict(list)
        lost: list[tuple[ClaimedRow, ConnectorError]] = []
        self._tell_budgets(observed)
        for row, answer in observed:
            if isinstance(answer, Observation):
                (ended[row.kind] if answer.is_final else running).append((row, answer))
            elif answer.is_retryable:
                later[row.state, record.until_next_try(row.attempts, answer.retry_after)].append(row.pk)
            else:
                lost.append((row, answer))
        for (state, delay), pks in later.items():
            record.postpone(pks, state, now + delay)
        self._write_all_or_each(partial(record.follow, now=now), running)
        for kind, ends in ended.items():
            self._write_all_or_each(partial(HANDLERS[kind].finish, catalogue=self.catalogue, now=now), ends)
        record.fail(lost, now=now, leased_until=self.claim.leased_until, is_silent=True)

    def _write_all_or_each(self, write: Callable[[Seen], object], seen: Seen) -> None:
        """Write all of it; if that fails, each alone. What cannot be written even so is no answer: another look is due.

        `write` is atomic. What is wrong with the database says nothing about an answer.
        """
        if not seen:
            return
        try:
            write(seen)
        except Exception as error:
            if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, DataError | IntegrityError):
                raise
            log.exception("answer_not_kept", connection_id=self.claim.connection_id, count=len(seen))
            if len(seen) == 1:
                self._unreadable.add(seen[0][0].pk)
                return
            for one in seen:
                self._write_all_or_each(write, [one])

    # --- calls and their time

    def _in_time(self, rows: Sequence[ClaimedRow]) -> Iterator[list[ClaimedRow]]:
        """These rows in chunks of what one call takes, as long as there is time; the rest is due again at once."""
        left = iter(rows)
        size = max(1, self.claim.pace.chunk)
        while chunk := list(islice(left, size)):
            if self.claim.is_over:
                by_state: dict[OperationState, list[UUID]] = defaultdict(list)
                for row in [*chunk, *left]:
                    by_state[row.state].append(row.pk)
                for where, pks in by_state.items():
                    record.postpone(pks, where, self.claim.present)
                return
            yield chunk

    def _called(self, name: str, count: int, call: Callable[[], A]) -> A:
        began, outcome = time.monotonic(), "failed"
        try:
            answers = call()
            outcome = "answered"
            return answers
        finally:
            self._count(name, outcome, count, time.monotonic() - began)

    def _count(self, name: str, outcome: str, count: int, seconds: float) -> None:
        count_call(Called(self.claim.connection_id, name, outcome, count, seconds))
        self._seconds[name] += seconds
        self._counts[name] += count

    def _keep_pace(self) -> None:
        """Keep what a start and a look took, for the next claim."""
        took = {name: self._seconds[name] / count for name, count in self._counts.items() if count}
        keep_pace(
            self.claim.connection_id,
            self.claim.pace,
            self.claim.present,
            start=took.get("start"),
            look=took.get("observe"),
        )


def _is_error(answer: object) -> bool:
    """Whether this is an error, in words that can be kept."""
    return (
        isinstance(answer, ConnectorError) and isinstance(answer.detail, str) and isinstance(answer.bucket, str | None)
    )


def _is_start_outcome(answer: object) -> bool:
    """Whether this says what became of a start, in words that can be kept."""
    return _is_error(answer) or (
        isinstance(answer, Started)
        and isinstance(answer.handle, str)
        and all(isinstance(one, BucketNews) for one in answer.news)
        and isinstance(answer.look_again_after, int | float)
        and math.isfinite(answer.look_again_after)
    )


def _is_end(answer: Observation | ConnectorError) -> bool:
    """Whether nothing more is to come: a result, or an error for good."""
    return answer.is_final if isinstance(answer, Observation) else not answer.is_retryable
