"""Every page: axe finds nothing, nothing is wider than the screen, and in Japanese nothing is left in English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import resolve
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import OpenContext, Stack
from tests.test_doors import DOORS

pytestmark = pytest.mark.browser

# What stays as it is in Japanese: names, ids, KB titles, technical words of Windows and Azure.
KEPT = re.compile(
    r"""
    Windows\sUpdate | Microsoft | PowerShell | ConvertTo-Json\s-Depth | Resource\sGraph | Asia/Tokyo | \sto\s(?=\d{4}-) | \bweb$
    | KB\d+ | \d{4}-\d\d(-\d\d)? | [0-9a-f]{8}(-[0-9a-f-]+)? | Hotpatch\sPortal | English | admin | UTC | SKU | OS | VM | KB | ID
    | WindowsServer | Azure(\sStack\sHCI)? | Windows(\sServer)?(\s20\d\d)? | Datacenter:?(\sAzure\sEdition)? | Get-HotFix | HotFixID | InstalledOn
    | SConfig | Server\sCore | Feature\sPack | Service\sPack | az\svm\slist\s-o\sjson | nextLink | MB | Resource\sManager | manage\.py.* | GB
    | Standard_\w+ | Contoso.* | MicrosoftWindowsServer | WindowsServer | [a-z]+-[a-z0-9-]+ | japan\w+ | westeurope | northeurope | osaka
    | (Chrome|Firefox|Edge|Safari)\s·\s\w+ | simulate | CSV | (Quiet|Tokyo)\sSaturdays | \d?(Day|Week|Month)s?\b | Saturday | Sunday | Second | Tuesday | Offset4 | day15 | latest | [A-Z][a-z]+By[A-Z]\w+ | IfRequired | ImageDefault | Tokyo\sStandard\sTime | web\s00 | Main\sfleet | Baseline\sweek
    | Osaka\scluster | October\s2025 | August\s2024 | unplanned\sbaseline\) | /subscriptions\S* | \d+(\.\d+)+ | x64 | mcr\S* | json
    | sql | (tcp|https?):// | \.NET | \w+:\w+:SKU | [a-z]+\.[a-z_]+
    """,
    re.VERBOSE,
)
# Texts that come from Microsoft's data, or that are nobody's words.
QUOTED = "tbody .title, code, .mono, details, [lang=en], input, select[name=connection], select[name=subscription], select[name=time_zone], kbd, .reason.mono"


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
    page.goto("/virtual-machines/import/")
    file = {"name": "machines.json", "mimeType": "application/json", "buffer": b"[]"}
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
        "decisions": "/decisions/",
        "edit": f"{vm}edit/",
        "remove": f"{vm}remove/",
        "connections": "/connections/",
        "connection": connection,
        "connection-create": "/connections/create/",
        "account": "/accounts/",
        "password": "/accounts/password/change/",
        "logout": "/accounts/logout/",
        "rollback": f"{updates}rollback/",
        "404": "/nothing/here/",
    }


# What has an address and is no page of somebody who is signed in.
NO_PAGES = {
    "home",  # leads to the list
    *("healthz", "readyz", "metrics"),  # a word, or numbers
    *("vms:vm-export", "vms:import-answers", "activity-export"),  # files
    "updates:ended",  # a part: the toasts
    "account_login",  # looked at signed out
    "account_set_password",  # for accounts without a password
}


def test_every_page_is_looked_at(pages: dict[str, str]) -> None:
    """A new page that is not in `addresses` fails here: every look at the pages below would miss it."""
    looked_at = {resolve(urlsplit(address).path).view_name for name, address in pages.items() if name != "404"}
    assert looked_at == {name for method, name in DOORS if method == "get"} - NO_PAGES


@pytest.fixture(scope="module")
def pages(browser, stack: Stack, signed_in) -> dict[str, str]:  # type: ignore[no-untyped-def]
    context = browser.new_context(base_url=stack.url, storage_state=signed_in)
    found = addresses(context.new_page())
    context.close()
    return found


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


@pytest.mark.parametrize(
    ("language", "theme", "width"),
    [("en", "light", 1440), ("ja", "dark", 360), ("en", "dark", 1440), ("ja", "light", 360)],
)
def test_axe_finds_nothing(
    new_context: OpenContext, stack: Stack, pages: dict[str, str], language: str, theme: str, width: int
) -> None:
    page = with_preferences(new_context(viewport={"width": width, "height": 900}), stack, language, theme)
    problems = []
    for name in visit(page, pages):
        found = Axe().run(page).response["violations"]
        problems += [f"{name}: {v['id']} {v['nodes'][0]['html'][:160]}" for v in found]
        if page.evaluate("document.documentElement.scrollWidth") > width:
            problems.append(f"{name}: wider than {width} px")
    signed_out = with_preferences(
        new_context(viewport={"width": width, "height": 900}, storage_state=None), stack, language, theme
    )
    for address in ("/accounts/login/",):
        signed_out.goto(address)
        found = Axe().run(signed_out).response["violations"]
        problems += [f"{address}: {v['id']} {v['nodes'][0]['html'][:160]}" for v in found]
    assert problems == []


def test_nothing_is_left_in_english(new_context: OpenContext, stack: Stack, pages: dict[str, str]) -> None:
    page = with_preferences(new_context(), stack, "ja", "light")
    signed_out = with_preferences(new_context(storage_state=None), stack, "ja", "light")
    signed_out.goto("/accounts/login/")
    left = {"sign-in": english_in(signed_out)}
    for name in visit(page, pages):
        left[name] = english_in(page)
    assert {name: words for name, words in left.items() if words} == {}


def english_in(page: Page) -> list[str]:
    """What of the visible text is Latin words that are no names."""
    texts = page.evaluate(
        """(quoted) => {
            const found = [];
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                const parent = walker.currentNode.parentElement;
                if (parent.closest(quoted) || parent.closest("script, style, noscript")) continue;
                if (walker.currentNode.textContent.trim()) found.push(walker.currentNode.textContent.trim());
            }
            for (const element of document.querySelectorAll("[aria-label], [placeholder]")) {
                found.push(element.getAttribute("aria-label") ?? element.getAttribute("placeholder"));
            }
            return found;
        }""",
        QUOTED,
    )
    rest = {text: KEPT.sub(" ", text) for text in texts}
    return sorted(text for text, left in rest.items() if re.search(r"[A-Za-z]{2,}", left))
