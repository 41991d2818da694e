"""CSV that spreadsheets open as it was meant: its letters, and no formulas."""

from __future__ import annotations

from patching.kb_numbers import without_invisible

# First in the file: without it Excel reads UTF-8 as the system's code page, and Japanese is garbled.
BYTE_ORDER_MARK = "\ufeff"
# Full-width ones too: spreadsheets in Japanese take them for their plain twins.
_BEGINS_FORMULA = frozenset("=+-@＝＋－＠")
_BREAKS = ("\t", "\r", "\n")


def harmless(value: object) -> object:
    """The value, with an apostrophe before a text that a spreadsheet would take for a formula.

    Blanks and characters that nobody can see do not count as its beginning; a tab or a line break at the front does.
    """
    if not isinstance(value, str) or not value:
        return value
    begins = without_invisible(value).lstrip()[:1]
    return f"'{value}" if (begins in _BEGINS_FORMULA and begins) or value.startswith(_BREAKS) else value
