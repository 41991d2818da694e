"""Reads of the people floor."""
