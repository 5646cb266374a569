/* A database file: opening, locks and snapshots, control; see mainfile.h for its states. */
#include "mainfile.h"

#include <pthread.h>
#include <stdlib.h>
#include <strings.h>

/* Pages that SQLite's cache may carry over into the next snapshot (rule 3): enough for a cache of 256 MiB. */
#define KEPT_READS 65536

typedef enum event {
  EV_SHARED,      /* xLock(SHARED) from no lock */
  EV_RESERVED,    /* xLock(RESERVED or more) */
  EV_TO_SHARED,   /* xUnlock(SHARED) */
  EV_TO_NONE,     /* xUnlock(NONE) */
  EV_COUNT
} event;

#define NO MV_ILLEGAL
enum { MV_ILLEGAL = -1 };

/* State after each event; commit.c sets COMMITTED and REFUSED. */
static const signed char transitions[][EV_COUNT] = {
    /*                 SHARED      RESERVED    TO_SHARED    TO_NONE */
    [MV_IDLE]      = { MV_READING, NO,         NO,          MV_IDLE },
    [MV_READING]   = { NO,         MV_WRITING, MV_READING,  MV_IDLE },
    [MV_WRITING]   = { NO,         MV_WRITING, MV_READING,  MV_IDLE },
    [MV_COMMITTED] = { NO,         NO,         MV_READING,  MV_IDLE },
    [MV_REFUSED]   = { NO,         MV_REFUSED, MV_REFUSED,  MV_IDLE },
};

static mv_file *open_files;
static pthread_mutex_t open_files_mutex = PTHREAD_MUTEX_INITIALIZER;

int mv_fail(mv_file *f, int code, const char *what) {
  mv_call_failed(f->host, f->session, f, code, what);
  return code;
}

/* The same for 517 from xLock: SQLite may call its busy handler and go on, so nothing is raised. */
static int mv_busy(mv_file *f, const char *what) {
  mv_call_failed(f->host, f->session, f, SQLITE_BUSY, what);
  return SQLITE_BUSY_SNAPSHOT;
}

static int step(mv_file *f, event e) {
  int next = transitions[f->state][e];
  if (next < 0) return mv_fail(f, SQLITE_IOERR_LOCK, "a lock was asked for out of order");
  f->state = (mv_state)next;
  return SQLITE_OK;
}

static int inherited(mv_file *f) {
  if (f->fork_generation == mv_fork_generation) return 0;
  mv_fail(f, SQLITE_MISUSE, "a connection can't be used across fork(): open a new one in the child");
  return 1;
}

/* Rules 16 and 17 come with transactions across databases. */
int mv_other_files_hold_snapshots(mv_file *f) {
  int found = 0;
  pthread_mutex_lock(&open_files_mutex);
  for (mv_file *g = open_files; g && !found; g = g->next)
    found = g != f && g->connection && g->connection == f->connection && !g->pinned &&
            g->lock >= SQLITE_LOCK_SHARED;
  pthread_mutex_unlock(&open_files_mutex);
  return found;
}

/* ---- snapshots ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int newest(mv_file *f, const uint8_t *since, mv_version *out) {
  mv_begin args = {.since = since};
  int rc = mv_call_begin(f->host, f->session, &args);
  *out = mv_version_get(args.version);
  return rc;
}

/* A reader takes no lease; a writer takes one once it has allocated pages (rule 22). */
static int take_lease(mv_file *f) {
  uint32_t *numbers = malloc(f->lease_size * sizeof *numbers);
  if (!numbers) return SQLITE_NOMEM;
  mv_lease args = {.want = f->lease_size, .numbers = numbers};
  int rc = mv_call_lease(f->host, f->session, &args);
  if (rc == SQLITE_OK) {
    mv_numbers_free(&f->lease);
    f->lease = (mv_numbers){numbers, args.count, f->lease_size};
    f->lease_ends = now() + args.seconds;
    f->must_move = 1;
  } else {
    free(numbers);
  }
  f->wants_lease = 0;
  return rc;
}

static int start_at_newest(mv_file *f, mv_start *start) {
  mv_version v;
  if (!f->always_begin && mv_db_quick_begin(f->db, &f->snapshot, start)) return SQLITE_OK;
  for (;;) {
    int rc = newest(f, NULL, &v);
    if (rc != SQLITE_OK) return rc;
    mv_db_begin(f->db, &f->snapshot, start);
    /* Another thread may have gone further meanwhile: as good, but where each begin must be flushed. */
    if (!f->always_begin || mv_version_cmp(mv_base(f), v) == 0) return SQLITE_OK;
    mv_alloc_release(start->alloc);
  }
}

/* Begin at the newest version.  Where the namespace is what it was when the last lock period ended,
** the counter stays and SQLite's cache serves; else it moves by 3: by 2 or more from the last one that
** SQLite saw, which may be one more than the last one shown (rules 2 and 3). */
int mv_snapshot_begin(mv_file *f) {
  int rc = SQLITE_OK, same = f->has_previous && !f->must_move;
  mv_start start = {.alloc = NULL};
  if (f->pinned) {
    if (same) return SQLITE_OK;
  } else {
    if (f->lease.count && now() > f->lease_ends) {
      mv_numbers_free(&f->lease);
      f->must_move = 1;
    }
    if (f->wants_lease && (rc = take_lease(f)) != SQLITE_OK) return rc;
    rc = start_at_newest(f, &start);
    if (rc != SQLITE_OK) return rc;
    same = same && !f->must_move && f->reads.count <= KEPT_READS &&
           mv_version_cmp(start.last_change, f->previous) <= 0;
    mv_alloc_release(f->alloc);
    f->alloc = start.alloc;
    f->page_size = start.page_size;
  }
  mv_set_clear(&f->stale);
  if (same) return SQLITE_OK;
  f->counter += 3;
  mv_set_clear(&f->reads);
  mv_overlay_clear(f);
  rc = mv_header_make(f);
  f->must_move = rc != SQLITE_OK;
  f->has_previous = rc == SQLITE_OK;
  return rc;
}

static void end_snapshot(mv_file *f) {
  f->previous = mv_base(f);
  if (!f->pinned) mv_db_drop(f->db, &f->snapshot);
}

/* ---- the log of slow transactions ---- */

static const char *running_sql(const mv_file *f) {
  sqlite3_stmt *s = NULL;
  while (f->connection && (s = api_next_stmt(f->host->api, f->connection, s)) != NULL)
    if (api_stmt_busy(f->host->api, s)) return api_sql(f->host->api, s);
  return NULL;
}

static void note_sql(mv_file *f) {
  const char *sql = running_sql(f);
  if (sql) strncpy(f->sql, sql, sizeof f->sql - 1);
}

static void start_clock(mv_file *f) {
  f->wrote = 0;
  f->outcome = 0;
  f->sql[0] = 0;
  f->began_reads = (uint32_t)f->stats.pages_read;
  if (f->slow_seconds > 0) clock_gettime(CLOCK_MONOTONIC, &f->began);
}

static void report_if_slow(mv_file *f) {
  struct timespec now;
  if (f->slow_seconds <= 0) return;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double seconds = (double)(now.tv_sec - f->began.tv_sec) + (double)(now.tv_nsec - f->began.tv_nsec) * 1e-9;
  if (seconds < f->slow_seconds) return;
  if (!f->sql[0]) note_sql(f);
  mv_slow args = {.seconds = seconds,
                  .sql = f->sql[0] ? f->sql : NULL,
                  .pages_read = (uint32_t)f->stats.pages_read - f->began_reads,
                  .pages_written = f->wrote,
                  .outcome = f->outcome};
  mv_call_slow(f->host, f->session, &args);
}

/* ---- locks ---- */

static int any_read_changed(const mv_file *f, const mv_set *changed) {
  if (mv_set_has(changed, MV_EVERYTHING)) return 1;
  for (uint32_t i = 0; i < changed->capacity; i++)
    if (changed->slots[i] && mv_set_has(&f->reads, changed->slots[i] - 1)) return 1;
  return 0;
}

/* Whether the transaction has read nothing but page 1: SQLite is at BEGIN IMMEDIATE or at a first writing
** statement, and would start over on a new snapshot if it is told BUSY. */
static int is_fresh(const mv_file *f) {
  return f->connection && api_txn_state(f->host->api, f->connection, NULL) == SQLITE_TXN_NONE;
}

/* At RESERVED a fresh transaction moves to the newest version, if neither what SQLite's cache holds nor the
** allocation changed (rule 6).  If a page that was read did change, the commit could only fail: a fresh one
** gets plain BUSY, upon which SQLite starts over after its busy handler; another one 517.  In all other
** cases the snapshot stays where it is. */
static int move_forward(mv_file *f) {
  if (mv_db_unmoved(f->db, mv_base(f)) || f->stale.count || mv_other_files_hold_snapshots(f)) return SQLITE_OK;
  mv_set changed = {0};
  uint8_t since[MV_VERSION_SIZE];
  mv_version v;
  mv_version_put(mv_base(f), since);
  mv_collect_changes(&changed);
  int rc = newest(f, since, &v);
  mv_collect_changes(NULL);
  if (rc == SQLITE_OK && mv_version_cmp(v, mv_base(f)) > 0) {
    int fresh = is_fresh(f);
    if (any_read_changed(f, &changed)) {
      f->stats.conflicts++;
      f->must_move = 1;
      rc = fresh ? SQLITE_BUSY : mv_busy(f, "another commit changed what this transaction read");
    } else if (fresh && !mv_set_has(&changed, MV_REALLOCATED)) {
      mv_db_hold(f->db, &f->snapshot, v);
    }
  }
  mv_set_free(&changed);
  return rc;
}

/* ---- turns ---- */

/* The first keyword: behind white space, comments and empty statements. */
static const char *first_keyword(const char *sql) {
  for (;;) {
    sql += strspn(sql, " \t\r\n\f;");
    const char *end;
    if (strncmp(sql, "--", 2) == 0) {
      end = strchr(sql, '\n');
    } else if (strncmp(sql, "/*", 2) == 0) {
      end = strstr(sql + 2, "*/");
      if (end) end++;
    } else {
      return sql;
    }
    if (!end) return ""; /* nothing but a comment */
    sql = end + 1;
  }
}

static int asks_for_the_lock(const mv_file *f) { /* BEGIN IMMEDIATE or EXCLUSIVE */
  const char *sql = running_sql(f);
  return sql && strncasecmp(first_keyword(sql), "begin", 5) == 0;
}

/* A transaction that asks for the write lock before it reads takes a place in the queue and waits for its
** turn: a moment here, and then, as long as BUSY lets it, in SQLite's busy handler. */
static int wait_turn(mv_file *f, int *has_turn) {
  *has_turn = is_fresh(f) && (f->queued || asks_for_the_lock(f));
  if (!*has_turn) return SQLITE_OK;
  f->must_move = 1; /* nothing is kept that could keep the next try, or transaction, from moving */
  return mv_call_turn(f->host, f->session, 1);
}

/* Rolled back, or nothing to commit: the next in the queue need not wait for the turn to end.  A refused
** transaction keeps its place for its next try. */
static void end_turn(mv_file *f) {
  if (!f->has_turn) return;
  if (f->outcome == 0) mv_call_turn(f->host, f->session, 0);
  f->must_move = 1;
  f->has_turn = 0;
}

static int main_lock(sqlite3_file *file, int level) {
  mv_file *f = (mv_file *)file;
  int rc;
  if (level <= f->lock) return SQLITE_OK;
  if (inherited(f)) return SQLITE_MISUSE;
  if (f->lock == SQLITE_LOCK_NONE) {
    if (level != SQLITE_LOCK_SHARED) return mv_fail(f, SQLITE_IOERR_LOCK, "a write lock without SHARED");
    start_clock(f);
    rc = mv_snapshot_begin(f);
    if (rc == SQLITE_OK) rc = step(f, EV_SHARED);
    if (rc != SQLITE_OK) {
      if (!f->pinned) mv_db_drop(f->db, &f->snapshot);
      return rc;
    }
  } else {
    if (f->read_only) return SQLITE_READONLY;
    if (f->lock == SQLITE_LOCK_SHARED && f->state == MV_REFUSED)
      return mv_busy(f, "a refused transaction's cursor is still open: close it before trying again");
    if (f->lock == SQLITE_LOCK_SHARED) {
      int has_turn;
      rc = wait_turn(f, &has_turn);
      if (rc == SQLITE_OK) rc = move_forward(f);
      if (rc != SQLITE_OK) return rc;
      f->has_turn = has_turn;
      if (f->slow_seconds > 0) note_sql(f);
    }
    rc = step(f, EV_RESERVED);
    if (rc != SQLITE_OK) return rc;
  }
  f->lock = level;
  return SQLITE_OK;
}

static int main_unlock(sqlite3_file *file, int level) {
  mv_file *f = (mv_file *)file;
  if (level >= f->lock) return SQLITE_OK;
  if (f->writes.count) { /* rolled back after spilled pages, or never committed */
    mv_drop_writes(f);
    f->must_move = 1;
  }
  int rc = step(f, level == SQLITE_LOCK_NONE ? EV_TO_NONE : EV_TO_SHARED);
  f->lock = level;
  if (level == SQLITE_LOCK_NONE) {
    end_snapshot(f);
    end_turn(f);
    report_if_slow(f);
  }
  return rc;
}

static int main_check_reserved(sqlite3_file *file, int *out) {
  (void)file;
  *out = 0; /* writers never lock each other out */
  return SQLITE_OK;
}

/* ---- reading and writing ---- */

/* SQLite reads the header once at open, without a lock, to learn the page size. */
static int read_at_open(mv_file *f, uint8_t *out, uint32_t amount) {
  memset(out, 0, amount);
  int rc = mv_snapshot_begin(f);
  uint32_t size = f->page_size;
  if (rc == SQLITE_OK && mv_shown_pages(f) > 0) {
    rc = mv_page_read(f, 1, out, 0, amount);
  } else if (rc == SQLITE_OK && size != 0) { /* empty, but its page size is decided */
    memcpy(out, "SQLite format 3", 16);
    out[16] = (uint8_t)(size >> 8);
    out[17] = (uint8_t)(size >> 16);
    out[18] = out[19] = 1;
  } else if (rc == SQLITE_OK) {
    rc = SQLITE_IOERR_SHORT_READ;
  }
  end_snapshot(f);
  f->must_move = 1;
  return rc;
}

static int main_read(sqlite3_file *file, void *out, int amount, sqlite3_int64 offset) {
  mv_file *f = (mv_file *)file;
  if (inherited(f)) return SQLITE_MISUSE;
  if (f->lock == SQLITE_LOCK_NONE) {
    if (offset == 0 && amount <= 100) return read_at_open(f, out, (uint32_t)amount);
    return mv_fail(f, SQLITE_IOERR_READ, "a read without a lock");
  }
  if (f->page_size == 0) {
    memset(out, 0, (size_t)amount);
    return SQLITE_IOERR_SHORT_READ;
  }
  /* A read across pages comes from a connection that has not learnt the page size yet. */
  int rc = SQLITE_OK;
  for (int done = 0; done < amount && rc == SQLITE_OK;) {
    uint32_t within = (uint32_t)((offset + done) % f->page_size), part = f->page_size - within;
    if (part > (uint32_t)(amount - done)) part = (uint32_t)(amount - done);
    rc = mv_page_read(f, (uint32_t)((offset + done) / f->page_size) + 1, (uint8_t *)out + done, within, part);
    done += (int)part;
    if (rc == SQLITE_IOERR_SHORT_READ) memset((uint8_t *)out + done, 0, (size_t)(amount - done));
  }
  return rc;
}

static int main_write(sqlite3_file *file, const void *in, int amount, sqlite3_int64 offset) {
  mv_file *f = (mv_file *)file;
  if (inherited(f)) return SQLITE_MISUSE;
  if (f->state == MV_REFUSED) return SQLITE_OK; /* its rollback writing back */
  if (f->state == MV_COMMITTED)
    return mv_fail(f, SQLITE_IOERR_WRITE, "a write after the commit: locking_mode=EXCLUSIVE is not supported");
  if (f->state != MV_WRITING) return mv_fail(f, SQLITE_IOERR_WRITE, "a write without a lock");
  return mv_page_write(f, in, amount, offset);
}

static int main_truncate(sqlite3_file *file, sqlite3_int64 size) {
  (void)file, (void)size; /* comes after the commit; what counts is the page count in page 1 (rule 11) */
  return SQLITE_OK;
}

static int main_sync(sqlite3_file *file, int flags) {
  (void)file, (void)flags; /* FCNTL_SYNC came first and did the work */
  return SQLITE_OK;
}

static int main_file_size(sqlite3_file *file, sqlite3_int64 *out) {
  mv_file *f = (mv_file *)file;
  uint32_t pages = mv_shown_pages(f);
  if (f->lock == SQLITE_LOCK_NONE) pages = 0;
  if (f->highest_write > pages) pages = f->highest_write;
  *out = (sqlite3_int64)pages * f->page_size;
  return SQLITE_OK;
}

/* ---- control ---- */

/* The journal is private to the connection and writers don't lock, so there is no mode to choose: the
** answer is the one that changes nothing (rule 7). */
static const char *const answered[][2] = {{"journal_mode", "delete"}, {"locking_mode", "normal"}};

static int pragma(mv_file *f, char **arg) {
  for (size_t i = 0; i < sizeof answered / sizeof *answered; i++) {
    if (strcasecmp(arg[1], answered[i][0]) == 0) {
      arg[0] = api_mprintf(f->host->api)("%s", answered[i][1]);
      return arg[0] ? SQLITE_OK : SQLITE_NOMEM;
    }
  }
  if (strncasecmp(arg[1], "mv_", 3) != 0) return SQLITE_NOTFOUND;
  return mv_call_pragma(f->host, f->session, f, arg[1], arg[2], &arg[0]);
}

static int main_control(sqlite3_file *file, int op, void *arg) {
  mv_file *f = (mv_file *)file;
  switch (op) {
    case SQLITE_FCNTL_SYNC:
      if (inherited(f)) return SQLITE_MISUSE;
      return mv_sync(f, arg);
    case SQLITE_FCNTL_PDB:
      f->connection = *(sqlite3 **)arg;
      return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA:
      if (inherited(f)) return SQLITE_MISUSE;
      return pragma(f, arg);
    case SQLITE_FCNTL_VFSNAME:
      *(char **)arg = api_mprintf(f->host->api)("mv");
      return SQLITE_OK;
    default:
      return SQLITE_NOTFOUND;
  }
}

static int main_sector_size(sqlite3_file *file) {
  (void)file;
  return 4096;
}

static int main_characteristics(sqlite3_file *file) {
  (void)file;
  return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* without it SQLite writes whole sectors of pages */
}

/* ---- opening and closing ---- */

static void free_file(mv_file *f) {
  if (f->db) {
    mv_db_drop(f->db, &f->snapshot);
    mv_db_release(f->db);
  }
  mv_drop_writes(f);
  mv_map_free(&f->writes);
  mv_set_free(&f->reads);
  mv_set_free(&f->stale);
  mv_overlay_clear(f);
  mv_map_free(&f->overlay);
  mv_freelist_free(&f->list);
  mv_alloc_release(f->alloc);
  mv_numbers_free(&f->lease);
  free(f->scratch);
}

static int main_close(sqlite3_file *file) {
  mv_file *f = (mv_file *)file;
  pthread_mutex_lock(&open_files_mutex);
  mv_file **at = &open_files;
  while (*at && *at != f) at = &(*at)->next;
  if (*at) *at = f->next;
  pthread_mutex_unlock(&open_files_mutex);
  mv_call_close(f->host, f->session);
  free_file(f);
  f->base_file.pMethods = NULL;
  return SQLITE_OK;
}

static const sqlite3_io_methods main_methods = {
    1,         main_close,     main_read,    main_write,          main_truncate,
    main_sync, main_file_size, main_lock,    main_unlock,         main_check_reserved,
    main_control, main_sector_size, main_characteristics,
};

int mv_main_open(const mv_host *host, const char *name, sqlite3_file *file, int flags, int *out_flags) {
  mv_file *f = (mv_file *)file;
  memset(f, 0, sizeof *f);
  f->host = host;
  f->name = name;
  f->fork_generation = mv_fork_generation;
  f->counter = 1;
  f->lease_size = MV_SMALLEST_LEASE;
  mv_open args = {.name = name, .flags = flags, .file = f};
  int rc = mv_call_open(host, &args);
  if (rc != SQLITE_OK) return rc;
  f->session = args.session;
  f->db = args.db;
  f->read_only = args.read_only || args.pinned;
  f->pinned = args.pinned;
  f->always_begin = args.always_begin;
  f->queued = args.queued;
  f->leases = args.leases;
  f->slow_seconds = args.slow_seconds;
  if (f->pinned) {
    f->alloc = args.alloc;
    f->page_size = args.page_size;
    mv_db_hold(f->db, &f->snapshot, mv_version_get(args.version));
  }
  if (out_flags) {
    *out_flags = flags;
    if (f->read_only) *out_flags = (flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
  }
  pthread_mutex_lock(&open_files_mutex);
  f->next = open_files;
  open_files = f;
  pthread_mutex_unlock(&open_files_mutex);
  f->base_file.pMethods = &main_methods;
  return SQLITE_OK;
}

int mv_main_size(void) { return (int)sizeof(mv_file); }

/* ---- for Python ---- */

void mv_file_stats(void *file, mv_stats *out) { *out = ((mv_file *)file)->stats; }

int mv_file_version(void *file, uint8_t *out) {
  mv_file *f = file;
  mv_version_put(f->snapshot.active ? mv_base(f) : f->previous, out);
  return f->snapshot.active || f->has_previous;
}

const char *mv_uri(void *file, const char *key) {
  mv_file *f = file;
  return api_uri_parameter(f->host->api, f->name, key);
}

/* How many pages the transaction has read; with `out`, which. */
uint32_t mv_file_reads(void *file, uint32_t *out) {
  mv_file *f = file;
  return out ? mv_set_pack(&f->reads, out) : f->reads.count;
}
