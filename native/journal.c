/*
** The rollback journal (and a super-journal): private to its connection and of no use after a crash,
** because nothing reaches the store before the commit.  So it lives in memory up to SPILL bytes and
** moves to a temporary file of the platform's default VFS beyond that.
**
** SQLite reads it back on ROLLBACK TO, on statement rollback and on a rollback after spilled pages
** (pager_playback), so it must behave as a file: sparse writes, short reads, truncation.
*/
#include "shim.h"

#include <stdlib.h>
#include <string.h>

#define SPILL (8u * 1024 * 1024)
#define CHUNK 65536u /* SQLite's unix VFS writes less than 128 KiB at once (seekAndWriteFd in os_unix.c) */

typedef struct mv_journal {
  sqlite3_file base;
  const mv_host *host;
  uint8_t *data;
  uint64_t size, capacity;
  sqlite3_file *spilled; /* NULL while in memory */
} mv_journal;

static int close_spilled(mv_journal *j) {
  int rc = SQLITE_OK;
  if (j->spilled) {
    rc = j->spilled->pMethods ? j->spilled->pMethods->xClose(j->spilled) : SQLITE_OK;
    free(j->spilled);
    j->spilled = NULL;
  }
  return rc;
}

static int journal_close(sqlite3_file *file) {
  mv_journal *j = (mv_journal *)file;
  free(j->data);
  j->data = NULL;
  return close_spilled(j);
}

static int journal_read(sqlite3_file *file, void *out, int amount, sqlite3_int64 offset) {
  mv_journal *j = (mv_journal *)file;
  if (j->spilled) return j->spilled->pMethods->xRead(j->spilled, out, amount, offset);
  uint64_t from = (uint64_t)offset, want = (uint64_t)amount;
  uint64_t have = from < j->size ? j->size - from : 0;
  if (have > want) have = want;
  if (have) memcpy(out, j->data + from, have);
  if (have == want) return SQLITE_OK;
  memset((uint8_t *)out + have, 0, want - have);
  return SQLITE_IOERR_SHORT_READ;
}

static int spill(mv_journal *j) {
  sqlite3_vfs *vfs = j->host->fallback;
  int flags = SQLITE_OPEN_TEMP_JOURNAL | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXCLUSIVE |
              SQLITE_OPEN_DELETEONCLOSE;
  sqlite3_file *file = calloc(1, (size_t)vfs->szOsFile);
  if (!file) return SQLITE_NOMEM;
  int rc = vfs->xOpen(vfs, NULL, file, flags, NULL);
  for (uint64_t at = 0; rc == SQLITE_OK && at < j->size; at += CHUNK) {
    uint64_t n = j->size - at < CHUNK ? j->size - at : CHUNK;
    rc = file->pMethods->xWrite(file, j->data + at, (int)n, (sqlite3_int64)at);
  }
  if (rc != SQLITE_OK) {
    if (file->pMethods) file->pMethods->xClose(file);
    free(file);
    return rc;
  }
  j->spilled = file;
  free(j->data);
  j->data = NULL;
  j->size = j->capacity = 0;
  return SQLITE_OK;
}

static int journal_write(sqlite3_file *file, const void *in, int amount, sqlite3_int64 offset) {
  mv_journal *j = (mv_journal *)file;
  uint64_t from = (uint64_t)offset, end = from + (uint64_t)amount;
  if (!j->spilled && end > SPILL) {
    int rc = spill(j);
    if (rc != SQLITE_OK) return rc;
  }
  if (j->spilled) return j->spilled->pMethods->xWrite(j->spilled, in, amount, offset);
  if (end > j->capacity) {
    uint64_t capacity = j->capacity ? j->capacity * 2 : 16384;
    while (capacity < end) capacity *= 2;
    uint8_t *data = realloc(j->data, capacity);
    if (!data) return SQLITE_NOMEM;
    j->data = data;
    j->capacity = capacity;
  }
  if (from > j->size) memset(j->data + j->size, 0, from - j->size);
  memcpy(j->data + from, in, (size_t)amount);
  if (end > j->size) j->size = end;
  return SQLITE_OK;
}

static int journal_truncate(sqlite3_file *file, sqlite3_int64 size) {
  mv_journal *j = (mv_journal *)file;
  if (size == 0) { /* a new life, in memory again */
    j->size = 0;
    return close_spilled(j);
  }
  if (j->spilled) return j->spilled->pMethods->xTruncate(j->spilled, size);
  if ((uint64_t)size < j->size) j->size = (uint64_t)size;
  return SQLITE_OK;
}

static int journal_file_size(sqlite3_file *file, sqlite3_int64 *size) {
  mv_journal *j = (mv_journal *)file;
  if (j->spilled) return j->spilled->pMethods->xFileSize(j->spilled, size);
  *size = (sqlite3_int64)j->size;
  return SQLITE_OK;
}

static int no_sync(sqlite3_file *file, int flags) {
  (void)file, (void)flags;
  return SQLITE_OK;
}

static int no_lock(sqlite3_file *file, int level) {
  (void)file, (void)level;
  return SQLITE_OK;
}

static int no_reserved(sqlite3_file *file, int *out) {
  (void)file;
  *out = 0;
  return SQLITE_OK;
}

static int no_control(sqlite3_file *file, int op, void *arg) {
  (void)file, (void)op, (void)arg;
  return SQLITE_NOTFOUND;
}

static int sector_size(sqlite3_file *file) {
  (void)file;
  return 512;
}

static int characteristics(sqlite3_file *file) {
  (void)file;
  return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods journal_methods = {
    1,           journal_close,    journal_read,     journal_write, journal_truncate,
    no_sync,     journal_file_size, no_lock,         no_lock,       no_reserved,
    no_control,  sector_size,      characteristics,
};

int mv_journal_open(const mv_host *host, sqlite3_file *file, int flags, int *out_flags) {
  mv_journal *j = (mv_journal *)file;
  memset(j, 0, sizeof *j);
  j->base.pMethods = &journal_methods;
  j->host = host;
  if (out_flags) *out_flags = flags;
  return SQLITE_OK;
}

int mv_journal_size(void) { return (int)sizeof(mv_journal); }
