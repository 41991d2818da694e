"""The tour of the demo: one VM for each story, and what to look at there."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST

from audit.services import Act, record
from audit.tags import Tag
from demo.fleet import CONNECTIONS, reset
from ui.http import PortalRequest
from ui.pages import render_page
from updates.tasks import wake_up
from vms.models import VirtualMachine
from vms.selectors import owns_everything

Text = str | Promise


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of the tour: a VM of the demo and its story."""

    name: str
    title: Text
    story: Text
    vm: VirtualMachine | None = None


STOPS = (
    Stop("web-001", _("On track, with a hotpatch to come"), _("Assess it, then install the May hotpatch: no reboot, and the build moves. Include and exclude KB articles and read the review.")),
    Stop("fin-001", _("Baseline due"), _("The week after a planned baseline: the next update reboots. Try the reboot option “Never reboot” and see how the run ends.")),
    Stop("fin-006", _("Baseline overdue"), _("The baseline of April was not installed in time. It and the newest hotpatch on it bring the machine back, with one reboot.")),
    Stop("hr-001", _("A choice: stay on the train or take KB5070881"), _("In October 2025 an out-of-band update reached a few machines with hotpatch before Microsoft stopped it. The guard leaves it out unless you allow it.")),
    Stop("hr-off-track", _("Off track since KB5070881"), _("This machine took it: every month reboots until the next baseline.")),
    Stop("run-contradicted", _("Reported as installed, and not there"), _("The last run is contradicted by the look at the machine that followed it.")),
    Stop("run-failing-kb", _("A failing KB"), _("The run failed, with the update's own error code and what to do.")),
    Stop("run-never-reboot", _("A reboot is required"), _("The run completed with warnings: the update waits for a reboot.")),
    Stop("img-custom", _("Not eligible: custom image"), _("Why hotpatch is not available here, in words. Compare img-desktop and img-container-host.")),
    Stop("edge-001", _("On Azure Stack HCI"), _("Settings are what the machine reports; updates are installed from here all the same.")),
)  # fmt: skip


@require_GET
def tour(request: PortalRequest) -> HttpResponse:
    """The stops that the reader may see."""
    visible = VirtualMachine.objects.visible_to(request.user)
    vms = visible.filter(name__in=[stop.name for stop in STOPS], connection__name__in=CONNECTIONS)
    by_name = {vm.name: vm for vm in vms}
    stops = [Stop(s.name, s.title, s.story, by_name[s.name]) for s in STOPS if s.name in by_name]
    may_reset = settings.HAS_DEMO and owns_everything(request.user)
    return render_page(request, "tour.html", {"stops": stops, "may_reset": may_reset})


@require_POST
def demo_reset(request: PortalRequest) -> HttpResponse:
    """Make the demo fleet anew, for Owners of everything, where there is a demo."""
    if not settings.HAS_DEMO:
        raise Http404
    if not owns_everything(request.user):
        raise PermissionDenied
    count = reset(request.user)
    record(acts=[Act(Tag.DEMO_RESET, detail={"machines": count})], by=request.user)
    wake_up()
    messages.success(request, gettext("The demo was created again: %(count)s machines.") % {"count": count})
    return redirect("tour")
