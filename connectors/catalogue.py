"""The catalogue of releases and patches, as connectors that simulate or explain need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from patching.terms import Patch, ProductLine, Release


@dataclass(frozen=True)
class Catalogue:
    """Everything recorded: OS releases, and patches (one for every release with a KB, and all others)."""

    releases: tuple[Release, ...]
    patches: tuple[Patch, ...]

    @cached_property
    def patch_by_key(self) -> Mapping[str, Patch]:
        """Patches by catalogue key."""
        return {patch.key: patch for patch in self.patches}

    @cached_property
    def releases_by_line(self) -> Mapping[ProductLine, tuple[Release, ...]]:
        """Releases of each product line."""
        return {
            line: tuple(release for release in self.releases if release.product_line is line) for line in ProductLine
        }

    @cached_property
    def release_by_kb(self) -> Mapping[tuple[ProductLine, str], Release]:
        """Releases by product line and KB."""
        return {(release.product_line, release.kb_number): release for release in self.releases if release.kb_number}

    def patch_for(self, release: Release) -> Patch | None:
        """The patch of a release, None where it has no KB or is not in the catalogue."""
        return self.patch_by_key.get(f"{release.product_line}:{release.kb_number}")
