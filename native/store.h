/*
** What the page store has in C: the whole of `pagestore._native`.  build_store.py hands this file to cffi
** as it is, so it holds nothing but plain declarations.
*/

/* Head words (words.c).  An address is that of an aligned word in a mapping that the caller keeps. */
void mv_word_start(uint64_t address);
uint64_t mv_word_load(uint64_t address);
uint64_t mv_word_begin(uint64_t address);
void mv_word_end(uint64_t address, uint64_t odd);

/* Where those wait who want the engine's write lock (gate.c).  An address as above. */
uint32_t mv_gate_look(uint64_t address);
uint32_t mv_gate_wait(uint64_t address, uint32_t looked, uint32_t us);
void mv_gate_open(uint64_t address);

/* FoundationDB's client library (fdb.c): the addresses of its functions. */
typedef struct mv_fdb_functions {
  uint64_t create_transaction, destroy_transaction, set_option, get_read_version, set_read_version, get, get_range;
  uint64_t set, clear, clear_range, atomic_op, add_conflict_range, get_versionstamp, commit;
  uint64_t set_callback, is_ready, destroy_future, get_error, get_int64, get_key, get_value, get_keyvalue_array;
} mv_fdb_functions;
/* What was asked of the library: see `Operations` (pagestore/engines/base.py).  Any thread adds to it. */
typedef struct mv_fdb_operations {
  uint64_t gets, range_reads, parts, rows, sets, clears, conflicts, commits, retries;
} mv_fdb_operations;
/* The keys of a database that begin with a prefix, which all keys that follow are without. */
typedef struct mv_fdb_keyspace {
  const mv_fdb_functions *functions;
  uint64_t database;
  const uint8_t *prefix;
  int32_t prefix_length;
  mv_fdb_operations counted;
} mv_fdb_keyspace;
/* A transaction, which the library makes when it is first asked for something.  Futures are to be ended by who gets
** them. */
typedef struct mv_fdb_transaction {
  mv_fdb_keyspace *keyspace;
  uint64_t transaction;
  int64_t timeout;      /* milliseconds, for all that is done in it */
  int64_t read_version; /* where it stands; 0: at the newest version */
  int32_t sees_writes;  /* its reads see what it wrote */
  int32_t asks_version; /* the read version is asked for when it is made */
  uint64_t version;     /* the future of the read version */
  uint64_t future;      /* that of what was asked for last */
  uint64_t stamp;       /* that of the versionstamp, once it commits */
} mv_fdb_transaction;
enum { MV_FDB_NO_MEMORY = -1 };
/* 0, or the library's error, or MV_FDB_NO_MEMORY; so in all that follow. */
int mv_fdb_begin(mv_fdb_transaction *transaction);
int mv_fdb_ask_version(mv_fdb_transaction *transaction);
int mv_fdb_get(mv_fdb_transaction *transaction, const uint8_t *key, int32_t length);
/* All keys in [begin, end), `limit` at most, if that is not 0.  `iteration`: 1, or which part of a long answer. */
int mv_fdb_get_range(mv_fdb_transaction *transaction, const uint8_t *begin, int32_t begin_length, const uint8_t *end,
                     int32_t end_length, int32_t limit, int32_t iteration, int32_t reverse);
/* Without its futures, which belong to who got them. */
void mv_fdb_end(mv_fdb_transaction *transaction);
void mv_fdb_count_retry(mv_fdb_keyspace *keyspace);
/* What a transaction writes: operations, one behind the other.  Of each: its kind and a code, one byte each; the
** lengths of three strings, int32_t, native-endian; the strings, of which the first, and the second of a range, are
** keys.  A version's place is left to the library.
**
**     SET              key, value
**     CLEAR            key
**     CLEAR_RANGE      first key, key behind the last
**     VERSIONED_KEY    key before the version, behind it, value.  Nobody else writes such a key: no conflict.
**     VERSIONED_VALUE  key, value before the version, behind it.  Code 1: no conflict.
**     CONFLICTS        packed ranges of keys (see mv_cover_keys).  The code is the library's for their type. */
enum {
  MV_FDB_SET,
  MV_FDB_CLEAR,
  MV_FDB_CLEAR_RANGE,
  MV_FDB_VERSIONED_KEY,
  MV_FDB_VERSIONED_VALUE,
  MV_FDB_CONFLICTS
};
/* Commit what these operations say.  The futures of the versionstamp and of the commit; where that fails, none. */
int mv_fdb_commit(mv_fdb_transaction *transaction, const uint8_t *operations, uint64_t size);
int mv_fdb_is_ready(const mv_fdb_functions *functions, uint64_t future);
void mv_fdb_end_future(const mv_fdb_functions *functions, uint64_t future);
/* What a future that is ready came to; strings are valid as long as it. */
int mv_fdb_error_of(const mv_fdb_functions *functions, uint64_t future);
int mv_fdb_integer_of(const mv_fdb_functions *functions, uint64_t future, int64_t *out);
typedef struct mv_fdb_string {
  uint64_t at;
  int32_t length, present;
} mv_fdb_string;
/* The versionstamp that a commit's future came to, 10 bytes; a commit that is done is counted by that. */
int mv_fdb_stamp_of(mv_fdb_keyspace *keyspace, uint64_t future, uint8_t *out);
int mv_fdb_value_of(const mv_fdb_functions *functions, uint64_t future, mv_fdb_string *out);
/* What a range read that is ready has answered. */
typedef struct mv_fdb_answer {
  int32_t count, more;
  uint64_t size; /* bytes of its rows, packed */
} mv_fdb_answer;
/* Its rows to `out`, if there is room for them: of each, the lengths of key and value, uint32_t; then, of each, key and
** value. */
int mv_fdb_rows(mv_fdb_keyspace *keyspace, uint64_t future, mv_fdb_answer *answer, uint8_t *out, uint64_t room);
/* Wait for a future, for at most `us` microseconds or until there is a signal: 0, it has come; or a wait to go on with
** (instead of 0), or to end; or MV_FDB_NO_WAIT, if there is no memory for one. */
enum { MV_FDB_NO_WAIT = 1 };
uint64_t mv_fdb_wait(const mv_fdb_functions *functions, uint64_t future, uint64_t wait, uint32_t us);
void mv_fdb_wait_end(uint64_t wait);
/* Have `id` posted into an inbox once a future has come.  0: no memory. */
int mv_fdb_post(const mv_fdb_functions *functions, uint64_t future, uint64_t inbox, uint64_t id);

/* Inboxes (inbox.c).  A new one; 0: no memory, or no descriptor.  Its descriptor can be read when something was
** posted.  `mv_inbox_take` and `mv_inbox_end` are the owner's. */
uint64_t mv_inbox_new(void);
int mv_inbox_descriptor(uint64_t inbox);
int mv_inbox_post(uint64_t inbox, uint64_t id); /* 0: no memory */
/* At most `room` of the numbers that were posted, in their order; how many.  Again if there may be more. */
uint32_t mv_inbox_take(uint64_t inbox, uint64_t *ids, uint32_t room);
void mv_inbox_end(uint64_t inbox);

/* Recent changes (recent.h, recent.c).  `address` is that of a mapping of mv_recent_size() bytes. */
uint64_t mv_recent_size(void);
uint64_t mv_recent_begin(uint64_t address);
void mv_recent_add(uint64_t address, uint64_t namespace_id, uint64_t word, const uint8_t *version,
                   const uint8_t *before, const uint8_t *numbers, uint32_t length);
void mv_recent_end(uint64_t address, uint64_t odd);

/* Deltas between two versions of a page (delta.c). */
int mv_delta_make(const uint8_t *old, const uint8_t *new_, uint32_t size, uint8_t *out, uint32_t room);
int mv_delta_make_moving(const uint8_t *old, const uint8_t *new_, uint32_t size, uint8_t *out, uint32_t room);
int mv_delta_make_shorter(const uint8_t *old, const uint8_t *new_, uint32_t size, uint8_t *out, uint32_t room,
                          int *moving);
int mv_delta_apply(uint8_t *page, uint32_t size, const uint8_t *delta, uint32_t length);
int mv_delta_apply_moving(uint8_t *page, uint32_t size, const uint8_t *delta, uint32_t length);
int mv_delta_apply_blob(uint8_t *page, uint32_t size, const uint8_t *blob, uint32_t length);
uint32_t mv_delta_apply_all(uint8_t *page, uint32_t size, const uint8_t *blobs, const void *lengths, uint32_t count);

/* Changelog records (log.c). */
int64_t mv_log_unpack(const uint8_t *versions, const uint8_t *records, const uint32_t *lengths, uint32_t count,
                      uint32_t *out);
/* How many commits packed changes (log.c) tell of; -1: it is not whole, or a list of page numbers does not ascend. */
int64_t mv_log_check(const void *changes, uint64_t length);
int mv_log_meets(const void *changes, uint64_t length, const void *touched, uint32_t count);

/* `count` page numbers, uint32_t, in any order, covered by at most `most` ranges that leave out the widest gaps:
** the first and the last number of each to `out`, ascending.  How many ranges; 0 for some numbers: no memory. */
uint32_t mv_cover(const void *numbers, uint32_t count, uint32_t most, uint32_t *out);
/* The same as packed ranges of keys: of each, the lengths of its first key and of the key behind its last, uint32_t, and
** these.  A key is `prefix` and the number as an integer of FoundationDB's tuple encoding.  Bytes written to `out`, which
** has room for 2 * length + MV_COVER_ROOM for each range that there may be; -1: no memory. */
enum { MV_COVER_ROOM = 19 };
int64_t mv_cover_keys(const uint8_t *prefix, uint32_t length, const void *numbers, uint32_t count, uint32_t most,
                      uint8_t *out);
