"""How many machines a reader sees with each word, read from the counters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from django.db.models import Q, Sum

from db.arrays import array
from vms.models import Grants, ResourceGroup, VirtualMachine, WordCount

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

COUNTED_WORDS = ("update_status", "hotpatch_status", "hotpatch_track")


def word_totals(user: User | AnonymousUser) -> dict[str, Counter[str]]:
    """How many VMs that are not gone the user sees with each word, by the name of the word: exact, and read from the counters.

    Two or three queries. Single VMs that the user was granted by themselves are counted one by one.
    """
    grants = Grants.of(user)
    lines = WordCount.objects.order_by()
    single: set[int] = set()
    if not grants.are_of_everything:
        groups = Q(resource_group__any=array(sorted(grants.group_ids)))
        if subscriptions := grants.subscription_ids:
            groups |= Q(resource_group__in=ResourceGroup.objects.filter(subscription__in=subscriptions).values("pk"))
        lines, single = lines.filter(groups), grants.vm_ids
    found = {name: Counter[str]() for name in COUNTED_WORDS}
    for *words, machines in lines.values_list(*COUNTED_WORDS).annotate(machines=Sum("machines")):
        for name, word in zip(COUNTED_WORDS, words, strict=True):
            found[name][word] += machines
    if single:
        others = VirtualMachine.objects.filter(pk__any=array(sorted(single)), gone_at=None)
        if grants.group_ids or grants.subscription_ids:
            others = others.exclude(groups)
        for row in others.order_by().values_list(*COUNTED_WORDS):
            for name, word in zip(COUNTED_WORDS, row, strict=True):
                found[name][word] += 1
    return found
