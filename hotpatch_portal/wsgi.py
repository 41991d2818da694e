"""The WSGI entry point of the web processes (stack/web.py)."""

import gc
import os

import django
from django.core.handlers.wsgi import WSGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")
django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402 (Django is set up first)

from hotpatch_portal.counting import start_counting  # noqa: E402

start_counting(settings.PORTAL_DIR)  # before the middleware imports what counts

from ui.http import ServedRequest  # noqa: E402 (Django is set up first)


class Handler(WSGIHandler):
    """Django's, with requests that no content type can break."""

    request_class = ServedRequest


application = Handler()

# What is loaded by now stays for good, and a page drops the thousands of objects that it makes by counting: there is next to
# nothing to be found by looking for cycles among all of it every few pages.
gc.collect()
gc.freeze()
gc.set_threshold(10_000, 20, 50)
