"""The calls of proto/pagestore/v1, one function each: what a call needs, what it asks of the store.

Called by `gate`, with a request that was parsed and a caller that is known; the table is in `table`.

1. The first thing that a function does is to ask whether the caller may.
2. Whatever has a version in it is told (`Backend.tell`) before it is answered.
3. A begin, and a read of few pages, run in the event loop: a look into an embedded store is shorter than
   the way to a thread and back.  All that may wait for a lock, or walk over much, runs in a thread.
"""
