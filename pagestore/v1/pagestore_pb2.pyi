from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_KIND_UNSPECIFIED: _ClassVar[ErrorKind]
    NO_SUCH_NAMESPACE: _ClassVar[ErrorKind]
    NAME_TAKEN: _ClassVar[ErrorKind]
    INVALID_NAME: _ClassVar[ErrorKind]
    LEASE_ENDED: _ClassVar[ErrorKind]
    TURN_TAKEN: _ClassVar[ErrorKind]
    BELOW_HORIZON: _ClassVar[ErrorKind]
    NO_SUCH_VERSION: _ClassVar[ErrorKind]
    CORRUPT_PAGE: _ClassVar[ErrorKind]
    OUTCOME_UNKNOWN: _ClassVar[ErrorKind]
    UNAVAILABLE: _ClassVar[ErrorKind]
    STORE_FULL: _ClassVar[ErrorKind]
    READ_ONLY: _ClassVar[ErrorKind]
    FORMAT: _ClassVar[ErrorKind]
    LIMIT: _ClassVar[ErrorKind]
    INVALID_REQUEST: _ClassVar[ErrorKind]
    VOID_TOKEN: _ClassVar[ErrorKind]
    NOT_ALLOWED: _ClassVar[ErrorKind]
    OVERLOADED: _ClassVar[ErrorKind]
    UNSUPPORTED: _ClassVar[ErrorKind]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    FULL: _ClassVar[Durability]
    NORMAL: _ClassVar[Durability]
ERROR_KIND_UNSPECIFIED: ErrorKind
NO_SUCH_NAMESPACE: ErrorKind
NAME_TAKEN: ErrorKind
INVALID_NAME: ErrorKind
LEASE_ENDED: ErrorKind
TURN_TAKEN: ErrorKind
BELOW_HORIZON: ErrorKind
NO_SUCH_VERSION: ErrorKind
CORRUPT_PAGE: ErrorKind
OUTCOME_UNKNOWN: ErrorKind
UNAVAILABLE: ErrorKind
STORE_FULL: ErrorKind
READ_ONLY: ErrorKind
FORMAT: ErrorKind
LIMIT: ErrorKind
INVALID_REQUEST: ErrorKind
VOID_TOKEN: ErrorKind
NOT_ALLOWED: ErrorKind
OVERLOADED: ErrorKind
UNSUPPORTED: ErrorKind
DURABILITY_UNSPECIFIED: Durability
FULL: Durability
NORMAL: Durability

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PageNumbers(_message.Message):
    __slots__ = ("gaps",)
    GAPS_FIELD_NUMBER: _ClassVar[int]
    gaps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, gaps: _Optional[_Iterable[int]] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("id", "name", "page_size", "created_us", "horizon", "parent", "parent_version", "horizon_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PARENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    HORIZON_US_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    page_size: int
    created_us: int
    horizon: bytes
    parent: int
    parent_version: bytes
    horizon_us: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., page_size: _Optional[int] = ..., created_us: _Optional[int] = ..., horizon: _Optional[bytes] = ..., parent: _Optional[int] = ..., parent_version: _Optional[bytes] = ..., horizon_us: _Optional[int] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("version", "time_us", "pages", "token", "message", "allocated", "freed", "index_pages")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_FIELD_NUMBER: _ClassVar[int]
    FREED_FIELD_NUMBER: _ClassVar[int]
    INDEX_PAGES_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    time_us: int
    pages: PageNumbers
    token: bytes
    message: str
    allocated: PageNumbers
    freed: PageNumbers
    index_pages: PageNumbers
    def __init__(self, version: _Optional[bytes] = ..., time_us: _Optional[int] = ..., pages: _Optional[_Union[PageNumbers, _Mapping]] = ..., token: _Optional[bytes] = ..., message: _Optional[str] = ..., allocated: _Optional[_Union[PageNumbers, _Mapping]] = ..., freed: _Optional[_Union[PageNumbers, _Mapping]] = ..., index_pages: _Optional[_Union[PageNumbers, _Mapping]] = ...) -> None: ...

class Allocation(_message.Message):
    __slots__ = ("highest", "free")
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    highest: int
    free: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, highest: _Optional[int] = ..., free: _Optional[_Iterable[int]] = ...) -> None: ...

class Page(_message.Message):
    __slots__ = ("number", "version", "blobs")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    number: int
    version: bytes
    blobs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, number: _Optional[int] = ..., version: _Optional[bytes] = ..., blobs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PageWrite(_message.Message):
    __slots__ = ("number", "blob")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    number: int
    blob: bytes
    def __init__(self, number: _Optional[int] = ..., blob: _Optional[bytes] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "numbers", "seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    numbers: PageNumbers
    seconds: float
    def __init__(self, id: _Optional[bytes] = ..., numbers: _Optional[_Union[PageNumbers, _Mapping]] = ..., seconds: _Optional[float] = ...) -> None: ...

class LeaseWish(_message.Message):
    __slots__ = ("want", "seconds", "replaces")
    WANT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    want: int
    seconds: float
    replaces: bytes
    def __init__(self, want: _Optional[int] = ..., seconds: _Optional[float] = ..., replaces: _Optional[bytes] = ...) -> None: ...

class Chores(_message.Message):
    __slots__ = ("lease", "release_leases", "leave_turns", "unholds")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LEASES_FIELD_NUMBER: _ClassVar[int]
    LEAVE_TURNS_FIELD_NUMBER: _ClassVar[int]
    UNHOLDS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseWish
    release_leases: _containers.RepeatedScalarFieldContainer[bytes]
    leave_turns: _containers.RepeatedScalarFieldContainer[bytes]
    unholds: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, lease: _Optional[_Union[LeaseWish, _Mapping]] = ..., release_leases: _Optional[_Iterable[bytes]] = ..., leave_turns: _Optional[_Iterable[bytes]] = ..., unholds: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("kind", "message", "version", "horizon", "seconds", "token")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    kind: ErrorKind
    message: str
    version: bytes
    horizon: bytes
    seconds: float
    token: bytes
    def __init__(self, kind: _Optional[_Union[ErrorKind, str]] = ..., message: _Optional[str] = ..., version: _Optional[bytes] = ..., horizon: _Optional[bytes] = ..., seconds: _Optional[float] = ..., token: _Optional[bytes] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("release", "store_id", "max_message_bytes", "max_commit_bytes", "max_read_pages", "min_heartbeat", "time_us", "read_only", "takes_moves")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_COMMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_READ_PAGES_FIELD_NUMBER: _ClassVar[int]
    MIN_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    TAKES_MOVES_FIELD_NUMBER: _ClassVar[int]
    release: str
    store_id: bytes
    max_message_bytes: int
    max_commit_bytes: int
    max_read_pages: int
    min_heartbeat: float
    time_us: int
    read_only: bool
    takes_moves: bool
    def __init__(self, release: _Optional[str] = ..., store_id: _Optional[bytes] = ..., max_message_bytes: _Optional[int] = ..., max_commit_bytes: _Optional[int] = ..., max_read_pages: _Optional[int] = ..., min_heartbeat: _Optional[float] = ..., time_us: _Optional[int] = ..., read_only: _Optional[bool] = ..., takes_moves: _Optional[bool] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("name", "page_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    page_size: int
    def __init__(self, name: _Optional[str] = ..., page_size: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("namespaces",)
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[Namespace]
    def __init__(self, namespaces: _Optional[_Iterable[_Union[Namespace, _Mapping]]] = ...) -> None: ...

class RenameRequest(_message.Message):
    __slots__ = ("name", "new_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class DropRequest(_message.Message):
    __slots__ = ("name", "now")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    now: bool
    def __init__(self, name: _Optional[str] = ..., now: _Optional[bool] = ...) -> None: ...

class ListDroppedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("id", "name", "dropped_us", "until_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DROPPED_US_FIELD_NUMBER: _ClassVar[int]
    UNTIL_US_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    dropped_us: int
    until_us: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., dropped_us: _Optional[int] = ..., until_us: _Optional[int] = ...) -> None: ...

class ListDroppedResponse(_message.Message):
    __slots__ = ("dropped",)
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    dropped: _containers.RepeatedCompositeFieldContainer[Dropped]
    def __init__(self, dropped: _Optional[_Iterable[_Union[Dropped, _Mapping]]] = ...) -> None: ...

class UndropRequest(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class PurgeRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class BranchRequest(_message.Message):
    __slots__ = ("namespace", "new_name", "version")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    new_name: str
    version: bytes
    def __init__(self, namespace: _Optional[int] = ..., new_name: _Optional[str] = ..., version: _Optional[bytes] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("namespace", "since", "at", "chores", "wants_pages")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    CHORES_FIELD_NUMBER: _ClassVar[int]
    WANTS_PAGES_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    since: bytes
    at: bytes
    chores: Chores
    wants_pages: bool
    def __init__(self, namespace: _Optional[int] = ..., since: _Optional[bytes] = ..., at: _Optional[bytes] = ..., chores: _Optional[_Union[Chores, _Mapping]] = ..., wants_pages: _Optional[bool] = ...) -> None: ...

class BeginResponse(_message.Message):
    __slots__ = ("version", "forget", "changes", "page_size", "allocation", "lease", "read_version", "told")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    READ_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    forget: bool
    changes: bytes
    page_size: int
    allocation: Allocation
    lease: Lease
    read_version: bytes
    told: bytes
    def __init__(self, version: _Optional[bytes] = ..., forget: _Optional[bool] = ..., changes: _Optional[bytes] = ..., page_size: _Optional[int] = ..., allocation: _Optional[_Union[Allocation, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., read_version: _Optional[bytes] = ..., told: _Optional[bytes] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("namespace", "version", "numbers")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    version: bytes
    numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, namespace: _Optional[int] = ..., version: _Optional[bytes] = ..., numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("pages",)
    PAGES_FIELD_NUMBER: _ClassVar[int]
    pages: _containers.RepeatedCompositeFieldContainer[Page]
    def __init__(self, pages: _Optional[_Iterable[_Union[Page, _Mapping]]] = ...) -> None: ...

class CommitPart(_message.Message):
    __slots__ = ("namespace", "reads", "writes", "page_size", "allocated", "freed", "lease", "staged", "reads_all")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_FIELD_NUMBER: _ClassVar[int]
    FREED_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    READS_ALL_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    reads: PageNumbers
    writes: _containers.RepeatedCompositeFieldContainer[PageWrite]
    page_size: int
    allocated: PageNumbers
    freed: PageNumbers
    lease: bytes
    staged: PageNumbers
    reads_all: bool
    def __init__(self, namespace: _Optional[int] = ..., reads: _Optional[_Union[PageNumbers, _Mapping]] = ..., writes: _Optional[_Iterable[_Union[PageWrite, _Mapping]]] = ..., page_size: _Optional[int] = ..., allocated: _Optional[_Union[PageNumbers, _Mapping]] = ..., freed: _Optional[_Union[PageNumbers, _Mapping]] = ..., lease: _Optional[bytes] = ..., staged: _Optional[_Union[PageNumbers, _Mapping]] = ..., reads_all: _Optional[bool] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("token", "base", "parts", "message", "durability", "ticket", "chores", "time_us", "read_version", "without_others", "wants_begin")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    CHORES_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    READ_VERSION_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_OTHERS_FIELD_NUMBER: _ClassVar[int]
    WANTS_BEGIN_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    base: bytes
    parts: _containers.RepeatedCompositeFieldContainer[CommitPart]
    message: str
    durability: Durability
    ticket: bytes
    chores: Chores
    time_us: int
    read_version: bytes
    without_others: bool
    wants_begin: bool
    def __init__(self, token: _Optional[bytes] = ..., base: _Optional[bytes] = ..., parts: _Optional[_Iterable[_Union[CommitPart, _Mapping]]] = ..., message: _Optional[str] = ..., durability: _Optional[_Union[Durability, str]] = ..., ticket: _Optional[bytes] = ..., chores: _Optional[_Union[Chores, _Mapping]] = ..., time_us: _Optional[int] = ..., read_version: _Optional[bytes] = ..., without_others: _Optional[bool] = ..., wants_begin: _Optional[bool] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("committed", "conflict", "lease", "begin")
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    committed: Committed
    conflict: Conflict
    lease: Lease
    begin: BeginResponse
    def __init__(self, committed: _Optional[_Union[Committed, _Mapping]] = ..., conflict: _Optional[_Union[Conflict, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., begin: _Optional[_Union[BeginResponse, _Mapping]] = ...) -> None: ...

class Committed(_message.Message):
    __slots__ = ("version", "time_us", "others", "without_others")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_OTHERS_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    time_us: int
    others: _containers.RepeatedCompositeFieldContainer[Others]
    without_others: bool
    def __init__(self, version: _Optional[bytes] = ..., time_us: _Optional[int] = ..., others: _Optional[_Iterable[_Union[Others, _Mapping]]] = ..., without_others: _Optional[bool] = ...) -> None: ...

class Others(_message.Message):
    __slots__ = ("changes", "omitted")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    changes: bytes
    omitted: bool
    def __init__(self, changes: _Optional[bytes] = ..., omitted: _Optional[bool] = ...) -> None: ...

class Conflict(_message.Message):
    __slots__ = ("namespace", "pages", "version", "fresh")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    pages: PageNumbers
    version: bytes
    fresh: _containers.RepeatedCompositeFieldContainer[Page]
    def __init__(self, namespace: _Optional[int] = ..., pages: _Optional[_Union[PageNumbers, _Mapping]] = ..., version: _Optional[bytes] = ..., fresh: _Optional[_Iterable[_Union[Page, _Mapping]]] = ...) -> None: ...

class StageRequest(_message.Message):
    __slots__ = ("namespace", "token", "writes")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    token: bytes
    writes: _containers.RepeatedCompositeFieldContainer[PageWrite]
    def __init__(self, namespace: _Optional[int] = ..., token: _Optional[bytes] = ..., writes: _Optional[_Iterable[_Union[PageWrite, _Mapping]]] = ...) -> None: ...

class OutcomeRequest(_message.Message):
    __slots__ = ("namespace", "token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    token: bytes
    def __init__(self, namespace: _Optional[int] = ..., token: _Optional[bytes] = ...) -> None: ...

class OutcomeResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    def __init__(self, version: _Optional[bytes] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("namespace", "after", "heartbeat")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    after: bytes
    heartbeat: float
    def __init__(self, namespace: _Optional[int] = ..., after: _Optional[bytes] = ..., heartbeat: _Optional[float] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("version", "forget", "changes", "clock_us")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    forget: bool
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    clock_us: int
    def __init__(self, version: _Optional[bytes] = ..., forget: _Optional[bool] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., clock_us: _Optional[int] = ...) -> None: ...

class GetAllocationRequest(_message.Message):
    __slots__ = ("namespace", "version")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    version: bytes
    def __init__(self, namespace: _Optional[int] = ..., version: _Optional[bytes] = ...) -> None: ...

class TakeLeaseRequest(_message.Message):
    __slots__ = ("namespace", "wish")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    WISH_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    wish: LeaseWish
    def __init__(self, namespace: _Optional[int] = ..., wish: _Optional[_Union[LeaseWish, _Mapping]] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("namespace", "lease", "seconds")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    lease: bytes
    seconds: float
    def __init__(self, namespace: _Optional[int] = ..., lease: _Optional[bytes] = ..., seconds: _Optional[float] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("namespace", "lease")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    lease: bytes
    def __init__(self, namespace: _Optional[int] = ..., lease: _Optional[bytes] = ...) -> None: ...

class TakeTurnRequest(_message.Message):
    __slots__ = ("namespace", "ticket", "pages", "seconds")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    ticket: bytes
    pages: PageNumbers
    seconds: float
    def __init__(self, namespace: _Optional[int] = ..., ticket: _Optional[bytes] = ..., pages: _Optional[_Union[PageNumbers, _Mapping]] = ..., seconds: _Optional[float] = ...) -> None: ...

class TakeTurnResponse(_message.Message):
    __slots__ = ("came",)
    CAME_FIELD_NUMBER: _ClassVar[int]
    came: bool
    def __init__(self, came: _Optional[bool] = ...) -> None: ...

class LeaveTurnRequest(_message.Message):
    __slots__ = ("namespace", "ticket")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    ticket: bytes
    def __init__(self, namespace: _Optional[int] = ..., ticket: _Optional[bytes] = ...) -> None: ...

class ChangelogRequest(_message.Message):
    __slots__ = ("namespace", "after", "until", "newest_first", "limit", "skip")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    after: bytes
    until: bytes
    newest_first: bool
    limit: int
    skip: int
    def __init__(self, namespace: _Optional[int] = ..., after: _Optional[bytes] = ..., until: _Optional[bytes] = ..., newest_first: _Optional[bool] = ..., limit: _Optional[int] = ..., skip: _Optional[int] = ...) -> None: ...

class ChangelogResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class VersionAtRequest(_message.Message):
    __slots__ = ("namespace", "time_us")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    time_us: int
    def __init__(self, namespace: _Optional[int] = ..., time_us: _Optional[int] = ...) -> None: ...

class VersionAtResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: bytes
    def __init__(self, version: _Optional[bytes] = ...) -> None: ...

class RevertRequest(_message.Message):
    __slots__ = ("namespace", "to", "message", "token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    to: bytes
    message: str
    token: bytes
    def __init__(self, namespace: _Optional[int] = ..., to: _Optional[bytes] = ..., message: _Optional[str] = ..., token: _Optional[bytes] = ...) -> None: ...

class GetRetentionRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    def __init__(self, namespace: _Optional[int] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("seconds", "max_bytes")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    max_bytes: int
    def __init__(self, seconds: _Optional[float] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("namespace", "retention")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    retention: Retention
    def __init__(self, namespace: _Optional[int] = ..., retention: _Optional[_Union[Retention, _Mapping]] = ...) -> None: ...

class SetTagRequest(_message.Message):
    __slots__ = ("namespace", "name", "version")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    name: str
    version: bytes
    def __init__(self, namespace: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[bytes] = ...) -> None: ...

class DeleteTagRequest(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    name: str
    def __init__(self, namespace: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ListTagsRequest(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    name: str
    def __init__(self, namespace: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class Tag(_message.Message):
    __slots__ = ("name", "version", "time_us")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: bytes
    time_us: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[bytes] = ..., time_us: _Optional[int] = ...) -> None: ...

class ListTagsResponse(_message.Message):
    __slots__ = ("tags",)
    TAGS_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedCompositeFieldContainer[Tag]
    def __init__(self, tags: _Optional[_Iterable[_Union[Tag, _Mapping]]] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("namespace", "version", "seconds", "hold")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    version: bytes
    seconds: float
    hold: bytes
    def __init__(self, namespace: _Optional[int] = ..., version: _Optional[bytes] = ..., seconds: _Optional[float] = ..., hold: _Optional[bytes] = ...) -> None: ...

class HoldResponse(_message.Message):
    __slots__ = ("hold",)
    HOLD_FIELD_NUMBER: _ClassVar[int]
    hold: bytes
    def __init__(self, hold: _Optional[bytes] = ...) -> None: ...

class UnholdRequest(_message.Message):
    __slots__ = ("namespace", "hold")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    hold: bytes
    def __init__(self, namespace: _Optional[int] = ..., hold: _Optional[bytes] = ...) -> None: ...

class CollectRequest(_message.Message):
    __slots__ = ("namespace", "dry_run", "seconds")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    dry_run: bool
    seconds: float
    def __init__(self, namespace: _Optional[int] = ..., dry_run: _Optional[bool] = ..., seconds: _Optional[float] = ...) -> None: ...

class Collected(_message.Message):
    __slots__ = ("horizon", "versions", "page_versions", "freed_bytes", "complete", "horizon_us")
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PAGE_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    HORIZON_US_FIELD_NUMBER: _ClassVar[int]
    horizon: bytes
    versions: int
    page_versions: int
    freed_bytes: int
    complete: bool
    horizon_us: int
    def __init__(self, horizon: _Optional[bytes] = ..., versions: _Optional[int] = ..., page_versions: _Optional[int] = ..., freed_bytes: _Optional[int] = ..., complete: _Optional[bool] = ..., horizon_us: _Optional[int] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: int
    def __init__(self, namespace: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("live_pages", "live_bytes", "history_pages", "history_bytes", "commits", "shared_pages", "shared_bytes")
    LIVE_PAGES_FIELD_NUMBER: _ClassVar[int]
    LIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_PAGES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    SHARED_PAGES_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    live_pages: int
    live_bytes: int
    history_pages: int
    history_bytes: int
    commits: int
    shared_pages: int
    shared_bytes: int
    def __init__(self, live_pages: _Optional[int] = ..., live_bytes: _Optional[int] = ..., history_pages: _Optional[int] = ..., history_bytes: _Optional[int] = ..., commits: _Optional[int] = ..., shared_pages: _Optional[int] = ..., shared_bytes: _Optional[int] = ...) -> None: ...

class SyncRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
