#!/bin/sh
# Mission control: start, stop, restart, reload, status, logs. mcsup knows its own processes: nothing is hunted or
# killed here.
#
#   PORT     where to listen            (8080)
#   HOST     on which address           (0.0.0.0: on every network interface; 127.0.0.1: for this machine alone)
#   WORKERS  how many processes         (2)
#   MCSUP    the command                (.venv/bin/mcsup here or at the top of the repository, or the one in PATH)
#   MC_RUN   where pid file, logs and database go (run, beside this file)
set -eu
cd "$(dirname "$0")"

PORT=${PORT:-8080}
HOST=${HOST:-0.0.0.0}
WORKERS=${WORKERS:-2}
export MC_RUN="${MC_RUN:-$PWD/run}"  # server.py reads it too
PIDFILE=$MC_RUN/mission_control.pid
LOG=$MC_RUN/mission_control.log
ACCESS=$MC_RUN/access.log

if [ -z "${MCSUP:-}" ]; then
    MCSUP=mcsup
    for candidate in .venv/bin/mcsup ../../.venv/bin/mcsup; do
        if [ -x "$candidate" ]; then MCSUP=$candidate; break; fi
    done
fi

start() {
    # Returns when the first worker is ready, and prints what is missing; or fails with the reason.
    "$MCSUP" -D -p "$PIDFILE" -w "$WORKERS" -b "$HOST:$PORT" \
        --error-logfile "$LOG" --access-logfile "$ACCESS" server:app
    echo "mission control serves on $HOST:$PORT"
}

stop() {
    # Returns when every process is gone and the port is free.
    "$MCSUP" stop -p "$PIDFILE"
}

restart() {
    # Stop and start, and not a reload: a restart is for the day on which also the settings, the environment or
    # mcsup itself have changed. Requests that have arrived are finished first; `reload` loses none at all.
    # Broken code ends this before the stop.
    "$MCSUP" check server:app
    stop
    start
}

reload() {
    # The new code is loaded beside the old. If it fails the old one goes on serving, and this ends with 3 and the
    # traceback.
    "$MCSUP" reload -p "$PIDFILE"
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    restart) restart ;;
    reload) reload ;;
    status) "$MCSUP" status -p "$PIDFILE" ;;
    logs) tail -n "${2:-50}" "$LOG" "$ACCESS" ;;
    *)
        echo "usage: $0 start|stop|restart|reload|status|logs [LINES]" >&2
        exit 2
        ;;
esac
