"""A watch on a distant namespace, for somebody who reads it.  (Followers keep one of their own: `follow`.)

Called by `store`; calls the service by `calls`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from mvvfs.remote.calls import Calls, Deadline, Lost, Stream, understood
from pagestore import wire
from pagestore.api import NamespaceId, Version, Watch, Watched
from pagestore.v1 import pagestore_pb2 as pb


class RemoteWatch(Watch):
    """It goes on after a failure, for as long as others are retried."""

    def __init__(self, calls: Calls, namespace: NamespaceId, after: Version, heartbeat: float) -> None:
        self._calls = calls
        self._namespace = namespace
        self._version = after
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._closed = False
        self._stream: Stream | None = None
        self._messages: Iterator[pb.WatchResponse] = iter(())

    def __next__(self) -> Watched:
        deadline = Deadline(self._calls.timeout)
        while not self._closed:
            try:
                for message in self._messages:
                    watched = understood(wire.watched_of, message)
                    self._version = max(self._version, watched.version)
                    return watched
                self._open()
            except Lost as lost:
                self._messages = iter(())
                if not deadline.pause():
                    raise self._calls.unreachable(deadline, lost) from lost
        raise StopIteration

    def _open(self) -> None:
        request = pb.WatchRequest(namespace=self._namespace, after=self._version, heartbeat=self._heartbeat)
        with self._lock:
            if not self._closed:
                self._stream = self._calls.watch(request)
                self._messages = iter(self._stream)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._stream is not None:
                self._stream.end()
