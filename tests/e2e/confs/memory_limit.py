# As projects write it whose workers grow: a worker that uses too much memory is replaced after its request.
import os
import resource

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
limit = int(os.environ["MEMORY_LIMIT_KIB"])


def post_request(worker, req, environ, resp):
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if used > limit and worker.alive:
        worker.log.warning("worker %s uses %d KiB after %d requests", worker.pid, used, worker.nr)
        worker.alive = False
