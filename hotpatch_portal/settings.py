"""Every setting of the portal, read from the environment only (docs: the configuration table in README.md)."""

import json
import tomllib
from pathlib import Path

import structlog
from csp.constants import NONE, SELF
from django.contrib.messages import constants as messages
from django.utils.translation import gettext_lazy as _

from hotpatch_portal.environment import DATABASE_SCHEMES, REDIS_SCHEMES, WEB_SCHEMES, Environment
from hotpatch_portal.logs import without_traceback

env = Environment()

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]

# --- where things live -------------------------------------------------------------------------------------------
# The one-command stack keeps everything it creates here (database, generated secret key, access.json).
PORTAL_DIR = Path(env.text("PORTAL_DIR", str(BASE_DIR / ".portal")))


def _running_portal() -> dict[str, str]:
    """What the one-command stack wrote down for commands that run beside it; empty where none has run."""
    try:
        document = json.loads((PORTAL_DIR / "environment.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in document.items()}


_stack = _running_portal()
# Without a key nothing can be signed; the check portal.E001 says what to do.
SECRET_KEY = env.text("SECRET_KEY", _stack.get("SECRET_KEY", "")).strip() or "unset"
DEBUG = env.flag("DEBUG")
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS")
# Behind a TLS proxy: cookies and redirects must be https only. Off by default, since `make up` serves plain loopback.
# With TLS the one-command stack speaks it by itself, with a certificate of its own: no header is believed then.
TLS = env.flag("TLS")
HTTPS = env.flag("HTTPS") or TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS and not TLS else None
SECURE_SSL_REDIRECT = HTTPS
# Who meets a certificate that was made locally must be able to go back to plain HTTP.
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS and not TLS else 0
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 60 * 60 * 12
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "ui.views.csrf_failure"

# --- apps --------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "notifications",
    "arm_api",
    "people",  # before django.contrib.auth, whose commands it signs
    "updates",
    "vms",
    "audit",
    "ui",
    "hotpatch_portal.admin_site.PortalAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.usersessions",
    "csp",
    "django_filters",
    "django_htmx",
    "django_structlog",
    "lucide",
    "pghistory",
    "pgtrigger",
    "template_partials",
    # Beside the portal, which imports none of them: they bring seed_demo and the tour, simulate, and seed_fleet.
    "demo",
    "simulation",
    "bench",
    "hotpatch_portal",  # last: its admin corrects what the others registered
]

MIDDLEWARE = [
    "hotpatch_portal.outside.seen_from_outside",  # first: probes come with any Host and without TLS, and all time counts
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "ui.middleware.private_answers",
    # A list is mostly markup that repeats. Django pads the answer at random, so that its length tells no secret.
    "django.middleware.gzip.GZipMiddleware",
    "ui.middleware.drawn_icons",
    "arm_api.middleware.in_the_envelope",
    "ui.middleware.ReadableRequest",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "audit.middleware.SignedRequests",
    "django.contrib.messages.middleware.MessageMiddleware",
    "ui.middleware.reader_time_zone",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
]
# What changes something says in the history who asked for it. Whoever only reads need not prepare for that at every statement.
PGHISTORY_MIDDLEWARE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
# The class of a message is its tone in portal.css.
MESSAGE_TAGS = {
    messages.SUCCESS: "success",
    messages.WARNING: "warning",
    messages.ERROR: "danger",
    messages.INFO: "info",
}

ROOT_URLCONF = "hotpatch_portal.urls"
WSGI_APPLICATION = "hotpatch_portal.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "ui.context.portal",
                "vms.access.may",
                "people.context.waiting",
            ],
            "builtins": [
                "django.templatetags.i18n",
                "django.templatetags.static",
                "template_partials.templatetags.partials",
                "ui.templatetags.portal",
            ],
        },
    }
]

# --- database ----------------------------------------------------------------------------------------------------
DATABASE_URL = env.url("DATABASE_URL", _stack.get("DATABASE_URL", ""), DATABASE_SCHEMES)
DATABASES = {"default": env.database("DATABASE_URL", DATABASE_URL or "postgres:///hotpatch_portal")}
_URL_OPTIONS = DATABASES["default"].get("OPTIONS", {})
DATABASES["default"] |= {
    "ATOMIC_REQUESTS": False,
    "CONN_MAX_AGE": 0,  # the pool keeps the connections
    # After a restart of PostgreSQL the pool is full of dead ones: no page may meet them.
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": _URL_OPTIONS
    | {
        "pool": {"min_size": 1, "max_size": env.number("DATABASE_POOL_SIZE", 8, least=1, most=1000), "timeout": 5},
        "application_name": "hotpatch-portal",
        # django-pgtrigger reads this setting each time a trigger runs. Where it is missing, PL/pgSQL raises and catches an
        # error, and the rollback to before the error scans all foreign keys that are to be checked at the commit.
        # Measured: docs/performance.md, "Beside earlier commits".
        "options": f"{_URL_OPTIONS.get('options', '')} -c pgtrigger.ignore={{}}".strip(),
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# A page's query may not run longer than this; the page then asks to narrow it down (DESIGN, data).
STATEMENT_TIMEOUT_MS = env.number("STATEMENT_TIMEOUT_MS", 2_000, least=1, most=3_600_000)

# Nothing of a page is cached. What is kept here is how often somebody tried to sign in: one count for all web processes,
# and one that outlives a flushed Redis.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "hotpatch_portal_cache",
        "OPTIONS": {"MAX_ENTRIES": 50_000},
    }
}

# --- Celery ------------------------------------------------------------------------------------------------------
REDIS_URL = env.url("REDIS_URL", _stack.get("REDIS_URL", "redis://127.0.0.1:6379/0"), REDIS_SCHEMES)
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 300}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 60
CELERY_TASK_SOFT_TIME_LIMIT = 50
# By default Celery closes the database connection before and after each task. With this it does not (it closes after so
# many tasks); `updates.worker` closes connections that are older than a minute.
CELERY_DB_REUSE_MAX = 1_000_000_000
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_TASK_DEFAULT_QUEUE = "interactive"
CELERY_IMPORTS = ("updates.tasks", "updates.worker", "vms.tasks", "notifications.tasks")
# A wake-up older than its period is worthless: a stopped worker must not come back to a pile of them.
CELERY_BEAT_SCHEDULE = {
    "sweep-interactive": {
        "task": "updates.tasks.sweep",
        "schedule": 2.0,
        "kwargs": {"lanes": "interactive"},
        "options": {"expires": 2, "queue": "interactive"},
    },
    "sweep-bulk": {
        "task": "updates.tasks.sweep",
        "schedule": 2.0,
        "kwargs": {"lanes": "all"},
        "options": {"expires": 2, "queue": "bulk"},
    },
    "imports-interactive": {
        "task": "vms.tasks.imports",
        "schedule": 2.0,
        "kwargs": {"only_small": True},
        "options": {"expires": 2, "queue": "interactive"},
    },
    "imports-bulk": {
        "task": "vms.tasks.imports",
        "schedule": 2.0,
        "options": {"expires": 2, "queue": "bulk"},
    },
    "inventory-upkeep": {
        "task": "vms.tasks.upkeep",
        "schedule": 60.0,
        "options": {"expires": 50, "queue": "bulk"},
    },
    "schedule": {
        "task": "updates.tasks.schedule",
        "schedule": 60.0,
        "options": {"expires": 50, "queue": "bulk"},
    },
    "rollouts": {
        "task": "updates.tasks.rollouts",
        "schedule": 5.0,
        "options": {"expires": 5, "queue": "bulk"},
    },
    "mail": {
        "task": "notifications.tasks.mail",
        "schedule": 10.0,
        "options": {"expires": 10, "queue": "bulk"},
    },
    "prune-mail": {
        "task": "notifications.tasks.prune",
        "schedule": 60 * 60.0,
        "options": {"expires": 600, "queue": "bulk"},
    },
    "prune": {
        "task": "updates.tasks.prune",
        "schedule": 20 * 60.0,
        "options": {"expires": 600, "queue": "bulk"},
    },
}
# How long ended operations are kept; pages show 30 days of them.
KEEP_HISTORY_DAYS = env.number("KEEP_HISTORY_DAYS", 90, least=1, most=36_500)
# How long it is kept who did what (the Activity page).
KEEP_ACTIVITY_DAYS = env.number("KEEP_ACTIVITY_DAYS", 730, least=1, most=36_500)

# --- people ------------------------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "people.accounts.PortalAccounts"
ACCOUNT_LOGIN_METHODS = {"username"}
# How many proxies stand before the portal: from their X-Forwarded-For comes the address that sign-in is throttled by.
ALLAUTH_TRUSTED_PROXY_COUNT = env.number("TRUSTED_PROXIES", 0, least=0, most=100)
ACCOUNT_RATE_LIMITS = {"login": "30/m/ip", "login_failed": "20/m/ip,5/300s/key"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"

# --- mail --------------------------------------------------------------------------------------------------------
# Who wants to be told by mail says so on the account page. Empty: no mail is sent.
EMAIL_HOST = env.host("EMAIL_HOST")
EMAIL_SECURITY = env.choice("EMAIL_SECURITY", "starttls", ("starttls", "tls", "none"))
EMAIL_USE_TLS, EMAIL_USE_SSL = EMAIL_SECURITY == "starttls", EMAIL_SECURITY == "tls"
EMAIL_PORT = env.number("EMAIL_PORT", {"starttls": 587, "tls": 465, "none": 25}[EMAIL_SECURITY], least=1, most=65_535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "").strip()
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD", "").rstrip("\n")
# How long each answer of the server may take. A connection and a mail have some five of them each, and a task ends after 50 s.
EMAIL_TIMEOUT = env.number("EMAIL_TIMEOUT", 5, least=1, most=6)
EMAIL_FROM = env.mailbox("EMAIL_FROM")
DEFAULT_FROM_EMAIL = EMAIL_FROM or "hotpatch-portal@localhost"
# The portal's own address, for the links in mails; without it they tell the way in words.
PORTAL_URL = env.url("PORTAL_URL", "", WEB_SCHEMES)

# --- language, time ----------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("ja", _("Japanese"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_TZ = True
TIME_ZONE = env.zone("TIME_ZONE", "UTC")

# --- static files ------------------------------------------------------------------------------------------------
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = Path(env.text("STATIC_ROOT", str(PORTAL_DIR / "static")))
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- content security --------------------------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

# --- the portal's own --------------------------------------------------------------------------------------------
# How long a claimed operation stays with one worker before another may take it over.
OPERATION_LEASE_SECONDS = 90
# How long one sweep claims operations, and how long after its claim a start may still be sent. With the time-out of one
# call they fit into a task's soft time limit, and that into the lease: portal.E011 adds it up.
OPERATION_SWEEP_SECONDS = 30
OPERATION_SEND_SECONDS = 15
# The file a worker touches after each sweep that Celery delivered; the supervisor watches it. Empty: not watched.
WORKER_HEARTBEAT_FILE = env.text("WORKER_HEARTBEAT_FILE", "")
# What a worker's own timer sweeps: "interactive" leaves bulk starts to the bulk worker.
WORKER_LANES = env.choice("WORKER_LANES", "all", ("all", "interactive"))
# The kinds of connections whose operations a worker takes; empty: all (docs/scaling.md).
WORKER_KINDS = env.names("WORKER_KINDS")
# Whether the menu offers the tour of the demo fleet.
HAS_DEMO = env.flag("HAS_DEMO")
# The hours, on each VM's own clock, in which automatic guest patching works.
OFF_PEAK = env.hours("OFF_PEAK", "22:00-04:00")
# Where health probes may go (CIDRs). Empty: nowhere, and no VM can have one.
PROBE_NETWORKS = env.networks("PROBE_NETWORKS")
# Who brings it as a bearer token may scrape /metrics and reads why /readyz says no. Empty: there is no /metrics.
METRICS_TOKEN = env.token("METRICS_TOKEN")
# Where `manage.py serve_metrics` serves /metrics beside the portal. Beyond loopback it takes METRICS_TOKEN (portal.E011).
METRICS_HOST = env.text("METRICS_HOST", "127.0.0.1")
METRICS_PORT = env.number("METRICS_PORT", 0, least=0, most=65_535)
# The id by which Azure's clients name this portal as their tenant. Empty: one that follows from SECRET_KEY.
TENANT_ID = env.uuid("TENANT_ID")
# By how much programs may ask more often than Azure lets them.
ARM_LIMIT_FACTOR = env.number("ARM_LIMIT_FACTOR", 1, least=1, most=10_000)
# How large an inventory file may be: 1,000,000 machines as az prints them, with their instance views.
MAX_IMPORT_BYTES = env.number("MAX_IMPORT_MB", 4_096, least=1, most=102_400) * 1024**2
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1_100  # a selection of 1,000 machines, and the fields beside it
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024**2  # of a form without its files

# --- logs: events with fields ------------------------------------------------------------------------------------
_processors: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
structlog.configure(
    processors=[*_processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "fields": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
            if env.choice("LOG_FORMAT", "logfmt", ("logfmt", "json")) == "logfmt"
            else structlog.processors.JSONRenderer(),
            "foreign_pre_chain": _processors,
        }
    },
    "filters": {"refused": {"()": "django.utils.log.CallbackFilter", "callback": without_traceback}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "fields", "filters": ["refused"]}},
    "root": {
        "handlers": ["console"],
        "level": env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
    },
    # What happens every two seconds or at every request says nothing unless it fails.
    "loggers": {
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "waitress.queue": {"level": "ERROR"},
        "django_structlog": {"level": "WARNING"},
    },
}
