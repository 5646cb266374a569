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

/* ---- what a transaction writes ---- */

typedef void set_function(void *tr, const uint8_t *key, int key_length, const uint8_t *value, int value_length);
typedef void clear_function(void *tr, const uint8_t *key, int length);
typedef void clear_range_function(void *tr, const uint8_t *begin, int begin_length, const uint8_t *end, int end_length);
typedef void atomic_op_function(void *tr, const uint8_t *key, int key_length, const uint8_t *param, int param_length,
                                int operation);
typedef int add_conflict_function(void *tr, const uint8_t *begin, int begin_length, const uint8_t *end,
                                  int end_length, int type);
typedef int set_option_function(void *tr, int option, const uint8_t *value, int length);

enum { NEXT_WRITE_NO_WRITE_CONFLICT_RANGE = 30 }; /* FDBTransactionOption */

#define HEADER 10 /* kind, code, and the lengths of two strings, which follow */

static int length_at(const uint8_t *p) {
  int32_t length;
  memcpy(&length, p, sizeof length);
  return length;
}

static int one(const mv_fdb_functions *f, void *tr, int kind, int code, const uint8_t *a, int a_length,
               const uint8_t *b, int b_length) {
  switch (kind) {
    case MV_FDB_SET:
      ((set_function *)(uintptr_t)f->set)(tr, a, a_length, b, b_length);
      return 0;
    case MV_FDB_CLEAR:
      ((clear_function *)(uintptr_t)f->clear)(tr, a, a_length);
      return 0;
    case MV_FDB_CLEAR_RANGE:
      ((clear_range_function *)(uintptr_t)f->clear_range)(tr, a, a_length, b, b_length);
      return 0;
    case MV_FDB_ATOMIC:
      ((atomic_op_function *)(uintptr_t)f->atomic_op)(tr, a, a_length, b, b_length, code);
      return 0;
    case MV_FDB_CONFLICT:
      return ((add_conflict_function *)(uintptr_t)f->add_conflict_range)(tr, a, a_length, b, b_length, code);
    default: { /* MV_FDB_ATOMIC_ALONE: nobody else writes this key */
      int error = ((set_option_function *)(uintptr_t)f->set_option)(tr, NEXT_WRITE_NO_WRITE_CONFLICT_RANGE, NULL, 0);
      if (!error) ((atomic_op_function *)(uintptr_t)f->atomic_op)(tr, a, a_length, b, b_length, code);
      return error;
    }
  }
}

int mv_fdb_send(const mv_fdb_functions *functions, uint64_t transaction, const uint8_t *operations, uint64_t size) {
  const uint8_t *at = operations, *end = operations + size;
  while (at < end) {
    int a_length = length_at(at + 2), b_length = length_at(at + 6);
    const uint8_t *a = at + HEADER, *b = a + a_length;
    int error = one(functions, (void *)(uintptr_t)transaction, at[0], at[1], a, a_length, b, b_length);
    if (error) return error;
    at = b + b_length;
  }
  return 0;
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

int mv_fdb_answer_of(const mv_fdb_functions *functions, uint64_t future, mv_fdb_answer *out) {
  const row *rows;
  int count, more;
  int error = ((get_keyvalue_array_function *)(uintptr_t)functions->get_keyvalue_array)((void *)(uintptr_t)future,
                                                                                        &rows, &count, &more);
  if (error) return error;
  *out = (mv_fdb_answer){.rows = (uint64_t)(uintptr_t)rows, .count = count, .more = more};
  for (int i = 0; i < count; i++) out->size += (uint64_t)rows[i].key_length + (uint64_t)rows[i].value_length;
  return 0;
}

void mv_fdb_rows(const mv_fdb_answer *answer, uint32_t cut, uint8_t *out) {
  const row *rows = (const row *)(uintptr_t)answer->rows;
  uint8_t *lengths = out;
  out += 8 * (size_t)answer->count;
  for (int32_t i = 0; i < answer->count; i++, lengths += 8) {
    uint32_t both[2] = {(uint32_t)rows[i].key_length - cut, (uint32_t)rows[i].value_length};
    memcpy(lengths, both, sizeof both);
    memcpy(out, rows[i].key + cut, both[0]);
    memcpy(out + both[0], rows[i].value, both[1]);
    out += both[0] + both[1];
  }
}

/* ---- waiting ---- */

typedef struct answer {
  _Atomic uint32_t came; /* a gate */
  atomic_int owners;
} answer;

typedef void callback(void *future, void *context);
typedef int set_callback_function(void *future, callback *call, void *context);

static uint64_t address(const answer *a) { return (uint64_t)(uintptr_t)a; }

static void release(answer *a) {
  if (atomic_fetch_sub(&a->owners, 1) == 1) free(a);
}

static void has_come(void *future, void *context) {
  (void)future;
  mv_gate_open(address(context));
  release(context);
}

uint64_t mv_fdb_wait_start(const mv_fdb_functions *functions, uint64_t future) {
  answer *a = calloc(1, sizeof *a);
  if (!a) return 0;
  atomic_init(&a->owners, 2);
  set_callback_function *set_callback = (set_callback_function *)(uintptr_t)functions->set_callback;
  if (set_callback((void *)(uintptr_t)future, has_come, a)) {
    free(a);
    return 0;
  }
  return address(a);
}

int mv_fdb_wait(uint64_t wait, uint32_t us) {
  answer *a = (answer *)(uintptr_t)wait;
  return atomic_load(&a->came) || mv_gate_wait(address(a), 0, us);
}

void mv_fdb_wait_end(uint64_t wait) { release((answer *)(uintptr_t)wait); }

static void post(void *future, void *context) {
  (void)future;
  mv_letter_post(context);
}

int mv_fdb_post(const mv_fdb_functions *functions, uint64_t future, uint64_t inbox, uint64_t id) {
  mv_letter *letter = mv_letter_new(inbox, id);
  if (!letter) return 0;
  set_callback_function *set_callback = (set_callback_function *)(uintptr_t)functions->set_callback;
  if (!set_callback((void *)(uintptr_t)future, post, letter)) return 1;
  mv_letter_drop(letter);
  return 0;
}
