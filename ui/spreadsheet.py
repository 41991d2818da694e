"""CSV that spreadsheets open with the right characters and without running formulas."""

from __future__ import annotations

import unicodedata

from patching.kb_numbers import without_invisible

# First in the file: without it Excel reads UTF-8 as the system's code page, and Japanese is garbled.
BYTE_ORDER_MARK = "\ufeff"
_BEGINS_FORMULA = frozenset("=+-@")
_BREAKS = ("\t", "\r", "\n")


def harmless(value: object) -> object:
    """The value, with an apostrophe before a text that a spreadsheet would take for a formula.

    Blanks, control characters and those that nobody can see do not count as its beginning; a tab or a line break at the
    front does. Full-width and small signs count as their plain twins, for which spreadsheets in Japanese take them.
    """
    if not isinstance(value, str) or not value:
        return value
    first = next((sign for sign in without_invisible(value) if sign.isprintable() and not sign.isspace()), "")
    is_formula = unicodedata.normalize("NFKC", first) in _BEGINS_FORMULA
    return f"'{value}" if is_formula or value.startswith(_BREAKS) else value
