"""Lookups for `filter()`: membership in one array, and a key of a JSON object compared without case."""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, Field, ForeignObject, JSONField, Lookup


class AnyOf(Lookup):
    """`filter(pk__any=array(ids))`; Django, too, would look at each member of a list by itself."""

    lookup_name = "any"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """The comparison with one array."""
        column, params = self.process_lhs(compiler, connection)
        kind = self.lhs.output_field.db_type(connection) or "text"
        return f"{column} = ANY(%s::{kind}[])", (*params, self.rhs)


class HasTag(Lookup):
    """`filter(tags__has_tag="simulate")`: an object with this key, compared without case, as Azure compares tag names.

    The name must consist of letters, since it becomes part of a pattern. An index with this condition serves it.
    """

    lookup_name = "has_tag"
    output_field = BooleanField()
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """A path through the object's pairs; what is no object has no tags."""
        if not str(self.rhs).isalpha():
            raise ValueError(f"{self.rhs!r} is no plain word")
        column, params = self.process_lhs(compiler, connection)
        path = f'$.keyvalue() ? (@.key like_regex "^{self.rhs}$" flag "i")'
        return f"jsonb_path_exists({column}, %s::jsonpath, '{{}}', true)", (*params, path)


def register_lookups() -> None:
    """Teach Django's fields these lookups. An app whose models or queries use them calls it when it is ready."""
    for kind in (Field, ForeignObject):
        kind.register_lookup(AnyOf)
    JSONField.register_lookup(HasTag)
