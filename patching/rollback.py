"""The way back: what to uninstall to be at the last good baseline again (docs/rules.md).

Neither hotpatches nor baselines undo themselves: the newest updates are uninstalled, the last good baseline is installed if it
is not there, and the machine reboots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from patching.outcome import plain_build
from patching.releases import Timetable, release_order, timetable
from patching.terms import ProductLine, Release
from patching.track import is_consistent, stand

UNINSTALL, INSTALL, REBOOT = timedelta(minutes=10), timedelta(minutes=10), timedelta(minutes=4)


class RollbackRefusal(StrEnum):
    """Why there is no way back."""

    UNKNOWN_STATE = "rollback.unknown_state"
    NO_EARLIER_BASELINE = "rollback.no_earlier_baseline"
    NOT_SUPPORTED = "rollback.not_supported"  # nothing behind the connection can uninstall


@dataclass(frozen=True, slots=True)
class RollbackOrder:
    """What a machine is told: what goes, the newest first, and the baseline that it is at afterwards.

    `target_build` is empty where the baseline's build is not recorded.
    """

    uninstall_kbs: tuple[str, ...]
    target_kb: str
    target_build: str
    must_install_target: bool

    @property
    def duration(self) -> timedelta:
        """How long it takes, about."""
        return UNINSTALL * len(self.uninstall_kbs) + (INSTALL if self.must_install_target else timedelta()) + REBOOT


def plan_rollback(
    releases: Iterable[Release],
    line: ProductLine | None,
    *,
    installed_kbs: Collection[str],
    os_build: str,
    is_list_complete: bool,
    as_of: datetime,
) -> RollbackOrder | RollbackRefusal:
    """Plan the way back of a VM: to the newest baseline under what is uninstalled.

    A hotpatch or an LCU goes back to the baseline under it, a baseline to the one before. Refused where the list of
    installed KBs is not complete or does not explain the build: what nobody recorded could lie on top.
    """
    if line is None:
        return RollbackRefusal.UNKNOWN_STATE
    return plan_rollback_on(
        timetable(releases, line, as_of),
        installed_kbs=installed_kbs,
        os_build=os_build,
        is_list_complete=is_list_complete,
    )


def plan_rollback_on(
    known: Timetable, *, installed_kbs: Collection[str], os_build: str, is_list_complete: bool
) -> RollbackOrder | RollbackRefusal:
    """`plan_rollback` by a timetable that was made once for many VMs."""
    if not is_list_complete or not os_build:
        return RollbackRefusal.UNKNOWN_STATE
    standing = stand(known, installed_kbs, plain_build(os_build), is_list_complete=True)
    if not standing.listed or not is_consistent(known, standing):
        return RollbackRefusal.UNKNOWN_STATE
    target = known.base_of(standing.listed[-1])
    if target is None:
        return RollbackRefusal.NO_EARLIER_BASELINE
    if not target.kb_number:
        return RollbackRefusal.UNKNOWN_STATE  # nobody can be told what to install
    gone = [r.kb_number for r in standing.listed if release_order(r) > release_order(target)]
    return RollbackOrder(tuple(gone[::-1]), target.kb_number, target.build, target not in standing.listed)
