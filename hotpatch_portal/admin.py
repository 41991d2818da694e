"""The admin site's name; what only its libraries need stays out of it."""

from allauth.account.models import EmailAddress
from django.contrib import admin
from django.utils.translation import gettext_lazy as _

admin.site.site_header = "Hotpatch Portal"
admin.site.site_title = "Hotpatch Portal"
admin.site.index_title = _("Administration")
# Accounts have no email addresses of their own here.
admin.site.unregister(EmailAddress)
