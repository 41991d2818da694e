"""Which machines a dynamic scope means.

One table says what a scope may ask for; from it the database is asked, a machine in hand is judged, and the words are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from django.db.models import Q

from patching.scope import SCOPE_NAMES, Scope, ScopeError
from updates.texts import SCOPE_LABELS, Text
from vms.models import Subscription, VirtualMachine
from vms.regions import region_name
from vms.tags import HasTag, tag_value

NOBODY = Q(pk__in=())


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a machine that a scope may name.

    `plain`: what two values have in common that are the same to it. Columns whose values differ in case only are looked
    for without case; in others the plain value is stored.
    """

    path: str
    plain: Callable[[str], str]
    is_stored_plain: bool = True

    def asks(self, wanted: object) -> Q:
        """The machines that have this value."""
        lookup = self.path if self.is_stored_plain else f"{self.path}__iexact"
        return Q((lookup, self.plain(str(wanted))))

    def fits(self, vm: VirtualMachine, wanted: object) -> bool:
        """Whether a machine in hand has this value."""
        found: object = reduce(getattr, self.path.split("__"), vm)
        return self.plain(str(found)) == self.plain(str(wanted))


# What a tag must be stands in no column: `vms.tags` compares it for both sides.
_COLUMNS = {
    "subscription": _Column("resource_group__subscription_id", str),
    "resource_group": _Column("resource_group__name", str.lower, is_stored_plain=False),
    "location": _Column("location", region_name),
    "image_sku": _Column("image_sku", str.lower, is_stored_plain=False),
}


def scope_filter(scope: Scope) -> Q | None:
    """The VMs that a scope means; None: it asks for nothing, so it means none."""
    asked = [_COLUMNS[name].asks(value) for name, value in scope.as_json.items() if name in _COLUMNS]
    if scope.tag_name:
        asked.append(Q(HasTag(scope.tag_name, scope.tag_value)))
    return reduce(Q.__and__, asked) if asked else None


def scope_means(scope: Scope, vm: VirtualMachine) -> bool:
    """What `scope_filter` asks the database, for a VM in hand whose group is loaded."""
    given = scope.as_json
    if not all(_COLUMNS[name].fits(vm, value) for name, value in given.items() if name in _COLUMNS):
        return False
    tag = tag_value(vm.tags, scope.tag_name) if scope.tag_name else scope.tag_value
    return bool(given) and tag is not None and scope.tag_value in {"", tag}


def scope_lines(scope: Scope) -> list[tuple[Text, str]]:
    """What a scope asks for, in words; the subscription by its name (one query where there is one)."""
    values = {name: str(value) for name, value in scope.as_json.items()}
    if scope.subscription is not None:
        values["subscription"] = str(Subscription.objects.filter(pk=scope.subscription).first() or scope.subscription)
    return [(SCOPE_LABELS[name], values[name]) for name in SCOPE_NAMES if name in values]


def unknown_in_scope(scope: Scope) -> list[str]:
    """The names of what a scope asks for and no VM has, each asked by itself (a query for each of these few)."""
    meant = {name: scope_filter(part) for name, part in scope.parts.items()}
    return [name for name, which in meant.items() if which and not VirtualMachine.objects.filter(which).exists()]


def kept_scope_filter(document: object) -> Q | None:
    """`scope_filter` of a scope as it is kept; one that cannot be read means no VM."""
    try:
        return scope_filter(Scope.from_json(document))
    except ScopeError:
        return NOBODY


def kept_scope_means(document: object, vm: VirtualMachine) -> bool:
    """`scope_means` of a scope as it is kept; one that cannot be read means no VM."""
    try:
        return scope_means(Scope.from_json(document), vm)
    except ScopeError:
        return False
