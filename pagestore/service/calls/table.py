"""Which function serves which call: the only place that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pagestore.service.calls import history, namespaces, retention, transactions

CALLS: Final[Mapping[str, Callable[..., Any]]] = {
    "Info": namespaces.info,
    "Create": namespaces.create,
    "Open": namespaces.open_namespace,
    "List": namespaces.list_namespaces,
    "Rename": namespaces.rename,
    "Drop": namespaces.drop,
    "ListDropped": namespaces.list_dropped,
    "Undrop": namespaces.undrop,
    "Purge": namespaces.purge,
    "Branch": namespaces.branch,
    "Begin": transactions.begin,
    "Read": transactions.read,
    "Stage": transactions.stage,
    "Commit": transactions.commit,
    "Outcome": transactions.outcome,
    "Watch": transactions.watch,
    "GetAllocation": transactions.get_allocation,
    "TakeLease": transactions.take_lease,
    "RenewLease": transactions.renew_lease,
    "ReleaseLease": transactions.release_lease,
    "TakeTurn": transactions.take_turn,
    "LeaveTurn": transactions.leave_turn,
    "Changelog": history.changelog,
    "VersionAt": history.version_at,
    "Revert": transactions.revert,
    "GetRetention": retention.get_retention,
    "SetRetention": retention.set_retention,
    "SetTag": retention.set_tag,
    "DeleteTag": retention.delete_tag,
    "ListTags": retention.list_tags,
    "Hold": retention.hold,
    "Unhold": retention.unhold,
    "Collect": retention.collect,
    "GetUsage": history.get_usage,
    "Sync": namespaces.sync,
}
