"""The dynamic scope of a maintenance configuration as it is kept, and what makes it unreadable (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

MOST_ID = 2**63 - 1


class ScopeProblem(StrEnum):
    """What is wrong with a kept value that is no scope."""

    NOT_A_SCOPE = "not_a_scope"
    UNKNOWN_NAME = "unknown_name"
    BAD_VALUE = "bad_value"
    TAG_MISSING = "tag_missing"


class ScopeError(ValueError):
    """The kept value is no scope; `entry` is the part that is wrong."""

    def __init__(self, problem: ScopeProblem, entry: str) -> None:
        super().__init__(f"{problem}: {entry}")
        self.problem, self.entry = problem, entry


@dataclass(frozen=True, slots=True)
class Scope:
    """What a machine must be to belong to it: all that is given here. Nothing is given: it means no machine.

    `subscription` is the id of its row; `tag_value` is given with a `tag_name` only.
    """

    subscription: int | None = None
    resource_group: str = ""
    location: str = ""
    image_sku: str = ""
    tag_name: str = ""
    tag_value: str = ""

    @classmethod
    def from_json(cls, document: object) -> Scope:
        """The scope that `as_json` kept; an empty value asks for nothing. Raises ScopeError if it is none."""
        if not isinstance(document, Mapping):
            raise ScopeError(ScopeProblem.NOT_A_SCOPE, str(document))
        for name in document:
            if name not in SCOPE_NAMES:
                raise ScopeError(ScopeProblem.UNKNOWN_NAME, str(name))
        given = {name: _value(name, value) for name, value in document.items() if value not in ("", None)}
        if "tag_value" in given and "tag_name" not in given:
            raise ScopeError(ScopeProblem.TAG_MISSING, str(given["tag_value"]))
        return cls(**given)

    @property
    def as_json(self) -> dict[str, Any]:
        """The scope as it is kept: only what it asks for."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}

    @property
    def parts(self) -> dict[str, Scope]:
        """Each thing that it asks for, as a scope that asks for nothing else; the value of a tag with its tag."""
        given = self.as_json
        tag = {"tag_name": self.tag_name}
        return {name: Scope(**({name: value} | (tag if name == "tag_value" else {}))) for name, value in given.items()}


SCOPE_NAMES = tuple(field.name for field in fields(Scope))


def _value(name: str, value: object) -> Any:
    """A value of a scope as its type, which can be compared in the database. Raises ScopeError."""
    if name == "subscription":
        text = str(value)
        is_id = not isinstance(value, bool) and text.isdecimal() and len(text) <= 19 and int(text) <= MOST_ID
        if is_id:
            return int(text)
    elif isinstance(value, str) and "\x00" not in value:
        return value
    raise ScopeError(ScopeProblem.BAD_VALUE, str(value).replace("\x00", "�"))
