"""The simulated machines: what is on each of them, and what a run or a rollback makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from connectors.protocol import VmRef
from connectors.simulator.misfortunes import Misfortune, wishes_of
from connectors.simulator.windows_update import FIRST_BUILDS, Machine, WindowsUpdate
from patching.eligibility import line_of_build
from patching.outcome import build_order
from patching.releases import is_offered, release_order
from patching.rollback import RollbackOrder
from patching.terms import (
    HOTPATCH_TYPES,
    InstalledUpdate,
    Patch,
    ProductLine,
    Release,
    ReleaseType,
)

# How many of the machines with hotpatch are among "the few" that an out-of-band update reached before it was stopped.
# Microsoft speaks of a very limited number; one in ten is simulated, so that a fleet has some.
SHARE_OF_FEW = 0.1


def line_of(vm: VmRef) -> ProductLine | None:
    """The machine's product line: by its build; where that is not known, as the portal has it; else by the image's SKU."""
    by_build = line_of_build(vm.os_build)
    if by_build is not None or vm.product_line is not None:
        return by_build or vm.product_line
    sku = vm.image.sku.lower()
    return next((line for line in ProductLine if line.value.removeprefix("ws") in sku), None)


@dataclass(frozen=True)
class Machines:
    """The machines behind one connection. What is not known of one follows from the seed, for ever."""

    updates: WindowsUpdate
    seed: int

    def dice(self, vm: VmRef, word: str) -> float:
        """A number from 0 up to but not 1 that belongs to this machine and this question for ever."""
        digest = hashlib.blake2b(f"{self.seed}:{vm.arm_id}:{word}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53  # what a float holds exactly: 1 itself never comes

    def machine(self, vm: VmRef, line: ProductLine, moment: datetime) -> Machine:
        """What is on the machine: what is known of it, else what its build says, else what the seed gives it."""
        is_able = Misfortune.VBS_OFF not in wishes_of(vm.tags)
        found = Machine(
            line=line,
            takes_hotpatches=vm.is_hotpatch_enabled and is_able,
            is_among_few=self.dice(vm, "is reached") < SHARE_OF_FEW,
            installed=vm.installed,
            os_build=vm.os_build,
            is_reboot_pending=vm.is_reboot_pending,
        )
        if vm.installed:
            return found if vm.os_build else replace(found, os_build=self._build_with(found))
        if vm.os_build:
            release = self._release_of_build(vm, line)
        else:
            release = self._seeded_release(vm, line, moment)
        build = vm.os_build or (self.updates.build_of(release) if release else FIRST_BUILDS[line])
        return replace(found, installed=self._past_of(vm, line, release, moment), os_build=build)

    def _build_with(self, machine: Machine) -> str:
        """The build of a machine that is known by its KBs alone."""
        builds = (self.updates.build_of(release) for release in self.updates.in_effect(machine))
        return max(builds, key=build_order, default=FIRST_BUILDS[machine.line])

    def _release_of_build(self, vm: VmRef, line: ProductLine) -> Release | None:
        """The newest release that a machine of this build has.

        Where two releases share the build it is the one that fits the setting: the hotpatch where hotpatch is on.
        """
        order = build_order(vm.os_build)

        def rank(release: Release) -> tuple[tuple[int, ...], bool]:
            fits_setting = (release.type in HOTPATCH_TYPES) is vm.is_hotpatch_enabled
            return build_order(self.updates.build_of(release)), fits_setting

        older = [r for r in self.updates.releases(line) if build_order(self.updates.build_of(r)) <= order]
        return max(older, key=rank, default=None)

    def _seeded_release(self, vm: VmRef, line: ProductLine, moment: datetime) -> Release | None:
        """Where a machine of unknown build stands: on track with a hotpatch to come, or a month or two behind."""
        out = [release for release in self.updates.releases(line) if is_offered(release, moment)]
        baselines = [release for release in out if release.type is ReleaseType.BASELINE]
        if not baselines:
            return None
        if vm.is_hotpatch_enabled:
            later = [r for r in out if r.type in HOTPATCH_TYPES and release_order(r) > release_order(baselines[-1])]
            choices = [baselines[-1], *later[:-1]]
        else:
            full = [r for r in out if r.type in {ReleaseType.BASELINE, ReleaseType.LCU}]
            choices = full[-3:-1] or full
        return choices[int(self.dice(vm, "build") * len(choices))]

    def _past_of(
        self, vm: VmRef, line: ProductLine, release: Release | None, moment: datetime
    ) -> tuple[InstalledUpdate, ...]:
        """What a machine at this release has installed: its baseline, the release itself, and an older .NET update."""
        if release is None:
            return ()
        past: list[tuple[Patch, date]] = []
        dot_net = self.updates.dot_net(line, moment)
        if len(dot_net) > 1 and (older := dot_net[-2]).published_on is not None:
            past.append((older, older.published_on))
        base = self.updates.baseline_under(line, release) if release.type in HOTPATCH_TYPES else None
        past += [
            (patch, installed.released_on)
            for installed in (base, release)
            if installed is not None and (patch := self.updates.world.patch_for(installed)) is not None
        ]
        days = 1 + int(3 * self.dice(vm, "patch day"))
        return tuple(
            InstalledUpdate(
                self.updates.told(patch),
                min(datetime.combine(day + timedelta(days=days), time(18, 30), UTC), moment),
            )
            for patch, day in past
        )

    # --- afterwards

    def after_run(
        self, machine: Machine, installed: Iterable[InstalledUpdate], *, has_rebooted: bool, is_reboot_outstanding: bool
    ) -> Machine:
        """The machine after a run. A build moves at once with a hotpatch, and with everything else at the reboot."""
        here = {update.patch.key: update for update in machine.installed}
        here |= {update.patch.key: update for update in installed}
        releases = [r for u in here.values() if (r := self.updates.release_of(machine.line, u.patch)) is not None]
        live = [self.updates.build_of(r) for r in releases if has_rebooted or r.type in HOTPATCH_TYPES]
        return replace(
            machine,
            installed=tuple(here.values()),
            os_build=max([machine.os_build, *live], key=build_order),
            is_reboot_pending=is_reboot_outstanding,
        )

    def rolled_back(self, machine: Machine, order: RollbackOrder, at: datetime) -> Machine:
        """The machine after a rollback: without what was uninstalled, at the build of what is left."""
        gone = set(order.uninstall_kbs)
        kept = [update for update in machine.installed if update.patch.kb_number not in gone]
        target = self.updates.world.release_by_kb.get((machine.line, order.target_kb))
        if order.must_install_target and target is not None and (patch := self.updates.world.patch_for(target)):
            kept.append(InstalledUpdate(self.updates.told(patch), at.replace(microsecond=0)))
        left = replace(machine, installed=tuple(kept), is_reboot_pending=False)
        has_release = any(self.updates.release_of(machine.line, update.patch) for update in kept)
        build = self._build_with(left) if has_release else order.target_build
        return replace(left, os_build=build or machine.os_build)
