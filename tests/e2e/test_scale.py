"""How many workers there are: TTIN and TTOU, `mcsup scale`, and what the load asks for."""

import signal

from harness import HELLO, Load, free_port, run, wait_for
from lifecycle import Operator


def test_workers_are_added_and_removed_and_the_number_survives_a_reload(serve):
    server = serve()
    with Load(server.port, fresh=2, kept=2) as load:
        server.signal(signal.SIGTTIN)
        server.wait_log("Scaling from 1 to 2 workers")
        wait_for(lambda: len(server.worker_pids()) == 2, "two workers")
        server.signal(signal.SIGTTIN)
        wait_for(lambda: len(server.worker_pids()) == 3, "three workers")
        server.wait_ready(3)
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done")
        wait_for(lambda: len(server.worker_pids()) == 3, "three workers after the reload")
        server.signal(signal.SIGTTOU)
        wait_for(lambda: len(server.worker_pids()) == 2, "two workers")
        load.wait_more(5)
    assert load.failures == []
    assert server.stop() == 0
    server.assert_nothing_left()


def test_the_last_worker_stays(serve):
    server = serve()
    server.signal(signal.SIGTTOU)
    server.wait_log("Handling signal: TTOU")
    assert server.get()[0] == 200
    assert len(server.worker_pids()) == 1 and "Scaling" not in server.log


def sizes(directory):
    """What the server says of its size: how many workers are wanted, and how many are ready."""
    with Operator(directory / "app.ctl") as operator:
        status = operator.status()
    return status["target"], sum(worker["state"] == "ready" for worker in status["workers"])


def scale(directory, number):
    """`mcsup scale`, as an operator says it."""
    return run("scale", number, "-p", "app.pid", cwd=directory, timeout=20)


def test_an_operator_says_how_many_workers_there_are(serve, directory):
    server = serve(HELLO, "-p", "app.pid")
    with Load(server.port, fresh=2, kept=2) as load:
        for number in (3, 2):
            ended = scale(directory, number)
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{number} workers\n", "")
            assert sizes(directory) == (number, number)
            wait_for(lambda: len(server.worker_pids()) == number, f"{number} workers")
            load.wait_more(2)
    assert load.failures == []
    assert server.stop() == 0
    server.assert_nothing_left()


def test_workers_that_cannot_boot_leave_the_pool_at_its_size(serve, directory):
    server = serve(HELLO, "-p", "app.pid", workers=2)
    before = server.worker_pids()
    (directory / "app.py").write_text("raise RuntimeError('no database')\n")
    ended = scale(directory, 4)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "RuntimeError: no database" in ended.stderr and "Traceback" in ended.stderr
    server.wait_log("Scaling to 4 workers failed, going on with 2")
    wait_for(lambda: server.worker_pids() == before, "the workers of before alone")
    assert sizes(directory) == (2, 2)
    assert server.get()[0] == 200


def test_the_number_survives_a_reload_until_the_settings_name_another(serve, directory):
    port = free_port()
    settings = 'bind = ["127.0.0.1:{}"]\nworkers = {}\nsoak = 0\npid = "app.pid"\napp = "app:app"\n'
    (directory / "mcsup.toml").write_text(settings.format(port, 1))
    serve(HELLO, "-c", "mcsup.toml", port=port, bare=True)
    assert scale(directory, 2).returncode == 0
    for named, expected in [(1, 2), (3, 3), (1, 1)]:
        (directory / "mcsup.toml").write_text(settings.format(port, named))
        ended = run("reload", "-p", "app.pid", cwd=directory, timeout=20)
        assert ended.returncode == 0, ended
        assert sizes(directory)[0] == expected
        with Operator(directory / "app.ctl") as operator:
            operator.wait_at_rest()
