"""The list of machines: filters as words, orders, columns, what a machine needs, and saved views."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection as database
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.models import AuditEvent
from tests.factories import ConnectionFactory, ResourceGroupFactory, VirtualMachineFactory, VmUpdateStateFactory
from tests.forms import text_of
from vms.choices import ATTENTION, COLUMNS, SelectionProblem
from vms.filter_text import VALUES, WORDS, read_text, write_text
from vms.filters import FILTER_NAMES, VmFilter, order_of
from vms.models import ListColumns, Outlook, ResourceGroup, SavedView, VirtualMachine
from vms.selectors import ORDERS, WAYS, FilterOptions, csv_lines, list_head, page_sql

LIST = "/virtual-machines/"
OPTIONS = FilterOptions(
    connections=(("1", "Main fleet"), ("2", "7"), ("7", "Other")), subscriptions=(("3", "A"), ("4", "a"))
)
P = SelectionProblem


def names(response: Any) -> list[str]:
    return re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)</a>', response.content.decode())


# --- filters as words ----------------------------------------------------------------------------------------------


def test_every_filter_has_its_word() -> None:
    assert {*WORDS.values(), "q"} == set(FILTER_NAMES)


@pytest.mark.parametrize(
    ("text", "search", "filters"),
    [
        ("web", "web", {}),
        ("track:off", "", {"hotpatch_track": "off_track_since_kb"}),
        ("Track:OFF  web 01", "web 01", {"hotpatch_track": "off_track_since_kb"}),
        ("track\N{FULLWIDTH COLON}off\N{IDEOGRAPHIC SPACE}web", "web", {"hotpatch_track": "off_track_since_kb"}),
        ("track:off_track_since_kb", "", {"hotpatch_track": "off_track_since_kb"}),
        ("location:japaneast kb:KB5087424", "", {"location": "japaneast", "lacks": "5087424"}),
        ("kb5087424", "", {"lacks": "5087424"}),
        ("lacks:security", "", {"lacks": "Security"}),
        ('"rg:my group" status:updates', "", {"resource_group": "my group", "update_status": "updates_available"}),
        ('rg:"my group"', "", {"resource_group": "my group"}),
        ('tag:"a=say ""x"""', "", {"tag": 'a=say "x"'}),
        ('connection:"main FLEET"', "", {"connection": "1"}),
        ("connection:7", "", {"connection": "2"}),
        ("subscription:3", "", {"subscription": "3"}),
        ("is:needs-attention is:needs-attention", "", {"condition": "needs_attention"}),
        ("trouble:failed:5087424:0x8", "", {"trouble": "failed:5087424:0x8"}),
    ],
)
def test_a_text_means_filters(text: str, search: str, filters: dict[str, str]) -> None:
    found = read_text(text, OPTIONS)
    assert (found.search, dict(found.filters), found.unread) == (search, filters, ())


@pytest.mark.parametrize(
    ("text", "kind", "name", "value"),
    [
        ("truck:off", P.UNKNOWN_WORD, "truck", "off"),
        (":off", P.UNKNOWN_WORD, "", "off"),
        ("track:sideways", P.UNKNOWN_VALUE, "hotpatch_track", "sideways"),
        ("track:", P.UNKNOWN_VALUE, "hotpatch_track", ""),
        ("kb:12", P.UNKNOWN_VALUE, "lacks", "12"),
        ("connection:Nowhere", P.UNKNOWN_VALUE, "connection", "Nowhere"),
        ("subscription:a", P.UNKNOWN_VALUE, "subscription", "a"),  # two have this name
        ("rg:a rg:b", P.GIVEN_TWICE, "resource_group", "a, b"),
    ],
)
def test_what_a_text_does_not_mean_is_named(text: str, kind: SelectionProblem, name: str, value: str) -> None:
    (unread,) = read_text(text, OPTIONS).unread
    assert (unread.kind, unread.name, unread.value) == (kind, name, value)


TYPED = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool)
)


@given(
    narrowing=st.fixed_dictionaries(
        {},
        optional={
            **{name: st.sampled_from(list(values.values())) for name, values in VALUES.items()},
            **dict.fromkeys(("resource_group", "location", "tag", "trouble"), TYPED),
            "lacks": st.sampled_from(["Security", "Critical", "5087424", "KB5087424"]),
            "connection": st.sampled_from(["1", "2"]),
            "subscription": st.sampled_from(["3", "4"]),
            "q": st.sampled_from(["web", "web 01"]),
        },
    )
)
@settings(max_examples=200)
def test_a_list_as_text_reads_as_the_same_list(narrowing: dict[str, str]) -> None:
    found = read_text(write_text(narrowing, OPTIONS), OPTIONS)
    assert found.unread == ()
    assert dict(found.filters) | ({"q": found.search} if found.search else {}) == narrowing


@pytest.mark.django_db
def test_the_search_takes_words_and_shows_them_as_chips(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    row = ConnectionFactory(name="Main fleet")
    VirtualMachineFactory(
        name="web-1", resource_group=resource_group, connection=row, hotpatch_track="off_track_since_kb"
    )
    VirtualMachineFactory(name="web-2", resource_group=resource_group, connection=row)
    client.force_login(chief)
    shown = client.get(LIST, {"q": 'track:off connection:"main fleet" web', "sort": "-name"})
    assert names(shown) == ["web-1"]
    chips = re.findall(r'<a class="chip chip--on" href="[^"?]+\?([^"]*)">', shown.content.decode())
    assert [sorted(dict(parse_qsl(chip.replace("&amp;", "&")))) for chip in chips] == [
        ["connection", "hotpatch_track", "sort"],
        ["connection", "q", "sort"],
        ["hotpatch_track", "q", "sort"],
    ]
    assert "track:off &quot;connection:Main fleet&quot; web" in shown.content.decode()


@pytest.mark.django_db
def test_a_word_that_means_nothing_shows_no_machine_anywhere(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    VirtualMachineFactory(name="web-1", resource_group=resource_group)
    client.force_login(chief)
    for text in ("truck:off", "track:sideways web", "track:off track:on"):
        shown = client.get(LIST, {"q": text})
        assert names(shown) == []
        assert "a word of the search cannot be read" in text_of(shown)
        assert text.split(":")[0] in text_of(shown) or "Hotpatch track" in text_of(shown)
        lines = b"".join(client.get(f"{LIST}export/", {"q": text})).decode().splitlines()
        assert len(lines) == 2
        assert client.get("/bulk/", {"kind": "assessment", "all": "1", "q": text}).status_code == 422
    given_twice = VmFilter.of(chief, QueryDict("q=track:off&hotpatch_track=on_track")).problems()
    assert [problem.kind for problem in given_twice] == [P.GIVEN_TWICE]
    assert VmFilter.of(chief, QueryDict("q=track:off&hotpatch_track=off_track_since_kb")).problems() == ()


# --- what a machine needs, and orders ------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"update_status": "no_updates_available"}, "Nothing is missing"),
        ({"update_status": "unsupported"}, "Not supported"),
        ({"update_status": "updates_available", "other_count": 1}, "1 other update"),
        ({"update_status": "updates_available", "critical_and_security_count": 2}, "2 Critical or Security updates"),
        ({"update_status": "no_updates_data"}, "No updates data: assess it"),
        (
            {"update_status": "updates_available", "critical_and_security_count": 1, "patcher": "nobody"},
            "1 Critical or Security update, installed by nobody",
        ),
        ({"hotpatch_track": "baseline_due"}, "Baseline due"),
        ({"update_status": "reboot_required"}, "Waits for its reboot"),
        ({"hotpatch_track": "baseline_due", "is_reboot_pending": True}, "Waits for its reboot"),
        ({"hotpatch_track": "baseline_overdue", "is_reboot_pending": True}, "Baseline overdue"),
        ({"hotpatch_track": "off_track_since_kb", "is_reboot_pending": True}, "Off the hotpatch track"),
    ],
)
def test_a_row_says_what_the_machine_needs(client: Client, chief: User, words: dict[str, Any], sentence: str) -> None:
    VirtualMachineFactory(**{"update_status": "no_updates_available"} | words)
    client.force_login(chief)
    shown = client.get(LIST).content.decode()
    assert re.search(rf'<td class="keep[^>]*>(<svg.*?</svg>)?{sentence}<', shown)
    is_coloured = re.search(r'<td class="keep (warning|danger|neutral)">', shown) is not None
    assert is_coloured == (VirtualMachine.objects.get().need >= ATTENTION)


@pytest.mark.django_db
def test_what_needs_attention_comes_first_and_a_narrowed_list_is_by_name(client: Client, chief: User) -> None:
    for name, track in (("c", "on_track"), ("b", "off_track_since_kb"), ("a", "on_track"), ("d", "baseline_due")):
        VirtualMachineFactory(name=name, hotpatch_track=track, update_status="no_updates_available", location="x")
    client.force_login(chief)
    assert names(client.get(LIST)) == ["b", "d", "a", "c"]
    assert names(client.get(LIST, {"condition": "needs_attention"})) == ["b", "d"]
    assert names(client.get(LIST, {"location": "x"})) == ["a", "b", "c", "d"]
    assert names(client.get(LIST, {"location": "x", "sort": "-need"})) == ["c", "a", "d", "b"]
    assert order_of(VmFilter.of(chief, QueryDict("")), "nonsense") == "need"


@pytest.mark.django_db
@pytest.mark.parametrize("order", list(ORDERS))
def test_every_order_is_an_index(order: str) -> None:
    VirtualMachineFactory.create_batch(60, connection=ConnectionFactory())
    sql, parameters = page_sql(
        VirtualMachine.objects.filter(gone_at=None).order_by(), WAYS[order][0], None, is_search=False
    )
    with database.cursor() as cursor:
        cursor.execute("ANALYZE vms_virtualmachine")
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Sort" not in plan, plan
    assert "vms_vm_" in plan


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("order", "indexes"),
    [
        ("assessed", ["vms_vm_never_assessed", "updates_vmupdatestate_last_assessed_at"]),
        ("-assessed", ["updates_vmupdatestate_last_assessed_at", "vms_vm_never_assessed"]),
    ],
)
def test_the_order_of_assessments_is_two_indexes(order: str, indexes: list[str]) -> None:
    for vm in VirtualMachineFactory.create_batch(60, connection=ConnectionFactory()):
        VmUpdateStateFactory(vm=vm)
    VirtualMachine.objects.exclude(name__endswith="7").update(patch_set=1)  # most were assessed, as in any fleet
    found = VirtualMachine.objects.filter(gone_at=None).order_by()
    with database.cursor() as cursor:
        cursor.execute("ANALYZE vms_virtualmachine; ANALYZE updates_vmupdatestate")
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        for stretch, index in zip(WAYS[order], indexes, strict=True):
            sql, parameters = page_sql(found, stretch, None, is_search=False)
            cursor.execute(f"EXPLAIN {sql}", parameters)
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert index in plan, plan
            assert "Seq Scan" not in plan, plan


@pytest.mark.django_db
def test_the_list_says_where_the_never_assessed_are(client: Client, chief: User) -> None:
    now = timezone.now()
    for name, days in (("a", 2), ("b", None), ("c", 9), ("d", 0)):
        vm = VirtualMachineFactory(name=name, patch_set=0 if days is None else 1)
        if days is not None:
            VmUpdateStateFactory(vm=vm, last_assessed_at=now - timedelta(days=days))
    client.force_login(chief)
    page = client.get(LIST, {"sort": "assessed"})
    assert names(page) == ["b", "c", "a", "d"]
    assert "The machines that were never assessed come first." in page.content.decode()
    assert 'aria-sort="ascending"><a href="?sort=-assessed">Last assessed' in page.content.decode()
    page = client.get(LIST, {"sort": "-assessed"})
    assert names(page) == ["d", "a", "c", "b"]
    assert "The machines that were never assessed come last." in page.content.decode()
    assert "never assessed come" not in client.get(LIST).content.decode()


# --- the next reboot -----------------------------------------------------------------------------------------------


def foresee(vm: VirtualMachine, month: str, outlook: str = "will", cause: str = "") -> VirtualMachine:
    """Let this machine, and all that are alike, say that of its next reboot, as a tick does."""
    vm.refresh_from_db()
    told = {"next_reboot": month, "next_reboot_outlook": outlook, "next_reboot_cause": cause}
    Outlook.objects.create(alike=vm.alike, **told)
    VirtualMachine.objects.filter(alike=vm.alike).update(**told)
    return vm


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("2027-01", "will", "planned_baseline"), "<td>2027-01<small>planned baseline</small>"),
        (("2026-12", "may", "pending_update"), "<td>2026-12, perhaps<small>pending updates may reboot</small>"),
        (("none", "will_not", "nobody_patches"), "<td>Not by itself<small>due, nobody installs it</small>"),
        (("none", "will_not"), "<td>None in sight"),
        (("unknown", "not_known"), "<td>Not known"),
    ],
)
def test_a_row_says_when_its_machine_reboots_and_why(
    client: Client, chief: User, told: tuple[str, ...], words: str
) -> None:
    vm = foresee(VirtualMachineFactory(), *told)
    client.force_login(chief)
    assert words in client.get(LIST).content.decode()
    lines = list(csv.DictReader(io.StringIO("".join(csv_lines(VirtualMachine.objects.all())).lstrip("\ufeff"))))
    assert (lines[0]["next_reboot"], lines[0]["next_reboot_outlook"]) == told[:2]
    VirtualMachine.objects.filter(pk=vm.pk).update(patcher="nobody")  # now it is like no other
    vm.refresh_from_db()
    assert vm.next_reboot == vm.next_reboot_cause == ""


@pytest.mark.django_db
def test_the_soonest_reboot_comes_first_and_what_is_not_known_last(client: Client, chief: User) -> None:
    row = ConnectionFactory()
    for name, month, track in (
        ("a", "unknown", "unknown"),
        ("b", "2027-01", "on_track"),
        ("c", "none", "not_on_train"),
        ("d", "2026-12", "baseline_due"),
    ):
        foresee(VirtualMachineFactory(name=name, connection=row, hotpatch_track=track), month)
    client.force_login(chief)
    assert names(client.get(LIST, {"sort": "reboot"})) == ["d", "b", "c", "a"]
    assert names(client.get(LIST, {"sort": "-reboot"})) == ["a", "c", "b", "d"]


@pytest.mark.django_db
def test_a_machine_that_is_written_says_what_its_like_says(resource_group: ResourceGroup) -> None:
    row = ConnectionFactory()
    first = foresee(VirtualMachineFactory(connection=row, resource_group=resource_group), "2027-04")
    second = VirtualMachineFactory(connection=row, resource_group=resource_group)
    second.refresh_from_db()
    assert (second.alike, second.next_reboot) == (first.alike, "2027-04")
    VirtualMachine.objects.filter(pk=second.pk).update(next_reboot="1999-01")
    second.refresh_from_db()
    assert second.next_reboot == "2027-04", "nobody writes another word than that of its like"
    VirtualMachine.objects.filter(pk=second.pk).update(gone_at=timezone.now())
    second.refresh_from_db()
    assert second.next_reboot == ""


@pytest.mark.django_db
def test_who_reboots_is_found_through_an_index(chief: User) -> None:
    VirtualMachineFactory.create_batch(60, connection=ConnectionFactory())
    with time_machine.travel("2026-11-27T12:00:00Z", tick=False):
        found = VmFilter.of(chief, {"reboots": "next:any"}).qs
    sql, parameters = page_sql(found, WAYS["name"][0], None, is_search=False)
    with database.cursor() as cursor:
        cursor.execute("ANALYZE vms_virtualmachine")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan on vms_virtualmachine" not in plan, plan


@pytest.mark.django_db
def test_the_view_of_the_next_patch_tuesday_says_what_it_shows(client: Client, chief: User) -> None:
    client.force_login(chief)
    page = client.get(LIST, {"q": "reboot:next"}).content.decode()
    assert "the month of the next Patch Tuesday" in page
    assert re.search(r'href="[^"]*\?reboots=next" aria-current="page"', page)
    assert "reboot:next" in page
    assert "2027-01 (May reboot)" in client.get(LIST, {"reboots": "2027-01:may"}).content.decode()
    assert client.get(LIST, {"reboots": "2027-13"}).context["filters"].problems()


# --- suggestions ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_text_is_offered_what_contains_it_of_what_the_reader_sees(
    client: Client, chief: User, reader: User, resource_group: ResourceGroup
) -> None:
    row = ConnectionFactory()
    ResourceGroup.objects.filter(pk=resource_group.pk).update(name="rg-Web-1")
    VirtualMachineFactory(connection=row, resource_group=resource_group, tags={"Env": "prod", "<i>web": ""})
    other = ResourceGroupFactory(name="web")
    VirtualMachineFactory(connection=row, resource_group=other, tags={"web-tier": "front"})
    where = reverse("vms:suggestions")

    def offered(**asked: str) -> list[str]:
        return [unescape(value) for value in re.findall(r'value="([^"]*)"', client.get(where, asked).content.decode())]

    client.force_login(chief)
    assert offered(resource_group="WEB") == ["web", "rg-Web-1"]
    assert offered(tag="web") == ["<i>web", "web-tier", "web-tier=front"]
    assert "japaneast" in offered(location="Japan E")
    assert offered(tag="") == offered(name="web") == offered() == []
    client.force_login(reader)
    assert offered(resource_group="web") == ["rg-Web-1"]
    assert offered(tag="prod") == ["Env=prod"]
    page = client.get(LIST, {"resource_group": "web", "location": "japan"}).content.decode()
    assert "Did you mean:" in page
    assert f'href="{LIST}?resource_group=rg-Web-1&amp;location=japan"' in page
    assert 'location=japaneast"' in page


@pytest.mark.django_db
def test_no_more_than_ten_are_offered(client: Client, chief: User) -> None:
    for number in range(12):
        ResourceGroupFactory(name=f"web-{number}")
    client.force_login(chief)
    assert client.get(reverse("vms:suggestions"), {"resource_group": "eb-"}).content.count(b"<option") == 10


# --- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_person_chooses_columns_and_their_order(client: Client, chief: User, reader: User) -> None:
    row = VirtualMachineFactory(tags={"env": "prod", "<b>": ""}, image_sku="2022-sku", location="japaneast")
    client.force_login(chief)
    where = reverse("vms:list-columns") + "?location=japaneast"
    places = {"location": "1", "tags": "3", "image_sku": "2", "need": ""}
    assert client.post(where, places)["Location"] == f"{LIST}?location=japaneast"
    shown = client.get(LIST).content.decode()
    heads = re.findall(r'<th scope="col"[^>]*>(?:<a[^>]*>)?([^<]+)', shown)
    assert heads == ["Name", "Location", "Image", "Tags"]
    assert f"<small>{row.resource_group.name}</small><td>japaneast<td>2022-sku<td>&lt;b&gt;, env=prod" in shown
    assert client.post(where, {"location": "0"}).status_code == 422
    client.post(where, dict.fromkeys(COLUMNS, "1"))
    assert ListColumns.objects.get().columns == list(COLUMNS)
    assert client.get(LIST).status_code == 200
    client.force_login(reader)
    assert "2022-sku" not in client.get(LIST).content.decode()


# --- views ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_built_in_views_count_what_they_hold(
    client: Client, chief: User, reader: User, resource_group: ResourceGroup
) -> None:
    row = ConnectionFactory()
    VirtualMachineFactory(connection=row, resource_group=resource_group, hotpatch_track="baseline_due", patch_set=1)
    VirtualMachineFactory(
        connection=row, resource_group=resource_group, update_status="no_updates_available", patch_set=2
    )
    VirtualMachineFactory(connection=row, update_status="no_updates_data")
    VirtualMachineFactory(
        connection=row, update_status="updates_available", critical_and_security_count=3, patcher="nobody", patch_set=1
    )
    from vms.models import Grants

    for user, counts in ((chief, (4, 3, 1)), (reader, (2, 1, 0))):
        client.force_login(user)
        totals = list_head(user, Grants.of(user)).totals
        assert totals is not None
        assert (totals.machines, totals.needs_attention, totals.never_assessed) == counts
        for condition, count in (("needs_attention", counts[1]), ("never_assessed", counts[2])):
            assert len(names(client.get(LIST, {"condition": condition}))) == count
        assert re.findall(r'class="tab-count">(\d+)<', client.get(LIST).content.decode()) == [str(n) for n in counts]


@pytest.mark.django_db
def test_a_view_is_kept_opened_and_removed(
    client: Client, chief: User, reader: User, resource_group: ResourceGroup
) -> None:
    VirtualMachineFactory(resource_group=resource_group)
    save = reverse("vms:view-save")
    client.force_login(reader)
    kept = client.post(f"{save}?location=japaneast&sort=-name&cursor=x", {"name": "Tokyo", "is_shared": "on"})
    assert kept["Location"] == f"{LIST}?location=japaneast&sort=-name"
    view = SavedView.objects.get()
    assert (view.owner, view.address, view.is_shared) == (reader, "location=japaneast&sort=-name", False)
    assert client.post(f"{save}?location=x", {"name": "TOKYO"}).status_code == 422
    assert client.post(f"{save}?location=x", {"name": " "}).status_code == 422
    assert client.post(f"{save}?hotpatch_track=sideways", {"name": "no"}).status_code == 422
    assert SavedView.objects.count() == 1
    opened = client.get(reverse("vms:view", args=[view.pk]))
    assert opened["Location"] == kept["Location"]
    assert re.search(r'aria-current="page">Tokyo', client.get(kept["Location"]).content.decode())
    client.force_login(chief)  # it is the reader's own
    assert client.get(reverse("vms:view", args=[view.pk])).status_code == 404
    assert client.post(reverse("vms:view-remove", args=[view.pk])).status_code == 404
    client.force_login(reader)
    assert client.post(reverse("vms:view-remove", args=[view.pk])).status_code == 302
    assert not SavedView.objects.exists()
    tags = AuditEvent.objects.filter(source="vms.savedview").order_by("pk").values_list("tag", flat=True)
    assert list(tags) == ["fleet:view:create", "fleet:view:remove"]


@pytest.mark.django_db
def test_a_shared_view_is_everybodys_to_open_and_nobody_elses_to_change(
    client: Client, chief: User, staff: User, reader: User, resource_group: ResourceGroup
) -> None:
    VirtualMachineFactory(resource_group=resource_group)
    client.force_login(chief)
    client.post(f"{reverse('vms:view-save')}?connection={ConnectionFactory().pk}", {"name": "Ours", "is_shared": "on"})
    view = SavedView.objects.get()
    client.force_login(reader)
    # the reader sees nothing behind this connection: the view says so and shows nothing
    shown = client.get(reverse("vms:view", args=[view.pk]))
    assert shown.status_code == 422
    assert "means nothing any more" in text_of(shown)
    assert names(shown) == []
    assert client.post(reverse("vms:view-remove", args=[view.pk])).status_code == 404
    assert "Ours" in text_of(client.get(LIST))
    client.force_login(staff)
    assert client.post(reverse("vms:view-remove", args=[view.pk])).status_code == 302
