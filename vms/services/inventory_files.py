"""Reading an inventory file (`az vm list -o json`, ARM's list response, one VM) into rows of plain facts.

No database here. A file that cannot be read raises `InventoryFileError`; a row that cannot be used is a `BadRow`
that names itself, and the rows around it are still read. Rows are decoded one at a time, so that a row which is
nested too deeply for the JSON decoder costs nothing but itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from vms.services.inventory_rows import (
    NESTED_TOO_DEEPLY,
    NUMBER_TOO_LARGE,
    BadRow,
    VmFacts,
    row_facts,
    row_identity,
)

_MAX_INTEGER_DIGITS = 18  # what a 64-bit column always holds
_SHOWN_DUPLICATES = 5


class InventoryFileError(Exception):
    """The file as a whole cannot be used. `message` is translated text for the person who offered it."""

    def __init__(self, message: str | Promise) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the file, numbered from 1."""

    number: int
    arm_id: str  # as far as it could be read, lower case
    name: str
    content: VmFacts | BadRow


@dataclass(frozen=True, slots=True)
class Inventory:
    """A readable file. `has_more_pages`: ARM printed a nextLink, so this is not the whole list."""

    rows: tuple[Row, ...]
    has_more_pages: bool


# --- the file ----------------------------------------------------------------------------------------------------


def read_inventory(data: bytes) -> Inventory:
    """Every row of the file, or `InventoryFileError` saying precisely what is wrong with it."""
    decoded = _Reader(_text(data)).read()
    _refuse_duplicates(decoded.rows)
    return decoded


def _text(data: bytes) -> str:
    # Windows PowerShell redirects in UTF-16 with a byte order mark; detect_encoding knows all that JSON allows.
    try:
        text = data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise InventoryFileError(
            _("This file is not text in UTF-8: the byte at position %(position)d cannot be read.")
            % {"position": error.start + 1}
        ) from None
    if not text.strip(" \t\r\n\ufeff"):
        raise InventoryFileError(_("The file is empty."))
    return text.removeprefix("\ufeff")


def _parse_integer(digits: str) -> int | object:
    return int(digits) if len(digits.lstrip("-")) <= _MAX_INTEGER_DIGITS else NUMBER_TOO_LARGE


def _parse_float(digits: str) -> float | object:
    number = float(digits)
    return number if math.isfinite(number) else NUMBER_TOO_LARGE


# NaN and Infinity are not JSON, yet Python's decoder takes them; strict=False leaves control characters to the check
# of each row, which can name it.
_DECODER = json.JSONDecoder(
    parse_int=_parse_integer,
    parse_float=_parse_float,
    parse_constant=lambda _name: NUMBER_TOO_LARGE,
    strict=False,
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")


class _Reader:
    """Walks the outermost list or object by hand and decodes what is inside one value at a time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._row = 0
        self._rows: list[Row] = []

    def read(self) -> Inventory:
        more = False
        self._skip_space()
        if self._peek() == "[":
            self._read_list()
        elif self._peek() == "{":
            more = self._read_object()
        else:
            self._value()
            raise self._wrong_shape()
        self._skip_space()
        if self._at < len(self._text):
            raise self._malformed(self._at)
        return Inventory(rows=tuple(self._rows), has_more_pages=more)

    def _read_list(self) -> None:
        for _item in self._items("]"):
            self._row += 1
            self._rows.append(_row(self._row, self._value()))
        self._row = 0

    def _read_object(self) -> bool:
        """ARM's `{"value": […], "nextLink": …}`, or one VM. True: there are more pages."""
        members: dict[str, Any] = {}
        is_list = False
        for _item in self._items("}"):
            key = self._value()
            if not isinstance(key, str):
                raise self._malformed(self._at)
            self._expect(":")
            if key == "value" and self._peek() == "[":
                if is_list:
                    raise self._wrong_shape()
                is_list = True
                self._read_list()
            else:
                members[key] = self._value()
        if is_list:
            return bool(members.get("nextLink"))
        if not ({"id", "storageProfile", "properties"} & members.keys()):
            raise self._wrong_shape()
        self._rows.append(_row(1, members))
        return False

    def _items(self, closing: str) -> Iterator[None]:
        """Yields where each item starts; the body reads it."""
        self._at += 1
        self._skip_space()
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            yield
            self._skip_space()
            sign = self._peek()
            if sign == closing:
                self._at += 1
                return
            self._expect(",")

    def _value(self) -> Any:
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except RecursionError:
            self._at = self._end_of_nested_value()
            return NESTED_TOO_DEEPLY
        except json.JSONDecodeError as error:
            raise self._malformed(error.pos, is_open="Unterminated" in error.msg) from None
        return value

    def _end_of_nested_value(self) -> int:
        depth = 0
        for token in _TOKEN.finditer(self._text, self._at):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
            if depth == 0:
                return token.end()
        raise self._malformed(len(self._text))

    def _expect(self, sign: str) -> None:
        self._skip_space()
        if self._peek() != sign:
            raise self._malformed(self._at)
        self._at += 1
        self._skip_space()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_space(self) -> None:
        self._at = cast(re.Match[str], _SPACE.match(self._text, self._at)).end()

    def _malformed(self, position: int, *, is_open: bool = False) -> InventoryFileError:
        before = self._text[:position]
        where = {
            "line": before.count("\n") + 1,
            "column": position - before.rfind("\n"),
            "row": self._row,
        }
        if is_open or not self._text[position:].strip():
            message = (
                _("The file is cut off in row %(row)d: line %(line)d, column %(column)d.")
                if self._row
                else _("The file is cut off: line %(line)d, column %(column)d.")
            )
        else:
            message = (
                _("This is not valid JSON: line %(line)d, column %(column)d, in row %(row)d.")
                if self._row
                else _("This is not valid JSON: line %(line)d, column %(column)d.")
            )
        return InventoryFileError(message % where)

    def _wrong_shape(self) -> InventoryFileError:
        return InventoryFileError(
            _(
                "This is JSON, but not a list of virtual machines. "
                "Expected is what “az vm list -o json” prints, or the list response of Azure Resource Manager."
            )
        )


def _refuse_duplicates(rows: tuple[Row, ...]) -> None:
    numbers: dict[str, list[int]] = {}
    for row in rows:
        if row.arm_id:
            numbers.setdefault(row.arm_id, []).append(row.number)
    twice = {arm_id: found for arm_id, found in numbers.items() if len(found) > 1}
    if not twice:
        return
    named = "; ".join(
        f"{arm_id[:500]} ({', '.join(map(str, found[:10]))})"
        for arm_id, found in list(twice.items())[:_SHOWN_DUPLICATES]
    )
    message = ngettext_lazy(
        "%(count)d resource id is in the file more than once (rows in brackets): %(ids)s",
        "%(count)d resource ids are in the file more than once (rows in brackets): %(ids)s",
        "count",
    )
    if len(twice) > _SHOWN_DUPLICATES:
        named += " …"
    raise InventoryFileError(message % {"count": len(twice), "ids": named})


def _row(number: int, value: object) -> Row:
    arm_id, name = row_identity(value)
    return Row(number=number, arm_id=arm_id, name=name, content=row_facts(value))
