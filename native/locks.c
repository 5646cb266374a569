/*
** Locks: the states of a database file, moving a snapshot forward, waiting for a turn, and the log of slow
** transactions; see mainfile.h.
*/
#include "mainfile.h"

#include <strings.h>

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

/* ---- moving forward ---- */

static int any_read_changed(const mv_file *f, const mv_set *changed) {
  if (mv_set_has(changed, MV_EVERYTHING)) return 1;
  for (uint32_t i = 0; i < changed->capacity; i++)
    if (changed->slots[i] && mv_set_has(&f->reads, changed->slots[i] - 1)) return 1;
  return 0;
}

/* Whether the transaction has read nothing of this store but page 1: SQLite is at BEGIN IMMEDIATE or at a
** first writing statement, and would start over on a new snapshot if it is told BUSY. */
static int is_fresh(const mv_file *f) {
  if (!f->connection || mv_holder(f)) return 0;
  const char *schema = mv_file_schema((void *)f); /* not known: what is said of all of them will do */
  return api_txn_state(f->host->api, f->connection, schema) == SQLITE_TXN_NONE;
}

/* At RESERVED a fresh transaction moves to the newest version, if neither what SQLite's cache holds nor the
** allocation changed (rule 6).  If a page that was read did change, the commit could only fail: a fresh one
** gets plain BUSY, upon which SQLite starts over after its busy handler; another one 517.  In all other
** cases the snapshot stays where it is: also where asking takes a round trip, unless it follows a turn that was
** waited for, because the commit tells as well. */
static int move_forward(mv_file *f, int has_turn) {
  if (f->distant && !has_turn) return SQLITE_OK;
  if (mv_db_unmoved(f->db, mv_base(f), has_turn ? 0 : f->within) || f->stale.count || mv_holder(f))
    return SQLITE_OK;
  mv_set changed = {0};
  uint8_t since[MV_VERSION_SIZE];
  mv_version v;
  mv_version_put(mv_base(f), since);
  mv_collect_changes(&changed);
  int rc = mv_newest(f, since, &v);
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
** turn: a moment here, and then, as long as BUSY lets it, in SQLite's busy handler.  BEGIN IMMEDIATE locks
** every attached database, so it takes a place for each of them. */
static int wait_turn(mv_file *f, int *has_turn) {
  int asked = asks_for_the_lock(f);
  *has_turn = is_fresh(f) && (f->queued || asked);
  if (!*has_turn) return SQLITE_OK;
  f->must_move = 1; /* nothing is kept that could keep the next try, or transaction, from moving */
  return mv_call_turn(f->host, f->session, asked ? MV_TURN_OF_ALL : MV_TURN_OF_ONE);
}

/* Rolled back, or nothing to commit: the next in the queue need not wait for the turn to end.  A refused
** transaction keeps its place for its next try. */
static void end_turn(mv_file *f) {
  if (!f->has_turn) return;
  if (f->outcome == 0) mv_call_turn(f->host, f->session, MV_LEAVE_TURN);
  f->must_move = 1;
  f->has_turn = 0;
}

/* ---- locks ---- */

static int refuse_reserved(mv_file *f) {
  static const char cursor_open[] =
      "a refused transaction's cursor is still open: close it before trying again";
  if (f->read_only) return SQLITE_READONLY;
  /* SQLite may not know that it stands in the past (PRAGMA mv_at): BEGIN IMMEDIATE locks it with the others. */
  if (f->pinned) return f->lock > SQLITE_LOCK_SHARED || asks_for_the_lock(f) ? SQLITE_OK : SQLITE_READONLY;
  if (f->lock != SQLITE_LOCK_SHARED) return SQLITE_OK;
  if (f->state == MV_REFUSED) return mv_busy(f, cursor_open);
  for (mv_file *g = f->peer; g != f; g = g->peer) {
    if (!mv_holds_with(f, g)) continue;
    if (g->state == MV_REFUSED && g->lock == SQLITE_LOCK_SHARED) return mv_busy(f, cursor_open);
    if (g->namespace == f->namespace && g->lock > SQLITE_LOCK_SHARED)
      return mv_fail(f, SQLITE_ERROR,
                     "this database is attached twice, and being written under its other name: write it "
                     "under one name only");
  }
  return SQLITE_OK;
}

int mv_lock(mv_file *f, int level) {
  int rc;
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
    rc = refuse_reserved(f);
    if (rc != SQLITE_OK) return rc;
    if (f->lock == SQLITE_LOCK_SHARED && !f->pinned) {
      int has_turn;
      rc = wait_turn(f, &has_turn);
      if (rc == SQLITE_OK) rc = move_forward(f, has_turn);
      if (rc != SQLITE_OK) return rc;
      f->has_turn = has_turn;
      mv_use_lease(f);
      if (f->slow_seconds > 0) note_sql(f);
    }
    rc = step(f, EV_RESERVED);
    if (rc != SQLITE_OK) return rc;
  }
  f->lock = level;
  return SQLITE_OK;
}

int mv_unlock(mv_file *f, int level) {
  if (f->writes.count) { /* rolled back after spilled pages, or never committed */
    mv_drop_writes(f);
    f->must_move = 1;
  }
  int rc = step(f, level == SQLITE_LOCK_NONE ? EV_TO_NONE : EV_TO_SHARED);
  f->lock = level;
  f->staged = 0;
  if (level == SQLITE_LOCK_NONE) {
    mv_snapshot_end(f);
    end_turn(f);
    report_if_slow(f);
  }
  return rc;
}
