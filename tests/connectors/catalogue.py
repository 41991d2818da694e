"""The recorded catalogue as connectors take it, read without Django."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from connectors.catalogue import Catalogue
from patching.release_files import load_other_updates, load_releases, patch_of_release

DATA = Path(__file__).resolve().parents[2] / "updates" / "data"


@lru_cache(maxsize=1)
def recorded() -> Catalogue:
    """Everything that comes with the portal."""
    releases = load_releases(json.loads((DATA / "hotpatch_releases.json").read_text()))
    others = load_other_updates(json.loads((DATA / "other_updates.json").read_text()))
    patches = {patch.key: patch for patch in others}
    patches |= {patch.key: patch for release in releases if (patch := patch_of_release(release))}
    return Catalogue(releases=releases, patches=tuple(patches.values()))
