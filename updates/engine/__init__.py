"""The operation engine, by duty: claim what is due, decide its next step, do it, write what came of it (docs/rules.md).

`sweep` is the way in. Messages are wake-ups only: a sweep carries no ids and claims due rows by the database's clock.
Everything here takes collections; one operation is a collection of one.
"""
