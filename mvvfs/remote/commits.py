"""A commit over a service, until it is known what came of it.

Called by `store`; calls the service by `calls`, and `changelog`.

A commit is sent again with its token until an answer comes: the service tells what came of a token that it
knows.  When none comes in time, OutcomeUnknownError; an error that came after an answer was lost is believed
only if it holds for good, or once the token is settled.
"""

from __future__ import annotations

from typing import Final

from mvvfs.remote import changelog
from mvvfs.remote.calls import Calls, Deadline, Lost, not_before
from pagestore import encoding, wire
from pagestore.api import (
    BelowHorizonError,
    Change,
    Changes,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    InvalidRequestError,
    Lease,
    LeaseEndedError,
    ListedChanges,
    NamespaceId,
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
    TurnTakenError,
    Version,
    VoidTokenError,
)
from pagestore.v1 import pagestore_pb2 as pb

_FINAL: Final = (ConflictError, BelowHorizonError, LeaseEndedError, VoidTokenError)
"""Refusals of a commit that no later try of the same one can turn into a success."""


def outcome(calls: Calls, namespace: NamespaceId, token: bytes) -> Version | None:
    """As `Store.outcome`."""
    request = pb.OutcomeRequest(namespace=namespace, token=token)
    return calls.call("Outcome", request, lambda answer: wire.optional_version_of(answer.version))


def own_change(request: CommitRequest, part: CommitPart, done: Committed) -> tuple[Change, ...]:
    """What a commit did to the namespace of one part, as the changelog has it; nothing: it only read."""
    pages = tuple(sorted((*(write.number for write in part.writes), *part.staged)))
    if not pages:
        return ()
    return (
        Change(
            done.version,
            done.time_us,
            pages,
            request.token,
            request.message,
            tuple(part.allocated),
            tuple(part.freed),
            tuple(sorted(write.number for write in part.writes if encoding.is_index(write.blob))),
        ),
    )


class SentCommit:
    """One commit on its way."""

    def __init__(self, calls: Calls, request: CommitRequest) -> None:
        self._calls = calls
        self._request = request
        self._url = calls.address.url

    def result(self) -> Committed:
        """As `Store.commit`, which calls this once."""
        deadline = Deadline(self._calls.timeout)
        message = _message(self._request)
        self._calls.reach(deadline)
        lost = False  # (no exception is kept in a variable: its traceback would hold on to itself)
        while True:
            try:
                return self._calls.attempt("Commit", message, deadline.attempt(), self._answer)
            except Lost as exc:
                lost = True
                if not deadline.pause():
                    reason = f"{self._url} did not answer within {deadline}: {exc}"
                    raise OutcomeUnknownError(self._request.token, reason) from exc
            except _FINAL:
                raise
            except StoreError as exc:
                if _may_yet_go_through(exc, lost) and deadline.pause(not_before(exc)):
                    continue
                done = self._settle(str(exc)) if lost else None
                if done is None:
                    raise
                return done

    def _answer(self, response: pb.CommitResponse) -> Committed:
        lease = wire.lease_of(response.lease)
        if response.HasField("conflict"):
            raise _conflict(response.conflict, lease)  # in no variable: its traceback would hold on to itself
        version = wire.version_of(response.committed.version)
        parts = self._request.parts
        return wire.committed_of(
            response.committed,
            lambda part: self._others(parts[part].namespace, version),
            lease=lease,
            begin=wire.begin_of(response.begin) if response.HasField("begin") else None,
        )

    def _others(self, namespace: NamespaceId, version: Version) -> Changes:
        found = changelog.read(self._calls, namespace, after=self._request.base, until=version)
        return ListedChanges(change for change in found if change.version != version)

    def _settle(self, refusal: str) -> Committed | None:
        """After a refusal: what an earlier try, whose answer was lost, came to; None: nothing, for good."""
        request = self._request
        first = request.parts[0].namespace
        try:
            version = outcome(self._calls, first, request.token)
        except StoreError as exc:
            raise OutcomeUnknownError(request.token, f"{self._url}: {exc} (after: {refusal})") from exc
        if version is None:
            return None
        own = next(changelog.read(self._calls, first, after=request.base, until=version, newest_first=True))
        others = tuple(self._others(part.namespace, version) for part in request.parts)
        return Committed(version, own.time_us, others)


def _message(request: CommitRequest) -> pb.CommitRequest:
    try:
        return wire.commit_message(request)
    except (ValueError, TypeError, OverflowError) as exc:  # as protobuf says that a field can't hold it
        raise InvalidRequestError(str(exc)) from exc


def _conflict(message: pb.Conflict, lease: Lease | None) -> ConflictError:
    conflict = wire.conflict_of(message)
    conflict.lease = lease
    return conflict


def _may_yet_go_through(exc: StoreError, lost: bool) -> bool:
    """Whether the same commit is worth another try.  For a turn the caller waits, unless a try was lost."""
    return isinstance(exc, StoreUnavailableError) or (lost and isinstance(exc, TurnTakenError))
