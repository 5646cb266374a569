"""Branches: a namespace that begins as the snapshot of another and shares its pages.

Called by `store`.  Calls the engine; `snapshot` reads what branches share.

1. A branch is a record with its ancestors in it, an allocation image, a name, and a key in its parent that
   keeps the version it begins at: one small commit, however large the parent is.
2. What a branch has no version of its own of is its parent's, as of that version.  A page's first version
   in a branch may be a delta of its parent's: that one never changes and stays as long as the branch.
3. A branch begins at a version up to which all bulk commits are folded in: of an ancestor only page keys
   are looked at.
4. Whoever reads looks at the branch and at each ancestor in turn, so branches of branches go
   `MAX_DEPTH` deep and no deeper.
"""

from __future__ import annotations

import time

from pagestore import allocation, bulk, format, images, kept, keys
from pagestore.api import ZERO_VERSION, Allocation, LimitError, NamespaceId, StoreUnavailableError, Version
from pagestore.engines.base import Engine, Snapshot, Transaction
from pagestore.faults import fault
from pagestore.namespaces import (
    Ancestor,
    Record,
    check_name,
    claim_name,
    find,
    new_id,
    pack_around_version,
    rely_on,
)

MAX_DEPTH = 8
"""Ancestors of a branch at most."""


def branch(engine: Engine, id_: NamespaceId, new_name: str, version: Version, timeout: float) -> None:
    """See `Store.branch`."""
    check_name(new_name)

    def read(tx: Snapshot) -> tuple[Allocation, bool]:
        record = find(tx, id_)
        kept.check_readable(tx, id_, version, record)
        kept.check_not_ahead(tx, version)
        allocated = allocation.at(tx, id_, record.page_size, version)
        return allocated, bool(bulk.unfolded(tx, id_))

    allocated, waits = engine.read(read, timeout=timeout)
    if waits:
        bulk.fold(engine, id_, timeout)

    def work(tx: Transaction) -> None:
        parent = rely_on(tx, id_)
        kept.check_readable(tx, id_, version, parent)
        if any(one.version <= version for one in bulk.unfolded(tx, id_)):
            raise StoreUnavailableError("a large transaction is still being folded in: try again later")
        ancestors = (Ancestor(id_, version), *parent.ancestors)
        if len(ancestors) > MAX_DEPTH:
            raise LimitError(
                f"branches of branches go {MAX_DEPTH} deep: export this one and import it as a database of "
                "its own, and branch from that"
            )
        child = new_id(tx)
        claim_name(tx, new_name, child)
        format.require(tx, format.BRANCHES)
        record = Record(
            parent.page_size,
            tx.commit_time(time.time_ns() // 1000),
            ZERO_VERSION,
            ZERO_VERSION,
            retention=parent.retention,
            ancestors=ancestors,
        )
        tx.set_versioned_value(keys.namespace(child), *pack_around_version(record))
        images.write_first(tx, child, allocated)
        kept.add_branch(tx, id_, version, child)
        fault("branch.written")

    engine.transact(work, timeout=timeout, idempotent=False)
    fault("branch.made")
