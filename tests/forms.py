"""What a reader sees of a page, and what a browser would send of its forms: the fields as they stand."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any


class _Fields(HTMLParser):
    def __init__(self, action: str) -> None:
        super().__init__()
        self.action, self.is_inside = action, False
        self.fields: dict[str, list[str]] = {}
        self.select: str | None = None
        self.text: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.is_inside = have.get("method") == "post" and have.get("action", "") == self.action
        if not self.is_inside:
            return
        name = have.get("name", "")
        if tag == "input" and name:
            is_tick = have.get("type") in {"checkbox", "radio"}
            if not is_tick or "checked" in have:
                self.fields.setdefault(name, []).append(have.get("value", "on" if is_tick else ""))
        elif tag == "select":
            self.select = name
        elif tag == "option" and "selected" in have and self.select:
            self.fields.setdefault(self.select, []).append(have.get("value", ""))
        elif tag == "textarea":
            self.text = name

    def handle_data(self, data: str) -> None:
        if self.text:
            self.fields.setdefault(self.text, []).append(data.strip())
            self.text = None

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.is_inside = False
        if tag == "textarea":
            self.text = None


def text_of(response: Any) -> str:
    """What the page says, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def fields_of(response: Any, action: str) -> dict[str, list[str]]:
    """The fields of the POST form that goes to `action`, without its buttons and its token."""
    parser = _Fields(action)
    parser.feed(response.content.decode())
    return {name: values for name, values in parser.fields.items() if name != "csrfmiddlewaretoken"}
