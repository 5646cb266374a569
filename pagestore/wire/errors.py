"""The one table between errors, their kinds on the wire and gRPC's status codes.

Re-exported by `pagestore.wire`; calls `fields`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import grpc

from pagestore.api import (
    BelowHorizonError,
    CorruptPageError,
    FormatError,
    InvalidNameError,
    InvalidRequestError,
    LeaseEndedError,
    LimitError,
    NameTakenError,
    NoSuchNamespaceError,
    NoSuchVersionError,
    NotAllowedError,
    OutcomeUnknownError,
    OverloadedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    TurnTakenError,
    UnsupportedError,
    VoidTokenError,
)
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.wire.fields import version_of

ERROR_KEY: Final = "pagestore-error-bin"
"""Trailing metadata that holds an `Error`."""

MAX_ERROR_TEXT: Final = 1024
"""Characters: metadata is bounded by gRPC to some kilobytes."""


class _Row(NamedTuple):
    raised: type[StoreError]
    kind: pb.ErrorKind
    status: grpc.StatusCode


ERRORS: Final[tuple[_Row, ...]] = (
    _Row(NoSuchNamespaceError, pb.NO_SUCH_NAMESPACE, grpc.StatusCode.NOT_FOUND),
    _Row(NameTakenError, pb.NAME_TAKEN, grpc.StatusCode.ALREADY_EXISTS),
    _Row(InvalidNameError, pb.INVALID_NAME, grpc.StatusCode.INVALID_ARGUMENT),
    _Row(LeaseEndedError, pb.LEASE_ENDED, grpc.StatusCode.ABORTED),
    _Row(TurnTakenError, pb.TURN_TAKEN, grpc.StatusCode.ABORTED),
    _Row(BelowHorizonError, pb.BELOW_HORIZON, grpc.StatusCode.OUT_OF_RANGE),
    _Row(NoSuchVersionError, pb.NO_SUCH_VERSION, grpc.StatusCode.OUT_OF_RANGE),
    _Row(CorruptPageError, pb.CORRUPT_PAGE, grpc.StatusCode.DATA_LOSS),
    _Row(OutcomeUnknownError, pb.OUTCOME_UNKNOWN, grpc.StatusCode.UNKNOWN),
    _Row(StoreUnavailableError, pb.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    _Row(OverloadedError, pb.OVERLOADED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    _Row(StoreFullError, pb.STORE_FULL, grpc.StatusCode.RESOURCE_EXHAUSTED),
    _Row(StoreReadOnlyError, pb.READ_ONLY, grpc.StatusCode.FAILED_PRECONDITION),
    _Row(FormatError, pb.FORMAT, grpc.StatusCode.FAILED_PRECONDITION),
    _Row(LimitError, pb.LIMIT, grpc.StatusCode.RESOURCE_EXHAUSTED),
    _Row(InvalidRequestError, pb.INVALID_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    _Row(VoidTokenError, pb.VOID_TOKEN, grpc.StatusCode.FAILED_PRECONDITION),
    _Row(NotAllowedError, pb.NOT_ALLOWED, grpc.StatusCode.PERMISSION_DENIED),
    _Row(UnsupportedError, pb.UNSUPPORTED, grpc.StatusCode.UNIMPLEMENTED),
)
"""Every error but `ConflictError`, which is an answer."""

_BY_TYPE: Final = {row.raised: row for row in ERRORS}
_BY_KIND: Final = {row.kind: row.raised for row in ERRORS}

_BY_STATUS: Final[dict[grpc.StatusCode, type[StoreError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: NotAllowedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitError,  # gRPC's own, for a message that is too large
}
"""What a status without an `Error` means; any other: the service could not be reached."""


class Failure(NamedTuple):
    """An error as it goes over the wire."""

    status: grpc.StatusCode
    error: pb.Error


def failure_of(exc: StoreError) -> Failure:
    """A subclass counts as its nearest known base."""
    row = next((_BY_TYPE[kind] for kind in type(exc).__mro__ if kind in _BY_TYPE), None)
    message = str(exc)[:MAX_ERROR_TEXT]
    if row is None:
        return Failure(grpc.StatusCode.INTERNAL, pb.Error(message=message))
    error = pb.Error(kind=row.kind, message=message)
    if isinstance(exc, BelowHorizonError):
        error.version, error.horizon = exc.version, exc.horizon
    elif isinstance(exc, (TurnTakenError, OverloadedError)):
        error.seconds = exc.seconds
    elif isinstance(exc, OutcomeUnknownError):
        error.token = exc.token
    return Failure(row.status, error)


def error_of(status: grpc.StatusCode, text: str, detail: bytes | None) -> StoreError:
    """The error that a call ended with.  `detail`: what stood under `ERROR_KEY`; None if nothing did."""
    if detail is None:
        kind = _BY_STATUS.get(status, StoreUnavailableError)
        return kind(text or status.name)
    error = pb.Error.FromString(detail)
    raised = _BY_KIND.get(error.kind, _BY_STATUS.get(status, StoreUnavailableError))
    if raised is BelowHorizonError:
        return BelowHorizonError(version_of(error.version), version_of(error.horizon, "horizon"))
    if raised is TurnTakenError:
        return TurnTakenError(error.seconds)
    if raised is OverloadedError:
        return OverloadedError(error.message, error.seconds)
    if raised is OutcomeUnknownError:
        return OutcomeUnknownError(error.token, error.message)
    return raised(error.message)
