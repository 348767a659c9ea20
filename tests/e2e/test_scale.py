"""TTIN and TTOU."""

import signal

from harness import Load, wait_for


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
