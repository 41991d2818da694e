"""The way back: what to uninstall to be at the last good baseline again (docs/rules.md).

Neither hotpatches nor baselines undo themselves: the newest updates are uninstalled, the last good baseline is installed if it
is not there, and the machine reboots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from patching.releases import release_order
from patching.terms import ProductLine, Release, ReleaseType
from patching.track import newest_installed

UNINSTALL, INSTALL, REBOOT = timedelta(minutes=10), timedelta(minutes=10), timedelta(minutes=4)


class RollbackRefusal(StrEnum):
    """Why there is no way back."""

    UNKNOWN_STATE = "rollback.unknown_state"
    NO_EARLIER_BASELINE = "rollback.no_earlier_baseline"
    NOTHING_TO_UNINSTALL = "rollback.nothing_to_uninstall"


@dataclass(frozen=True, slots=True)
class RollbackOrder:
    """What a machine is told: what goes, and the baseline that it is at afterwards."""

    uninstall_kbs: tuple[str, ...]
    target_kb: str
    target_build: str
    must_install_target: bool

    @property
    def duration(self) -> timedelta:
        """How long it takes, about."""
        return UNINSTALL * len(self.uninstall_kbs) + (INSTALL if self.must_install_target else timedelta()) + REBOOT


def plan_rollback(
    releases: Iterable[Release], line: ProductLine | None, *, installed_kbs: Collection[str], os_build: str
) -> RollbackOrder | RollbackRefusal:
    """Plan the way back of a VM: from a hotpatch to its baseline, from anything else to the baseline before it."""
    if line is None:
        return RollbackRefusal.UNKNOWN_STATE
    own = sorted((r for r in releases if r.product_line is line and r.kb_number), key=release_order)
    newest = newest_installed(own, line, installed_kbs, os_build)
    if newest is None:
        return RollbackRefusal.UNKNOWN_STATE
    baselines = [r for r in own if r.type is ReleaseType.BASELINE and r.build]
    earlier = [r for r in baselines if release_order(r) < release_order(newest)]
    if not earlier:
        return RollbackRefusal.NO_EARLIER_BASELINE
    target = earlier[-1]
    gone = [r.kb_number for r in own if r.kb_number in installed_kbs and release_order(r) > release_order(target)]
    if not gone:
        return RollbackRefusal.NOTHING_TO_UNINSTALL
    return RollbackOrder(tuple(gone[::-1]), target.kb_number, target.build, target.kb_number not in installed_kbs)
