"""Customisation of Python runs where the application runs: `.pth` files, `sitecustomize`, `usercustomize`, their threads."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import mcsup
from harness import HELLO, MCSUP, TOP, Load, Server, clean_environment, free_port, get, run, wait_for

BINARY = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "debug" / "mcsup"
PACKAGES = Path(mcsup.__file__).parents[1]
UPGRADED = "Upgraded: a new image supervises"
REFUSED = "Upgrade failed, this image goes on: (.*)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads and files of other processes are read in /proc")

# What an agent does: it starts a thread, maps a file, changes the environment, and is there again after a fork.
AGENT = """
import mmap, os, sys, threading, time

def start():
    threading.Thread(target=time.sleep, args=(1000,), daemon=True, name="agent").start()

SEEN = {"main": sorted(vars(sys.modules["__main__"])), "pid": os.getpid(), "argv": sys.argv, "prefix": sys.prefix, "variable": os.environ.pop("AGENT", None)}
with open(os.environ["AGENT_FILE"], "rb") as file:
    MAPPED = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
start()
os.register_at_fork(after_in_child=start)
"""

APP = """
import json, os, subprocess, sys, threading

def state():
    import site
    main = sys.modules["__main__"]
    return {
        "pid": os.getpid(),
        "names": sorted(vars(main)),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "agent": getattr(sys.modules.get("sitecustomize") or sys.modules.get("agent"), "SEEN", None),
        "seen": {
            "flags": str(sys.flags), "options": subprocess._args_from_interpreter_flags(), "argv": sys.argv,
            "orig_argv": sys.orig_argv, "executable": sys.executable, "prefix": [sys.prefix, sys.exec_prefix],
            "path": sys.path, "warnings": sys.warnoptions, "x": {k: str(v) for k, v in sys._xoptions.items()},
            "main": [main.__name__, getattr(main, "__file__", None), main.__spec__ and main.__spec__.name],
            "around": [main.__package__, type(main.__loader__).__name__, getattr(main.__loader__, "path", None), getattr(main.__loader__, "name", None)], "user": site.ENABLE_USER_SITE,
            "prefixes": site.PREFIXES, "exit": str(exit), "origin": os.environ.get("MCSUP_ORIGIN"),
        },
    }

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(state()).encode()]
"""


def ask(server):
    return json.loads(server.get()[1])


def threads_of(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def has_mapped(pid, path):
    return str(path) in Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture
def agent_file(directory):
    path = directory / "the-agent's-file"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def environment(directory, agent_file):
    """That of a server whose Python has an agent for its `sitecustomize`."""
    folder = directory / "custom"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(AGENT)
    return clean_environment(PYTHONPATH=str(folder), AGENT_FILE=str(agent_file), AGENT="is on")


@pytest.fixture
def venv(directory):
    """A virtual environment with mcsup in it, whose `.pth` files a test writes."""
    path = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(path)}))
    shutil.copytree(PACKAGES / "mcsup", packages / "mcsup")
    script = path / "bin" / "mcsup"
    script.write_text(f"#!{path}/bin/python\nimport sys\nfrom mcsup.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return path, packages


def assert_only_workers_have_it(server, agent_file, count=1):
    workers = server.worker_pids()
    assert len(workers) == count
    assert threads_of(server.pid) == 1
    assert not has_mapped(server.pid, agent_file)
    for pid in workers:
        assert has_mapped(pid, agent_file)
    answer = ask(server)
    assert answer["agent"]["pid"] == answer["pid"] and answer["pid"] in workers
    assert "agent" in answer["threads"]
    # The environment is that of the start for every worker.
    assert answer["agent"]["variable"] == "is on"


def test_an_agent_lives_in_each_worker_and_never_in_the_supervisor(serve, environment, agent_file):
    server = serve(APP, env=environment, workers=2)
    assert_only_workers_have_it(server, agent_file, 2)
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_ready(3)
    assert_only_workers_have_it(server, agent_file, 2)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=20)
    wait_for(lambda: len(server.worker_pids()) == 2, "the old workers to be gone")
    assert_only_workers_have_it(server, agent_file, 2)
    workers = server.worker_pids()
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert server.worker_pids() == workers
    os.kill(workers[0], signal.SIGKILL)
    server.wait_ready(6)
    assert_only_workers_have_it(server, agent_file, 2)
    assert server.stop() == 0
    server.assert_nothing_left()


@pytest.mark.parametrize("upgrades", [0, 1])
def test_a_daemon_with_an_agent_starts(directory, environment, agent_file, upgrades):
    (directory / "app.py").write_text(APP)
    port = free_port()
    arguments = ("-D", "-p", "app.pid", "--error-logfile", "error.log", "-b", f"127.0.0.1:{port}", "app:app")
    assert run(*arguments, cwd=directory, env=environment, timeout=20).returncode == 0
    pid = int((directory / "app.pid").read_text())
    try:
        for _ in range(upgrades):
            result = run("upgrade", "-p", "app.pid", cwd=directory, env=environment, timeout=20)
            assert (result.returncode, result.stderr) == (0, "")
        assert threads_of(pid) == 1 and not has_mapped(pid, agent_file)
        assert "agent" in json.loads(get(port)[1])["threads"]
    finally:
        assert run("stop", "-p", "app.pid", cwd=directory, env=environment, timeout=20).returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True, name='agent').start()",
        "import agent",
    ],
)
def test_a_pth_file_runs_in_the_workers(serve, venv, agent_file, line):
    path, packages = venv
    (packages / "agent.py").write_text(AGENT)
    (packages / "agent.pth").write_text(line + "\n")
    server = serve(APP, command=[path / "bin" / "mcsup"], env=clean_environment(AGENT_FILE=str(agent_file)))
    assert threads_of(server.pid) == 1
    assert not has_mapped(server.pid, agent_file)
    assert "agent" in ask(server)["threads"]
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert threads_of(server.pid) == 1


NIX = "import sys;import site;import functools;sys.argv[0] = '{script}';functools.reduce(lambda k, p: site.addsitedir(p, k), ['{folder}'], site._init_pathinfo());"


@pytest.mark.parametrize("way", ["the module", "its file", "a link", "a copy", "a wrapped script"])
def test_the_command_is_known_under_any_name(serve, venv, directory, environment, agent_file, way):
    path, packages = venv
    script = path / "bin" / "mcsup"
    command = [script]
    if way == "the module":
        command = [path / "bin" / "python", "-m", "mcsup.__main__"]
    elif way == "its file":
        command = [path / "bin" / "python", packages / "mcsup" / "__main__.py"]
    elif way == "a link":
        command = [directory / "serve"]
        command[0].symlink_to(script)
    elif way == "a copy":
        command = [script.rename(script.with_name("serve"))]
    else:
        (directory / "more").mkdir()
        (directory / "more" / "wrapped.py").write_text("VALUE = 7\n")
        command = [script.rename(script.with_name(".mcsup-wrapped"))]
        first, rest = command[0].read_text().split("\n", 1)
        command[0].write_text("\n".join([first, NIX.format(script=script, folder=directory / "more"), rest]))
    server = serve(("import wrapped\n" if way == "a wrapped script" else "") + APP, command=command, env=environment)
    assert_only_workers_have_it(server, agent_file)
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert_only_workers_have_it(server, agent_file)


def test_a_program_that_calls_the_command_beside_threads_gets_advice(directory, environment):
    code = "import sys; from mcsup.__main__ import main; sys.exit(main())"
    (directory / "app.py").write_text(APP)
    command = [sys.executable, "-c", code, "-b", f"127.0.0.1:{free_port()}", "app:app"]
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert "fork needs one" in result.stderr
    assert "(sitecustomize loaded before mcsup): start it as `mcsup` or `python -m mcsup`" in result.stderr


def test_usercustomize_runs_in_the_workers(serve, directory, agent_file):
    base = directory / "user"
    packages = Path(sysconfig.get_path("purelib", "posix_user", vars={"userbase": str(base)}))
    packages.mkdir(parents=True)
    (packages / "usercustomize.py").write_text(AGENT)
    shutil.copytree(PACKAGES / "mcsup", packages / "mcsup")
    environment = clean_environment(AGENT_FILE=str(agent_file), PYTHONUSERBASE=str(base))
    # A virtual environment has no user's packages.
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    server = serve(APP, command=[python, "-m", "mcsup"], env=environment)
    assert threads_of(server.pid) == 1
    answer = ask(server)
    assert "agent" in answer["threads"]
    assert answer["seen"]["user"] is True
    assert str(packages) in answer["seen"]["path"]


STARTS = {
    "script": (["bin/mcsup"], {}),
    "module": (["bin/python", "-m", "mcsup"], {}),
    "options": (["bin/python", "-B", "-X", "utf8", "-Wignore::FutureWarning", "-Obm", "mcsup"], {}),
    "no user site": (["bin/python", "-s", "bin/mcsup"], {}),
    "isolated": (["bin/python", "-I", "-m", "mcsup"], {}),
    "without environment": (["bin/python", "-E", "bin/mcsup"], {}),
    "by environment": (["bin/mcsup"], {"PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "2"}),
    "through a link": (["bin/python", "bin/mcsup"], {}),
    "import times": (["bin/python", "-X", "importtime", "bin/mcsup"], {}),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_worker_sees_what_it_would_see_without_an_agent(serve, venv, agent_file, start):
    words, more = STARTS[start]
    path, packages = venv
    (packages / "agent.py").write_text(AGENT)
    (packages / "agent.pth").write_text("import os; os.environ.get('AGENT') and __import__('agent')\n")
    if start == "through a link":
        link = path.with_name("link")
        link.symlink_to(path)
        path = link
    command = [path / word if word.startswith("bin/") else word for word in words]
    port = free_port()

    def seen(is_customised):
        environment = clean_environment(AGENT_FILE=str(agent_file), AGENT="is on" if is_customised else "", **more)
        server = serve(APP, "--pythonpath", path, command=command, env=environment, port=port)
        answer = ask(server)
        assert ("agent" in answer["threads"]) == is_customised
        assert ("-S" in command_of(server.pid)) == is_customised
        assert server.stop() == 0
        return answer

    plain, customised = seen(False), seen(True)
    assert customised["seen"] == plain["seen"]
    assert plain["seen"]["prefix"] == [str(path)] * 2
    assert customised["agent"]["prefix"] == str(path)
    is_module = words[-1] == "mcsup"
    name = packages / "mcsup" / "__main__.py" if is_module else path / "bin" / "mcsup"
    assert plain["seen"]["argv"][0] == str(name)
    # The insides of the interpreter's own start are not there, neither while site runs nor later.
    code = "import sys; sys.stdout.write(' '.join(sorted(vars(sys.modules['__main__']))))"
    fresh = subprocess.run([path / "bin" / "python", "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(customised["agent"]["main"]) == set(fresh.split()) - {"sys"}
    assert set(customised["names"]) <= set(plain["names"])
    assert customised["agent"]["argv"][1:] == customised["seen"]["argv"][1:]


NO_SITE = """
import subprocess, sys
def app(environ, start_response):
    start_response("200 OK", [])
    return [repr(("site" in sys.modules, subprocess._args_from_interpreter_flags())).encode()]
"""


def test_an_interpreter_that_is_to_have_no_site_has_none(serve, environment):
    environment["PYTHONPATH"] += f":{PACKAGES}"
    server = serve(NO_SITE, command=[sys.executable, "-S", "-m", "mcsup"], env=environment)
    assert server.get()[1] == b"(False, ['-B', '-S'])"


def test_tools_of_the_environment_cost_no_second_start(serve, venv, directory):
    path, packages = venv
    for name in ["_virtualenv", "_distutils_hack"]:
        (packages / f"{name}.py").write_text("import os, sys\n")
        (packages / f"{name}.pth").write_text(f"import {name}\n")
    (packages / "editable.pth").write_text(f"{directory}/elsewhere\n")
    server = serve(APP, command=[path / "bin" / "mcsup"])
    assert "-S" not in command_of(server.pid)
    assert f"{directory}/elsewhere" not in ask(server)["seen"]["path"], "there is no such folder"


def comm_of(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("is_customised", [False, True])
def test_the_process_has_the_name_of_the_command(serve, venv, directory, agent_file, is_customised):
    path, packages = venv
    if is_customised:
        (packages / "agent.py").write_text(AGENT)
        (packages / "agent.pth").write_text("import agent\n")
    server = serve(APP, command=[path / "bin" / "mcsup"], env=clean_environment(AGENT_FILE=str(agent_file)))
    assert ("-S" in command_of(server.pid)) == is_customised
    assert comm_of(server.pid) == "mcsup"
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert comm_of(server.pid) == "mcsup"


# As setuptools writes one, in short.
FINDER = """
import sys
from importlib.util import spec_from_file_location
MAPPING = {"changing": %r}

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return spec_from_file_location(name, MAPPING[name]) if name in MAPPING else None

def install():
    sys.meta_path.append(Finder)
"""


def test_an_editable_install_costs_no_second_start(serve, venv, directory):
    path, packages = venv
    (directory / "elsewhere").mkdir()
    (directory / "elsewhere" / "changing.py").write_text("VALUE = 1\n")
    finder = "__editable___changing_1_0_finder"
    (packages / f"{finder}.py").write_text(FINDER % str(directory / "elsewhere" / "changing.py"))
    (packages / f"{finder}.pth").write_text(f"import {finder}; {finder}.install()\n")
    (packages / "_editable_impl_other.py").write_text("")
    (packages / "_other.pth").write_text("import _editable_impl_other\n")
    code = "import changing\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
    server = serve(code + "    return [str(changing.VALUE).encode()]\n", command=[path / "bin" / "mcsup"])
    assert "-S" not in command_of(server.pid)
    assert server.get()[1] == b"1"
    (directory / "elsewhere" / "changing.py").write_text("VALUE = 22\n")
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=20)
    wait_for(lambda: server.get()[1] == b"22", "the new version")


def test_other_commands_are_not_executed_again(directory, environment):
    (directory / "custom" / "sitecustomize.py").write_text("print('customised')")
    result = run("status", "-p", "no.pid", cwd=directory, env=environment)
    assert result.stdout.count("customised") == 1


def test_what_a_program_that_calls_the_command_has_done_stays(serve, directory):
    (directory / "prepared.py").write_text("VALUE = 7\n")
    script = directory / "serve.py"
    script.write_text("import sys, prepared\nfrom mcsup.__main__ import main\nprepared.VALUE = 8\nsys.exit(main())\n")
    code = "import prepared\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
    server = serve(code + "    return [str(prepared.VALUE).encode()]\n", command=[sys.executable, script])
    assert server.get()[1] == b"8"


def test_an_error_in_sitecustomize_is_reported_and_the_worker_serves(serve, directory, environment):
    (directory / "custom" / "sitecustomize.py").write_text("raise RuntimeError('half an agent')\n")
    server = serve(APP, env=environment)
    assert server.get()[0] == 200
    # Python does not count such a module as loaded, so this is no customised start.
    assert "RuntimeError: half an agent" in server.log
    (directory / "custom" / "sitecustomize.py").write_text(AGENT + "\nraise RuntimeError('a whole one')\n")
    server = serve(APP, env=environment)
    server.wait_log("RuntimeError: a whole one", 2)
    assert threads_of(server.pid) == 1 and "agent" in ask(server)["threads"]


def test_one_that_would_end_python_fails_the_boot_and_the_pool_serves_on(serve, directory, environment):
    server = serve(APP, env=environment)
    (directory / "custom" / "sitecustomize.py").write_text("raise SystemExit('no licence')\n")
    server.signal(signal.SIGHUP)
    log = server.wait_log("(?s)Python's site failed: SystemExit: no licence.*sitecustomize.py")
    assert log and "agent" in ask(server)["threads"]


def test_a_mold_has_the_threads_of_an_agent_and_blames_no_application(serve, environment, agent_file):
    server = serve(APP, "--preload", env=environment, workers=2)
    server.wait_log(r"threads run in the mold \(agent\)")
    assert "the application started" not in server.log
    assert threads_of(server.pid) == 1 and not has_mapped(server.pid, agent_file)
    # Its own hook has started it again, as after any fork.
    assert "agent" in ask(server)["threads"]
    os.kill(ask(server)["pid"], signal.SIGKILL)
    server.wait_ready(3)
    assert "agent" in ask(server)["threads"]


def test_a_mold_refuses_them_where_it_is_to(serve, environment):
    server = serve(APP, "--preload", "--preload-threads", "refuse", env=environment, wait=False)
    assert server.wait() == 4
    assert "threads run in the mold (agent)" in server.log


def test_a_new_image_that_fails_gives_the_pool_back_to_one_without_site(serve, venv, directory, environment, agent_file):
    path, packages = venv
    server = serve(APP, command=[path / "bin" / "mcsup"], env=environment)
    workers = server.worker_pids()
    supervisor = packages / "mcsup" / "supervisor.py"
    breakage = f"""
import os, shutil, sys
if os.environ.get("MCSUP_RESUME", "").startswith("resume:"):
    shutil.rmtree({str(packages / "mcsup")!r})
    sys.exit("half installed")
"""
    # The second interpreter ends before mcsup runs in it: that is refused by the dry run,
    supervisor.write_text(breakage.replace(".startswith", ".isascii() or ''.startswith"))
    server.signal(signal.SIGUSR2)
    assert "half installed" in server.wait_log(REFUSED, patience=20)[-1]
    shutil.copytree(PACKAGES / "mcsup", packages / "mcsup")
    # and one that cannot take over gives back.
    argument = 'import os, sys\nos.environ.get("MCSUP_RESUME", "").startswith("resume:") and sys.argv.insert(1, "--x")\n'
    supervisor.write_text(argument + supervisor.read_text())
    server.signal(signal.SIGUSR2)
    assert "unknown option '--x'" in server.wait_log(REFUSED, 2, patience=20)[-1]
    assert server.worker_pids() == workers
    assert threads_of(server.pid) == 1
    os.kill(workers[0], signal.SIGKILL)
    server.wait_ready(2)
    assert_only_workers_have_it(server, agent_file)
    assert ask(server)["seen"]["orig_argv"][:2] == [str(path / "bin" / "python"), str(path / "bin" / "mcsup")]
    shutil.copy(PACKAGES / "mcsup" / "supervisor.py", supervisor)
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert threads_of(server.pid) == 1


def test_an_agent_that_comes_with_an_upgrade_is_the_next_workers(serve, directory, environment, agent_file):
    custom = directory / "custom" / "sitecustomize.py"
    custom.unlink()
    server = serve(APP, env=environment)
    assert "agent" not in ask(server)["threads"]
    custom.write_text(AGENT)
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=20)
    wait_for(lambda: len(server.worker_pids()) == 1, "the old worker to be gone")
    assert_only_workers_have_it(server, agent_file)


def test_no_client_notices_upgrades_of_a_pool_with_an_agent(serve, environment, agent_file):
    server = serve(APP, env=environment, workers=2)
    with Load(server.port) as load:
        for count in range(1, 4):
            server.signal(signal.SIGUSR2)
            server.wait_log(UPGRADED, count, patience=20)
            load.wait_more(2)
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done", patience=20)
        load.wait_more(2)
    assert load.failures == []
    wait_for(lambda: len(server.worker_pids()) == 2, "the old workers to be gone")
    assert_only_workers_have_it(server, agent_file, 2)


SPAWNS = """
import multiprocessing, sys

def tell(queue):
    queue.put(("sitecustomize" in sys.modules, sys.flags.no_site, sys.prefix))

def app(environ, start_response):
    queue = (context := multiprocessing.get_context(environ["PATH_INFO"][1:])).SimpleQueue()
    child = context.Process(target=tell, args=(queue,))
    child.start()
    child.join()
    start_response("200 OK", [])
    return [repr((child.exitcode, queue.get() if child.exitcode == 0 else None)).encode()]
"""


@pytest.mark.parametrize("command", [[], [sys.executable, "-m"]])
def test_processes_that_the_application_starts_run_the_customisation_too(serve, environment, command):
    server = serve(SPAWNS, command=[*command, "mcsup"] if command else [MCSUP], env=environment)
    for method in ["spawn", "forkserver"]:
        assert server.get(f"/{method}", timeout=20)[1].decode() == repr((0, (True, 0, sys.prefix)))


# The module is found by a `.pth` file, and imports something of the standard library.
LATE = "import sys\nBEFORE = 'decimal' in sys.modules\nimport decimal\n"
ANSWER = """
import late
def app(environ, start_response):
    start_response("200 OK", [])
    return [str(late.BEFORE).encode()]
"""


@pytest.mark.parametrize(("agent", "is_shared"), [("agent", b"True"), ("gevent", b"False")])
def test_the_standard_library_is_shared_unless_the_agent_wants_to_patch_it(serve, venv, directory, agent, is_shared):
    path, packages = venv
    (directory / "elsewhere").mkdir()
    (directory / "elsewhere" / "late.py").write_text(LATE)
    (packages / f"{agent}.py").write_text("")
    (packages / "it.pth").write_text(f"{directory}/elsewhere\nimport {agent}\n")
    server = serve(ANSWER, command=[path / "bin" / "mcsup"])
    assert "-S" in command_of(server.pid)
    assert server.get()[1] == is_shared


@pytest.mark.skipif(not BINARY.exists(), reason="`make test` builds it; this run is of something else")
def test_the_binary_does_the_same(serve, environment, agent_file):
    environment = {**environment, "VIRTUAL_ENV": sys.prefix}
    server = serve(APP, command=[BINARY], env=environment, workers=2)
    assert_only_workers_have_it(server, agent_file, 2)
    seen = ask(server)["seen"]
    assert seen["options"] == ["-B"] and "no_site=0" in seen["flags"]
    assert seen["prefix"] == [sys.prefix] * 2


def test_a_check_runs_the_customisation_as_well(directory, environment):
    (directory / "app.py").write_text("import sitecustomize\nassert sitecustomize.SEEN\napp = print\n")
    result = run("check", "app:app", cwd=directory, env=environment)
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n"), result.stderr


def test_names_that_are_no_text_and_entries_that_are_no_strings_hinder_no_start_and_no_upgrade(directory):
    strange = Path(directory) / os.fsdecode(b"strange-\xff")
    strange.mkdir()
    (strange / "app.py").write_text(HELLO)
    (strange / "sitecustomize.py").write_text("import pathlib, sys\nsys.path.append(pathlib.Path('/nowhere'))\n")
    environment = clean_environment(PYTHONPATH=str(strange))
    server = Server(strange, "--pid", "app.pid", "-b", "unix:app.sock", env=environment)
    try:
        assert server.get()[0] == 200
        server.process.send_signal(signal.SIGUSR2)
        server.wait_log(UPGRADED)
        assert server.get()[0] == 200
        assert server.stop() == 0
        assert not (strange / "app.sock").exists() and not (strange / "app.pid").exists()
    finally:
        server.clean_up()
