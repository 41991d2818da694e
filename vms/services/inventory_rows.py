"""One row of an inventory, as ARM or the Azure CLI tells it, read into the columns of a VM.

Nothing in a row is trusted: what PostgreSQL could not hold, and what is no Windows VM, is named and left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, cast
from uuid import UUID

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from patching.eligibility import is_uniform_arm_id
from patching.enrolment import is_hotpatch, is_hotpatching_on
from patching.kb_numbers import is_invisible, without_invisible
from patching.terms import AssessmentMode, PatchMode, RebootSetting, ScaleSetOrchestration
from vms.choices import PowerState
from vms.models import ResourceGroup, VirtualMachine
from vms.regions import region_name

MAX_DEPTH = 64
# What the decoder of the file puts in the place of values that it cannot or must not build.
NESTED_TOO_DEEPLY = object()
NUMBER_TOO_LARGE = object()
_MAX_TAG_NAME, _MAX_TAG_VALUE = 512, 256  # Azure's own limits


class RowProblem(StrEnum):
    """Why a row of an inventory was skipped."""

    NOT_AN_OBJECT = "not_an_object"
    NESTED_TOO_DEEPLY = "nested_too_deeply"
    NUMBER_TOO_LARGE = "number_too_large"
    NUL_CHARACTER = "nul_character"
    BROKEN_CHARACTER = "broken_character"
    INVISIBLE_CHARACTER = "invisible_character"
    CUT_SHORT = "cut_short"
    NO_ID = "no_id"
    MALFORMED_ID = "malformed_id"
    NAME_DIFFERS = "name_differs"
    LINUX = "linux"
    OS_NOT_NAMED = "os_not_named"
    UNIFORM_WITH_HOTPATCH = "uniform_with_hotpatch"
    MISSING_VALUE = "missing_value"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_VALUE = "unknown_value"
    VALUE_TOO_LONG = "value_too_long"
    OTHER_CONNECTION = "other_connection"
    TWO_MACHINES = "two_machines"
    SAME_VM_ID = "same_vm_id"


ROW_PROBLEMS: dict[RowProblem, Promise] = {
    RowProblem.NOT_AN_OBJECT: _("This row is not a virtual machine but %(detail)s."),
    RowProblem.NESTED_TOO_DEEPLY: _("This row is nested more than %(detail)s levels deep."),
    RowProblem.NUMBER_TOO_LARGE: _("The number at %(detail)s is too large."),
    RowProblem.NUL_CHARACTER: _("The text at %(detail)s contains a NUL character."),
    RowProblem.BROKEN_CHARACTER: _("The text at %(detail)s contains half of a character."),
    RowProblem.INVISIBLE_CHARACTER: _("The text at %(detail)s contains characters that nobody can see."),
    RowProblem.CUT_SHORT: _("%(detail)s was cut short when the file was written; use ConvertTo-Json -Depth 20."),
    RowProblem.NO_ID: _("The row has no resource id."),
    RowProblem.MALFORMED_ID: _("This is not the resource id of a virtual machine: %(detail)s"),
    RowProblem.NAME_DIFFERS: _("The name “%(detail)s” is not the one in the resource id."),
    RowProblem.LINUX: _("Linux virtual machines are not managed here."),
    RowProblem.OS_NOT_NAMED: _("The row does not say that the operating system is Windows."),
    RowProblem.UNIFORM_WITH_HOTPATCH: _("Hotpatch is not supported in a Uniform scale set."),
    RowProblem.MISSING_VALUE: _("%(detail)s is missing."),
    RowProblem.WRONG_TYPE: _("%(detail)s has a value of the wrong type."),
    RowProblem.UNKNOWN_VALUE: _("%(detail)s has a value that is not known."),
    RowProblem.VALUE_TOO_LONG: _("%(detail)s is too long."),
    RowProblem.OTHER_CONNECTION: _("This VM belongs to the connection %(detail)s."),
    RowProblem.SAME_VM_ID: _("Row %(detail)s has the same VM id: one machine is not two."),
    RowProblem.TWO_MACHINES: _(
        "Its resource id and its VM id belong to two machines of the inventory (%(detail)s); nothing is guessed. Remove the "
        "one that is gone, then import again."
    ),
}


@dataclass(frozen=True, slots=True)
class VmFacts:
    """One row as ARM tells it. `values` holds the VM's columns; a column that the row does not mention is absent.

    `cleaned`: where characters that nobody can see were dropped.
    """

    arm_id: str  # lower case
    subscription_id: UUID
    resource_group: str
    values: dict[str, Any]
    cleaned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BadRow:
    """Why this row is left out."""

    problem: RowProblem
    detail: str = ""


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """One row of an inventory, numbered from 1, whoever told it: a file, or the connector of a connection.

    `document`: the row as it was told, as JSON (characters that nobody can see are dropped); None where it cannot be used.
    """

    number: int
    arm_id: str  # as far as it could be read, lower case
    name: str
    content: VmFacts | BadRow
    document: str | None = None


def inventory_row(number: int, *, value: object) -> InventoryRow:
    """The row that this JSON value is."""
    arm_id, name = _identity(value)
    try:
        document, cleaned = _checked(value)
        return InventoryRow(number, arm_id, name, _facts(_as_row(value), cleaned), document)
    except _Skip as skip:
        return InventoryRow(number, arm_id, name, skip.row)


def facts_to_json(facts: VmFacts) -> dict[str, Any]:
    """Facts as plain JSON, for a row that waits to be written."""
    values = facts.values
    if "vm_id" in values:
        values = values | {"vm_id": str(values["vm_id"])}
    return {
        "arm_id": facts.arm_id,
        "subscription_id": str(facts.subscription_id),
        "resource_group": facts.resource_group,
        "values": values,
        "cleaned": list(facts.cleaned),
    }


def facts_from_json(kept: dict[str, Any]) -> VmFacts:
    """What `facts_to_json` wrote."""
    values = kept["values"]
    if "vm_id" in values:
        values = values | {"vm_id": UUID(values["vm_id"])}
    return VmFacts(
        arm_id=kept["arm_id"],
        subscription_id=UUID(kept["subscription_id"]),
        resource_group=kept["resource_group"],
        values=values,
        cleaned=tuple(kept["cleaned"]),
    )


class _Skip(Exception):  # noqa: N818 (a way out of nested reading, not an error for anybody else)
    def __init__(self, problem: RowProblem, detail: str = "") -> None:
        self.row = BadRow(problem, detail)


def _identity(value: object) -> tuple[str, str]:
    """The id and name to report a row by, whatever else is wrong with it; nothing that could not be shown."""
    if not isinstance(value, dict):
        return "", ""
    arm_id, name = (_showable(_Source(value).find(key)) for key in ("id", "name"))
    return arm_id.strip().lower(), name or arm_id.rstrip("/").rpartition("/")[2]


def _showable(value: object) -> str:
    if not isinstance(value, str):
        return ""
    shown = value[:2000].encode(errors="replace").decode().replace("\x00", "\ufffd")
    if shown.isascii():
        return shown
    return "".join("\ufffd" if is_invisible(character) else character for character in shown)


def _as_row(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    names = {list: _("a list"), str: _("a text"), bool: _("true or false"), type(None): _("null")}
    raise _Skip(RowProblem.NOT_AN_OBJECT, str(names.get(type(value), _("a number"))))


# Texts that say which machine it is: nothing in them is dropped in silence.
_IDENTITY = re.compile(r"(?:id|name|location|resourcegroup|resourcegroupname|subscriptionid|tags)$", re.IGNORECASE)


def _checked(value: object) -> tuple[str, tuple[str, ...]]:
    """The value as JSON, and where characters were dropped from it (`_check_tree`).

    JSON without an escaped character is ASCII, and has nothing to look for; that is most rows, and ten times faster.
    """
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # what the decoder put in the place of a value, which is named now
        text = ""
    if text and "\\u" not in text and _is_shallow(value):
        return text, ()
    cleaned = _check_tree(value)
    return json.dumps(value), cleaned


def _is_shallow(value: object) -> bool:
    """Whether nothing in it is deeper than `MAX_DEPTH`."""
    level = [value]
    for _depth in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return True
    return False


def _check_tree(value: object) -> tuple[str, ...]:
    """Refuse what PostgreSQL or the decoder could not hold, naming the path; walks without recursion.

    Characters that nobody can see (direction marks, zero-width letters) are refused where a text says which machine it
    is, and in keys; elsewhere they are dropped in place. Where: the answer.
    """
    cleaned: list[str] = []
    todo: list[tuple[object, str, int]] = [(value, "", 1)]
    while todo:
        node, path, depth = todo.pop()
        if node is NESTED_TOO_DEEPLY or depth > MAX_DEPTH:
            raise _Skip(RowProblem.NESTED_TOO_DEEPLY, str(MAX_DEPTH))
        if node is NUMBER_TOO_LARGE:
            raise _Skip(RowProblem.NUMBER_TOO_LARGE, path or "1")
        if isinstance(node, str):
            _check_text(node, path)
        elif isinstance(node, (dict, list)):
            for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
                below = _below(path, key)
                if isinstance(key, str):
                    _check_text(key, path)
                    if without_invisible(key) != key:
                        raise _Skip(RowProblem.INVISIBLE_CHARACTER, path or "1")
                if isinstance(child, str) and without_invisible(child) != child:
                    if _IDENTITY.fullmatch(below):
                        raise _Skip(RowProblem.INVISIBLE_CHARACTER, below)
                    node[key] = without_invisible(child)
                    cleaned.append(below)
                todo.append((node[key], below, depth + 1))
    return tuple(cleaned)


def _below(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"[-200:]
    return f"{path}.{key}"[-200:] if path else key[:200]


_SURROGATE = re.compile("[\ud800-\udfff]")


def _check_text(text: str, path: str) -> None:
    if "\x00" in text:
        raise _Skip(RowProblem.NUL_CHARACTER, path)
    if _SURROGATE.search(text):
        raise _Skip(RowProblem.BROKEN_CHARACTER, path)


_ARM_ID = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"/resourcegroups/(?P<group>[^/]+)/providers/microsoft\."
    r"(?:(?:compute/virtualmachines|(?P<arc>hybridcompute/machines))/(?P<name>[^/]+)"
    r"|compute/virtualmachinescalesets/(?P<scale_set>[^/]+)/virtualmachines/(?P<instance>[^/]+))",
    re.IGNORECASE,
)


def _facts(row: dict[str, Any], cleaned: tuple[str, ...]) -> VmFacts:
    source = _Source(row)
    arm_id = source.text("id")
    if arm_id is None or not arm_id.strip():
        raise _Skip(RowProblem.NO_ID)
    arm_id = arm_id.strip()
    match = _ARM_ID.fullmatch(arm_id)
    # A letter whose lower case is two characters would be compared one way here, another in PostgreSQL.
    if match is None or len(arm_id.lower()) != len(arm_id):
        raise _Skip(RowProblem.MALFORMED_ID, arm_id[:200])
    # az flattens `properties` into the row, ARM does not; a row may have both (az vm list -d adds its own keys).
    more = source.members("properties")
    properties = _Source({**row, **more}) if more else source
    if match["arc"]:
        _refuse_other_systems_of_agent(properties)
        values = _identity_values(source, match) | _agent_values(source, properties)
    else:
        _refuse_other_systems(properties)
        values = _identity_values(source, match) | _machine_values(properties) | _setting_values(properties)
    values |= _scale_set_values(properties, arm_id, match)
    if values["scale_set_orchestration"] == ScaleSetOrchestration.UNIFORM and values["enable_hotpatching"]:
        raise _Skip(RowProblem.UNIFORM_WITH_HOTPATCH)
    _check_name(source.text("name"), match)
    _check_lengths(values, arm_id, match["group"])
    return VmFacts(
        arm_id=arm_id.lower(),
        subscription_id=UUID(match["subscription"]),
        resource_group=match["group"],
        values=values,
        cleaned=cleaned,
    )


class _Source:
    """A row's properties, read by dotted path; names are compared without case (provisionVmAgent, provisionVMAgent)."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self._found: dict[str, object] = {"": properties}  # the objects on the way to what was asked for
        self._lowered: dict[int, dict[str, object]] = {}  # the keys of each object that was asked for another spelling

    def has(self, path: str) -> bool:
        return self.find(path) is not None

    def text(self, path: str) -> str | None:
        value = self.find(path)
        return value if isinstance(value, str) else cast("None", self._typed(path, str))

    def flag(self, path: str, default: bool) -> bool:
        value = self._typed(path, bool)
        return default if value is None else cast(bool, value)

    def word(self, path: str, words: type[StrEnum], default: StrEnum) -> str:
        """The enum's own spelling of a value that ARM compares without case."""
        value = self.text(path)
        if value is None:
            return default.value
        known = _spellings(words).get(value.lower())
        if known is None:
            raise _Skip(RowProblem.UNKNOWN_VALUE, path)
        return known

    def enum(self, path: str, words: tuple[str, ...]) -> str | None:
        """A text; PowerShell prints the number that its word has."""
        value = self.find(path)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
            return words[value]
        return self.text(path)

    def items(self, path: str) -> list[Any]:
        return cast("list[Any] | None", self._typed(path, list)) or []

    def members(self, path: str) -> dict[str, Any]:
        return cast("dict[str, Any] | None", self._typed(path, dict)) or {}

    def _typed(self, path: str, kind: type) -> object:
        value = self.find(path)
        if value is not None and not isinstance(value, kind):
            raise _Skip(RowProblem.CUT_SHORT if _is_cut_short(value) else RowProblem.WRONG_TYPE, path)
        return value

    def find(self, path: str) -> object:
        above, key = _split(path)
        node = self._found[above] if above in self._found else self._keep(above)
        if node is None:
            return None
        if not isinstance(node, dict):
            raise _Skip(RowProblem.CUT_SHORT if _is_cut_short(node) else RowProblem.WRONG_TYPE, above)
        return node[key] if key in node else self._without_case(node, key)

    def _keep(self, path: str) -> object:
        found = self._found[path] = self.find(path)
        return found

    def _without_case(self, node: dict[str, Any], key: str) -> object:
        lowered = self._lowered.get(id(node))
        if lowered is None:
            lowered = self._lowered[id(node)] = {name.lower(): value for name, value in reversed(node.items())}
        return lowered.get(key.lower())


@cache
def _split(path: str) -> tuple[str, str]:
    """Where it lies, and its key there."""
    above, _dot, key = path.rpartition(".")
    return above, key


@cache
def _spellings(words: type[StrEnum]) -> dict[str, str]:
    """The words of an enum by their lower case."""
    return {word.value.lower(): word.value for word in words}


def _is_cut_short(value: object) -> bool:
    """Whether PowerShell wrote the name of a type, or a hash table, in the place of an object that was too deep for it."""
    return isinstance(value, str) and value.startswith(("@{", "System.", "Microsoft.Azure."))


def _refuse_other_systems(properties: _Source) -> None:
    os_type = properties.enum("storageProfile.osDisk.osType", ("Windows", "Linux"))
    if (os_type or "").lower() == "linux" or properties.has("osProfile.linuxConfiguration"):
        raise _Skip(RowProblem.LINUX)
    if os_type is None and not properties.has("osProfile.windowsConfiguration"):
        raise _Skip(RowProblem.OS_NOT_NAMED)
    if os_type is not None and os_type.lower() != "windows":
        raise _Skip(RowProblem.UNKNOWN_VALUE, "storageProfile.osDisk.osType")


def _refuse_other_systems_of_agent(properties: _Source) -> None:
    """The same of a machine outside of Azure, whose agent tells it once it has been connected."""
    os_type = (properties.text("osType") or "").lower()
    if os_type == "linux":
        raise _Skip(RowProblem.LINUX)
    if not os_type:
        raise _Skip(RowProblem.OS_NOT_NAMED)
    if os_type != "windows":
        raise _Skip(RowProblem.UNKNOWN_VALUE, "osType")


def _identity_values(source: _Source, match: re.Match[str]) -> dict[str, Any]:
    from_id = match["name"] or f"{match['scale_set']}_{match['instance']}"
    name = source.text("name") or from_id
    location = region_name(source.text("location") or "")
    if not location:
        raise _Skip(RowProblem.MISSING_VALUE, "location")
    # Azure knows tags without a value; az and Resource Graph print them as null.
    tags = {key: "" if value is None else value for key, value in source.members("tags").items()}
    zones = source.items("zones")
    if not all(isinstance(value, str) for value in tags.values()):
        raise _Skip(RowProblem.WRONG_TYPE, "tags")
    if any(len(key) > _MAX_TAG_NAME or len(value) > _MAX_TAG_VALUE for key, value in tags.items()):
        raise _Skip(RowProblem.VALUE_TOO_LONG, "tags")
    if not all(isinstance(zone, str) for zone in zones):
        raise _Skip(RowProblem.WRONG_TYPE, "zones")
    return {
        "name": name if match["name"] else from_id,
        "location": location,
        "tags": tags,
        "zones": zones,
        "edge_zone": source.text("extendedLocation.name") or "",
        "plan": ":".join(source.text(f"plan.{part}") or "" for part in ("publisher", "product", "name")).strip(":"),
    }


def _check_name(name: str | None, match: re.Match[str]) -> None:
    """The name is the one in the id; a VM of a Uniform scale set may be called by its instance, or set_instance."""
    names = {match["name"] or match["instance"], f"{match['scale_set']}_{match['instance']}"}
    if name and name.lower() not in {known.lower() for known in names}:
        raise _Skip(RowProblem.NAME_DIFFERS, name[:200])


# Columns whose absence says nothing: ARM prints them only with an instance view, or az only with -d.
def _machine_values(properties: _Source) -> dict[str, Any]:
    image = "storageProfile.imageReference"
    values: dict[str, Any] = {
        "os_type": "Windows",
        "computer_name": properties.text("osProfile.computerName") or "",
        "vm_size": properties.text("hardwareProfile.vmSize") or "",
        "license_type": properties.text("licenseType") or "",
        "image_publisher": properties.text(f"{image}.publisher") or "",
        "image_offer": properties.text(f"{image}.offer") or "",
        "image_sku": properties.text(f"{image}.sku") or "",
        "image_version": properties.text(f"{image}.version") or "",
        "image_resource_id": properties.text(f"{image}.id")
        or properties.text(f"{image}.sharedGalleryImageId")
        or properties.text(f"{image}.communityGalleryImageId")
        or "",
        "availability_set": properties.text("availabilitySet.id") or "",
    }
    if exact := properties.text(f"{image}.exactVersion"):
        values["image_exact_version"] = exact
    if state := properties.text("provisioningState"):
        values["provisioning_state"] = state
    if vm_id := properties.text("vmId"):
        values["vm_id"] = _uuid(vm_id, "vmId")
    if power_state := _power_state(properties):
        values["power_state"] = power_state
    if priority := properties.text("priority"):
        values["priority"] = priority
    if agent := _agent_status(properties):
        values["agent_status"] = agent
    return values | _system_values(properties) | _patch_status(properties)


_CONNECTED = "connected"


def _agent_values(source: _Source, properties: _Source) -> dict[str, Any]:
    """A machine outside of Azure as its agent told it last. Its power is not known, but whether the agent is connected."""
    patch = "osProfile.windowsConfiguration.patchSettings"
    edition = properties.text("osSku") or properties.text("osEdition") or ""
    mode = properties.text(f"{patch}.patchMode") or ""
    status = properties.text("status") or ""
    is_connected = status.lower() == _CONNECTED
    values: dict[str, Any] = {
        "os_type": "Windows",
        "os_edition": edition,
        "arc_kind": source.text("kind") or "",
        "agent_status": status,
        "power_state": PowerState.RUNNING.value if is_connected else PowerState.UNKNOWN.value,
        "computer_name": properties.text("osProfile.computerName") or "",
        # "Image default": there is no image, and Windows' own settings decide.
        "patch_mode": PatchMode.AUTOMATIC_BY_OS.value
        if mode.lower() == "imagedefault"
        else properties.word(f"{patch}.patchMode", PatchMode, PatchMode.AUTOMATIC_BY_OS),
        "assessment_mode": properties.word(f"{patch}.assessmentMode", AssessmentMode, AssessmentMode.IMAGE_DEFAULT),
        "enable_hotpatching": is_hotpatching_on(
            edition,
            subscription=_hotpatch_subscription(properties),
            is_chosen=properties.flag(f"{patch}.enableHotpatching", default=False)
            if properties.has(f"{patch}.enableHotpatching")
            else None,
        ),
    }
    if state := properties.text("provisioningState"):
        values["provisioning_state"] = state
    if vm_id := properties.text("vmId"):
        values["vm_id"] = _uuid(vm_id, "vmId")
    return values | _system_values(properties)


def _hotpatch_subscription(properties: _Source) -> str:
    """What the machine's licence says of the feature Hotpatch; empty: nothing."""
    features = properties.items("licenseProfile.productProfile.productFeatures")
    told = [_Source(one) for one in features if isinstance(one, dict)]
    return next((one.text("subscriptionStatus") or "" for one in told if is_hotpatch(one.text("name") or "")), "")


def _first_text(properties: _Source, *paths: str) -> str:
    return next((text for path in paths if (text := properties.text(path))), "")


_BUILD = re.compile(r"\b10\.0\.(\d{5}(?:\.\d{1,6})?)")


def _system_values(properties: _Source) -> dict[str, Any]:
    """The OS as its agent reports it: "10.0.20348.5020", or "Microsoft Windows NT 10.0.14393.0"."""
    version = _first_text(
        properties, "instanceView.osVersion", "extended.instanceView.osVersion", "osVersion", "osProfile.osVersion"
    )
    if not version:
        return {}
    build = _BUILD.search(version)
    # ".0" is no revision: this form tells the release of Windows only.
    known = build[1].removesuffix(".0") if build else ""
    return {"os_version": version, **({"os_build": known} if known else {})}


def _agent_status(properties: _Source) -> str:
    """What the VM agent says of itself, "Ready" where all is well."""
    for path in ("instanceView.vmAgent.statuses", "extended.instanceView.vmAgent.statuses"):
        for status in properties.items(path):
            shown = _Source(status).text("displayStatus") if isinstance(status, dict) else None
            if shown:
                return shown
    return ""


# What Azure's instance view says of the last assessment and the last installation, as far as it is a short value.
_SUMMARIES = {
    "availablePatchSummary": (
        *("status", "rebootPending", "criticalAndSecurityPatchCount", "otherPatchCount"),
        *("startTime", "lastModifiedTime"),
    ),
    "lastPatchInstallationSummary": (
        *("status", "maintenanceWindowExceeded", "installedPatchCount", "failedPatchCount", "pendingPatchCount"),
        *("notSelectedPatchCount", "excludedPatchCount", "startTime", "lastModifiedTime"),
    ),
}


def _patch_status(properties: _Source) -> dict[str, Any]:
    found: dict[str, dict[str, str | int | bool]] = {}
    for base in ("instanceView.patchStatus", "extended.instanceView.patchStatus"):
        for name, keys in _SUMMARIES.items():
            said = properties.members(f"{base}.{name}")
            if not said:
                continue
            source = _Source(said)
            short = {key: value for key in keys if isinstance(value := source.find(key), (str, int, bool))}
            if short:
                found[name] = {key: value[:60] if isinstance(value, str) else value for key, value in short.items()}
    return {"patch_status": found} if found else {}


def _uuid(text: str, path: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _Skip(RowProblem.UNKNOWN_VALUE, path) from None


def _power_state(properties: _Source) -> str:
    """`VM running` (az vm list -d, Get-AzVM -Status), `PowerState/running` (instance view, Resource Graph); or not said."""
    said = _first_text(properties, "powerState", "extended.instanceView.powerState.code")
    for status in properties.items("instanceView.statuses"):
        code = status.get("code") if isinstance(status, dict) else None
        if not said and isinstance(code, str) and code.lower().startswith("powerstate/"):
            said = code
    word = said.lower().removeprefix("powerstate/").removeprefix("vm ").strip()
    if not word:
        return ""
    return word if word in {state.value for state in PowerState} else PowerState.UNKNOWN.value


def _setting_values(properties: _Source) -> dict[str, Any]:
    windows = "osProfile.windowsConfiguration"
    patch = f"{windows}.patchSettings"
    platform = f"{patch}.automaticByPlatformSettings"
    reboot = properties.text(f"{platform}.rebootSetting")
    return {
        "provision_vm_agent": properties.flag(f"{windows}.provisionVMAgent", default=True),
        "allow_extension_operations": properties.flag("osProfile.allowExtensionOperations", default=True),
        "enable_automatic_updates": properties.flag(f"{windows}.enableAutomaticUpdates", default=True),
        "time_zone": properties.text(f"{windows}.timeZone") or "",
        "patch_mode": properties.word(f"{patch}.patchMode", PatchMode, PatchMode.AUTOMATIC_BY_OS),
        "assessment_mode": properties.word(f"{patch}.assessmentMode", AssessmentMode, AssessmentMode.IMAGE_DEFAULT),
        "enable_hotpatching": properties.flag(f"{patch}.enableHotpatching", default=False),
        # ARM's own enum has "Unknown" for a setting that nobody made.
        "reboot_setting": RebootSetting.IF_REQUIRED.value
        if (reboot or "").lower() == "unknown"
        else properties.word(f"{platform}.rebootSetting", RebootSetting, RebootSetting.IF_REQUIRED),
        "bypass_platform_safety_checks": properties.flag(
            f"{platform}.bypassPlatformSafetyChecksOnUserSchedule", default=False
        ),
    }


def _scale_set_values(properties: _Source, arm_id: str, match: re.Match[str]) -> dict[str, Any]:
    """A VM under a scale set's own path is Uniform; one that only refers to a scale set is Flexible."""
    if is_uniform_arm_id(arm_id):
        scale_set = arm_id[: match.end("scale_set")]
        return {
            "scale_set": scale_set,
            "scale_set_orchestration": ScaleSetOrchestration.UNIFORM.value,
        }
    scale_set = properties.text("virtualMachineScaleSet.id") or ""
    orchestration = ScaleSetOrchestration.FLEXIBLE if scale_set else ScaleSetOrchestration.NONE
    return {"scale_set": scale_set, "scale_set_orchestration": orchestration.value}


_LIMITS: dict[str, int] = {
    field.name: field.max_length for field in VirtualMachine._meta.concrete_fields if field.max_length is not None
}


def _check_lengths(values: dict[str, Any], arm_id: str, group: str) -> None:
    for name, value in [("arm_id", arm_id), *values.items()]:
        if isinstance(value, str) and name in _LIMITS and len(value) > _LIMITS[name]:
            raise _Skip(RowProblem.VALUE_TOO_LONG, str(VirtualMachine._meta.get_field(name).verbose_name))  # type: ignore[union-attr]
    if len(group) > cast(int, ResourceGroup._meta.get_field("name").max_length):
        raise _Skip(RowProblem.VALUE_TOO_LONG, str(ResourceGroup._meta.verbose_name))
