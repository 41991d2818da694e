"""Another machine under a known resource id: what was known of the one before is not true of it.

The floors above keep things about a machine, too; they say what they forget by `follow_replacements`, and the import calls
them without knowing them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from patching.terms import HotpatchStatus, HotpatchTrack, UpdateStatus
from vms.models import VirtualMachine

Follower = Callable[[Collection[int]], None]
_followers: list[Follower] = []


def follow_replacements(follower: Follower) -> None:
    """Call `follower` with the ids of VMs whose machine was replaced, in the transaction that writes it. Once a process."""
    if follower not in _followers:
        _followers.append(follower)


def forget_machine(vm: VirtualMachine, *, now: datetime) -> None:
    """Reset what was found on the machine before, in hand and not yet saved; what a person keeps of it stays."""
    vm.replaced_at = now
    vm.image_exact_version = vm.os_version = vm.os_build = vm.agent_status = vm.priority = ""
    vm.patch_status = {}
    vm.update_status = UpdateStatus.NO_UPDATES_DATA.value
    vm.hotpatch_status = HotpatchStatus.PENDING_EVALUATION.value
    vm.hotpatch_track = HotpatchTrack.UNKNOWN.value


def machines_replaced(*, vm_ids: Collection[int]) -> None:
    """After the facts of the new machines were saved: reset their counts, and let the floors above forget the old ones."""
    VirtualMachine.objects.filter(pk__in=vm_ids).update(
        critical_and_security_count=0, other_count=0, patch_set=0, is_reboot_pending=False, desired_settings=None
    )
    for follower in _followers:
        follower(vm_ids)
