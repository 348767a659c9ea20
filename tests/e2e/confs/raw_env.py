# As projects write it whose application has its settings in the environment and in another directory.
import os

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
chdir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "src")
pythonpath = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib")
raw_env = ["APP_MODE=production", "DATABASE_URL=postgres://u:p=w@db/app?sslmode=disable"]
proc_name = "project"
pidfile = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.pid")
wsgi_app = "service:create_app('from the file')"
