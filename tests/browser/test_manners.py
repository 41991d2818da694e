"""How the pages behave: keyboard, focus, tabs, toasts, paper, small screens, weight, and a database that goes away."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenContext, Stack
from tests.browser.steps import RUN_MS, open_updates, visit

pytestmark = pytest.mark.browser
MAX_PAGE_BYTES = 150_000
CONTROLS = """() => [...document.querySelectorAll("main a[href], main button, main input, main select, main textarea")]
    .filter((e) => e.type !== "hidden" && (e.checkVisibility() || e.closest("details")) && !e.closest("[popover], .visually-hidden"))
    .filter((e) => !e.matches(".visually-hidden, .wide-only, thead *"))
    .map((e) => e.name || e.textContent.trim() || e.getAttribute("aria-label"))"""


def test_small_and_zoomed_without_loss(new_context: OpenContext, pages: dict[str, str]) -> None:
    """At 320 px, and at 200 % on a screen of 1440: nothing to scroll sideways, and every control is still there."""
    wide = new_context().new_page()
    small = {
        width: new_context(viewport={"width": width, "height": 640}).new_page()
        for width in (320, 720)  # 720 px: 200 %
    }
    problems = []
    for name, *names in zip(visit(wide, pages), *(visit(page, pages) for page in small.values()), strict=True):
        assert set(names) == {name}
        there = set(wide.evaluate(CONTROLS))
        for width, page in small.items():
            if page.evaluate("document.documentElement.scrollWidth") > width:
                problems.append(f"{name}: wider than {width} px")
            if lost := there - set(page.evaluate(CONTROLS)):
                problems.append(f"{name} at {width} px: lost {sorted(lost)}")
    assert problems == []


def test_no_page_is_heavy(new_context: OpenContext, pages: dict[str, str]) -> None:
    """What the first load of each page transfers, its styles and scripts included, with an empty cache."""
    heavy = {}
    for name, address in pages.items():
        page = new_context().new_page()
        page.goto(address, wait_until="networkidle")
        size = page.evaluate(
            """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
                .reduce((sum, entry) => sum + entry.transferSize, 0)"""
        )
        assert size > 1_000, name
        heavy[name] = size
        page.context.close()
    assert {name: size for name, size in heavy.items() if size > MAX_PAGE_BYTES} == {}


def tab_to(page: Page, is_there: Callable[[], bool], *, most: int = 120, key: str = "Tab") -> None:
    """Press Tab until the focus is where it should be; what has it must be visible."""
    for _ in range(most):
        page.keyboard.press(key)
        if is_there():
            return
    pytest.fail(f"{most} times {key} did not lead there; the focus is on {focused(page)}")


def focused(page: Page) -> str:
    return str(
        page.evaluate(
            """() => { const e = document.activeElement;
                return e.labels?.[0]?.textContent.trim() || e.getAttribute("aria-label") || e.textContent.trim().slice(0, 80); }"""
        )
    )


def test_the_journey_by_keyboard_alone(page: Page) -> None:
    """From the list to a finished run without a pointer: every stop is reached with Tab, and its focus can be seen."""

    def go_to(words: str, tag: str = "*") -> None:
        tab_to(page, lambda: focused(page) == words and page.evaluate("(t) => document.activeElement.matches(t)", tag))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement.matches('input, select, textarea')"), words

    page.goto("/virtual-machines/")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("g")
    page.keyboard.press("/")
    page.keyboard.type("web-009")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=web-009")
    go_to("web-009", "a")
    page.keyboard.press("Enter")
    expect(page.locator("dl.strip")).to_contain_text("On track", timeout=RUN_MS)
    go_to("Assess now")
    page.keyboard.press("Enter")
    expect(page).to_have_title(re.compile("^● "))
    expect(page.locator("#blade")).to_contain_text("Assessment successful", timeout=RUN_MS)
    expect(page).to_have_title("web-009 · Updates · Hotpatch Portal")
    page.keyboard.press("g")
    page.keyboard.press("i")
    assert focused(page) == "Install updates now"
    page.keyboard.press("Enter")
    page.wait_for_url("**/install/")
    go_to("Critical")
    page.keyboard.press("Space")
    go_to("Include KB articles")
    go_to("Add KB2267602 to “Include KB articles”")
    page.keyboard.press("Enter")
    expect(page.locator("#wizard-step tr", has_text="KB2267602")).to_contain_text("Will be installed")
    go_to("Next: Properties")
    page.keyboard.press("Enter")
    expect(page.locator("[aria-current=step]")).to_contain_text("Properties")
    go_to("Next: Review + install")
    page.keyboard.press("Enter")
    expect(page.locator("[aria-current=step]")).to_contain_text("Review")
    go_to("Install")
    page.keyboard.press("Enter")
    page.wait_for_url("**/operations/*/")
    expect(page).to_have_title(re.compile("^● Installing · web-009"))
    expect(page.locator("#operation .running")).to_contain_text("Succeeded", timeout=RUN_MS)
    expect(page).to_have_title(re.compile("^Succeeded · web-009"))
    expect(page.locator("#announcements")).to_have_text("Succeeded")


def test_the_focus_stays_while_a_part_is_replaced(page: Page) -> None:
    open_updates(page, "web-008")
    expect(page.locator("dl.strip")).to_contain_text("On track", timeout=RUN_MS)
    page.get_by_role("button", name="Assess now").click()
    link = page.get_by_role("link", name="Open the operation")
    link.focus()
    first = page.locator("#progress").element_handle()
    assert first is not None
    page.wait_for_function("(old) => !old.isConnected", arg=first)  # replaced at least once
    assert focused(page) == "Open the operation"
    page.locator("#tab-history").focus()
    expect(page.locator("#blade")).to_contain_text("Assessment successful", timeout=RUN_MS)
    expect(page.locator("#tab-history")).to_be_focused()


def test_a_toast_tells_what_ended_elsewhere(page: Page) -> None:
    open_updates(page, "web-007")
    expect(page.locator("dl.strip")).to_contain_text("On track", timeout=RUN_MS)
    page.get_by_role("button", name="Assess now").click()
    page.goto("/calendar/")
    toast = page.locator(".toast")
    expect(toast).to_contain_text("Assessment · web-007", timeout=RUN_MS)
    toast.get_by_role("link", name="web-007").click()
    expect(page.locator("#operation")).to_contain_text("Succeeded")
    page.goto("/calendar/")
    page.wait_for_timeout(3_000)
    expect(page.locator(".toast")).to_have_count(0)


def test_shortcuts_show_themselves_and_leave_typing_alone(page: Page) -> None:
    page.goto("/calendar/")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    page.keyboard.press("?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("v")
    page.wait_for_url("**/virtual-machines/")
    page.keyboard.press("g")
    page.keyboard.press("/")
    page.keyboard.type("?gc")
    expect(page.locator(".topbar input[type=search]")).to_have_value("?gc")
    expect(dialog).to_be_hidden()
    assert page.url.endswith("/virtual-machines/")


def test_paper_is_light_and_carries_no_menus(new_context: OpenContext, stack: Stack) -> None:
    context = new_context(color_scheme="dark")
    context.add_cookies([{"name": "theme", "value": "dark", "url": stack.url}])
    page = context.new_page()
    open_updates(page, "web-006")
    page.emulate_media(media="print")
    for part in (".topbar", ".sidemenu", ".commandbar", ".footer"):
        expect(page.locator(part)).to_be_hidden()
    expect(page.locator("dl.strip")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(36, 36, 36)"


def test_the_database_stops_in_the_middle(page: Page, stack: Stack) -> None:
    """A calm page, nothing lost, and back by itself."""
    (postgres,) = [pid for pid, command in stack.children().items() if "postgres" in command.split(" ")[0]]
    page.goto("/virtual-machines/?q=sql-001")
    expect(page.locator("tbody tr")).to_have_count(1)
    stack.process.send_signal(signal.SIGSTOP)  # or the supervisor would have it back before anybody noticed
    try:
        os.kill(postgres, signal.SIGINT)
        deadline = time.monotonic() + 30
        while postgres_is_up(postgres) and time.monotonic() < deadline:
            time.sleep(0.1)
        answer = page.reload()
        assert answer is not None
        assert answer.status == 503
        expect(page.get_by_role("heading", level=1)).to_contain_text("The database is away")
        assert "Traceback" not in page.content()
    finally:
        stack.process.send_signal(signal.SIGCONT)
        expect(page.locator("tbody tr")).to_have_count(1, timeout=60_000)  # nobody touched anything
    expect(page.locator("main")).to_contain_text("sql-001")
    for _ in range(30):  # no process of the web server hands out a connection that died
        assert page.request.get("/virtual-machines/").status == 200
    open_updates(page, "sql-001")
    page.get_by_role("button", name="Assess now").click()
    expect(page.locator("#blade")).to_contain_text("Assessment successful", timeout=RUN_MS)


def postgres_is_up(pid: int) -> bool:
    """Whether the process is more than a zombie that its stopped parent has not reaped."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
