"""Benchmarks: the same load on plain SQLite and on mvvfs, in rounds that take turns, every result checked.

`python -m bench --help` runs them (`make bench`); docs/benchmarks.md explains and shows what they said.
A run travels `cli` → `suite` (which cases there are) → `runner` (rounds, processes) → `worker` (one process,
one timed loop) → `workloads` (what it does) → `targets` (on which side), and back through `results` and
`stats` into `report` and `plot`.  Not part of the installed package.
"""
