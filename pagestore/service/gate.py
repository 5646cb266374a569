"""What every call passes: who calls, may they, how often; and on the way out its status, line and count.

Called by `server` for each call; calls one of the functions in `calls`.

1. A call without a known token learns nothing but that (UNAUTHENTICATED).
2. A namespace that the caller may not read is answered in the words of one that does not exist.
3. Every error of the store has a status (`wire.ERRORS`).  What is no error of the store is a mistake of
   ours: INTERNAL, with a traceback in the log and none in the answer.
4. A call that failed, or took longer than `slow`, is one line in the log.  That others were quicker
   (ABORTED: a turn, a lease that ended) is no failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from pagestore import wire
from pagestore.api import (
    InvalidRequestError,
    NamespaceId,
    NoSuchNamespaceError,
    NotAllowedError,
    OverloadedError,
    StoreError,
    StoreUnavailableError,
)
from pagestore.service.backend import Backend
from pagestore.service.tokens import EVERYTHING, Caller, Right, Tokens
from pagestore.v1 import pagestore_pb2 as pb

_SCHEME = "Bearer "
_MAX_CALLERS = 10_000
_BUSY_SECONDS = 0.1

log = logging.getLogger("pagestore.service")

ServicerContext = grpc.aio.ServicerContext[bytes, bytes]
Unary = Callable[[Backend, "Call", Any], Awaitable[Message]]
"""A call with one answer: the request's message to the response's."""
Stream = Callable[[Backend, "Call", Any], AsyncIterator[Message]]
"""One with many."""
Upload = Callable[[Backend, "Call", AsyncIterator[Any]], Awaitable[Message]]
"""One with many requests and one answer."""


class _UnauthenticatedError(NotAllowedError):
    """Nobody knows who calls."""


class Call:
    """One call, as the function that serves it sees it."""

    __slots__ = ("backend", "caller", "method", "namespace", "peer")

    def __init__(self, backend: Backend, method: str, caller: Caller, peer: str) -> None:
        self.backend = backend
        self.method = method
        self.caller = caller
        self.peer = peer
        self.namespace: NamespaceId | str | None = None
        """What it is about, for the log."""

    async def allow(self, right: Right, id_: int) -> NamespaceId:
        """The id of a namespace in which the caller has that right.

        Raises NoSuchNamespaceError, NotAllowedError, WireError."""
        namespace = wire.namespace_id_of(id_)
        self.namespace = namespace
        caller = self.caller
        if caller.everywhere is not None and caller.everywhere >= right:
            return namespace
        name = await self.backend.names.name(namespace)
        if name is None or not caller.may(Right.READ, name):
            raise NoSuchNamespaceError(f"namespace {namespace} does not exist (any more)")
        self._check(right, name)
        return namespace

    def allow_name(self, right: Right, name: str) -> str:
        """The same for a name that is thought to exist."""
        self.namespace = name
        if not self.caller.may(Right.READ, name):
            raise NoSuchNamespaceError(f"no database is called {name!r}")
        self._check(right, name)
        return name

    def allow_new(self, name: str) -> str:
        """For a name that is going to be given.  Raises NotAllowedError."""
        self.namespace = name
        self._check(Right.ADMIN, name)
        return name

    def _check(self, right: Right, name: str) -> None:
        if not self.caller.may(right, name):
            raise NotAllowedError(f"the token {self.caller.name!r} does not give {right.name.lower()} here")

    def label(self) -> str | None:
        return self.backend.names.label(self.namespace) if isinstance(self.namespace, int) else self.namespace


class Gate:
    """See the head of this file."""

    def __init__(self, backend: Backend, tokens: Tokens | None) -> None:
        self._backend = backend
        self._tokens = tokens
        self._strangers: OrderedDict[str, Caller] = OrderedDict()
        self._rates = _Rates(backend.settings.rate, backend.settings.burst)
        self._running = 0
        self._streams: Counter[str] = Counter()
        self.closing = False
        """Set when the service drains: no new streams, those that are open end."""

    # ---- the three kinds of calls ----

    def unary(self, method: str, request: type[Message], function: Unary) -> Callable[..., Awaitable[bytes]]:
        async def serve(data: bytes, context: ServicerContext) -> bytes:
            with _Measured(self, method, context) as measured:
                measured.received(len(data))
                call = self._admit(method, context, measured)
                answer = self._answer(await function(self._backend, call, self._parse(request, data)))
                measured.sent(len(answer))
            if measured.failure is not None:
                await _abort(context, measured.failure)
            return answer

        return self._counted(serve)

    def upload(
        self, method: str, request: type[Message], function: Upload
    ) -> Callable[..., Awaitable[bytes]]:
        async def serve(stream: AsyncIterator[bytes], context: ServicerContext) -> bytes:
            async def messages() -> AsyncIterator[Message]:
                async for data in stream:
                    measured.received(len(data))
                    yield self._parse(request, data)

            with _Measured(self, method, context) as measured:
                call = self._admit(method, context, measured)
                answer = self._answer(await function(self._backend, call, messages()))
                measured.sent(len(answer))
            if measured.failure is not None:
                await _abort(context, measured.failure)
            return answer

        return self._counted(serve)

    def stream(
        self, method: str, request: type[Message], function: Stream
    ) -> Callable[..., AsyncIterator[bytes]]:
        async def serve(data: bytes, context: ServicerContext) -> AsyncIterator[bytes]:
            with _Measured(self, method, context, timed=False) as measured:
                measured.received(len(data))
                call = self._admit(method, context, measured)
                with self._one_more_stream(call.caller):
                    async for message in function(self._backend, call, self._parse(request, data)):
                        if self._tokens is not None and not self._tokens.holds(call.caller):
                            raise _UnauthenticatedError("the token was revoked")
                        answer = self._answer(message)
                        measured.sent(len(answer))
                        yield answer
            if measured.failure is not None:
                await _abort(context, measured.failure)

        return serve

    def _counted(self, serve: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
        async def counted(request: object, context: ServicerContext) -> bytes:
            self._running += 1
            try:
                return await serve(request, context)
            finally:
                self._running -= 1

        return counted

    # ---- messages ----

    def _parse(self, kind: type[Message], data: bytes) -> Message:
        try:
            message = kind.FromString(data)
        except DecodeError as exc:
            raise InvalidRequestError(f"no {kind.DESCRIPTOR.name}: {exc}") from exc
        self._backend.ids.received(message)
        return message

    def _answer(self, message: Message) -> bytes:
        self._backend.ids.sent(message)
        return message.SerializeToString()

    # ---- who, and how often ----

    def _admit(self, method: str, context: ServicerContext, measured: _Measured) -> Call:
        """Raises NotAllowedError, OverloadedError."""
        peer = measured.peer
        caller = self._stranger(peer) if self._tokens is None else self._known(self._tokens, context)
        call = measured.call = Call(self._backend, method, caller, peer)
        if self._running > self._backend.settings.max_calls:
            raise OverloadedError("the service has too many calls at a time", _BUSY_SECONDS)
        self._rates.take(caller.name)
        return call

    def _known(self, tokens: Tokens, context: ServicerContext) -> Caller:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                text = value if isinstance(value, str) else value.decode("latin-1")
                caller = tokens.find(text[len(_SCHEME) :]) if text.startswith(_SCHEME) else None
                if caller is None:
                    raise _UnauthenticatedError("the token is not known (any more)")
                return caller
        raise _UnauthenticatedError("a token is needed: authorization: Bearer TOKEN")

    def _stranger(self, peer: str) -> Caller:
        """Without tokens everybody may do everything, and is known by the machine that they call from."""
        host = peer.rpartition(":")[0] if peer.startswith("ip") else peer
        caller = self._strangers.get(host)
        if caller is None:
            caller = self._strangers[host] = Caller(host, EVERYTHING)
            if len(self._strangers) > _MAX_CALLERS:
                self._strangers.popitem(last=False)
        return caller

    def _one_more_stream(self, caller: Caller) -> _Stream:
        """Raises OverloadedError, StoreUnavailableError."""
        settings = self._backend.settings
        if self.closing:
            raise StoreUnavailableError("the service is going down")
        if self._streams.total() >= settings.max_streams:
            raise OverloadedError(f"the service has {settings.max_streams} streams open", _BUSY_SECONDS)
        if self._streams[caller.name] >= settings.max_caller_streams:
            raise OverloadedError(
                f"{caller.name} has {self._streams[caller.name]} streams open", _BUSY_SECONDS
            )
        return _Stream(self._streams, caller.name, self._backend)

    # ---- what is told of a call ----

    def ended(self, call: Call | None, method: str, peer: str, measured: _Measured) -> None:
        seconds = measured.seconds()
        self._backend.metrics.of_call(method).ended(
            measured.status, seconds if measured.timed else None, measured.bytes_in, measured.bytes_out
        )
        failure = measured.failure
        failed = failure is not None and failure.status is not grpc.StatusCode.ABORTED
        if not failed and (not measured.timed or seconds < self._backend.settings.slow):
            return
        log.log(
            logging.INFO if failure is None or failure.status not in _ALARMING else logging.WARNING,
            "call failed" if failed else "slow call",
            extra={
                "method": method,
                "namespace": call.label() if call else None,
                "caller": call.caller.name if call else None,
                "peer": peer,
                "status": measured.status,
                "error": failure.error.message if failure else None,
                "seconds": round(seconds, 6),
            },
        )


_ALARMING = frozenset(
    (
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
)


class _Measured:
    """A call from its first byte to its end; an error that ends it is kept as `failure`."""

    def __init__(self, gate: Gate, method: str, context: ServicerContext, *, timed: bool = True) -> None:
        self._gate = gate
        self._method = method
        self.peer = context.peer()  # now: a call that was cancelled has none any more, and gRPC crashes
        self.timed = timed
        self.call: Call | None = None
        self.failure: wire.Failure | None = None
        self.status = "OK"
        self.bytes_in = self.bytes_out = 0
        self._start = time.perf_counter()

    def received(self, size: int) -> None:
        self.bytes_in += size

    def sent(self, size: int) -> None:
        self.bytes_out += size

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def __enter__(self) -> _Measured:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, _traceback: object) -> bool:
        if exc is not None:
            if isinstance(exc, (asyncio.CancelledError, GeneratorExit)):
                self.status = "CANCELLED"
            else:
                self.failure = _failure(exc, self._method)
                self.status = self.failure.status.name
        self._gate.ended(self.call, self._method, self.peer, self)
        return self.failure is not None


def _failure(exc: BaseException, method: str) -> wire.Failure:
    if isinstance(exc, _UnauthenticatedError):
        return wire.Failure(grpc.StatusCode.UNAUTHENTICATED, wire.failure_of(exc).error)
    if isinstance(exc, StoreError):
        return wire.failure_of(exc)
    if isinstance(exc, ValueError):  # WireError, and what `Store.create` says of a page size
        return wire.failure_of(InvalidRequestError(str(exc)))
    log.error("a call of %s failed for a reason of our own", method, exc_info=exc)
    return wire.Failure(grpc.StatusCode.INTERNAL, pb.Error(message="a mistake of the service, see its log"))


async def _abort(context: ServicerContext, failure: wire.Failure) -> NoReturn:
    await context.abort(
        failure.status,
        failure.error.message,
        ((wire.ERROR_KEY, failure.error.SerializeToString()),),
    )


class _Stream:
    """An open stream, counted."""

    def __init__(self, streams: Counter[str], name: str, backend: Backend) -> None:
        self._streams, self._name, self._backend = streams, name, backend

    def __enter__(self) -> None:
        self._streams[self._name] += 1
        self._backend.metrics.streams.inc()

    def __exit__(self, *_: object) -> None:
        self._streams[self._name] -= 1
        if not self._streams[self._name]:
            del self._streams[self._name]
        self._backend.metrics.streams.dec()


class _Rates:
    """A bucket for each caller: `rate` calls a second, and as many at once as `burst` says."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst or 2 * rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many calls a caller has left, and when that was so."""

    def take(self, name: str) -> None:
        """Raises OverloadedError."""
        if not self._rate:
            return
        now = time.monotonic()
        left, since = self._left.get(name, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        if left < 1:
            raise OverloadedError(
                f"{name} calls more often than {self._rate:g} times a second", (1 - left) / self._rate
            )
        self._left[name] = left - 1, now
        self._left.move_to_end(name)
        if len(self._left) > _MAX_CALLERS:
            self._left.popitem(last=False)
