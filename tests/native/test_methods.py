"""The methods of a database file, called with what SQLite never passes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import apsw
import pytest

import mvvfs

READ, WRITE = 2, 3  # in struct sqlite3_io_methods
FILE_POINTER = 7  # SQLITE_FCNTL_FILE_POINTER
SHORT_READ = 522
Method = Callable[[bytes | ctypes.Array[ctypes.c_char], int, int], int]


@pytest.fixture
def connection(folder: str) -> Iterator[apsw.Connection]:
    connection = mvvfs.connect("app", store=folder)
    connection.execute("CREATE TABLE t(x)")
    yield connection
    connection.close()


def method(connection: apsw.Connection, place: int) -> Method:
    """What is pending after a call is raised, as APSW does."""
    file = ctypes.c_void_p()
    connection.file_control("main", FILE_POINTER, ctypes.addressof(file))
    methods = ctypes.cast(file, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    kind = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
    call = kind(methods[place] or 0)
    return lambda data, amount, offset: int(call(file, ctypes.cast(data, ctypes.c_void_p), amount, offset))


def test_a_read_far_behind_the_end_is_short(connection: apsw.Connection) -> None:
    connection.execute("BEGIN; SELECT * FROM t")
    read = method(connection, READ)
    for offset in (1 << 30, 4096 << 32, (4096 << 32) + 4096, 1 << 48):  # page 2^32 + 1 is not page 1
        data = ctypes.create_string_buffer(b"x" * 100, 100)
        assert read(data, 100, offset) == SHORT_READ
        assert data.raw == bytes(100)
    connection.execute("COMMIT")


@pytest.mark.parametrize(("amount", "offset"), [(100, -1), (-1, 0), (100, (1 << 63) - 50), (100, -(1 << 63))])
def test_a_read_outside_of_any_file_is_an_error(
    connection: apsw.Connection, amount: int, offset: int
) -> None:
    connection.execute("BEGIN; SELECT * FROM t")
    with pytest.raises(apsw.IOError, match="outside"):
        method(connection, READ)(ctypes.create_string_buffer(100), amount, offset)
    connection.execute("ROLLBACK")


@pytest.mark.parametrize(("amount", "offset"), [(0, 0), (-4096, 0), (4096, -4096), (4096, 4096 << 32)])
def test_a_write_outside_of_any_file_is_an_error(
    connection: apsw.Connection, amount: int, offset: int
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(apsw.IOError, match=r"outside|page size"):
        method(connection, WRITE)(ctypes.create_string_buffer(4096), amount, offset)
    connection.execute("ROLLBACK")
