"""The page-store service: a store behind gRPC, for clients on other machines.

`pagestore serve` (cli.py) is the way in.  A call travels through these files:

    server.py         ports, TLS, health, drain; bytes in, bytes out
    gate.py           who calls, may they, how often; errors to statuses; log line; metrics
    calls/            one function for each call of proto/pagestore/v1, in terms of `pagestore.api.Store`
    committer.py      commits in groups with one flush, and what may leave the process
    watching.py       streams of commits

The service keeps nothing that a restart would miss: versions, leases, turns and tokens of commits are the
store's, and a client shows all that a call needs.  Several processes, on one machine, can serve one
embedded store (workers.py); each learns of the others' commits from the head words.
"""
