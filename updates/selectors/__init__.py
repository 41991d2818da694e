"""Reads of the updates floor that join or aggregate."""
