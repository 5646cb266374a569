"""`mvctl`, the command line.  `main` is its entry point; each file beside this one holds a few commands."""

from mvvfs.cli.app import main

__all__ = ["main"]
