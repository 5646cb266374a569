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

#define CALL(type, function) ((type##_function *)(uintptr_t)(function))

static void *pointer(uint64_t address) { return (void *)(uintptr_t)address; }
static uint64_t number(const void *p) { return (uint64_t)(uintptr_t)p; }

/* ---- transactions and what they read ---- */

int mv_fdb_begin(const mv_fdb_functions *f, mv_fdb_transaction *t) {
  if (t->transaction) return 0;
  void *tr = NULL;
  int error = CALL(create_transaction, f->create_transaction)(pointer(t->database), &tr);
  if (error) return error;
  t->transaction = number(tr);
  error = CALL(set_option, f->set_option)(tr, TIMEOUT, (const uint8_t *)&t->timeout, sizeof t->timeout);
  if (!error && !t->sees_writes) error = CALL(set_option, f->set_option)(tr, READ_YOUR_WRITES_DISABLE, NULL, 0);
  if (!error && t->read_version) CALL(set_read_version, f->set_read_version)(tr, t->read_version);
  return error || !t->asks_version ? error : mv_fdb_ask_version(f, t);
}

int mv_fdb_ask_version(const mv_fdb_functions *f, mv_fdb_transaction *t) {
  int error = mv_fdb_begin(f, t);
  if (!error && !t->version) t->version = number(CALL(get_future, f->get_read_version)(pointer(t->transaction)));
  return error;
}

int mv_fdb_get(const mv_fdb_functions *f, mv_fdb_transaction *t, const uint8_t *key, int32_t length) {
  int error = mv_fdb_begin(f, t);
  if (!error) t->future = number(CALL(get, f->get)(pointer(t->transaction), key, length, 1));
  return error;
}

int mv_fdb_get_range(const mv_fdb_functions *f, mv_fdb_transaction *t, const uint8_t *begin, int32_t begin_length,
                     const uint8_t *end, int32_t end_length, int32_t limit, int32_t iteration, int32_t reverse) {
  int error = mv_fdb_begin(f, t);
  if (error) return error;
  t->future = number(CALL(get_range, f->get_range)(pointer(t->transaction), begin, begin_length, 0, 1, end, end_length,
                                                   0, 1, limit, 0, ITERATOR, iteration, 1, reverse));
  return 0;
}

void mv_fdb_end(const mv_fdb_functions *f, mv_fdb_transaction *t) {
  if (t->transaction) CALL(destroy, f->destroy_transaction)(pointer(t->transaction));
  t->transaction = 0;
}

/* ---- what a transaction writes ---- */

#define HEADER 10 /* kind, code, and the lengths of two strings, which follow */

static int length_at(const uint8_t *p) {
  int32_t length;
  memcpy(&length, p, sizeof length);
  return length;
}

static int one(const mv_fdb_functions *f, void *tr, int kind, int code, const uint8_t *a, int a_length,
               const uint8_t *b, int b_length) {
  int error = 0;
  switch (kind) {
    case MV_FDB_SET:
      CALL(set, f->set)(tr, a, a_length, b, b_length);
      break;
    case MV_FDB_CLEAR:
      CALL(clear, f->clear)(tr, a, a_length);
      break;
    case MV_FDB_CLEAR_RANGE:
      CALL(clear_range, f->clear_range)(tr, a, a_length, b, b_length);
      break;
    case MV_FDB_ATOMIC:
      CALL(atomic_op, f->atomic_op)(tr, a, a_length, b, b_length, code);
      break;
    case MV_FDB_CONFLICT:
      error = CALL(add_conflict, f->add_conflict_range)(tr, a, a_length, b, b_length, code);
      break;
    default: /* MV_FDB_ATOMIC_ALONE: nobody else writes this key */
      error = CALL(set_option, f->set_option)(tr, NEXT_WRITE_NO_WRITE_CONFLICT_RANGE, NULL, 0);
      if (!error) CALL(atomic_op, f->atomic_op)(tr, a, a_length, b, b_length, code);
  }
  return error;
}

int mv_fdb_commit(const mv_fdb_functions *f, mv_fdb_transaction *t, const uint8_t *operations, uint64_t size) {
  const uint8_t *at = operations, *end = operations + size;
  int error = mv_fdb_begin(f, t);
  void *tr = pointer(t->transaction);
  while (!error && at < end) {
    int a_length = length_at(at + 2), b_length = length_at(at + 6);
    const uint8_t *a = at + HEADER, *b = a + a_length;
    error = one(f, tr, at[0], at[1], a, a_length, b, b_length);
    at = b + b_length;
  }
  if (error) return error;
  t->stamp = number(CALL(get_future, f->get_versionstamp)(tr));
  t->future = number(CALL(get_future, f->commit)(tr));
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

int mv_fdb_key_of(const mv_fdb_functions *f, uint64_t future, mv_fdb_string *out) {
  const uint8_t *key = NULL;
  int error = CALL(get_key, f->get_key)(pointer(future), &key, &out->length);
  out->at = number(key), out->present = 1;
  return error;
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

static void pack(const row *rows, int count, uint32_t cut, uint8_t *out) {
  uint8_t *lengths = out;
  out += 8 * (size_t)count;
  for (int i = 0; i < count; i++, lengths += 8) {
    uint32_t both[2] = {(uint32_t)rows[i].key_length - cut, (uint32_t)rows[i].value_length};
    memcpy(lengths, both, sizeof both);
    memcpy(out, rows[i].key + cut, both[0]);
    memcpy(out + both[0], rows[i].value, both[1]);
    out += both[0] + both[1];
  }
}

int mv_fdb_rows(const mv_fdb_functions *functions, uint64_t future, uint32_t cut, mv_fdb_answer *answer, uint8_t *out,
                uint64_t room) {
  const row *rows;
  int count, more;
  int error = CALL(get_keyvalue_array, functions->get_keyvalue_array)(pointer(future), &rows, &count, &more);
  if (error) return error;
  *answer = (mv_fdb_answer){.count = count, .more = more};
  for (int i = 0; i < count; i++)
    answer->size += 8 + (uint64_t)rows[i].key_length - cut + (uint64_t)rows[i].value_length;
  if (answer->size <= room) pack(rows, count, cut, out);
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
  if (!a) return MV_FDB_NO_MEMORY;
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
