"""Settings of the Django project that runs the worker of Django Dispatch."""

import os

SECRET_KEY = "a benchmark keeps no secret"
USE_TZ = True
INSTALLED_APPS = ["django_broadcaster"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["BENCH_PGHOST"],
        "PORT": os.environ["BENCH_PGPORT"],
        "NAME": "postgres",
    }
}
OUTBOX_PUBLISHERS = {
    "default": {
        "BACKEND": "django_broadcaster.backends.RedisStreamBackend",
        "OPTIONS": {
            "host": "127.0.0.1",
            "port": int(os.environ["BENCH_REDIS_PORT"]),
            "stream_name": os.environ["BENCH_STREAM"],
            "max_len": None,
        },
    }
}
