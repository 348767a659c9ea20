"""What an application imports of the standard library is loaded once, before its workers are forked; nothing else is."""

import signal

from harness import wait_for

APP = """
import sys
BEFORE = "decimal" in sys.modules
import helper
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(BEFORE).encode()]
"""
HELPER = """
import decimal
import os
from pathlib import Path
with Path("imported-by").open("a") as file:
    file.write(f"{os.getpid()}\\n")
"""


def test_workers_find_what_the_application_will_import_and_import_the_rest_themselves(serve, directory):
    (directory / "helper.py").write_text(HELPER)
    server = serve(APP, workers=2)
    assert server.get()[1] == b"True"
    imported_by = {int(pid) for pid in (directory / "imported-by").read_text().split()}
    assert imported_by == set(server.worker_pids()), "the supervisor runs nothing of the application"


def test_a_file_of_the_application_with_a_name_of_the_standard_library_is_what_it_imports(serve, directory):
    (directory / "helper.py").write_text(HELPER)
    (directory / "decimal.py").write_text("MINE = True")
    server = serve(APP.replace("str(BEFORE)", "str((BEFORE, helper.decimal.MINE))"))
    assert server.get()[1] == b"(False, True)"


def test_such_a_file_is_found_when_it_comes_with_a_reload(serve, directory):
    (directory / "helper.py").write_text(HELPER)
    code = APP.replace("str(BEFORE)", "str(hasattr(helper.decimal, 'MINE'))")
    server = serve(code)
    assert server.get()[1] == b"False"
    (directory / "decimal.py").write_text("MINE = True")
    server.signal(signal.SIGHUP)
    wait_for(lambda: server.get()[1] == b"True", "the new version")
    assert server.stop() == 0
