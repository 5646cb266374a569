/*
** Snapshots: beginning one, what is shown in it, and the lease of page numbers that a writer brings along;
** see mainfile.h.  Called by locks.c at xLock(SHARED) and RESERVED, and by mainfile.c for the read at open.
*/
#include "mainfile.h"

#include <math.h>
#include <stdlib.h>

/* Pages that SQLite's cache may carry over into the next snapshot (rule 3): enough for a cache of 256 MiB. */
#define KEPT_READS 65536

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A database that others may join, or that moves forward, is as new as the last commit. */
static int ask(mv_file *f, const uint8_t *since, mv_version *out, int *ahead) {
  mv_begin args = {.since = since, .fresh = since != NULL || f->peer != f};
  args.ahead = args.fresh || f->always_begin ? MV_ASKS : *ahead;
  int rc = mv_call_begin(f->host, f->session, &args);
  *out = mv_version_get(args.version);
  *ahead = args.ahead;
  return rc;
}

int mv_newest(mv_file *f, const uint8_t *since, mv_version *out) {
  int ahead = MV_ASKS;
  return ask(f, since, out, &ahead);
}

/* A reader takes no lease; a writer takes one once it has allocated pages (rule 22). */
static int take_lease(mv_file *f) {
  double asked = now();
  if (f->lease.count && asked - f->lease_taken < 1 && f->lease_size < MV_LARGEST_QUICK_LEASE) f->lease_size *= 2;
  uint32_t *numbers = malloc(f->lease_size * sizeof *numbers);
  if (!numbers) return SQLITE_NOMEM;
  mv_lease args = {.want = f->lease_size, .numbers = numbers};
  int rc = mv_call_lease(f->host, f->session, &args);
  if (rc == SQLITE_OK) {
    mv_numbers_free(&f->lease);
    f->lease = (mv_numbers){numbers, args.count, f->lease_size};
    f->lease_taken = asked;
    f->lease_ends = now() + args.seconds;
    f->lease_seconds = args.seconds;
    f->must_move = 1;
  } else {
    free(numbers);
  }
  f->wants_lease = 0;
  return rc;
}

/* A short transaction never has to ask: not before a sixth of the lease's time has gone by, or the lease has. */
static void renew_at(mv_file *f, double at) {
  f->lease_due = f->lease_ends - f->lease_seconds / 2;
  if (f->lease_due < at + f->lease_seconds / 6) f->lease_due = at + f->lease_seconds / 6;
  if (f->lease_due > f->lease_ends) f->lease_due = f->lease_ends;
}

void mv_use_lease(mv_file *f) {
  if (f->list.own_count) renew_at(f, now());
}

/* Also one that has ended, for nobody may have been given its numbers.  If somebody was, the commit fails. */
int mv_keep_lease(mv_file *f) {
  double at, seconds = 0;
  if (!f->list.own_count || (at = now()) < f->lease_due) return SQLITE_OK;
  int rc = mv_call_renew_lease(f->host, f->session, &seconds);
  if (rc != SQLITE_OK) return rc;
  if (seconds > 0) {
    f->lease_ends = at + seconds;
    f->lease_seconds = seconds;
    renew_at(f, at);
  } else {
    f->lease_due = seconds < 0 ? at + f->lease_seconds / 6 : HUGE_VAL;
  }
  return SQLITE_OK;
}

static int start_at_newest(mv_file *f, int ahead, mv_start *start) {
  mv_version v;
  if (!f->always_begin && mv_db_quick_begin(f->db, &f->snapshot, f->peer == f ? f->within : 0, start)) return SQLITE_OK;
  for (;; ahead = MV_ASKS) {
    int rc = ask(f, NULL, &v, &ahead);
    if (rc != SQLITE_OK) return rc;
    f->unconfirmed = ahead;
    mv_db_begin(f->db, &f->snapshot, start);
    /* Another thread may have gone further meanwhile: as good, but where each begin must be flushed. */
    if (mv_db_watched(f->db) && (!f->always_begin || mv_version_cmp(mv_base(f), v) == 0)) return SQLITE_OK;
    mv_alloc_release(start->alloc);
  }
}

/* Whether nobody committed between the one before the last own commit and the snapshot that starts, but
** for that commit itself. */
static int alone_since(const mv_file *f, const mv_start *start) {
  if (mv_version_cmp(start->last_change, f->previous) > 0) return 0;
  return !f->unsure || mv_version_cmp(start->change_before, f->sure_until) <= 0;
}

/* Begin at the newest version, or at that of the files that hold a snapshot.  Where the namespace is what it was when the last lock period ended,
** the counter stays and SQLite's cache serves; else it moves by 3: by 2 or more from the last one that
** SQLite saw, which may be one more than the last one shown (rules 2 and 3). */
int mv_snapshot_begin(mv_file *f) {
  int rc = SQLITE_OK, same = f->has_previous && !f->must_move;
  mv_start start = {.alloc = NULL};
  int ahead = f->next_begin;
  f->next_begin = MV_ASKS; /* it was said of this one only */
  f->unconfirmed = 0;
  if (f->pinned) {
    if (same) return SQLITE_OK;
  } else {
    if (f->lease.count && now() > f->lease_ends) {
      mv_numbers_free(&f->lease);
      f->must_move = 1;
    }
    if (f->wants_lease && (rc = take_lease(f)) != SQLITE_OK) return rc;
    const mv_file *holder = mv_holder(f);
    rc = holder ? mv_snapshot_join(f, &start) : start_at_newest(f, ahead, &start);
    if (rc != SQLITE_OK) return rc;
    if (holder) f->unconfirmed = holder->unconfirmed;
    same = same && !f->must_move && f->reads.count <= KEPT_READS &&
           alone_since(f, &start) && mv_version_cmp(f->previous, mv_base(f)) <= 0;
    mv_alloc_release(f->alloc);
    f->alloc = start.alloc;
    f->page_size = start.page_size;
    f->unsure = 0;
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

void mv_snapshot_end(mv_file *f) {
  f->previous = mv_base(f);
  if (!f->pinned) mv_db_drop(f->db, &f->snapshot);
}
