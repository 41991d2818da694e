"""What a spreadsheet would take for a formula."""

from __future__ import annotations

import pytest

from ui.spreadsheet import harmless


@pytest.mark.parametrize("sign", list("=+-@＝＋－＠﹦﹢﹣﹫"))
@pytest.mark.parametrize(
    "before", ["", " ", "\u3000", "\u00a0 ", "\u200b", "\ufeff\u202e", " \t", "\n", "\x01", "\x1b "]
)
def test_formulas_get_an_apostrophe_whatever_hides_them(sign: str, before: str) -> None:
    assert harmless(f"{before}{sign}cmd|x") == f"'{before}{sign}cmd|x"


@pytest.mark.parametrize("value", ["", "web-001", " a=b", "日本", 5, -5, True, None, "'=x"])
def test_what_is_none_stays(value: object) -> None:
    assert harmless(value) == value


@pytest.mark.parametrize("value", ["\tx", "\rx", "\nx"])
def test_breaks_at_the_front_are_no_beginning(value: str) -> None:
    assert harmless(value) == f"'{value}"
