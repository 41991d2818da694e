"""Reading an inventory file into rows of plain facts, piece by piece.

Read are the forms that people get: what `az vm list` (also with -d) prints, ARM's list response, one VM, Resource Graph's
answers (`{"data": […]}`, its table, `{"count", "data"}`), PowerShell's objects (Id, Name …), JSON lines, several of these one
after the other, with lines of text before them.

No database here. A file that cannot be read raises `InventoryFileError`; a row that cannot be used is a `BadRow`
that names itself, and the rows around it are still read. In memory is a window of the file: a row or two beyond what was
asked for, at most `LARGEST_VALUE` characters. The state between two steps is plain data, so that another process goes on
from there. (ijson was looked at: it reads UTF-8 alone, stops at what our rows name with its place, and cannot be resumed.)
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, cast

from django.template.defaultfilters import filesizeformat
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from vms.services.inventory_rows import NESTED_TOO_DEEPLY, NUMBER_TOO_LARGE, InventoryRow, inventory_row

# The largest value that is decoded as one, in characters: a list or an object that is longer is read member by member.
LARGEST_VALUE = 4 * 1024 * 1024
_MAX_INTEGER_DIGITS = 18  # what a 64-bit column always holds
_SHOWN_DUPLICATES = 5
_WARNINGS = 256 * 1024  # how far the JSON may begin behind other text, in characters


class FileProblem(StrEnum):
    """Why a file as a whole cannot be used."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    CUT_OFF = "cut_off"
    CUT_OFF_IN_ROW = "cut_off_in_row"
    NOT_JSON = "not_json"
    NOT_JSON_IN_ROW = "not_json_in_row"
    NOT_AN_INVENTORY = "not_an_inventory"
    ROW_TOO_LARGE = "row_too_large"
    TWICE = "twice"


FILE_PROBLEMS: dict[FileProblem, Promise] = {
    FileProblem.EMPTY: _("The file is empty."),
    FileProblem.TOO_LARGE: _("The file is too large: %(size)s, allowed are %(limit)s."),
    FileProblem.NOT_UTF8: _("This file is not text in UTF-8: the byte at position %(position)d cannot be read."),
    FileProblem.CUT_OFF: _("The file is cut off: line %(line)d, column %(column)d."),
    FileProblem.CUT_OFF_IN_ROW: _("The file is cut off in row %(row)d: line %(line)d, column %(column)d."),
    FileProblem.NOT_JSON: _("This is not valid JSON: line %(line)d, column %(column)d."),
    FileProblem.NOT_JSON_IN_ROW: _("This is not valid JSON: line %(line)d, column %(column)d, in row %(row)d."),
    FileProblem.NOT_AN_INVENTORY: _(
        "This is JSON, but not a list of virtual machines. "
        "Expected is what “az vm list -o json” prints, the list response of Azure Resource Manager, or an answer of "
        "Resource Graph."
    ),
    FileProblem.ROW_TOO_LARGE: _("Row %(row)d is larger than %(limit)s: that is no virtual machine."),
    FileProblem.TWICE: ngettext_lazy(
        "%(count)d resource id is in the file more than once (rows in brackets): %(ids)s",
        "%(count)d resource ids are in the file more than once (rows in brackets): %(ids)s",
        "count",
    ),
}


class InventoryFileError(Exception):
    """The file as a whole cannot be used. `facts` words `problem`, in the language of whoever reads it."""

    def __init__(self, problem: FileProblem, **facts: int | str) -> None:
        super().__init__(problem, facts)
        self.problem = problem
        self.facts = facts

    def __str__(self) -> str:
        return file_problem_words(self.problem, facts=self.facts)


def file_problem_words(problem: FileProblem, *, facts: Mapping[str, Any]) -> str:
    """The sentence that says what is wrong with a file. Sizes are in bytes."""
    shown = {name: filesizeformat(value) if name in {"size", "limit"} else value for name, value in facts.items()}
    return str(FILE_PROBLEMS[problem] % shown)


def ids_that_come_twice(twice: Mapping[str, list[int]], *, count: int) -> InventoryFileError:
    """The refusal of a file that has these resource ids in several rows; `count`: how many there are."""
    named = "; ".join(
        f"{arm_id[:500]} ({', '.join(map(str, found[:10]))})"
        for arm_id, found in list(twice.items())[:_SHOWN_DUPLICATES]
    )
    return InventoryFileError(FileProblem.TWICE, count=count, ids=f"{named} …" if count > _SHOWN_DUPLICATES else named)


# --- JSON --------------------------------------------------------------------------------------------------------


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
_TOO_LARGE, _CUT = object(), object()
_MOST_FRAMES = 8  # a list in a page in a list, and then some
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
# Between values of a file: blanks, the mark that begins a file (files are joined), the record separator of JSON sequences.
_SPACE = re.compile("[ \\t\\r\\n\ufeff\x1e]*")
# Where JSON of a form that is read here begins, at the start of a line.
_BEGINNING = re.compile(r"^[ \t\ufeff]*(?=\[\s*[\[{\]]|\{\s*[\"}])", re.MULTILINE)
# Where a file is JSON from its first letter on, of whatever form: nothing is passed over, and what is wrong with it is said.
_IS_JSON = re.compile(r"\[\s*(?:[\"\[{\]0-9-]|true|false|null|NaN|Infinity|$)|\{")
_LISTS = frozenset({"value", "data"})
_NEXT_PAGE = frozenset({"nextlink", "skiptoken", "skip_token", "$skiptoken", "@odata.nextlink"})
_TRUNCATED = "resulttruncated"
_VM_KEYS = frozenset({"id", "storageprofile", "properties"})
# Nearer to the end of the window than this, an error may be nothing but the window's end ("-Infinity" has 9 letters).
_MARGIN = 16


# --- the text of a file, a window at a time --------------------------------------------------------------------------


class _Window:
    """What is decoded of a file and not yet read. `at` is where the reader is; positions are within `text`."""

    def __init__(self, pieces: Iterator[bytes], state: Mapping[str, Any]) -> None:
        self._pieces = pieces
        self.encoding: str = state["encoding"]
        self._fed: int = state["byte"]  # bytes handed to the decoder
        self._lines, self._columns = state["lines"], state["columns"]
        self._decoder = codecs.getincrementaldecoder(self.encoding or "utf-8")()
        self.text, self.at, self.is_whole = "", 0, False
        self._dropped = 0  # characters

    @property
    def position(self) -> int:
        """How many characters were read through this window."""
        return self._dropped + self.at

    def state(self) -> dict[str, Any]:
        """Where the reader is, so that another one goes on there."""
        self.drop_read()
        waiting = len(self._decoder.getstate()[0]) + len(self.text.encode(self.encoding or "utf-8"))
        return {
            "encoding": self.encoding,
            "byte": self._fed - waiting,
            "lines": self._lines,
            "columns": self._columns,
        }

    def drop_read(self) -> None:
        """Forget what lies before the reader, but for how many lines that were."""
        read = self.text[: self.at]
        lines = read.count("\n")
        self._lines += lines
        self._columns = len(read) - read.rfind("\n") - 1 if lines else self._columns + len(read)
        self._dropped += self.at
        self.text, self.at = self.text[self.at :], 0

    def grow(self) -> bool:
        """Decode another piece; whether there was one."""
        if self.is_whole:
            return False
        if self.at:
            self.drop_read()
        piece = next(self._pieces, b"")
        if not self.encoding:
            while len(piece) < 4 and (more := next(self._pieces, b"")):
                piece += more
            self._begin(piece)
        waiting = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            position = self._fed - waiting + error.start + 1
            raise InventoryFileError(FileProblem.NOT_UTF8, position=position) from None
        is_first = self._fed == 0
        self._fed += len(piece)
        self.text += text.removeprefix("\ufeff") if is_first else text
        self.is_whole = not piece
        return not self.is_whole

    def _begin(self, piece: bytes) -> None:
        # Windows PowerShell redirects in UTF-16 with a byte order mark; detect_encoding knows all that JSON allows.
        found: str = json.detect_encoding(piece)
        if found in {"utf-16", "utf-32"}:
            found += "-le" if piece[:2] == codecs.BOM_UTF16_LE else "-be"
        self.encoding = found.removesuffix("-sig")
        self._decoder = codecs.getincrementaldecoder(self.encoding)()

    def peek(self) -> str:
        """The next character; empty at the end of the file."""
        while self.at >= len(self.text) and self.grow():
            pass
        return self.text[self.at : self.at + 1]

    def skip_space(self) -> None:
        """Go to what is no blank."""
        while True:
            self.at = cast(re.Match[str], _SPACE.match(self.text, self.at)).end()
            if self.at < len(self.text) or not self.grow():
                return

    def is_blank_from(self, position: int) -> bool:
        """Whether nothing but blanks follow."""
        before = self.text[self.at : position]
        while not self.text[self.at + len(before) :].strip() and len(self.text) < LARGEST_VALUE and self.grow():
            pass
        return not self.text[self.at + len(before) :].strip()

    def place(self, position: int) -> dict[str, int]:
        """Line and column of a position, as an editor counts them."""
        before = self.text[:position]
        lines = before.count("\n")
        column = position - before.rfind("\n") if lines else self._columns + position + 1
        return {"line": self._lines + lines + 1, "column": column}


# --- the reader ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _List:
    """A list whose items are rows. `columns`: the items are lists of their values (Resource Graph's table)."""

    columns: list[str] | None = None
    is_begun: bool = False


@dataclass(slots=True)
class _Object:
    """A page, a table's page, or one VM, member by member. `is_list`: its rows were in it; then only pages are told."""

    is_first: bool = False
    is_begun: bool = False
    is_list: bool = False
    size: int = 0
    members: dict[str, Any] = field(default_factory=dict)

    @property
    def lowered(self) -> dict[str, Any]:
        return {key.lower(): value for key, value in self.members.items()}


@dataclass(slots=True)
class _Table:
    """Resource Graph's table that is too large to be decoded as one: its columns, then its rows."""

    columns: list[str] | None = None
    is_begun: bool = False


_FRAMES: dict[str, type[_List | _Object | _Table]] = {"list": _List, "object": _Object, "table": _Table}
_START: dict[str, Any] = {
    "encoding": "",
    "byte": 0,
    "lines": 0,
    "columns": 0,
    "row": 0,
    "count": 0,
    "is_begun": False,
    "is_first": True,
    "has_more_pages": False,
    "passed_over": "",
    "frames": [],
}


class InventoryReader:
    """The rows of a file, as they are asked for.

    Reading raises `InventoryFileError` saying precisely what is wrong, however many rows came before. `has_more_pages`
    (known at the end): the file says that it is not the whole list. `passed_over`: text before the JSON. That no id comes
    twice is not checked here: the reader remembers no row.
    """

    def __init__(self, pieces: Callable[[int], Iterator[bytes]], *, state: Mapping[str, Any] | None = None) -> None:
        """`pieces(n)`: the file from its byte n on, in parts of any size; `state`: from `state()` of an earlier reader."""
        state = _START | dict(state or {})
        self._window = _Window(pieces(state["byte"]), state)
        self._row: int = state["row"]  # being read; 0 between rows
        self._count: int = state["count"]
        self._is_begun: bool = state["is_begun"]
        self._is_first: bool = state["is_first"]
        self._frames: list[_List | _Object | _Table] = [_FRAMES[kind](**frame) for kind, frame in state["frames"]]
        self.has_more_pages: bool = state["has_more_pages"]
        self.passed_over: str = state["passed_over"]
        self.is_over = False

    def state(self) -> dict[str, Any]:
        """What a reader needs to go on behind the last row that `read` gave: plain JSON."""
        names = {frame: kind for kind, frame in _FRAMES.items()}
        return {
            **self._window.state(),
            "row": self._row,
            "count": self._count,
            "is_begun": self._is_begun,
            "is_first": self._is_first,
            "has_more_pages": self.has_more_pages,
            "passed_over": self.passed_over,
            "frames": [[names[type(frame)], asdict(frame)] for frame in self._frames],
        }

    @property
    def byte(self) -> int:
        """How much of the file was read, in bytes."""
        return int(self._window.state()["byte"])

    def __iter__(self) -> Iterator[InventoryRow]:
        while not self.is_over:
            yield from self.read(1)

    def read(self, least: int) -> list[InventoryRow]:
        """The next rows: at least so many, unless the file ends before; then `is_over`."""
        rows: list[InventoryRow] = []
        if not self._is_begun:
            self._pass_over()
            self._is_begun = True
        # What is in a half-read object that may be a row is no state to keep.
        while not self.is_over and (len(rows) < least or self._is_in_a_row):
            rows += self._step()
        return rows

    @property
    def _is_in_a_row(self) -> bool:
        return any(isinstance(frame, _Object) and not frame.is_list for frame in self._frames)

    def _pass_over(self) -> None:
        """Go to where the JSON begins; a tool may have printed warnings before it."""
        window = self._window
        window.skip_space()
        if not window.peek():
            raise InventoryFileError(FileProblem.EMPTY)
        while len(window.text) - window.at < _WARNINGS and window.grow():
            pass
        if _IS_JSON.match(window.text, window.at):
            return
        beginning = _BEGINNING.search(window.text, window.at)
        if beginning is not None:
            self.passed_over = window.text[window.at : beginning.start()].strip()[:200]
            window.at = beginning.end()

    def _step(self) -> list[InventoryRow]:
        """Read one value, or the sign between two."""
        if not self._frames:
            return self._step_between()
        frame = self._frames[-1]
        if isinstance(frame, _List):
            return self._step_list(frame)
        if isinstance(frame, _Object):
            return self._step_object(frame)
        return self._step_table(frame)

    def _step_between(self) -> list[InventoryRow]:
        self._window.skip_space()
        sign = self._window.peek()
        if not sign:
            self.is_over = True
        elif sign == "[":
            self._frames.append(_List())
            self._window.at += 1
        elif sign == "{":
            self._frames.append(_Object(is_first=self._is_first))
            self._window.at += 1
        elif self._is_first:
            self._value()
            raise InventoryFileError(FileProblem.NOT_AN_INVENTORY)
        else:
            raise self._malformed(self._window.at)
        self._is_first = False
        return []

    def _is_next(self, frame: _List | _Object | _Table, closing: str) -> bool:
        """Go to the next item of a frame; False: it ended, and is none of the frames any more."""
        self._window.skip_space()
        if self._window.peek() == closing:
            self._window.at += 1
            self._frames.pop()
            return False
        if frame.is_begun:
            self._expect(",")
        frame.is_begun = True
        return True

    def _step_list(self, frame: _List) -> list[InventoryRow]:
        if not self._is_next(frame, "]"):
            self._row = 0
            return []
        self._row = self._count + 1
        value = self._value(may_be_large=frame.columns is None)
        if value is _TOO_LARGE:
            is_list = self._window.peek() == "["
            self._frames.append(_List() if is_list else _Object())
            self._window.at += 1
            return []
        if frame.columns is not None:
            return [self._numbered(row) for row in _zipped(frame.columns, [value])]
        return self._rows_of(value)

    def _rows_of(self, value: Any) -> list[InventoryRow]:
        """The rows that a member of a list stands for: one, or those of a page or a list in it."""
        members = {key.lower(): child for key, child in value.items()} if isinstance(value, dict) else {}
        page = next((members[name] for name in sorted(_LISTS) if isinstance(members.get(name), list)), None)
        if isinstance(value, list) and value and all(isinstance(child, (dict, list)) for child in value):
            page = value
        elif page is None or "id" in members:
            return [self._numbered(value)]
        self._note_page(members)
        return [self._numbered(child) for child in page]

    def _numbered(self, value: object) -> InventoryRow:
        self._count += 1
        return inventory_row(self._count, value=value)

    def _note_page(self, members: dict[str, Any]) -> None:
        is_truncated = str(members.get(_TRUNCATED)).lower() in {"true", "1"}
        self.has_more_pages |= is_truncated or any(members.get(name) for name in _NEXT_PAGE)

    def _step_object(self, frame: _Object) -> list[InventoryRow]:
        """A page (`{"value": […], "nextLink": …}`, `{"data": […]}`), a table, or one VM."""
        if not self._is_next(frame, "}"):
            return self._end_object(frame)
        key = self._value()
        if not isinstance(key, str):
            raise self._malformed(self._window.at)
        self._expect(":")
        sign = self._window.peek() if key.lower() in _LISTS else ""
        if sign == "[":
            self._begin_rows(frame, _List())
            return []
        begins = self._window.position
        value = self._value(may_be_large=sign == "{")
        if value is _TOO_LARGE:
            self._begin_rows(frame, _Table())
        elif frame.is_list:
            self._note_page({key.lower(): value})
        else:
            frame.size += self._window.position - begins
            if frame.size > 2 * LARGEST_VALUE:
                raise self._row_too_large()
            frame.members[key] = value
        return []

    def _begin_rows(self, frame: _Object, rows: _List | _Table) -> None:
        """Read the rows of a page next. A page has them once."""
        if frame.is_list or _table_rows(frame.lowered.get("data")) is not None:
            raise InventoryFileError(FileProblem.NOT_AN_INVENTORY)
        self._note_page(frame.lowered)
        frame.is_list, frame.members = True, {}
        self._frames.append(rows)
        self._window.at += 1

    def _end_object(self, frame: _Object) -> list[InventoryRow]:
        if frame.is_list:
            return []
        members = frame.lowered
        table = _table_rows(members.get("data"))
        if table is not None:
            self._note_page(members)
            return [self._numbered(row) for row in table]
        if frame.is_first and not (_VM_KEYS & members.keys()):
            raise InventoryFileError(FileProblem.NOT_AN_INVENTORY)
        return [self._numbered(frame.members)]

    def _step_table(self, frame: _Table) -> list[InventoryRow]:
        if not self._is_next(frame, "}"):
            return []
        key = self._value()
        if not isinstance(key, str):
            raise self._malformed(self._window.at)
        self._expect(":")
        if key == "rows" and self._window.peek() == "[":
            if frame.columns is None:
                raise InventoryFileError(FileProblem.NOT_AN_INVENTORY)
            self._frames.append(_List(columns=frame.columns))
            self._window.at += 1
            return []
        value = self._value()
        if key == "columns" and isinstance(value, list):
            frame.columns = _names(value)
        return []

    def _value(self, *, may_be_large: bool = False) -> Any:
        """Decode what comes next; `_TOO_LARGE` if it is a list or an object that may be read member by member."""
        window = self._window
        while True:
            sign = window.peek()
            value = self._value_in_window()
            if value is not _CUT:
                return value
            if len(window.text) - window.at > LARGEST_VALUE:
                if may_be_large and sign in {"[", "{"} and len(self._frames) < _MOST_FRAMES:
                    return _TOO_LARGE
                raise self._row_too_large()
            window.grow()

    def _value_in_window(self) -> Any:
        """The next value; `_CUT` if it may go on behind the window."""
        window = self._window
        try:
            value, end = _DECODER.raw_decode(window.text, window.at)
        except RecursionError:
            value, end = NESTED_TOO_DEEPLY, self._end_of_nested_value()
        except json.JSONDecodeError as error:
            is_open = "Unterminated" in error.msg
            if window.is_whole or not (is_open or error.pos > len(window.text) - _MARGIN):
                raise self._malformed(error.pos, is_open=is_open) from None
            return _CUT
        # Digits at the end of the window may go on.
        if end < 0 or (end == len(window.text) and not window.is_whole and window.text[end - 1] not in '}]"'):
            return _CUT
        window.at = end
        return value

    def _end_of_nested_value(self) -> int:
        """Where it ends; negative: behind the window."""
        depth = 0
        for token in _TOKEN.finditer(self._window.text, self._window.at):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
            if depth == 0:
                return token.end()
        if self._window.is_whole:
            raise self._malformed(len(self._window.text))
        return -1

    def _expect(self, sign: str) -> None:
        self._window.skip_space()
        if self._window.peek() != sign:
            raise self._malformed(self._window.at)
        self._window.at += 1
        self._window.skip_space()

    def _malformed(self, position: int, *, is_open: bool = False) -> InventoryFileError:
        window = self._window
        offset = position - window.at
        is_cut_off = window.is_blank_from(position) or is_open
        where = window.place(window.at + offset)
        if self._row:
            problem = FileProblem.CUT_OFF_IN_ROW if is_cut_off else FileProblem.NOT_JSON_IN_ROW
            return InventoryFileError(problem, row=self._row, **where)
        return InventoryFileError(FileProblem.CUT_OFF if is_cut_off else FileProblem.NOT_JSON, **where)

    def _row_too_large(self) -> InventoryFileError:
        return InventoryFileError(FileProblem.ROW_TOO_LARGE, row=self._row or self._count + 1, limit=LARGEST_VALUE)


def _table_rows(data: object) -> list[dict[str, Any]] | None:
    """The rows of Resource Graph's table form; None: this is none."""
    if not isinstance(data, dict):
        return None
    columns, rows = data.get("columns"), data.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return None
    return list(_zipped(_names(columns), rows))


def _names(columns: list[Any]) -> list[str]:
    return [str(column.get("name")) if isinstance(column, dict) else "" for column in columns]


def _zipped(names: list[str], rows: list[Any]) -> Iterator[dict[str, Any]]:
    return (dict(zip(names, row, strict=False)) for row in rows if isinstance(row, list))
