"""The WSGI entry point for gunicorn."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")
application = get_wsgi_application()

# What is loaded by now stays for good; a page makes objects by the thousand and drops them by counting. Looking for cycles
# among all of it every few pages makes one reader in twenty wait.
gc.collect()
gc.freeze()
gc.set_threshold(10_000, 20, 50)
