"""One machine and many: settings with refusals, records by hand, the guard, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from demo.fleet import MAIN
from tests.browser.steps import RUN_MS, open_updates, wait_until_machines_have_them

pytestmark = pytest.mark.browser
WITHOUT_HOTPATCH = [
    *(f"fin-{n:03}" for n in range(1, 7)),
    *(f"sql-{n:03}" for n in range(1, 8)),
    *(f"hr-{n:03}" for n in range(1, 4)),
    *(f"lab-{n:03}" for n in range(1, 5)),
    *(f"app-{n:03}" for n in range(1, 4)),
]
WITH_HOTPATCH = [
    "run-agent-not-ready",
    "run-contradicted",
    "run-everything",
    "run-failing-kb",
    "run-hotpatched",
    "run-never-reboot",
    "run-reboot-hangs",
]


def change(page: Page, names: list[str], choices: dict[str, str]) -> None:
    """Tick machines in the list and go as far as the review."""
    page.goto("/virtual-machines/?sort=name" if len(names) > 1 else f"/virtual-machines/?q={names[0]}")
    if page.locator(".tickbar.is-on").count():  # what other tests have ticked
        page.get_by_role("button", name="Clear", exact=True).click()
        expect(page.locator(".tickbar.is-on")).to_have_count(0)
    for name in names:
        page.locator("tbody tr", has=page.get_by_role("link", name=name, exact=True)).get_by_role("checkbox").check()
    page.get_by_role("button", name="Update settings").click()
    for label, choice in choices.items():
        page.get_by_label(label, exact=True).select_option(choice)
    page.get_by_role("button", name="Next: Review").click()


def suffer(page: Page, name: str, misfortune: str) -> None:
    """Let a machine of the main connection suffer something, or nothing any more."""
    page.goto("/connections/")
    page.get_by_role("link", name=MAIN, exact=True).click()
    page.get_by_label("Name of the machine").fill(name)
    page.get_by_label("Misfortune", exact=True).select_option(value=misfortune)
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.locator("main")).to_contain_text("Set on 1 machine.")


def test_a_change_of_settings_ends_at_the_machine_and_one_behind_our_back_shows(page: Page) -> None:
    name, differs = "web-012", "#settings-differ"
    open_updates(page, name)
    machine = page.url
    change(page, [name], {"Reboot setting": "Always reboot"})
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.locator("tbody")).to_contain_text("On its way")
    page.goto(f"{machine}?tab=history")
    run = page.locator("tbody tr", has_text="Settings").first
    expect(run).to_be_visible()
    run.get_by_role("link").first.click()
    expect(page.locator("#operation .running")).to_contain_text("Succeeded", timeout=RUN_MS)
    expect(page.locator("#operation dl")).to_contain_text("Always reboot")
    page.goto(machine.replace("updates/", "settings/"))
    expect(page.locator("dl.essentials")).to_contain_text("Always reboot")
    expect(page.locator(differs)).to_have_count(0)

    suffer(page, name, "settings-changed")
    open_updates(page, name)
    page.get_by_role("button", name="Assess now").click()
    expect(page.locator(differs)).to_contain_text(
        "Reboot setting: reported Never reboot, wanted Always reboot", timeout=RUN_MS
    )
    page.goto("/virtual-machines/")
    page.get_by_text("Add filter", exact=True).click()
    page.get_by_label("Settings", exact=True).select_option("Not as wanted")
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.locator("#rows tr")).to_contain_text(name)
    expect(page.locator("#rows tr")).to_contain_text("Settings not as wanted")

    suffer(page, name, "")
    open_updates(page, name)
    page.locator(differs).get_by_role("button", name="Apply again").click()
    expect(page.locator("#operation .running")).to_contain_text("Succeeded", timeout=RUN_MS)
    open_updates(page, name)
    expect(page.locator(differs)).to_have_count(0)
    wait_until_machines_have_them(page)


def test_orchestration_of_thirty_of_which_seven_are_refused(page: Page) -> None:
    change(page, WITHOUT_HOTPATCH, {"Hotpatch": "Off"})
    page.get_by_role("button", name="Change", exact=True).click()
    wait_until_machines_have_them(page)
    change(page, WITHOUT_HOTPATCH + WITH_HOTPATCH, {"Patch orchestration": "Windows Automatic Updates"})
    expect(page.locator("tbody tr")).to_have_count(30)
    expect(page.locator("#changed .tile-number")).to_have_text("23")
    expect(page.locator("#refused .tile-number")).to_have_text("7")
    refused = page.locator("tbody tr", has_text="Refused")
    assert sorted(refused.locator("th").all_inner_texts()) == WITH_HOTPATCH
    for words in refused.all_inner_texts():
        assert "Hotpatch needs the orchestration “Azure Managed - Safe Deployment”." in words
    refused.first.get_by_text("Details").click()
    expect(refused.first).to_contain_text("windowsConfiguration.patchSettings.enableHotpatching")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.locator("#changed .tile-number")).to_have_text("23")
    wait_until_machines_have_them(page)
    open_updates(page, "fin-001")
    page.goto(page.url.replace("updates/", "settings/"))
    expect(page.locator("dl.essentials")).to_contain_text("AutomaticByOS")
    # and back, for whoever comes next
    change(page, WITHOUT_HOTPATCH, {"Patch orchestration": "Azure Managed - Safe Deployment", "Hotpatch": "On"})
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.locator("#changed .tile-number")).to_have_text("23")


def test_hotpatch_off_and_on_for_a_core_machine(page: Page) -> None:
    for choice, status, track in (("Off", "Disabled", "Not on the train"), ("On", "Enabled", "On track")):
        open_updates(page, "web-010")
        page.locator("dl.strip").get_by_role("link", name="Change").click()
        page.get_by_label("Hotpatch").select_option(choice)
        page.get_by_role("button", name="Next: Review").click()
        page.get_by_role("button", name="Change", exact=True).click()
        open_updates(page, "web-010")
        expect(page.locator("dl.strip")).to_contain_text(status, timeout=RUN_MS)
        # The track is told anew within seconds, and the page is looked at again.
        for _look in range(40):
            if track in page.locator("dl.strip").inner_text():
                break
            page.wait_for_timeout(2_000)
            open_updates(page, "web-010")
        expect(page.locator("dl.strip")).to_contain_text(track)


@pytest.mark.parametrize(
    ("image", "said", "hotpatch"),
    [
        ("2022-datacenter-azure-edition-core", "Hotpatch is available", "Pending evaluation"),
        ("2022-datacenter-azure-edition", "Hotpatch is not available", "Not available"),
    ],
)
def test_a_machine_made_by_hand(page: Page, image: str, said: str, hotpatch: str) -> None:
    name = f"made-{len(image)}"
    page.goto("/virtual-machines/create/")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Image", exact=True).fill(f"MicrosoftWindowsServer:WindowsServer:{image}")
    expect(page.locator("#verdict")).to_contain_text(said)
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    open_updates(page, name)
    expect(page.locator("dl.strip")).to_contain_text(hotpatch)
    page.goto(page.url.replace("updates/", "remove/"))
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Remove").click()
    page.goto(f"/virtual-machines/?q={name}")
    expect(page.locator("main")).not_to_contain_text("Server Core")
    expect(page.locator("tbody tr")).to_have_count(0)


def test_what_an_overridden_guard_does(page: Page) -> None:
    """In October 2025 KB5070881 was offered to hotpatch machines, and took those that took it off the train."""
    open_updates(page, "hr-001")
    expect(page.locator("dl.strip")).to_contain_text("On track", timeout=RUN_MS)
    page.get_by_role("link", name="Install updates now").click()
    page.get_by_role("button", name="Next: Properties").click()
    page.get_by_role("button", name="Next: Review + install").click()
    guard = page.locator("tbody tr", has_text="KB5070881")
    expect(guard).to_contain_text("Not selected")
    tick = page.get_by_role("checkbox", name=re.compile(r"Install KB5070881 although .* until 2026-01"))
    expect(tick).not_to_be_checked()
    tick.check()
    expect(guard).to_contain_text("Will be installed")
    expect(page.get_by_role("checkbox", name=re.compile("KB5070881"))).to_be_focused()
    page.get_by_role("button", name="Install", exact=True).click()
    expect(page.locator("#operation .running")).to_contain_text("Succeeded", timeout=RUN_MS)
    open_updates(page, "hr-001")
    strip = page.locator("dl.strip")
    expect(strip).to_contain_text("Off track since KB5070881")
    expect(strip).to_contain_text("planned for 2026-01")
    page.get_by_text("Reboot forecast").click()
    forecast = page.locator("#forecast tbody tr")
    expect(forecast.filter(has_text="2025-12")).to_contain_text("cumulative update")
    expect(forecast.filter(has_text="2026-01")).to_contain_text("planned baseline")
