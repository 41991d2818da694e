"""Every page in English and Japanese, light and dark, wide and narrow: `make screenshots` (not part of the tests).

The four of the README are renewed with them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import OpenContext, Stack
from tests.browser.steps import visit, with_preferences

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "screenshots"
# By the name of the page: the file of its picture.
README = {"home": "overview", "list": "list", "compliance": "compliance", "calendar-now": "calendar"}


@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_take_every_page(
    new_context: OpenContext,
    stack: Stack,
    pages: dict[str, str],
    language: str,
    theme: str,
    width: int,
) -> None:
    OUT.mkdir(exist_ok=True)
    page = with_preferences(new_context(viewport={"width": width, "height": 900}), stack, language, theme)
    for name in visit(page, pages):
        page.screenshot(path=OUT / f"{name}-{language}-{theme}-{width}.png", full_page=True)
        if name in README and (language, theme, width) == ("en", "light", 1440):
            page.screenshot(path=ROOT / f"docs/images/{README[name]}.png")
    signed_out = new_context(viewport={"width": width, "height": 900}, storage_state=None)
    page = with_preferences(signed_out, stack, language, theme)
    page.goto("/accounts/login/")
    page.screenshot(path=OUT / f"sign-in-{language}-{theme}-{width}.png", full_page=True)
    assert len(list(OUT.glob(f"*-{language}-{theme}-{width}.png"))) > len(pages)
