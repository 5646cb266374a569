"""The demo: many processes write one SQLite database at once, and the state before is still there.

`python -m demo` (`make demo`).  `story` tells it; `flights` and `anyfile` are the two loads, `crew` runs a
load in processes, `compare` proves databases equal.  The sides, plain SQLite and mvvfs, are those of
`bench.targets`.
Not part of the installed package.
"""
