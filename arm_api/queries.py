"""The queries of Resource Graph that this portal answers: one table, conditions on places, columns, a limit.

    table | where COLUMN =~ 'text' [and …] | where id startswith '…' | where id in~ ('…', '…')
          | project COLUMN, … | order by id asc | limit N | count

Everything else is refused in words; nothing is guessed at (docs/azure-clients.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from arm_api.errors import ArmCode, ArmError

MOST_CHARACTERS = 20_000
MOST_VALUES = 1_000


class Table(StrEnum):
    """The tables, in lower case as they are compared."""

    RESOURCES = "resources"
    ASSESSMENTS = "patchassessmentresources"
    INSTALLATIONS = "patchinstallationresources"


# What can be asked for, by table; the columns of every row.
CONDITIONS = ("type", "id", "name", "resourcegroup", "subscriptionid", "location")
COLUMNS = ("id", "name", "type", "location", "resourceGroup", "subscriptionId", "tenantId", "tags", "properties")
_COLUMN = {name.lower(): name for name in COLUMNS}


@dataclass(frozen=True, slots=True)
class Condition:
    """A column that is one of these values, or begins with the only one; all compared without case, as texts in lower case."""

    column: str
    values: tuple[str, ...]
    is_prefix: bool = False

    def holds(self, value: str) -> bool:
        """Whether a value fits."""
        text = value.lower()
        return text.startswith(self.values[0]) if self.is_prefix else text in self.values


@dataclass(frozen=True, slots=True)
class Query:
    """What a query asks for."""

    table: Table
    conditions: tuple[Condition, ...] = ()
    columns: tuple[str, ...] = COLUMNS
    limit: int | None = None
    is_count: bool = False


_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<sign>=~|==|in~|[|(),])|(?P<word>[\w.]+))""",
    re.IGNORECASE,
)


def read_query(text: str) -> Query:
    """The query that a text says. Raises ArmError for whatever is not of the form above."""
    if len(text) > MOST_CHARACTERS:
        raise _refusal("it is too long")
    return _Reader(_tokens(text)).query()


def _refusal(why: str) -> ArmError:
    message = f"The query is not one that this portal answers: {why}. See docs/azure-clients.md for those that it does."
    return ArmError(ArmCode.BAD_REQUEST, message, target="query")


def _tokens(text: str) -> list[str]:
    found, at, rest = [], 0, text.rstrip()
    while at < len(rest):
        match = _TOKEN.match(rest, at)
        if match is None:
            raise _refusal(f"“{rest[at : at + 30].strip()}” is not understood")
        found.append(match.group().strip())
        at = match.end()
    return found


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1])


class _Reader:
    """Reads tokens from the left."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def query(self) -> Query:
        first = self.next("a table").lower()
        if first not in set(Table):
            raise _refusal(f"there is no table “{first[:40]}”")
        conditions: list[Condition] = []
        columns: tuple[str, ...] = COLUMNS
        limit: int | None = None
        is_count = False
        while self.at < len(self.tokens):
            self.expect("|")
            verb = self.next("an operator").lower()
            if is_count:
                raise _refusal("nothing follows count")
            if verb == "where":
                conditions += self.conditions()
            elif verb in {"project", "limit", "take"}:
                if verb == "project":
                    columns = self.columns()
                else:
                    limit = min(limit or 10**9, self.number())
            elif verb in {"order", "sort"}:
                self.order()
            elif verb == "count":
                is_count = True
            else:
                raise _refusal(f"there is no operator “{verb[:40]}”")
        return Query(Table(first), tuple(conditions), columns, limit, is_count)

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self, what: str) -> str:
        token = self.peek()
        if not token:
            raise _refusal(f"{what} is missing")
        self.at += 1
        return token

    def expect(self, *words: str) -> None:
        for word in words:
            token = self.next(f"“{word}”")
            if token.lower() != word:
                raise _refusal(f"“{word}” was expected, not “{token[:40]}”")

    def conditions(self) -> list[Condition]:
        found = [self.condition()]
        while self.peek().lower() == "and":
            self.at += 1
            found.append(self.condition())
        return found

    def condition(self) -> Condition:
        column = self.next("a column").lower()
        if column not in CONDITIONS:
            raise _refusal(f"nothing can be asked of the column “{column[:40]}”")
        sign = self.next("a comparison").lower()
        if sign in {"=~", "=="}:
            return Condition(column, (self.text(),))
        if sign == "startswith":
            return Condition(column, (self.text(),), is_prefix=True)
        if sign in {"in", "in~"}:
            return Condition(column, self.texts())
        raise _refusal(f"“{sign[:40]}” is no comparison that is understood")

    def text(self) -> str:
        token = self.next("a text")
        if token[0] not in "'\"":
            raise _refusal(f"“{token[:40]}” is no text in quotation marks")
        return _unquoted(token).lower()

    def texts(self) -> tuple[str, ...]:
        self.expect("(")
        found = [self.text()]
        while self.peek() == ",":
            self.at += 1
            found.append(self.text())
        self.expect(")")
        if len(found) > MOST_VALUES:
            raise _refusal(f"more than {MOST_VALUES} values are listed")
        return tuple(found)

    def columns(self) -> tuple[str, ...]:
        found = [self.column()]
        while self.peek() == ",":
            self.at += 1
            found.append(self.column())
        return tuple(dict.fromkeys(found))

    def column(self) -> str:
        name = self.next("a column")
        if name.lower() not in _COLUMN:
            raise _refusal(f"there is no column “{name[:40]}”")
        return _COLUMN[name.lower()]

    def number(self) -> int:
        token = self.next("a number")
        if not (token.isascii() and token.isdigit() and len(token) < 8):
            raise _refusal(f"“{token[:40]}” is no number")
        return int(token)

    def order(self) -> None:
        """Rows come by machine, in the order of their ids: that is the only order."""
        self.expect("by", "id")
        if self.peek().lower() == "asc":
            self.at += 1
