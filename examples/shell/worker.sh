#!/bin/sh
# A worker in ten lines of sh: it takes jobs from a folder, and finishes its job when it is replaced.
#
#     mcsup exec -w 2 --no-listener -- sh examples/shell/worker.sh FOLDER
#
# A job is a file FOLDER/NAME.job; its result is FOLDER/NAME.done. The job of a worker that is killed (kill -9, no
# memory) stays as FOLDER/NAME.PID: rename it to do it again.
trap 'stop=yes' TERM
echo ready >&"$MCSUP_READY_FD"
while [ -z "${stop:-}" ]; do
    for job in "$1"/*.job; do
        # Only one worker can rename it.
        mv "$job" "${job%.job}.$$" 2>/dev/null || continue
        tr '[:lower:]' '[:upper:]' <"${job%.job}.$$" >"${job%.job}.part" && mv "${job%.job}.part" "${job%.job}.done"
        rm "${job%.job}.$$" && [ -z "${stop:-}" ] || break
    done
    sleep 0.05
done
