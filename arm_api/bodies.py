"""What callers send: plans of installations, and machines whose settings or tags shall be others.

Every property is read or refused by its name. What a caller may not change has to be as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from arm_api.errors import ArmCode, ArmError, invalid
from arm_api.versions import NAME_MASKS_SINCE
from patching.enrolment import Subscription, SubscriptionRequest, is_hotpatch
from patching.kb_numbers import MAX_KB_NUMBERS, KbNumbersError, parse_kb_numbers
from patching.selection import is_name_mask
from patching.terms import (
    DEFAULT_DURATION_MINUTES,
    MAX_DURATION_MINUTES,
    AssessmentMode,
    Classification,
    InstallationPlan,
    PatchMode,
    RebootSetting,
)
from vms.services.settings import SettingsChange

Json = Mapping[str, Any]
_Word = TypeVar("_Word", bound=StrEnum)
MOST_MASKS = 100
MOST_TAGS = 50
MOST_TAG_NAME, MOST_TAG_VALUE = 512, 256
# Azure's longest run. Ours are some minutes shorter, so that one of these becomes a shorter one.
_LONGEST = timedelta(hours=4)
_DURATION = re.compile(r"P(?:(\d{1,3})D)?(?:T(?:(\d{1,4})H)?(?:(\d{1,5})M)?(?:(\d{1,6})S)?)?", re.IGNORECASE | re.ASCII)


# --- one property ------------------------------------------------------------------------------------------------


def _only(body: Json, known: tuple[str, ...], what: str) -> None:
    if strange := sorted(name for name in body if name not in known):
        message = f"Could not find member '{strange[0][:60]}' on object of type '{what}'."
        raise ArmError(ArmCode.INVALID_CONTENT, message, target=strange[0][:60])


def _object(body: Json, name: str, path: str) -> Json:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"The value of '{path}' must be an object.", path)
    return value


def _word(kind: type[_Word], value: object, path: str) -> _Word:
    """A value of an enum, compared without case."""
    found = next((w for w in kind if isinstance(value, str) and w.value.lower() == value.lower()), None)
    if found is None:
        allowed = ", ".join(word.value for word in kind)
        raise invalid(f"The value '{value!s:.60}' of '{path}' is not valid. The valid values are: {allowed}.", path)
    return found


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise invalid(f"The value of '{path}' must be true or false.", path)
    return value


def _texts(body: Json, name: str, path: str, most: int) -> list[str]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise invalid(f"The value of '{path}' must be a list of texts.", path)
    if len(value) > most:
        raise invalid(f"The list '{path}' has {len(value)} entries; at most {most} are taken.", path)
    return value


# --- a plan ------------------------------------------------------------------------------------------------------
_PLAN = ("maximumDuration", "rebootSetting", "windowsParameters", "linuxParameters")
_WINDOWS = (
    *("classificationsToInclude", "kbNumbersToInclude", "kbNumbersToExclude", "excludeKbsRequiringReboot"),
    *("maxPatchPublishDate", "patchNameMasksToInclude", "patchNameMasksToExclude"),
)


def plan_of(body: Json, version: str, *, needs_duration: bool = False) -> InstallationPlan:
    """The plan that a body of installPatches asks for. Raises ArmError naming what is wrong.

    A KB that is named is one that the guard lets pass; a class is not. `needs_duration`: as for Arc machines.
    """
    _only(body, _PLAN, "VirtualMachineInstallPatchesParameters")
    windows = _object(body, "windowsParameters", "windowsParameters")
    if _object(body, "linuxParameters", "linuxParameters"):
        raise invalid("The machine runs Windows: linuxParameters mean nothing for it.", "linuxParameters")
    _only(windows, _WINDOWS if version >= NAME_MASKS_SINCE else _WINDOWS[:-2], "WindowsParameters")
    if needs_duration and body.get("maximumDuration") is None:
        raise invalid("The value of 'maximumDuration' is missing.", "maximumDuration")
    included = _kbs(windows, "kbNumbersToInclude")
    path = "windowsParameters.classificationsToInclude"
    classes = _texts(windows, "classificationsToInclude", path, len(Classification) * 2)
    if not (classes or included):
        raise invalid("At least one classification or one KB to include must be given.", path)
    leaves_out_reboots = False
    if (flag := windows.get("excludeKbsRequiringReboot")) is not None:
        leaves_out_reboots = _flag(flag, "windowsParameters.excludeKbsRequiringReboot")
    return InstallationPlan(
        classifications=frozenset(_word(Classification, text, path) for text in classes),
        kb_numbers_to_include=included,
        kb_numbers_to_exclude=_kbs(windows, "kbNumbersToExclude"),
        exclude_kbs_requiring_reboot=leaves_out_reboots,
        max_patch_publish_date=_day(windows.get("maxPatchPublishDate"), "windowsParameters.maxPatchPublishDate"),
        patch_name_masks_to_include=_masks(windows, "patchNameMasksToInclude"),
        patch_name_masks_to_exclude=_masks(windows, "patchNameMasksToExclude"),
        reboot_setting=_word(RebootSetting, body.get("rebootSetting"), "rebootSetting"),
        maximum_duration=_duration(body.get("maximumDuration")),
        guard_overrides=included,
    )


def _kbs(windows: Json, name: str) -> tuple[str, ...]:
    path = f"windowsParameters.{name}"
    entries = _texts(windows, name, path, MAX_KB_NUMBERS)
    for entry in entries:
        try:
            is_one = len(parse_kb_numbers(entry)) == 1
        except KbNumbersError:
            is_one = False
        if not is_one:
            message = (
                f"The entry in '{name}' with value '{entry[:40]}' is not valid. It must be a KBID such as KB4512508."
            )
            raise invalid(message, path)
    return parse_kb_numbers(" ".join(entries))


def _masks(windows: Json, name: str) -> tuple[str, ...]:
    path = f"windowsParameters.{name}"
    masks = _texts(windows, name, path, MOST_MASKS)
    if bad := next((mask for mask in masks if not is_name_mask(mask)), None):
        raise invalid(f"The mask '{bad[:40]}' in '{name}' may have letters, digits, * and ? only.", path)
    return tuple(masks)


def _day(value: object, path: str) -> date | None:
    """The day of a moment in UTC: updates are published on days."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value if isinstance(value, str) else "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).date()
    except (ValueError, OverflowError):
        raise invalid(f"The value '{value!s:.40}' of '{path}' is no date.", path) from None


def _duration(value: object) -> timedelta:
    """How long a run may take. What lies between our longest run and Azure's becomes our longest."""
    if value is None:
        return timedelta(minutes=DEFAULT_DURATION_MINUTES)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups()) if match else (0, 0, 0, 0)
    asked = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(minutes=1) <= asked <= _LONGEST:
        message = f"The value '{value!s:.40}' of 'maximumDuration' is not valid. It must be between PT1M and PT4H."
        raise invalid(message, "maximumDuration")
    return min(asked, timedelta(minutes=MAX_DURATION_MINUTES))


# --- a machine ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WantedMachine:
    """What a caller wants to change of a machine. `tags` None: they stay."""

    settings: SettingsChange = field(default_factory=SettingsChange)
    tags: dict[str, str] | None = None


_SETTINGS = "properties.osProfile.windowsConfiguration.patchSettings"
_READ: Mapping[str, tuple[str, Callable[[object, str], Any]]] = {
    f"{_SETTINGS}.patchMode": ("patch_mode", lambda value, path: _word(PatchMode, value, path)),
    f"{_SETTINGS}.assessmentMode": ("assessment_mode", lambda value, path: _word(AssessmentMode, value, path)),
    f"{_SETTINGS}.enableHotpatching": ("enable_hotpatching", _flag),
    f"{_SETTINGS}.automaticByPlatformSettings.rebootSetting": (
        "reboot_setting",
        lambda value, path: _word(RebootSetting, value, path),
    ),
    f"{_SETTINGS}.automaticByPlatformSettings.bypassPlatformSafetyChecksOnUserSchedule": (
        "bypass_platform_safety_checks",
        _flag,
    ),
}
# What a client got with the machine and sends back is no wish; of these the value of now may be another by then.
_TOLD = frozenset(
    {
        *("properties.instanceView", "properties.provisioningState", "properties.timeCreated", "etag", "resources"),
        "properties.licenseProfile",
    }
)
# What Azure compares without case.
_CASELESS = frozenset({"id", "type", "name", "location"})


def wanted_of(body: Json, *, current: Json) -> WantedMachine:
    """What a PATCH or a PUT of a machine wants to change. Raises ArmError 409 naming what cannot be changed here.

    `current`: the machine as a GET tells it. What is left out or null stays as it is.
    """
    settings: dict[str, Any] = {}
    tags: dict[str, str] | None = None
    for path, value in _leaves(body):
        if path in _READ:
            name, read = _READ[path]
            settings[name] = read(value, path.removeprefix("properties.osProfile."))
        elif path == "tags":
            tags = _tags(value)
        elif not _is_told(path) and not _is_same(path, value, current):
            message = f"Changing property '{path.removeprefix('properties.')[:120]}' is not allowed."
            raise ArmError(ArmCode.PROPERTY_CHANGE, message, target=path.removeprefix("properties.")[:120])
    return WantedMachine(SettingsChange(**settings), tags)


_FEATURES = "properties.productProfile.productFeatures"
# What is asked for, and what a client got and sends back.
_ENROLLED = {
    **dict.fromkeys((SubscriptionRequest.ENABLE, Subscription.ENABLED, Subscription.ENABLING), True),
    **dict.fromkeys((SubscriptionRequest.DISABLE, Subscription.DISABLED, Subscription.DISABLING), False),
}


def wanted_license_of(body: Json, *, current: Json) -> bool | None:
    """Whether a PUT or a PATCH of a licence profile wants the machine enrolled for hotpatches; None: it does not say.

    `current`: the profile as a GET tells it. Raises ArmError 409 naming what cannot be changed here.
    """
    wanted: bool | None = None
    for path, value in _leaves(body):
        if path == _FEATURES:
            wanted = _wanted_feature(value)
        elif not _is_told(path) and not _is_same(path, value, current):
            message = f"Changing property '{path.removeprefix('properties.')[:120]}' is not allowed."
            raise ArmError(ArmCode.PROPERTY_CHANGE, message, target=path.removeprefix("properties.")[:120])
    return wanted


def _wanted_feature(value: object) -> bool | None:
    path = _FEATURES.removeprefix("properties.")
    if not isinstance(value, list) or len(value) > 1 or not all(isinstance(one, dict) for one in value):
        raise invalid(f"The list '{path}' may have one feature, Hotpatch.", path)
    if not value:
        return None
    (feature,) = value
    if not is_hotpatch(str(feature.get("name"))):
        raise invalid(f"The feature '{feature.get('name')!s:.40}' is not known. The valid values are: Hotpatch.", path)
    asked = feature.get("subscriptionStatus")
    found = {word.lower(): is_on for word, is_on in _ENROLLED.items()}.get(
        asked.lower() if isinstance(asked, str) else ""
    )
    if found is None:
        raise invalid(
            f"The value '{asked!s:.40}' of 'subscriptionStatus' is not valid. The valid values are: Enable, Disable.",
            f"{path}.subscriptionStatus",
        )
    return found


def _leaves(body: Json, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a document by its path. Tags, lists and what is no object are one value; null says nothing.

    A name with a dot in it is no path: it stands in brackets.
    """
    for name, value in body.items():
        path = f"{before}['{name}']" if "." in name else f"{before}{name}"
        if isinstance(value, dict) and value and path != "tags" and path not in _TOLD and path not in _READ:
            yield from _leaves(value, f"{path}.")
        elif value is not None:
            yield path, value


def _is_told(path: str) -> bool:
    return path in _TOLD or any(path.startswith(f"{told}.") for told in _TOLD)


def _is_same(path: str, value: object, current: Json) -> bool:
    known: Any = current
    for name in path.split("."):
        known = known.get(name) if isinstance(known, dict) else None
    if value in ([], "") and known in (None, [], ""):
        return True
    if value == {}:
        return known is None or isinstance(known, dict)
    if path.rpartition(".")[2] in _CASELESS and isinstance(value, str) and isinstance(known, str):
        return "".join(value.split()).lower() == "".join(known.split()).lower()
    return _same_json(value, known)


def _same_json(one: object, other: object) -> bool:
    """Whether two values are the same, down to their types; what is null in one may be missing in the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same_json(one.get(name), other.get(name)) for name in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return type(one) is type(other) and one == other


def _tags(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise invalid("The tags must be names with texts.", "tags")
    if len(value) > MOST_TAGS:
        raise invalid(f"A machine has at most {MOST_TAGS} tags.", "tags")
    for name, text in value.items():
        if not 0 < len(name) <= MOST_TAG_NAME or len(text) > MOST_TAG_VALUE or "\0" in name + text:
            raise invalid(f"The tag '{name[:40]}' is too long or empty.", "tags")
    return dict(value)
