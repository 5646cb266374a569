"""Values of the `Store` interface ↔ messages of proto/pagestore/v1.

Called by both ends: `pagestore.service` and the client in `mvvfs`.  Calls nothing of the store.

1. `x_message` makes a message of a value, `x_of` a value of a message.
2. What comes in is checked for what its type promises: sizes of versions and tokens, page numbers in range
   and ascending.  `WireError` says what is wrong; whether the request makes sense, the store decides.
3. A field that is absent reads as its default, so a message of an older release has a meaning.
4. `ERRORS` is the one table between errors, their kinds on the wire and gRPC's status codes.
"""

from __future__ import annotations

from typing import Final

from pagestore.wire.errors import ERROR_KEY, ERRORS, MAX_ERROR_TEXT, Failure, error_of, failure_of
from pagestore.wire.fields import (
    MAX_NUMBERS,
    MAX_PAGE,
    WireError,
    namespace_id_of,
    numbers_message,
    numbers_of,
    optional_version_of,
    page_number_of,
    page_numbers_of,
    page_set_message,
    page_set_of,
    token_of,
    version_of,
)
from pagestore.wire.history import (
    allocation_message,
    allocation_of,
    change_message,
    change_messages,
    change_of,
    changes_of,
    packed_message,
    packed_of,
    watched_message,
    watched_of,
)
from pagestore.wire.namespaces import (
    collected_message,
    collected_of,
    dropped_message,
    dropped_of,
    namespace_message,
    namespace_of,
    retention_message,
    retention_of,
    tag_message,
    tag_of,
    usage_message,
    usage_of,
)
from pagestore.wire.transactions import (
    begin_message,
    begin_of,
    commit_message,
    commit_of,
    committed_message,
    committed_of,
    conflict_message,
    conflict_of,
    lease_message,
    lease_of,
    page_message,
    page_of,
    pages_message,
    pages_of,
    wish_message,
    wish_of,
    write_messages,
    writes_of,
)

__all__ = [
    "ERRORS",
    "ERROR_KEY",
    "MAX_ERROR_TEXT",
    "MAX_NUMBERS",
    "MAX_PAGE",
    "SERVICE",
    "Failure",
    "WireError",
    "allocation_message",
    "allocation_of",
    "begin_message",
    "begin_of",
    "change_message",
    "change_messages",
    "change_of",
    "changes_of",
    "collected_message",
    "collected_of",
    "commit_message",
    "commit_of",
    "committed_message",
    "committed_of",
    "conflict_message",
    "conflict_of",
    "dropped_message",
    "dropped_of",
    "error_of",
    "failure_of",
    "lease_message",
    "lease_of",
    "namespace_id_of",
    "namespace_message",
    "namespace_of",
    "numbers_message",
    "numbers_of",
    "optional_version_of",
    "packed_message",
    "packed_of",
    "page_message",
    "page_number_of",
    "page_numbers_of",
    "page_of",
    "page_set_message",
    "page_set_of",
    "pages_message",
    "pages_of",
    "retention_message",
    "retention_of",
    "tag_message",
    "tag_of",
    "token_of",
    "usage_message",
    "usage_of",
    "version_of",
    "watched_message",
    "watched_of",
    "wish_message",
    "wish_of",
    "write_messages",
    "writes_of",
]

SERVICE: Final = "pagestore.v1.PageStore"
