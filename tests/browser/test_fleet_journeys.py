"""What goes on between people and machines over days: access, a freeze, a paused rollout, last week's failures.

Each journey has machines and people of its own, so that it does not matter what other tests do; it is gone with JavaScript and
without, and how many links and buttons it takes is part of the promise.
"""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenContext, Stack
from tests.browser.steps import RUN_MS, open_updates

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("is_scripted", [True, False], ids=["script", "no script"])]
LOOKS = 180  # at a page, a second between two


class Hand:
    """Follows links, presses buttons and ticks boxes of a page, and counts it; what is typed is not counted."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks = page, 0

    def press(self, target: Locator) -> None:
        """Follow or press it, once it is there."""
        target.click()
        self.clicks += 1


def look_for(page: Page, address: str, where: str, words: str, count: int = 1) -> None:
    """Open a page until so many of its parts say these words, as a person would."""
    found = page.locator(where, has_text=words)
    for _look in range(LOOKS):
        page.goto(address)
        if found.count() >= count:
            return
        page.wait_for_timeout(1_000)
    raise AssertionError(f"{address}: no {count} × “{words}” in {where}: {page.locator('main').inner_text()[:3_000]}")


OPERATIONS = "[role=region][aria-label=Operations] tbody tr"


# Machines as the demo's web servers: on the track, April's baseline installed, May's hotpatch not.
MACHINES = """
from demo import fleet
from updates.models import VmUpdateState
from updates.services.operations import request_assessments
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers
main = Connection.objects.get(name=fleet.MAIN)
group = ResourceGroup.objects.create(subscription=Subscription.objects.order_by("pk")[0], name="rg-{prefix}")
for number, misfortune in enumerate({misfortunes!r}):
    story = fleet.Story("{prefix}-" + str(number), fleet.MAIN, group.name, fleet.APRIL_2026, simulate=misfortune,
                        location="koreacentral", tags={{"journey": "{prefix}"}})
    vm = fleet._vm(story, main, group)
    vm.save()
    VmUpdateState.objects.create(vm=vm, os_build=story.build)
mine = VirtualMachine.objects.filter(resource_group=group)
refresh_hotpatch_statuses(connection_ids=[main.pk])
refresh_patchers(among=mine)
request_assessments(vm_ids=list(mine.values_list("pk", flat=True)), requested_by=None, is_bulk=False)
"""
FAILS = "fail:KB5087424"


def make_machines(stack: Stack, page: Page, prefix: str, *misfortunes: str) -> None:
    """Machines of these misfortunes in a resource group of their own, each assessed."""
    stack.manage("shell", "-v", "0", "-c", MACHINES.format(prefix=prefix, misfortunes=misfortunes))
    look_for(page, f"/virtual-machines/?resource_group=rg-{prefix}&lacks=5087424", "#rows tr", prefix, len(misfortunes))


def a_prefix(kind: str) -> str:
    return f"{kind}{uuid4().hex[:6]}"


def review(hand: Hand) -> None:
    """From the step of the updates to the review."""
    hand.press(hand.page.get_by_role("button", name="Next: Properties"))
    hand.press(hand.page.get_by_role("button", name="Next: Review + install"))
    expect(hand.page.locator("#review-total")).to_be_visible()


# --- access ------------------------------------------------------------------------------------------------------

COLLEAGUE = """
from django.contrib.auth.models import User
User.objects.create_user("{name}", password="{password}")
"""
PASSWORD = "a-long-password-of-theirs"


def test_a_colleague_is_given_patch_operator_on_one_group(
    new_context: OpenContext, stack: Stack, is_scripted: bool
) -> None:
    page = new_context(java_script_enabled=is_scripted).new_page()
    hand, prefix = Hand(page), a_prefix("acc")
    make_machines(stack, page, prefix, "", "")
    name = f"of-{prefix}"
    stack.manage("shell", "-v", "0", "-c", COLLEAGUE.format(name=name, password=PASSWORD))

    page.goto("/")
    hand.press(page.get_by_role("navigation").get_by_role("link", name="Access", exact=True))
    hand.press(page.get_by_role("link", name="Give a role"))
    hand.press(page.get_by_role("link", name="Resource group", exact=True))
    page.get_by_label("User name, or name of the group").fill(name)
    hand.press(page.get_by_role("radio", name="Patch operator"))
    page.get_by_label("Name of the resource group").fill(f"rg-{prefix}")
    hand.press(page.get_by_role("button", name="Give the role"))
    assert hand.clicks == 5
    page.goto(f"/access/?who={name}")
    held = page.locator("#access-table tbody tr", has_text=name)
    expect(held).to_contain_text("Patch operator")
    expect(held).to_contain_text(f"rg-{prefix}")

    other = new_context(java_script_enabled=is_scripted, storage_state=None).new_page()
    other.goto("/virtual-machines/")
    other.fill("input[name=login]", name)
    other.fill("input[name=password]", PASSWORD)
    other.click("main .button--primary")
    expect(other.locator("#rows tr")).to_have_count(2)
    expect(other.locator("#rows")).to_contain_text(f"{prefix}-0")
    menu = other.get_by_role("navigation")
    expect(menu.get_by_role("link", name="Maintenance configurations")).to_have_count(0)
    expect(menu.get_by_role("link", name="Import virtual machines")).to_have_count(0)
    open_updates(other, f"{prefix}-0")
    other.get_by_role("button", name="Assess now").click()
    expect(other.locator("#blade")).to_contain_text("Assessment successful", timeout=RUN_MS)
    expect(other.get_by_role("link", name="Install updates now")).to_be_visible()
    mine = other.url

    other.goto(f"/access/check/?person={name}&vm={prefix}-0")
    acts = other.locator("section", has=other.get_by_role("heading", name="On this machine"))
    expect(acts.locator("tbody tr", has_text="Install updates now")).to_contain_text("Allowed")
    expect(acts.locator("tbody tr", has_text="Change its settings")).to_contain_text(
        "It takes the role Owner on the machine."
    )
    # what he does not see is not there for him
    page.goto("/virtual-machines/?q=web-001")
    elsewhere = page.locator("#rows th a").first.get_attribute("href") or ""
    answer = other.goto(elsewhere)
    assert answer is not None
    assert answer.status == 404

    page.goto(f"/access/?who={name}")
    hand.clicks = 0
    hand.press(held.get_by_role("link", name="Take back"))
    hand.press(page.get_by_role("button", name="Take the role back"))
    assert hand.clicks == 2
    answer = other.goto(mine)
    assert answer is not None
    assert answer.status == 404


# --- a paused rollout --------------------------------------------------------------------------------------------


def test_a_paused_rollout_is_noticed_understood_and_resumed_without_the_broken_machine(
    new_context: OpenContext, stack: Stack, is_scripted: bool
) -> None:
    page = new_context(java_script_enabled=is_scripted).new_page()
    hand, prefix = Hand(page), a_prefix("pau")
    make_machines(stack, page, prefix, FAILS, "", "")
    page.goto(f"/bulk/?kind=installation&resource_group=rg-{prefix}&all=1")
    hand.press(page.get_by_role("button", name="Next: Properties"))
    page.get_by_label("Name of the rollout").fill(f"Wave of {prefix}")
    page.get_by_role("checkbox", name="Availability first").check()
    page.get_by_label("Pause if failures exceed").fill("0")
    hand.press(page.get_by_role("button", name="Next: Review + install"))
    page.get_by_label("Number of machines").fill("3")
    hand.press(page.get_by_role("button", name=re.compile("^Install on 3 machines")))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Wave of {prefix}")
    look_for(page, page.url, "#rollout", "Too many machines failed or are unhealthy.")

    # on whatever page he is, the bell has a number
    page.goto("/calendar/")
    hand.clicks = 0
    expect(page.locator(".topbar-bell .topbar-count")).to_have_text(re.compile(r"^[1-9]"))
    hand.press(page.get_by_role("link", name="What waits for you"))
    row = page.locator("tbody tr", has_text=f"Wave of {prefix}")
    expect(row).to_contain_text("Too many machines failed")
    hand.press(row.get_by_role("link"))
    expect(page.locator("#gate")).to_contain_text("1 of 1 = 100 %")
    expect(page.locator("#rollout")).to_contain_text("KB5087424")
    hand.press(page.get_by_role("button", name="Resume without 1 machine"))
    assert hand.clicks == 3
    look_for(page, page.url, "#rollout .running-head", "Finished")
    machines = page.locator("section", has=page.get_by_role("heading", name="Machines", exact=True)).locator("tbody tr")
    expect(machines.filter(has_text="Succeeded")).to_have_count(2)
    expect(machines.filter(has_text="Failed")).to_have_count(1)
    expect(machines.filter(has_text="Failed")).to_contain_text(f"{prefix}-0")
    expect(page.locator("#gate")).to_contain_text("1 more was accepted when it was resumed.")
    page.goto("/waiting/")
    expect(page.locator("main")).not_to_contain_text(f"Wave of {prefix}")


# --- last week's failures ----------------------------------------------------------------------------------------

REPAIR = """
from vms.models import VirtualMachine
VirtualMachine.objects.filter(resource_group__name="rg-{prefix}").update(tags={{}})
"""


def test_last_weeks_failures_are_retried_from_the_history(
    new_context: OpenContext, stack: Stack, is_scripted: bool
) -> None:
    page = new_context(java_script_enabled=is_scripted).new_page()
    hand, prefix = Hand(page), a_prefix("ret")
    make_machines(stack, page, prefix, FAILS, FAILS)
    page.goto(f"/bulk/?kind=installation&resource_group=rg-{prefix}&all=1")
    review(hand)
    page.get_by_label("Number of machines").fill("2")
    hand.press(page.get_by_role("button", name=re.compile("^Install on 2 machines")))
    look_for(page, f"/history/?resource_group=rg-{prefix}&result=failed", OPERATIONS, "0x80070643", 2)
    stack.manage("shell", "-v", "0", "-c", REPAIR.format(prefix=prefix))  # what broke it is mended on the machines

    page.goto("/")
    hand.clicks = 0
    hand.press(page.get_by_role("navigation").get_by_role("link", name="History", exact=True))
    page.get_by_label("Resource group").fill(f"rg-{prefix}")
    hand.press(page.get_by_role("button", name="Apply"))
    group = page.locator("section", has=page.get_by_role("heading", name="Failures by reason")).locator("tbody tr")
    expect(group).to_have_count(1)
    expect(group).to_contain_text("KB5087424")
    hand.press(group.get_by_role("link", name=re.compile("^Retry the operations")))
    hand.press(page.get_by_role("button", name="Retry 2 failed"))
    expect(page.locator("main")).to_contain_text("The same plan again.")
    if page.get_by_role("button", name="Next: Properties").count():
        review(hand)
    expect(page.locator("#review-total")).to_contain_text("2 machines take the plan.")
    expect(page.locator("#review")).to_contain_text("KB5087424")
    hand.press(page.get_by_role("button", name=re.compile("^Install on 2 machines")))
    assert hand.clicks == 5
    look_for(page, f"/history/?resource_group=rg-{prefix}&result=succeeded", OPERATIONS, prefix, 2)
    page.goto(f"/virtual-machines/?resource_group=rg-{prefix}&lacks=5087424")
    expect(page.locator("#rows tr")).to_have_count(0)


# --- a freeze ----------------------------------------------------------------------------------------------------

# A window that opens now, on two of the machines; one of them is off and would catch up.
WINDOW = """
from datetime import timedelta
from django.utils import timezone
from updates.models import MaintenanceConfiguration
from updates.plans import plan_to_json
from patching.terms import Classification, InstallationPlan
from vms.models import VirtualMachine
now = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=1)
VirtualMachine.objects.filter(name="{prefix}-2").update(power_state="stopped")
plan = plan_to_json(InstallationPlan(classifications=frozenset({{Classification.SECURITY}})))
row = MaintenanceConfiguration.objects.create(
    name="Nights of {prefix}", starts_on=now.date(), starts_at=now.time(), time_zone="UTC", recur_every="Day",
    plan=plan, catch_up_hours=24, next_run_at=now)
row.vms.set(VirtualMachine.objects.filter(name__in=["{prefix}-1", "{prefix}-2"]))
"""
SWITCHED_ON = """
from vms.models import VirtualMachine
VirtualMachine.objects.filter(name="{prefix}-2").update(power_state="running")
"""
# Automatic patching takes machines on in their night; the next one is asked about.
TONIGHT = """
from datetime import timedelta
from django.utils import timezone
from updates.models import RolloutMember
from updates.selectors.automation import vms_to_patch_automatically
from updates.services.automation import start_automatic_patching
from vms.models import Connection, VirtualMachine
row = Connection.objects.get(pk=VirtualMachine.objects.get(name="{prefix}-3").connection_id)
row.pk, row.name, row.is_patching_automatically = None, "Of {prefix}", True
row.save(force_insert=True)
VirtualMachine.objects.filter(name="{prefix}-3").update(connection=row)
moment = timezone.now()
while moment.astimezone(timezone.get_fixed_timezone(9 * 60)).hour != 23:
    moment += timedelta(hours=1)
print("due:", len(vms_to_patch_automatically(row.pk, moment)))
start_automatic_patching(now=moment)
print("taken on:", RolloutMember.objects.filter(vm__name="{prefix}-3").count())
Connection.objects.filter(pk=row.pk).update(is_patching_automatically=False)
"""


def test_a_freeze_over_new_year_holds_whatever_would_begin(
    new_context: OpenContext, stack: Stack, is_scripted: bool
) -> None:
    page = new_context(java_script_enabled=is_scripted).new_page()
    hand, prefix = Hand(page), a_prefix("fre")
    make_machines(stack, page, prefix, FAILS, "", "", "")
    reason = f"New Year of {prefix}"
    # a run that failed before, to be retried
    page.goto(f"/bulk/?kind=installation&q={prefix}-0&all=1")
    review(hand)
    page.get_by_label("Number of machines").fill("1")
    hand.press(page.get_by_role("button", name=re.compile("^Install on 1 machine")))
    look_for(page, f"/history/?resource_group=rg-{prefix}&result=failed", OPERATIONS, "0x80070643")
    failed = page.locator("tbody th a", has_text="Installation").first.get_attribute("href") or ""

    page.goto("/")
    hand.clicks = 0
    hand.press(page.get_by_role("navigation").get_by_role("link", name="Freezes", exact=True))
    hand.press(page.get_by_role("link", name="Create", exact=True).first)
    now = timezone.now()
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("Time zone").select_option("UTC")
    page.get_by_label("First day").fill((now - timedelta(days=1)).date().isoformat())
    page.get_by_label("Begins at").fill("18:00")
    page.get_by_label("Last day").fill((now + timedelta(days=4)).date().isoformat())
    page.get_by_label("Ends at").fill("06:00")
    hand.press(page.get_by_role("radio", name="Those that the fields below describe"))
    page.get_by_label("Tag", exact=True).fill("journey")
    page.get_by_label("Value of the tag").fill(prefix)
    hand.press(page.get_by_role("button", name="Preview"))
    expect(page.locator("#preview")).to_contain_text("4 machines are frozen.")
    hand.press(page.get_by_role("button", name="Create", exact=True))
    assert hand.clicks == 5
    expect(page.get_by_role("heading", level=1)).to_have_text(reason)
    freeze = page.url

    # a click on one machine, many at once, and the same plan again
    open_updates(page, f"{prefix}-1")
    expect(page.locator("main")).to_contain_text(reason)
    page.goto(f"/bulk/?kind=installation&resource_group=rg-{prefix}&all=1")
    review(hand)
    expect(page.locator("#review")).to_contain_text("A freeze holds the machine")
    expect(page.get_by_role("button", name=re.compile("^Install on"))).to_have_count(0)
    page.goto(failed)
    page.get_by_role("link", name="Run again", exact=True).click()
    expect(page.locator("main")).to_contain_text(reason)

    # a window, and who would catch up after it
    stack.manage("shell", "-v", "0", "-c", WINDOW.format(prefix=prefix))
    name = f"Nights of {prefix}"
    look_for(page, "/rollouts/", "main a", name)
    rollout = page.get_by_role("link", name=re.compile(name)).first.get_attribute("href") or ""
    look_for(page, rollout, "#rollout", "Waits for the end of a freeze")
    stack.manage("shell", "-v", "0", "-c", SWITCHED_ON.format(prefix=prefix))
    page.goto(rollout)
    expect(page.locator("main")).to_contain_text(reason)
    # the coming night
    tonight = stack.manage("shell", "-v", "0", "-c", TONIGHT.format(prefix=prefix))
    assert "due: 1" in tonight
    assert "taken on: 0" in tonight
    page.goto(f"/history/?resource_group=rg-{prefix}")
    expect(page.locator("tbody th a", has_text="Installation")).to_have_count(1)

    # ended by a person, it goes on by itself
    page.goto(freeze)
    hand.clicks = 0
    hand.press(page.get_by_text("End it early"))
    hand.press(page.get_by_role("button", name="End the freeze"))
    assert hand.clicks == 2
    expect(page.get_by_text("End it early")).to_have_count(0)
    look_for(page, f"/history/?resource_group=rg-{prefix}&result=succeeded", OPERATIONS, f"{prefix}-1")
