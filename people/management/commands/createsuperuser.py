"""`manage.py createsuperuser`: Django's, signed."""

from django.contrib.auth.management.commands import createsuperuser

from audit.commands import SignedCommand


class Command(SignedCommand, createsuperuser.Command):
    """Django's command; what it changes is kept with the account that ran it."""
