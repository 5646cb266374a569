/*
** What the files of the shim share.  The VFS is described in vfs.c, a database file in mainfile.h, the
** rollback journal in journal.c, the boundary to Python in calls.h.
*/
#ifndef MV_SHIM_H
#define MV_SHIM_H

#include "cache.h"
#include "sets.h"
#include "sqlite_abi.h"

typedef struct mv_host { /* one copy of SQLite in this process */
  const sqlite3_api_routines *api;
  sqlite3_vfs vfs;
  sqlite3_vfs *fallback; /* its default VFS: temporary files, clock, randomness */
  int names_schemas; /* sqlite3_db_name() is there */
  int raises; /* its Python binding raises what is pending in the thread when a call fails (APSW) */
} mv_host;

/* calls.c: the mv_py_* functions, with the thread's pending exception put aside meanwhile. */
int mv_call_open(const mv_host *host, mv_open *args);
void mv_call_close(const mv_host *host, void *session);
int mv_call_begin(const mv_host *host, void *session, mv_begin *args);
int mv_call_join(const mv_host *host, void *session, mv_join *args);
int mv_call_fetch(const mv_host *host, void *session, mv_fetch *args);
int mv_call_commit(const mv_host *host, void *session, mv_commit *args, int has_open_cursors);
int mv_call_lease(const mv_host *host, void *session, mv_lease *args);
/* `*seconds`: how long the lease lasts from now; 0: it has ended; less: nobody could be asked. */
int mv_call_renew_lease(const mv_host *host, void *session, double *seconds);
int mv_call_pragma(const mv_host *host, void *session, void *file, const char *name, const char *value,
                   char **result);
enum { MV_HOLDING, MV_WRITABLE, MV_ALL_PEERS }; /* see mv_file_peers() */
/* FCNTL, for mvvfs.transaction: `int *`, in: how the next snapshot begins; out: whether the last one is
** unconfirmed (mainfile.h).  SQLite leaves the numbers from 100 on to others. */
enum { MV_FCNTL_AHEAD = 0x6d7601 };
enum { MV_ASKS, MV_ASKS_IN_A_ROW, MV_RUNS_AHEAD }; /* in a row: another transaction is likely to follow at once */
enum { MV_LEAVE_TURN, MV_TURN_OF_ONE, MV_TURN_OF_ALL }; /* of all databases that belong together */
int mv_call_flush(const mv_host *host, void *session, const uint8_t *version);
int mv_call_turn(const mv_host *host, void *session, int take); /* OK, BUSY: not yet, or an error */
void mv_call_failed(const mv_host *host, void *session, void *file, int code, const char *what);
void mv_call_slow(const mv_host *host, void *session, const mv_slow *args);
extern volatile unsigned mv_fork_generation; /* moves in the child of a fork() */

/* journal.c: a file in memory up to a size, in a temporary file beyond it. */
int mv_journal_open(const mv_host *host, sqlite3_file *file, int flags, int *out_flags);
int mv_journal_size(void);

/* attached.c */
void mv_files_freeze(int frozen); /* no file is opened or closed meanwhile: for fork() */
int mv_check_journal(const mv_host *host, const char *name);
void mv_super_created(const char *name);
int mv_super_present(const char *name);
sqlite3_vfs *mv_super_vfs(const char *name);

/* mainfile.c */
int mv_main_open(const mv_host *host, const char *name, sqlite3_file *file, int flags, int *out_flags);
int mv_main_size(void);

#endif
