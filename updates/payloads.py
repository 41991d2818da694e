"""What an operation carries to its machine, as its row keeps it: JSON with a version, read and written by kind.

An assessment carries nothing, and its column is empty. A row that this version of the portal cannot read, whoever wrote it, is a
`PayloadError` that names what is wrong; the engine ends such an operation with `payload.unreadable`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

from patching.rollback import RollbackOrder
from patching.terms import InstallationPlan, OperationKind, PatchSettings
from updates.plans import order_from_json, order_to_json, plan_from_json, plan_to_json

log = structlog.get_logger(__name__)

Payload = InstallationPlan | RollbackOrder | PatchSettings
VERSION = 1


class PayloadError(ValueError):
    """This is no payload of its kind that this version can read; the message says why."""


@dataclass(frozen=True, slots=True)
class _Codec:
    """How the payload of one kind becomes JSON and comes back."""

    carries: type
    write: Callable[[Any], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], Payload]


_CODECS: Mapping[OperationKind, _Codec] = {
    OperationKind.INSTALLATION: _Codec(InstallationPlan, plan_to_json, plan_from_json),
    OperationKind.ROLLBACK: _Codec(RollbackOrder, order_to_json, order_from_json),
    OperationKind.SETTINGS: _Codec(PatchSettings, lambda settings: settings.as_json, PatchSettings.from_json),
}


def fields_of(kind: OperationKind, payload: Payload | None) -> dict[str, Any] | None:
    """The payload as JSON without its version, for people to read; None for nothing. Raises PayloadError if it is of no such kind."""
    codec = _CODECS.get(kind)
    if codec is None and payload is None:
        return None
    if codec is None or not isinstance(payload, codec.carries):
        raise PayloadError(f"{kind.value}: carries no {type(payload).__name__}")
    return codec.write(payload)


def encode(kind: OperationKind, payload: Payload | None) -> dict[str, Any] | None:
    """The payload as the row keeps it; None for nothing. Raises PayloadError if it is of no such kind."""
    written = fields_of(kind, payload)
    return None if written is None else {"v": VERSION, **written}


def decode(kind: OperationKind, document: object) -> Payload | None:
    """The payload that `encode` wrote, exactly. Raises PayloadError for everything else."""
    codec = _CODECS.get(kind)
    if codec is None:
        if document is not None:
            raise PayloadError(f"{kind.value}: carries nothing, but something is kept")
        return None
    if not isinstance(document, dict):
        raise PayloadError(f"{kind.value}: no fields are kept")
    if document.get("v") != VERSION:
        raise PayloadError(f"{kind.value}: version {document.get('v')!r:.40} is not known")
    kept = {name: value for name, value in document.items() if name != "v"}
    try:
        payload = codec.read(kept)
    except KeyError as error:
        raise PayloadError(f"{kind.value}: {error} is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise PayloadError(f"{kind.value}: {error!s:.200}") from error
    # What is written again just as it was kept has been read in full: no field too many, none of another type.
    written = codec.write(payload)
    if strange := sorted(name for name in kept if name not in written or not _is_same(kept[name], written[name])):
        raise PayloadError(f"{kind.value}: cannot be read: {', '.join(strange):.200}")
    return payload


def _is_same(kept: object, written: object) -> bool:
    if type(kept) is not type(written) or kept != written:
        return False
    return not isinstance(kept, list) or all(isinstance(item, str) for item in kept)


@dataclass(frozen=True, slots=True)
class Read:
    """What is kept in a row: a payload, nothing, or what makes it unreadable."""

    payload: Payload | None = None
    problem: str = ""


@lru_cache(maxsize=256)
def read(kind: OperationKind, text: str | None) -> Read:
    """What this JSON says, never an exception: all operations of a bulk request share one, and one bad row stops no other."""
    try:
        return Read(decode(kind, json.loads(text) if text else None))
    except PayloadError as error:
        return Read(problem=str(error))
    except (ValueError, RecursionError) as error:  # PostgreSQL keeps numbers and depths that Python refuses
        return Read(problem=f"{kind.value}: {error!s:.200}")


def readable(kind: str, document: object) -> Payload | None:
    """The payload for a page; None where nothing is kept, or nothing that this version can read."""
    try:
        return decode(OperationKind(kind), document)
    except PayloadError as error:
        log.warning("payload_unreadable", problem=str(error))
        return None
