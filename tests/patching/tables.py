"""The decision tables of docs/rules.md, as the tests read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

RULES = Path(__file__).resolve().parents[2] / "docs" / "rules.md"
used: set[str] = set()

Row = dict[str, str]


@lru_cache(maxsize=1)
def every_table() -> dict[str, list[Row]]:
    """All tables by id. Raises ValueError on a table that is malformed or empty."""
    tables: dict[str, list[Row]] = {}
    for block in re.split(r"<!-- table: ", RULES.read_text())[1:]:
        name, _, rest = block.partition(" -->")
        lines = rest.strip().splitlines()
        body = []
        for line in lines:
            if not line.startswith("|"):
                break
            body.append([cell.strip().strip("`") for cell in line.strip().strip("|").split("|")])
        if name in tables:
            raise ValueError(f"two tables are called {name}")
        if len(body) < 3:
            raise ValueError(f"the table {name} is empty")
        header = body[0]
        if any(len(row) != len(header) for row in body):
            raise ValueError(f"the table {name} has a row of another width")
        tables[name] = [dict(zip(header, row, strict=True)) for row in body[2:]]
    return tables


def rows(name: str) -> list[Row]:
    """The rows of one table; a table that is not there is an error."""
    used.add(name)
    return every_table()[name]


def words(cell: str) -> tuple[str, ...]:
    """A cell that lists things, separated by commas."""
    return tuple(word.strip() for word in cell.split(",") if word.strip())


def matches(row: Row, facts: dict[str, str]) -> bool:
    """Whether these facts are what a row asks for; an empty cell does not matter."""
    return all(not row[name] or row[name] == value for name, value in facts.items())


def flag(cell: str) -> bool:
    """A cell that says yes or no; anything else is an error."""
    return {"yes": True, "no": False, "on": True, "off": False}[cell]


def table(name: str) -> Callable[[Callable[..., None]], Any]:
    """Run a test once for each row of a table."""
    return pytest.mark.parametrize("row", rows(name), ids=[" ".join(row.values()) for row in rows(name)])
