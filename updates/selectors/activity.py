"""What happened to one VM: its operations and the changes of its settings, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from django.contrib.auth.models import User

from patching.terms import AssessmentMode, PatchMode, PatchSettings, RebootSetting
from updates.models import Operation
from vms.models import SETTING_FIELDS, SettingsEvent, VirtualMachine

MAX_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class Activity:
    """One entry: an operation, or a change of settings with what they were before and after. `by` empty: the portal."""

    at: datetime
    by: str
    operation: Operation | None = None
    before: PatchSettings | None = None
    after: PatchSettings | None = None

    @property
    def differing(self) -> tuple[str, ...]:
        """The settings that changed."""
        names = (field.name for field in fields(PatchSettings))
        return tuple(name for name in names if getattr(self.before, name) != getattr(self.after, name))


def load_activity(vm: VirtualMachine) -> list[Activity]:
    """The last 200 entries of a VM, in three queries."""
    operations = Operation.objects.filter(vm=vm).select_related("requested_by").order_by("-created_at")[:MAX_ENTRIES]
    entries = [
        Activity(o.created_at, o.requested_by.get_username() if o.requested_by else "", operation=o) for o in operations
    ]
    entries += _settings_changes(vm)
    return sorted(entries, key=lambda entry: entry.at, reverse=True)[:MAX_ENTRIES]


def _settings_changes(vm: VirtualMachine) -> list[Activity]:
    """Each change with what the settings were after it: what they were before the next one, or are now."""
    events = list(
        SettingsEvent.objects.filter(pgh_obj=vm)
        .select_related("pgh_context")
        .order_by("-pgh_created_at", "-pgh_id")[:MAX_ENTRIES]
    )
    names = _names(events)
    found = []
    after = vm.patch_settings
    for event in events:
        before = _settings(event)
        found.append(Activity(event.pgh_created_at, names.get(_user_id(event), ""), before=before, after=after))
        after = before
    return found


def _settings(event: SettingsEvent) -> PatchSettings:
    values = {name: getattr(event, name) for name in SETTING_FIELDS}
    values["patch_mode"] = PatchMode(values["patch_mode"])
    values["assessment_mode"] = AssessmentMode(values["assessment_mode"])
    values["reboot_setting"] = RebootSetting(values["reboot_setting"])
    return PatchSettings(**values)


def _user_id(event: SettingsEvent) -> int | None:
    metadata = event.pgh_context.metadata if event.pgh_context else {}
    return metadata.get("user")


def _names(events: Sequence[SettingsEvent]) -> dict[int | None, str]:
    ids = {user_id for event in events if (user_id := _user_id(event)) is not None}
    return dict(User.objects.filter(pk__in=ids).values_list("pk", "username")) if ids else {}
