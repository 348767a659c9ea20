"""`mcsup service`: what it prints is what systemd, launchd, Docker and Kubernetes read; what it installs, it removes."""

import json
import os
import plistlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from harness import HELLO, MCSUP, TOP, clean_environment, free_port, get, run, wait_for

USAGE, REFUSED, BOOT = 2, 1, 3

# It notes its arguments, and fails where the file of that name says so.
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
case "$*" in --version) echo "systemd 257 (257.1)";; esac
if grep -qxF -- "$*" "$RECORD.fails" 2>/dev/null; then echo "no such bus" >&2; exit 1; fi
"""


def unit_of(text):
    """The values of a unit by section and key, the last ones first."""
    section, values = None, {}
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values[section, key] = value
    return values


def printed(directory, *arguments, **variables):
    """What `mcsup service` prints."""
    result = run("service", *arguments, cwd=directory, env=clean_environment(**variables))
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("options", [[], ["--per-user"], ["--socket"]])
def test_systemd_finds_no_fault_in_a_unit_even_with_strange_words(directory, options):
    text = printed(
        directory, "systemd", *options, "-e", "A=50% of $HOME; \"it's\" \\", "-w", "3", "-b", "127.0.0.1:8123", "app:app"
    )
    suffix = "socket" if "--socket" in options else "service"
    (directory / f"app.{suffix}").write_text(text)
    if suffix == "socket":
        (directory / "app.service").write_text(printed(directory, "systemd", "app:app"))
    command = ["systemd-analyze", "verify", "--man=no", directory / f"app.{suffix}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    about_us = [line for line in result.stderr.splitlines() if "app." in line]
    assert (result.returncode, about_us) == (0, [])


def test_the_command_line_of_a_unit_is_the_one_that_was_given(directory):
    (directory / "app.py").write_text(HELLO)
    port = free_port()
    text = printed(directory, "systemd", "-b", f"127.0.0.1:{port}", "-e", "A=a b", "app:app")
    unit = unit_of(text)
    assert unit["Service", "WorkingDirectory"] == str(directory)
    line = unit["Service", "ExecStart"].replace("%t", str(directory))
    words = shlex.split(line)
    assert words[0] == str(MCSUP)
    (directory / unit["Service", "RuntimeDirectory"]).mkdir()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd="/", env=clean_environment(), stderr=log)
    try:
        # Started elsewhere, it does not find the application: the directory of the unit counts.
        assert process.wait(10) == 4
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(words, cwd=unit["Service", "WorkingDirectory"], env=clean_environment(), stderr=log)
        wait_for(lambda: b"is ready" in (directory / "log").read_bytes(), "a worker", 10)
        assert get(port)[0] == 200
        status = run("status", "-s", directory / "app" / "mcsup.ctl", cwd="/")
        assert status.returncode == 0, status.stderr
    finally:
        process.terminate()
        assert process.wait(10) in (0, 4)


def test_an_old_systemd_gets_a_reload_that_waits_and_a_new_one_reloads_by_notification(directory):
    new = unit_of(printed(directory, "systemd", "--systemd", "253", "app:app"))
    assert new["Service", "Type"] == "notify-reload"
    assert ("Service", "ExecReload") not in new
    old = unit_of(printed(directory, "systemd", "--systemd", "252", "-p", "run/app.pid", "app:app"))
    assert old["Service", "Type"] == "notify"
    assert old["Service", "ExecReload"] == f"{MCSUP} reload -s run/app.ctl"


def test_timeouts_of_the_managers_follow_the_settings_of_the_file_too(directory):
    (directory / "mcsup.toml").write_text('app = "app:app"\ngraceful_timeout = 100\ndrain_delay = 7\n')
    unit = unit_of(printed(directory, "systemd", "-c", "mcsup.toml"))
    assert unit["Service", "TimeoutStopSec"] == "117"
    agent = plistlib.loads(printed(directory, "launchd", "-c", "mcsup.toml").encode())
    assert agent["ExitTimeOut"] == 117


def test_hooks_that_a_server_waits_for_lengthen_the_times_of_a_unit(directory):
    conf = directory / "gunicorn.conf.py"
    seconds = {}
    for text in ("", "def on_exit(server): pass\n", "def on_starting(server): pass\n"):
        conf.write_text(text)
        unit = unit_of(printed(directory, "systemd", "app:app"))
        seconds[text[4:14]] = [int(unit["Service", name]) for name in ("TimeoutStopSec", "TimeoutStartSec")]
    stop, start = seconds[""]
    assert seconds == {"": [stop, start], "on_exit(se": [stop + 31, start], "on_startin": [stop, start + 31]}


def test_an_agent_of_launchd_is_a_property_list_with_the_words(directory):
    text = printed(directory, "launchd", "-e", "A=<&\">", "app:app", HOME="/Users/me")
    agent = plistlib.loads(text.encode())
    assert agent["Label"] == "app"
    assert agent["ProgramArguments"][0] == str(MCSUP)
    assert agent["ProgramArguments"][-3:] == ["-e", "A=<&\">", "app:app"]
    assert agent["WorkingDirectory"] == str(directory)
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["StandardErrorPath"] == "/Users/me/Library/Logs/app.log"


def test_manifests_for_kubernetes_belong_together_and_lose_nothing(directory):
    text = printed(directory, "kubernetes", "--image", "shop:2", "-w", "2", "--drain-delay", "8", "shop.web:app")
    documents = list(yaml.safe_load_all(text))
    kinds = [document["kind"] for document in documents]
    assert kinds == ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
    deployment, service, budget, scaler = documents
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] == "shop-web"
    container = pod["spec"]["containers"][0]
    assert container["image"] == "shop:2"
    assert container["command"][-5:] == ["-w", "2", "--drain-delay", "8", "shop.web:app"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert "--health-path=/healthz" in container["command"]
    hook = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= hook + 8 + 30
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_dockerfile_starts_mcsup_itself_on_all_addresses(directory):
    text = printed(directory, "docker", "-w", "2", "app:app")
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1])
    assert entry[0] == "mcsup"
    assert "--bind=0.0.0.0:8000" in entry
    assert entry[-3:] == ["-w", "2", "app:app"]


def test_the_command_of_a_container_serves_with_a_health_check_and_a_control_socket(directory):
    (directory / "app.py").write_text(HELLO)
    port = free_port()
    text = printed(directory, "kubernetes", "-b", f"0.0.0.0:{port}", "app:app")
    container = next(yaml.safe_load_all(text))["spec"]["template"]["spec"]["containers"][0]
    # A volume of Kubernetes: any user may write to it.
    volume = directory / "run"
    volume.mkdir()
    volume.chmod(0o777)
    words = [word.replace("/run/mcsup", str(volume)) for word in container["command"]]
    variables = {each["name"]: each["value"].replace("/run/mcsup", str(volume)) for each in container["env"]}
    environment = clean_environment(**variables)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([MCSUP, *words[1:]], cwd=directory, env=environment, stderr=log)
    try:
        wait_for(lambda: b"is ready" in (directory / "log").read_bytes() or process.poll(), "a worker", 10)
        assert get(port, container["readinessProbe"]["httpGet"]["path"])[0] == 200
        assert run("status", cwd=directory, env=environment).returncode == 0
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: get(port, "/healthz")[0] == 503, "the health check to say that it drains")
        # It serves on for the drain delay.
        assert get(port)[0] == 200
        process.send_signal(signal.SIGTERM)
    finally:
        process.terminate()
        assert process.wait(15) == 0, (directory / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["systemd", "-D", "app:app"], "leave --daemon out"),
        (["systemd", "-w", "2"], "no application"),
        (["systemd", "--no-such", "app:app"], "--no-such"),
        (["systemd", "check", "app:app"], "a service runs a server"),
        (["systemd", "--service-name", "a/b", "app:app"], "no name of a service"),
        (["systemd", "--socket", "-b", "fd://3", "app:app"], "no address to listen on"),
        (["docker", "-b", "127.0.0.1:8000", "app:app"], "-b 0.0.0.0:8000"),
        (["docker", "-p", "run/app.pid", "app:app"], "run/app.pid: user 10001 of the container"),
        (["kubernetes", "-b", "unix:/run/a", "app:app"], "needs a TCP port"),
        (["kubernetes", "-b", ":8000", "-u", "www", "app:app"], "leave --user and --group out"),
        (["kubernetes", "-b", ":8000", "--error-logfile", "app.log", "app:app"], "app.log: user 10001"),
        (["systemd", "--socket", "exec", "-b", "udp://localhost:53", "x"], "not on names: localhost"),
        (["uninstall", "../x"], "no name of a service"),
        (["docker", "exec", "--", "node", "server.js"], "the image of a program"),
        (["systemd", "exec", "--keep-alive", "2", "--", "node", "server.js"], "--keep-alive"),
        ([], "service"),
    ],
)
def test_what_makes_no_service_is_refused_with_its_reason(directory, arguments, words):
    result = run("service", *arguments, cwd=directory)
    assert (result.returncode, result.stdout) == (USAGE, "")
    assert words in result.stderr


def test_a_socket_unit_has_sockets_of_each_kind(directory):
    binds = ["127.0.0.1:8123", "unix:a.sock", "unix:@b", "udp://127.0.0.1:53"]
    text = printed(directory, "systemd", "--socket", "exec", *(word for bind in binds for word in ("-b", bind)), "./a")
    lines = [line for line in text.splitlines() if line.startswith("Listen")]
    expected = ["Stream=127.0.0.1:8123", f"Stream={directory}/a.sock", "Stream=@b", "Datagram=127.0.0.1:53"]
    assert lines == [f"Listen{line}" for line in expected]
    assert "\nSocketMode=0660\n" in text


def test_a_unit_of_a_program_names_the_directories_in_which_it_is_found(directory):
    program = directory / "bin" / "server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = f"{program.parent}:/usr/bin:/bin"
    for words, expected in ((["server"], f"PATH={path}"), (["sh"], None), ([str(program)], None)):
        unit = unit_of(printed(directory, "systemd", "--systemd", "257", "exec", "--", *words, PATH=path))
        assert unit.get(("Service", "Environment")) == expected


def test_a_program_of_any_language_is_a_service_too(directory):
    words = ["exec", "-w", "2", "-b", "0.0.0.0:8123", "--", "/usr/bin/node", "server.js", "--port", "{port}"]
    unit = unit_of(printed(directory, "systemd", *words))
    rest = '-w 2 -b 0.0.0.0:8123 -- /usr/bin/node server.js --port "{port}"'
    assert unit["Service", "ExecStart"] == f"{MCSUP} exec --control-socket=%t/node/mcsup.ctl {rest}"
    deployment = next(yaml.safe_load_all(printed(directory, "kubernetes", "--image", "node:1", *words)))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:2] == ["mcsup", "exec"]
    assert container["command"][-9:] == words[1:]
    assert container["readinessProbe"]["tcpSocket"] == {"port": "http"}


def test_variables_that_a_service_does_not_inherit_are_named(directory):
    text = printed(directory, "systemd", "app:app", WEB_CONCURRENCY="7", MCSUP_CMD_ARGS="-t 5", PORT="")
    for name in ("WEB_CONCURRENCY", "MCSUP_CMD_ARGS"):
        assert f"# {name} is set where this was printed; the service does not have it." in text
    assert "PORT" not in text
    assert unit_of(text)["Service", "TimeoutStopSec"] == "40"


def test_the_module_and_the_binary_name_themselves(directory):
    command = [sys.executable, "-m", "mcsup", "service", "systemd", "app:app"]
    result = subprocess.run(
        command, cwd=directory, env=clean_environment(), capture_output=True, text=True, timeout=20, check=True
    )
    line = unit_of(result.stdout)["Service", "ExecStart"]
    assert line.startswith(f"{sys.executable} -m mcsup --control-socket=")


@pytest.fixture
def manager(directory):
    """Commands in place of systemctl, and a home: the environment of a user, and the record of the calls."""
    tools, record = directory / "tools", directory / "record"
    tools.mkdir()
    (tools / "systemctl").write_text(RECORDER)
    (tools / "systemctl").chmod(0o755)
    (directory / "home").mkdir()
    path = f"{tools}:{os.environ['PATH']}"
    environment = clean_environment(PATH=path, HOME=str(directory / "home"), RECORD=str(record))
    environment.pop("XDG_CONFIG_HOME", None)
    return environment, record


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is the manager there")
def test_a_service_is_installed_where_a_parent_ignores_the_ends_of_its_children(directory, manager):
    environment, _ = manager

    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    result = run("service", "install", "app:app", cwd=directory, env=environment, preexec_fn=ignore)
    assert result.returncode == 0, result.stderr
    assert (directory / "home/.config/systemd/user/app.service").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is the manager there")
def test_a_service_is_installed_started_replaced_and_removed(directory, manager):
    environment, record = manager
    unit = directory / "home/.config/systemd/user/app.service"
    for words in (["-w", "2"], ["-w", "3"]):
        result = run("service", "install", *words, "app:app", cwd=directory, env=environment)
        assert result.returncode == 0, result.stderr
        assert f"installed and started: {unit}\n" in result.stdout
        assert f" {' '.join(words)} app:app" in unit_of(unit.read_text())["Service", "ExecStart"]
    assert unit_of(unit.read_text())["Install", "WantedBy"] == "default.target"
    calls = [line for line in record.read_text().splitlines() if "--version" not in line]
    started = ["daemon-reload", "enable app.service", "restart app.service"]
    assert calls == [f"systemctl --user {call}" for call in started * 2]
    record.unlink()
    result = run("service", "uninstall", "app", cwd="/", env=environment)
    assert (result.returncode, result.stdout) == (0, f"stopped and removed: {unit}\n")
    assert not unit.exists()
    assert record.read_text().splitlines()[0] == "systemctl --user disable --now app.service"
    result = run("service", "uninstall", "app", cwd="/", env=environment)
    assert (result.returncode, result.stdout) == (0, f"not installed: app (there is no {unit})\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is the manager there")
def test_a_service_that_does_not_start_is_an_error_that_names_its_log(directory, manager):
    environment, record = manager
    record.with_suffix(".fails").write_text("--user restart app.service\n")
    result = run("service", "install", "app:app", cwd=directory, env=environment)
    assert (result.returncode, result.stdout) == (BOOT, "")
    assert "`systemctl --user restart app.service` failed: no such bus; see journalctl --user -u app" in result.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is the manager there")
def test_a_service_whose_manager_did_not_answer_can_be_removed(directory, manager):
    environment, record = manager
    calls = ["daemon-reload", "disable --now app.service", "is-active --quiet app.service"]
    record.with_suffix(".fails").write_text("".join(f"--user {call}\n" for call in calls))
    unit = directory / "home/.config/systemd/user/app.service"
    result = run("service", "install", "app:app", cwd=directory, env=environment)
    assert (result.returncode, result.stdout) == (BOOT, "")
    # The unit has not been started: its own log is empty.
    assert result.stderr.endswith("`systemctl --user daemon-reload` failed: no such bus; see journalctl --user\n")
    result = run("service", "uninstall", "app", cwd="/", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"removed: {unit}\n")
    assert not unit.exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is the manager there")
def test_a_service_that_runs_and_cannot_be_stopped_keeps_its_unit(directory, manager):
    environment, record = manager
    unit = directory / "home/.config/systemd/user/app.service"
    assert run("service", "install", "app:app", cwd=directory, env=environment).returncode == 0
    record.with_suffix(".fails").write_text("--user disable --now app.service\n")
    result = run("service", "uninstall", "app", cwd="/", env=environment)
    assert result.returncode == REFUSED
    assert unit.exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is the manager there")
def test_a_unit_of_another_author_stays_as_it_is(directory, manager):
    environment, record = manager
    unit = directory / "home/.config/systemd/user/app.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    for arguments in (["install", "app:app"], ["uninstall", "app"]):
        result = run("service", *arguments, cwd=directory, env=environment)
        assert result.returncode == REFUSED
        assert "is not of this command" in result.stderr
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert "restart" not in (record.read_text() if record.exists() else "")


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("Dockerfile", ["docker", "-w", "2", "app:app"]),
        ("kubernetes.yaml", ["kubernetes", "--image", "mcsup-example:1", "-w", "2", "app:app"]),
    ],
)
def test_the_files_of_the_example_are_those_that_are_printed(directory, file, arguments):
    example = TOP / "examples" / "container"
    assert printed(directory, *arguments) == (example / file).read_text()
    # The page has the same command.
    assert f"mcsup service {' '.join(arguments)} > {file}" in (example / "README.md").read_text()


# A user's manager of systemd that was booted for this: it needs a /run of its own.
BOOTED = """
mount -t tmpfs none /run && mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR" && chmod 700 "$XDG_RUNTIME_DIR" || exit 77
/lib/systemd/systemd --user >systemd.log 2>&1 &
systemd=$!
tries=0
until [ -S "$XDG_RUNTIME_DIR/systemd/private" ]; do
    kill -0 $systemd 2>/dev/null && [ $tries -lt 100 ] || exit 77
    tries=$((tries + 1)); sleep 0.1
done
sh -eu steps
result=$?
kill $systemd
wait $systemd
exit $result
"""

STEPS = """
$MCSUP service install -w 2 -b 127.0.0.1:$PORT_OF_TEST app:app
systemctl --user show -p ActiveState app | grep -qx ActiveState=active
$MCSUP status -s "$XDG_RUNTIME_DIR/app/mcsup.ctl" | grep -q '^serving'
systemctl --user reload app
cp app.py good.py
echo 'raise RuntimeError("broken")' > app.py
if systemctl --user show -p Type app | grep -qx Type=notify; then
    ! systemctl --user reload app 2>/dev/null
fi
cp good.py app.py
kill -9 "$(systemctl --user show -p MainPID --value app)"
tries=0
until systemctl --user show -p NRestarts,ActiveState,SubState app | tr '\\n' ' ' | grep -q 'NRestarts=1 .*active .*running'; do
    [ $tries -lt 100 ]; tries=$((tries + 1)); sleep 0.1
done
python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$PORT_OF_TEST/')"
$MCSUP service uninstall app
! systemctl --user is-active -q app
"""


@pytest.mark.skipif(not os.path.exists("/lib/systemd/systemd") or os.geteuid() != 0, reason="it needs systemd and root")
def test_a_users_manager_of_systemd_starts_reloads_restarts_and_forgets_the_service(directory):
    (directory / "app.py").write_text(HELLO)
    (directory / "booted").write_text(BOOTED)
    (directory / "steps").write_text("set -x\n" + STEPS)
    (directory / "home").mkdir()
    environment = clean_environment(
        HOME=str(directory / "home"),
        XDG_RUNTIME_DIR="/run/user/0",
        MCSUP=str(MCSUP),
        PORT_OF_TEST=str(free_port()),
    )
    for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME", "NOTIFY_SOCKET"):
        environment.pop(name, None)
    # Processes of a failed test end with their first one.
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "booted"]
    result = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    log = directory / "systemd.log"
    if result.returncode == 77 or "Operation not permitted" in result.stderr:
        pytest.skip(f"no manager of systemd starts here: {log.read_text() if log.exists() else result.stderr}")
    assert result.returncode == 0, result.stderr + log.read_text()
