"""Something unreliable between a client and a service: it loses answers, repeats and delays calls, counts.

A call passes as bytes.  `faults` is asked for each unary call what is to go wrong with it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum, auto

import grpc

from pagestore import wire

STREAMS = ("Changelog", "List", "Watch")


class Fault(Enum):
    NONE = auto()
    CUT_BEFORE = auto()
    """The call does not get through."""
    CUT_AFTER = auto()
    """It does, and its answer does not come back."""
    TWICE = auto()
    """It gets through twice, one after the other; the second answer comes back."""
    BOTH_AT_ONCE = auto()
    """It gets through twice at the same time; either answer comes back."""
    SLOW_THERE = auto()
    """It gets through late."""
    SLOW_BACK = auto()
    """Its answer comes back late."""
    SWALLOWED = auto()
    """It does not get through, and nobody says so."""


Plan = Callable[[str, bytes], Fault]


class Proxy(grpc.GenericRpcHandler):
    """Calls go on to `target`, as far as `faults` lets them."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)])
        self._end = threading.Event()
        self.faults: Plan = lambda method, request: Fault.NONE
        self.counts: Counter[str] = Counter()
        """Calls that came, by name."""
        self.delay = 0.3
        """Seconds of what is slow."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = details.method
        method = path.rpartition("/")[2]
        metadata = details.invocation_metadata
        self.counts[method] += 1
        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._stream(path, metadata, request, context)
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._unary(path, method, metadata, request, context)
        )

    def _unary(self, path, method, metadata, request, context):  # type: ignore[no-untyped-def]
        fault = self.faults(method, request)
        forward = self._channel.unary_unary(path)
        try:
            if fault is Fault.CUT_BEFORE:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut before")
            if fault is Fault.SWALLOWED:
                self._end.wait(context.time_remaining())
                context.abort(grpc.StatusCode.UNAVAILABLE, "swallowed")
            if fault is Fault.SLOW_THERE:
                time.sleep(self.delay)
            if fault is Fault.BOTH_AT_ONCE:
                first = forward.future(request, metadata=metadata)
                second = forward.future(request, metadata=metadata)
                first.exception()
                return second.result()
            answer = forward(request, metadata=metadata)
            if fault is Fault.TWICE:
                answer = forward(request, metadata=metadata)
            if fault is Fault.SLOW_BACK:
                time.sleep(self.delay)
        except grpc.RpcError as exc:
            context.set_trailing_metadata(
                tuple((key, value) for key, value in exc.trailing_metadata() if key == wire.ERROR_KEY)
            )
            context.abort(exc.code(), exc.details())
        if fault is Fault.CUT_AFTER:
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut after")
        return answer

    def _stream(self, path, metadata, request, context):  # type: ignore[no-untyped-def]
        answers = self._channel.unary_stream(path)(request, metadata=metadata)
        context.add_callback(answers.cancel)
        try:
            yield from answers
        except grpc.RpcError as exc:
            if exc.code() is not grpc.StatusCode.CANCELLED:
                context.set_trailing_metadata(
                    tuple((key, value) for key, value in exc.trailing_metadata() if key == wire.ERROR_KEY)
                )
                context.abort(exc.code(), exc.details())

    def close(self) -> None:
        self._end.set()
        self._channel.close()


@contextmanager
def between(target: str, socket: str) -> Iterator[Proxy]:
    """A proxy that listens at a Unix socket."""
    proxy = Proxy(target)
    server = grpc.server(
        ThreadPoolExecutor(32), handlers=(proxy,), options=[("grpc.max_receive_message_length", -1)]
    )
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield proxy
    finally:
        proxy.close()
        server.stop(None).wait()
