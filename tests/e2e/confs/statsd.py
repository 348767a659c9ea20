# As projects write it that send metrics to a local agent.
import os

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
statsd_host = os.environ["STATSD_HOST"]
statsd_prefix = "project"
dogstatsd_tags = "env:test,service:web"
