"""Reading an inventory file into rows of plain facts.

Read are the forms that people get: what `az vm list` (also with -d) prints, ARM's list response, one VM, Resource Graph's
answers (`{"data": […]}`, its table, `{"count", "data"}`), PowerShell's objects (Id, Name …), JSON lines, several of these one
after the other, with lines of text before them.

No database here. A file that cannot be read raises `InventoryFileError`; a row that cannot be used is a `BadRow`
that names itself, and the rows around it are still read. Rows are decoded one at a time as they are asked for, so that a
large file costs its text and one row, and a row that is nested too deeply for the JSON decoder nothing but itself.
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


# --- the file ----------------------------------------------------------------------------------------------------


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
# Between values of a file: blanks, the mark that begins a file (files are joined), the record separator of JSON sequences.
_SPACE = re.compile("[ \\t\\r\\n\ufeff\x1e]*")
# Where JSON of a form that is read here begins, at the start of a line.
_BEGINNING = re.compile(r"^[ \t\ufeff]*(?=\[\s*[\[{\]]|\{\s*[\"}])", re.MULTILINE)
# Where a file is JSON from its first letter on, of whatever form: nothing is passed over, and what is wrong with it is said.
_IS_JSON = re.compile(r"\[\s*(?:[\"\[{\]0-9-]|true|false|null|NaN|Infinity|$)|\{")
_LISTS = frozenset({"value", "data"})
_NEXT_PAGE = frozenset({"nextlink", "skiptoken", "skip_token", "$skiptoken", "@odata.nextlink"})
_VM_KEYS = frozenset({"id", "storageprofile", "properties"})


class InventoryReader:
    """The rows of a file, once, as they are asked for; the file as a whole is judged when the last one was.

    Iterating raises `InventoryFileError` saying precisely what is wrong, however many rows came before.
    `has_more_pages` (known at the end): the file says that it is not the whole list. `passed_over`: text before the JSON.
    """

    def __init__(self, data: bytes) -> None:
        self._text = _text(data)
        self._at = 0
        self._row = 0  # being read; 0 between rows
        self._count = 0
        self._numbers: dict[str, int] = {}
        self._twice: dict[str, list[int]] = {}
        self.has_more_pages = False
        self.passed_over = ""

    def __iter__(self) -> Iterator[Row]:
        self._pass_over()
        is_first = True
        while self._at < len(self._text):
            if self._peek() == "[":
                yield from self._read_list()
            elif self._peek() == "{":
                yield from self._read_object(is_first=is_first)
            else:
                if is_first:
                    self._value()
                    raise self._wrong_shape()
                raise self._malformed(self._at)
            is_first = False
            self._skip_space()
        _refuse_duplicates(self._twice)

    def _pass_over(self) -> None:
        """Go to where the JSON begins; a tool may have printed warnings before it."""
        self._skip_space()
        if _IS_JSON.match(self._text, self._at):
            return
        beginning = _BEGINNING.search(self._text, self._at)
        if beginning is not None:
            self.passed_over = self._text[self._at : beginning.start()].strip()[:200]
            self._at = beginning.end()

    def _read_list(self) -> Iterator[Row]:
        for _item in self._items("]"):
            self._row = self._count + 1
            yield from self._rows_of(self._value())
        self._row = 0

    def _rows_of(self, value: Any) -> Iterator[Row]:
        """The rows that a member of a list stands for: one, or those of a page or a list in it."""
        members = {key.lower(): child for key, child in value.items()} if isinstance(value, dict) else {}
        page = next((members[name] for name in sorted(_LISTS) if isinstance(members.get(name), list)), None)
        if isinstance(value, list) and value and all(isinstance(child, (dict, list)) for child in value):
            page = value
        elif page is None or "id" in members:
            yield self._numbered(value)
            return
        self._note_page(members)
        for child in page:
            yield self._numbered(child)

    def _numbered(self, value: object) -> Row:
        self._count += 1
        row = _row(self._count, value)
        if row.arm_id and row.arm_id in self._numbers:
            self._twice.setdefault(row.arm_id, [self._numbers[row.arm_id]]).append(self._count)
        elif row.arm_id:
            self._numbers[row.arm_id] = self._count
        return row

    def _note_page(self, members: dict[str, Any]) -> None:
        is_truncated = str(members.get("resulttruncated")).lower() in {"true", "1"}
        self.has_more_pages |= is_truncated or any(members.get(name) for name in _NEXT_PAGE)

    def _read_object(self, *, is_first: bool) -> Iterator[Row]:
        """A page (`{"value": […], "nextLink": …}`, `{"data": […]}`), a table, or one VM."""
        members: dict[str, Any] = {}
        original: dict[str, Any] = {}
        is_list = False
        for _item in self._items("}"):
            key = self._value()
            if not isinstance(key, str):
                raise self._malformed(self._at)
            self._expect(":")
            if key.lower() in _LISTS and self._peek() == "[":
                if is_list:
                    raise self._wrong_shape()
                is_list = True
                yield from self._read_list()
            else:
                original[key] = members[key.lower()] = self._value()
        table = _table_rows(members.get("data"))
        if is_list or table is not None:
            self._note_page(members)
            for row in table or ():
                yield self._numbered(row)
        elif is_first and not (_VM_KEYS & members.keys()):
            raise self._wrong_shape()
        else:
            yield self._numbered(original)

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
                "Expected is what “az vm list -o json” prints, the list response of Azure Resource Manager, or an answer of "
                "Resource Graph."
            )
        )


def _table_rows(data: object) -> list[dict[str, Any]] | None:
    """The rows of Resource Graph's table form; None: this is none."""
    if not isinstance(data, dict):
        return None
    columns, rows = data.get("columns"), data.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return None
    names = [str(column.get("name")) if isinstance(column, dict) else "" for column in columns]
    return [dict(zip(names, row, strict=False)) for row in rows if isinstance(row, list)]


def _refuse_duplicates(twice: dict[str, list[int]]) -> None:
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
