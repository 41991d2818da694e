"""The main job in a real browser against the one-command stack, with JavaScript and without."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Stack
from tests.browser.steps import RUN_MS, open_updates, wait_until_machines_have_them


def row(page: Page, text: str) -> str:
    found = page.locator("tbody tr", has_text=text).first
    return re.sub(r"\s+", " ", found.inner_text())


def journey(page: Page, stack: Stack, name: str) -> None:
    """Sign-in has happened. Assess, read, plan, review, run, verify, look back."""
    open_updates(page, name)
    expect(page.locator("#blade")).to_contain_text("Not assessed yet")
    page.get_by_role("button", name="Assess now").click()
    strip = page.locator("dl.strip")
    expect(page.locator("#blade")).to_contain_text("Assessment successful", timeout=RUN_MS)
    expect(strip).to_contain_text("On track")
    expect(strip.locator("div", has_text="Last assessed").locator("time")).to_be_visible()
    expect(strip).to_contain_text("catalogue as of 2026-05-20")
    assert "KB5087424" in row(page, "2026-05 Hotpatch")
    page.get_by_role("link", name="Update compliance").click()
    assert "nobody" in row(page, ".NET Framework")

    page.get_by_role("link", name="Install updates now").click()
    page.get_by_role("checkbox", name="Critical").uncheck()
    expect(page.get_by_role("checkbox", name="Security")).to_be_checked()
    page.get_by_role("textbox", name="Include KB articles").fill("KB2267602")
    page.get_by_role("textbox", name="Exclude KB articles").fill("５０８４０７１")
    page.get_by_role("button", name="Next: Properties").click()
    expect(page.get_by_label("Reboot if required")).to_be_checked()
    page.get_by_role("button", name="Next: Review + install").click()
    expect(page.locator("#review-verdicts tbody tr")).to_have_count(4)
    assert "Will be installed Its class is selected Never reboots" in row(page, "KB5087424")
    assert "Will be installed Its KB is on the include list" in row(page, "KB2267602")
    assert "Excluded Its KB is on the exclude list" in row(page, "KB5084071")
    assert "Not selected Its class is not selected" in row(page, "KB890830")
    expect(page.locator(".prospects")).to_contain_text("No reboot")
    expect(page.locator(".prospects")).to_contain_text("20 min")
    page.get_by_role("button", name="Install", exact=True).click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Installation")
    address = page.url
    card = page.locator("#operation .running")
    expect(card).to_contain_text(re.compile("Starting|In progress|Queued"))
    expect(card).to_contain_text(re.compile(r"Installing KB\d+, \d of 2|Downloading"), timeout=RUN_MS)
    expect(card).to_contain_text("Succeeded", timeout=RUN_MS)
    facts = page.locator("#operation dl.essentials").first
    expect(facts).to_contain_text("Not needed")
    expect(facts).to_contain_text("Confirmed")
    expect(facts).to_contain_text("20348.5020 → 20348.5074")
    assert "Installed" in row(page, "KB5087424")
    assert "Excluded" in row(page, "KB5084071")
    assert "Not selected" in row(page, "KB890830")
    expect(page.locator("ol.timeline")).to_contain_text("Finished")

    page.get_by_role("link", name="Update history").click()
    run = page.locator("tbody tr", has_text="Installation")
    expect(run).to_contain_text("Succeeded")
    run.get_by_role("link").click()
    assert page.url == address
    open_updates(page, name)
    page.get_by_role("link", name="Installed updates").click()
    assert "KB5087424" in row(page, "2026-05 Hotpatch")
    listed = json.loads(stack.manage("get_hotfix", name, "--json"))
    assert "KB5087424" in {line["HotFixID"] for line in listed}


def test_the_journey_with_javascript(page: Page, stack: Stack) -> None:
    journey(page, stack, "web-013")


def test_the_journey_without_javascript(page_without_js: Page, stack: Stack) -> None:
    journey(page_without_js, stack, "web-014")


def test_two_rapid_clicks_are_one_assessment(page: Page, stack: Stack) -> None:
    open_updates(page, "web-012")
    expect(page.locator("dl.strip")).to_contain_text("On track", timeout=RUN_MS)
    own = page.locator("tbody tr", has_text="admin")
    page.goto(f"{page.url}?tab=history")
    expect(page.locator("#tab-history")).to_be_visible()
    before = own.count()  # other tests use this machine, too
    open_updates(page, "web-012")
    assert page.locator(".tile-number").count() == 0
    page.get_by_role("button", name="Assess now").dblclick()
    expect(page.get_by_role("link", name="Open the operation")).to_be_visible()
    expect(page.locator("#blade")).to_contain_text("Assessment successful", timeout=RUN_MS)
    page.get_by_role("link", name="Update history").click()
    expect(own).to_have_count(before + 1)


def test_the_preview_follows_what_is_typed(page: Page, stack: Stack) -> None:
    open_updates(page, "web-011")
    expect(page.locator("dl.strip")).to_contain_text("On track", timeout=RUN_MS)
    page.get_by_role("link", name="Install updates now").click()
    preview = page.locator("#wizard-step")
    expect(preview.locator("tr", has_text="KB5084071")).to_contain_text("Not selected")
    page.get_by_role("checkbox", name="Updates", exact=True).check()
    expect(preview.locator("tr", has_text="KB5084071")).to_contain_text("Will be installed")
    page.get_by_role("textbox", name="Exclude KB articles").fill("KB12x")
    expect(preview).to_contain_text("“KB12x” is not a KB article")
    page.get_by_role("button", name="Next: Properties").click()
    expect(page.locator("main")).to_contain_text("“KB12x” is not a KB article")
    expect(page.get_by_role("textbox", name="Exclude KB articles")).to_have_value("KB12x")


def test_the_stories_of_the_demo(page: Page, stack: Stack) -> None:
    for name, words in {
        "hr-off-track": "Off track since KB5070881",
        "fin-001": "Baseline due",
        "fin-006": "Baseline overdue",
        "run-contradicted": "The last installation is contradicted",
        "run-never-reboot": "Reboot required",
        "img-custom": "Custom and gallery images cannot be hotpatched",
        "img-container-host": "Container base images cannot be hotpatched",
        "img-desktop": "2022-datacenter-azure-edition is not in the image catalog",
    }.items():
        open_updates(page, name)
        expect(page.locator("#blade")).to_contain_text(words, timeout=RUN_MS)


def test_settings_of_a_selection(page: Page) -> None:
    page.goto("/virtual-machines/?resource_group=rg-app")
    app = page.get_by_role("link", name="app-001").get_attribute("href") or ""
    page.goto(app.replace("updates/", "activity/"))
    turned_off = page.locator("tbody tr", has_text="Hotpatch: On → Off")
    before = turned_off.count()  # other tests use this machine, too
    page.goto("/virtual-machines/?resource_group=rg-app")
    page.get_by_role("checkbox", name="machines on this page").check()
    page.get_by_role("button", name="Update settings").click()
    page.get_by_label("Patch orchestration").select_option("Manual updates")
    page.get_by_role("button", name="Next: Review").click()
    expect(page.locator("#refused .tile-number")).to_have_text("10")
    expect(page.locator("tbody")).to_contain_text("Hotpatch needs the orchestration")
    page.get_by_role("button", name="Previous").click()
    page.get_by_label("Patch orchestration").select_option("Keep as it is")
    page.get_by_label("Hotpatch").select_option("Off")
    page.get_by_role("button", name="Next: Review").click()
    expect(page.locator("#changed .tile-number")).to_have_text("8")
    expect(page.locator("#unchanged .tile-number")).to_have_text("2")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.locator("#changed .tile-caption")).to_have_text("on their way")
    wait_until_machines_have_them(page)
    page.goto(app.replace("updates/", "settings/"))
    expect(page.locator("dl.essentials")).to_contain_text("Off")
    page.locator('a[href*="/virtual-machines/"][href$="/activity/"]').click()
    expect(turned_off).to_have_count(before + 1)
    expect(page.locator("tbody tr", has_text="Settings").filter(has_text="admin").first).to_be_visible()


def test_the_calendar_of_2024(page: Page) -> None:
    page.goto("/calendar/?line=ws2022&year=2024")
    for tile, count in {"planned-baselines": "4", "unplanned-baselines": "1", "hotpatches": "7"}.items():
        expect(page.locator(f"#{tile} .tile-number")).to_have_text(count)


def test_theme_and_language_switch(page: Page) -> None:
    page.goto("/virtual-machines/")
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Language").click()
    page.get_by_role("button", name="日本語").click()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    expect(page.get_by_role("heading", level=1)).to_have_text("仮想マシン")


def test_sign_out(new_context) -> None:  # type: ignore[no-untyped-def]
    page = new_context(storage_state=None).new_page()
    page.goto("/virtual-machines/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.fill("input[name=login]", "admin")
    page.fill("input[name=password]", "wrong")
    page.click("main .button--primary")
    expect(page.get_by_role("alert")).to_be_visible()


pytestmark = pytest.mark.browser
