"""The catalogue of patches and releases as the rules and the connectors take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.catalogue import Catalogue
from patching import terms
from updates.models import Patch, Release


@dataclass(frozen=True, slots=True)
class LoadedCatalogue:
    """The catalogue as facts, and the way from a row's primary key to its facts."""

    facts: Catalogue
    patches_by_pk: Mapping[int, terms.Patch]


def load_catalogue() -> LoadedCatalogue:
    """Everything that is recorded, in two queries (some hundreds of rows)."""
    by_pk = {patch.pk: patch.facts for patch in Patch.objects.order_by("pk")}
    releases = tuple(Release.objects.order_by("product_line", "released_on", "pk").facts())
    return LoadedCatalogue(facts=Catalogue(releases=releases, patches=tuple(by_pk.values())), patches_by_pk=by_pk)
