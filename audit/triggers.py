"""Triggers that keep what a person can change, whatever the door it is changed through.

A table whose model lists them writes an event with who, when, before, after and why; no service can forget it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pgtrigger

from audit.tags import Tag

# The facts of `was` and `is_now` are the row without the columns that are left out, as JSON by column.
_DECLARE = [("was", "jsonb"), ("is_now", "jsonb"), ("it", "jsonb"), ("tag", "text")]


def quoted(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _tag(tag: Tag | None) -> str:
    return "NULL" if tag is None else quoted(tag.value)


def kept(
    *,
    source: str,
    create: Tag | None,
    change: Tag | None,
    remove: Tag | None,
    name: str,
    left_out: Sequence[str] = (),
    only: Sequence[str] = (),
    moves: Mapping[str, Tag] | None = None,
    keys: Mapping[str, str] | None = None,
    object_id: str = "it->>'id'",
    is_by_people_only: bool = False,
) -> pgtrigger.Trigger:
    """Keep rows that are added, changed and removed, each by its tag (None: that is not kept).

    `source` is the model's label. `name`, `object_id` and the values of `keys` (a column of the event: what it gets)
    are expressions of SQL over `it`, the row as JSON. `moves` are conditions of SQL over `was` and `is_now`, tried in
    their order, and the tag of a change that fits. A change of none but the columns `left_out` (or of others than
    `only`) is no event. `is_by_people_only`: what the portal itself writes is not kept.
    """
    columns = dict(keys or {})
    cases = "".join(f"WHEN {condition} THEN {_tag(tag)} " for condition, tag in (moves or {}).items())
    changed = f"CASE {cases}ELSE {_tag(change)} END" if cases else _tag(change)
    func = f"""
IF TG_OP <> 'INSERT' THEN was := {_facts("OLD", left_out, only)}; it := to_jsonb(OLD); END IF;
IF TG_OP <> 'DELETE' THEN is_now := {_facts("NEW", left_out, only)}; it := to_jsonb(NEW); END IF;
IF TG_OP = 'UPDATE' AND was = is_now THEN RETURN NULL; END IF;
{_BY_PEOPLE_ONLY if is_by_people_only else ""}tag := CASE TG_OP WHEN 'INSERT' THEN {_tag(create)} WHEN 'DELETE' THEN {_tag(remove)} ELSE {changed} END;
IF tag IS NULL THEN RETURN NULL; END IF;
INSERT INTO audit_auditevent (
    tag, source, object_id, object_name, before, after{"".join(f", {key}" for key in columns)}
) VALUES (
    tag, {quoted(source)}, left(COALESCE({object_id}, ''), 64), left(COALESCE({name}, ''), 200),
    audit_differing(was, is_now), audit_differing(is_now, was){"".join(f", {value}" for value in columns.values())}
);
RETURN NULL;
"""  # noqa: S608 (written by us, nothing of a request)
    return pgtrigger.Trigger(
        name="audit",
        level=pgtrigger.Row,
        when=pgtrigger.After,
        operation=pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete,
        declare=_DECLARE,
        func=func,
    )


def _facts(row: str, left_out: Sequence[str], only: Sequence[str]) -> str:
    if only:
        return f"audit_only(to_jsonb({row}), ARRAY[{', '.join(map(quoted, only))}])"
    out = ["id", *left_out]
    return f"to_jsonb({row}) - ARRAY[{', '.join(map(quoted, out))}]"


_BY_PEOPLE_ONLY = "IF NOT audit_is_by_people() THEN RETURN NULL; END IF;\n"


def kept_links(
    *, source: str, add: Tag, remove: Tag, owner: str, links: str, name: str, counted: str
) -> list[pgtrigger.Trigger]:
    """Keep what is linked to a row by a table of its own: one event for each statement and row, whatever the number.

    `owner` and `links` are columns of the table of links; `name` an expression of SQL over `link_owner`, the row's id;
    `counted` what the links are called in the detail. The first 20 ids of what was linked are kept with their number.
    """
    return [
        _links(f"audit_{verb}", operation, tag, source, owner, links, name, counted, **{table: "touched"})
        for verb, operation, tag, table in (
            ("added", pgtrigger.Insert, add, "new"),
            ("removed", pgtrigger.Delete, remove, "old"),
        )
    ]


def _links(
    trigger: str,
    operation: pgtrigger.Operation,
    tag: Tag,
    source: str,
    owner: str,
    links: str,
    name: str,
    counted: str,
    **tables: str,
) -> pgtrigger.Trigger:
    func = f"""
INSERT INTO audit_auditevent (tag, source, object_id, object_name, detail)
SELECT {_tag(tag)}, {quoted(source)}, link_owner::text, left(COALESCE({name}, ''), 200),
    jsonb_build_object({quoted(counted)}, touched_count, 'ids', first_ids)
FROM (
    SELECT {owner} AS link_owner, count(*) AS touched_count, (array_agg({links} ORDER BY {links}))[1:20] AS first_ids
    FROM touched GROUP BY {owner}
) linked;
RETURN NULL;
"""  # noqa: S608 (written by us, nothing of a request)
    return pgtrigger.Trigger(
        name=trigger,
        level=pgtrigger.Statement,
        when=pgtrigger.After,
        operation=operation,
        referencing=pgtrigger.Referencing(**tables),  # type: ignore[no-untyped-call]  # it alone has no types there
        func=func,
    )
