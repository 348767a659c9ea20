# As images write it that are used behind a proxy and alone.
import os

if os.environ.get("SOCKET"):
    bind = f"unix:{os.environ['SOCKET']}"
    umask = 0o007
else:
    bind = "127.0.0.1:" + os.environ.get("TEST_PORT", "8000")

if os.environ.get("ENVIRONMENT") == "development":
    reload = True
    loglevel = "debug"
else:
    preload_app = True
