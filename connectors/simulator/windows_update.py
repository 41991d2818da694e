"""What Windows Update has for a machine: its own knowledge of Windows, and none of the portal's rules.

A machine knows exactly what is on it, and Windows Update knows every release that is out. So nothing here guesses, and
nothing here asks where the portal thinks that the machine stands. docs/simulator.md says which behaviour has which source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from uuid import UUID, uuid5

from connectors.catalogue import Catalogue
from patching.outcome import MSRT_KB, build_order
from patching.releases import (
    OFFERED_FROM,
    PACIFIC,
    is_offered,
    is_released,
    release_order,
    second_tuesday,
)
from patching.terms import (
    HOTPATCH_TYPES,
    LCU_TYPES,
    Audience,
    Channel,
    InstalledUpdate,
    Patch,
    ProductLine,
    Release,
    ReleaseType,
)

NAMESPACE = UUID("2f1c1c7e-6a3b-5d0c-9d7e-0b5f4c3a2e10")
DEFENDER_KB = "2267602"
# The build of a machine that has received nothing that is recorded: Windows Server 2025 began with 26100.1742.
FIRST_BUILDS: Mapping[ProductLine, str] = {ProductLine.WS2022: "20348.1", ProductLine.WS2025: "26100.1742"}
_USUAL_STEP = 37  # builds from one release to the next, where nobody recorded them
_FULL = LCU_TYPES | {ReleaseType.BASELINE}
_OUT_OF_BAND = frozenset({ReleaseType.OOB_LCU, ReleaseType.OOB_HOTPATCH})


@dataclass(frozen=True, slots=True)
class Machine:
    """What is on a machine at one moment.

    `takes_hotpatches`: hotpatch is switched on and the machine is able to; `is_among_few`: it is one of the few with
    hotpatch that got an out-of-band update before Microsoft stopped it.
    """

    line: ProductLine
    takes_hotpatches: bool
    is_among_few: bool
    installed: tuple[InstalledUpdate, ...]
    os_build: str
    is_reboot_pending: bool

    @property
    def kbs(self) -> frozenset[str]:
        """The KBs that are installed, those that wait for a reboot among them."""
        return frozenset(update.patch.kb_number for update in self.installed)


@dataclass(frozen=True)
class WindowsUpdate:
    """Windows Update with everything that is out.

    `world` is all of it; `recorded` is what the portal has on record. They are the same unless a test lets the portal's
    record end earlier. A machine names its updates by KB and title; which kind of release a KB is, only the record says.
    """

    world: Catalogue
    recorded: Catalogue
    _offers: dict[object, tuple[Patch, ...]] = field(default_factory=dict, compare=False, repr=False)
    _told: dict[tuple[str, str], Patch] = field(default_factory=dict, compare=False, repr=False)

    # --- releases and builds

    def releases(self, line: ProductLine) -> Sequence[Release]:
        """The releases of a line that can be installed (their KB is known), oldest first."""
        return self._installable[line]

    @cached_property
    def _installable(self) -> Mapping[ProductLine, Sequence[Release]]:
        return {
            line: sorted((release for release in releases if release.kb_number), key=release_order)
            for line, releases in self.world.releases_by_line.items()
        }

    def release_of(self, line: ProductLine, patch: Patch) -> Release | None:
        """The release that a patch is; None for what is no OS patch."""
        return self.world.release_by_kb.get((line, patch.kb_number))

    def build_of(self, release: Release) -> str:
        """The build that a machine has with this release."""
        return self._builds.get((release.product_line, release.kb_number), release.build)

    @cached_property
    def _builds(self) -> Mapping[tuple[ProductLine, str], str]:
        found: dict[tuple[ProductLine, str], str] = {}
        for line, releases in self.world.releases_by_line.items():
            found |= builds_of(line, releases)
        return found

    def in_effect(self, machine: Machine) -> list[Release]:
        """The releases that run on it: installed, and not only waiting for their reboot."""
        here = [r for kb in machine.kbs if (r := self.world.release_by_kb.get((machine.line, kb))) is not None]
        if not machine.is_reboot_pending:
            return here
        now = build_order(machine.os_build)
        return [release for release in here if build_order(self.build_of(release)) <= now]

    def awaits_os_patch(self, machine: Machine) -> bool:
        """Whether the reboot that is pending brings an OS patch.

        Any other pending reboot (of a .NET update) hides nothing: what is missing stays on offer.
        """
        if not machine.is_reboot_pending:
            return False
        now = build_order(machine.os_build)
        here = (self.world.release_by_kb.get((machine.line, kb)) for kb in machine.kbs)
        return any(release is not None and build_order(self.build_of(release)) > now for release in here)

    # --- offers

    def offers(self, machine: Machine, moment: datetime) -> tuple[Patch, ...]:
        """What is on offer for this machine; machines in the same situation share one tuple."""
        rolling = tuple(
            (update.patch.kb_number, update.patch.version)
            for update in machine.installed
            if update.patch.kb_number in {MSRT_KB, DEFENDER_KB}
        )
        key = (
            machine.line,
            machine.takes_hotpatches,
            machine.is_among_few,
            machine.kbs,
            machine.os_build,
            machine.is_reboot_pending,
            rolling,
            offer_period(moment),
        )
        if key not in self._offers:
            self._offers[key] = tuple(self._make_offers(machine, moment))
        return self._offers[key]

    def _make_offers(self, machine: Machine, moment: datetime) -> Iterable[Patch]:
        have = {update.patch.key: update.patch for update in machine.installed}
        os_patches = (self.world.patch_for(release) for release in self._os_offers(machine, moment))
        for patch in (*os_patches, *self.dot_net(machine.line, moment)[-1:]):
            if patch is not None and patch.key not in have:
                yield self.told(patch)
        for patch in self.rolling(moment):
            if patch.key not in have or have[patch.key].version != patch.version:
                yield patch

    def _os_offers(self, machine: Machine, moment: datetime) -> Iterable[Release]:
        """The OS patches. A machine whose last one still waits for its reboot is offered none.

        With hotpatch: the newest hotpatch on the newest baseline; where that baseline is missing, the baseline alone;
        where a newer cumulative update has replaced it, cumulative updates until the next baseline. Out-of-band
        cumulative updates beside them, to whom they reach.
        """
        if self.awaits_os_patch(machine):
            return
        out = [release for release in self.releases(machine.line) if is_released(release, moment)]
        here = self.in_effect(machine)
        cumulative = self._cumulative(machine.line, here)
        baseline = self._newest_baseline(machine.line, moment) if machine.takes_hotpatches else None
        if baseline is None or _is_newer(cumulative, baseline):
            full = [r for r in out if r.type in _FULL and _is_newer(r, cumulative) and _reaches(r, is_on_train=False)]
            yield from full[-1:]
            return
        if cumulative == baseline:
            newest = max((r for r in here if r.type in HOTPATCH_TYPES), key=release_order, default=baseline)
            hotpatches = [
                r for r in out if r.type in HOTPATCH_TYPES and _is_newer(r, baseline) and _is_newer(r, newest)
            ]
            yield from [r for r in hotpatches if _reaches(r, is_on_train=True)][-1:]
        elif is_offered(baseline, moment):
            yield baseline
        yield from self._out_of_band(machine, out, baseline)

    def _out_of_band(self, machine: Machine, out: Sequence[Release], baseline: Release) -> Iterable[Release]:
        """The newest out-of-band cumulative update that reaches a machine on the train; a later monthly one ends it."""
        later = [release for release in out if _is_newer(release, baseline)]
        monthly = max((r for r in later if r.type not in _OUT_OF_BAND), key=release_order, default=None)
        yield from [
            release
            for release in later
            if release.type is ReleaseType.OOB_LCU
            and _is_newer(release, monthly)
            and _reaches(release, is_on_train=True, is_among_few=machine.is_among_few)
        ][-1:]

    def _cumulative(self, line: ProductLine, here: Sequence[Release]) -> Release | None:
        """The newest cumulative update that runs: a baseline, an LCU, or the baseline that a hotpatch stands on."""
        full = [release for release in here if release.type in _FULL]
        bases = (self.baseline_under(line, release) for release in here if release.type in HOTPATCH_TYPES)
        return max((*full, *(base for base in bases if base is not None)), key=release_order, default=None)

    def baseline_under(self, line: ProductLine, hotpatch: Release) -> Release | None:
        """The baseline that a hotpatch was made for."""
        before = (
            r for r in self.world.releases_by_line[line] if r.type is ReleaseType.BASELINE and _is_newer(hotpatch, r)
        )
        return max(before, key=release_order, default=None)

    def _newest_baseline(self, line: ProductLine, moment: datetime) -> Release | None:
        """The newest baseline that is out, its KB recorded or not: without it a machine is due."""
        baselines = (r for r in self.world.releases_by_line[line] if r.type is ReleaseType.BASELINE)
        return max((r for r in baselines if is_released(r, moment)), key=release_order, default=None)

    # --- updates as a machine tells them

    def told(self, patch: Patch) -> Patch:
        """The patch as a machine tells it: with an update id, and a kind of release only where the portal records one."""
        known = self._told.get((patch.key, patch.version))
        if known is None:
            recorded = self.recorded.patch_by_key.get(patch.key)
            known = replace(
                patch,
                update_id=str(uuid5(NAMESPACE, f"{patch.key} {patch.version}".strip())),
                release_type=recorded.release_type if recorded else None,
            )
            self._told[patch.key, patch.version] = known
        return known

    def rolling(self, moment: datetime) -> Iterable[Patch]:
        """What keeps its KB and comes in another version: MSRT each month, Defender's definitions each day."""
        day = moment.astimezone(PACIFIC).date()
        for kb_number, version, title, published in (
            (MSRT_KB, *_msrt(moment)),
            (DEFENDER_KB, *_defender(day)),
        ):
            patch = self.world.patch_by_key.get(f":{kb_number}")
            if patch is not None:
                yield self.told(replace(patch, version=version, title=title, published_on=published))

    def dot_net(self, line: ProductLine, moment: datetime) -> list[Patch]:
        """The .NET updates of the line that are out, oldest first."""
        day = moment.astimezone(PACIFIC).date()
        return [p for p in self._dot_net_of[line] if p.published_on is not None and p.published_on <= day]

    @cached_property
    def _dot_net_of(self) -> dict[ProductLine, list[Patch]]:
        found = [p for p in self.world.patches if ".NET" in p.title and p.published_on is not None]
        return {
            line: sorted(
                (_titled(p, line) for p in found if p.product_line in {line, None}),
                key=lambda p: (p.published_on or date.min, p.key),
            )
            for line in ProductLine
        }


# --- small rules -------------------------------------------------------------------------------------------------


def builds_of(line: ProductLine, releases: Iterable[Release]) -> dict[tuple[ProductLine, str], str]:
    """The build that each release with a KB brings.

    Where none is recorded it is one of its own: above every build before it, below the next recorded one, and the same
    for ever. So it can be taken for no other release; where there is no room between them, the build stays.
    """
    ordered = sorted(releases, key=release_order)
    found: dict[tuple[ProductLine, str], str] = {}
    floor = FIRST_BUILDS[line]
    for place, release in enumerate(ordered):
        build = release.build or (_build_between(line, floor, ordered[place:]) if release.kb_number else floor)
        if release.kb_number:
            found[line, release.kb_number] = build
        floor = max(floor, build, key=build_order)
    return found


def _build_between(line: ProductLine, floor: str, rest: Sequence[Release]) -> str:
    """A build above `floor` and below the lowest recorded one above it, with room left for those after it without one."""
    above = [(build_order(r.build), place) for place, r in enumerate(rest) if build_order(r.build) > build_order(floor)]
    step = _USUAL_STEP
    if above:
        lowest, place = min(above)
        nameless = sum(not release.build for release in rest[:place])
        step = min(step, (lowest[-1] - build_order(floor)[-1]) // (nameless + 1))
    return f"{line.build_prefix}.{build_order(floor)[-1] + step}"


def _is_newer(release: Release | None, other: Release | None) -> bool:
    """Whether `release` came after `other`; None came before everything."""
    if release is None or other is None:
        return release is not None
    return release_order(release) > release_order(other)


def _reaches(release: Release, *, is_on_train: bool, is_among_few: bool = False) -> bool:
    """Whether Windows Update offered it to such a machine. Only out-of-band updates differ in that."""
    if release.type not in _OUT_OF_BAND:
        return True
    if release.type is ReleaseType.OOB_HOTPATCH:
        return release.channel in {Channel.WINDOWS_UPDATE, Channel.UNKNOWN}
    if release.channel is not Channel.WINDOWS_UPDATE:
        return False
    if not is_on_train or release.audience is Audience.EVERYBODY:
        return True
    return release.audience is Audience.FEW and is_among_few


_SYSTEMS = {
    ProductLine.WS2022: "Microsoft server operating system version 21H2 for x64",
    ProductLine.WS2025: "Microsoft server operating system version 24H2 for x64",
}


def _titled(patch: Patch, line: ProductLine) -> Patch:
    """A .NET update under the title that Windows Update gives it; one that names its KB has that title already."""
    if patch.published_on is None or f"(KB{patch.kb_number})" in patch.title:
        return patch
    return replace(patch, title=f"{patch.published_on:%Y-%m} {patch.title} for {_SYSTEMS[line]} (KB{patch.kb_number})")


@lru_cache(maxsize=64)
def offer_period(moment: datetime) -> tuple[date, bool]:
    """A stretch of time in which Windows Update offers the same: releases come at 10:00 Pacific time."""
    local = moment.astimezone(PACIFIC)
    return local.date(), local.time() >= OFFERED_FROM


@lru_cache(maxsize=64)
def _msrt(moment: datetime) -> tuple[str, str, date]:
    """Version, title and day of MSRT: a new one each Patch Tuesday. v5.120 was January 2024's."""
    local = moment.astimezone(PACIFIC)
    published = second_tuesday(local.date())
    if local.date() < published or (local.date() == published and local.time() < OFFERED_FROM):
        published = second_tuesday(local.date().replace(day=1) - timedelta(days=1))
    version = f"5.{120 + 12 * (published.year - 2024) + published.month - 1}"
    return version, f"Windows Malicious Software Removal Tool x64 - v{version} (KB{MSRT_KB})", published


@lru_cache(maxsize=64)
def _defender(day: date) -> tuple[str, str, date]:
    """Version, title and day of Defender's definitions: a new one each day, numbered about as Microsoft numbers them."""
    days = (day - date(2022, 1, 1)).days
    version = f"1.{359 + 2 * (days // 35)}.{12 + 31 * (days % 35)}.0"
    title = f"Security Intelligence Update for Microsoft Defender Antivirus - KB{DEFENDER_KB} (Version {version})"
    return version, f"{title} - Current Channel (Broad)", day
