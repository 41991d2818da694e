"""The way back in a real browser: a hotpatch in English, a baseline in Japanese."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenContext, Stack
from tests.browser.steps import RUN_MS, open_updates

pytestmark = pytest.mark.browser


def hotfixes(stack: Stack, name: str) -> set[str]:
    return {line["HotFixID"] for line in json.loads(stack.manage("get_hotfix", name, "--json"))}


def test_a_hotpatch_is_rolled_back_and_held(page: Page, stack: Stack) -> None:
    name = "run-hotpatched"
    open_updates(page, name)
    updates = page.url.partition("?")[0]
    page.goto(f"{updates}?tab=history")
    expect(page.locator("tbody tr").last).to_contain_text("Succeeded", timeout=RUN_MS)
    page.goto(updates.removesuffix("updates/"))
    expect(page.locator("dl.essentials").first).to_contain_text("20348.5074")
    page.goto(updates)
    assert "KB5087424" in hotfixes(stack, name)
    page.get_by_role("link", name="Roll back").click()
    expect(page.locator("ol.runs li")).to_have_text(
        ["Uninstall KB5087424", "Reboot", "Check that the build is 20348.5020 (baseline KB5082142)"]
    )
    confirmation = page.get_by_role("textbox")
    confirmation.fill("another-machine")
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("main")).to_contain_text("This is not the name of the machine.")
    page.get_by_role("textbox").fill(name)
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Rollback")
    expect(page.locator("#operation .running")).to_contain_text("Succeeded", timeout=RUN_MS)
    facts = page.locator("#operation dl.essentials").first
    expect(facts).to_contain_text("20348.5074 → 20348.5020")
    expect(facts).to_contain_text("Confirmed")
    expect(page.locator("ol.timeline")).to_contain_text("Uninstalling KB5087424")
    page.get_by_role("link", name="Update history").click()
    expect(page.locator("tbody tr", has_text="Rollback")).to_contain_text("Succeeded")
    expect(page.locator("#blade")).to_contain_text("KB5087424 is held back on this machine since a rollback")
    assert "KB5087424" not in hotfixes(stack, name)
    # no plan takes it until somebody lifts the hold
    page.get_by_role("link", name="Install updates now").click()
    expect(page.locator("#wizard-step tr", has_text="KB5087424")).to_contain_text("Excluded")
    open_updates(page, name)
    page.get_by_role("button", name="Lift the hold").click()
    expect(page.locator("body")).to_contain_text("The hold was lifted")
    expect(page.locator("#blade")).not_to_contain_text("is held back")


def test_a_baseline_is_rolled_back_in_japanese(new_context: OpenContext, stack: Stack) -> None:
    name = "web-003"
    page = new_context(locale="ja-JP").new_page()
    page.goto(f"/virtual-machines/?q={name}")
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.locator("dl.strip")).to_contain_text("ホットパッチ適用可", timeout=RUN_MS)
    page.get_by_role("link", name="ロールバック").click()
    expect(page.locator("ol.runs li")).to_have_text(
        [
            "KB5082142 をアンインストールする",
            "ベースライン KB5073457 をインストールする",
            "再起動",
            "ビルドが 20348.4648 (ベースライン KB5073457) であることを確認する",
        ]
    )
    page.get_by_role("textbox").fill(name)
    page.get_by_role("button", name="ロールバック").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ロールバック")
    expect(page.locator("#operation .running")).to_contain_text("成功", timeout=RUN_MS)
    expect(page.locator("#operation dl.essentials").first).to_contain_text("20348.5020 → 20348.4648")
    assert "KB5082142" not in hotfixes(stack, name)
    assert "KB5073457" in hotfixes(stack, name)


def test_it_is_refused_where_it_makes_no_sense(page: Page) -> None:
    open_updates(page, "run-agent-not-ready")  # never assessed: nobody knows what is installed
    page.get_by_role("link", name="Roll back").click()
    expect(page.locator("main")).to_contain_text("Which updates are installed is not known, or they do not explain")
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
