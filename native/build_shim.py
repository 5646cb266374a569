"""Builds `mvvfs._shim`: the VFS, as a Python module that is also a SQLite loadable extension."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent.name  # sources are named relative to setup.py
SOURCES = [
    "ahead.c",
    "alloc.c",
    "attached.c",
    "cache.c",
    "calls.c",
    "commit.c",
    "delta.c",
    "freelist.c",
    "journal.c",
    "locks.c",
    "mainfile.c",
    "pages.c",
    "position.c",
    "recent.c",
    "sets.c",
    "snapshot.c",
    "spill.c",
    "told.c",
    "vfs.c",
]

OWN = """\
void mv_interrupt_again(void);
void mv_set_pending(uint64_t object);
void mv_file_stats(void *file, mv_stats *out);
int mv_file_version(void *file, uint8_t *out);
uint32_t mv_file_reads(void *file, uint32_t *out);
uint32_t mv_file_peers(void *file, void **sessions, uint32_t room, int which);
const char *mv_file_schema(void *file);
void mv_file_cool(void *file);
int mv_file_unconfirmed(void *file);
int mv_file_pin(void *file, const uint8_t *version, void *alloc, uint32_t page_size);
const char *mv_uri(void *file, const char *key);
int mv_setup(void);
"""
"""What no header declares: of calls.c and the files around it, for Python only."""

ffibuilder = FFI()
ffibuilder.cdef(
    (Path(__file__).parent / "calls.h").read_text()
    + """
    extern "Python+C" int mv_py_open(mv_open *args);
    extern "Python+C" void mv_py_close(void *session);
    extern "Python+C" int mv_py_begin(void *session, mv_begin *args);
    extern "Python+C" int mv_py_join(void *session, mv_join *args);
    extern "Python+C" int mv_py_fetch(void *session, mv_fetch *args);
    extern "Python+C" int mv_py_commit(void *session, mv_commit *args);
    extern "Python+C" int mv_py_lease(void *session, mv_lease *args);
    extern "Python+C" int mv_py_renew_lease(void *session, double *seconds);
    extern "Python+C" int mv_py_pragma(void *session, void *file, const char *name,
                                       const char *value, char *out, int size);
    extern "Python+C" int mv_py_flush(void *session, const uint8_t *version);
    extern "Python+C" int mv_py_turn(void *session, int take);
    extern "Python+C" void mv_py_failed(void *session, void *file, int code, const char *what);
    extern "Python+C" void mv_py_slow(void *session, const mv_slow *args);

    enum { MV_FCNTL_AHEAD = 0x6d7601 };
    enum { MV_ASKS, MV_ASKS_IN_A_ROW, MV_RUNS_AHEAD };
    enum { MV_LEAVE_TURN, MV_TURN_OF_ONE, MV_TURN_OF_ALL };
    enum { MV_HOLDING, MV_WRITABLE, MV_ALL_PEERS };
    typedef struct mv_db mv_db;
    typedef struct mv_run { uint32_t first, count; } mv_run;
    typedef struct mv_alloc mv_alloc;
    mv_db *mv_db_new(uint64_t cache_bytes);
    void mv_db_retain(mv_db *db);
    void mv_db_release(mv_db *db);
    void mv_db_set_word(mv_db *db, uint64_t address, int followed);
    void mv_db_set_recent(mv_db *db, uint64_t address, uint64_t namespace_id);
    void mv_db_limit(mv_db *db, uint64_t cache_bytes);
    void mv_db_read_ahead(mv_db *db);
    void mv_db_watch(mv_db *db, int watched);
    int mv_db_watched(mv_db *db);
    int mv_db_set_page_size(mv_db *db, uint32_t page_size);
    uint32_t mv_db_page_size(mv_db *db);
    uint32_t mv_changes_list(const uint32_t *packed, uint64_t words, mv_change *out, uint32_t count);
    int mv_db_apply(mv_db *db, const mv_change *changes, uint32_t count, const uint8_t *version,
                    uint64_t word);
    void mv_db_reset(mv_db *db, const uint8_t *version, uint64_t word, mv_alloc *alloc);
    int mv_db_applied(mv_db *db, uint8_t *version);
    uint32_t mv_db_snapshots(mv_db *db, uint8_t *versions, uint32_t room);
    uint64_t mv_db_load_word(mv_db *db);
    void mv_head_move(uint64_t address, uint64_t commits, int64_t as_of);
    int mv_head_used(uint64_t address);
    int mv_db_insert(mv_db *db, uint32_t number, const uint8_t *from, const uint8_t *snapshot,
                     uint8_t chain, const uint8_t *data, uint32_t size);

    enum { MV_TOLD_LEFT, MV_TOLD_FORWARD, MV_TOLD_WHOLE, MV_TOLD_DAMAGED };
    typedef struct mv_page mv_page;
    typedef struct mv_told_page {
      uint32_t number, size, check;
      int state;
      uint8_t chain, version[10];
      mv_page *page;
      const uint8_t *content;
    } mv_told_page;
    typedef struct mv_told { mv_db *db; uint32_t count; mv_told_page *pages; mv_page **bases; } mv_told;
    int mv_told_apply(mv_told *t, mv_db *db, const uint8_t *told, uint64_t size, const mv_change *changes,
                      uint32_t count, const uint8_t *known);
    void mv_told_keep(mv_told *t, const uint8_t *snapshot);
    void mv_told_end(mv_told *t);

    mv_alloc *mv_alloc_new(uint32_t highest, const mv_run *runs, uint32_t count);
    void mv_alloc_release(mv_alloc *a);
"""
    + OWN
)
ffibuilder.set_source(
    "mvvfs._shim",
    '#include "mainfile.h"\n#include "told.h"\n' + OWN,
    sources=[f"{HERE}/{name}" for name in SOURCES],
    depends=[
        f"{HERE}/{name}"
        for name in (
            "ahead.h",
            "alloc.h",
            "ascending.h",
            "cache.h",
            "calls.h",
            "mainfile.h",
            "recent.h",
            "sets.h",
            "shim.h",
            "spill.h",
            "sqlite_abi.h",
            "store.h",
            "told.h",
        )
    ],
    include_dirs=[HERE],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"],
)
