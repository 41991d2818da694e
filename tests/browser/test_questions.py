"""What an operator asks of the fleet, from the overview on: with JavaScript, without, and with the keyboard alone.

Each journey counts what is followed or pressed; how many that may be is part of the promise.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenContext, Stack
from tests.browser.steps import wait_until_forecast

pytestmark = pytest.mark.browser
MOST_TABS = 250


class Hand:
    """Follows links and presses buttons of a page, and counts it."""

    def __init__(self, page: Page, *, has_mouse: bool) -> None:
        self.page, self.has_mouse, self.clicks = page, has_mouse, 0

    def begin(self, address: str = "/") -> None:
        """Open the page that the journey begins at."""
        self.page.goto(address)
        self.clicks = 0

    def follow(self, target: Locator, *, at: Locator | None = None) -> None:
        """Click it (`at` a part of it), or reach it with Tab and press Enter."""
        self.clicks += 1
        if self.has_mouse:
            (at or target).click()
        else:
            self._reach(target)
            self.page.keyboard.press("Enter")

    def write(self, field: Locator, words: str) -> None:
        """Type into a field."""
        if self.has_mouse:
            field.fill(words)
        else:
            self._reach(field)
            self.page.keyboard.type(words)

    def tick(self, box: Locator) -> None:
        """Tick a box."""
        self.clicks += 1
        if self.has_mouse:
            box.check()
        else:
            self._reach(box)
            self.page.keyboard.press("Space")
            expect(box).to_be_checked()

    def _reach(self, target: Locator) -> None:
        for _ in range(MOST_TABS):
            if target.evaluate("node => node === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{MOST_TABS} times Tab do not lead to {target}")


@pytest.fixture(params=["javascript", "no javascript", "keyboard"])
def hand(request: pytest.FixtureRequest, new_context: OpenContext) -> Hand:
    page = new_context(java_script_enabled=request.param != "no javascript").new_page()
    return Hand(page, has_mouse=request.param != "keyboard")


def test_who_lacks_an_update(hand: Hand) -> None:
    hand.begin()
    hand.follow(hand.page.get_by_role("navigation").get_by_role("link", name="Pending updates"))
    row = hand.page.get_by_role("row").filter(has=hand.page.get_by_role("link", name="KB5087424", exact=True)).first
    number = row.locator("td.number").first.get_by_role("link").first
    count = int(number.inner_text())
    hand.follow(number)
    expect(hand.page.get_by_role("heading", level=1)).to_have_text("Virtual machines")
    expect(hand.page.locator("#rows tr")).to_have_count(min(count, 50))
    expect(hand.page.locator(".listbar")).to_contain_text("KB5087424")
    assert hand.clicks == 2


def test_what_failed_this_week_and_one_of_its_runs(hand: Hand) -> None:
    hand.begin()
    hand.follow(hand.page.get_by_role("navigation").get_by_role("link", name="History"))
    reasons = (
        hand.page.get_by_role("region")
        .filter(has_text="Failures by reason")
        .or_(hand.page.locator("section", has=hand.page.get_by_role("heading", name="Failures by reason")))
    )
    group = reasons.locator("tbody tr", has_text="KB").first
    expect(group).to_contain_text("0x")
    hand.follow(group.get_by_role("link").last)
    expect(hand.page.get_by_role("heading", level=1)).to_have_text("Installation")
    expect(hand.page.locator("#operation")).to_contain_text("Failed")
    assert hand.clicks == 2


def test_an_off_track_machine(hand: Hand) -> None:
    hand.begin()
    hand.follow(hand.page.locator(".overview-needs").get_by_role("link", name="off the hotpatch track"))
    row = hand.page.locator("#rows tr", has_text="hr-off-track")
    expect(row).to_contain_text("Off the hotpatch track")
    hand.follow(row.get_by_role("link", name="hr-off-track", exact=True))
    expect(hand.page.get_by_role("heading", level=1)).to_have_text("hr-off-track | Updates")
    expect(hand.page.locator("#blade")).to_contain_text("Off track since KB5070881")
    assert hand.clicks == 2


def test_who_reboots_next_patch_tuesday_and_why(hand: Hand) -> None:
    wait_until_forecast(hand.page, "app-010", "pending updates may reboot")
    hand.begin()
    # The demo's today is 2026-05-20; of a picture the whole column is clicked.
    month = hand.page.locator("#months").get_by_role("link", name="June 9, 2026")
    hand.follow(month, at=month.locator(".chart-hit"))
    expect(hand.page.get_by_role("heading", level=1)).to_have_text("Virtual machines")
    expect(hand.page.locator("#rows tr", has_text="app-010")).to_contain_text("pending updates may reboot")
    assert hand.clicks == 1


def test_a_view_shared_with_a_colleague(hand: Hand, stack: Stack, new_context: OpenContext) -> None:
    name = f"off-track-{id(hand)}"
    hand.begin("/virtual-machines/?q=track:off")
    hand.follow(hand.page.get_by_role("link", name="Save this view"))
    hand.write(hand.page.get_by_label("Name of the view"), name)
    hand.tick(hand.page.get_by_role("checkbox"))
    hand.follow(hand.page.get_by_role("button", name="Save", exact=True))
    expect(hand.page.locator("#vm-views")).to_contain_text(name)
    assert hand.clicks == 3
    colleague = new_context(storage_state=None).new_page()
    stack.manage("shell", "-v", "0", "-c", COLLEAGUE)
    colleague.goto("/virtual-machines/")
    colleague.fill("input[name=login]", "a-colleague")
    colleague.fill("input[name=password]", "a-long-password-of-theirs")
    colleague.click("main .button--primary")
    colleague.locator("#vm-views").get_by_role("link", name=name).click()
    expect(colleague.locator(".listbar")).to_contain_text("Off track")
    expect(colleague.locator("#rows tr").first).to_be_visible()


COLLEAGUE = """
from django.contrib.auth.models import User
from vms.models import RoleAssignment
if not User.objects.filter(username="a-colleague").exists():
    user = User.objects.create_user("a-colleague", password="a-long-password-of-theirs")
    RoleAssignment.objects.create(user=user, role="reader", scope="everything")
"""
