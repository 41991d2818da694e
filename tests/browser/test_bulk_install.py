"""Many machines as an operator chooses and patches them: ticks that survive, the review, and the number that is typed."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenContext

pytestmark = pytest.mark.browser
APP = "/virtual-machines/?resource_group=rg-app&sort=name"


def box(page: Page, name: str) -> None:
    """Press the box of a machine, and wait until the portal has heard of it where a script tells it."""
    page.get_by_role("checkbox", name=name, exact=True).click()


@pytest.mark.parametrize("is_scripted", [True, False])
def test_all_that_match_but_three_are_reviewed(new_context: OpenContext, is_scripted: bool) -> None:
    """From the list to the review with six clicks."""
    page = new_context(java_script_enabled=is_scripted).new_page()
    page.goto(APP)
    page.get_by_role("button", name="Select all", exact=True).click()
    expect(page.locator("#ticks-count")).to_contain_text("10 selected")
    for number in (1, 2, 3):
        box(page, f"app-00{number}")
        if is_scripted:
            expect(page.locator("#ticks-count")).to_contain_text(f"all that match but {number}")
    page.get_by_role("button", name="Install updates…").click()
    expect(page.locator(".page-type")).to_have_text("7 virtual machines")
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("main")).to_contain_text("3 of those that match are left out.")
    page.get_by_role("button", name="Next: Updates").click()
    page.get_by_role("checkbox", name="Definition", exact=True).check()
    page.get_by_role("button", name="Next: Properties").click()
    page.get_by_role("button", name="Next: Review + install").click()
    expect(page.locator("#review-total")).to_contain_text(re.compile(r"[0-9]+ machines? takes? the plan\."))
    page.get_by_text("which", exact=True).first.click()
    expect(page.locator("#review tbody tr").first.get_by_role("link", name=re.compile("^app-0")).first).to_be_visible()
    page.goto("/virtual-machines/")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".tickbar")).to_be_hidden()


@pytest.mark.parametrize("is_scripted", [True, False])
def test_ticks_go_along_to_other_orders_and_filters(new_context: OpenContext, is_scripted: bool) -> None:
    page = new_context(java_script_enabled=is_scripted).new_page()
    page.goto(APP)
    expect(page.locator(".tickbar")).to_be_hidden()
    box(page, "app-004")
    expect(page.locator(".tickbar")).to_be_visible()
    expect(page.locator(".commandbar")).to_be_hidden()
    if is_scripted:
        expect(page.locator("#ticks-count")).to_contain_text("1 selected")
    else:
        page.get_by_role("button", name="Keep these ticks").click()
    page.goto("/virtual-machines/?q=edge")
    box(page, "edge-001")
    if is_scripted:
        expect(page.locator("#ticks-count")).to_contain_text("2 selected")
    else:
        page.get_by_role("button", name="Keep these ticks").click()
    page.goto("/virtual-machines/?sort=-name")
    expect(page.locator("#ticks-count")).to_contain_text("2 selected")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".tickbar")).to_be_hidden()


def test_the_bar_and_the_head_stay_in_sight(new_context: OpenContext) -> None:
    page = new_context(viewport={"width": 1440, "height": 700}).new_page()
    page.goto("/virtual-machines/")
    page.locator("main tbody input[name=vm]").first.click()
    page.mouse.move(700, 500)
    page.mouse.wheel(0, 900)
    page.wait_for_function("window.scrollY >= 800")
    bar = page.locator(".tickbar").bounding_box()
    head = page.locator("main thead th").nth(1).bounding_box()
    assert bar is not None
    assert head is not None
    assert bar["y"] == pytest.approx(48, abs=1)
    assert head["y"] == pytest.approx(bar["y"] + bar["height"], abs=2)
    page.get_by_role("button", name="Clear", exact=True).click()
