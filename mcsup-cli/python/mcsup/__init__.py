"""A pre-fork WSGI server. The command is `mcsup`, or `python -m mcsup`."""
