"""Calls to a service: channels, deadlines, and what to do when an answer does not come.

Called by `store` and `follow`; calls gRPC.

1. Every call has a deadline.  Within it, what is safe to say twice is said again, after pauses that grow to a
   quarter of a second, to the next address where there are several.
2. A call that ended with an `Error` of the service had an answer.  One that ended in any other way may have
   been carried out: that is `Lost`, and who called decides whether it may be said again.
3. What must not be said twice is said first only where the service has just answered, so that "nobody is
   there" is known before anything can have happened.
4. A channel belongs to the process that made it: a child makes its own.
5. After a failure the next attempt has a channel of its own: one that lost its connection waits before it
   tries again, longer than we do, and with gRPC's older poller (`pagestore.poller`) for seconds.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar, cast

import grpc

from mvvfs.remote.address import Address
from pagestore import wire
from pagestore.api import FormatError, OutcomeUnknownError, OverloadedError, StoreError, StoreUnavailableError
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.v1.pagestore_pb2_grpc import PageStoreStub

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25
_SHORTEST_ATTEMPT = 0.25
"""Seconds that an attempt gets, however little time is left: less would be of no use."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # the service bounds what it answers
    ("grpc.max_send_message_length", -1),  # and says what it takes
    ("grpc.enable_retries", 0),  # who retries what is decided here
    ("grpc.use_local_subchannel_pool", 1),
)


class Lost(Exception):
    """No answer, so it is not known whether the call was carried out."""


class AnswerLostError(OutcomeUnknownError):
    """A call other than a commit that may have been carried out, and must not be repeated blindly."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(b"", reason)
        self.args = (
            f"the answer was lost, so {what} may have happened or not; look before trying again: {reason}",
        )


class _Line:
    """A channel to one of the addresses."""

    def __init__(self, address: Address, index: int) -> None:
        target = address.targets[index]
        self.index = index
        self.channel = (
            grpc.insecure_channel(target, _OPTIONS)
            if address.credentials is None
            else grpc.secure_channel(target, address.credentials, _OPTIONS)
        )
        self.stub = PageStoreStub(self.channel)  # type: ignore[no-untyped-call]  # generated
        self.answered = False
        """Whether the last call had an answer."""


def pauses() -> Iterator[float]:
    """Seconds between attempts: a random part of a span that doubles."""
    span = _FIRST_PAUSE
    while True:
        yield random.uniform(span / 2, span)
        span = min(span * 2, _LONGEST_PAUSE)


class Deadline:
    """A point in time, and the pauses until then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._pauses = pauses()

    @property
    def left(self) -> float:
        return self._ends - time.monotonic()

    def attempt(self) -> float:
        """Seconds for the next attempt: half of what is left, so that another one is possible."""
        return max(self.left / 2, _SHORTEST_ATTEMPT)

    def pause(self, at_least: float = 0.0) -> bool:
        """Wait before the next attempt; False, at once, if that would be too late."""
        seconds = max(next(self._pauses), at_least)
        if seconds > self.left:
            return False
        time.sleep(seconds)
        return True

    def __str__(self) -> str:
        return f"{self._seconds:g} s"


def not_before(exc: StoreError) -> float:
    """In how many seconds the same may be asked again, as the service said."""
    return exc.seconds if isinstance(exc, OverloadedError) else 0.0


def nothing(_answer: Any) -> None:
    """For `read`, where an answer says no more than that it is done."""


def understood(read: Callable[[Any], T], answer: Any) -> T:
    """Raises FormatError where the answer is not what the protocol says."""
    try:
        return read(answer)
    except wire.WireError as exc:
        raise FormatError(f"the service's answer can't be understood: {exc}") from exc


class Stream:
    """A server stream that may be ended from any thread.  Iterating raises Lost, StoreError."""

    def __init__(self, call: Any, failure: Callable[[grpc.RpcError], Exception]) -> None:
        self._call = call
        self._failure = failure
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._call
        except grpc.RpcError as exc:
            if not self._ended:
                raise self._failure(exc) from exc

    def end(self) -> None:
        self._ended = True
        self._call.cancel()

    def give_up(self) -> None:
        """Nothing comes any more: let it fail."""
        self._call.cancel()


class Calls:
    """The way to one service."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self._metadata = (("authorization", f"Bearer {address.token}"),) if address.token else ()
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._closed = False
        _alive.add(self)

    def call(
        self,
        method: str,
        request: Any,
        read: Callable[[Any], T],
        *,
        once: str = "",
        patience: float = 0.0,
    ) -> T:
        """What `read` makes of the answer to one call (of a server stream: of the list of its messages).

        `once`: what it does, if it must not be done twice.  `patience`: seconds that an answer may take
        beyond the timeout.  Raises StoreError; AnswerLostError with `once`."""
        deadline = Deadline(self.timeout)
        if once:
            self.reach(deadline)
        while True:
            try:
                return self.attempt(method, request, deadline.attempt() + patience, read)
            except Lost as lost:
                if once:
                    raise AnswerLostError(once, f"{self.address.url}: {lost}") from lost
                if not deadline.pause():
                    raise self.unreachable(deadline, lost) from lost
            except StoreUnavailableError as exc:
                if not deadline.pause(not_before(exc)):
                    raise

    def reach(self, deadline: Deadline) -> None:
        """Make sure that the service answers.  Raises StoreUnavailableError, NotAllowedError."""
        while not self._current().answered:
            try:
                self.attempt("Info", pb.InfoRequest(), deadline.attempt(), nothing)
            except Lost as lost:
                if not deadline.pause():
                    raise self.unreachable(deadline, lost) from lost
            except OverloadedError as exc:
                if not deadline.pause(exc.seconds):
                    raise

    def unreachable(self, deadline: Deadline, lost: Lost) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self.address.url} did not answer within {deadline}: {lost}")

    def attempt(self, method: str, request: Any, seconds: float, read: Callable[[Any], T]) -> T:
        """One try.  Raises Lost, StoreError."""
        line = self._current()
        try:
            sent = iter(request) if isinstance(request, list) else request  # a stream, sent anew at each try
            answer = getattr(line.stub, method)(sent, timeout=seconds, metadata=self._metadata)
            if isinstance(answer, grpc.Call):
                answer = list(cast(Iterable[Any], answer))  # a stream of answers
        except grpc.RpcError as exc:
            raise self._failure(line, exc) from exc
        except ValueError as exc:
            raise self._was_closed(exc) from exc
        line.answered = True
        return understood(read, answer)

    def watch(self, request: pb.WatchRequest) -> Stream:
        """A call without a deadline: it lasts until somebody ends it.  Raises StoreError."""
        line = self._current()
        try:
            stream = line.stub.Watch(request, metadata=self._metadata)
        except ValueError as exc:
            raise self._was_closed(exc) from exc
        return Stream(stream, lambda exc: self._failure(line, exc))

    def _was_closed(self, exc: ValueError) -> StoreUnavailableError:
        """gRPC's way to say that the channel was closed meanwhile."""
        return StoreUnavailableError(f"{self.address.url}: the store was closed: {exc}")

    def _failure(self, line: _Line, exc: grpc.RpcError) -> Lost | StoreError:
        assert isinstance(exc, grpc.Call)
        status, text = exc.code(), exc.details() or ""
        detail = next((value for key, value in exc.trailing_metadata() or () if key == wire.ERROR_KEY), None)
        error = wire.error_of(status, text, detail if isinstance(detail, bytes) else None)
        if detail is None and isinstance(error, StoreUnavailableError):
            self._leave(line)
            return Lost(f"{status.name.lower().replace('_', ' ')}: {text}")
        line.answered = True
        return error

    def _current(self) -> _Line:
        with self._lock:
            if self._closed:
                raise StoreUnavailableError(f"{self.address.url}: the store was closed")
            if self._line is None:
                self._line = _Line(self.address, 0)
            return self._line

    def _leave(self, line: _Line) -> None:
        """After a failure: a new connection, to the next address where there is one.  Calls that still run on
        the old line go on."""
        line.answered = False
        with self._lock:
            if self._line is line:
                self._line = _Line(self.address, (line.index + 1) % len(self.address.targets))

    def usable(self) -> bool:
        """False once it is closed."""
        return not self._closed

    def close(self) -> None:
        with self._lock:
            self._closed = True
            line, self._line = self._line, None
        if line is not None:
            line.channel.close()

    def forget(self) -> None:
        """In a child, after fork(): what was inherited is neither used nor closed."""
        _inherited.append(self._line)
        self._lock, self._line = threading.Lock(), None


_alive: weakref.WeakSet[Calls] = weakref.WeakSet()
_inherited: list[_Line | None] = []


def _after_fork() -> None:
    for calls in list(_alive):
        calls.forget()


os.register_at_fork(after_in_child=_after_fork)
