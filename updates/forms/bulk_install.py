"""“Install updates now” on many VMs: machines, updates, properties, review. What the review says is what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils import timezone

from db.bounded import ListTooSlowError
from patching.terms import InstallationPlan
from updates.forms.bulk import BulkWizard
from updates.forms.install import STEPS, InstallForm, PlanSteps, as_data
from updates.forms.rollouts import RolloutForm
from updates.selectors.eta import Eta, foretell
from updates.selectors.review import Load, Review, load_review
from updates.services.bulk import Share
from updates.services.rollouts import RolloutPlan
from vms.forms.confirm import CountForm
from vms.models import Connection

START = "start"
TYPED_FROM = 25  # so many machines are confirmed by typing their number, however they were chosen


class BulkInstallWizard(PlanSteps, BulkWizard):
    """The steps of “Install updates now” on many VMs; the first of them says which.

    Nothing is asked for that the review did not say: the form that confirms carries its mark.
    """

    template = "updates/bulk_install.html"
    steps = ("machines", *STEPS)

    def __init__(self, data: QueryDict, *, user: User, plan: InstallationPlan | None = None) -> None:
        """`plan`: what to begin with, at its review. So does `include` in an address: these KBs, and no class."""
        BulkWizard.__init__(self, data, user=user)
        self.is_too_slow = False
        sent: Mapping[str, Any] | None = data if {"go", "step"} & data.keys() else None
        if sent is None and plan is not None:
            sent = self._typed(InstallForm(plan=plan))
        elif sent is None and (included := data.getlist("include")):
            sent = self._typed(InstallForm()) | {"classifications": [], "kb_numbers_to_include": " ".join(included)}
        self._reviewed = str(data.get("reviewed", ""))
        self.begin(sent, act=START)

    @staticmethod
    def _typed(form: InstallForm) -> dict[str, Any]:
        return as_data(form) | {"go": "review", "ring_tag": "ring"}

    @cached_property
    def rollout_form(self) -> RolloutForm:
        """In which order the machines go."""
        return RolloutForm(self.sent, vms=self.asked.selection.vms)

    def has_errors(self, step: str) -> bool:
        """Whether a field of this step is wrong."""
        is_order_wrong = step == "properties" and self.rollout_form.is_bound and not self.rollout_form.is_valid()
        return is_order_wrong or super().has_errors(step)

    @property
    def travelling_order(self) -> list[forms.BoundField]:
        """The fields of the order while they are not on the page."""
        return [] if self.step == "properties" else list(self.rollout_form)

    @property
    def number(self) -> int:
        """The number of this step, from 1."""
        return self.steps.index(self.step) + 1

    @property
    def numbered(self) -> list[tuple[str, int]]:
        """The steps with their numbers."""
        return [(name, number) for number, name in enumerate(self.steps, start=1)]

    @property
    def previous(self) -> str:
        """The step before this one, if there is one."""
        return self.steps[self.number - 2] if self.number > 1 else ""

    @property
    def next(self) -> str:
        """The step after this one; after the last one itself."""
        return self.steps[min(self.number, len(self.steps) - 1)]

    # --- the review

    @cached_property
    def plan(self) -> InstallationPlan | None:
        """What was typed; None while a field is wrong."""
        return self.form.plan if self.form.is_bound and self.form.is_valid() else None

    @cached_property
    def review(self) -> Review | None:
        """What the plan does on the machines; None where there is no plan yet, or finding out takes too long."""
        if self.step != "review" or self.plan is None or not self.count:
            return None
        try:
            return load_review(
                self.asked.selection, self.plan, now=timezone.now(), without_role=self.asked.lacking_role
            )
        except ListTooSlowError:
            self.is_too_slow = True
            return None

    @property
    def is_stale(self) -> bool:
        """Whether something else than this review was confirmed."""
        return self.is_sent and self.review is not None and self._reviewed != self.review.mark

    @cached_property
    def count_form(self) -> CountForm | None:
        """The number of machines that take the plan is typed unless they are few and were ticked one by one."""
        started = self.review.started if self.review else 0
        if not started or (started < TYPED_FROM and not self.asked.is_all):
            return None
        is_typed = self.is_sent and not self.is_stale
        return CountForm(self.sent if is_typed else None, count=started)

    @cached_property
    def is_confirmed(self) -> bool:
        """Whether what is to be started is what was reviewed, all of it valid."""
        if not self.is_sent or self.review is None or not self.review.started:
            return False
        is_typed = self.count_form is None or self.count_form.is_valid()
        return self.form.is_valid() and self.rollout_form.is_valid() and is_typed and not (self.change or self.is_stale)

    @property
    def shares(self) -> tuple[Share, ...]:
        """What the review promised of which machines."""
        return tuple(Share(group.packed, group.promise) for group in self.review.groups) if self.review else ()

    @cached_property
    def rollout(self) -> RolloutPlan | None:
        """The rollout that valid fields ask for; None: everything at once."""
        is_valid = self.plan is not None and self.rollout_form.is_bound and self.rollout_form.is_valid()
        return self.rollout_form.spec(self.plan) if is_valid and self.plan else None

    @cached_property
    def eta(self) -> Eta | None:
        """How long it takes where everything starts at once."""
        if self.review is None or not self.review.started or self.rollout is not None:
            return None
        return foretell(self.review.loads, self.review.packed, now=timezone.now())

    @property
    def connections(self) -> list[tuple[Connection, Load]]:
        """The connections that carry it out, and what each gets (one query)."""
        loads = self.review.loads if self.review else {}
        return [(row, loads[row.pk]) for row in Connection.objects.filter(pk__in=loads).order_by("name")]

    @property
    def status(self) -> int:
        """422 for a step or a confirmation that was refused, and for a selection that cannot be read."""
        return 422 if self.is_held_back else super().status


def bulk_wizard(data: QueryDict, *, user: User) -> BulkWizard:
    """The page, or the steps, for what is asked of many machines."""
    kinds = set(data.getlist("kind"))
    return (BulkInstallWizard if kinds == {"installation"} else BulkWizard)(data, user=user)


def wizard_again(vm_ids: Sequence[int], plan: InstallationPlan, *, user: User) -> BulkInstallWizard:
    """The review of this plan on these machines."""
    data = QueryDict(mutable=True)
    data["kind"] = "installation"
    data.setlist("vm", [str(pk) for pk in vm_ids])
    return BulkInstallWizard(data, user=user, plan=plan)
