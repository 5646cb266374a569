"""`mvctl import export checkout copy backup restore renew`: databases and files.

The work is in `mvvfs.transfer` and `mvvfs.copying`."""

from __future__ import annotations

import os

import apsw
import click

from mvvfs import copying, cut, names, transfer
from mvvfs.cli import databases, target
from mvvfs.cli.output import counted, note, progress, say, size
from mvvfs.errors import DatabaseExistsError, Error
from mvvfs.transfer import Copied
from pagestore.api import CorruptPageError, NameTakenError, format_version

_force = click.option("--force", is_flag=True, help="Overwrite a file that is there.")


def _summary(copied: Copied) -> str:
    pages = counted(copied.pages, "page")
    return f"{pages} of {copied.page_size} bytes ({size(copied.bytes)}) in {copied.seconds:.1f} s"


@click.command("import")
@click.argument("file")
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace what NAME holds, by a new version.")
@click.option("-m", "--message", metavar="TEXT", help="For the changelog.  [default: import of FILE]")
@target.store_option
def import_(file: str, name: str, force: bool, message: str | None) -> None:
    """Make a database from an SQLite FILE, which stays as it is."""
    location = target.locate(name)
    with progress("importing") as report:
        try:
            copied = transfer.import_file(
                file, name, store=target.given_store(), force=force, message=message, progress=report
            )
        except NameTakenError:
            raise DatabaseExistsError(
                f"there is a database {target.describe(location)} already: replace its content by a new "
                "version with --force, take another name, or drop it first (mvctl drop)"
            ) from None
        except (apsw.NotADBError, apsw.CorruptError) as exc:
            if isinstance(exc, Error):  # about the store
                raise
            raise type(exc)(f"{file}: {exc}") from exc
    moment = copied.moment or "nothing to commit"
    say(f"imported {file} into {target.describe(location)}: {_summary(copied)}, {moment}")


def _export(verb: str, name: str, file: str, at: str | None, force: bool) -> None:
    location = target.locate(name)
    with target.opened_database(location), progress("copying") as report:
        copied = transfer.export_file(
            name, file, store=target.given_store(), at=at, force=force, progress=report
        )
    moment = f" at {copied.moment}" if copied.moment else ""
    say(f"{verb} {target.describe(location)}{moment} to {file}: {_summary(copied)}")


@click.command()
@click.argument("name")
@click.argument("file", required=False)
@_force
@target.store_option
def export(name: str, file: str | None, force: bool) -> None:
    """Write a database to an ordinary SQLite FILE.

    As it is now; the default of FILE is NAME.sqlite.
    """
    if file is None:
        file = os.path.basename(os.path.normpath(name)).removesuffix(".db") + ".sqlite"
    _export("exported", name, file, None, force)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--at", metavar="WHEN", required=True, help="A version or a time: see mvctl --help.")
@click.option("-o", "--output", metavar="FILE", help="Write an ordinary SQLite file.")
@click.option("--shell", is_flag=True, help="Open an SQL shell, read-only.")
@_force
@target.store_option
def checkout(names: tuple[str, ...], at: str, output: str | None, shell: bool, force: bool) -> None:
    """Show a database as it was at WHEN: as a file, or in a shell.

    Several databases of a store are written at one version, into a folder: -o is its name, and each file's is
    NAME.sqlite.
    """
    if (output is None) == (not shell):
        raise click.UsageError("give either -o FILE or --shell", click.get_current_context())
    if len(names) > 1:
        _checkout_cut(names, at, output, force)
        return
    (name,) = names
    if output is not None:
        _export("checked out", name, output, at, force)
        return
    location = target.locate(name)
    moment = target.moment(location, at)
    note(f"{target.describe(location)} at {moment}, read-only")
    databases.run_shell(location, format_version(moment.version))


def _checkout_cut(names: tuple[str, ...], at: str, output: str | None, force: bool) -> None:
    if output is None:
        raise click.UsageError("a shell shows one database: give -o FOLDER", click.get_current_context())
    locations = cut.locate(names, target.given_store())
    for location in locations:
        with target.opened_database(location):
            pass  # says where it looked, if there is none
    with progress("copying") as report:
        version, files = cut.checkout_files(
            names, output, at, store=target.given_store(), force=force, progress=report
        )
    for copied in files:
        file = os.path.join(output, cut.file_name(copied.location))
        say(
            f"checked out {target.describe(copied.location)} at {copied.moment} to {file}: {_summary(copied)}"
        )
    say(f"all as of {format_version(version)}")


@click.command()
@click.argument("name")
@click.argument("new_name")
@click.option("--to", "new_store", metavar="STORE", help="The store of the copy.  [default: that of NAME]")
@target.store_option
def copy(name: str, new_name: str, new_store: str | None) -> None:
    """Copy a database with all its history.

    NEW_NAME is in this store, or in another of whatever engine.  Times, messages and order of the commits
    are kept; versions are numbered anew.  Run again, it goes on where it was interrupted, and fetches what
    is new.  What is copied is read back and compared.
    """
    location = target.locate(name)
    with target.opened_database(location), progress("copying", unit="commits") as report:
        copied = copying.copy_database(
            name,
            new_name,
            store=target.given_store(),
            new_store=new_store if new_store is not None else target.given_store(),
            progress=report,
        )
    before = f" after {copied.resumed:,} earlier ones" if copied.resumed else ""
    at = f", newest {copied.newest}" if copied.newest else ""
    say(
        f"copied {target.describe(location)} to {target.describe(copied.location)}: "
        f"{counted(copied.commits, 'commit')}{before}, {counted(copied.pages, 'page')} "
        f"in {copied.seconds:.1f} s{at}: verified"
    )


@click.command()
@click.argument("store")
@click.argument("file")
@_force
def backup(store: str, file: str, force: bool) -> None:
    """Copy a store with all its history to one file.

    STORE is a folder; who writes to it need not stop.
    """
    with progress("backing up", in_bytes=True) as report:
        transfer.backup_store(store, file, force=force, progress=report)
    say(f"backed up {store} to {file}: {size(os.path.getsize(file))}")


@click.command()
@click.argument("file")
@click.argument("store")
def restore(file: str, store: str) -> None:
    """Bring a store back from a backup, verified.

    STORE is the new folder.
    """
    with progress("restoring", in_bytes=True) as report:
        try:
            transfer.restore_store(file, store, progress=report)
        except CorruptPageError as exc:
            raise apsw.CorruptError(str(exc)) from exc  # without the advice to restore a backup
    say(f"restored {store} from {file}: verified")


@click.command()
@click.argument("store")
def renew(store: str) -> None:
    """Have the clients of a store that was put back begin anew.

    Of a STORE that was put back by other means than `restore`, which does this by itself.  While nobody
    has it open.
    """
    url = names.store_url(store)
    with target.opened_store(names.Location(url, "", "as given")) as opened:
        opened.renew()
    say(f"renewed {url}: start its services again; who knew it before has to connect anew")


COMMANDS = (import_, export, checkout, copy, backup, restore, renew)
