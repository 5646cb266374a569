/*
** The page cache: one per database and process, shared by its connections, which may stand at
** different versions.  Called by snapshot.c, locks.c, pages.c and commit.c (SQL threads)
** and, through cffi, by mvvfs/database.py.
**
** Invariants:
**
** 1. An entry's content never changes.  It is the page's content at every version in [from, end);
**    an open entry has no end yet: it is valid from `from` up to `applied`.
** 2. `applied` is the newest version whose changelog has been taken in: of every page that changed at
**    or before it, no open entry holds an older version; and `alloc` is the allocation at it.
** 3. A page fetched at snapshot S becomes an open entry only if nothing after S has been applied;
**    otherwise it is valid in [from, S] alone.  So a change that passes during a fetch is never lost.
** 4. `word_seen` is an even value of the store's head word: as long as the word still holds it, there
**    is no commit newer than `applied`.  0 promises nothing.  Of a followed store this holds as of the time
**    that stands behind the word (see mv_head), so it is good for whoever takes a snapshot of that age.
** 5. The mutex is never held while calling out (to Python, to SQLite).
**
** The cache is bounded in bytes; eviction is CLOCK (second chance), and pinned entries are skipped.
*/
#ifndef MV_CACHE_H
#define MV_CACHE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "ahead.h"
#include "alloc.h"
#include "calls.h"
#include "recent.h"
#include "sets.h"

#define MV_VERSION_SIZE 10
#define MV_SMALLEST_PAGE 512 /* bytes: https://www.sqlite.org/fileformat2.html#page_size */
#define MV_LARGEST_PAGE 65536
#define MV_HIGHEST_PAGE 0xFFFFFFFEu /* SQLite's SQLITE_MAX_PAGE_COUNT */
/* In a set of changed pages: any page may have changed; pages were allocated or freed. */
#define MV_EVERYTHING 0xFFFFFFFEu
#define MV_REALLOCATED 0xFFFFFFFDu

typedef struct mv_version { /* ten bytes, big-endian, as two ordered numbers */
  uint64_t hi;
  uint16_t lo;
} mv_version;

static inline int mv_version_cmp(mv_version a, mv_version b) {
  if (a.hi != b.hi) return a.hi < b.hi ? -1 : 1;
  return a.lo == b.lo ? 0 : a.lo < b.lo ? -1 : 1;
}
mv_version mv_version_get(const uint8_t b[MV_VERSION_SIZE]);
void mv_version_put(mv_version v, uint8_t b[MV_VERSION_SIZE]);

typedef struct mv_page mv_page;
struct mv_page { /* a page's content, in the cache or in a connection's write set */
  mv_page *hash_next;
  mv_page *clock_prev, *clock_next;
  mv_version from, end;
  uint32_t number;
  uint32_t size;
  uint32_t pins;
  uint8_t chain; /* deltas between this version and a whole one, as stored */
  uint8_t open;
  uint8_t referenced;
  uint8_t cached; /* linked into the cache; a pinned page that was dropped is freed by its last unpin */
  uint8_t spilled; /* its content lies elsewhere, for as long as its transaction lasts: not for the cache */
  uint8_t *data;
};

typedef struct mv_snapshot mv_snapshot;
struct mv_snapshot { /* a version that a connection stands at */
  mv_snapshot *prev, *next;
  mv_version version;
  int active;
};

/* What stands at the address of a head word.  All but `word` is of a followed store only: there the word is
** the process's own, moved by whoever hears of commits, before `as_of` is. */
typedef struct mv_head {
  _Atomic uint64_t word;
  _Atomic int64_t as_of; /* the word is no older than this: CLOCK_MONOTONIC, nanoseconds */
  _Atomic uint64_t used; /* set to 1 by who looks, to 0 by who follows */
} mv_head;

/* Of a followed store: there were so many more commits, and nothing else up to that time. */
void mv_head_move(uint64_t address, uint64_t commits, int64_t as_of);
/* Whether anybody looked since the last call. */
int mv_head_used(uint64_t address);

typedef struct mv_db {
  pthread_mutex_t mutex;
  atomic_uint references;
  mv_head *head; /* the store's head word, or NULL */
  int followed;
  uint64_t word_seen;
  const mv_recent *recent; /* the store's recent changes, or NULL */
  uint64_t recent_at;      /* where to start looking there */
  uint64_t id;             /* of the namespace */
  uint32_t page_size; /* bytes; 0 while the namespace is empty and undecided */
  mv_version applied;
  mv_alloc *alloc; /* the allocation at `applied` */
  mv_version last_change; /* newest version known to have changed this namespace */
  mv_version change_before; /* the newest but that one, or a later one */
  int has_applied;
  mv_page **buckets;
  uint32_t bucket_count, page_count;
  mv_page *hand;
  size_t bytes, limit;
  mv_snapshot snapshots; /* list head */
  int unwatched; /* nobody looks whether snapshots last long (mvvfs/holding.py) */
  int reads_ahead;
  mv_tree tree; /* if so: of the pages here */
} mv_db;

mv_page *mv_page_new(uint32_t number, uint32_t size);
mv_page *mv_page_spilled(uint32_t number, uint32_t size, uint8_t *data);

mv_db *mv_db_new(uint64_t cache_bytes);
void mv_db_retain(mv_db *db);
void mv_db_release(mv_db *db);
void mv_db_set_word(mv_db *db, uint64_t address, int followed);
void mv_db_set_recent(mv_db *db, uint64_t address, uint64_t namespace_id);
void mv_db_limit(mv_db *db, uint64_t cache_bytes);
void mv_db_read_ahead(mv_db *db); /* from now on */
/* Whether somebody looks how long snapshots last.  Where nobody does, no snapshot begins without asking
** Python, which sees to it; and who has begun one asks again if this has changed meanwhile. */
void mv_db_watch(mv_db *db, int watched);
int mv_db_watched(mv_db *db);

/* `count` changes out of their packed form (`Changes.packed` in pagestore/api.py), which they point into.
** How many were there whole. */
#define MV_PACKED_CHANGE 6 /* words, without the numbers: 10 bytes of version, 2 of nothing, three counts */
uint32_t mv_changes_list(const uint32_t *packed, uint64_t words, mv_change *out, uint32_t count);

/* The changelog, from Python: every change in (applied, version], oldest first; older ones among them do
** no harm.  With `everything`, the changes are not known: no page is, and the allocation is `alloc`, of
** which the caller keeps its reference.  0, or -1 when out of memory. */
int mv_db_apply(mv_db *db, const mv_change *changes, uint32_t count, const uint8_t *version, uint64_t word);
void mv_db_reset(mv_db *db, const uint8_t *version, uint64_t word, mv_alloc *alloc);
int mv_db_applied(mv_db *db, uint8_t *version);
/* The versions that connections stand at, ten bytes each, at most `room`; how many were copied. */
uint32_t mv_db_snapshots(mv_db *db, uint8_t *versions, uint32_t room);
uint64_t mv_db_load_word(mv_db *db);
uint64_t mv_db_word_seen(mv_db *db);
int mv_db_set_page_size(mv_db *db, uint32_t page_size); /* 0, or -1: no SQLite page has that size */
uint32_t mv_db_page_size(mv_db *db);

/* Content, from Python: a page read at `snapshot` whose own version is `from`. */
int mv_db_insert(mv_db *db, uint32_t number, const uint8_t *from, const uint8_t *snapshot, uint8_t chain,
                 const uint8_t *data, uint32_t size);
/* The same with a page that has its content, version and chain; it is the cache's from now on. */
void mv_db_put(mv_db *db, mv_page *p, mv_version snapshot);

/* From SQL threads. */
typedef struct mv_start { /* what a transaction begins with */
  mv_version last_change, change_before;
  mv_alloc *alloc; /* one reference */
  uint32_t page_size;
} mv_start;

/* Hold a snapshot at `applied`: only if the head word has not moved, or what moved it is among the recent
** changes and taken in now; or in any case.  `within`: how old the word of a followed store may be, in
** nanoseconds. */
int mv_db_quick_begin(mv_db *db, mv_snapshot *s, int64_t within, mv_start *out);
void mv_db_begin(mv_db *db, mv_snapshot *s, mv_start *out);
/* Move a snapshot to `v`, or hold one there. */
void mv_db_hold(mv_db *db, mv_snapshot *s, mv_version v);
void mv_db_drop(mv_db *db, mv_snapshot *s);
/* Whether the database is now what it was at `v`, as far as that can be told without asking. */
int mv_db_unmoved(mv_db *db, mv_version v, int64_t within);
/* The version up to which all is known, if there is no newer commit to the database. */
int mv_db_newest(mv_db *db, mv_version *out);
/* Hold a snapshot at `v`, a version of the store that exists, if the database's state then is known. */
int mv_db_begin_at(mv_db *db, mv_snapshot *s, mv_version v, mv_start *out);
/* Move a snapshot to a later version `v`, between which and its own nothing changed in the database. */
void mv_db_relabel(mv_db *db, mv_snapshot *s, mv_version v);
int mv_db_copy(mv_db *db, uint32_t number, mv_version at, void *out, uint32_t offset, uint32_t amount);
/* What to fetch together with a page that is missing at `at`: see mv_ahead_plan().  `out` has room for
** MV_AHEAD_PAGES. */
uint32_t mv_db_plan(mv_db *db, mv_ahead *a, uint32_t number, mv_version at, const mv_alloc *alloc,
                    uint32_t *out);
mv_page *mv_db_pin(mv_db *db, uint32_t number, mv_version at);
void mv_db_unpin(mv_db *db, mv_page *page);

/* Collects what mv_db_apply sees on this thread, until called with NULL. */
void mv_collect_changes(mv_set *into);

/* A commit of our own at `version`, based on the snapshot's: takes the pages over, applies what others did
** in between, and moves the snapshot.  `part` may have written nothing.  0, or -1 when out of memory (the
** cache is then as if it had not been told). */
int mv_db_committed(mv_db *db, mv_snapshot *s, const mv_part *part, const uint8_t *version, mv_page **pages,
                    uint64_t word_before);
/* The same where it is not known what others did: the pages are there for who begins at `version` or later,
** when the changelog has been applied so far. */
void mv_db_committed_unknown(mv_db *db, mv_snapshot *s, const mv_part *part, const uint8_t *version,
                             mv_page **pages);

/* ---- between cache.c and position.c; the caller holds the mutex ---- */

mv_version mv_version_next(mv_version v);
void mv_db_link(mv_db *db, mv_page *p);
void mv_db_evict(mv_db *db); /* down to the limit */
/* The page's next version is `v`: an open entry ends there; one that no snapshot needs is dropped. */
void mv_db_supersede(mv_db *db, uint32_t number, mv_version v);
void mv_db_end_all(mv_db *db); /* every open entry, behind `applied` */

#endif
