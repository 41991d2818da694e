"""`manage.py changepassword`: Django's, signed."""

from django.contrib.auth.management.commands import changepassword

from audit.commands import SignedCommand


class Command(SignedCommand, changepassword.Command):
    """Django's command; what it changes is kept with the account that ran it."""
