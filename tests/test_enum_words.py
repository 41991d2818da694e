"""Every member of every enum of the rules has its words: a new one without any fails here, not on somebody's page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from enum import Enum, StrEnum
from pathlib import Path
from types import ModuleType

import pytest

import patching
import updates
import vms
from vms.filters import FILTER_NAMES, VmFilter

ROOT = Path(__file__).resolve().parents[1]
# What no person reads, and why.
UNREAD = {
    "Step": "what the engine does next",
    "Admission": "what a door does with a request; the answer is worded where it is given",
    "Meeting": "how an import treats a row; the report words it",
    "HealthVerdict": "what becomes of a rollout's member, which has a code",
    "Frequency": "a word of Azure's expression, which is shown as it stands",
    "KbProblem": "worded with the entry that is refused, in the form's field",
    "RollbackRefusal": "a code of an operation, worded as an error",
    "Answer": "whether time is left before a freeze, which is worded with the time",
    "RunWork": "decides which of three sentences the review has",
    "Subscription": "ARM's word for how far an enrolment is; pages word the setting",
    "SubscriptionRequest": "what a program asks of an enrolment",
    "RunStatus": "ARM's word for an operation's state, which has its own",
}
# What a template words in its branches; one member may be the `else`.
IN_A_TEMPLATE = {
    "EligibilityVerdict": "parts/eligibility.html",
    "FreezeState": "updates/freeze_state.html",
    "Outlook": "parts/forecast.html",
}


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" not in found.name and ".management" not in found.name:
            yield importlib.import_module(found.name)


def enums() -> list[type[Enum]]:
    """The enums of the rules."""
    return [
        thing
        for module in modules(patching)
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, StrEnum) and thing.__module__ == module.__name__
    ]


def worded() -> list[set[str]]:
    """For each table of words or choices of `vms` and `updates`, the values that it has words for."""
    found = []
    for module in (*modules(vms), *modules(updates)):
        for thing in vars(module).values():
            if isinstance(thing, dict):
                keys = list(thing)
            elif isinstance(thing, list) and all(isinstance(row, tuple) and len(row) == 2 for row in thing):
                keys = [row[0] for row in thing]
            else:
                continue
            found.append({str(getattr(key, "value", key)) for key in keys if isinstance(key, (str, Enum))})
    return found


@pytest.mark.parametrize("enum", enums(), ids=lambda enum: enum.__name__)
def test_every_member_has_its_words(enum: type[Enum]) -> None:
    values = {str(member.value) for member in enum}
    if enum.__name__ in UNREAD:
        return
    if template := IN_A_TEMPLATE.get(enum.__name__):
        text = (ROOT / "templates" / template).read_text()
        assert len([value for value in values if f'"{value}"' not in text]) <= 1
        return
    nearest = max(worded(), key=lambda keys: len(keys & values) - len(keys - values) / 1000)
    assert values - nearest == set(), f"no words for these; if nobody reads them, say so in UNREAD: {enum.__name__}"


def test_the_check_finds_a_member_without_words() -> None:
    assert not any({"Security", "of tomorrow"} <= keys for keys in worded())


def test_what_the_list_keeps_in_its_address_is_what_it_filters_by() -> None:
    assert list(FILTER_NAMES) == list(VmFilter.base_filters)
