"""The `mvctl` command: global options, and the one place where an error becomes a line and an exit code.

Called as the console script.  The commands are in `databases`, `files`, `history`, `changes`, `following`
and `near`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import apsw
import click

from mvvfs.cli import changes, databases, files, following, history, keeping, near, undo
from mvvfs.cli.exits import EXPECTED, Exit, explain
from mvvfs.cli.output import say
from mvvfs.cli.target import store_option


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="mvvfs", prog_name="mvctl")
@store_option
@click.pass_context
def app(context: click.Context) -> None:
    """Databases that remember every version: create, import, look back, check out, back up.

    NAME is a database as in mvvfs.connect(): a folder (app.db, ./app.db, /srv/app.db) that holds one
    database, or, with --store or MV_STORE, the name of a database in that store.

    WHEN is a version (v1a2b), a time in UTC or with an offset (2026-11-20 10:00, 2026-11-20T10:00+01:00,
    2026-11-20, today, yesterday), an age (5m ago, 2h ago, 3d ago, 1w ago), now, HEAD, HEAD~3,
    or tag:NAME.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(Exit.USAGE)


@app.command("version")
def version_command() -> None:
    """Show the versions of mvctl and SQLite."""
    try:
        own = version("mvvfs")
    except PackageNotFoundError:
        own = "not installed"
    say(f"mvctl {own}, SQLite {apsw.sqlite_lib_version()}")


for command in (
    *databases.COMMANDS,
    *files.COMMANDS,
    *history.COMMANDS,
    *changes.COMMANDS,
    *following.COMMANDS,
    *keeping.COMMANDS,
    *undo.COMMANDS,
    *near.COMMANDS,
):
    app.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.  A mistake is one line on stderr, and no traceback."""
    try:
        result = app.main(
            args=None if arguments is None else list(arguments), prog_name="mvctl", standalone_mode=False
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else Exit.OK
    except click.ClickException as exc:
        code, line = Exit.USAGE, _usage(exc)
    except (click.Abort, KeyboardInterrupt):
        code, line = Exit.INTERRUPTED, "interrupted"
    except BrokenPipeError:
        # the reader of our output has gone: what is still buffered must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except EXPECTED as exc:
        code, line = explain(exc)
    click.echo(f"mvctl: {line}", err=True)
    return code


def _usage(exc: click.ClickException) -> str:
    text = " ".join(exc.format_message().split())
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        text = f"{text.rstrip('.')} (see {exc.ctx.command_path} --help)"
    return text


def main() -> None:
    """The console script."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it prints lines of its own before ours
    sys.exit(run())
