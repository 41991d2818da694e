"""What waits for a person: paused rollouts to resume, questions of the hotpatch guard, own bulk requests that failed.

The top bar of every page has the number: one small query, and a second one only where something of the reader's own waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from connectors.registry import real_kinds
from patching.codes import ErrorCode
from updates.models import BulkRequest, Rollout, RolloutState
from updates.selectors.bulk import bulk_requests_of
from updates.selectors.decisions import Waiting as Question
from updates.selectors.decisions import load_news
from updates.selectors.rollouts import rollouts_of
from vms.choices import Role
from vms.models import Grants

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST = 99  # told as "99+" beyond
TOLD_FOR = timedelta(days=7)  # how long a failed bulk request waits to be seen to

# What may wait, before roles on single machines are asked: nearly always nothing does.
_MAY_WAIT = """
SELECT (
    SELECT count(*) FROM (
        SELECT 1 FROM updates_rollout
        WHERE status = %(paused)s AND (%(is_chief)s OR created_by_id = %(reader)s) LIMIT %(limit)s
    ) r
), (
    SELECT count(*) FROM (
        SELECT 1 FROM updates_bulkrequest
        WHERE requested_by_id = %(reader)s AND seen_at IS NULL AND finished_at IS NOT NULL AND finished_at > %(since)s
          AND (failed_count > 0 OR error_code = %(stopped)s) LIMIT %(limit)s
    ) b
), CASE WHEN %(decides)s THEN (
    SELECT COALESCE(jsonb_array_length(news->'waiting'), 0) FROM updates_wordsclock WHERE id = 1
) END, EXISTS (SELECT 1 FROM vms_connection WHERE kind = ANY(%(real)s::text[]))
"""


def paused_rollouts(user: User, grants: Grants) -> QuerySet[Rollout]:
    """The paused rollouts that the user may resume, the newest first."""
    return rollouts_of(user, Role.OPERATOR, grants=grants).filter(status=RolloutState.PAUSED)


def failed_bulk_requests(user: User, now: datetime) -> QuerySet[BulkRequest]:
    """The user's own bulk requests that ended with failures within a week, and that nobody has seen to."""
    failed = Q(failed_count__gt=0) | Q(error_code=ErrorCode.BULK_FAILED)
    rows = bulk_requests_of(user).filter(failed, requested_by=user, seen_at=None, finished_at__gt=now - TOLD_FOR)
    return rows.order_by("-finished_at")


class WaitingNumber:
    """How much waits for the reader of a page, and whether all machines are simulated; nothing is read before a template asks."""

    def __init__(self, user: User | AnonymousUser) -> None:
        self._user = user
        self._now = timezone.now()

    @cached_property
    def _grants(self) -> Grants | None:
        """The reader's roles; None if there are none."""
        grants = None if isinstance(self._user, AnonymousUser) else Grants.last_read(self._user)
        return grants if grants is not None and grants.rows else None

    @cached_property
    def _found(self) -> tuple[int, int, int, bool]:
        assert self._grants is not None
        assert not isinstance(self._user, AnonymousUser)
        return _may_wait(self._user, self._grants, self._now)

    @property
    def is_all_simulated(self) -> bool:
        """Whether no connection speaks to anything real; not told to who holds no role."""
        return self._grants is not None and not self._found[-1]

    @cached_property
    def count(self) -> int:
        """How much it is, 100 at most."""
        grants, user = self._grants, self._user
        if grants is None or isinstance(user, AnonymousUser):
            return 0
        rollouts, requests, questions, _is_real = self._found
        if not grants.at_least(Role.OWNER).are_of_everything:  # a role may be gone since
            rollouts = rollouts and _up_to(paused_rollouts(user, grants).count)
            requests = requests and _up_to(failed_bulk_requests(user, self._now).count)
        return min(rollouts + requests + questions, MOST + 1)

    @property
    def words(self) -> str:
        """The number as the top bar shows it."""
        return f"{MOST}+" if self.count > MOST else str(self.count)


def _may_wait(user: User, grants: Grants, now: datetime) -> tuple[int, int, int, bool]:
    parameters: dict[str, Any] = {
        "reader": user.pk,
        "is_chief": grants.at_least(Role.OWNER).are_of_everything,
        "decides": grants.at_least(Role.OPERATOR).are_of_everything,
        "paused": RolloutState.PAUSED.value,
        "stopped": ErrorCode.BULK_FAILED.value,
        "since": now - TOLD_FOR,
        "limit": MOST + 1,
        "real": real_kinds(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_MAY_WAIT, parameters)
        rollouts, requests, questions, is_real = cursor.fetchone()
    return rollouts, requests, questions or 0, is_real


def _up_to(count: Callable[[], int]) -> int:
    return min(count(), MOST + 1)


@dataclass(frozen=True, slots=True)
class WaitingPage:
    """What waits for a reader; at most 100 of each."""

    rollouts: tuple[Rollout, ...]
    requests: tuple[BulkRequest, ...]
    questions: tuple[Question, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.rollouts or self.requests or self.questions)


def waiting_page(*, reader: User, now: datetime) -> WaitingPage:
    """All that waits for this reader, in a fixed number of queries."""
    grants = Grants.last_read(reader)
    decides = grants.at_least(Role.OPERATOR).are_of_everything
    return WaitingPage(
        tuple(paused_rollouts(reader, grants)[: MOST + 1]),
        tuple(failed_bulk_requests(reader, now)[: MOST + 1]),
        load_news(reader).waiting[: MOST + 1] if decides else (),
    )
