"""Head words of an embedded store: the file `heads`, one 64-bit word for each namespace; and its gate.

Called by `sqlite` around each commit, and (for the address of a word) by `Store.head_word`.  The words'
rules stand in native/words.c.

1. Word n of the file is that of namespace n.  Word 0 holds the gate (native/gate.c).
2. The file only grows, in chunks, and is mapped chunk by chunk as namespaces are used; nobody maps
   beyond its end, and nobody shrinks it.
3. Its content means something only while somebody has it mapped: it need not survive a power cut.
"""

from __future__ import annotations

import threading

from pagestore.api import HeadWord, NamespaceId
from pagestore.engines.mapped import mapped
from pagestore.native import lib

_CHUNK = 65536  # a multiple of every page size
_WORD = 8

begin = lib.mv_word_begin
end = lib.mv_word_end
load = lib.mv_word_load


class Gate:
    """Sleep until somebody has let go of the write lock: see native/gate.c."""

    def __init__(self, word: HeadWord) -> None:
        self._keepalive = word.keepalive
        self._address = word.address

    def look(self) -> int:
        return lib.mv_gate_look(self._address)

    def wait(self, looked: int, seconds: float) -> int:
        """Until the gate is not what it was when looked at, or the time is up; what it is now."""
        return lib.mv_gate_wait(self._address, looked, int(seconds * 1e6))

    def open(self) -> None:
        lib.mv_gate_open(self._address)


class Heads:
    """The head words that this process has mapped."""

    def __init__(self, path: str, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only
        self._lock = threading.Lock()
        self._chunks: dict[int, HeadWord] = {}
        """First address of each mapped chunk."""
        self._addresses: dict[NamespaceId, int] = {}
        """Of words that were changed, in these chunks."""

    def word(self, namespace: NamespaceId) -> HeadWord | None:
        """None: a read-only opener found no such word."""
        index, offset = divmod(namespace * _WORD, _CHUNK)
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._map(index)
            if chunk is None:
                return None
        word = HeadWord(chunk.address + offset, chunk.keepalive)
        if not self._read_only:
            lib.mv_word_start(word.address)
        return word

    def address(self, namespace: NamespaceId) -> int:
        """Of a word that is going to be changed."""
        address = self._addresses.get(namespace)
        if address is None:
            word = self.word(namespace)
            assert word is not None  # only a read-only opener finds none
            address = self._addresses[namespace] = word.address
        return address

    def gate(self) -> Gate:
        """Where to wait for the engine's write lock.  Not for a read-only opener."""
        word = self.word(NamespaceId(0))
        assert word is not None
        return Gate(word)

    def spoil(self) -> None:
        """Whoever looks at words here has to ask the engine from now on: the store is not there any more."""
        if self._read_only:
            return
        with self._lock:
            for index, chunk in self._chunks.items():
                for offset in range(0 if index else _WORD, _CHUNK, _WORD):  # not the gate
                    if load(chunk.address + offset):
                        begin(chunk.address + offset)

    def close(self) -> None:
        """Let go of all mappings; each lives on as long as a word of it is in use."""
        with self._lock:
            self._chunks.clear()
            self._addresses.clear()

    def _map(self, index: int) -> HeadWord | None:
        """Raises StoreFullError, StoreUnavailableError."""
        with self._lock:
            if index not in self._chunks:
                memory = mapped(self._path, index * _CHUNK, _CHUNK, read_only=self._read_only)
                if memory is None:
                    return None
                self._chunks[index] = HeadWord(memory.address, memory.keepalive)
            return self._chunks[index]
