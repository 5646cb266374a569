"""An example client: counts how often it was run, in a database that any number of its like may share."""

import os
from pathlib import Path

import mvvfs

SECRET = Path(os.environ.get("TOKEN_FILE", "/run/secrets/token"))

connection = mvvfs.connect("example", token=SECRET.read_text().strip())
connection.execute(
    "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP)"
)
connection.execute("INSERT INTO runs DEFAULT VALUES")
print("runs so far:", connection.execute("SELECT count(*) FROM runs").get)
connection.close()
