"""Pages that list what a form asks for: one answer for all of them, also where the form cannot be read or looking takes too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from django.http import HttpResponse

from db.bounded import ListTooSlowError
from ui.http import PortalRequest
from ui.pages import render_page


class AskingForm(Protocol):
    """A form that says, once it is valid, what is asked for."""

    @property
    def errors(self) -> Any:
        """What is wrong with it."""

    @property
    def asked(self) -> Any:
        """What is asked for."""

    def is_valid(self) -> bool:
        """Whether all of it can be read."""


def answer_list(
    request: PortalRequest, template: str, form: AskingForm, load: Callable[[Any, str], Any], *, part: str
) -> HttpResponse:
    """The page with what `load` finds; it takes what is asked for and the cursor of the address.

    A form that cannot be read shows nothing, with status 422; `is_too_slow` says that looking took too long. `part`: what
    htmx may ask for alone.
    """
    page, is_too_slow = None, False
    if form.is_valid():
        try:
            page = load(form.asked, request.GET.get("cursor", ""))
        except ListTooSlowError:
            is_too_slow = True
    context = {"form": form, "page": page, "is_too_slow": is_too_slow}
    return render_page(request, template, context, partials={part}, status=422 if form.errors else 200)
