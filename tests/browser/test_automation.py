"""Maintenance configurations and rollouts in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenContext
from tests.browser.steps import RUN_MS, make_configuration, open_updates, roll_out

pytestmark = pytest.mark.browser


def test_second_tuesday_plus_four_days_in_tokyo(new_context: OpenContext) -> None:
    """The next 12 windows are Saturdays at 22:00 in Tokyo, and the machines' own pages know of them."""
    page = new_context(timezone_id="Asia/Tokyo").new_page()
    make_configuration(page, "Tokyo Saturdays")
    runs = page.locator("ol.runs li > time")
    expect(runs).to_have_count(12)
    # The first ones are 2026-12-12, 2027-01-16, 2027-02-13; the machine's clock says what is still to come.
    texts = runs.all_inner_texts()
    assert all(text.endswith("22:00") for text in texts)
    shown = set(texts)
    assert {"Sat 2027-01-16 22:00", "Sat 2027-02-13 22:00"} <= shown or "Sat 2026-12-12 22:00" not in shown
    open_updates(page, "run-failing-kb")
    expect(page.locator("dl.strip")).to_contain_text("This portal, by schedule")
    expect(page.locator("dl.strip")).to_contain_text("Tokyo Saturdays")
    page.goto("/maintenance/")
    page.get_by_role("link", name="Tokyo Saturdays").click()
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_role("button", name="Switch on")).to_be_visible()


def test_the_sentence_follows_what_is_picked(page: Page) -> None:
    """Without a click on anything but the choice; fields of other choices are out of the way."""
    page.goto("/maintenance/create/")
    sentence = page.locator("#recurrence")
    expect(sentence).to_contain_text("Saturday after Patch Tuesday")
    page.get_by_label("Days after Patch Tuesday").fill("0")
    expect(sentence).not_to_contain_text("Saturday")
    page.get_by_text("Weekly", exact=True).click()
    expect(page.get_by_label("Days after Patch Tuesday")).to_be_hidden()
    page.get_by_role("checkbox", name="Sunday").check()
    page.get_by_label("Every", exact=True).fill("2")
    expect(sentence).to_contain_text("Every 2 weeks on Sunday")
    page.get_by_text("Azure expression").last.click()
    expect(sentence).to_contain_text("2Weeks Sunday")
    page.get_by_label("Location").fill("japaneast")
    page.get_by_label("SKU").click()
    expect(page.locator("#members")).to_contain_text("Location: japaneast")


def test_a_rollout_goes_wave_by_wave_is_paused_and_resumed(page: Page) -> None:
    roll_out(page, "sql")
    expect(page.locator("#rollout")).to_contain_text("Wave 1 of")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#rollout")).to_contain_text("Paused by a person")
    page.get_by_role("button", name="Resume").click()
    # The demo's own stories must be over first: one of them fills a window of two hours (two minutes here), in a region
    # that must not be changed at the same time.
    expect(page.locator("#run-parts li", has_text="Succeeded").locator(".chart-count")).not_to_have_text(
        "0", timeout=5 * RUN_MS
    )
    page.get_by_role("button", name="End rollout…", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="End the rollout").click()
    expect(page.locator("#rollout")).to_contain_text("Ended by a person")
