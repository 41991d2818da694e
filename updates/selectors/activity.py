"""What happened to one VM, newest first: operations, changes of its settings and facts, holds, roles given and taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.utils import timezone

from audit.models import AuditEvent
from audit.selectors import Entry, in_words
from audit.tags import Tag
from patching.terms import AssessmentMode, PatchMode, PatchSettings, RebootSetting
from updates.models import Operation
from vms.choices import Scope
from vms.models import (
    FACT_FIELDS,
    SETTING_FIELDS,
    Connection,
    FactsEvent,
    ResourceGroup,
    RoleEvent,
    SettingsEvent,
    VirtualMachine,
)

MAX_ENTRIES = 200
# Of these the page tells more by itself: from operations, and from the histories of settings, facts and roles.
_TOLD_OTHERWISE = (
    Tag.ASSESSMENT_REQUEST,
    Tag.INSTALLATION_REQUEST,
    Tag.ROLLBACK_REQUEST,
    Tag.RESTART_REQUEST,
    Tag.RECORD_CREATE,
    Tag.RECORD_CHANGE,
    Tag.SETTINGS_CHANGE,
    Tag.ROLE_GIVE,
    Tag.ROLE_CHANGE,
    Tag.ROLE_TAKE,
)


class Kind(StrEnum):
    """What an entry tells."""

    OPERATION = "operation"
    SETTINGS = "settings"
    ADDED = "added"
    FACTS = "facts"
    ROLE = "role"
    ACT = "act"


@dataclass(frozen=True, slots=True)
class FactChange:
    """One fact before and after, as text."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A role that was given, changed or taken, to whom, and the kind of place it holds in."""

    what: str  # given, changed, taken
    role: str
    principal: str
    scope: str


@dataclass(frozen=True, slots=True)
class Activity:
    """One entry. `by` empty: the portal itself. `source`: import (then with its `file`) or page, where it is known."""

    at: datetime
    by: str
    kind: Kind
    operation: Operation | None = None
    before: PatchSettings | None = None
    after: PatchSettings | None = None
    facts: tuple[FactChange, ...] = ()
    role: RoleChange | None = None
    act: Entry | None = None
    source: str = ""
    file: str = ""

    @property
    def differing(self) -> tuple[str, ...]:
        """The settings that changed."""
        names = (field.name for field in fields(PatchSettings))
        return tuple(name for name in names if getattr(self.before, name) != getattr(self.after, name))


def load_activity(vm: VirtualMachine) -> list[Activity]:
    """The last 200 entries of a VM (loaded with its resource group), in a fixed number of queries."""
    operations = Operation.objects.filter(vm=vm).select_related("requested_by").order_by("-created_at")[:MAX_ENTRIES]
    settings = _newest(SettingsEvent.objects.filter(pgh_obj=vm))
    facts = _newest(FactsEvent.objects.filter(pgh_obj=vm))
    group = vm.resource_group
    roles = _newest(
        RoleEvent.objects.filter(
            Q(scope=Scope.EVERYTHING.value)
            | Q(subscription=group.subscription_id)
            | Q(resource_group=group.pk)
            | Q(vm=vm.pk)
        )
    )
    users = _names(
        User.objects.all(), [_user_id(event) for event in (*settings, *facts, *roles)] + [e.user_id for e in roles]
    )
    groups = _names(Group.objects.all(), [event.group_id for event in roles])
    entries = [
        Activity(o.created_at, o.requested_by.get_username() if o.requested_by else "", Kind.OPERATION, operation=o)
        for o in operations
    ]
    entries += _settings_changes(vm, settings, users)
    entries += _fact_changes(vm, facts, users)
    entries += (_role_change(event, users, groups) for event in roles)
    acts = AuditEvent.objects.filter(vm_key=vm.pk).exclude(tag__in=[tag.value for tag in _TOLD_OTHERWISE])
    entries += (
        Activity(act.at, act.who, Kind.ACT, act=act)
        for act in in_words(list(acts.order_by("-at", "-pk")[:MAX_ENTRIES]))
    )
    return sorted(entries, key=lambda entry: entry.at, reverse=True)[:MAX_ENTRIES]


def _newest(events: QuerySet[Any]) -> list[Any]:
    return list(events.select_related("pgh_context").order_by("-pgh_created_at", "-pgh_id")[:MAX_ENTRIES])


def _settings_changes(vm: VirtualMachine, events: Sequence[Any], users: Mapping[int | None, str]) -> list[Activity]:
    """Each change with what the settings were after it: what they were before the next one, or are now."""
    found = []
    after = vm.patch_settings
    for event in events:
        before = _settings(event)
        found.append(
            Activity(event.pgh_created_at, users.get(_user_id(event), ""), Kind.SETTINGS, before=before, after=after)
        )
        after = before
    return found


def _settings(event: SettingsEvent) -> PatchSettings:
    values = {name: getattr(event, name) for name in SETTING_FIELDS}
    values["patch_mode"] = PatchMode(values["patch_mode"])
    values["assessment_mode"] = AssessmentMode(values["assessment_mode"])
    values["reboot_setting"] = RebootSetting(values["reboot_setting"])
    return PatchSettings(**values)


def _fact_changes(vm: VirtualMachine, events: Sequence[Any], users: Mapping[int | None, str]) -> list[Activity]:
    """That the VM was added, and each change with what the facts were after it."""
    names = {
        "connection": _names(Connection.objects.all(), [row.connection_id for row in (vm, *events)]),
        "resource_group": _names(ResourceGroup.objects.all(), [row.resource_group_id for row in (vm, *events)]),
    }
    found = []
    after = _facts(vm, names)
    for event in events:
        facts = _facts(event, names)
        is_new = event.pgh_label == "added"
        metadata = _metadata(event)
        found.append(
            Activity(
                event.pgh_created_at,
                users.get(_user_id(event), ""),
                Kind.ADDED if is_new else Kind.FACTS,
                facts=() if is_new else tuple(_differences(facts, after)),
                source=metadata.get("source", ""),
                file=metadata.get("file", ""),
            )
        )
        after = facts
    return found


def _facts(row: Any, names: Mapping[str, Mapping[int | None, str]]) -> dict[str, str]:
    """The facts of a VM or of an event as text."""
    texts = {}
    for name in FACT_FIELDS:
        if name in names:
            texts[name] = names[name].get(getattr(row, f"{name}_id"), "")
            continue
        value = getattr(row, name)
        if value is None:
            value = ""
        elif isinstance(value, datetime):
            value = f"{timezone.localtime(value):%Y-%m-%d %H:%M}"
        elif isinstance(value, dict):
            value = ", ".join(f"{key}={text}" for key, text in sorted(value.items()))
        elif isinstance(value, list):
            value = ", ".join(str(part) for part in value)
        texts[name] = str(value)
    return texts


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[FactChange]:
    for name in FACT_FIELDS:
        if before[name] != after[name]:
            label = VirtualMachine._meta.get_field(name).verbose_name  # type: ignore[union-attr]
            yield FactChange(str(label), before[name], after[name])


def _role_change(event: Any, users: Mapping[int | None, str], groups: Mapping[int | None, str]) -> Activity:
    principal = users.get(event.user_id, "") if event.user_id else groups.get(event.group_id, "")
    change = RoleChange(event.pgh_label, event.get_role_display(), principal, event.get_scope_display())
    return Activity(event.pgh_created_at, users.get(_user_id(event), ""), Kind.ROLE, role=change)


def _metadata(event: Any) -> dict[str, Any]:
    return event.pgh_context.metadata if event.pgh_context else {}


def _user_id(event: Any) -> int | None:
    return _metadata(event).get("user")


def _names(rows: QuerySet[Any], ids: Iterable[int | None]) -> dict[int | None, str]:
    """What these rows are called, by id; rows that are gone are left out."""
    wanted = {pk for pk in ids if pk is not None}
    return {row.pk: str(row) for row in rows.filter(pk__in=wanted)} if wanted else {}
