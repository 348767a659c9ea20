"""A Bottle application: form, upload, static file, generator, error."""

from pathlib import Path

import bottle

app = bottle.Bottle()


@app.get("/<name>")
def hello(name):
    """A template."""
    return bottle.template("hello {{name}}", name=name)


@app.post("/upload")
def upload():
    """The size of each uploaded file."""
    return {name: len(file.file.read()) for name, file in bottle.request.files.items()}


@app.get("/static/<path:path>")
def static(path):
    """A file, with ranges and conditions."""
    return bottle.static_file(path, root=Path(__file__).parent)


@app.get("/lines/<count:int>")
def lines(count):
    """A body in parts."""
    for number in range(count):
        yield f"line {number}\n"


@app.get("/broken/now")
def broken():
    """An error."""
    raise bottle.HTTPError(418, "a teapot")
