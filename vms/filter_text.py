"""The filters of the list as words: what a person types into its search, and what tells a list to somebody else.

`track:off location:japaneast kb:5087424 "rg:my group" web` means three filters, a resource group, and a search for “web”. Each
word is the filter of the address by a shorter name, so that both mean the same machines. A word or a value that nobody
knows is named: it is never left out, and never searched for instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from patching.orchestrator import Patcher
from patching.terms import Classification, HotpatchStatus, HotpatchTrack, ProductLine, UpdateStatus
from vms.choices import Condition, PowerState, SelectionProblem
from vms.selectors import FilterOptions

# The words of the values of a filter; where a filter has none here, its value is its word.
VALUES: dict[str, dict[str, str]] = {
    "update_status": {
        "none": UpdateStatus.NO_UPDATES_AVAILABLE.value,
        "updates": UpdateStatus.UPDATES_AVAILABLE.value,
        "reboot": UpdateStatus.REBOOT_REQUIRED.value,
        "no-data": UpdateStatus.NO_UPDATES_DATA.value,
        "unsupported": UpdateStatus.UNSUPPORTED.value,
    },
    "hotpatch_status": {
        "enabled": HotpatchStatus.ENABLED.value,
        "disabled": HotpatchStatus.DISABLED.value,
        "not-available": HotpatchStatus.NOT_AVAILABLE.value,
        "pending": HotpatchStatus.PENDING_EVALUATION.value,
    },
    "hotpatch_track": {
        "on": HotpatchTrack.ON_TRACK.value,
        "on-as-far-as-known": HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN.value,
        "due": HotpatchTrack.BASELINE_DUE.value,
        "overdue": HotpatchTrack.BASELINE_OVERDUE.value,
        "waits": HotpatchTrack.WAITS_FOR_REBOOT.value,
        "off": HotpatchTrack.OFF_TRACK_SINCE_KB.value,
        "not-on-train": HotpatchTrack.NOT_ON_TRAIN.value,
        "newer": HotpatchTrack.NEWER_THAN_CATALOGUE.value,
        "unknown": HotpatchTrack.UNKNOWN.value,
    },
    "patcher": {
        "nobody": Patcher.NOBODY.value,
        "windows": Patcher.GUEST_OS.value,
        "azure": Patcher.PLATFORM.value,
        "portal": Patcher.PORTAL_AUTOMATICALLY.value,
        "schedule": Patcher.PORTAL_BY_SCHEDULE.value,
    },
    "settings": {"differ": "differ"},
    "power_state": {state.value: state.value for state in PowerState},
    "gone": {"no": "no", "yes": "yes"},
    "product_line": {line.value: line.value for line in ProductLine},
    "condition": {condition.value.replace("_", "-"): condition.value for condition in Condition},
}
NEXT_PATCH_TUESDAY = "next"  # in place of the month in which machines reboot
# The word of each filter but the search itself, in the order in which they are told.
WORDS = {
    "status": "update_status",
    "track": "hotpatch_track",
    "is": "condition",
    "kb": "lacks",
    "lacks": "lacks",
    "hotpatch": "hotpatch_status",
    "patcher": "patcher",
    "settings": "settings",
    "connection": "connection",
    "subscription": "subscription",
    "rg": "resource_group",
    "location": "location",
    "power": "power_state",
    "gone": "gone",
    "line": "product_line",
    "tag": "tag",
    "trouble": "trouble",
    "has": "has",
    "failed": "failed",
    "held": "held",
    "reboot": "reboots",
    "coverage": "coverage",
}
# These are written by their names, and by their ids where a name is not the only one.
NAMED = ("connection", "subscription")
OF_ONE_KB = ("kb", "has", "failed", "held")
_KB = re.compile(r"(?:kb)?(\d{4,10})", re.ASCII | re.IGNORECASE)
# A KB by itself is no name of a machine.
_KB_ALONE = re.compile(r"kb\d{6,8}", re.ASCII | re.IGNORECASE)
_COLON = re.compile("[:\N{FULLWIDTH COLON}]")
_SAYS_FILTERS = re.compile('[:\N{FULLWIDTH COLON}"]|kb\\d{6}', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unread:
    """A word of the text that means nothing: what is wrong, the filter (or the word that names none), and its value."""

    kind: SelectionProblem
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ReadText:
    """What a text asks for: the words to search names for, filters by their names, and what could not be read."""

    search: str
    filters: Mapping[str, str]
    unread: tuple[Unread, ...] = ()


def says_filters(text: str) -> bool:
    """Whether there can be more than words to search for in this text."""
    return _SAYS_FILTERS.search(text) is not None


def read_text(text: str, options: FilterOptions) -> ReadText:
    """What the text asks for, by what the reader may choose from."""
    search: list[str] = []
    filters: dict[str, str] = {}
    unread: list[Unread] = []
    for token in _tokens(text):
        word, colon, value = _parts(token)
        if not colon:
            search.append(token)
            continue
        name = WORDS.get(word.casefold(), "")
        meant = _meant(word.casefold(), name, value, options) if name else None
        if not name:
            unread.append(Unread(SelectionProblem.UNKNOWN_WORD, word, value))
        elif meant is None:
            unread.append(Unread(SelectionProblem.UNKNOWN_VALUE, name, value))
        elif filters.setdefault(name, meant) != meant:
            unread.append(Unread(SelectionProblem.GIVEN_TWICE, name, f"{filters[name]}, {meant}"))
    return ReadText(" ".join(search), filters, tuple(unread))


def write_text(narrowing: Mapping[str, str], options: FilterOptions) -> str:
    """The text that `read_text` reads as these filters; `q` is the search."""
    found = []
    for word, name in WORDS.items():
        if name not in narrowing or (name == "lacks" and (word == "kb") != narrowing[name].isdigit()):
            continue
        value = narrowing[name]
        if name in NAMED:
            value = _name_of(value, getattr(options, f"{name}s"))
        elif name in VALUES:
            value = next((short for short, long in VALUES[name].items() if long == value), value)
        found.append(_quoted(f"{word}:{value}"))
    return " ".join([*found, *filter(None, [narrowing.get("q", "")])])


def _tokens(text: str) -> Iterator[str]:
    """The text split at blanks that are not within quotes; two quotes within quotes are one."""
    token, is_quoted, is_token = "", False, False
    signs = iter(range(len(text)))
    for place in signs:
        sign = text[place]
        if sign == '"' and is_quoted and text[place + 1 : place + 2] == '"':
            token += sign
            next(signs)
        elif sign == '"':
            is_quoted, is_token = not is_quoted, True
        elif sign.isspace() and not is_quoted:
            if is_token:
                yield token
            token, is_token = "", False
        else:
            token, is_token = token + sign, True
    if is_token:
        yield token


def _parts(token: str) -> tuple[str, bool, str]:
    """The word, whether it names a filter, and the value."""
    if _KB_ALONE.fullmatch(token):
        return "kb", True, token
    parts = _COLON.split(token, maxsplit=1)
    return (parts[0].strip(), True, parts[1].strip()) if len(parts) == 2 else (token, False, "")


def _meant(word: str, name: str, value: str, options: FilterOptions) -> str | None:
    """The value of the filter that is meant; None where the filter knows no such value, or the reader may not see it."""
    if not value:
        return None
    if name in NAMED:
        return _id_of(value, getattr(options, f"{name}s"))
    if word in OF_ONE_KB:
        number = _KB.fullmatch(value)
        return number[1] if number else None
    if name == "lacks":
        classes = {each.value.casefold(): each.value for each in Classification}
        return classes.get(value.casefold(), value)
    if name not in VALUES:
        return value
    known = {long.casefold(): long for long in VALUES[name].values()} | VALUES[name]
    return known.get(value.casefold())


def _id_of(value: str, offered: tuple[tuple[str, str], ...]) -> str | None:
    """The id of what has this name (without case), or this id; None where it is not one thing."""
    found = [pk for pk, name in offered if name.casefold() == value.casefold()]
    if not found:
        found = [pk for pk, _name in offered if pk == value]
    return found[0] if len(found) == 1 else None


def _name_of(pk: str, offered: tuple[tuple[str, str], ...]) -> str:
    """The name of what has this id, where it leads back to it; else the id."""
    name = dict(offered).get(pk, pk)
    return name if _id_of(name, offered) == pk else pk


def _quoted(token: str) -> str:
    is_plain = not any(sign.isspace() or sign == '"' for sign in token)
    return token if is_plain else '"{}"'.format(token.replace('"', '""'))
