"""native/sqlite_abi.h against SQLite's own headers, where they are installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ABI = Path(__file__).parents[2] / "native" / "sqlite_abi.h"
COMPILER = os.environ.get("CC", "cc")


def compile_and_run(folder: Path, source: str) -> str | None:
    path = folder / "abi.c"
    path.write_text(source)
    build = subprocess.run(
        [COMPILER, str(path), "-o", str(folder / "abi")], capture_output=True, text=True, check=False
    )
    if build.returncode:
        if "sqlite3ext.h" in build.stderr:
            return None
        raise AssertionError(build.stderr)
    return subprocess.run([str(folder / "abi")], capture_output=True, text=True, check=True).stdout


def test_functions_and_constants_are_where_sqlite_has_them(tmp_path: Path) -> None:
    text = ABI.read_text()
    functions = re.findall(r"#define api_(\w+)\([^)]*\)\s*\\?\s*MV_API\(api, (\d+),", text)
    constants = re.findall(r"#define (SQLITE_\w+) ", text)
    assert len(functions) == 14
    assert len(constants) >= 38
    place = "offsetof(struct sqlite3_api_routines, {}) / sizeof(void *)"
    lines = [f'printf("{name} %zu\\n", {place.format(name)});' for name, _ in functions]
    lines += [f'printf("{name} %d\\n", {name});' for name in constants]
    printed = compile_and_run(
        tmp_path,
        "#include <sqlite3ext.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        + ("int main(void) {" + "\n".join(lines) + "}"),
    )
    if printed is None:
        pytest.skip("SQLite's headers are not installed")
    ours = compile_and_run(
        tmp_path,
        f'#include "{ABI}"\n#include <stdio.h>\nint main(void) {{'
        + "\n".join(f'printf("{name} {index}\\n");' for name, index in functions)
        + "\n".join(f'printf("{name} %d\\n", {name});' for name in constants)
        + "}",
    )
    assert printed == ours
