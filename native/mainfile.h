/*
** A database file: one connection's view of one namespace.  Used by mainfile.c (opening, control),
** attached.c (the connection's other databases), locks.c, snapshot.c, pages.c (reading and writing pages),
** freelist.c and commit.c.
**
** SQLite moves it through these states (transition table in locks.c):
**
**   IDLE       no lock                       xLock(SHARED) begins a snapshot
**   READING    SHARED: a snapshot is held    xLock(RESERVED) begins to collect writes
**   WRITING    RESERVED or more              FCNTL_SYNC commits, or drops what a rollback wrote back
**   COMMITTED  the store has it              until xUnlock; nothing more may be written
**   REFUSED    the commit failed             what the rollback writes back is ignored, until NONE
**
** Invariants (the rules are those of docs/design/sqlite-vfs.md):
**
** 1. Every page that SQLite may hold in its own cache is in `reads`: the set is emptied only when the
**    change counter shown moves by 2 or more, because that makes SQLite drop its cache.      (rules 2, 3)
** 2. Everything that was read is as of `base`; a page in `stale` is not, and reading it fails.  (rule 4)
** 3. `writes` holds the newest image of each page written since RESERVED; it reaches the store only in
**    commit.c, and only if page 1 carries the counter shown + 1.                           (rules 8, 9)
** 4. The page count and freelist shown are those of `list`, from xLock(SHARED) until the lock falls; what
**    SQLite does to them is taken back out of its writes at commit (freelist.c).        (rules 18 to 23)
** 5. A commit is answered OK, 517 (SQLITE_BUSY_SNAPSHOT) or an error that is not BUSY.        (rule 10)
** 6. After a commit that did not tell what others did (`unsure`), nothing is read until the lock falls, and
**    SQLite's cache is kept by the next snapshot only if that commit was the only one.
** 7. A snapshot that runs ahead may be older than commits that others know of.  Its own commit is checked as any
**    other; before anything else comes of it, whoever allowed it asks (`unconfirmed`).
** 8. The files of one connection and store that hold SHARED have the same `base`, and commit together.
**                                                                                        (rules 15 to 17)
*/
#ifndef MV_MAINFILE_H
#define MV_MAINFILE_H

#include "alloc.h"
#include "shim.h"
#include "spill.h"

#include <string.h>
#include <time.h>

#define MV_HEADER_SIZE 12 /* bytes 28-39 of page 1: page count, first trunk, freelist count */

#define MV_SMALLEST_LEASE 16
#define MV_LARGEST_LEASE 1024
/* Of a writer that uses up each lease within a second, though its transactions are small. */
#define MV_LARGEST_QUICK_LEASE 128

typedef enum mv_state { MV_IDLE, MV_READING, MV_WRITING, MV_COMMITTED, MV_REFUSED } mv_state;

typedef struct mv_file mv_file;
struct mv_file {
  sqlite3_file base_file; /* first: SQLite's part */
  const mv_host *host;
  const char *name; /* SQLite's; holds the URI parameters, lives as long as the file */
  mv_db *db;
  void *session;
  sqlite3 *connection; /* from FCNTL_PDB: the files of one connection are known to each other */
  mv_file *next;       /* all open files of the process */
  mv_file *peer;       /* a ring: the files of the same connection */
  uint64_t store, namespace; /* which database it is */
  unsigned fork_generation;
  int read_only, pinned, always_begin, distant;
  int64_t within;       /* how old a begin may be where the store is followed, in nanoseconds */
  int leases;         /* take leases of page numbers */
  int queued;         /* every write transaction waits its turn */
  int next_begin;     /* MV_ASKS, ...; ahead: where a commit of the process left off a moment ago */
  int unconfirmed;    /* the last one did, and nothing has told yet that what was read in it had not changed */
  int has_turn;       /* this one has waited for it */
  uint32_t page_size; /* bytes; 0 while the database is empty and undecided */

  int lock;
  mv_state state;
  int staged;             /* WRITING, its phase one is over: it waits for the other participants' */
  char *super;            /* the super-journal that stands for its transaction, or stood for the last one */
  sqlite3_vfs *super_vfs; /* where that lies, if not in this VFS */

  mv_snapshot snapshot; /* its version is the base of the transaction */
  mv_version previous;  /* where the last lock period ended */
  int has_previous;
  int unsure;             /* the last commit did not tell what others had committed after ... */
  mv_version sure_until;  /* ... this version */
  int must_move;    /* SQLite's cache can't be trusted at the next snapshot */
  uint32_t counter; /* the change counter shown */
  uint8_t header[MV_HEADER_SIZE]; /* bytes 28-39 shown */
  mv_freelist list;               /* what they were made from */
  mv_alloc *alloc;                /* the allocation at `base`; moves with an own commit */
  mv_map overlay;                 /* trunk pages as SQLite left them, until the lock falls */

  mv_numbers lease; /* ascending */
  uint32_t lease_size;
  double lease_taken, lease_ends; /* CLOCK_MONOTONIC, seconds */
  double lease_seconds;           /* for which it was given */
  double lease_due;               /* when it is to be renewed */
  int wants_lease;

  mv_set reads;
  mv_set stale;
  mv_map writes; /* page number -> mv_page* */
  mv_spill spill; /* holds those that were written when `spill_bytes` of them were in memory */
  uint64_t spill_bytes;
  uint32_t highest_write;
  uint8_t *scratch; /* one page */

  int read_ahead;
  mv_ahead ahead;

  mv_stats stats;
  double slow_seconds;
  struct timespec began;
  uint32_t began_reads, wrote;
  int outcome;
  char sql[256];
};

static inline mv_version mv_base(const mv_file *f) { return f->snapshot.version; }
static inline uint32_t mv_be32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void mv_put32(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}
static inline uint32_t mv_shown_pages(const mv_file *f) { return mv_be32(f->header); }
static inline uint32_t mv_shown_counter(const mv_file *f) { /* an empty file reads as zeros */
  return mv_shown_pages(f) ? f->counter : 0;
}

/* An error that the shim found by itself: told to Python and to PRAGMA mv_last_error; returns `code`. */
int mv_fail(mv_file *f, int code, const char *what);

/* Whether `g` is one of the files that stand at one version with `f`. */
static inline int mv_holds_with(const mv_file *f, const mv_file *g) {
  return g->lock >= SQLITE_LOCK_SHARED && g->store == f->store && !g->pinned && !f->pinned;
}

/* attached.c */
void mv_files_add(mv_file *f);
void mv_files_remove(mv_file *f);
void mv_files_connect(mv_file *f, sqlite3 *connection);
void mv_check_journals(void);
mv_file *mv_holder(const mv_file *f); /* another file that holds a snapshot with it, or NULL */
int mv_snapshot_join(mv_file *f, mv_start *start);
int mv_place(const mv_file *f); /* among the connection's databases */
const char *mv_file_schema(void *file);
int mv_check_commit(mv_file *f, const char *super_journal);
int mv_awaits_others(mv_file *f);
void mv_super_seen(mv_file *f, const char *name);

/* snapshot.c */
int mv_snapshot_begin(mv_file *f);
void mv_snapshot_end(mv_file *f);
/* At RESERVED; then whenever a page is read or written, and before the commit: a transaction that takes long
** renews the lease whose numbers it was shown (rule 22). */
void mv_use_lease(mv_file *f);
int mv_keep_lease(mv_file *f);
/* The newest version; with `since`, mv_collect_changes() hears of every change after that one. */
int mv_newest(mv_file *f, const uint8_t *since, mv_version *out);

/* locks.c: from a lower lock to a higher one, and back. */
int mv_lock(mv_file *f, int level);
int mv_unlock(mv_file *f, int level);

/* pages.c */
int mv_page_read(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount);
int mv_page_write(mv_file *f, const void *in, int amount, sqlite3_int64 offset);
int mv_stored(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount);
void mv_drop_writes(mv_file *f);

/* freelist.c */
typedef struct mv_allocation { /* what a transaction did to the allocation; lists ascending */
  mv_numbers allocated, freed;
  mv_set free; /* numbers in the part of the final freelist that was written */
} mv_allocation;
int mv_allocation_find(mv_file *f, const uint8_t header[MV_HEADER_SIZE], mv_allocation *out);
void mv_allocation_free(mv_allocation *a);
int mv_free_page_read(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount);
int mv_header_make(mv_file *f);
void mv_overlay_clear(mv_file *f);

/* commit.c */
int mv_sync(mv_file *f, const char *super_journal);

#endif
