"""Tags as Azure compares them: keys without case, values with case; in hand and in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import BooleanField, Func, TextField, Value

# What is no object has no tags: PostgreSQL would raise an error.
_PAIRS = "jsonb_each_text(CASE WHEN jsonb_typeof(%(tags)s) = 'object' THEN %(tags)s END) AS tag(key, value)"


def tag_value(tags: Mapping[str, Any], name: str) -> str | None:
    """The value of the tag of this name in any case of letters; None: there is none."""
    wanted = name.lower()
    return next((str(value or "") for key, value in tags.items() if key.lower() == wanted), None)


class _Tag(Func):
    """An expression over the tags of a VM; its second argument is a name, its third a value."""

    def as_sql(self, compiler: Any, _connection: Any, **_context: Any) -> tuple[str, tuple[Any, ...]]:
        """The expression with its column in place of `%(tags)s`."""
        column, *values = self.get_source_expressions()
        tags, _none = compiler.compile(column)
        parameters = tuple(parameter for value in values for parameter in compiler.compile(value)[1])
        return self.template.replace("%(pairs)s", _PAIRS).replace("%(tags)s", tags), parameters


class TagValue(_Tag):
    """What `tag_value` says, in the database; NULL where there is none."""

    template = "(SELECT coalesce(tag.value, '') FROM %(pairs)s WHERE lower(tag.key) = lower(%s) LIMIT 1)"
    output_field = TextField()

    def __init__(self, name: str) -> None:
        super().__init__("tags", Value(name))


class HasTag(_Tag):
    """Whether a VM has a tag of this name, and this value if one is given."""

    template = "EXISTS (SELECT FROM %(pairs)s WHERE lower(tag.key) = lower(%s)"
    output_field = BooleanField()
    conditional = True

    def __init__(self, name: str, value: str = "") -> None:
        self.template = f"{self.template} AND tag.value = %s)" if value else f"{self.template})"
        super().__init__("tags", Value(name), *([Value(value)] if value else []))
