/*
** FoundationDB's client library, called from C where calls from Python would be dear: what a transaction sets
** goes to the library in one go, who waits for an answer is woken in C, and the rows that came are copied in C.
**
** Called by pagestore/engines/foundationdb_client.py through cffi.  The library is not linked: Python hands over
** the addresses of its functions (https://apple.github.io/foundationdb/api-c.html).
**
** 1. The library does everything in one thread of its own, which sleeps when it has nothing to do.  Calls that
**    come right after each other wake it once.
** 2. It calls back in that thread.  No Python runs there, which would want the interpreter's lock.
** 3. A wait belongs to two: who waits, and the library, which calls back once.  The last of them frees it; one
**    that the library never calls back for, because the process ends, is left.
**    (Who waits by an inbox leaves it all to the library: inbox.c.)
** 4. A signal ends the sleep, so that Python can look at it; the wait goes on if it is asked to.
*/
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "inbox.h"
#include "store.h"

/* ---- the library's functions ---- */

typedef int create_transaction_function(void *database, void **out);
typedef void destroy_function(void *transaction_or_future);
typedef int set_option_function(void *tr, int option, const uint8_t *value, int length);
typedef void *get_future_function(void *tr);
typedef void set_read_version_function(void *tr, int64_t version);
typedef void *get_function(void *tr, const uint8_t *key, int length, int snapshot);
typedef void *get_range_function(void *tr, const uint8_t *begin, int begin_length, int begin_or_equal, int begin_offset,
                                 const uint8_t *end, int end_length, int end_or_equal, int end_offset, int limit,
                                 int target_bytes, int mode, int iteration, int snapshot, int reverse);
typedef void set_function(void *tr, const uint8_t *key, int key_length, const uint8_t *value, int value_length);
typedef void clear_function(void *tr, const uint8_t *key, int length);
typedef void clear_range_function(void *tr, const uint8_t *begin, int begin_length, const uint8_t *end, int end_length);
typedef void atomic_op_function(void *tr, const uint8_t *key, int key_length, const uint8_t *param, int param_length,
                                int operation);
typedef int add_conflict_function(void *tr, const uint8_t *begin, int begin_length, const uint8_t *end,
                                  int end_length, int type);
typedef int get_error_function(void *future);
typedef int get_int64_function(void *future, int64_t *out);
typedef int get_key_function(void *future, const uint8_t **key, int *length);
typedef int get_value_function(void *future, int *present, const uint8_t **value, int *length);

enum { TIMEOUT = 500, NEXT_WRITE_NO_WRITE_CONFLICT_RANGE = 30, READ_YOUR_WRITES_DISABLE = 51 }; /* options */
enum { ITERATOR = -1 };                                                                          /* streaming mode */
enum { SET_VERSIONSTAMPED_KEY = 14, SET_VERSIONSTAMPED_VALUE = 15 };                             /* mutations */
enum { KEY_TOO_LARGE = 2102, UNKNOWN_ERROR = 4000 };                                             /* errors */

#define LONGEST_KEY 10000 /* bytes that the library takes */

#define CALL(type, function) ((type##_function *)(uintptr_t)(function))

static void *pointer(uint64_t address) { return (void *)(uintptr_t)address; }
static uint64_t number(const void *p) { return (uint64_t)(uintptr_t)p; }

static void count(uint64_t *counter, uint64_t n) { __atomic_fetch_add(counter, n, __ATOMIC_RELAXED); }

/* ---- transactions and what they read ---- */

int mv_fdb_begin(mv_fdb_transaction *t) {
  if (t->transaction) return 0;
  const mv_fdb_functions *f = t->keyspace->functions;
  void *tr = NULL;
  int error = CALL(create_transaction, f->create_transaction)(pointer(t->keyspace->database), &tr);
  if (error) return error;
  t->transaction = number(tr);
  error = CALL(set_option, f->set_option)(tr, TIMEOUT, (const uint8_t *)&t->timeout, sizeof t->timeout);
  if (!error && !t->sees_writes) error = CALL(set_option, f->set_option)(tr, READ_YOUR_WRITES_DISABLE, NULL, 0);
  if (!error && t->read_version) CALL(set_read_version, f->set_read_version)(tr, t->read_version);
  return error || !t->asks_version ? error : mv_fdb_ask_version(t);
}

int mv_fdb_ask_version(mv_fdb_transaction *t) {
  int error = mv_fdb_begin(t);
  if (error || t->version) return error;
  t->version = number(CALL(get_future, t->keyspace->functions->get_read_version)(pointer(t->transaction)));
  return 0;
}

/* A key with the prefix, to `out`, which has room for it; its length. */
static int whole_key(const mv_fdb_keyspace *k, const uint8_t *key, int length, uint8_t *out) {
  memcpy(out, k->prefix, (size_t)k->prefix_length);
  memcpy(out + k->prefix_length, key, (size_t)length);
  return k->prefix_length + length;
}

int mv_fdb_get(mv_fdb_transaction *t, const uint8_t *key, int32_t length) {
  mv_fdb_keyspace *k = t->keyspace;
  uint8_t whole[LONGEST_KEY];
  if (k->prefix_length + length > LONGEST_KEY) return KEY_TOO_LARGE;
  int error = mv_fdb_begin(t);
  if (error) return error;
  count(&k->counted.gets, 1);
  int whole_length = whole_key(k, key, length, whole);
  t->future = number(CALL(get, k->functions->get)(pointer(t->transaction), whole, whole_length, 1));
  return 0;
}

int mv_fdb_get_range(mv_fdb_transaction *t, const uint8_t *begin, int32_t begin_length, const uint8_t *end,
                     int32_t end_length, int32_t limit, int32_t iteration, int32_t reverse) {
  mv_fdb_keyspace *k = t->keyspace;
  uint8_t first[LONGEST_KEY], behind[LONGEST_KEY];
  if (k->prefix_length + begin_length > LONGEST_KEY || k->prefix_length + end_length > LONGEST_KEY)
    return KEY_TOO_LARGE;
  int error = mv_fdb_begin(t);
  if (error) return error;
  if (iteration == 1) count(&k->counted.range_reads, 1);
  count(&k->counted.parts, 1);
  int first_length = whole_key(k, begin, begin_length, first), behind_length = whole_key(k, end, end_length, behind);
  t->future = number(CALL(get_range, k->functions->get_range)(pointer(t->transaction), first, first_length, 0, 1, behind,
                                                              behind_length, 0, 1, limit, 0, ITERATOR, iteration, 1,
                                                              reverse));
  return 0;
}

void mv_fdb_end(mv_fdb_transaction *t) {
  if (t->transaction) CALL(destroy, t->keyspace->functions->destroy_transaction)(pointer(t->transaction));
  t->transaction = 0;
}

void mv_fdb_count_retry(mv_fdb_keyspace *k) { count(&k->counted.retries, 1); }

/* ---- what a transaction writes ---- */

typedef struct operation {
  int kind, code;
  const uint8_t *strings[3];
  int lengths[3];
} operation;

/* Where the next one begins. */
static const uint8_t *read_operation(const uint8_t *at, operation *o) {
  int32_t lengths[3];
  o->kind = at[0], o->code = at[1];
  memcpy(lengths, at + 2, sizeof lengths);
  at += 2 + sizeof lengths;
  for (int i = 0; i < 3; i++) {
    o->strings[i] = at, o->lengths[i] = lengths[i];
    at += lengths[i];
  }
  return at;
}

#define VERSION 10

/* A string with a version's place between two others, and, as the library wants it, where that is. */
static int with_gap(uint8_t *start, uint8_t *gap, const uint8_t *behind, int length) {
  uint8_t *end = gap + VERSION;
  memset(gap, 0, VERSION);
  memcpy(end, behind, (size_t)length);
  end += length;
  uint32_t at = (uint32_t)(gap - start);
  for (int i = 0; i < 4; i++) *end++ = (uint8_t)(at >> 8 * i);
  return (int)(end - start);
}

/* Set to what the version becomes part of. */
static int set_versioned(const mv_fdb_functions *f, void *tr, int alone, const uint8_t *key, int key_length,
                         const uint8_t *value, int value_length, int type) {
  int error = alone ? CALL(set_option, f->set_option)(tr, NEXT_WRITE_NO_WRITE_CONFLICT_RANGE, NULL, 0) : 0;
  if (!error) CALL(atomic_op, f->atomic_op)(tr, key, key_length, value, value_length, type);
  return error;
}

static int add_conflicts(mv_fdb_keyspace *k, void *tr, const operation *o, uint8_t *scratch) {
  const uint8_t *at = o->strings[0], *end = at + o->lengths[0];
  while (at < end) {
    uint32_t lengths[2];
    memcpy(lengths, at, sizeof lengths);
    at += sizeof lengths;
    int first_length = whole_key(k, at, (int)lengths[0], scratch);
    uint8_t *behind = scratch + first_length;
    int behind_length = whole_key(k, at + lengths[0], (int)lengths[1], behind);
    int error = CALL(add_conflict, k->functions->add_conflict_range)(tr, scratch, first_length, behind, behind_length,
                                                                     o->code);
    if (error) return error;
    count(&k->counted.conflicts, 1);
    at += lengths[0] + lengths[1];
  }
  return 0;
}

/* `scratch` has room for two prefixes, all strings of the operation and with_gap's. */
static int one(mv_fdb_keyspace *k, void *tr, const operation *o, uint8_t *scratch) {
  const mv_fdb_functions *f = k->functions;
  if (o->kind == MV_FDB_CONFLICTS) return add_conflicts(k, tr, o, scratch);
  int clears = o->kind == MV_FDB_CLEAR || o->kind == MV_FDB_CLEAR_RANGE;
  count(clears ? &k->counted.clears : &k->counted.sets, 1);
  const uint8_t *second = o->strings[1], *third = o->strings[2];
  int second_length = o->lengths[1], third_length = o->lengths[2];
  int length = whole_key(k, o->strings[0], o->lengths[0], scratch);
  uint8_t *behind = scratch + length;
  switch (o->kind) {
    case MV_FDB_SET:
      CALL(set, f->set)(tr, scratch, length, second, second_length);
      return 0;
    case MV_FDB_CLEAR:
      CALL(clear, f->clear)(tr, scratch, length);
      return 0;
    case MV_FDB_CLEAR_RANGE:
      second_length = whole_key(k, second, second_length, behind);
      CALL(clear_range, f->clear_range)(tr, scratch, length, behind, second_length);
      return 0;
    case MV_FDB_VERSIONED_KEY:
      length = with_gap(scratch, behind, second, second_length);
      return set_versioned(f, tr, 1, scratch, length, third, third_length, SET_VERSIONSTAMPED_KEY);
    default: /* MV_FDB_VERSIONED_VALUE */
      memcpy(behind, second, (size_t)second_length);
      second_length = with_gap(behind, behind + second_length, third, third_length);
      return set_versioned(f, tr, o->code, scratch, length, behind, second_length, SET_VERSIONSTAMPED_VALUE);
  }
}

int mv_fdb_commit(mv_fdb_transaction *t, const uint8_t *operations, uint64_t size) {
  mv_fdb_keyspace *k = t->keyspace;
  const uint8_t *at = operations, *end = operations + size;
  int error = mv_fdb_begin(t);
  if (error) return error;
  void *tr = pointer(t->transaction);
  uint8_t *scratch = malloc(2 * (size_t)k->prefix_length + size + VERSION + 4); /* holds any of them */
  if (!scratch) return MV_FDB_NO_MEMORY;
  while (!error && at < end) {
    operation o;
    at = read_operation(at, &o);
    error = one(k, tr, &o, scratch);
  }
  free(scratch);
  if (error) return error;
  t->stamp = number(CALL(get_future, k->functions->get_versionstamp)(tr));
  t->future = number(CALL(get_future, k->functions->commit)(tr));
  return 0;
}

/* ---- what futures came to ---- */

int mv_fdb_is_ready(const mv_fdb_functions *f, uint64_t future) {
  return CALL(get_error, f->is_ready)(pointer(future));
}

void mv_fdb_end_future(const mv_fdb_functions *f, uint64_t future) {
  CALL(destroy, f->destroy_future)(pointer(future));
}

int mv_fdb_error_of(const mv_fdb_functions *f, uint64_t future) {
  return CALL(get_error, f->get_error)(pointer(future));
}

int mv_fdb_integer_of(const mv_fdb_functions *f, uint64_t future, int64_t *out) {
  return CALL(get_int64, f->get_int64)(pointer(future), out);
}

int mv_fdb_stamp_of(mv_fdb_keyspace *k, uint64_t future, uint8_t *out) {
  const uint8_t *stamp = NULL;
  int length = 0;
  int error = CALL(get_key, k->functions->get_key)(pointer(future), &stamp, &length);
  if (error) return error;
  if (length != VERSION) return UNKNOWN_ERROR;
  memcpy(out, stamp, VERSION);
  count(&k->counted.commits, 1);
  return 0;
}

int mv_fdb_value_of(const mv_fdb_functions *f, uint64_t future, mv_fdb_string *out) {
  const uint8_t *value = NULL;
  int error = CALL(get_value, f->get_value)(pointer(future), &out->present, &value, &out->length);
  out->at = number(value);
  return error;
}

/* ---- what a range read answers ---- */

#pragma pack(push, 4)
typedef struct row { /* FDBKeyValue */
  const uint8_t *key;
  int32_t key_length;
  const uint8_t *value;
  int32_t value_length;
} row;
#pragma pack(pop)

typedef int get_keyvalue_array_function(void *future, const row **rows, int *count, int *more);

static void pack(const row *rows, int rows_count, uint32_t cut, uint8_t *out) {
  uint8_t *lengths = out;
  out += 8 * (size_t)rows_count;
  for (int i = 0; i < rows_count; i++, lengths += 8) {
    uint32_t both[2] = {(uint32_t)rows[i].key_length - cut, (uint32_t)rows[i].value_length};
    memcpy(lengths, both, sizeof both);
    memcpy(out, rows[i].key + cut, both[0]);
    memcpy(out + both[0], rows[i].value, both[1]);
    out += both[0] + both[1];
  }
}

int mv_fdb_rows(mv_fdb_keyspace *k, uint64_t future, mv_fdb_answer *answer, uint8_t *out, uint64_t room) {
  const row *rows;
  int found, more;
  int error = CALL(get_keyvalue_array, k->functions->get_keyvalue_array)(pointer(future), &rows, &found, &more);
  if (error) return error;
  uint32_t cut = (uint32_t)k->prefix_length;
  *answer = (mv_fdb_answer){.count = found, .more = more};
  for (int i = 0; i < found; i++)
    answer->size += 8 + (uint64_t)rows[i].key_length - cut + (uint64_t)rows[i].value_length;
  if (answer->size > room) return 0;
  pack(rows, found, cut, out);
  count(&k->counted.rows, (uint64_t)found);
  return 0;
}

/* ---- waiting ---- */

typedef struct answer {
  _Atomic uint32_t came; /* a gate */
  atomic_int owners;
} answer;

typedef void callback(void *future, void *context);
typedef int set_callback_function(void *future, callback *call, void *context);

static void release(answer *a) {
  if (atomic_fetch_sub(&a->owners, 1) == 1) free(a);
}

static void has_come(void *future, void *context) {
  (void)future;
  mv_gate_open(number(context));
  release(context);
}

static answer *start(const mv_fdb_functions *functions, uint64_t future) {
  answer *a = calloc(1, sizeof *a);
  if (!a) return NULL;
  atomic_init(&a->owners, 2);
  if (!CALL(set_callback, functions->set_callback)(pointer(future), has_come, a)) return a;
  free(a);
  return NULL;
}

uint64_t mv_fdb_wait(const mv_fdb_functions *functions, uint64_t future, uint64_t wait, uint32_t us) {
  if (!wait && mv_fdb_is_ready(functions, future)) return 0;
  answer *a = wait ? pointer(wait) : start(functions, future);
  if (!a) return MV_FDB_NO_WAIT;
  if (!atomic_load(&a->came) && !mv_gate_wait(number(a), 0, us)) return number(a);
  release(a);
  return 0;
}

void mv_fdb_wait_end(uint64_t wait) { release(pointer(wait)); }

static void post(void *future, void *context) {
  (void)future;
  mv_letter_post(context);
}

int mv_fdb_post(const mv_fdb_functions *functions, uint64_t future, uint64_t inbox, uint64_t id) {
  mv_letter *letter = mv_letter_new(inbox, id);
  if (!letter) return 0;
  if (!CALL(set_callback, functions->set_callback)(pointer(future), post, letter)) return 1;
  mv_letter_drop(letter);
  return 0;
}
