/* The journal behaves as a file, in memory and spilled; the default VFS is a stand-in over tmpfile(). */
#include "../shim.h"

#include <string.h>

#include "check.h"

typedef struct plain {
  sqlite3_file base;
  FILE *file;
} plain;

static int opened, closed;

static int plain_close(sqlite3_file *f) {
  closed++;
  fclose(((plain *)f)->file);
  return SQLITE_OK;
}
static int plain_read(sqlite3_file *f, void *out, int n, sqlite3_int64 at) {
  FILE *file = ((plain *)f)->file;
  fseek(file, (long)at, SEEK_SET);
  size_t got = fread(out, 1, (size_t)n, file);
  memset((char *)out + got, 0, (size_t)n - got);
  return got == (size_t)n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}
static int plain_write(sqlite3_file *f, const void *in, int n, sqlite3_int64 at) {
  FILE *file = ((plain *)f)->file;
  CHECK(n < 128 * 1024); /* the most that the unix VFS takes */
  fseek(file, (long)at, SEEK_SET);
  return fwrite(in, 1, (size_t)n, file) == (size_t)n ? SQLITE_OK : SQLITE_FULL;
}
static int plain_size(sqlite3_file *f, sqlite3_int64 *out) {
  fseek(((plain *)f)->file, 0, SEEK_END);
  *out = ftell(((plain *)f)->file);
  return SQLITE_OK;
}
static const sqlite3_io_methods plain_methods = {.iVersion = 1,
                                                 .xClose = plain_close,
                                                 .xRead = plain_read,
                                                 .xWrite = plain_write,
                                                 .xFileSize = plain_size};
static int plain_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
  (void)vfs, (void)out;
  CHECK(!name && flags & SQLITE_OPEN_DELETEONCLOSE);
  opened++;
  ((plain *)f)->file = tmpfile();
  f->pMethods = &plain_methods;
  return ((plain *)f)->file ? SQLITE_OK : SQLITE_CANTOPEN;
}
static int refuse_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
  (void)vfs, (void)name, (void)f, (void)flags, (void)out;
  return SQLITE_CANTOPEN;
}

static sqlite3_vfs fallback = {.szOsFile = (int)sizeof(plain), .xOpen = plain_open};
static mv_host host = {.fallback = &fallback};

static sqlite3_file *open_journal(void) {
  sqlite3_file *j = calloc(1, (size_t)mv_journal_size());
  CHECK(j && mv_journal_open(&host, j, SQLITE_OPEN_MAIN_JOURNAL, NULL) == SQLITE_OK);
  return j;
}

static void shut(sqlite3_file *j) {
  CHECK(j->pMethods->xClose(j) == SQLITE_OK);
  free(j);
}

static void reads_back_what_was_written(sqlite3_file *j, sqlite3_int64 at) {
  uint8_t in[3000], out[3000];
  sqlite3_int64 size;
  for (int i = 0; i < 3000; i++) in[i] = (uint8_t)(i * 7 + at);
  CHECK(j->pMethods->xWrite(j, in, sizeof in, at) == SQLITE_OK);
  CHECK(j->pMethods->xRead(j, out, sizeof out, at) == SQLITE_OK && !memcmp(in, out, sizeof in));
  CHECK(j->pMethods->xFileSize(j, &size) == SQLITE_OK && size == at + 3000);
  CHECK(j->pMethods->xRead(j, out, sizeof out, at + 2000) == SQLITE_IOERR_SHORT_READ);
  CHECK(!memcmp(out, in + 2000, 1000) && out[1000] == 0 && out[2999] == 0);
}

static void in_memory_with_a_hole(void) {
  sqlite3_file *j = open_journal();
  uint8_t byte = 1;
  CHECK(j->pMethods->xRead(j, &byte, 1, 0) == SQLITE_IOERR_SHORT_READ && byte == 0);
  reads_back_what_was_written(j, 0);
  reads_back_what_was_written(j, 100000);
  CHECK(j->pMethods->xRead(j, &byte, 1, 50000) == SQLITE_OK && byte == 0);
  CHECK(opened == 0);
  shut(j);
}

static void spills_and_comes_back(void) {
  sqlite3_file *j = open_journal();
  uint8_t out[3000];
  reads_back_what_was_written(j, 0);
  reads_back_what_was_written(j, 9 << 20);
  CHECK(opened == 1);
  CHECK(j->pMethods->xRead(j, out, sizeof out, 0) == SQLITE_OK && out[1] == 7);
  CHECK(j->pMethods->xTruncate(j, 0) == SQLITE_OK && closed == 1); /* journal_mode=truncate: a new life */
  reads_back_what_was_written(j, 0);
  CHECK(opened == 1);
  shut(j);
}

static void no_room_for_a_spill_is_an_error(void) {
  sqlite3_file *j = open_journal();
  uint8_t out[3000];
  reads_back_what_was_written(j, 0);
  fallback.xOpen = refuse_open;
  CHECK(j->pMethods->xWrite(j, out, sizeof out, 9 << 20) == SQLITE_CANTOPEN);
  fallback.xOpen = plain_open;
  CHECK(j->pMethods->xRead(j, out, sizeof out, 0) == SQLITE_OK && out[1] == 7); /* nothing lost */
  shut(j);
}

int main(void) {
  in_memory_with_a_hole();
  spills_and_comes_back();
  no_room_for_a_spill_is_an_error();
  return 0;
}
