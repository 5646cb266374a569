/*
** What the shim asks of Python: the whole boundary.  The functions named mv_py_* are implemented in
** mvvfs/bridge.py (cffi `extern "Python+C"`) and called through the wrappers of calls.c, which keep a
** pending Python exception apart and turn what went wrong into one.  build_shim.py hands this file to
** cffi as it is, so it holds nothing but plain declarations.
**
** Return values are SQLite result codes.  No mutex of ours is held during a call.
*/
typedef struct mv_open {
  const char *name;    /* in: as SQLite passed it to xOpen; see mv_uri() */
  int flags;           /* in: SQLITE_OPEN_* */
  void *file;          /* in: the connection's file, for mv_file_stats() and mv_uri() */
  void *session;       /* out: handed back with every call */
  void *db;            /* out: mv_db of this database, one reference for the file */
  int read_only;       /* out */
  int pinned;          /* out: stands at `version` for good */
  uint8_t version[10]; /* out, if pinned */
  int always_begin;    /* out: ask at every begin, even if the head word has not moved */
  int distant;         /* out: to ask for the newest version costs a round trip */
  int64_t within;      /* out: how old a begin may be where the store is followed, in nanoseconds; 0: not at all */
  void *alloc;         /* out, if pinned: mv_alloc at `version`, one reference */
  uint32_t page_size;  /* out, if pinned: bytes */
  uint64_t store;      /* out: databases of one store have the same number here */
  uint64_t namespace;  /* out: which database of the store it is */
  int leases;          /* out: whether to lease page numbers */
  int queued;          /* out: whether every write transaction waits its turn */
  int read_ahead;      /* out: fetch pages together that are likely to be read one after the other */
  uint64_t spill_bytes; /* out: of what a transaction writes, as much is kept in memory */
  double slow_seconds; /* out: transactions at least this long are reported; 0: none */
} mv_open;

typedef struct mv_change { /* one commit, as far as this process must know of it */
  uint8_t version[10];
  const uint32_t *pages, *allocated, *freed; /* page numbers, each ascending */
  uint32_t page_count, allocated_count, freed_count;
} mv_change;

typedef struct mv_begin {
  const uint8_t *since; /* in: NULL, or let mv_db_apply see every change after this version */
  int fresh;            /* in: none but the newest version will do, whatever `within` says */
  int ahead;            /* in: MV_RUNS_AHEAD: one at which a commit of ours left off a moment ago will do; out: it is that */
  uint8_t version[10];  /* out */
} mv_begin;

typedef struct mv_join { /* a database is to be read beside others of its store, all at one version */
  void *const *holders; /* in: the sessions of those that hold a snapshot */
  uint32_t holder_count;
  uint8_t version[10]; /* in: at which they stand; out: at which all may stand, the same content for them */
  void *alloc;         /* out: NULL, or mv_alloc then, one reference: the cache is further on */
} mv_join;

typedef struct mv_fetch {
  const uint8_t *version;  /* in: the snapshot */
  const uint32_t *numbers; /* in: page numbers; the first is the one that is waited for */
  uint32_t count;          /* in */
  uint8_t *out;            /* in: where the first page's content goes */
  uint32_t size;           /* in: its size in bytes */
  int found;               /* out: whether the first page exists */
} mv_fetch;

typedef struct mv_write {
  uint32_t number;
  uint32_t size;
  const uint8_t *data;   /* NULL: the page is freed */
  const uint8_t *before; /* the version that this one replaces, where it is at hand, or NULL */
  uint8_t before_chain;
  uint8_t chain; /* out: deltas between the page as stored and a whole one */
} mv_write;

typedef struct mv_part { /* what a commit does to one database */
  void *session;
  uint32_t page_size;
  const uint32_t *reads; /* page numbers, distinct, in any order; holds everything written */
  uint32_t read_count;
  mv_write *writes; /* ascending; none: the database was only read */
  uint32_t write_count;
  const uint32_t *allocated, *freed; /* page numbers among the writes, ascending */
  uint32_t allocated_count, freed_count;
  int leased;              /* in: some of the allocated numbers come from the lease */
  const mv_change *others; /* out: commits between base and version, oldest first; alive until the next call */
  uint32_t other_count;    /* out */
} mv_part;

typedef struct mv_commit {
  uint8_t base[10];
  mv_part *parts; /* one for each database that holds a snapshot; that of the call's session is the first */
  uint32_t part_count;
  int tells_others;    /* in: the others' commits must be known; else they may be left out */
  int without_others;  /* out: they were: they are told by the next begin from `base` */
  int lease_ended;     /* out: refused because a lease had ended */
  uint8_t version[10]; /* out */
} mv_commit;

typedef struct mv_lease {
  uint32_t want;     /* in: how many page numbers */
  uint32_t *numbers; /* in: room for as many; out: ascending, distinct */
  uint32_t count;    /* out */
  double seconds;    /* out: how long they are ours */
} mv_lease;

typedef struct mv_stats {
  uint64_t pages_read, cache_hits, fetches, pages_fetched, commits, conflicts, rollbacks, pages_written;
} mv_stats;

typedef struct mv_slow {
  double seconds;
  const char *sql; /* a statement of the transaction, or NULL */
  uint32_t pages_read, pages_written;
  int outcome; /* 0 read or rolled back, 1 committed, 2 refused */
} mv_slow;
