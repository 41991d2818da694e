"""The pages of updates over HTTP, with the real catalogue and the simulator; the test plays the worker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.forms import text_of
from tests.updates.pages import assess, settle, wizard
from updates.models import InstalledPatch, Operation, Patch
from updates.selectors.installed import installed_on
from updates.services.words import refresh_words
from vms.models import ImageCatalogEntry, VirtualMachine

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("recorded_catalogue")]
DATA = Path(__file__).resolve().parents[2] / "updates" / "data"


def blade(vm: VirtualMachine, tab: str = "") -> str:
    return reverse("updates:blade", args=[vm.pk]) + (f"?tab={tab}" if tab else "")


def install(page: Client, vm: VirtualMachine, **fields: object) -> Operation:
    response = wizard(page, vm, "install", step="review", **fields)
    assert response.status_code == 302, text_of(response)
    settle()
    return Operation.objects.get(pk=UUID(response["Location"].rstrip("/").rsplit("/", 1)[1]))


def results(operation: Operation) -> dict[str, str]:
    return dict(operation.results.values_list("patch__kb_number", "state"))


# --- the main story ----------------------------------------------------------------------------------------------


def test_assess_install_history_and_get_hotfix(page: Client, make_vm: Callable[..., VirtualMachine], capsys) -> None:
    vm = make_vm(name="web-001")
    assert "Not assessed yet" in text_of(page.get(blade(vm)))
    assess(page, vm)
    shown = text_of(page.get(blade(vm)))
    assert "On track" in shown
    assert "2026-05 Hotpatch" in shown
    assert "catalogue as of 2026-05-20" in shown
    assert "KB5084071" in text_of(page.get(blade(vm, "compliance")))

    review = text_of(
        wizard(page, vm, "review", kb_numbers_to_include="KB2267602", kb_numbers_to_exclude="５０８４０７１")
    )
    for words in (
        "KB5087424 · Security · published on 2026-05-12 Will be installed Its class is selected",
        "KB2267602 · Definition · published on 2026-05-20 Will be installed Its KB is on the include list",
        "KB5084071 · Updates · published on 2026-04-14 Excluded Its KB is on the exclude list",
        "KB890830 · Update rollup · published on 2026-05-12 Not selected Its class is not selected",
        "No reboot",
        "20 min estimated, of at most 120 minutes",
    ):
        assert words in review

    run = install(page, vm, kb_numbers_to_include="KB2267602", kb_numbers_to_exclude="５０８４０７１")
    assert (run.state, run.reboot_status, run.verification) == ("succeeded", "NotNeeded", "confirmed")
    assert (run.build_before, run.build_after) == ("20348.5020", "20348.5074")
    assert results(run) == {
        "5087424": "Installed",
        "2267602": "Installed",
        "5084071": "Excluded",
        "890830": "NotSelected",
    }
    history = text_of(page.get(blade(vm, "history")))
    assert str(run.pk)[:8] in history
    assert "Installation Succeeded 2 Not needed" in history
    detail = text_of(page.get(reverse("updates:operation", args=[run.pk])))
    assert "20348.5020 → 20348.5074" in detail
    assert "Confirmed" in detail
    assert "KB5087424" in text_of(page.get(blade(vm, "installed")))
    call_command("get_hotfix", "web-001", "--json")
    assert "KB5087424" in {row["HotFixID"] for row in json.loads(capsys.readouterr().out)}
    call_command("get_hotfix", "WEB-001")
    table = capsys.readouterr().out
    assert "HotFixID" in table
    assert "KB5087424" in table


def test_get_hotfix_lists_what_the_component_store_knows(make_vm: Callable[..., VirtualMachine], page: Client) -> None:
    vm = make_vm(name="web-001")
    for number in ("5087424", "890830", "2267602", "5084071"):
        patch = Patch.objects.filter(kb_number=number).order_by("-product_line")[0]
        InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=timezone.now())
    assert {row.hot_fix_id for row in installed_on(vm)} == {"KB5087424", "KB5084071"}
    shown = text_of(page.get(blade(vm, "installed")))
    assert shown.count("not listed by Get-HotFix") == 2
    assert "Settings app" in shown


def test_get_hotfix_names_what_it_cannot_find(make_vm: Callable[..., VirtualMachine]) -> None:
    with pytest.raises(CommandError, match="nobody"):
        call_command("get_hotfix", "nobody")
    make_vm(name="twin")
    make_vm(name="twin", arm_id="/other/twin")
    with pytest.raises(CommandError, match="Several"):
        call_command("get_hotfix", "twin")


# --- how runs end ------------------------------------------------------------------------------------------------


def test_a_baseline_that_is_due_reboots(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm("20348.4830", date(2026, 4, 16))
    assess(page, vm)
    assert "Baseline due" in text_of(page.get(blade(vm)))
    assert "Will reboot" in text_of(wizard(page, vm, "review"))
    run = install(page, vm)
    assert (run.state, run.reboot_status, run.build_after) == ("succeeded", "Completed", "20348.5020")
    assert run.verification == "confirmed"


def test_never_reboot_ends_with_a_warning(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm("20348.4830", date(2026, 4, 16))
    assess(page, vm)
    assert "will not happen" in text_of(wizard(page, vm, "review", reboot_setting="Never"))
    run = install(page, vm, reboot_setting="Never")
    assert (run.state, run.reboot_status, run.error_code) == ("completed_with_warnings", "Required", "reboot.required")
    shown = text_of(page.get(blade(vm)))
    assert "Reboot required" in shown


def test_a_failing_update_fails_the_run_with_its_reason(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm(tags={"simulate": "fail:KB5087424"})
    assess(page, vm)
    run = install(page, vm)
    assert (run.state, run.error_code, results(run)["5087424"]) == ("failed", "patch.failed", "Failed")
    assert "0x80070643" in text_of(page.get(reverse("updates:operation", args=[run.pk])))


def test_a_minute_is_not_enough(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    assert "Only 0 of 1 updates" in text_of(wizard(page, vm, "review", maximum_minutes="1"))
    run = install(page, vm, maximum_minutes="1")
    assert (run.state, run.error_code) == ("failed", "window.exceeded")
    assert run.is_maintenance_window_exceeded
    assert results(run)["5087424"] == "Pending"


def test_what_is_reported_and_is_not_there_is_contradicted(
    page: Client, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm(tags={"simulate": "lies:KB5087424"})
    assess(page, vm)
    run = install(page, vm)
    assert (run.state, run.verification) == ("succeeded", "contradicted")
    detail = text_of(page.get(reverse("updates:operation", args=[run.pk])))
    assert "Contradicted · " in detail
    assert "Reported as installed, and still missing: KB5087424." in detail
    assert "1 Reported as installed" in detail
    assert "KB5087424 Security Reported as installed, still missing" in detail
    assert "The last installation is contradicted" in text_of(page.get(blade(vm)))
    # a result of its own: neither a success nor a failure
    history = text_of(page.get(blade(vm, "history")))
    assert "Installation Contradicted It reported success; the machine still lacks what it installed." in history
    assert "2 Total operations 0 Failed 1 Contradicted 1 Successful" in history
    only = page.get(blade(vm, "history") + "&state=contradicted").context["history"].rows
    assert [row.pk for row in only] == [run.pk]
    succeeded = page.get(blade(vm, "history") + "&outcome=successful").context["history"].rows
    assert run.pk not in {row.pk for row in succeeded}
    assert "Contradicted" in text_of(page.get(reverse("updates:vm-overview", args=[vm.pk])))


def test_the_plan_of_a_run_tells_all_that_was_confirmed(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm("26100.6899", date(2025, 10, 24), name="hr-001", ws2025=True)
    assess(page, vm)
    run = install(page, vm, max_patch_publish_date="2025-10-31")
    Operation.objects.filter(pk=run.pk).update(payload=run.payload | {"guard_overrides": ["5070881"]})
    shown = text_of(page.get(reverse("updates:operation", args=[run.pk])))
    assert "Published on or before 2025-10-31" in shown
    assert "Allowed although they take it off the hotpatch track KB5070881" in shown


def test_what_was_never_looked_at_is_not_told_as_none(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    before = text_of(page.get(blade(vm)))
    assert "Reboot pending Not known" in before
    assert "Recommended updates Update compliance Update history Installed updates" in before
    assess(page, vm)
    after = text_of(page.get(blade(vm)))
    assert "Reboot pending No" in after
    assert "Recommended updates 1" in after


def test_what_nobody_installs_is_told_alike_in_the_strip_and_in_the_forecast(
    page: Client, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm(patch_mode="Manual", enable_hotpatching=False)
    assess(page, vm)
    shown = text_of(page.get(blade(vm)))
    assert "Next reboot (forecast) 2026-05 (Not by itself)" in shown
    assert "2026-05 Not by itself" in shown.split("Month Reboot Why")[1]


# --- eligibility and track ---------------------------------------------------------------------------------------


def overview(page: Client, vm: VirtualMachine) -> str:
    return text_of(page.get(reverse("updates:vm-overview", args=[vm.pk])))


def test_each_image_that_cannot_be_hotpatched_says_why(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    plain = make_vm(desktop=True)
    custom = make_vm(custom_image=True)
    container = make_vm(custom_image=True, image_resource_id="mcr.microsoft.com/windows/servercore:ltsc2022")
    refresh_words(now=timezone.now())
    shown = [overview(page, vm) for vm in (plain, custom, container)]
    assert all("Not available" in text for text in shown)
    assert "2022-datacenter-azure-edition is not in the image catalog" in shown[0]
    assert "Custom and gallery images cannot be hotpatched" in shown[1]
    assert "Container base images cannot be hotpatched" in shown[2]


def test_the_catalogue_of_images_counts_at_the_next_look(
    client: Client, staff: User, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm(desktop=True)
    client.force_login(staff)
    assert "Hotpatch is not available" in overview(client, vm)
    added = client.post(
        reverse("admin:vms_imagecatalogentry_add"),
        {
            "publisher": "MicrosoftWindowsServer",
            "offer": "WindowsServer",
            "sku": "2022-Datacenter-Azure-Edition",
            "product_line": "ws2022",
            "note": "",
        },
    )
    assert added.status_code == 302
    assert "Hotpatch is available" in overview(client, vm)
    ImageCatalogEntry.objects.filter(sku="2022-Datacenter-Azure-Edition").delete()
    assert "Hotpatch is not available" in overview(client, vm)


def test_a_vm_that_took_kb5070881_is_off_track_since_then(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm("26100.6905", date(2025, 10, 24), ws2025=True)
    for kb in ("5066835", "5070881"):
        patch = Patch.objects.get(product_line="ws2025", kb_number=kb)
        InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=datetime(2025, 10, 24, tzinfo=UTC))
    assess(page, vm)
    shown = text_of(page.get(blade(vm)))
    assert "Off track since KB5070881" in shown
    assert "planned for 2026-01" in shown


def test_the_guard_leaves_out_what_takes_a_vm_off_the_track_until_it_is_ticked(
    page: Client, make_vm: Callable[..., VirtualMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.simulator.machines.SHARE_OF_FEW", 1.0)
    vm = make_vm("26100.6899", date(2025, 10, 24), ws2025=True)
    assess(page, vm)
    review = text_of(wizard(page, vm, "review"))
    assert "Install KB5070881 although the machine will be off the hotpatch track until 2026-01" in review
    assert "It would take the machine off the hotpatch track" in review
    assert "2 updates to install" in review
    ticked = text_of(wizard(page, vm, "review", guard_overrides=["5070881"]))
    assert "3 updates to install" in ticked
    assert "Will reboot" in ticked
    run = install(page, vm)
    assert results(run)["5070881"] == "NotSelected"
    allowed = install(page, vm, guard_overrides=["5070881"])
    assert results(allowed)["5070881"] == "Installed"
    assert "Off track since KB5070881" in text_of(page.get(blade(vm)))


def test_excluding_what_may_reboot_is_one_button(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    every = {"classifications": ["Security", "Updates", "UpdateRollUp"]}
    review = text_of(wizard(page, vm, "review", **every))
    assert "these updates may reboot it: KB890830, KB5084071" in review
    calmer = text_of(wizard(page, vm, "exclude-reboots", step="review", **every))
    assert "these updates may reboot it" not in calmer
    assert "No reboot" in calmer


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("KB12x", "“KB12x” is not a KB article"),
        (
            "5034129, '; DROP TABLE patches",
            "“&#x27;” is not a KB article; write 5034129 or KB5034129. 3 more entries are wrong.",
        ),
        (
            " ".join(str(5_000_000 + n) for n in range(501)),
            "At most 500 KB articles can be listed; “5000500” is one too many.",
        ),
    ],
)
def test_a_bad_list_of_kbs_is_refused_naming_the_entry(
    page: Client, make_vm: Callable[..., VirtualMachine], typed: str, words: str
) -> None:
    vm = make_vm()
    assess(page, vm)
    for field in ("kb_numbers_to_include", "kb_numbers_to_exclude"):
        response = wizard(page, vm, "properties", **{field: typed})
        assert response.status_code == 422
        assert words in text_of(response)
        assert wizard(page, vm, "install", step="review", **{field: typed}).status_code == 422
    assert not Operation.objects.filter(kind="installation").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"maximum_minutes": "236"}, "less than or equal to 235"),
        ({"maximum_minutes": "0"}, "greater than or equal to 1"),
        ({"maximum_minutes": "long"}, "whole number"),
        ({"reboot_setting": "Maybe"}, "Select a valid choice"),
        ({"classifications": []}, "Choose at least one classification"),
        ({"classifications": ["Drivers"]}, "Select a valid choice"),
        ({"max_patch_publish_date": "yesterday"}, "Enter a valid date"),
    ],
)
def test_a_bad_plan_is_refused_on_its_own_step(
    page: Client, make_vm: Callable[..., VirtualMachine], fields: dict[str, object], words: str
) -> None:
    vm = make_vm()
    assess(page, vm)
    response = wizard(page, vm, "review", step="properties", **fields)
    assert response.status_code == 422
    assert words in text_of(response)


def test_an_included_kb_that_is_not_available_is_named(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    assert "KB5034129 is on the include list but not available" in text_of(
        wizard(page, vm, "review", kb_numbers_to_include="5034129")
    )


def test_going_back_loses_nothing_and_a_preview_presses_no_button(
    page: Client, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm()
    assess(page, vm)
    back = wizard(page, vm, "updates", step="properties", kb_numbers_to_exclude="KB5084071", maximum_minutes="90")
    assert b"KB5084071" in back.content
    assert b'value="90"' in back.content
    preview = page.post(
        reverse("updates:install", args=[vm.pk]),
        {"step": "updates", "classifications": ["Updates"], "reboot_setting": "IfRequired", "maximum_minutes": "120",
         "request_id": str(uuid4())},
        headers={"HX-Request": "true", "HX-Target": "wizard-step"},
    )  # fmt: skip
    assert preview.status_code == 200
    assert b"<html" not in preview.content
    assert "KB5084071 · Updates · published on 2026-04-14 Will be installed" in text_of(preview)
    assert "Will be installed: 1 · Not selected: 3 · Excluded: 0" in text_of(preview).replace(" :", ":")


# --- clicks ------------------------------------------------------------------------------------------------------


def test_two_clicks_on_assess_now_are_one_operation(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    for _ in range(2):
        assert page.post(reverse("updates:assess", args=[vm.pk])).status_code == 302
    assert Operation.objects.count() == 1
    assert "already under way" in text_of(page.get(blade(vm)))


def test_the_second_click_on_install_finds_the_first(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    same = str(uuid4())
    first = wizard(page, vm, "install", step="review", request_id=same)
    second = wizard(page, vm, "install", step="review", request_id=same)
    assert first["Location"] == second["Location"] == reverse("updates:operation", args=[same])
    assert Operation.objects.filter(kind="installation").count() == 1


def test_a_second_installation_conflicts_with_a_link(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    first = wizard(page, vm, "install", step="review")
    second = wizard(page, vm, "install", step="review")
    assert second.status_code == 409
    assert first["Location"].encode() in second.content
    assert "An operation that changes this machine is queued or running." in text_of(second)


def test_cancel_while_queued_and_not_after(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    queued = wizard(page, vm, "install", step="review")["Location"]
    operation = Operation.objects.get(kind="installation")
    assert "Cancel" in text_of(page.get(queued))
    answer = page.post(reverse("updates:cancel", args=[operation.pk]), follow=True)
    assert "Nothing was done to the machine" in text_of(answer)
    operation.refresh_from_db()
    assert operation.state == "cancelled"
    answer = page.post(reverse("updates:cancel", args=[operation.pk]), follow=True)
    assert "cannot be cancelled any more" in text_of(answer)


def test_an_unassessed_machine_is_assessed_first(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assert "never been assessed" in text_of(page.get(reverse("updates:install", args=[vm.pk])))


# --- who may what ------------------------------------------------------------------------------------------------

READ = ["updates:vm-overview", "updates:blade", "vms:vm-settings"]


def test_outsiders_find_nothing_and_readers_do_nothing(
    client: Client, outsider: User, reader: User, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm()
    operation = Operation.objects.create(
        vm=vm,
        connection=vm.connection,
        kind="assessment",
        created_at="2026-11-01T00:00Z",
        next_step_at="2026-11-01T00:00Z",
    )
    writes = [reverse("updates:assess", args=[vm.pk]), reverse("updates:cancel", args=[operation.pk])]
    reads = [*(reverse(name, args=[vm.pk]) for name in READ), reverse("updates:operation", args=[operation.pk])]
    wizard_url = reverse("updates:install", args=[vm.pk])
    client.force_login(outsider)
    assert {client.get(url).status_code for url in (*reads, wizard_url)} == {404}
    assert {client.post(url).status_code for url in (*writes, wizard_url)} == {404}
    client.force_login(reader)
    assert {client.get(url).status_code for url in reads} == {200}
    assert {client.post(url).status_code for url in (*writes, wizard_url)} == {403}
    assert client.get(wizard_url).status_code == 403
    assert "Assess now" not in text_of(client.get(blade(vm))).split("Not assessed yet")[0]
    client.logout()
    assert {client.get(url).status_code for url in reads} == {302}


def test_writing_needs_a_post(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assert page.get(reverse("updates:assess", args=[vm.pk])).status_code == 405


# --- the database away -------------------------------------------------------------------------------------------


def test_while_the_database_is_away_the_page_is_calm_and_comes_back(
    client: Client, operator: User, make_vm: Callable[..., VirtualMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = make_vm()
    client.raise_request_exception = False
    client.force_login(operator)

    def away(*_args: object, **_kwargs: object) -> None:
        raise OperationalError("the connection is closed")

    monkeypatch.setattr("updates.views.vm.load_picture", away)
    monkeypatch.setattr("updates.views.vm.request_assessments", away)
    looked = client.get(blade(vm))
    assert (looked.status_code, looked["Retry-After"]) == (503, "5")
    assert b'http-equiv="refresh"' in looked.content
    assert "Nothing is lost" in text_of(looked)
    sent = client.post(reverse("updates:assess", args=[vm.pk]))
    assert sent.status_code == 503
    assert b'http-equiv="refresh"' not in sent.content, "nothing is sent again by itself"
    assert "was not carried out" in text_of(sent)
    monkeypatch.undo()
    assert client.get(blade(vm)).status_code == 200


def test_any_other_trouble_is_a_500_without_details(
    client: Client, operator: User, make_vm: Callable[..., VirtualMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = make_vm()
    client.raise_request_exception = False
    client.force_login(operator)

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("updates.views.vm.load_picture", broken)
    answer = client.get(blade(vm))
    assert answer.status_code == 500
    assert "Something went wrong" in text_of(answer)
    assert b"a secret detail" not in answer.content


# --- cost --------------------------------------------------------------------------------------------------------


def test_the_blade_costs_the_same_with_two_and_with_two_hundred_rows(
    page: Client, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm()
    assess(page, vm)
    costs = {}
    for rows in (2, 200):
        for tab in ("recommended", "compliance", "history", "installed"):
            with CaptureQueriesContext(connection) as captured:
                assert page.get(blade(vm, tab)).status_code == 200
            costs[rows, tab] = len(captured)
        template = Operation.objects.filter(vm=vm).first()
        assert template is not None
        installed = InstalledPatch.objects.filter(vm=vm).first()
        assert installed is not None
        Operation.objects.bulk_create(
            Operation(
                vm=vm,
                connection=vm.connection,
                kind="assessment",
                state="failed",
                created_at=template.created_at,
                finished_at=template.created_at,
                next_step_at=None,
            )
            for _ in range(200)
        )
    assert set(costs.values()) == {9}, costs  # one asks for freezes


def test_a_part_is_a_part_of_the_page(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    part = page.get(blade(vm), headers={"HX-Request": "true", "HX-Target": "blade"})
    assert part.content.strip().startswith(b"<title>")  # htmx puts it into the tab
    assert part.content.partition(b"</title>")[2].strip().startswith(b'<div id="blade"')
    assert "HX-Request" in part["Vary"]
    whole = page.get(blade(vm), headers={"HX-Request": "true", "HX-Target": "elsewhere"})
    assert b"<html" in whole.content


def test_polling_carries_its_own_end(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    page.post(reverse("updates:assess", args=[vm.pk]))
    running = page.get(blade(vm)).content
    assert b'hx-trigger="every' in running
    assert b'http-equiv="refresh"' in running
    settle()
    ended = page.get(blade(vm)).content
    assert b'hx-trigger="every' not in ended
    assert b'http-equiv="refresh"' not in ended


# --- running it again, and what the review names -----------------------------------------------------------------


def test_run_again_opens_the_wizard_with_the_same_plan(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    run = install(
        page, vm, classifications=["Definition"], kb_numbers_to_exclude="5084071", max_patch_publish_date="2026-05-25",
        exclude_kbs_requiring_reboot="on", reboot_setting="Never", maximum_minutes="95",
    )  # fmt: skip
    assert f"?again={run.pk}" in page.get(reverse("updates:operation", args=[run.pk])).content.decode()
    form = page.get(reverse("updates:install", args=[vm.pk]), {"again": str(run.pk)}).context["wizard"].form
    assert form["classifications"].value() == ["Definition"]
    assert form["kb_numbers_to_exclude"].value() == "5084071"
    assert form["max_patch_publish_date"].value() == date(2026, 5, 25)
    assert form["exclude_kbs_requiring_reboot"].value() is True
    assert form["reboot_setting"].value() == "Never"
    assert form["maximum_minutes"].value() == 95
    assert str(form["request_id"].value()) != str(run.pk)


@pytest.mark.parametrize("again", ["", "x", "00000000-0000-0000-0000-000000000000", "\ufffd"])
def test_run_again_of_nothing_begins_as_always(
    page: Client, make_vm: Callable[..., VirtualMachine], again: str
) -> None:
    vm = make_vm()
    assess(page, vm)
    form = page.get(reverse("updates:install", args=[vm.pk]), {"again": again}).context["wizard"].form
    assert form["classifications"].value() == ["Critical", "Security"]


def test_run_again_takes_no_plan_from_another_machine(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm, other = make_vm(), make_vm()
    for machine in (vm, other):
        assess(page, machine)
    run = install(page, other, classifications=["Definition"])
    form = page.get(reverse("updates:install", args=[vm.pk]), {"again": str(run.pk)}).context["wizard"].form
    assert form["classifications"].value() == ["Critical", "Security"]


def test_the_review_names_classes_days_and_numbers(page: Client, make_vm: Callable[..., VirtualMachine]) -> None:
    vm = make_vm()
    assess(page, vm)
    response = wizard(page, vm, "review", classifications=["Security", "Updates"], max_patch_publish_date="2026-05-15")
    review = text_of(response)
    assert "Update classifications Security, Updates" in review
    assert "Published on or before 2026-05-15" in review
    assert "KB5087424 · Security · published on 2026-05-12" in review
    assert "so it may mean more reboots and more downtime" in review
    for kb_number in re.findall(
        r"KB\d{6,}", response.content.decode().split('id="review-verdicts"')[1].split("</div>")[0]
    ):
        assert f'<span class="nowrap">{kb_number}</span>' in response.content.decode()
    assert "1 update to install" in text_of(wizard(page, vm, "review"))
    assert "0 updates to install" in text_of(wizard(page, vm, "review", classifications=["ServicePack"]))


def test_what_hotpatching_is_stands_where_an_operator_meets_it(
    page: Client, make_vm: Callable[..., VirtualMachine]
) -> None:
    vm = make_vm()
    for where in (
        reverse("updates:blade", args=[vm.pk]),
        reverse("vms:vm-settings", args=[vm.pk]),
        reverse("updates:calendar"),
        reverse("vms:images"),
    ):
        shown = text_of(page.get(where))
        for said in (
            "changes the code of running processes in memory",
            "applications are not affected by the installation",
            "the same security fixes as the ordinary Windows security update",
            "holds everything of that month's latest cumulative update",
            "drivers and firmware",
        ):
            assert said in shown.replace("&#x27;", "'"), where
