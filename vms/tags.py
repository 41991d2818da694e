"""Tags as Azure compares them: keys without case, values with case; in hand and in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import BooleanField, Func, TextField, Value

# The tags of a VM beside the name (and value) that is looked for. What is no object has no tags: PostgreSQL would raise.
_TAGS = (
    "FROM (SELECT %(expressions)s) AS asked({columns}), jsonb_each_text("
    "CASE WHEN jsonb_typeof(asked.tags) = 'object' THEN asked.tags END) AS tag(key, value) "
    "WHERE lower(tag.key) = lower(asked.name)"
)


def tag_value(tags: Mapping[str, Any], name: str) -> str | None:
    """The value of the tag of this name in any case of letters; None: there is none."""
    wanted = name.lower()
    return next((str(value or "") for key, value in tags.items() if key.lower() == wanted), None)


class TagValue(Func):
    """What `tag_value` says, in the database; NULL where there is none."""

    template = f"(SELECT coalesce(tag.value, '') {_TAGS.format(columns='tags, name')} LIMIT 1)"
    output_field = TextField()

    def __init__(self, name: str) -> None:
        super().__init__("tags", Value(name))


class HasTag(Func):
    """Whether a VM has a tag of this name, and this value if one is given."""

    output_field = BooleanField()
    conditional = True

    def __init__(self, name: str, value: str = "") -> None:
        named = f"SELECT {_TAGS.format(columns='tags, name, value' if value else 'tags, name')}"
        template = f"EXISTS ({named} AND tag.value = asked.value)" if value else f"EXISTS ({named})"
        super().__init__("tags", Value(name), *([Value(value)] if value else []), template=template)
