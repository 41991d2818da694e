"""Names, groups, regions, tag keys and resource ids compare without case; values of tags with case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import ResourceGroupFactory, SubscriptionFactory, VirtualMachineFactory
from vms.models import VirtualMachine
from vms.selectors import shortest_names, vms_by_name
from vms.tags import HasTag, TagValue, tag_value

pytestmark = pytest.mark.django_db


def test_a_machine_is_found_however_it_is_written() -> None:
    one, other = (SubscriptionFactory(name=name) for name in ("Production", "Test / lab"))
    first, second = (
        VirtualMachineFactory(name="Web-01", resource_group=ResourceGroupFactory(name="RG-Prod", subscription=sub))
        for sub in (one, other)
    )
    third = VirtualMachineFactory(name="db.01", resource_group=first.resource_group)
    both = [first.pk, second.pk]
    expected = {
        "web-01": both,
        "WEB-01": both,
        "wEB-01": both,
        "rg-prod/web-01": both,
        "production/rg-prod/web-01": [first.pk],
        "test / lab/RG-PROD/web-01": [second.pk],
        f"{other.subscription_id}/rg-prod/Web-01": [second.pk],
        first.arm_id.upper(): [first.pk],
        "DB.01": [third.pk],
        "web": [],
        "web-0": [],
        "other/web-01": [],
        "nobody/rg-prod/web-01": [],
        "/": [],
        "": [],
        "a\x00b": [],
        "-": [],
    }
    assert vms_by_name(expected) == expected
    names = shortest_names([first.pk, second.pk, third.pk])
    assert [vms_by_name([text])[text] for text in names] in (
        [[third.pk], [first.pk], [second.pk]],
        [[first.pk], [second.pk], [third.pk]],
        [[third.pk], [second.pk], [first.pk]],
    ), names


def test_of_two_subscriptions_of_one_name_the_ids_are_written() -> None:
    vms = [
        VirtualMachineFactory(
            name="a", resource_group=ResourceGroupFactory(name="g", subscription=SubscriptionFactory(name="Same"))
        )
        for _ in range(2)
    ]
    assert shortest_names([vm.pk for vm in vms]) == [vm.arm_id for vm in vms]


@given(
    st.dictionaries(
        st.sampled_from(["env", "ENV", "Ring", "x"]), st.sampled_from(["Prod", "prod", "", None]), max_size=2
    ),
    st.sampled_from(["env", "Env", "RING", "y"]),
    st.sampled_from(["", "prod", "Prod"]),
)
@pytest.mark.usefixtures("db")
def test_tags_in_hand_and_in_the_database_say_the_same(tags: dict[str, str | None], name: str, value: str) -> None:
    if len({key.lower() for key in tags}) < len(tags):
        return
    vm = VirtualMachineFactory(tags=tags)
    rows = VirtualMachine.objects.filter(pk=vm.pk)
    found = tag_value(tags, name)
    assert rows.annotate(found=TagValue(name)).values_list("found", flat=True).get() == found
    assert rows.filter(HasTag(name)).exists() is (found is not None)
    if value:
        assert rows.filter(HasTag(name, value)).exists() is (found == value)
