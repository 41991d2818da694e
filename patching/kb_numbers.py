"""Lists of KB articles as people type them (docs/rules.md)."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

MAX_KB_NUMBERS = 500
_SEPARATORS = re.compile(r"[\s,、]+")
# KB890830 (2005) has six digits, today's have seven.
_KB_NUMBER = re.compile(r"(?:KB)?([0-9]{6,7})", re.IGNORECASE)
_SHOWN = 40


class KbProblem(StrEnum):
    """What is wrong with a list of KB articles."""

    MALFORMED = "malformed"
    TOO_MANY = "too_many"


class KbNumbersError(ValueError):
    """A list that cannot be read. `first_bad` is the first bad entry (shortened), `more` how many more there are."""

    def __init__(self, kind: KbProblem, first_bad: str, more: int) -> None:
        super().__init__(f"{kind}: {first_bad!r} and {more} more")
        self.kind, self.first_bad, self.more = kind, first_bad, more


def parse_kb_numbers(text: str) -> tuple[str, ...]:
    """Read KB articles (5034129 or KB5034129) separated by commas, spaces or lines; digits only, no duplicates.

    Full-width characters count as their plain twins. Raises KbNumbersError: on entries of any other form, and on
    more than 500.
    """
    entries = [entry for entry in _SEPARATORS.split(unicodedata.normalize("NFKC", text)) if entry]
    bad = [entry for entry in entries if not _KB_NUMBER.fullmatch(entry)]
    if bad:
        raise KbNumbersError(KbProblem.MALFORMED, bad[0][:_SHOWN], len(bad) - 1)
    if len(entries) > MAX_KB_NUMBERS:
        raise KbNumbersError(KbProblem.TOO_MANY, entries[MAX_KB_NUMBERS][:_SHOWN], len(entries) - MAX_KB_NUMBERS - 1)
    return tuple(dict.fromkeys(_KB_NUMBER.sub(r"\1", entry) for entry in entries))
