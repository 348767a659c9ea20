"""An nginx of a test's own: ports and files of the test, and no daemon."""

import getpass
import shutil
import subprocess
from pathlib import Path

from harness import answers, free_port, wait_for

PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

CONFIGURATION = """
{modules}
user {user};
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 16m;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
{stream}
"""

STREAM = """
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass {upstream};
        proxy_protocol on;
    }}
}}
"""


def certificate(folder):
    """A key and a certificate for app.test, signed by themselves."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=app.test"
    files = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)


class Nginx:
    """Passes what comes to its ports to a server: `plain`, `tls`, and `stream` with the PROXY protocol."""

    def __init__(self, folder, upstream, stream_upstream=None):
        folder.mkdir()
        certificate(folder)
        self.plain, self.tls, self.stream = free_port(), free_port(), free_port()
        stream = STREAM.format(port=self.stream, upstream=stream_upstream) if stream_upstream else ""
        modules = f"load_module {STREAM_MODULE};" if stream_upstream else ""
        text = CONFIGURATION.format(
            modules=modules,
            user=getpass.getuser(),
            folder=folder,
            plain=self.plain,
            tls=self.tls,
            upstream=upstream,
            stream=stream,
        )
        (folder / "nginx.conf").write_text(text)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            command = [PROGRAM, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self):
        wait_for(lambda: answers(self.plain), f"nginx; its log: {self.log.read_text()}")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)
