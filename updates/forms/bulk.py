"""Asking for the same on many VMs: one page for an assessment and a rollback; an installation has steps of its own."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from patching.restart import EXPECTED
from patching.rollback import RollbackOrder
from patching.terms import (
    InstallationPlan,
    OperationKind,
)
from updates.forms.install import InstallForm, RequestForm
from updates.forms.rollouts import RestartManyForm, RolloutForm, WayBackForm
from updates.selectors.restarts import judge_restarts
from updates.selectors.rollback import rollback_orders
from updates.services.bulk import Share
from updates.services.rollouts import RolloutPlan
from updates.texts import (
    ErrorText,
    Text,
    error_text,
)
from vms.choices import Role
from vms.forms.confirm import CountForm
from vms.selection import AskedSelection

BULK_KINDS: dict[OperationKind, Text] = {
    OperationKind.ASSESSMENT: _("Assess now"),
    OperationKind.INSTALLATION: _("Install updates now"),
    OperationKind.ROLLBACK: _("Roll back"),
    OperationKind.RESTART: _("Restart now"),
}
MAX_ROLLED_BACK = 1_000  # each is judged by itself before anything is asked for
# Whatever is asked for, a field of another kind beside it is no unknown one.
_FIELDS = {*InstallForm.base_fields, *RolloutForm.base_fields, *WayBackForm.base_fields, *RestartManyForm.base_fields}
_BESIDE = {"kind", "go", "step", "include", "reviewed", "operation"}


@dataclass(frozen=True, slots=True)
class RollbackGroup:
    """Machines that go the same way back, or that have none for the same reason."""

    order: RollbackOrder | None
    refusal: ErrorText | None
    count: int


@dataclass(frozen=True, slots=True)
class RestartGroup:
    """Machines that will be restarted, or that are refused for the same reason."""

    refusal: ErrorText | None
    count: int
    expected: timedelta = EXPECTED


class BulkWizard:
    """One page that asks for the same on many VMs: those that were ticked, or all that match the list's filters.

    Nothing ticked is no machine; all that match are asked for by `all=1` and confirmed by their number.
    """

    template = "updates/bulk_create.html"

    def __init__(self, data: QueryDict, *, user: User) -> None:
        self.asked_kinds = data.getlist("kind")
        kinds = set(self.asked_kinds)
        self.kind = OperationKind(kinds.pop()) if len(kinds) == 1 and kinds <= set(BULK_KINDS) else None
        self.asked = AskedSelection(
            data,
            user=user,
            role=Role.OPERATOR,
            others={*_BESIDE, *_FIELDS},
            several={"kind", "include", "operation", "classifications", "guard_overrides"},
            most=MAX_ROLLED_BACK if self.is_rollback else None,
        )
        self.count = self.asked.selection.count
        self.is_sent = data.get("go") == "start"
        self.change = self.asked.change if self.is_sent else None
        self._sent = data if self.is_sent else None

    @cached_property
    def form(self) -> RequestForm:
        """What every request has."""
        return RequestForm(self._sent)

    @cached_property
    def rollout_form(self) -> RolloutForm | WayBackForm | RestartManyForm | None:
        """In which order the machines go; an assessment has none."""
        if self.is_restart:
            return RestartManyForm(self._sent, count=self.restarting)
        return WayBackForm(self._sent, count=self.going_back) if self.is_rollback else None

    @cached_property
    def count_form(self) -> CountForm | None:
        """All that match are confirmed by their number. A rollback or restart is, by the number of those that it does it to."""
        has_own = self.is_rollback or self.is_restart
        return CountForm(self._sent, count=self.count) if self.asked.is_all and not has_own else None

    @cached_property
    def is_confirmed(self) -> bool:
        """Whether everything is as it must be for the request to be made."""
        # A list, since every form that is wrong is to say so.
        valid = [form.is_valid() for form in (self.form, self.rollout_form, self.count_form) if form is not None]
        return self.is_sent and self.kind is not None and all(valid) and self.change is None and self.count > 0

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """What can be asked of the machines: the address that asks for it, and its words."""
        asked = [("vm", str(pk)) for pk in self.asked.selection.ids] if not self.asked.is_all else self.asked.fields
        return [
            (urlencode([("kind", kind), *((name, value) for name, value in asked if name != "shown")]), str(words))
            for kind, words in BULK_KINDS.items()
        ]

    @property
    def bad_kind(self) -> str:
        """What was asked for and is nothing that many machines can be asked."""
        return ", ".join(self.asked_kinds)[:60] if self.kind is None else ""

    @property
    def chosen_by(self) -> dict[str, Any]:
        """How the machines were chosen, for people to read afterwards."""
        if not self.asked.is_all:
            return {"ticked": self.count}
        excepted = {"except": len(self.asked.excepted)} if self.asked.excepted else {}
        return {"filters": self.asked.filters} | excepted

    @property
    def is_installation(self) -> bool:
        """Whether it installs."""
        return self.kind is OperationKind.INSTALLATION

    @property
    def is_rollback(self) -> bool:
        """Whether it takes machines back."""
        return self.kind is OperationKind.ROLLBACK

    @property
    def is_restart(self) -> bool:
        """Whether it restarts machines."""
        return self.kind is OperationKind.RESTART

    @cached_property
    def restarts(self) -> tuple[RestartGroup, ...]:
        """What would become of the machines, those that are restarted first."""
        if not self.is_restart or not self.count:
            return ()
        found = Counter(judge_restarts(self.asked.selection.ids, now=timezone.now()).values())
        groups = [
            RestartGroup(error_text(refusal.value) if refusal else None, count)
            for refusal, count in found.most_common()
        ]
        return tuple(sorted(groups, key=lambda group: group.refusal is not None))

    @property
    def restarting(self) -> int:
        """How many machines would be restarted."""
        return sum(group.count for group in self.restarts if group.refusal is None)

    @cached_property
    def way_back(self) -> tuple[RollbackGroup, ...]:
        """What would become of the machines, the largest group first."""
        if not self.is_rollback or not self.count:
            return ()
        plans = rollback_orders(self.asked.selection.ids, now=timezone.now())
        groups = [
            RollbackGroup(plan, None, count)
            if isinstance(plan, RollbackOrder)
            else RollbackGroup(None, error_text(plan.value), count)
            for plan, count in Counter(plans.values()).most_common()
        ]
        return tuple(sorted(groups, key=lambda group: group.order is None))

    @property
    def going_back(self) -> int:
        """How many machines have a way back."""
        return sum(group.count for group in self.way_back if group.order)

    @property
    def request_id(self) -> uuid.UUID:
        """The id of the request: of a form that was sent twice, the same."""
        found: uuid.UUID = self.form.cleaned_data["request_id"]
        return found

    @property
    def plan(self) -> InstallationPlan | None:
        """What to install; nothing."""
        return None

    @property
    def shares(self) -> tuple[Share, ...]:
        """What a review promised of which machines; here there is none."""
        return ()

    @property
    def rollout(self) -> RolloutPlan | None:
        """The rollout that a confirmed form asks for; None: everything at once."""
        return self.rollout_form.spec if isinstance(self.rollout_form, WayBackForm | RestartManyForm) else None

    @property
    def status(self) -> int:
        """422 for a form that was sent and is wrong, and for a selection or kind that cannot be read."""
        is_wrong = bool(self.asked.problems) and not self.asked.is_nothing_ticked and not self.asked.is_role_missing
        return 422 if (self.is_sent and not self.is_confirmed) or is_wrong or self.bad_kind else 200
