/*
** The VFS "mv": finds the kind of file and hands over.
**
**   main database            mainfile.c: a database in a page store
**   rollback/super-journal   journal.c: private to the connection, in memory
**   temporary files          the platform's default VFS
**   write-ahead log          refused: WAL mode is never used
**
** Names of databases are not paths: xFullPathname keeps them as they are, xAccess finds no journal or
** WAL beside a database, xDelete has nothing to delete but super-journals (attached.c; docs/design/sqlite-vfs.md, rule 14: an error from deleting a
** journal that is not there becomes "disk I/O error" at the first commit).
**
** It is registered once per copy of SQLite in the process, through the entry points of a loadable
** extension at the end of this file.
*/
#include "shim.h"

#include <pthread.h>
#include <string.h>

#define MAX_HOSTS 8
#define MAX_NAME 4096

static mv_host hosts[MAX_HOSTS];
static int host_count;
static pthread_mutex_t hosts_mutex = PTHREAD_MUTEX_INITIALIZER;

static const mv_host *host_of(sqlite3_vfs *vfs) { return vfs->pAppData; }
static sqlite3_vfs *fallback(sqlite3_vfs *vfs) { return host_of(vfs)->fallback; }

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
  file->pMethods = NULL;
  if (name && flags & SQLITE_OPEN_MAIN_DB) return mv_main_open(host_of(vfs), name, file, flags, out_flags);
  if (flags & SQLITE_OPEN_MAIN_JOURNAL) {
    int rc = mv_check_journal(host_of(vfs), name);
    return rc == SQLITE_OK ? mv_journal_open(host_of(vfs), file, flags, out_flags) : rc;
  }
  if (flags & SQLITE_OPEN_SUPER_JOURNAL) {
    sqlite3_vfs *elsewhere = mv_super_vfs(name);
    if (elsewhere) return elsewhere->xOpen(elsewhere, name, file, flags, out_flags);
    if (flags & SQLITE_OPEN_CREATE) mv_super_created(name);
    return mv_journal_open(host_of(vfs), file, flags, out_flags);
  }
  if (flags & SQLITE_OPEN_WAL) return SQLITE_CANTOPEN;
  return fallback(vfs)->xOpen(fallback(vfs), name, file, flags, out_flags);
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir) {
  (void)vfs;
  sqlite3_vfs *elsewhere = mv_super_vfs(name);
  return elsewhere ? elsewhere->xDelete(elsewhere, name, sync_dir) : SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out) {
  (void)vfs, (void)flags;
  *out = mv_super_present(name);
  return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out) {
  (void)vfs;
  size_t n = strlen(name);
  if (n + 1 > (size_t)size) return SQLITE_CANTOPEN;
  memcpy(out, name, n + 1);
  return SQLITE_OK;
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name) {
  return fallback(vfs)->xDlOpen(fallback(vfs), name);
}
static void vfs_dl_error(sqlite3_vfs *vfs, int size, char *out) {
  fallback(vfs)->xDlError(fallback(vfs), size, out);
}
static void (*vfs_dl_sym(sqlite3_vfs *vfs, void *library, const char *symbol))(void) {
  return fallback(vfs)->xDlSym(fallback(vfs), library, symbol);
}
static void vfs_dl_close(sqlite3_vfs *vfs, void *library) {
  fallback(vfs)->xDlClose(fallback(vfs), library);
}
static int vfs_randomness(sqlite3_vfs *vfs, int size, char *out) {
  return fallback(vfs)->xRandomness(fallback(vfs), size, out);
}
static int vfs_sleep(sqlite3_vfs *vfs, int microseconds) {
  return fallback(vfs)->xSleep(fallback(vfs), microseconds);
}
static int vfs_current_time(sqlite3_vfs *vfs, double *out) {
  return fallback(vfs)->xCurrentTime(fallback(vfs), out);
}
static int vfs_last_error(sqlite3_vfs *vfs, int size, char *out) {
  (void)vfs, (void)size, (void)out;
  return 0;
}
static int vfs_current_time_64(sqlite3_vfs *vfs, sqlite3_int64 *out) {
  return fallback(vfs)->xCurrentTimeInt64(fallback(vfs), out);
}

static int largest(int a, int b) { return a > b ? a : b; }

static int register_with(const sqlite3_api_routines *api, int raises) {
  int rc = SQLITE_OK;
  pthread_mutex_lock(&hosts_mutex);
  for (int i = 0; i < host_count; i++) {
    if (hosts[i].api == api) {
      hosts[i].raises |= raises;
      goto done;
    }
  }
  sqlite3_vfs *dflt = api_vfs_find(api, NULL);
  if (host_count == MAX_HOSTS || !dflt || dflt->iVersion < 2 || api_libversion_number(api) < MV_OLDEST_SQLITE) {
    rc = SQLITE_ERROR;
    goto done;
  }
  mv_host *h = &hosts[host_count];
  h->api = api;
  h->fallback = dflt;
  h->names_schemas = api_libversion_number(api) >= MV_NAMES_SCHEMAS;
  h->raises = raises;
  h->vfs = (sqlite3_vfs){
      .iVersion = 2,
      .szOsFile = largest(dflt->szOsFile, largest(mv_main_size(), mv_journal_size())),
      .mxPathname = MAX_NAME,
      .zName = "mv",
      .pAppData = h,
      .xOpen = vfs_open,
      .xDelete = vfs_delete,
      .xAccess = vfs_access,
      .xFullPathname = vfs_full_pathname,
      .xDlOpen = vfs_dl_open,
      .xDlError = vfs_dl_error,
      .xDlSym = vfs_dl_sym,
      .xDlClose = vfs_dl_close,
      .xRandomness = vfs_randomness,
      .xSleep = vfs_sleep,
      .xCurrentTime = vfs_current_time,
      .xGetLastError = vfs_last_error,
      .xCurrentTimeInt64 = vfs_current_time_64,
  };
  rc = api_vfs_register(api, &h->vfs, 0);
  if (rc == SQLITE_OK) host_count++;
done:
  pthread_mutex_unlock(&hosts_mutex);
  return rc;
}

/* Entry points of the loadable extension: for any host, and for APSW. */
__attribute__((visibility("default"))) int sqlite3_mv_init(sqlite3 *db, char **error,
                                                            const sqlite3_api_routines *api) {
  (void)db, (void)error;
  int rc = register_with(api, 0);
  return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}

__attribute__((visibility("default"))) int sqlite3_mvapsw_init(sqlite3 *db, char **error,
                                                                const sqlite3_api_routines *api) {
  (void)db, (void)error;
  int rc = register_with(api, 1);
  return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
