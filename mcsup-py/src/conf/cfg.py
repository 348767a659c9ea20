"""The settings as hooks read them: `server.cfg` and `worker.cfg`."""

import grp
import os
import pwd
from typing import Any, Callable, Dict, List, Optional, Tuple, Union


# gunicorn's own. mcsup gives the values of the settings that it has, also its defaults, so those here are for the
# others. Their types are those of the values.
DEFAULTS: Dict[str, Any] = {
    "access_log_format": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    "accesslog": None,
    "asgi_disconnect_grace_period": 3,
    "asgi_lifespan": "auto",
    "asgi_loop": "auto",
    "backlog": 2048,
    "bind": ["127.0.0.1:8000"],
    "ca_certs": None,
    "capture_output": False,
    "casefold_http_method": False,
    "cert_reqs": 0,
    "certfile": None,
    "chdir": os.getcwd(),
    "check_config": False,
    "ciphers": None,
    "config": "./gunicorn.conf.py",
    "control_socket": "gunicorn.ctl",
    "control_socket_disable": False,
    "control_socket_mode": 0o600,
    "daemon": False,
    "default_proc_name": "gunicorn",
    "dirty_apps": [],
    "dirty_graceful_timeout": 30,
    "dirty_threads": 1,
    "dirty_timeout": 300,
    "dirty_workers": 0,
    "disable_redirect_access_to_syslog": False,
    "do_handshake_on_connect": False,
    "dogstatsd_tags": "",
    "enable_backlog_metric": False,
    "enable_stdio_inheritance": False,
    "errorlog": "-",
    "forwarded_allow_ips": ["127.0.0.1", "::1"],
    "forwarder_headers": ["SCRIPT_NAME", "PATH_INFO"],
    "graceful_timeout": 30,
    "group": None,
    "header_map": "drop",
    "http2_cleartext": "off",
    "http2_initial_window_size": 65535,
    "http2_max_concurrent_streams": 100,
    "http2_max_frame_size": 16384,
    "http2_max_header_list_size": 65536,
    "http_parser": "auto",
    "http_protocols": ["h1"],
    "initgroups": False,
    "keepalive": 2,
    "keyfile": None,
    "limit_request_field_size": 8190,
    "limit_request_fields": 100,
    "limit_request_line": 4094,
    "logconfig": None,
    "logconfig_dict": {},
    "logconfig_json": None,
    "logger_class": "gunicorn.glogging.Logger",
    "loglevel": "info",
    "max_requests": 0,
    "max_requests_jitter": 0,
    "paste": None,
    "permit_obsolete_folding": False,
    "permit_unconventional_http_method": False,
    "permit_unconventional_http_version": False,
    "pidfile": None,
    "preload_app": False,
    "print_config": False,
    "proc_name": "gunicorn",
    "protocol": "http",
    "proxy_allow_ips": ["127.0.0.1", "::1"],
    "proxy_protocol": "off",
    "pythonpath": None,
    "raw_env": [],
    "raw_paste_global_conf": [],
    "reload": False,
    "reload_engine": "auto",
    "reload_extra_files": [],
    "reuse_port": False,
    "root_path": "",
    "secure_scheme_headers": {
        "X-FORWARDED-PROTOCOL": "ssl",
        "X-FORWARDED-PROTO": "https",
        "X-FORWARDED-SSL": "on",
    },
    "sendfile": None,
    "spew": False,
    "ssl_version": 2,
    "statsd_host": None,
    "statsd_prefix": "",
    "strip_header_spaces": False,
    "suppress_ragged_eofs": True,
    "syslog": False,
    "syslog_addr": "udp://localhost:514",
    "syslog_facility": "user",
    "syslog_prefix": None,
    "threads": 1,
    "timeout": 30,
    "tmp_upload_dir": None,
    "umask": 0,
    "user": None,
    "uwsgi_allow_ips": ["127.0.0.1", "::1"],
    "websocket_max_message_size": 16 * 1024 * 1024,
    "worker_class": "sync",
    "worker_connections": 1000,
    "worker_tmp_dir": None,
    "workers": 1,
    "wsgi_app": None,
}


class Setting:
    """One value of `cfg.settings`."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def get(self) -> Any:
        """The value."""
        return self.value


class Cfg:
    """The settings by gunicorn's names.

    `values` are those that mcsup has from all sources. A name that it does not have comes from `namespace`, the variables
    of the configuration file.
    """

    def __init__(self, values: Dict[str, Any], namespace: Dict[str, Any]) -> None:
        self._values = {name: _typed(value, DEFAULTS.get(name)) for name, value in values.items()}
        self._namespace = namespace
        user, group = self._values.get("user"), self._values.get("group")
        self._values["user"] = _number(user, os.geteuid, lambda name: pwd.getpwnam(name).pw_uid)
        self._values["group"] = _number(group, os.getegid, lambda name: grp.getgrnam(name).gr_gid)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            for source in (self._values, self._namespace, DEFAULTS):
                if name in source:
                    return source[name]
        raise AttributeError(f"cfg has no setting {name!r}")

    def set(self, name: str, value: Any) -> None:
        """Changes a value for those that read it here; mcsup does not read it again."""
        self._values[name] = value

    @property
    def settings(self) -> Dict[str, Setting]:
        """All settings by name."""
        names = sorted(DEFAULTS.keys() | self._values.keys())
        return {name: Setting(name, getattr(self, name)) for name in names}

    @property
    def address(self) -> List[Union[str, Tuple[str, int]]]:
        """The addresses to listen on: a host and a port, or the path of a Unix socket."""
        binds = self.bind
        return [_address(bind) for bind in ([binds] if isinstance(binds, str) else binds)]

    @property
    def env(self) -> Dict[str, str]:
        """The variables of `raw_env`."""
        return dict(pair.split("=", 1) for pair in self.raw_env)

    @property
    def uid(self) -> int:
        """The user of the workers."""
        return int(self.user)

    @property
    def gid(self) -> int:
        """The group of the workers, if it is set; otherwise that of this process."""
        return int(self.group)

    @property
    def worker_class_str(self) -> str:
        """The name of the worker class that has the same threads."""
        return "gthread" if self.threads > 1 else "sync"

    @property
    def is_ssl(self) -> bool:
        """Whether the server speaks TLS."""
        return bool(self.certfile or self.keyfile)


def _typed(value: Any, default: Any) -> Any:
    """A value as gunicorn has it, if it is as it was written on a command line."""
    if isinstance(value, str) and isinstance(default, int) and not isinstance(default, bool):
        try:
            return int(value, 0)
        except ValueError:
            return value
    if isinstance(value, str) and isinstance(default, list):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, list) and isinstance(default, dict):
        return dict(part.split("=", 1) for part in value if "=" in part)
    return value


def _number(name: Optional[str], own: Callable[[], int], look_up: Callable[[str], int]) -> int:
    """The number of a user or group, as gunicorn has it; without a name that of this process."""
    if name is None:
        return own()
    return int(name) if name.isdigit() else look_up(name)


def _address(bind: str) -> Union[str, Tuple[str, int]]:
    if bind.startswith("unix:"):
        return bind[len("unix:") :]
    host, _, port = bind.rpartition(":")
    if not port.isdigit():
        return bind
    return (host.strip("[]"), int(port))
