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
  uint64_t set, clear, clear_range, atomic_op, add_conflict_range, set_option, set_callback, get_keyvalue_array;
} mv_fdb_functions;
enum { MV_FDB_SET, MV_FDB_CLEAR, MV_FDB_CLEAR_RANGE, MV_FDB_ATOMIC, MV_FDB_CONFLICT, MV_FDB_ATOMIC_ALONE };
/* Each operation: its kind and a code (a mutation's or a conflict range's type), one byte each; the lengths of two
** strings, int32_t, native-endian; the strings.  0, or the library's error. */
int mv_fdb_send(const mv_fdb_functions *functions, uint64_t transaction, const uint8_t *operations, uint64_t size);
/* What a range read that is ready has answered; valid as long as its future.  0, or the library's error. */
typedef struct mv_fdb_answer {
  uint64_t rows, size; /* the size: of all keys and values */
  int32_t count, more;
} mv_fdb_answer;
int mv_fdb_answer_of(const mv_fdb_functions *functions, uint64_t future, mv_fdb_answer *out);
/* Its rows to `out`: of each, the lengths of key (but for its first `cut` bytes) and value, uint32_t; then, of each,
** key and value.  8 * count + size bytes will do. */
void mv_fdb_rows(const mv_fdb_answer *answer, uint32_t cut, uint8_t *out);
/* A wait for a future; 0: no memory. */
uint64_t mv_fdb_wait_start(const mv_fdb_functions *functions, uint64_t future);
/* Whether it has come, after at most `us` microseconds or a signal. */
int mv_fdb_wait(uint64_t wait, uint32_t us);
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
int mv_delta_apply(uint8_t *page, uint32_t size, const uint8_t *delta, uint32_t length);

/* Changelog records (log.c). */
int64_t mv_log_unpack(const uint8_t *versions, const uint8_t *records, const uint32_t *lengths, uint32_t count,
                      uint32_t *out);
int mv_log_meets(const void *changes, uint64_t length, const void *touched, uint32_t count);

/* `count` page numbers, uint32_t, in any order, covered by at most `most` ranges that leave out the widest gaps:
** the first and the last number of each to `out`, ascending.  How many ranges; 0 for some numbers: no memory. */
uint32_t mv_cover(const void *numbers, uint32_t count, uint32_t most, uint32_t *out);
