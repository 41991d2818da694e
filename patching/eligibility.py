"""May this VM be hotpatched, and which product line is it? By the image catalogue, or by its edition (docs/rules.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from patching.outcome import plain_build
from patching.terms import (
    CatalogImage,
    ImageReference,
    Platform,
    ProductLine,
    ScaleSetOrchestration,
)


class EligibilityVerdict(StrEnum):
    """Whether hotpatch is available on a VM, and if not, why."""

    ELIGIBLE = "eligible"
    PLATFORM_NOT_SUPPORTED = "platform_not_supported"
    UNIFORM_SCALE_SET = "uniform_scale_set"
    CONTAINER_BASE_IMAGE = "container_base_image"
    CUSTOM_IMAGE = "custom_image"
    NO_IMAGE = "no_image"
    IMAGE_NOT_IN_CATALOG = "image_not_in_catalog"
    IMAGE_AND_BUILD_DISAGREE = "image_and_build_disagree"
    EDITION_NOT_SUPPORTED = "edition_not_supported"
    BUILD_TOO_OLD = "build_too_old"


@dataclass(frozen=True, slots=True)
class Eligibility:
    """The verdict with the facts needed to word it. `product_line` is what the machine runs; None: Unsupported.

    `is_by_edition`: it is a machine outside of Azure, which has no image.
    """

    verdict: EligibilityVerdict
    product_line: ProductLine | None
    catalog_image: CatalogImage | None = None
    is_by_edition: bool = False


CatalogIndex = Mapping[tuple[str, str, str], CatalogImage]

_CONTAINER_IMAGE = re.compile(
    r"(?:^|/)windows(?:/|-)(?:servercore|nanoserver|server)(?:[:@/]|$)|^mcr\.microsoft\.com/", re.IGNORECASE
)
_CONTAINER_OFFERS = frozenset({"servercore", "nanoserver", "windows/servercore", "windows/nanoserver"})
_UNIFORM_ID = re.compile(r"/virtualmachinescalesets/[^/]+/virtualmachines/[^/]+$", re.IGNORECASE)


def catalog_index(images: Iterable[CatalogImage]) -> dict[tuple[str, str, str], CatalogImage]:
    """The catalogue by lower-case (publisher, offer, SKU)."""
    return {_key(image.publisher, image.offer, image.sku): image for image in images}


def _key(publisher: str, offer: str, sku: str) -> tuple[str, str, str]:
    return publisher.lower(), offer.lower(), sku.lower()


def is_uniform_arm_id(arm_id: str) -> bool:
    """Whether the resource id is that of an instance of a Uniform scale set."""
    return _UNIFORM_ID.search(arm_id) is not None


def is_container_base_image(image: ImageReference) -> bool:
    """Whether the image is a Windows Server container base image rather than a VM image."""
    return _CONTAINER_IMAGE.search(image.resource_id) is not None or image.offer.lower() in _CONTAINER_OFFERS


def judge_eligibility(
    image: ImageReference,
    catalog: CatalogIndex,
    platform: Platform,
    *,
    scale_set_orchestration: ScaleSetOrchestration = ScaleSetOrchestration.NONE,
    os_build: str = "",
) -> Eligibility:
    """Judge hotpatch eligibility; the first reason that applies wins, in the order of `docs/rules.md`.

    The product line is what the machine runs: its OS build decides, without one the catalogue entry; None is Unsupported.
    """
    if image.edition:
        return _judge_edition(image.edition, platform, os_build)
    entry = None if image.resource_id else catalog.get(_key(image.publisher, image.offer, image.sku))
    running = has_build(os_build)
    line = line_of_build(os_build) if running else entry.product_line if entry else None
    verdict = _verdict(image, entry, platform, scale_set_orchestration)
    if entry is not None and verdict is EligibilityVerdict.ELIGIBLE and line is not entry.product_line:
        verdict = EligibilityVerdict.IMAGE_AND_BUILD_DISAGREE
    return Eligibility(verdict, line, entry)


_BUILD = re.compile(r"^\d{5}(?:\.|$)")


def has_build(os_build: str) -> bool:
    """Whether the text names an OS build, of any Windows."""
    return _BUILD.match(plain_build(os_build)) is not None


@lru_cache(maxsize=1_000)  # a fleet has few builds
def line_of_build(os_build: str) -> ProductLine | None:
    """The product line of an OS build such as 20348.5074, None for any other."""
    prefix = plain_build(os_build).partition(".")[0]
    return next((line for line in ProductLine if line.build_prefix == prefix), None)


_AZURE_EDITION = re.compile(r"azure edition|turbine", re.IGNORECASE)  # its name, and Windows' own word for it
_WITH_LICENCE = re.compile(r"standard|datacenter", re.IGNORECASE)
_FIRST_BUILD = 1742  # of Windows Server 2025: those before it take no hotpatches


def needs_licence(edition: str) -> bool:
    """Whether this edition is hotpatched only while its machine is enrolled for it; Azure Edition is by itself."""
    return _WITH_LICENCE.search(edition) is not None and _AZURE_EDITION.search(edition) is None


def _judge_edition(edition: str, platform: Platform, os_build: str) -> Eligibility:
    # Windows 11 has the builds of Windows Server 2025.
    line = line_of_build(os_build) if "server" in edition.lower() else None
    revision = plain_build(os_build).partition(".")[2].partition(".")[0]
    if platform is Platform.OTHER:
        verdict = EligibilityVerdict.PLATFORM_NOT_SUPPORTED
    elif line is not None and _AZURE_EDITION.search(edition):
        verdict = EligibilityVerdict.ELIGIBLE
    elif line is not ProductLine.WS2025 or not _WITH_LICENCE.search(edition):
        verdict = EligibilityVerdict.EDITION_NOT_SUPPORTED
    elif not revision.isdecimal() or int(revision) < _FIRST_BUILD:
        verdict = EligibilityVerdict.BUILD_TOO_OLD
    else:
        verdict = EligibilityVerdict.ELIGIBLE
    return Eligibility(verdict, line, is_by_edition=True)


def _verdict(
    image: ImageReference,
    entry: CatalogImage | None,
    platform: Platform,
    orchestration: ScaleSetOrchestration,
) -> EligibilityVerdict:
    if platform is Platform.OTHER:
        return EligibilityVerdict.PLATFORM_NOT_SUPPORTED
    if orchestration is ScaleSetOrchestration.UNIFORM:
        return EligibilityVerdict.UNIFORM_SCALE_SET
    if is_container_base_image(image):
        return EligibilityVerdict.CONTAINER_BASE_IMAGE
    if image.resource_id:
        return EligibilityVerdict.CUSTOM_IMAGE
    if not (image.publisher or image.offer or image.sku):
        return EligibilityVerdict.NO_IMAGE
    return EligibilityVerdict.ELIGIBLE if entry else EligibilityVerdict.IMAGE_NOT_IN_CATALOG
