"""The portal's settings for tests: the same, but for what only makes tests slow."""

from hotpatch_portal.settings import *  # noqa: F403

SECRET_KEY = "tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
DATABASES["default"]["OPTIONS"].pop("pool")  # noqa: F405 (threads of tests close their own connections)
# Nothing is collected in tests; pages only name their files.
MIDDLEWARE = [name for name in MIDDLEWARE if "whitenoise" not in name]  # noqa: F405
