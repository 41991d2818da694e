"""What the engine needs to know of VMs, loaded for a whole batch in three queries."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache, partial
from typing import Any

from django.db.models import TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast

from connectors.protocol import Capability, VmRef
from connectors.registry import capabilities_of, catalogue_day
from db.arrays import array
from patching.eligibility import (
    CatalogIndex,
    Eligibility,
    EligibilityVerdict,
    judge_eligibility,
    line_of_build,
)
from patching.releases import as_of
from patching.terms import (
    AssessmentMode,
    ImageReference,
    InstalledUpdate,
    PatchMode,
    PatchSettings,
    Platform,
    ProductLine,
    RebootSetting,
    ScaleSetOrchestration,
)
from updates.models import InstalledPatch
from updates.selectors.catalogue import LoadedCatalogue
from vms.models import VirtualMachine
from vms.selectors import build_of_image, image_catalog


@dataclass(frozen=True, slots=True)
class VmFacts:
    """One VM: how a connector sees it, and what the rules ask for. `os_build` and installed updates are as recorded."""

    ref: VmRef
    connection_id: int
    platform: Platform
    capabilities: frozenset[Capability]  # of its connector
    eligibility: Eligibility
    catalogue_date: date | None
    last_assessed_at: datetime | None
    patch_set_id: int | None
    is_gone: bool  # its connection lists it no more
    is_list_complete: bool
    judged_again: Callable[[str], Eligibility]  # by the build that is found

    def as_of(self, now: datetime) -> datetime:
        """The moment up to which releases count for this VM."""
        return as_of(self.catalogue_date, now)

    def eligibility_with(self, os_build: str) -> Eligibility:
        """Eligibility and product line once this build was found."""
        if os_build == self.ref.os_build or line_of_build(os_build) is self.eligibility.product_line:
            return self.eligibility
        return self.judged_again(os_build)

    def line_with(self, os_build: str) -> ProductLine | None:
        """The product line once this build was found."""
        return self.eligibility_with(os_build).product_line


_with_version = lru_cache(maxsize=4_096)(replace)
# Columns instead of model instances: a batch reads thousands of VMs, and most of them are alike.
_IMAGE = ("image_publisher", "image_offer", "image_sku", "image_version", "image_resource_id", "os_edition")
_JUDGED = (
    *_IMAGE,
    "image_exact_version",
    "os_build",
    "scale_set_orchestration",
    "connection__platform",
    "update_state__os_build",
)
_SETTINGS = (
    "provision_vm_agent",
    "enable_automatic_updates",
    "patch_mode",
    "assessment_mode",
    "enable_hotpatching",
    "reboot_setting",
    "bypass_platform_safety_checks",
)
_OWN = (
    "pk",
    "arm_id",
    "name",
    "power_state",
    "is_reboot_pending",
    "connection_id",
    "connection__kind",
    "location",
    "resource_group__subscription__subscription_id",
    KeyTextTransform("catalogue_date", "connection__config"),
    "update_state__patch_set_id",
    "update_state__is_list_complete",
    "gone_at",
)
# As text what Python reads faster than the driver does, and the tags of many VMs once.
_AS_TEXT = (Cast("tags", TextField()), Cast("update_state__last_assessed_at", TextField()))


def load_vm_facts(vm_ids: Collection[int], catalogue: LoadedCatalogue) -> dict[int, VmFacts]:
    """The facts of these VMs by id; VMs that are gone are left out."""
    ids = array(vm_ids)
    installed = _load_installed(ids, catalogue)
    catalog = image_catalog()
    eligibilities: dict[tuple[Any, ...], Eligibility] = {}
    images: dict[tuple[Any, ...], ImageReference] = {}
    judges: dict[tuple[Any, ...], Callable[[str], Eligibility]] = {}
    settings: dict[tuple[Any, ...], PatchSettings] = {}
    found: dict[int, VmFacts] = {}
    tags: dict[str, tuple[tuple[str, str], ...]] = {}
    first_settings, first_own = len(_JUDGED), len(_JUDGED) + len(_SETTINGS)
    columns = (*_JUDGED, *_SETTINGS, *_OWN, *_AS_TEXT)
    for row in VirtualMachine.objects.filter(pk__any=ids).order_by().values_list(*columns):
        judged, chosen, own = row[:first_settings], row[first_settings:first_own], row[first_own:]
        if judged not in eligibilities:
            images[judged] = _image(judged)
            eligibilities[judged] = _judge(judged, images[judged], catalog)
            judges[judged] = partial(_judge_with, judged, images[judged], catalog)
        if chosen not in settings:
            settings[chosen] = _settings(chosen)
        (
            pk,
            arm_id,
            name,
            power_state,
            is_reboot_pending,
            connection_id,
            kind,
            location,
            subscription_id,
            day,
            set_id,
            is_complete,
            gone_at,
            tagged,
            assessed_at,
        ) = own
        if tagged not in tags:
            tags[tagged] = tuple(sorted((str(key), str(value)) for key, value in json.loads(tagged).items()))
        eligibility = eligibilities[judged]
        is_eligible = eligibility.verdict is EligibilityVerdict.ELIGIBLE
        found[pk] = VmFacts(
            ref=VmRef(
                vm_id=pk,
                arm_id=arm_id,
                name=name,
                image=images[judged],
                product_line=eligibility.product_line,
                settings=settings[chosen],
                is_hotpatch_enabled=is_eligible and settings[chosen].enable_hotpatching,
                os_build=judged[-1] or "",
                power_state=power_state,
                installed=tuple(installed.get(pk, ())),
                is_reboot_pending=is_reboot_pending,
                tags=tags[tagged],
                subscription=str(subscription_id),
                location=location.lower(),
            ),
            connection_id=connection_id,
            platform=Platform(judged[-2]),
            capabilities=capabilities_of(kind),
            eligibility=eligibility,
            catalogue_date=catalogue_day(day),
            last_assessed_at=datetime.fromisoformat(assessed_at) if assessed_at else None,
            patch_set_id=set_id,
            is_list_complete=bool(is_complete),
            is_gone=gone_at is not None,
            judged_again=judges[judged],
        )
    return found


def _load_installed(ids: str, catalogue: LoadedCatalogue) -> dict[int, list[InstalledUpdate]]:
    installed: dict[int, list[InstalledUpdate]] = defaultdict(list)
    known: dict[tuple[int, str, str], InstalledUpdate] = {}
    rows = (
        InstalledPatch.objects.filter(vm__any=ids)
        .order_by("vm_id", "installed_on", "patch_id")
        .values_list("vm_id", "patch_id", "version", Cast("installed_on", TextField()))
    )
    for vm_id, patch_id, version, installed_on in rows:
        key = (patch_id, version, installed_on)
        if key not in known:
            patch = catalogue.patches_by_pk[patch_id]
            if patch.version != version:
                patch = _with_version(patch, version=version)
            known[key] = InstalledUpdate(patch=patch, installed_on=datetime.fromisoformat(installed_on))
        installed[vm_id].append(known[key])
    return installed


def _image(judged: tuple[Any, ...]) -> ImageReference:
    return ImageReference(*judged[: len(_IMAGE)])


def _judge(judged: tuple[Any, ...], image: ImageReference, catalog: CatalogIndex) -> Eligibility:
    exact_version, reported, orchestration, platform, os_build = judged[len(_IMAGE) :]
    return judge_eligibility(
        image,
        catalog,
        Platform(platform),
        scale_set_orchestration=ScaleSetOrchestration(orchestration),
        os_build=os_build or build_of_image(exact_version, image.version, reported),
    )


def _judge_with(judged: tuple[Any, ...], image: ImageReference, catalog: CatalogIndex, os_build: str) -> Eligibility:
    return _judge((*judged[:-1], os_build), image, catalog)


def _settings(chosen: tuple[Any, ...]) -> PatchSettings:
    agent, automatic, patch_mode, assessment_mode, hotpatch, reboot, bypass = chosen
    return PatchSettings(
        provision_vm_agent=agent,
        enable_automatic_updates=automatic,
        patch_mode=PatchMode(patch_mode),
        assessment_mode=AssessmentMode(assessment_mode),
        enable_hotpatching=hotpatch,
        reboot_setting=RebootSetting(reboot),
        bypass_platform_safety_checks=bypass,
    )
