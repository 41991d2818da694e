"""What may go wrong on a simulated machine; the machine's tag `simulate` asks for it (docs/simulator.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from connectors.protocol import VmRef
from patching.codes import ErrorCode
from patching.terms import Patch, PatchSettings, RebootSetting

MISFORTUNE_TAG = "simulate"
INSTALL_ERROR = "0x80070643"  # ERROR_INSTALL_FAILURE
NOT_APPLICABLE = "0x80240017"  # WU_E_NOT_APPLICABLE


class Misfortune(StrEnum):
    """What a machine suffers if its tag `simulate` has this word; `fail` and `lies` name an update: `fail:KB5087424`."""

    FAIL = "fail"
    LIES = "lies"
    WINDOW_EXCEEDED = "window-exceeded"
    REBOOT_HANGS = "reboot-hangs"
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    AGENT_NOT_READY = "agent-not-ready"
    LOST_ANSWER = "lost-answer"
    SILENT = "silent"
    VBS_OFF = "vbs-off"
    HOTPATCH_EXTENSION = "hotpatch-extension"
    BASELINE_REQUIRED = "baseline-required"
    SETTINGS_CHANGED = "settings-changed"

    @property
    def names_an_update(self) -> bool:
        """Whether it happens with one update (or `any`)."""
        return self in {Misfortune.FAIL, Misfortune.LIES}


@dataclass(frozen=True, slots=True)
class Symptom:
    """How a machine reports that it cannot hotpatch.

    `code` is the message id, `detail` what Azure shows; `patch_error` is the error of the hotpatch that fails for it.
    `is_told_by_assessments`: the machine says "Not ready" whenever it is looked at, not only when a hotpatch comes.
    """

    code: str
    detail: str
    patch_error: str
    is_told_by_assessments: bool = False


# Microsoft: "Troubleshoot hotpatch failures on Azure VMs" (2026-07-13) names the extension and the words about the baseline;
# "Enable Hotpatch for Azure Arc-enabled servers" asks for virtualization-based security that runs.
SYMPTOMS = {
    Misfortune.VBS_OFF: Symptom(
        ErrorCode.HOTPATCH_VBS_OFF,
        "Hotpatch: Not ready. VirtualizationBasedSecurityStatus is 0, expected 2.",
        NOT_APPLICABLE,
        True,
    ),
    Misfortune.HOTPATCH_EXTENSION: Symptom(
        ErrorCode.HOTPATCH_EXTENSION_UNHEALTHY,
        "Microsoft.CPlat.Core.WindowsHotpatch: Provisioning failed.",
        INSTALL_ERROR,
    ),
    Misfortune.BASELINE_REQUIRED: Symptom(
        ErrorCode.HOTPATCH_BASELINE_REQUIRED, "Baseline required before hotpatch", NOT_APPLICABLE
    ),
}


def misfortune_text(tags: Mapping[str, object]) -> str:
    """What the tag says, empty without it. Azure compares the names of tags without case, and so does this."""
    return " ".join(str(value) for key, value in tags.items() if key.casefold() == MISFORTUNE_TAG)


@lru_cache(maxsize=4_096)
def wishes_of(tags: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """The misfortunes that a VM's tags ask for."""
    return frozenset(word.strip().lower() for word in misfortune_text(dict(tags)).replace(",", " ").split())


def is_wished(wishes: frozenset[str], misfortune: Misfortune, patch: Patch) -> bool:
    """Whether the tag asks for this misfortune with this patch: `fail:any`, `fail:5087424`, `fail:KB5087424`."""
    if not wishes:
        return False
    names = {f"{misfortune}:any", f"{misfortune}:{patch.kb_number}", f"{misfortune}:kb{patch.kb_number}"}
    return bool(names & wishes)


def settings_of(vm: VmRef) -> PatchSettings:
    """The patch settings that a machine reports. Somebody changed the reboot setting on it if the tag says so."""
    if Misfortune.SETTINGS_CHANGED not in wishes_of(vm.tags):
        return vm.settings
    is_never = vm.settings.reboot_setting is RebootSetting.NEVER
    return replace(vm.settings, reboot_setting=RebootSetting.IF_REQUIRED if is_never else RebootSetting.NEVER)


def symptom_of(wishes: frozenset[str]) -> Symptom | None:
    """Why the machine cannot hotpatch; None where it can. The first one counts."""
    return next((symptom for misfortune, symptom in SYMPTOMS.items() if misfortune in wishes), None)
