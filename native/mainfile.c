/* A database file: opening, reading and writing, control; see mainfile.h for its states. */
#include "mainfile.h"

#include <stdlib.h>
#include <strings.h>

int mv_fail(mv_file *f, int code, const char *what) {
  mv_call_failed(f->host, f->session, f, code, what);
  return code;
}

static int is_inherited(const mv_file *f) { return f->fork_generation != mv_fork_generation; }

static int inherited(mv_file *f) {
  if (!is_inherited(f)) return 0;
  mv_fail(f, SQLITE_MISUSE, "a connection can't be used across fork(): open a new one in the child");
  return 1;
}

static int main_lock(sqlite3_file *file, int level) {
  mv_file *f = (mv_file *)file;
  if (level <= f->lock) return SQLITE_OK;
  if (inherited(f)) return SQLITE_MISUSE;
  return mv_lock(f, level);
}

static int main_unlock(sqlite3_file *file, int level) {
  mv_file *f = (mv_file *)file;
  if (is_inherited(f)) return SQLITE_OK; /* another thread may have been at the cache when the fork happened */
  return level >= f->lock ? SQLITE_OK : mv_unlock(f, level);
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
  mv_snapshot_end(f);
  f->must_move = 1;
  return rc;
}

/* More than any database has: 2^32 - 2 pages of 64 KiB (https://www.sqlite.org/limits.html). */
static int is_outside(int amount, sqlite3_int64 offset) {
  return amount < 0 || offset < 0 || offset > (sqlite3_int64)1 << 48;
}

static int main_read(sqlite3_file *file, void *out, int amount, sqlite3_int64 offset) {
  mv_file *f = (mv_file *)file;
  if (inherited(f)) return SQLITE_MISUSE;
  if (is_outside(amount, offset)) return mv_fail(f, SQLITE_IOERR_READ, "a read outside of any database");
  if (f->lock == SQLITE_LOCK_NONE) {
    if (offset == 0 && amount <= 100) return read_at_open(f, out, (uint32_t)amount);
    return mv_fail(f, SQLITE_IOERR_READ, "a read without a lock");
  }
  if (f->page_size == 0) {
    memset(out, 0, (size_t)amount);
    return SQLITE_IOERR_SHORT_READ;
  }
  /* A read across pages comes from a connection that has not learnt the page size yet. */
  int rc = f->state == MV_WRITING ? mv_keep_lease(f) : SQLITE_OK;
  for (int done = 0; done < amount && rc == SQLITE_OK;) {
    uint32_t within = (uint32_t)((offset + done) % f->page_size), part = f->page_size - within;
    sqlite3_int64 number = (offset + done) / f->page_size + 1;
    if (part > (uint32_t)(amount - done)) part = (uint32_t)(amount - done);
    if (number > MV_HIGHEST_PAGE) rc = SQLITE_IOERR_SHORT_READ;
    else rc = mv_page_read(f, (uint32_t)number, (uint8_t *)out + done, within, part);
    if (rc != SQLITE_IOERR_SHORT_READ) done += (int)part;
    else memset((uint8_t *)out + done, 0, (size_t)(amount - done));
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
  if (f->pinned) return SQLITE_READONLY; /* mostly told before, at RESERVED or when the journal opened */
  int rc = mv_keep_lease(f);
  return rc == SQLITE_OK ? mv_page_write(f, in, amount, offset) : rc;
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

static int set_next_begin(mv_file *f, int *how_then_unconfirmed) {
  if (*how_then_unconfirmed != MV_ASKS) f->unconfirmed = 0; /* who starts is not asked about the one before */
  f->next_begin = f->distant ? *how_then_unconfirmed : MV_ASKS;
  *how_then_unconfirmed = f->unconfirmed;
  return SQLITE_OK;
}

static int main_control(sqlite3_file *file, int op, void *arg) {
  mv_file *f = (mv_file *)file;
  switch (op) {
    case SQLITE_FCNTL_SYNC:
      if (inherited(f)) return SQLITE_MISUSE;
      return mv_sync(f, arg);
    case SQLITE_FCNTL_PDB:
      mv_files_connect(f, *(sqlite3 **)arg);
      return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA:
      if (inherited(f)) return SQLITE_MISUSE;
      return pragma(f, arg);
    case MV_FCNTL_AHEAD:
      return set_next_begin(f, arg);
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
  mv_ahead_free(&f->ahead);
  mv_freelist_free(&f->list);
  mv_alloc_release(f->alloc);
  mv_numbers_free(&f->lease);
  free(f->scratch);
  free(f->super);
}

static int main_close(sqlite3_file *file) {
  mv_file *f = (mv_file *)file;
  mv_files_remove(f);
  if (!is_inherited(f)) { /* else the parent closes it; the little that it takes here stays */
    mv_call_close(f->host, f->session);
    free_file(f);
  }
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
  f->read_only = args.read_only;
  f->pinned = args.pinned;
  f->always_begin = args.always_begin;
  f->distant = args.distant;
  f->within = args.within;
  f->queued = args.queued;
  f->store = args.store;
  f->namespace = args.namespace;
  f->leases = args.leases;
  f->read_ahead = args.read_ahead;
  f->spill_bytes = args.spill_bytes;
  f->slow_seconds = args.slow_seconds;
  if (f->pinned) {
    f->alloc = args.alloc;
    f->page_size = args.page_size;
    mv_db_hold(f->db, &f->snapshot, mv_version_get(args.version));
  }
  if (out_flags) {
    *out_flags = flags;
    if (f->read_only || f->pinned) *out_flags = (flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
  }
  mv_files_add(f);
  f->base_file.pMethods = &main_methods;
  return SQLITE_OK;
}

int mv_main_size(void) { return (int)sizeof(mv_file); }

/* ---- for Python ---- */

void mv_file_stats(void *file, mv_stats *out) { *out = ((mv_file *)file)->stats; }

int mv_file_unconfirmed(void *file) { return ((mv_file *)file)->unconfirmed; }

void mv_file_cool(void *file) { mv_spill_cool(&((mv_file *)file)->spill); }

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


/* Stand at `version`, with its allocation (one reference), until told otherwise; NULL: at the newest again.
** Only between transactions: SQLITE_MISUSE otherwise. */
int mv_file_pin(void *file, const uint8_t *version, void *alloc, uint32_t page_size) {
  mv_file *f = file;
  if (f->lock != SQLITE_LOCK_NONE || (f->connection && !api_get_autocommit(f->host->api, f->connection)))
    return SQLITE_MISUSE;
  mv_db_drop(f->db, &f->snapshot);
  mv_alloc_release(f->alloc);
  f->alloc = alloc;
  f->pinned = version != NULL;
  f->must_move = 1;
  if (version) {
    mv_db_hold(f->db, &f->snapshot, mv_version_get(version));
    f->page_size = page_size;
    mv_check_journals(); /* SQLite opened it for writing */
  }
  return SQLITE_OK;
}
