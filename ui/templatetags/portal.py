"""Template tags of the portal (placeholder until the UI room lands)."""

from django import template

register = template.Library()
