"""What may go wrong on a simulated machine; the machine's tag `simulate` asks for it (docs/simulator.md)."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from patching.terms import Patch

MISFORTUNE_TAG = "simulate"


class Misfortune(StrEnum):
    """What a machine suffers if its tag `simulate` has this word; `fail` and `lies` name an update: `fail:KB5087424`."""

    FAIL = "fail"
    LIES = "lies"
    WINDOW_EXCEEDED = "window-exceeded"
    REBOOT_HANGS = "reboot-hangs"
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    AGENT_NOT_READY = "agent-not-ready"
    LOST_ANSWER = "lost-answer"
    SILENT = "silent"

    @property
    def names_an_update(self) -> bool:
        """Whether it happens with one update (or `any`)."""
        return self in {Misfortune.FAIL, Misfortune.LIES}


@lru_cache(maxsize=4_096)
def wishes_of(tags: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """The misfortunes that a VM's tags ask for."""
    text = next((value for key, value in tags if key == MISFORTUNE_TAG), "")
    return frozenset(word.strip().lower() for word in text.replace(",", " ").split())


def is_wished(wishes: frozenset[str], misfortune: Misfortune, patch: Patch) -> bool:
    """Whether the tag asks for this misfortune with this patch: `fail:any`, `fail:5087424`, `fail:KB5087424`."""
    if not wishes:
        return False
    names = {f"{misfortune}:any", f"{misfortune}:{patch.kb_number}", f"{misfortune}:kb{patch.kb_number}"}
    return bool(names & wishes)
