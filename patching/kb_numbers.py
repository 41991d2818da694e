"""Lists of KB articles as people type them (docs/rules.md)."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

MAX_KB_NUMBERS = 500
_SEPARATORS = re.compile(r"[\s,、;]+")
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
    """Read KB articles (5034129 or KB5034129); digits only, no duplicates.

    Commas, semicolons, spaces and lines separate, Japanese ones too. Full-width characters count as their plain twins,
    and characters that nobody can see are dropped (`without_invisible`). Raises KbNumbersError: on entries of any other
    form, and on more than 500.
    """
    entries = [entry for entry in _SEPARATORS.split(without_invisible(unicodedata.normalize("NFKC", text))) if entry]
    bad = [entry for entry in entries if not _KB_NUMBER.fullmatch(entry)]
    if bad:
        raise KbNumbersError(KbProblem.MALFORMED, bad[0][:_SHOWN], len(bad) - 1)
    if len(entries) > MAX_KB_NUMBERS:
        raise KbNumbersError(KbProblem.TOO_MANY, entries[MAX_KB_NUMBERS][:_SHOWN], len(entries) - MAX_KB_NUMBERS - 1)
    return tuple(dict.fromkeys(_KB_NUMBER.sub(r"\1", entry) for entry in entries))


# Letters that Unicode counts as letters or marks, and that are drawn as nothing.
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def is_invisible(character: str) -> bool:
    """Whether a character is drawn as nothing and is no space: format and direction marks, zero-width letters, fillers.

    Unicode's category Cf (zero-width space and joiners, direction marks, word joiner, byte order mark, soft hyphen, tags),
    the variation selectors, and the fillers that count as letters. Source: the Unicode property Default_Ignorable.
    """
    return (
        unicodedata.category(character) == "Cf"
        or character in _BLANK_LETTERS
        or "\u180b" <= character <= "\u180f"
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0000" <= character <= "\U000e0fff"
    )


def without_invisible(text: str) -> str:
    """The text without the characters that nobody can see (`is_invisible`)."""
    return text if text.isascii() else "".join(character for character in text if not is_invisible(character))
