"""The WSGI entry point of the web processes (stack/web.py)."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")
application = get_wsgi_application()

# What is loaded by now stays for good, and a page drops the thousands of objects that it makes by counting: there is next to
# nothing to be found by looking for cycles among all of it every few pages.
gc.collect()
gc.freeze()
gc.set_threshold(10_000, 20, 50)
