"""Reading recorded releases and other updates, row by row (docs/catalogue-files.md), and what a release is offered as."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TypeVar

from patching.releases import second_tuesday
from patching.terms import (
    HOTPATCH_TYPES,
    PRODUCT_TITLES,
    Audience,
    Channel,
    Classification,
    Patch,
    ProductLine,
    RebootBehavior,
    Release,
    ReleaseType,
)

RELEASE_FIELDS = frozenset(
    {
        "product",
        "month",
        "release_date",
        "type",
        "planned",
        "kb",
        "build",
        "status",
        "source",
        "evidence",
        "note",
        "channel",
        "audience",
        "corrects",
    }
)
OTHER_FIELDS = frozenset({"product", "month", "kb", "title", "classification", "source", "evidence", "note"})
_LONGEST = {"title": 300, "evidence": 200, "source": 2_000, "note": 2_000, "build": 20}
_SHOWN = 60
_YEARS = range(2000, 2101)

# The same digits as in lists of KB articles (patching.kb_numbers).
_KB = re.compile(r"(?:KB)?([0-9]{6,7})", re.IGNORECASE)
_BUILD = re.compile(r"(?:10\.0\.)?([0-9]{5}\.[0-9]{1,6})")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class RowProblem(StrEnum):
    """What is wrong with a field of a row. `updates.texts` has the words."""

    NO_OBJECT = "no_object"
    NEITHER_KIND = "neither_kind"  # neither `type` nor `title`
    MISSING = "missing"
    NO_TEXT = "no_text"
    TOO_LONG = "too_long"
    NO_PRODUCT = "no_product"
    NO_MONTH = "no_month"
    NO_DAY = "no_day"
    OUTSIDE_MONTH = "outside_month"  # a monthly release whose day lies in another month
    NO_TYPE = "no_type"
    NO_STATUS = "no_status"
    NO_TRUTH = "no_truth"
    NO_KB = "no_kb"
    NO_BUILD = "no_build"
    OTHER_LINE = "other_line"  # a build of another product line
    NO_CHANNEL = "no_channel"
    NO_AUDIENCE = "no_audience"
    NO_CLASSIFICATION = "no_classification"


class FileProblem(StrEnum):
    """Why a file, or a row beside what is recorded, cannot be used. `updates.texts` has the words."""

    NOT_UTF8 = "not_utf8"
    NO_JSON = "no_json"
    NO_LIST = "no_list"
    NO_TABLE = "no_table"
    TOO_MANY_ROWS = "too_many_rows"
    BAD_LINE = "bad_line"
    CELLS = "cells"
    COLUMN_TWICE = "column_twice"
    NEITHER_KIND = "neither_kind"
    OTHER_TYPE = "other_type"
    OTHER_OF_MONTH = "other_of_month"
    IS_RELEASE = "is_release"


class ReleaseDataError(ValueError):
    """A row that cannot be read: its number (from 1), the field, the problem, and the value as text, shortened."""

    def __init__(self, row: int, field: str, problem: RowProblem, value: object = None) -> None:
        self.row, self.field, self.problem, self.value = row, field, problem, shown(value)
        super().__init__(f"Row {row}, {field}: {problem} {self.value}".rstrip())


def shown(value: object) -> str:
    """A value as a message can show it: short, on one line, without what cannot be printed. None is nothing."""
    text = "" if value is None else str(value)
    plain = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: _SHOWN + 1])
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}…"


def plain(text: str) -> str:
    """Text as it was meant: full-width characters as their plain twins, without invisible ones, trimmed."""
    return "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf").strip()


# --- releases ----------------------------------------------------------------------------------------------------


def load_releases(documents: Iterable[Mapping[str, object]]) -> tuple[Release, ...]:
    """Read recorded releases (rows counted from 1). A missing date is the second Tuesday, marked as inferred."""
    return tuple(read_release(number, row) for number, row in enumerate(documents, start=1))


def read_release(number: int, row: Mapping[str, object]) -> Release:
    """Read one release. Raises ReleaseDataError, which names row and field."""
    if not isinstance(row, Mapping):
        raise ReleaseDataError(number, "row", RowProblem.NO_OBJECT, row)
    line = _line(number, row.get("product"))
    month = _month(number, row.get("month"))
    kind = _word(number, row, "type", ReleaseType, RowProblem.NO_TYPE)
    day = _day(number, kind, month, row.get("release_date"))
    status = _status(number, row)
    _check_texts(number, row)
    return Release(
        product_line=line,
        month=month,
        type=kind,
        released_on=day or second_tuesday(month),
        kb_number=_kb(number, row),
        build=_build(number, line, row),
        is_planned=_planned(number, kind, row),
        is_date_inferred=day is None,
        is_scheduled=status == "scheduled",
        channel=_word(number, row, "channel", Channel, RowProblem.NO_CHANNEL, Channel.UNKNOWN),
        audience=_word(number, row, "audience", Audience, RowProblem.NO_AUDIENCE, Audience.UNKNOWN),
        is_type_confirmed=is_type_primary(read_text(number, row, "evidence")),
    )


def is_type_primary(evidence: str) -> bool:
    """Whether the evidence word says that a primary source gives the release's *type* (docs/catalogue-files.md).

    What is said of the type decides: "type secondary; KB/build primary" does not confirm it. Where nothing is said of
    the type, "primary" alone covers the whole row; "build primary" covers the build only.
    """
    parts = [part.strip().casefold() for part in re.split(r"[;,]", evidence)]
    of_type = [part for part in parts if re.search(r"\btypes?\b", part)]
    if of_type:
        return all(re.search(r"\bprimary\b", part) for part in of_type)
    return "primary" in parts


def _planned(number: int, kind: ReleaseType, row: Mapping[str, object]) -> bool | None:
    """`planned` means something on baselines only. That a hotpatch was planned says nothing, and is not kept."""
    planned = read_truth(number, row, "planned")
    return planned if kind is ReleaseType.BASELINE else None


def _status(number: int, row: Mapping[str, object]) -> str:
    text = plain(read_text(number, row, "status")).casefold()
    if not text and (row.get("kb") or row.get("build")):
        return "released"  # what is only announced has neither
    if text not in {"released", "scheduled"}:
        raise ReleaseDataError(number, "status", RowProblem.NO_STATUS, row.get("status"))
    return text


def _build(number: int, line: ProductLine, row: Mapping[str, object]) -> str:
    text = plain(read_text(number, row, "build"))
    if not text:
        return ""
    found = _BUILD.fullmatch(text)
    if found is None:
        raise ReleaseDataError(number, "build", RowProblem.NO_BUILD, text)
    if not found[1].startswith(f"{line.build_prefix}."):
        raise ReleaseDataError(number, "build", RowProblem.OTHER_LINE, text)
    return found[1]


# --- what a release is offered as --------------------------------------------------------------------------------

# Windows Update's titles. The short form came with November 2025 and Windows Server 2025; a month earlier its titles had
# begun to name the build. Those of Windows Server 2022 stayed as they were (seen up to 2026-09). No title of a server's
# hotpatch was found: its form is the one of the client's ("<month> Hotpatch Cumulative Update for …").
_SYSTEMS = {
    ProductLine.WS2022: "Microsoft server operating system version 21H2 for x64-based Systems",
    ProductLine.WS2025: "Microsoft server operating system version 24H2 for x64-based Systems",
}
_NAMES_BUILD_SINCE = {ProductLine.WS2025: date(2025, 10, 1)}
_SHORT_SINCE = {ProductLine.WS2025: date(2025, 11, 1)}


def title_of_release(release: Release) -> str:
    """The title under which Windows Update offers a release."""
    line, month = release.product_line, release.month
    is_hotpatch = release.type in HOTPATCH_TYPES
    if not is_hotpatch and month >= _SHORT_SINCE.get(line, date.max):
        name = "Security Update"
    else:
        name = f"{'Hotpatch ' if is_hotpatch else ''}Cumulative Update for {_SYSTEMS[line]}"
    names_build = release.build and month >= _NAMES_BUILD_SINCE.get(line, date.max)
    return f"{month:%Y-%m} {name} (KB{release.kb_number})" + (f" ({release.build})" if names_build else "")


def patch_of_release(release: Release) -> Patch | None:
    """The patch that a release is offered as; None without a KB."""
    if not release.kb_number:
        return None
    is_hotpatch = release.type in HOTPATCH_TYPES
    return Patch(
        kb_number=release.kb_number,
        title=title_of_release(release),
        classification=Classification.SECURITY,
        reboot_behavior=RebootBehavior.NEVER_REBOOTS if is_hotpatch else RebootBehavior.ALWAYS_REQUIRES_REBOOT,
        product_line=release.product_line,
        published_on=release.released_on,
        release_type=release.type,
    )


# --- other updates -----------------------------------------------------------------------------------------------


def load_other_updates(documents: Iterable[Mapping[str, object]]) -> tuple[Patch, ...]:
    """Read recorded updates that are no monthly OS patch (rows counted from 1)."""
    return tuple(read_other_update(number, row) for number, row in enumerate(documents, start=1))


def read_other_update(number: int, row: Mapping[str, object]) -> Patch:
    """Read one update that is no monthly OS patch. Raises ReleaseDataError, which names row and field.

    Without a class it is `Updates`; without a product it is for every line; a month becomes its second Tuesday.
    """
    if not isinstance(row, Mapping):
        raise ReleaseDataError(number, "row", RowProblem.NO_OBJECT, row)
    title, kb_number = read_text(number, row, "title"), _kb(number, row)
    if not title:
        raise ReleaseDataError(number, "title", RowProblem.MISSING)
    if not kb_number:
        raise ReleaseDataError(number, "kb", RowProblem.MISSING)
    classification = _word(
        number, row, "classification", Classification, RowProblem.NO_CLASSIFICATION, Classification.UPDATES
    )
    month = row.get("month")
    _check_texts(number, row)
    return Patch(
        kb_number=kb_number,
        title=title,
        classification=classification,
        reboot_behavior=RebootBehavior.NEVER_REBOOTS
        if classification is Classification.DEFINITION
        else RebootBehavior.CAN_REQUEST_REBOOT,
        product_line=None if row.get("product") is None else _line(number, row.get("product")),
        published_on=None if month is None else second_tuesday(_month(number, month)),
    )


# --- fields ------------------------------------------------------------------------------------------------------

Word = TypeVar("Word", bound=StrEnum)
_LINES = {name.casefold(): line for line, title in PRODUCT_TITLES.items() for name in (title, line.value)} | {
    "windows server 2022": ProductLine.WS2022,  # as Microsoft's release list calls it
    "windows server 2025 datacenter: azure edition": ProductLine.WS2025,
}


def _word(
    number: int,
    row: Mapping[str, object],
    field: str,
    words: type[Word],
    problem: RowProblem,
    default: Word | None = None,
) -> Word:
    """A word of an enum, compared without case."""
    text = plain(read_text(number, row, field))
    if not text and default is not None:
        return default
    known = {word.value.casefold(): word for word in words}
    if (found := known.get(text.casefold())) is None:
        raise ReleaseDataError(number, field, problem if text else RowProblem.MISSING, text)
    return found


def _line(number: int, value: object) -> ProductLine:
    if value is None:
        raise ReleaseDataError(number, "product", RowProblem.MISSING)
    text = " ".join(plain(value).split()) if isinstance(value, str) else ""
    line = _LINES.get(text.casefold())
    if line is None:
        raise ReleaseDataError(number, "product", RowProblem.NO_PRODUCT, value)
    return line


def _month(number: int, value: object) -> date:
    if value is None:
        raise ReleaseDataError(number, "month", RowProblem.MISSING)
    text = plain(value) if isinstance(value, str) else ""
    try:
        month = datetime.strptime(text if _MONTH.fullmatch(text) else "", "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise ReleaseDataError(number, "month", RowProblem.NO_MONTH, value) from None
    if month.year not in _YEARS:
        raise ReleaseDataError(number, "month", RowProblem.NO_MONTH, value)
    return month


def _day(number: int, kind: ReleaseType, month: date, value: object) -> date | None:
    """The day of a release. Out-of-band releases may come after the month that Microsoft counts them to."""
    if value is None:
        return None
    text = plain(value) if isinstance(value, str) else ""
    try:
        day = date.fromisoformat(text if _DAY.fullmatch(text) else "")
    except ValueError:
        raise ReleaseDataError(number, "release_date", RowProblem.NO_DAY, value) from None
    if day.year not in _YEARS:
        raise ReleaseDataError(number, "release_date", RowProblem.NO_DAY, value)
    is_monthly = kind in {ReleaseType.BASELINE, ReleaseType.HOTPATCH, ReleaseType.LCU}
    if is_monthly and day.replace(day=1) != month:
        raise ReleaseDataError(number, "release_date", RowProblem.OUTSIDE_MONTH, value)
    return day


def _kb(number: int, row: Mapping[str, object]) -> str:
    text = "".join(plain(read_text(number, row, "kb")).split())
    if not text:
        return ""
    found = _KB.fullmatch(text)
    if found is None:
        raise ReleaseDataError(number, "kb", RowProblem.NO_KB, text)
    return found[1]


def read_truth(number: int, row: Mapping[str, object], field: str) -> bool | None:
    """True, false, or None where nothing is said."""
    value = row.get(field)
    if value is not None and not isinstance(value, bool):
        raise ReleaseDataError(number, field, RowProblem.NO_TRUTH, value)
    return value


def _check_texts(number: int, row: Mapping[str, object]) -> None:
    for field in ("source", "evidence", "note"):
        read_text(number, row, field)


def read_text(number: int, row: Mapping[str, object], field: str) -> str:
    """A text field, trimmed; empty where nothing is said."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str) or "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ReleaseDataError(number, field, RowProblem.NO_TEXT, value)
    if len(value.strip()) > _LONGEST.get(field, 100):
        raise ReleaseDataError(number, field, RowProblem.TOO_LONG, value)
    return value.strip()


# --- the title of an update that no file told --------------------------------------------------------------------

_TITLE_MONTH = re.compile(r"([0-9]{4}-[0-9]{2}) ")
_TITLE_BUILD = re.compile(r"\(([0-9]{5}\.[0-9]{1,6})\)\s*$")


def month_of_title(title: str) -> date | None:
    """The month that an update's title begins with ("2026-09 Security Update …"), None where it names none."""
    found = _TITLE_MONTH.match(title)
    try:
        return _month(0, found[1]) if found else None
    except ReleaseDataError:
        return None


def build_of_title(title: str, line: ProductLine) -> str:
    """The build of the line that an update's title ends with, empty where it names none."""
    found = _TITLE_BUILD.search(title)
    return found[1] if found and found[1].startswith(f"{line.build_prefix}.") else ""
