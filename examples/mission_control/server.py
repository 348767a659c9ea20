"""Mission control: a small dashboard with a JSON API, served by mcsup as `server:app`."""

import itertools
import json
import os
import threading
import time

from flask import Flask, Response, abort, jsonify, request

app = Flask(__name__)

PORTFOLIO = [
    {"symbol": "AAPL", "quantity": 12, "price": 231.4},
    {"symbol": "MSFT", "quantity": 7, "price": 418.9},
    {"symbol": "VWCE", "quantity": 40, "price": 129.75},
]

# Each worker process has its own list: a real dashboard keeps its tasks in a database.
TASKS = [{"id": 1, "title": "Replace the development server", "done": True}]
TASK_LOCK = threading.Lock()
TASK_IDS = itertools.count(2)

LONGEST_REPORT = 30.0
MOST_EVENTS = 100

PAGE = """<!doctype html>
<title>Mission control</title>
<style>body { font: 16px sans-serif; margin: 3em auto; max-width: 40em } td { padding-right: 2em }</style>
<h1>Mission control</h1>
<p id="status">asking ...</p>
<table id="portfolio"></table>
<ul id="tasks"></ul>
<script>
const get = async path => (await fetch(path)).json();
get("/api/status").then(s => document.getElementById("status").textContent = s.status + ", worker " + s.pid);
get("/api/portfolio").then(p => p.positions.forEach(row => {
  const cells = document.getElementById("portfolio").insertRow();
  [row.symbol, row.quantity, row.value].forEach(text => cells.insertCell().textContent = text);
}));
get("/api/tasks").then(t => t.tasks.forEach(task => {
  const item = document.createElement("li");
  item.textContent = (task.done ? "done: " : "open: ") + task.title;
  document.getElementById("tasks").append(item);
}));
</script>
"""


@app.get("/")
def index():
    """The page."""
    return PAGE


@app.get("/api/portfolio")
def portfolio():
    """Positions with their values, and the total."""
    positions = [{**row, "value": round(row["quantity"] * row["price"], 2)} for row in PORTFOLIO]
    return jsonify(positions=positions, total=round(sum(row["value"] for row in positions), 2))


@app.get("/api/status")
def status():
    """Which process answers."""
    return jsonify(status="ok", pid=os.getpid(), server=request.environ.get("SERVER_SOFTWARE", ""))


@app.get("/api/tasks")
def tasks():
    """The tasks of this worker."""
    with TASK_LOCK:
        return jsonify(tasks=list(TASKS))


@app.post("/api/tasks")
def add_task():
    """Add a task: a JSON object with a title."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not isinstance(body.get("title"), str) or not body["title"].strip():
        return jsonify(error="expected a JSON object with a title"), 400
    with TASK_LOCK:
        task = {"id": next(TASK_IDS), "title": body["title"].strip(), "done": False}
        TASKS.append(task)
    return jsonify(task), 201


@app.get("/api/report")
def report():
    """A slow endpoint: takes `seconds`, 2 by default."""
    seconds = request.args.get("seconds", 2.0, type=float)
    if not 0 <= seconds <= LONGEST_REPORT:
        abort(400)
    time.sleep(seconds)
    return jsonify(report="complete", seconds=seconds, pid=os.getpid())


@app.get("/api/events")
def events():
    """A stream of server-sent events: `count` of them, one each `interval` seconds."""
    count = min(max(request.args.get("count", 5, type=int), 0), MOST_EVENTS)
    interval = min(max(request.args.get("interval", 0.2, type=float), 0.0), 5.0)

    def stream():
        for number in range(count):
            if number:
                time.sleep(interval)
            yield f"data: {json.dumps({'event': number, 'pid': os.getpid()})}\n\n"

    return Response(stream(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
