"""pypiserver over a folder, open to uploads."""

import os

import pypiserver

app = pypiserver.app(roots=[os.environ["STORE"]], password_file=".", authenticate=[])
