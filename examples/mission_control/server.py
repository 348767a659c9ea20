"""Mission control: a small dashboard with a JSON API, served by mcsup as `server:app`.

Each worker is a process with memory of its own, so tasks are in a SQLite database, which all of them open. It is in the
directory that MC_RUN names, or in `run` beside this file.
"""

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from flask import Flask, Response, abort, jsonify, request

DATABASE = Path(os.environ.get("MC_RUN") or Path(__file__).with_name("run")) / "tasks.sqlite3"
SCHEMA = """
create table tasks (id integer primary key, title text not null, done integer not null default 0);
insert into tasks (title, done) values ('Replace the development server', 1);
pragma user_version = 1;
"""

app = Flask(__name__)

PORTFOLIO = [
    {"symbol": "AAPL", "quantity": 12, "price": 231.4},
    {"symbol": "MSFT", "quantity": 7, "price": 418.9},
    {"symbol": "VWCE", "quantity": 40, "price": 129.75},
]

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


def connect():
    """Open the database. Each request does, so that no connection is shared between threads or across a fork."""
    # A writer waits up to 10 seconds for another one. Autocommit: each statement is a transaction.
    connection = sqlite3.connect(DATABASE, timeout=10, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def create_tables():
    """Make the tables. Workers boot at the same time: the first one that has the lock makes them."""
    DATABASE.parent.mkdir(exist_ok=True)
    with closing(connect()) as database:
        database.execute("begin immediate")
        if database.execute("pragma user_version").fetchone()[0] == 0:
            for statement in SCHEMA.strip().split(";\n"):
                database.execute(statement)
        database.execute("commit")


create_tables()


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
    """All tasks, the oldest first."""
    with closing(connect()) as database:
        rows = database.execute("select id, title, done from tasks order by id")
        return jsonify(tasks=[{**row, "done": bool(row["done"])} for row in rows])


@app.post("/api/tasks")
def add_task():
    """Add a task: a JSON object with a title."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not isinstance(body.get("title"), str) or not body["title"].strip():
        return jsonify(error="expected a JSON object with a title"), 400
    title = body["title"].strip()
    with closing(connect()) as database:
        number = database.execute("insert into tasks (title) values (?)", [title]).lastrowid
    return jsonify(id=number, title=title, done=False), 201


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
