# As projects write it whose logs are read by machines.
import json
import os

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
accesslog = "access.log"
access_log_format = json.dumps(
    {
        "remote": "%(h)s",
        "time": "%(t)s",
        "method": "%(m)s",
        "path": "%(U)s",
        "query": "%(q)s",
        "status": "%(s)s",
        "bytes": "%(B)s",
        "agent": "%(a)s",
        "request_id": "%({x-request-id}i)s",
        "micros": "%(D)s",
    }
)


def pre_request(worker, req):
    # A request that has no identifier gets one.
    if not any(name == "X-REQUEST-ID" for name, _ in req.headers):
        req.headers.append(("X-REQUEST-ID", f"{worker.pid}-{worker.nr}"))
