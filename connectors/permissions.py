"""What an account needs behind a connection, and what it lacks there, where its kind can tell: an optional part of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from connectors.protocol import ConnectorError


@dataclass(frozen=True, slots=True)
class Missing:
    """A permission that the account lacks. `where`: a subscription's id; `action` as its platform calls it."""

    where: str
    action: str


@dataclass(frozen=True, slots=True)
class Guide:
    """What somebody does on the other side so that a connection works.

    `role`: the definition of a role with the least that is needed, as a file is to hold it, and `file` the file's name.
    `commands`: command lines in their order. `is_filled`: they name the real places, and not an example.
    """

    file: str
    role: str
    commands: tuple[str, ...]
    is_filled: bool


@runtime_checkable
class TellsPermissions(Protocol):
    """A connector that knows which permissions it needs."""

    def missing_permissions(self) -> Sequence[Missing] | ConnectorError:
        """What the account lacks, everywhere that it reads; none where nothing is lacking. Never raises."""
        ...
