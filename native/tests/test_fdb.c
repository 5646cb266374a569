/* FoundationDB's client library from C, against functions that note what they are called with. */
#include <stdint.h>

#include "../store.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static char seen[400];
static int refuses;

static void note(const char *what, const uint8_t *a, int a_length, const uint8_t *b, int b_length, int code) {
  snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s %.*s %.*s %d;", what, a_length, (const char *)a,
           b_length, (const char *)b, code);
}

static const uint8_t none[1];

static void set(void *tr, const uint8_t *k, int kl, const uint8_t *v, int vl) { CHECK(tr == seen); note("set", k, kl, v, vl, 0); }
static void clear(void *tr, const uint8_t *k, int kl) { CHECK(tr == seen); note("clear", k, kl, none, 0, 0); }
static void clear_range(void *tr, const uint8_t *a, int al, const uint8_t *b, int bl) { CHECK(tr == seen); note("range", a, al, b, bl, 0); }
static void atomic_op(void *tr, const uint8_t *k, int kl, const uint8_t *p, int pl, int op) { CHECK(tr == seen); note("atomic", k, kl, p, pl, op); }
static int conflict(void *tr, const uint8_t *a, int al, const uint8_t *b, int bl, int type) {
  CHECK(tr == seen);
  if (refuses) return refuses;
  note("conflict", a, al, b, bl, type);
  return 0;
}
static int option(void *tr, int code, const uint8_t *v, int vl) {
  CHECK(tr == seen && !v && !vl);
  note("option", none, 0, none, 0, code);
  return 0;
}

typedef void callback(void *, void *);
static callback *call;
static void *context;
static int set_callback(void *future, callback *c, void *with) {
  CHECK(future == &call);
  if (refuses) return refuses;
  call = c, context = with;
  return 0;
}

static mv_fdb_functions functions;

static uint64_t at(const void *p) { return (uint64_t)(uintptr_t)p; }

static uint8_t operations[200];
static uint64_t size;

static void add(uint8_t kind, uint8_t code, const char *a, const char *b) {
  int32_t lengths[2] = {(int32_t)strlen(a), (int32_t)strlen(b)};
  operations[size++] = kind;
  operations[size++] = code;
  memcpy(operations + size, lengths, sizeof lengths);
  memcpy(operations + size + 8, a, (size_t)lengths[0]);
  memcpy(operations + size + 8 + lengths[0], b, (size_t)lengths[1]);
  size += 8 + (uint64_t)lengths[0] + (uint64_t)lengths[1];
}

static void what_is_written_goes_in_order(void) {
  CHECK(mv_fdb_send(&functions, at(seen), operations, 0) == 0 && !seen[0]);
  add(MV_FDB_SET, 0, "key", "");
  add(MV_FDB_ATOMIC, 15, "key", "stamp");
  add(MV_FDB_ATOMIC_ALONE, 14, "stamped", "value");
  add(MV_FDB_CONFLICT, 1, "a", "b");
  add(MV_FDB_CLEAR, 0, "gone", "");
  add(MV_FDB_CLEAR_RANGE, 0, "from", "to");
  CHECK(mv_fdb_send(&functions, at(seen), operations, size) == 0);
  CHECK(strcmp(seen, "set key  0;atomic key stamp 15;option   30;atomic stamped value 14;conflict a b 1;clear gone  0;range from to 0;") == 0);
  refuses = 2005;
  seen[0] = 0;
  CHECK(mv_fdb_send(&functions, at(seen), operations, size) == 2005);
  CHECK(strcmp(seen, "set key  0;atomic key stamp 15;option   30;atomic stamped value 14;") == 0);
  CHECK(mv_fdb_wait_start(&functions, at(&call)) == 0);
  refuses = 0;
}

#pragma pack(push, 4)
static const struct { const char *key; int kl; const char *value; int vl; } stored[] = {
    {"prefix-a", 8, "one", 3}, {"prefix-", 7, "", 0}, {"prefix-bcd", 10, "three", 5}};
#pragma pack(pop)

static int get_rows(void *future, const void **rows, int *count, int *more) {
  CHECK(future == &call);
  *rows = stored, *count = 3, *more = 1;
  return refuses;
}

static void rows_are_copied(void) {
  mv_fdb_answer answer;
  CHECK(mv_fdb_answer_of(&functions, at(&call), &answer) == 0);
  CHECK(answer.count == 3 && answer.more == 1 && answer.size == 8 + 3 + 7 + 10 + 5);
  uint8_t out[100];
  mv_fdb_rows(&answer, 7, out);
  uint32_t lengths[6];
  memcpy(lengths, out, sizeof lengths);
  CHECK(lengths[0] == 1 && lengths[1] == 3 && lengths[2] == 0 && lengths[3] == 0 && lengths[4] == 3 && lengths[5] == 5);
  CHECK(memcmp(out + sizeof lengths, "aonebcdthree", 12) == 0);
  refuses = 1009;
  CHECK(mv_fdb_answer_of(&functions, at(&call), &answer) == 1009);
  refuses = 0;
}

static void *answers(void *arg) {
  usleep(20000);
  call(&call, context);
  return arg;
}

static void who_waits_is_woken(void) {
  uint64_t wait = mv_fdb_wait_start(&functions, at(&call));
  CHECK(wait && mv_fdb_wait(wait, 1000) == 0); /* nothing came */
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, answers, NULL) == 0);
  while (!mv_fdb_wait(wait, 30000000)) continue;
  CHECK(mv_fdb_wait(wait, 0));
  mv_fdb_wait_end(wait);
  pthread_join(thread, NULL);

  wait = mv_fdb_wait_start(&functions, at(&call)); /* who waited has gone before the answer comes */
  mv_fdb_wait_end(wait);
  call(&call, context);
}

static void what_comes_is_posted(void) {
  uint64_t inbox = mv_inbox_new(), id = 0;
  CHECK(inbox && mv_fdb_post(&functions, at(&call), inbox, 77));
  CHECK(mv_inbox_take(inbox, &id, 1) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, answers, NULL) == 0);
  pthread_join(thread, NULL);
  CHECK(mv_inbox_take(inbox, &id, 1) == 1 && id == 77);

  refuses = 2005;
  CHECK(!mv_fdb_post(&functions, at(&call), inbox, 78));
  refuses = 0;
  CHECK(mv_inbox_take(inbox, &id, 1) == 0);

  CHECK(mv_fdb_post(&functions, at(&call), inbox, 79)); /* its owner has gone before the answer comes */
  mv_inbox_end(inbox);
  call(&call, context);
}

int main(void) {
  functions = (mv_fdb_functions){(uint64_t)(uintptr_t)set,       (uint64_t)(uintptr_t)clear,
                                 (uint64_t)(uintptr_t)clear_range, (uint64_t)(uintptr_t)atomic_op,
                                 (uint64_t)(uintptr_t)conflict,  (uint64_t)(uintptr_t)option,
                                 (uint64_t)(uintptr_t)set_callback, (uint64_t)(uintptr_t)get_rows};
  what_is_written_goes_in_order();
  rows_are_copied();
  who_waits_is_woken();
  what_comes_is_posted();
  return 0;
}
