"""Heads of grids that stay in sight, command bars of one row, rows at 200 %, and few keys to the first row."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenContext

pytestmark = pytest.mark.browser
TOP_BAR = 48


def head_and_first_row(page: Page) -> tuple[float, float]:
    """Where the head of the list and its first row stand in the window."""
    tops = page.evaluate(
        """() => ["thead th:nth-child(2)", "tbody tr"].map((s) => document.querySelector(`main ${s}`).getBoundingClientRect().top)"""
    )
    return float(tops[0]), float(tops[1])


@pytest.mark.parametrize("width", [1440, 2560, 1101])
def test_the_head_of_the_list_sticks_under_the_top_bar(new_context: OpenContext, width: int) -> None:
    page = new_context(viewport={"width": width, "height": 700}).new_page()
    page.goto("/virtual-machines/")
    before = head_and_first_row(page)
    assert before[0] > TOP_BAR
    page.mouse.move(width / 2, 500)
    page.mouse.wheel(0, 900)
    page.wait_for_function("window.scrollY >= 800")
    head, row = head_and_first_row(page)
    assert head == pytest.approx(TOP_BAR, abs=1)
    assert row < 0


@pytest.mark.parametrize("width", [1100, 768])
def test_where_the_frame_scrolls_the_head_sticks_in_the_frame(new_context: OpenContext, width: int) -> None:
    page = new_context(viewport={"width": width, "height": 700}).new_page()
    page.goto("/virtual-machines/")
    frame = page.locator("main .grid-frame")
    frame.evaluate("(e) => { e.scrollIntoView(); e.scrollTop = 600; }")
    top = float(frame.evaluate("(e) => e.getBoundingClientRect().top"))
    head, row = head_and_first_row(page)
    assert frame.evaluate("(e) => e.scrollTop") == 600
    assert head == pytest.approx(top, abs=1)
    assert row < top


@pytest.mark.parametrize("width", [768, 1024])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_track_is_in_sight_on_a_tablet(new_context: OpenContext, width: int, language: str) -> None:
    context = new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto("/virtual-machines/")
    context.add_cookies([{"name": "django_language", "value": language, "url": page.url}])
    page.reload()
    right = page.evaluate(
        """() => Math.max(...[...document.querySelectorAll("main tbody tr")].map((row) => {
            const range = document.createRange();
            range.selectNodeContents(row.children[4]);
            return range.getBoundingClientRect().right;
        }))"""
    )
    frame = page.locator("main .grid-frame").bounding_box()
    assert frame is not None
    assert 0 < right <= frame["x"] + frame["width"] <= width


@pytest.mark.parametrize("width", [360, 768, 1024, 1280, 1440])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_command_bar_has_one_row_and_loses_nothing(new_context: OpenContext, width: int, language: str) -> None:
    context = new_context(viewport={"width": width, "height": 900}, java_script_enabled=False)
    page = context.new_page()
    page.goto("/virtual-machines/?q=run-failing-kb")
    context.add_cookies([{"name": "django_language", "value": language, "url": page.url}])
    blade = page.locator("tbody th a").first.get_attribute("href") or ""
    page.goto(f"{blade}?tab=history")
    operation = page.locator("tbody th a").first.get_attribute("href") or ""
    for address in ("/virtual-machines/", blade, operation, blade.removesuffix("updates/")):
        page.goto(address)
        bar = page.locator(".commandbar")
        box = bar.bounding_box()
        assert box is not None
        assert box["height"] <= 44, address
        assert box["x"] + box["width"] <= width, address
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        more = bar.locator(".overflow > summary")
        if width >= (1440 if address == "/virtual-machines/" else 1101):  # the list has the most commands
            expect(more).to_be_hidden()
        else:
            more.click()
        for command in bar.locator(".command:not(summary)").all():
            expect(command).to_be_visible()
            inside = command.bounding_box()
            assert inside is not None
            assert inside["x"] >= 0, address
            assert inside["x"] + inside["width"] <= width, address


def test_rows_are_in_sight_at_200_percent(new_context: OpenContext) -> None:
    """200 % on a screen of 1440 × 900: half as wide and half as high."""
    page = new_context(viewport={"width": 720, "height": 450}).new_page()
    page.goto("/virtual-machines/")
    row = page.locator("main tbody tr").first.bounding_box()
    assert row is not None
    assert row["y"] + row["height"] <= 450
    page.get_by_text("Add filter", exact=True).click()
    expect(page.get_by_label("Hotpatch track")).to_be_visible()


def test_few_keys_lead_to_the_first_row(page: Page) -> None:
    page.goto("/virtual-machines/")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the list")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = page.locator("main tbody tr").first
    expect(first.locator("input")).to_be_focused()
    page.keyboard.press("Tab")
    expect(first.locator("th a")).to_be_focused()


def test_an_icon_that_a_part_brings_is_drawn_and_none_twice(new_context: OpenContext) -> None:
    page = new_context().new_page()
    page.goto("/virtual-machines/")
    page.evaluate("document.getElementById('i-file-down').remove()")  # as if the page had never had it
    for words, shown in (("no-such-name", "No virtual machine matches"), ("", "Export to CSV")):
        page.locator("#id_q").fill(words)
        expect(page.locator("#vm-table")).to_contain_text(shown)
    page.wait_for_function("document.getElementById('i-file-down') !== null")
    drawn = page.evaluate("[...document.querySelectorAll('symbol')].map((drawing) => drawing.id)")
    assert len(drawn) == len(set(drawn))
    use = page.locator("#vm-table use[href='#i-file-down']")
    assert use.evaluate("(e) => e.getBBox().width") > 0
