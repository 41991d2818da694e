"""What several browser tests do: go to a machine's updates, wait for machines, look at every page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from playwright.sync_api import BrowserContext, FilePayload, Page, expect

if TYPE_CHECKING:
    from tests.browser.conftest import Stack

# An assessment takes about 3 s in the demo, an installation 10 to 25.
RUN_MS = 60_000


def open_updates(page: Page, name: str) -> None:
    page.goto(f"/virtual-machines/?q={name}")
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{name} | Updates")


def wait_until_machines_have_them(page: Page) -> None:
    """Look at the machines whose settings are not as wanted until there are none."""
    for _look in range(60):
        page.goto("/virtual-machines/?settings=differ")
        if page.get_by_role("heading", name="No virtual machine matches").count():
            return
        page.wait_for_timeout(1_000)
    raise AssertionError("settings do not arrive")


def make_configuration(page: Page, name: str) -> None:
    """Second Tuesday + 4 days, 22:00 in Tokyo, two hours, for machines with a tag; with its preview."""
    page.goto("/maintenance/create/")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("First day").fill("2026-11-24")
    page.get_by_label("Opens at").fill("22:00")
    page.get_by_label("Time zone").select_option("Tokyo Standard Time")
    page.get_by_label("Repeats").fill("Month Second Tuesday Offset4")
    page.get_by_label("Duration (in minutes)").fill("120")
    page.get_by_label("Tag", exact=True).fill("simulate")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("Next windows")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def addresses(page: Page) -> dict[str, str]:
    """One address of each of our page templates."""
    page.goto("/virtual-machines/?q=run-hotpatched")
    updates = page.locator("tbody th a").first.get_attribute("href") or ""
    vm = updates.removesuffix("updates/")
    page.goto(f"{updates}?tab=history")
    expect(page.locator("tbody tr").last).to_contain_text("Succeeded", timeout=60_000)
    operation = page.locator("tbody th a").last.get_attribute("href") or ""
    page.goto("/virtual-machines/?q=web-013")
    other = page.locator("tbody th a").first.get_attribute("href") or ""
    page.goto("/updates/")
    kb = page.locator("tbody th a").first.get_attribute("href") or ""
    page.goto("/connections/")
    connection = page.locator("tbody th a").first.get_attribute("href") or ""
    page.goto("/bulk/?kind=assessment&q=sql&all=1")
    page.get_by_label("Number of machines").fill("7")
    page.get_by_role("button", name="Assess 7 machines").click()
    expect(page.locator("#bulk-progress")).to_contain_text("Finished", timeout=60_000)
    bulk = page.url
    page.goto("/maintenance/")
    if not page.get_by_role("link", name="Quiet Saturdays").count():
        make_configuration(page, "Quiet Saturdays")
    page.goto("/maintenance/")
    maintenance = page.get_by_role("link", name="Quiet Saturdays").get_attribute("href") or ""
    page.goto("/bulk/?kind=installation&q=lab&all=1")
    page.get_by_text("As a rollout").click()
    page.get_by_role("checkbox", name="Availability first").check()
    page.get_by_label("Number of machines").fill("4")
    page.get_by_role("button", name="Install on 4 machines").click()
    expect(page.locator("#waves-title")).to_be_visible()
    rollout = page.url
    page.goto("/service-principals/")
    if not page.get_by_role("link", name="pipeline").count():
        page.goto("/service-principals/create/")
        page.get_by_label("Name").fill("pipeline")
        page.get_by_role("button", name="Create", exact=True).click()
    page.goto("/service-principals/")
    principal = page.get_by_role("link", name="pipeline").get_attribute("href") or ""
    page.goto("/virtual-machines/import/")
    file: FilePayload = {"name": "machines.json", "mimeType": "application/json", "buffer": b"[]"}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("checkbox", name="Dry run").check()
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url(re.compile(r"/virtual-machines/import/[0-9a-f-]{36}/"))
    import_job = page.url
    return {
        "rollouts": "/rollouts/",
        "rollout": rollout,
        "maintenances": "/maintenance/",
        "maintenance-create": "/maintenance/create/",
        "maintenance": maintenance,
        "maintenance-edit": f"{maintenance}edit/",
        "bulk-nothing-ticked": "/bulk/?kind=assessment",
        "bulk-ignored": "/bulk/?kind=assessment&connection=9999",
        "bulk-assess": "/bulk/?kind=assessment&all=1",
        "bulk-install": "/bulk/?kind=installation&q=web&all=1",
        "bulk-rollback": "/bulk/?kind=rollback&q=web&all=1",
        "bulk": bulk,
        "tour": "/tour/",
        "list": "/virtual-machines/",
        "list-ignored": "/virtual-machines/?connection=9999",
        "list-empty": "/virtual-machines/?q=nothing-of-this-name",
        "list-words": "/virtual-machines/?q=track:off+kb:5087424",
        "list-unread": "/virtual-machines/?q=truck:off",
        "list-columns": "/virtual-machines/columns/",
        "view-save": "/virtual-machines/views/save/?location=japaneast",
        "images": "/virtual-machines/images/",
        "import": "/virtual-machines/import/",
        "import-job": import_job,
        "create": "/virtual-machines/create/",
        "overview": vm,
        "settings": f"{vm}settings/",
        "activity": f"{vm}activity/",
        "fleet-activity": "/activity/",
        "settings-change": f"/virtual-machines/settings/?vm={vm.strip('/').rsplit('/', 1)[1]}",
        "recommended": updates,
        "compliance": f"{updates}?tab=compliance",
        "history": f"{updates}?tab=history",
        "installed": f"{updates}?tab=installed",
        "install": f"{updates}install/",
        "install-unassessed": f"{other}install/",
        "operation": operation,
        "calendar": "/calendar/?line=ws2025&year=2025",
        "calendar-now": "/calendar/",
        "calendar-sample": "/calendar/sample/",
        "pending": "/updates/",
        "pending-none": "/updates/?classification=Tools",
        "kb": kb,
        "decisions": "/decisions/",
        "fleet-history": "/history/?kind=all",
        "fleet-history-runs": "/history/runs/",
        "error-codes": "/history/codes/",
        "edit": f"{vm}edit/",
        "remove": f"{vm}remove/",
        "home": "/",
        "home-part": "/?product_line=ws2022",
        "connections": "/connections/",
        "connection": connection,
        "connection-create": "/connections/create/",
        "principals": "/service-principals/",
        "principal-create": "/service-principals/create/",
        "principal": principal,
        "account": "/accounts/",
        "password": "/accounts/password/change/",
        "logout": "/accounts/logout/",
        "rollback": f"{updates}rollback/",
        "404": "/nothing/here/",
    }


def with_preferences(context: BrowserContext, stack: Stack, language: str, theme: str) -> Page:
    context.add_cookies(
        [
            {"name": "django_language", "value": language, "url": stack.url},
            {"name": "theme", "value": theme, "url": stack.url},
        ]
    )
    return context.new_page()


def visit(page: Page, pages: dict[str, str]) -> Iterator[str]:
    """Every page, the wizard's later steps included."""
    for name, address in pages.items():
        page.goto(address)
        yield name
        if name == "install":
            for step in ("properties", "review"):
                page.locator(f"button[name=go][value={step}]").last.click()
                page.wait_for_load_state()
                yield f"install-{step}"
        if name == "settings-change":
            page.locator("select[name=patch_orchestration]").select_option("Manual")
            page.locator("button[name=go][value=review]").click()
            page.wait_for_load_state()
            yield "settings-change-review"
