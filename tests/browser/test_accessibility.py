"""Every page: axe finds nothing, nothing is wider than the screen, and in Japanese nothing is left in English."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import resolve
from playwright.sync_api import Page

from tests.browser.conftest import OpenContext, Stack
from tests.browser.steps import visit, with_preferences
from tests.doors import DOORS

pytestmark = pytest.mark.browser

# What stays as it is in Japanese: names, ids, KB titles, technical words of Windows and Azure.
KEPT = re.compile(
    r"""
    (?:DISM|sfc|netsh)\s[ -~]+ | [A-Z]:\\\S+ | CBS\.log | WinHTTP | HTTP | TLS | WSUS | BITS | wuauserv | Cookie | SoftwareDistribution
    | Background\sIntelligent\sTransfer\sService | Process\sMonitor | Windows\sModules\sInstaller | TrustedInstaller | track:off | truck(:off)?
    | Windows\sUpdate | Microsoft | PowerShell | ConvertTo-Json\s-Depth | Resource\sGraph | Asia/Tokyo | \sto\s(?=\d{4}-) | \bweb$
    | KB\d+ | \d{4}-\d\d(-\d\d)? | [0-9a-f]{8}(-[0-9a-f-]+)? | Hotpatch\sPortal | English | admin | UTC | SKU | OS | VM | KB | ID
    | WindowsServer | Azure(\sStack\sHCI)? | Windows(\sServer)?(\s20\d\d)? | Datacenter:?(\sAzure\sEdition)? | Get-HotFix | HotFixID | InstalledOn
    | SConfig | Server\sCore | Feature\sPack | Service\sPack | az\svm\slist\s-o\sjson | nextLink | MB | Resource\sManager | manage\.py.* | GB
    | Standard_\w+ | Contoso.* | MicrosoftWindowsServer | WindowsServer | [a-z]+-[a-z0-9-]+ | japan\w+ | westeurope | northeurope | osaka
    | (Chrome|Firefox|Edge|Safari)\s·\s\w+ | simulate | CSV | (Quiet|Tokyo)\sSaturdays | \d?(Day|Week|Month)s?\b | Saturday | Sunday | Second | Tuesday | Offset4 | day15 | latest | [A-Z][a-z]+By[A-Z]\w+ | IfRequired | ImageDefault | Tokyo\sStandard\sTime | web\s00 | Main\sfleet | Baseline\sweek
    | Osaka\scluster | October\s2025 | August\s2024 | unplanned\sbaseline\) | /subscriptions\S* | \d+(\.\d+)+ | x64 | mcr\S* | json
    | A\sfar\sNew\sYear | Patch\sTuesday | PDF | (?<=末尾が\s)\S+ | app/ | EMAIL_HOST | sql | (tcp|https?):// | \.NET | \w+:\w+:SKU | [a-z]+\.[a-z_]+
    """,
    re.VERBOSE,
)
# Texts that come from Microsoft's data, or that are nobody's words.
QUOTED = "tbody .title, code, .mono, details, [lang=en], input, select[name=connection], select[name=subscription], select[name=time_zone], kbd, .reason.mono"


# What has an address and is no page of somebody who is signed in.
NO_PAGES = {
    *("healthz", "readyz", "metrics"),  # a word, or numbers
    *(
        "vms:vm-export",
        "vms:import-answers",
        "activity-export",
        "updates:pending-export",
        "updates:history-export",
        "updates:report-export",
    ),  # files
    "vms:view",  # leads to the list
    *("arm:subscriptions", "arm:tenants", "arm:providers", "arm:endpoints", "arm:instances"),  # answers to programs
    *("arm:discovery", "arm:keys", "arm:identity"),
    "updates:ended",  # a part: the toasts
    "vms:suggestions",  # a part: what a filter's text may mean
    "account_login",  # looked at signed out
    "account_set_password",  # for accounts without a password
}


def test_every_page_is_looked_at(pages: dict[str, str]) -> None:
    """A new page that is not in `addresses` fails here: every look at the pages below would miss it."""
    looked_at = {resolve(urlsplit(address).path).view_name for name, address in pages.items() if name != "404"}
    assert looked_at == {name for method, name in DOORS if method == "get"} - NO_PAGES


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
    assert not problems, "\n".join(problems)


def test_nothing_is_left_in_english(new_context: OpenContext, stack: Stack, pages: dict[str, str]) -> None:
    """Nor does a page scroll sideways on a small laptop, where Japanese words need more room than English ones."""
    width = 1280
    page = with_preferences(new_context(viewport={"width": width, "height": 800}), stack, "ja", "light")
    signed_out = with_preferences(new_context(storage_state=None), stack, "ja", "light")
    signed_out.goto("/accounts/login/")
    left = {"sign-in": english_in(signed_out)}
    wide = []
    for name in visit(page, pages):
        left[name] = english_in(page)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(f"{name}: wider than {width} px")
    found = [f"{name}: {', '.join(words)}" for name, words in left.items() if words] + wide
    assert not found, "\n".join(found)


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
