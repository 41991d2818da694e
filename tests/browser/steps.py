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


def wait_until_forecast(page: Page, name: str, words: str) -> None:
    """Look at a machine in the list until its next reboot says so: the tick tells it, within a minute of the first start."""
    for _look in range(90):
        page.goto(f"/virtual-machines/?q={name}")
        if page.locator("#rows tr", has_text=name).filter(has_text=words).count():
            return
        page.wait_for_timeout(1_000)
    raise AssertionError(f"{name}: nobody says {words!r}")


def make_configuration(page: Page, name: str) -> None:
    """Second Tuesday + 4 days, 22:00 in Tokyo, two hours, for machines with a tag; with its preview."""
    page.goto("/maintenance/create/")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("First day").fill("2026-11-24")
    page.get_by_label("Opens at").fill("22:00")
    page.get_by_label("Time zone").select_option("Tokyo Standard Time")
    page.get_by_text("Patch Tuesday + days").click()
    page.get_by_label("Days after Patch Tuesday").fill("4")
    page.get_by_label("Duration (in minutes)").fill("120")
    page.get_by_label("Tag", exact=True).fill("simulate")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("Next windows")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def roll_out(page: Page, words: str) -> None:
    """Install everything on the machines of these names, availability first: the steps, the review, its number."""
    page.goto(f"/bulk/?kind=installation&q={words}&all=1")
    for name in ("Updates", "Definition"):
        page.get_by_role("checkbox", name=name, exact=True).check()
    page.get_by_role("button", name="Next: Properties").click()
    page.get_by_role("checkbox", name="Availability first").check()
    page.get_by_role("button", name="Next: Review + install").click()
    button = page.get_by_role("button", name=re.compile(r"^Install on [0-9]+ machine"))
    number = re.search(r"[0-9]+", button.inner_text())
    assert number is not None
    page.get_by_label("Number of machines").fill(number[0])
    button.click()


def saved_view(page: Page) -> str:
    """The address of a view of one's own."""
    save, name = "/virtual-machines/views/save/?location=japaneast", "east-asia"
    page.goto(save)
    if not page.get_by_role("table").get_by_role("link", name=name, exact=True).count():
        page.get_by_label("Name of the view").fill(name)
        page.get_by_role("button", name="Save", exact=True).click()
        page.goto(save)
    return page.get_by_role("table").get_by_role("link", name=name, exact=True).get_attribute("href") or ""


def make_freeze(page: Page, name: str) -> None:
    """The turn of a year that none of these tests comes to, for the whole fleet; with its preview."""
    page.goto("/freezes/create/")
    page.get_by_label("Reason").fill(name)
    page.get_by_label("Time zone").select_option("Tokyo Standard Time")
    page.get_by_label("First day").fill("2098-12-28")
    page.get_by_label("Begins at").fill("18:00")
    page.get_by_label("Last day").fill("2099-01-04")
    page.get_by_label("Ends at").fill("06:00")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("What it would hold")
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
    page.goto("/freezes/")
    if not page.get_by_role("link", name="A far New Year").count():
        make_freeze(page, "A far New Year")
    page.goto("/freezes/")
    freeze = page.get_by_role("link", name="A far New Year").get_attribute("href") or ""
    roll_out(page, "lab")
    expect(page.locator("#waves-title")).to_be_visible()
    rollout = page.url
    page.goto("/access/")
    access_take = page.get_by_role("link", name="Take back").first.get_attribute("href") or ""
    page.goto("/service-principals/")
    if not page.get_by_role("link", name="nightly-patching").count():
        page.goto("/service-principals/create/")
        page.get_by_label("Name", exact=True).fill("nightly-patching")
        page.get_by_role("button", name="Create", exact=True).click()
    page.goto("/service-principals/")
    principal = page.get_by_role("link", name="nightly-patching").get_attribute("href") or ""
    page.goto("/virtual-machines/import/")
    file: FilePayload = {"name": "machines.json", "mimeType": "application/json", "buffer": b"[]"}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("checkbox", name="Dry run").check()
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url(re.compile(r"/virtual-machines/import/[0-9a-f-]{36}/"))
    import_job = page.url
    view = saved_view(page)
    return {
        "rollouts": "/rollouts/",
        "rollout": rollout,
        "maintenances": "/maintenance/",
        "maintenance-create": "/maintenance/create/",
        "maintenance": maintenance,
        "maintenance-edit": f"{maintenance}edit/",
        "maintenance-attach": f"/maintenance/attach/?vm={vm.strip('/').split('/')[-1]}",
        "freezes": "/freezes/",
        "freeze-create": "/freezes/create/",
        "freeze": freeze,
        "freeze-edit": f"{freeze}edit/",
        "exception-create": f"{freeze}exceptions/",
        "bulk-nothing-ticked": "/bulk/?kind=assessment",
        "bulk-ignored": "/bulk/?kind=assessment&connection=9999",
        "bulk-assess": "/bulk/?kind=assessment&all=1",
        "bulk-install": "/bulk/?kind=installation&q=web&all=1",
        "bulk-review": "/bulk/?kind=installation&q=fin&all=1&include=5082142&include=5087424",
        "bulk-retry": "/bulk/retry/",
        "bulk-rollback": "/bulk/?kind=rollback&q=web&all=1",
        "bulk-restart": "/bulk/?kind=restart&q=web&all=1",
        "bulk": bulk,
        "tour": "/tour/",
        "list": "/virtual-machines/",
        "list-ignored": "/virtual-machines/?connection=9999",
        "list-empty": "/virtual-machines/?q=nothing-of-this-name",
        "list-words": "/virtual-machines/?q=track:off+kb:5087424",
        "list-unread": "/virtual-machines/?q=truck:off",
        "list-columns": "/virtual-machines/columns/",
        "view-save": "/virtual-machines/views/save/?location=japaneast",
        "view-edit": f"{view}edit/",
        "view-replace": f"{view}replace/?location=japanwest",
        "view-remove": f"{view}remove/",
        "images": "/virtual-machines/images/",
        "import": "/virtual-machines/import/",
        "import-job": import_job,
        "create": "/virtual-machines/create/",
        "overview": vm,
        "settings": f"{vm}settings/",
        "activity": f"{vm}activity/",
        "fleet-activity": "/activity/",
        "waiting": "/waiting/",
        "access": "/access/",
        "access-give": "/access/give/?scope=resource_group",
        "access-take": access_take,
        "access-check": "/access/check/?person=admin&vm=web-013",
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
        "report": "/reports/",
        "report-part": "/reports/?days=7&period=7&product_line=ws2022",
        "report-machines": "/reports/machines/?standing=up_to_date&classification=Security",
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
        "restart": f"{updates}restart/",
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
