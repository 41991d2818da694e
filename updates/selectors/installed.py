"""Installed updates as PowerShell's Get-HotFix lists them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from patching.terms import CRITICAL_AND_SECURITY
from updates.models import InstalledPatch
from vms.models import VirtualMachine

INSTALLED_BY = "NT AUTHORITY\\SYSTEM"


@dataclass(frozen=True, slots=True)
class HotFix:
    """One line of Get-HotFix."""

    source: str
    description: str
    hot_fix_id: str
    installed_on: datetime

    def as_columns(self) -> tuple[str, str, str, str, str]:
        """The line as text."""
        day = self.installed_on.strftime("%Y-%m-%d")
        return self.source, self.description, self.hot_fix_id, INSTALLED_BY, day

    def as_json(self) -> dict[str, str]:
        """The line as `Get-HotFix | ConvertTo-Json` names its properties."""
        return {
            "Source": self.source,
            "Description": self.description,
            "HotFixID": self.hot_fix_id,
            "InstalledBy": INSTALLED_BY,
            "InstalledOn": self.installed_on.isoformat(timespec="seconds"),
        }


def description_of(classification: str) -> str:
    """How Get-HotFix describes an update."""
    return "Security Update" if classification in CRITICAL_AND_SECURITY else "Update"


# What Windows Update installs past the component store (CBS), from which Get-HotFix (Win32_QuickFixEngineering) reads:
# the Malicious Software Removal Tool, and Defender's definitions and platform.
_BESIDE_CBS = ("malicious software removal tool", "microsoft defender", "security intelligence update")


def is_listed_by_get_hotfix(*, kb_number: str, title: str, classification: str) -> bool:
    """Whether Get-HotFix lists an installed update: it knows packages of the component store alone, by their KB."""
    is_beside = any(name in title.lower() for name in _BESIDE_CBS)
    return bool(kb_number) and classification != "Definition" and not is_beside


def installed_on(vm: VirtualMachine) -> list[HotFix]:
    """What is installed, the newest last, as Get-HotFix sorts it."""
    rows = (
        InstalledPatch.objects.filter(vm=vm)
        .select_related("patch")
        .order_by("installed_on", "patch__published_on", "patch_id")
    )
    source = (vm.computer_name or vm.name).upper()
    return [
        HotFix(source, description_of(row.patch.classification), f"KB{row.patch.kb_number}", row.installed_on)
        for row in rows
        if is_listed_by_get_hotfix(
            kb_number=row.patch.kb_number, title=row.patch.title, classification=row.patch.classification
        )
    ]
