"""What is kept of a running operation between two looks: where its state and its result are to be asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from connectors.azure.answers import Answer

_MOST_ADDRESS = 8_000  # characters; Azure's have more than three thousand
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Handle:
    """`status`: the address of the operation's state, `result` that of its result (empty: none was named).

    `activity`: its id at Azure, by which its record is known, `output` its result where it came at once. Addresses are opaque and kept whole: Azure signs them.
    """

    status: str = ""
    result: str = ""
    activity: str = ""
    output: dict[str, Any] | None = None

    def __str__(self) -> str:
        kept = {"v": _VERSION, "s": self.status, "r": self.result, "a": self.activity}
        return json.dumps(kept | ({"o": self.output} if self.output is not None else {}), separators=(",", ":"))

    def renewed(self, answer: Answer, host: str) -> Handle:
        """The handle after this answer: some resource providers sign their addresses anew each time."""
        found = handle_of_answer(answer, host)
        return replace(self, status=found.status or self.status, result=found.result or self.result)


def handle_of(text: str) -> Handle | None:
    """The handle that this text keeps; None where it keeps none."""
    try:
        kept = json.loads(text)
        if kept["v"] != _VERSION:
            return None
        output = kept.get("o")
        return Handle(str(kept["s"]), str(kept["r"]), str(kept["a"]), output if isinstance(output, dict) else None)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def handle_of_answer(answer: Answer, host: str) -> Handle:
    """The handle of the operation that this answer began. Addresses of other hosts than ARM's are left out."""
    status = answer.headers.get("azure-asyncoperation", "")
    result = answer.headers.get("location", "")
    status, result = (address if is_ours(address, host) else "" for address in (status, result))
    activity = answer.headers.get("x-ms-request-id", "")[:100]
    # The id in the address is that of the operation; a proxy may have put another one into the header.
    for address in (status, result):
        last = urlsplit(address).path.rstrip("/").rpartition("/")[2]
        if len(last) == len("00000000-0000-0000-0000-000000000000"):
            activity = last
            break
    return Handle(status, result, activity)


def is_ours(address: str, host: str) -> bool:
    """Whether a token may go to this address: ARM's own host, or a region's below it. Never another one."""
    if not address or len(address) > _MOST_ADDRESS or not address.isascii() or not address.isprintable():
        return False
    try:
        found, own = urlsplit(address), urlsplit(host)
        port, own_port = found.port or 443, own.port or 443
    except ValueError:
        return False
    if found.scheme != "https" or found.username or found.password or port != own_port or not found.hostname:
        return False
    return found.hostname == own.hostname or found.hostname.endswith(f".{own.hostname}")
