"""A mail server, people who want mail, and things that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from audit.services import subscribe
from notifications.services import CONSUMER
from people.models import MailWishes
from tests.notifications.smtp import MailServer, mail_server


@pytest.fixture
def server(settings: Any, db: None) -> Iterator[MailServer]:
    """The mail server that the portal is set to; what happened before is not told."""
    with mail_server() as found:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", found.port
        settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
        settings.EMAIL_TIMEOUT = 1
        settings.DEFAULT_FROM_EMAIL = "Hotpatch Portal <portal@example.org>"
        settings.PORTAL_URL = "https://portal.example.org"
        subscribe(consumer=CONSUMER)
        yield found


@pytest.fixture
def wanting() -> Callable[..., User]:
    """Let somebody want mail: all of it, unless the test says otherwise."""

    def want(user: User, **wishes: object) -> User:
        usual = {"address": f"{user.username}@example.org", "rollouts": True, "decisions": True, "bulk_requests": True}
        MailWishes.objects.update_or_create(user=user, defaults=usual | wishes)
        return user

    return want
