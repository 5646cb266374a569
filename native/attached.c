/*
** Several databases of one connection (rules 15 to 17): which files they are, at which version they stand,
** and what a COMMIT is about.  Called by mainfile.c, vfs.c (journals), snapshot.c, locks.c and commit.c; asks
** SQLite for the connection's other databases.
**
** The files of one sqlite3* form a ring (`peer`).  Those of one store, pinned ones excepted, belong together:
**
** 1. Those that hold SHARED or more stand at one version.  One that joins later makes the others move to a
**    later version only if nothing changed for them in between.
** 2. Participants of a COMMIT are those that hold EXCLUSIVE and have begun their journal.  Each is staged at
**    its FCNTL_SYNC, and all of them are committed at the last one's (commit.c).
** 3. A super-journal commits nothing.  It counts as present until all is committed: else SQLite would not play
**    its journals back after a refusal, and would read what was refused.
**
** Only the thread that runs the connection touches its ring; `files_mutex` guards the list of all files.
*/
#include "mainfile.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define JOURNAL_HEADER 28
#define SECTOR_SIZE_AT 20 /* https://www.sqlite.org/fileformat2.html#the_rollback_journal; 0: not begun */
#define WAL_MAGIC 0x377f0682u /* or one more: SQLite answers with the write-ahead log of a file that has one */

static mv_file *open_files;
static pthread_mutex_t files_mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_int check_journals; /* 0 in most programs: no file has a peer, or was brought to the past */

void mv_check_journals(void) { atomic_store(&check_journals, 1); }

/* ---- the ring ---- */

void mv_files_add(mv_file *f) {
  f->peer = f;
  pthread_mutex_lock(&files_mutex);
  f->next = open_files;
  open_files = f;
  pthread_mutex_unlock(&files_mutex);
}

void mv_files_freeze(int frozen) {
  if (frozen) pthread_mutex_lock(&files_mutex);
  else pthread_mutex_unlock(&files_mutex);
}

static void leave_ring(mv_file *f) {
  mv_file *before = f;
  while (before->peer != f) before = before->peer;
  before->peer = f->peer;
  f->peer = f;
}

void mv_files_remove(mv_file *f) {
  pthread_mutex_lock(&files_mutex);
  mv_file **at = &open_files;
  while (*at && *at != f) at = &(*at)->next;
  if (*at) *at = f->next;
  pthread_mutex_unlock(&files_mutex);
  if (f->fork_generation == mv_fork_generation) leave_ring(f);
}

void mv_files_connect(mv_file *f, sqlite3 *connection) {
  if (f->connection == connection) return;
  leave_ring(f);
  f->connection = connection;
  pthread_mutex_lock(&files_mutex);
  mv_file *g = open_files;
  while (g && (g == f || g->connection != connection)) g = g->next;
  pthread_mutex_unlock(&files_mutex);
  if (!g) return;
  mv_check_journals();
  f->peer = g->peer;
  g->peer = f;
}

mv_file *mv_holder(const mv_file *f) {
  for (mv_file *g = f->peer; g != f; g = g->peer)
    if (mv_holds_with(f, g)) return g;
  return NULL;
}

/* ---- one version ---- */

static void relabel_holders(mv_file *f, mv_version v) {
  for (mv_file *g = f->peer; g != f; g = g->peer)
    if (mv_holds_with(f, g)) mv_db_relabel(g->db, &g->snapshot, v);
}

/* At `v`, if the cache can stand there, and somebody looks how long that lasts. */
static int begin_watched(mv_file *f, mv_version v, mv_start *start) {
  if (!mv_db_begin_at(f->db, &f->snapshot, v, start)) return 0;
  if (mv_db_watched(f->db)) return 1;
  mv_alloc_release(start->alloc);
  return 0;
}

/* Where the head words tell that nobody has committed to any of them since: no need to ask.  The file's own
** newest version comes first, so that what the words say of the others holds for it.  (Those of a followed
** store never tell, as each of them is of a time of its own.) */
static int join_quickly(mv_file *f, mv_version v, mv_start *start) {
  mv_version newest;
  if (f->always_begin || !mv_db_newest(f->db, &newest)) return 0;
  for (mv_file *g = f->peer; g != f; g = g->peer)
    if (mv_holds_with(f, g) && !mv_db_unmoved(g->db, v, 0)) return 0;
  if (mv_version_cmp(newest, v) > 0) v = newest;
  relabel_holders(f, v);
  return begin_watched(f, v, start);
}

static void **list_holders(mv_file *f, uint32_t *count) {
  uint32_t n = 0;
  for (mv_file *g = f->peer; g != f; g = g->peer) n += mv_holds_with(f, g) != 0;
  void **sessions = malloc(n * sizeof *sessions);
  for (mv_file *g = f->peer; sessions && g != f; g = g->peer)
    if (mv_holds_with(f, g)) sessions[(*count)++] = g->session;
  return sessions;
}

int mv_snapshot_join(mv_file *f, mv_start *start) {
  static const mv_version never = {UINT64_MAX, UINT16_MAX};
  const mv_file *holder = mv_holder(f);
  mv_join args = {.holders = NULL};
  if (join_quickly(f, mv_base(holder), start)) return SQLITE_OK;
  void **sessions = list_holders(f, &args.holder_count);
  if (!sessions) return SQLITE_NOMEM;
  args.holders = sessions;
  int rc = SQLITE_OK;
  for (int done = 0; rc == SQLITE_OK && !done;) {
    mv_version_put(mv_base(holder), args.version);
    args.alloc = NULL;
    rc = mv_call_join(f->host, f->session, &args);
    if (rc != SQLITE_OK) break;
    mv_version v = mv_version_get(args.version);
    relabel_holders(f, v);
    if (args.alloc) {
      mv_db_hold(f->db, &f->snapshot, v);
      *start = (mv_start){never, never, args.alloc, mv_db_page_size(f->db)};
      done = mv_db_watched(f->db);
      if (!done) mv_alloc_release(args.alloc);
    } else { /* unless another thread has taken in what comes after it meanwhile */
      done = begin_watched(f, v, start);
    }
  }
  free(sessions);
  return rc;
}

/* ---- what SQLite knows of the connection's databases ---- */

static sqlite3_file *file_of(const mv_file *f, const char *schema) {
  sqlite3_file *file = NULL;
  api_file_control(f->host->api, f->connection, schema, SQLITE_FCNTL_FILE_POINTER, &file);
  return file;
}

/* The place of the file among the connection's databases (0: main), and its schema's name; -1: not known. */
static int place_of(const mv_file *f, const char **schema) {
  *schema = NULL;
  if (!f->connection || !f->host->names_schemas) return -1;
  const char *name;
  for (int i = 0; (name = api_db_name(f->host->api, f->connection, i)) != NULL; i++) {
    if (file_of(f, name) != &f->base_file) continue;
    *schema = name;
    return i;
  }
  return -1;
}

int mv_place(const mv_file *f) {
  const char *schema;
  return place_of(f, &schema);
}

const char *mv_file_schema(void *file) {
  const char *schema;
  place_of(file, &schema);
  return schema;
}

/* Whether a database has begun a rollback journal in this transaction, in whatever journal mode but OFF. */
static int journal_begun(const mv_file *f, const char *schema) {
  sqlite3_file *journal = NULL;
  uint8_t header[JOURNAL_HEADER];
  int rc = api_file_control(f->host->api, f->connection, schema, SQLITE_FCNTL_JOURNAL_POINTER, &journal);
  if (rc != SQLITE_OK || !journal || !journal->pMethods) return 0;
  rc = journal->pMethods->xRead(journal, header, JOURNAL_HEADER, 0);
  if (rc == SQLITE_IOERR_SHORT_READ) return 0;
  if (rc != SQLITE_OK) return 1; /* it can't be told, so nothing may rest on it */
  return (mv_be32(header) & ~1u) != WAL_MAGIC && mv_be32(header + SECTOR_SIZE_AT) != 0;
}

static int is_participant(const mv_file *g) {
  const char *schema = mv_file_schema((void *)g);
  return schema && journal_begun(g, schema);
}

/* ---- the participants of a commit ---- */

int mv_awaits_others(mv_file *f) {
  for (mv_file *g = f->peer; g != f; g = g->peer)
    if (mv_holds_with(f, g) && g->lock == SQLITE_LOCK_EXCLUSIVE && g->state == MV_WRITING && !g->staged &&
        is_participant(g))
      return 1;
  return 0;
}

static int is_only_database(const mv_file *f) {
  return f->peer == f && f->host->names_schemas && !api_db_name(f->host->api, f->connection, 2);
}

static int refuse_other_store(mv_file *f) {
  return mv_fail(f, SQLITE_ERROR,
                 "a transaction can't write databases of two stores: it would not be atomic; "
                 "commit what belongs to each store by itself");
}

static int refuse_ordinary_file(mv_file *f, const char *schema) {
  char text[512];
  snprintf(text, sizeof text,
           "a transaction can't write an mv database and \"%s\", which is an ordinary file: it would not be "
           "atomic; commit them one after the other, or bring the file into the store with mvctl import",
           schema);
  return mv_fail(f, SQLITE_ERROR, text);
}

/* For a SQLite that does not tell the schemas' names. */
static int check_blindly(mv_file *f, const char *super) {
  int alone = !super;
  for (mv_file *g = f->peer; g != f; g = g->peer) alone = alone && (g->pinned || g->lock < SQLITE_LOCK_SHARED);
  if (alone) return SQLITE_OK;
  return mv_fail(f, SQLITE_ERROR,
                 "with a SQLite older than 3.39 a transaction can't write an mv database while it reads or "
                 "writes another one: it would not be atomic");
}

static int check_database(mv_file *f, const char *schema) {
  mv_file *g = f->peer;
  const sqlite3_file *file = file_of(f, schema);
  if (!file || !file->pMethods || file == &f->base_file) return SQLITE_OK;
  while (g != f && &g->base_file != file) g = g->peer;
  if (g != f) {
    int written = g->store != f->store && g->lock == SQLITE_LOCK_EXCLUSIVE && g->state == MV_WRITING;
    return written && journal_begun(f, schema) ? refuse_other_store(f) : SQLITE_OK;
  }
  const char *path = api_db_filename(f->host->api, f->connection, schema);
  if (!path || !path[0]) return SQLITE_OK; /* in memory, or temporary */
  if (api_txn_state(f->host->api, f->connection, schema) != SQLITE_TXN_WRITE) return SQLITE_OK;
  return journal_begun(f, schema) ? refuse_ordinary_file(f, schema) : SQLITE_OK;
}

int mv_check_commit(mv_file *f, const char *super) {
  if (!super && is_only_database(f)) return SQLITE_OK;
  for (mv_file *g = f->peer; g != f; g = g->peer)
    if (g->state == MV_COMMITTED && g->lock == SQLITE_LOCK_EXCLUSIVE)
      return mv_fail(f, SQLITE_ERROR,
                     "another database of this transaction has been committed: with journal_mode=OFF, a "
                     "transaction over several databases is not atomic");
  if (!f->host->names_schemas) return check_blindly(f, super);
  int rc = SQLITE_OK;
  const char *schema;
  for (int i = 0; rc == SQLITE_OK && (schema = api_db_name(f->host->api, f->connection, i)) != NULL; i++)
    if (i != 1) rc = check_database(f, schema); /* 1 is temp */
  return rc;
}

/* As early as that can be told: a first write, to the past or to a second store, opens a journal. */
int mv_check_journal(const mv_host *host, const char *name) {
  if (!host->names_schemas || !name || !atomic_load(&check_journals)) return SQLITE_OK;
  const char *database = api_filename_database(host->api, name);
  pthread_mutex_lock(&files_mutex);
  mv_file *f = open_files;
  while (f && f->name != database) f = f->next;
  pthread_mutex_unlock(&files_mutex);
  if (!f) return SQLITE_OK;
  if (f->pinned) return SQLITE_READONLY;
  for (mv_file *g = f->peer; g != f; g = g->peer)
    if (g->store != f->store && g->state == MV_WRITING && is_participant(g)) return refuse_other_store(f);
  return SQLITE_OK;
}

/* ---- super-journals ---- */

/* "NAME-mjXXXXXX9XX" (vdbeCommit in vdbeaux.c), NAME being the main database's. */
#define SUPER_SUFFIX 12

static int is_super_journal(const char *name) {
  size_t n = strlen(name);
  return n > SUPER_SUFFIX && memcmp(name + n - SUPER_SUFFIX, "-mj", 3) == 0;
}

static int is_super_journal_of(const char *super, const char *name) {
  size_t n = strlen(super);
  return strlen(name) == n - SUPER_SUFFIX && memcmp(super, name, n - SUPER_SUFFIX) == 0;
}

static mv_file *find_super(const char *name) {
  mv_file *f = open_files;
  while (f && !(f->super && strcmp(f->super, name) == 0)) f = f->next;
  return f;
}

static void set_super(mv_file *f, const char *name, sqlite3_vfs *vfs) {
  free(f->super);
  f->super = strdup(name); /* without memory: as if it were not there */
  f->super_vfs = vfs;
}

/* Created through this VFS: the main database is one of ours, and keeps the name until its next one. */
void mv_super_created(const char *name) {
  if (!name || !is_super_journal(name)) return;
  pthread_mutex_lock(&files_mutex);
  for (mv_file *f = open_files; f; f = f->next)
    if (is_super_journal_of(name, f->name)) set_super(f, name, NULL);
  pthread_mutex_unlock(&files_mutex);
}

/* Told at FCNTL_SYNC, when no ordinary file takes part; it may lie in the main database's own VFS. */
void mv_super_seen(mv_file *f, const char *name) {
  sqlite3_vfs *vfs = NULL;
  pthread_mutex_lock(&files_mutex);
  int known = find_super(name) != NULL;
  pthread_mutex_unlock(&files_mutex);
  if (known) return;
  const char *main_schema = api_db_name(f->host->api, f->connection, 0);
  api_file_control(f->host->api, f->connection, main_schema, SQLITE_FCNTL_VFS_POINTER, &vfs);
  if (vfs == &f->host->vfs || (vfs && vfs->szOsFile > f->host->vfs.szOsFile)) vfs = NULL;
  pthread_mutex_lock(&files_mutex);
  set_super(f, name, vfs); /* until its next one: SQLite removes it after the lock has fallen */
  pthread_mutex_unlock(&files_mutex);
}

static int is_committed(const mv_file *f) {
  const mv_file *g = f;
  do {
    if (g->state == MV_COMMITTED && g->lock == SQLITE_LOCK_EXCLUSIVE) return 1;
    g = g->peer;
  } while (g != f);
  return 0;
}

/* Asked when SQLite looks for a name that is free, and when it plays a journal back. */
int mv_super_present(const char *name) {
  if (!is_super_journal(name)) return 0;
  pthread_mutex_lock(&files_mutex);
  const mv_file *f = find_super(name);
  int present = f ? !is_committed(f) : 1;
  for (const mv_file *g = f ? NULL : open_files; g; g = g->next)
    if (is_super_journal_of(name, g->name)) present = 0; /* a name of ours that nobody has yet */
  pthread_mutex_unlock(&files_mutex);
  return present;
}

/* The VFS in which a super-journal lies, if it is not ours.  After a refusal SQLite reads and removes it
** through the VFS of the database that it rolls back (pager_delsuper in pager.c).  No journal of an ordinary
** file names it, as a commit that such a file takes part in is refused before. */
sqlite3_vfs *mv_super_vfs(const char *name) {
  if (!name || !is_super_journal(name)) return NULL;
  pthread_mutex_lock(&files_mutex);
  const mv_file *f = find_super(name);
  sqlite3_vfs *vfs = f ? f->super_vfs : NULL;
  pthread_mutex_unlock(&files_mutex);
  return vfs;
}

/* ---- for Python ---- */

/* The sessions of this file and of others of its connection: those that hold a snapshot with it, those that
** a transaction may write with it, or all that stand at no version for good.  How many; `sessions` has room
** for as many as fit. */
uint32_t mv_file_peers(void *file, void **sessions, uint32_t room, int which) {
  mv_file *f = file, *g = f;
  uint32_t n = 0;
  do {
    int together = g->store == f->store && !g->read_only;
    int wanted = which == MV_HOLDING ? mv_holds_with(f, g) : !g->pinned && !f->pinned && (which == MV_ALL_PEERS || together);
    if (g != f && !wanted) continue;
    if (n < room) sessions[n] = g->session;
    n++;
  } while ((g = g->peer) != f);
  return n;
}
