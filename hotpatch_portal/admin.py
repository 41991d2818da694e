"""The admin site's name and its one way in; what only its libraries need stays out of it."""

from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from django.contrib import admin
from django.utils.translation import gettext_lazy as _

admin.site.site_header = "Hotpatch Portal"
admin.site.site_title = "Hotpatch Portal"
admin.site.index_title = _("Administration")
# Accounts have no email addresses of their own here.
admin.site.unregister(EmailAddress)
# One door to sign in, with its throttle: the admin's own form would count no failures.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
