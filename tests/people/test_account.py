"""Account: preferences that come along, sessions that can be ended, sign-in that is throttled."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from people.models import Preferences
from tests.factories import VirtualMachineFactory
from tests.forms import text_of
from ui.templatetags.portal import browser_words

pytestmark = pytest.mark.django_db
LOGIN = "/accounts/login/"
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def no_earlier_attempts(db: None) -> None:
    cache.clear()


@pytest.fixture
def person(reader: User) -> User:
    reader.set_password(PASSWORD)
    reader.save()
    return reader


def sign_in(**extra: Any) -> Client:
    browser = Client(**extra)
    answer = browser.post(LOGIN, {"login": "reader", "password": PASSWORD})
    assert answer.status_code == 302
    return browser


# --- preferences -------------------------------------------------------------------------------------------------


def test_theme_and_language_are_kept_before_anybody_has_signed_in_and_lead_back(client: Client) -> None:
    url = reverse("set-preferences")
    answer = client.post(url, {"theme": "dark", "next": LOGIN})
    assert answer["Location"] == LOGIN
    assert b'data-theme="dark"' in client.get(LOGIN).content
    for elsewhere in ("https://evil.example/", "//evil.example", "javascript:alert(1)"):
        assert client.post(url, {"theme": "dark", "next": elsewhere})["Location"] == "/"
    client.post(url, {"theme": ""})
    assert b"data-theme" not in client.get(LOGIN).content
    client.post(url, {"language": "ja", "next": LOGIN})
    assert "サインイン" in client.get(LOGIN).content.decode()
    assert not Preferences.objects.exists()


def test_preferences_come_along_to_another_browser(person: User) -> None:
    first = sign_in()
    chosen = {"language": "ja", "time_zone": "Asia/Tokyo", "theme": "dark", "density": "compact"}
    first.post(reverse("set-preferences"), chosen)
    first.post(reverse("set-preferences"), {"theme": "light"})  # a menu changes one and leaves the others alone
    assert Preferences.objects.values("language", "time_zone", "theme", "density").get() == chosen | {"theme": "light"}
    second = sign_in()
    page = second.get(reverse("account")).content.decode()
    assert '<html lang="ja" data-theme="light" data-density="compact">' in page
    assert '<option value="Asia/Tokyo" selected>' in page
    cleared = dict.fromkeys(chosen, "")
    second.post(reverse("set-preferences"), cleared)
    assert '<html lang="en">' in second.get(reverse("account")).content.decode()
    assert sign_in().cookies["theme"].value == ""


def test_the_chosen_time_zone_goes_before_the_browsers(person: User) -> None:
    browser = sign_in()
    browser.cookies["timezone"] = "America/New_York"
    browser.post(reverse("set-preferences"), {"time_zone": "Asia/Tokyo"})
    session = re.search(r"<time[^>]*>([^<]*)</time>", browser.get(reverse("account")).content.decode())
    browser.post(reverse("set-preferences"), {"time_zone": ""})
    other = re.search(r"<time[^>]*>([^<]*)</time>", browser.get(reverse("account")).content.decode())
    assert session
    assert other
    assert session[1] != other[1]


@pytest.mark.parametrize("field", ["language", "time_zone", "theme", "density"])
def test_what_is_no_choice_changes_nothing(client: Client, reader: User, field: str) -> None:
    client.force_login(reader)
    client.post(reverse("set-preferences"), {field: "'; DROP TABLE"})
    assert not Preferences.objects.exists()


# --- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_can_be_ended_from_another(person: User, chief: User) -> None:
    office, train, home = (sign_in(HTTP_USER_AGENT=name) for name in ("office", "train", "home"))
    page = office.get(reverse("account"))
    assert all(name in text_of(page) for name in ("office", "train", "home", "This session"))
    lost = next(s for s in page.context["sessions"] if s.user_agent == "train")
    office.post(reverse("sessions-end"), {"session": lost.pk})
    assert train.get(reverse("account")).status_code == 302
    assert home.get(reverse("account")).status_code == 200
    office.post(reverse("sessions-end"))
    assert home.get(reverse("account")).status_code == 302
    assert office.get(reverse("account")).status_code == 200


def test_nobody_ends_a_session_of_somebody_else(client: Client, person: User, chief: User) -> None:
    mine = sign_in()
    (session,) = mine.get(reverse("account")).context["sessions"]
    client.force_login(chief)
    for tampered in (session.pk, "x", "-1", "9" * 30):
        client.post(reverse("sessions-end"), {"session": tampered})
    assert mine.get(reverse("account")).status_code == 200


# --- sign-in -----------------------------------------------------------------------------------------------------


def test_guessing_a_password_is_throttled_for_the_account_in_every_web_process(client: Client, person: User) -> None:
    for _n in range(5):
        client.post(LOGIN, {"login": "reader", "password": "wrong"})
    answer = client.post(LOGIN, {"login": "reader", "password": PASSWORD})
    assert "Too many failed login attempts" in text_of(answer)
    assert client.get(reverse("account")).status_code == 302
    # The counts are in the database, whichever process made them.
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM hotpatch_portal_cache")
        assert cursor.fetchone()[0] > 0


def test_the_address_is_throttled_whatever_the_account(client: Client) -> None:
    words = [text_of(client.post(LOGIN, {"login": f"name-{n}", "password": "wrong"})) for n in range(22)]
    assert "not correct" in words[0]
    assert "Too many" in words[-1]


def test_a_page_costs_no_query_for_preferences(client: Client, reader: User, django_assert_num_queries: Any) -> None:
    VirtualMachineFactory()
    client.force_login(reader)
    client.cookies["theme"], client.cookies["density"] = "dark", "compact"
    with django_assert_num_queries(4):  # session, user, what waits, and the roles that the menu goes by
        client.get("/accounts/password/set/")


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/150.0 Safari/537.36 Edg/150.0",
            "Edge · Windows",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/156.0 Safari/537.36", "Chrome · Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile Safari/604.1", "Safari · iOS"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 15.0; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox · macOS"),
        ("curl/8.1 " + "x" * 100, ("curl/8.1 " + "x" * 100)[:60]),
    ],
)
def test_a_session_says_its_browser_in_words(user_agent: str, words: str) -> None:
    assert browser_words(user_agent) == words
