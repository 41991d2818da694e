"""The portal's settings, with two addresses more: the ceilings that pages are compared with."""

from hotpatch_portal.settings import *  # noqa: F403

ROOT_URLCONF = "bench.urls"
MIDDLEWARE = ["bench.urls.count_queries", *MIDDLEWARE]  # noqa: F405
LOGGING["loggers"] = {**LOGGING.get("loggers", {}), "django_structlog": {"level": "WARNING"}}  # noqa: F405
CELERY_IMPORTS = (*CELERY_IMPORTS, "bench.empty")  # noqa: F405
if env.text("BENCH_LEDGER", ""):  # noqa: F405
    # Machines that write down what they received, and connectors that misbehave (bench/faults).
    from dataclasses import replace

    from connectors.registry import KINDS, SIMULATOR

    KINDS[SIMULATOR] = replace(KINDS[SIMULATOR], factory="bench.connector.make")
    # As short as the time limit of a task allows, so that a campaign sees leases end.
    OPERATION_LEASE_SECONDS = CELERY_TASK_TIME_LIMIT + 5  # noqa: F405
if env.text("BENCH_STARTS", ""):  # noqa: F405
    # Machines that need their time to be started, and write down what they received (bench/starts). The lease stays as it is.
    from bench.sluggish import KIND, SluggishConfiguration
    from connectors.protocol import Traits
    from connectors.registry import KINDS, Kind

    KINDS[KIND] = Kind(KIND, "Sluggish machines", SluggishConfiguration, "bench.sluggish.make", frozenset(), Traits())
if env.text("BENCH_CLOCK", ""):  # noqa: F405
    from bench.clock import follow

    follow(Path(env.text("BENCH_CLOCK", "")))  # noqa: F405
