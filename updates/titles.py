"""What a run on many machines is called: by its plan, where nobody gave it a name."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from patching.terms import Classification, InstallationPlan, OperationKind
from ui.charts import number_words
from updates.choices import CLASSIFICATIONS
from updates.models import BulkRequest, Rollout
from updates.plans import PlanError, plan_from_json

MOST_KBS = 2  # named in a title


def title_of(run: BulkRequest | Rollout) -> str:
    """The name that a person gave it, else what it does on how many machines."""
    if isinstance(run, Rollout) and run.name:
        return run.name
    return title_by_plan(run)


def title_by_plan(run: BulkRequest | Rollout) -> str:
    """What it does on how many machines."""
    return plan_title(run.kind, _plan(run), run.vm_count)


def plan_title(kind: str, plan: InstallationPlan | None, count: int) -> str:
    """What a run of this kind and plan (None: it has none, or it cannot be read) does on so many machines."""
    known = OperationKind(kind)
    machines = {"count": number_words(count)}
    if known is OperationKind.INSTALLATION:
        words = ngettext("Install %(what)s on %(count)s machine", "Install %(what)s on %(count)s machines", count)
        return words % (machines | {"what": _what(plan)})
    if known is OperationKind.ASSESSMENT:
        return ngettext("Assess %(count)s machine", "Assess %(count)s machines", count) % machines
    if known is OperationKind.ROLLBACK:
        return ngettext("Roll back %(count)s machine", "Roll back %(count)s machines", count) % machines
    if known is OperationKind.RESTART:
        return ngettext("Restart %(count)s machine", "Restart %(count)s machines", count) % machines
    return ngettext("Change settings of %(count)s machine", "Change settings of %(count)s machines", count) % machines


def _plan(run: BulkRequest | Rollout) -> InstallationPlan | None:
    try:
        return plan_from_json(run.plan or {})
    except PlanError:
        return None


def _what(plan: InstallationPlan | None) -> str:
    if plan is None:
        return _("updates")
    named = plan.kb_numbers_to_include
    kbs = ", ".join(f"KB{number}" for number in named[:MOST_KBS])
    if more := len(named) - MOST_KBS if len(named) > MOST_KBS else 0:
        kbs = _("%(kbs)s and %(count)s more") % {"kbs": kbs, "count": number_words(more)}
    if not plan.classifications:
        return kbs or _("updates")
    if plan.classifications == frozenset(Classification):
        classes = _("all updates")
    else:
        words = ", ".join(str(label) for value, label in CLASSIFICATIONS if value in plan.classifications)
        classes = _("%(classes)s updates") % {"classes": words}
    return _("%(classes)s and %(kbs)s") % {"classes": classes, "kbs": kbs} if kbs else classes
