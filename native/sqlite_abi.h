/*
** The part of SQLite's C interface that the shim uses, declared here because a machine that builds
** this project need not have SQLite's headers.
**
** The layouts are frozen by SQLite's own promise of compatibility (https://www.sqlite.org/capi3ref.html);
** tests/native/test_abi.py compares them with the real headers wherever those are installed.
**
** Functions are called through the table that a host hands to a loadable extension, not by linking:
** a process may hold several copies of SQLite, and each opens its files through its own.
*/
#ifndef MV_SQLITE_ABI_H
#define MV_SQLITE_ABI_H

#include <stdint.h>

typedef int64_t sqlite3_int64;
typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite3_vfs sqlite3_vfs;
typedef struct sqlite3_file sqlite3_file;
typedef struct sqlite3_io_methods sqlite3_io_methods;
typedef void (*sqlite3_syscall_ptr)(void);

struct sqlite3_file {
  const sqlite3_io_methods *pMethods;
};

struct sqlite3_io_methods { /* version 1: no shared memory (so no WAL mode), no xFetch */
  int iVersion;
  int (*xClose)(sqlite3_file *);
  int (*xRead)(sqlite3_file *, void *, int iAmt, sqlite3_int64 iOfst);
  int (*xWrite)(sqlite3_file *, const void *, int iAmt, sqlite3_int64 iOfst);
  int (*xTruncate)(sqlite3_file *, sqlite3_int64 size);
  int (*xSync)(sqlite3_file *, int flags);
  int (*xFileSize)(sqlite3_file *, sqlite3_int64 *pSize);
  int (*xLock)(sqlite3_file *, int);
  int (*xUnlock)(sqlite3_file *, int);
  int (*xCheckReservedLock)(sqlite3_file *, int *pResOut);
  int (*xFileControl)(sqlite3_file *, int op, void *pArg);
  int (*xSectorSize)(sqlite3_file *);
  int (*xDeviceCharacteristics)(sqlite3_file *);
};

struct sqlite3_vfs {
  int iVersion;
  int szOsFile;
  int mxPathname;
  sqlite3_vfs *pNext;
  const char *zName;
  void *pAppData;
  int (*xOpen)(sqlite3_vfs *, const char *zName, sqlite3_file *, int flags, int *pOutFlags);
  int (*xDelete)(sqlite3_vfs *, const char *zName, int syncDir);
  int (*xAccess)(sqlite3_vfs *, const char *zName, int flags, int *pResOut);
  int (*xFullPathname)(sqlite3_vfs *, const char *zName, int nOut, char *zOut);
  void *(*xDlOpen)(sqlite3_vfs *, const char *zFilename);
  void (*xDlError)(sqlite3_vfs *, int nByte, char *zErrMsg);
  void (*(*xDlSym)(sqlite3_vfs *, void *, const char *zSymbol))(void);
  void (*xDlClose)(sqlite3_vfs *, void *);
  int (*xRandomness)(sqlite3_vfs *, int nByte, char *zOut);
  int (*xSleep)(sqlite3_vfs *, int microseconds);
  int (*xCurrentTime)(sqlite3_vfs *, double *);
  int (*xGetLastError)(sqlite3_vfs *, int, char *);
  int (*xCurrentTimeInt64)(sqlite3_vfs *, sqlite3_int64 *);
};

/* The functions we call, by their place in `struct sqlite3_api_routines`. */
typedef struct sqlite3_api_routines sqlite3_api_routines;

#define MV_API(api, index, type) ((type)((void *const *)(const void *)(api))[index])

#define api_get_autocommit(api, db) MV_API(api, 60, int (*)(sqlite3 *))(db)
#define api_libversion_number(api) MV_API(api, 67, int (*)(void))()
#define api_mprintf(api) MV_API(api, 69, char *(*)(const char *, ...))
#define api_file_control(api, db, schema, op, arg) \
  MV_API(api, 127, int (*)(sqlite3 *, const char *, int, void *))(db, schema, op, arg)
#define api_vfs_find(api, name) MV_API(api, 141, sqlite3_vfs *(*)(const char *))(name)
#define api_vfs_register(api, vfs, dflt) MV_API(api, 142, int (*)(sqlite3_vfs *, int))(vfs, dflt)
#define api_next_stmt(api, db, stmt) \
  MV_API(api, 152, sqlite3_stmt *(*)(sqlite3 *, sqlite3_stmt *))(db, stmt)
#define api_sql(api, stmt) MV_API(api, 153, const char *(*)(sqlite3_stmt *))(stmt)
#define api_db_filename(api, db, schema) \
  MV_API(api, 180, const char *(*)(sqlite3 *, const char *))(db, schema)
#define api_stmt_busy(api, stmt) MV_API(api, 184, int (*)(sqlite3_stmt *))(stmt)
#define api_uri_parameter(api, name, key) \
  MV_API(api, 189, const char *(*)(const char *, const char *))(name, key)

#define api_filename_database(api, name) MV_API(api, 246, const char *(*)(const char *))(name)
#define api_txn_state(api, db, schema) MV_API(api, 252, int (*)(sqlite3 *, const char *))(db, schema)
#define api_db_name(api, db, n) MV_API(api, 264, const char *(*)(sqlite3 *, int))(db, n)

#define MV_OLDEST_SQLITE 3034000 /* the first that has all of them but the last */
#define MV_NAMES_SCHEMAS 3039000 /* the first that has sqlite3_db_name() */
#define SQLITE_TXN_NONE 0
#define SQLITE_TXN_WRITE 2

/* Result codes */
#define SQLITE_OK 0
#define SQLITE_ERROR 1
#define SQLITE_BUSY 5
#define SQLITE_NOMEM 7
#define SQLITE_READONLY 8
#define SQLITE_INTERRUPT 9
#define SQLITE_IOERR 10
#define SQLITE_CORRUPT 11
#define SQLITE_NOTFOUND 12
#define SQLITE_FULL 13
#define SQLITE_CANTOPEN 14
#define SQLITE_MISUSE 21
#define SQLITE_IOERR_READ (SQLITE_IOERR | (1 << 8))
#define SQLITE_IOERR_SHORT_READ (SQLITE_IOERR | (2 << 8))
#define SQLITE_IOERR_WRITE (SQLITE_IOERR | (3 << 8))
#define SQLITE_IOERR_LOCK (SQLITE_IOERR | (15 << 8))
#define SQLITE_BUSY_SNAPSHOT (SQLITE_BUSY | (2 << 8))
#define SQLITE_OK_LOAD_PERMANENTLY (SQLITE_OK | (1 << 8))

/* xOpen flags */
#define SQLITE_OPEN_READONLY 0x00000001
#define SQLITE_OPEN_READWRITE 0x00000002
#define SQLITE_OPEN_CREATE 0x00000004
#define SQLITE_OPEN_DELETEONCLOSE 0x00000008
#define SQLITE_OPEN_EXCLUSIVE 0x00000010
#define SQLITE_OPEN_MAIN_DB 0x00000100
#define SQLITE_OPEN_TEMP_JOURNAL 0x00001000
#define SQLITE_OPEN_MAIN_JOURNAL 0x00000800
#define SQLITE_OPEN_SUPER_JOURNAL 0x00004000
#define SQLITE_OPEN_WAL 0x00080000

/* Locks */
#define SQLITE_LOCK_NONE 0
#define SQLITE_LOCK_SHARED 1
#define SQLITE_LOCK_RESERVED 2
#define SQLITE_LOCK_PENDING 3
#define SQLITE_LOCK_EXCLUSIVE 4

#define SQLITE_IOCAP_POWERSAFE_OVERWRITE 0x00001000

#define SQLITE_FCNTL_FILE_POINTER 7
#define SQLITE_FCNTL_VFSNAME 12
#define SQLITE_FCNTL_PRAGMA 14
#define SQLITE_FCNTL_SYNC 21
#define SQLITE_FCNTL_VFS_POINTER 27
#define SQLITE_FCNTL_JOURNAL_POINTER 28
#define SQLITE_FCNTL_PDB 30

#endif
