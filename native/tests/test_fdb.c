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
static int version_future;

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
  CHECK(tr == seen && (code == 500 ? vl == 8 && *v == 77 : !v && !vl));
  note("option", none, 0, none, 0, code);
  return 0;
}
static int create(void *database, void **out) {
  CHECK(database == &refuses);
  *out = seen;
  note("create", none, 0, none, 0, 0);
  return refuses;
}
static void destroy(void *tr) { CHECK(tr == seen); note("destroy", none, 0, none, 0, 0); }
static void *get_read_version(void *tr) { CHECK(tr == seen); note("version", none, 0, none, 0, 0); return &version_future; }
static void set_read_version(void *tr, int64_t v) { CHECK(tr == seen); note("stand", none, 0, none, 0, (int)v); }

typedef void callback(void *, void *);
static callback *call;
static void *context;
static int set_callback(void *future, callback *c, void *with) {
  CHECK(future == &call);
  if (refuses) return refuses;
  call = c, context = with;
  return 0;
}

static int ready;
static int is_ready(void *future) { CHECK(future == &call); return ready; }

static void *get(void *tr, const uint8_t *k, int kl, int snapshot) { CHECK(tr == seen && snapshot); note("get", k, kl, none, 0, 0); return &call; }
static void *get_range(void *tr, const uint8_t *a, int al, int ae, int ao, const uint8_t *b, int bl, int be, int bo, int limit,
                       int bytes, int mode, int iteration, int snapshot, int reverse) {
  CHECK(tr == seen && !ae && ao == 1 && !be && bo == 1 && !bytes && mode == -1 && snapshot);
  note("rows", a, al, b, bl, 100 * limit + 10 * iteration + reverse);
  return &call;
}
static void *get_stamp(void *tr) { CHECK(tr == seen); note("stamp", none, 0, none, 0, 0); return &refuses; }
static void *commit(void *tr) { CHECK(tr == seen); note("commit", none, 0, none, 0, 0); return &call; }

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

static void all_that_begins_a_transaction_goes_with_the_first_read(void) {
  mv_fdb_transaction tr = {.database = at(&refuses), .timeout = 77, .asks_version = 1};
  CHECK(mv_fdb_get_range(&functions, &tr, (const uint8_t *)"a", 1, (const uint8_t *)"bc", 2, 5, 2, 1) == 0);
  CHECK(strcmp(seen, "create   0;option   500;option   51;version   0;rows a bc 521;") == 0);
  CHECK(tr.future == at(&call) && tr.version == at(&version_future));
  seen[0] = 0;
  CHECK(mv_fdb_ask_version(&functions, &tr) == 0 && !seen[0]); /* once */
  CHECK(mv_fdb_get(&functions, &tr, (const uint8_t *)"key", 3) == 0);
  mv_fdb_end(&functions, &tr);
  mv_fdb_end(&functions, &tr);
  CHECK(strcmp(seen, "get key  0;destroy   0;") == 0);
  seen[0] = 0;
  tr = (mv_fdb_transaction){.database = at(&refuses), .timeout = 77, .read_version = 9, .sees_writes = 1};
  CHECK(mv_fdb_get(&functions, &tr, (const uint8_t *)"key", 3) == 0 && !tr.version);
  CHECK(strcmp(seen, "create   0;option   500;stand   9;get key  0;") == 0);
  tr = (mv_fdb_transaction){.database = at(&refuses)};
  refuses = 2000;
  CHECK(mv_fdb_get(&functions, &tr, (const uint8_t *)"key", 3) == 2000 && !tr.transaction);
  refuses = 0;
  seen[0] = 0;
}

static void what_is_written_goes_in_order(void) {
  mv_fdb_transaction tr = {.transaction = at(seen)};
  CHECK(mv_fdb_commit(&functions, &tr, operations, 0) == 0 && strcmp(seen, "stamp   0;commit   0;") == 0);
  CHECK(tr.stamp == at(&refuses) && tr.future == at(&call));
  seen[0] = 0;
  add(MV_FDB_SET, 0, "key", "");
  add(MV_FDB_ATOMIC, 15, "key", "stamp");
  add(MV_FDB_ATOMIC_ALONE, 14, "stamped", "value");
  add(MV_FDB_CONFLICT, 1, "a", "b");
  add(MV_FDB_CLEAR, 0, "gone", "");
  add(MV_FDB_CLEAR_RANGE, 0, "from", "to");
  CHECK(mv_fdb_commit(&functions, &tr, operations, size) == 0);
  CHECK(strcmp(seen, "set key  0;atomic key stamp 15;option   30;atomic stamped value 14;conflict a b 1;clear gone  0;range from to 0;stamp   0;commit   0;") == 0);
  refuses = 2005;
  seen[0] = 0;
  CHECK(mv_fdb_commit(&functions, &tr, operations, size) == 2005);
  CHECK(strcmp(seen, "set key  0;atomic key stamp 15;option   30;atomic stamped value 14;") == 0);
  CHECK(mv_fdb_wait(&functions, at(&call), 0, 0) == MV_FDB_NO_MEMORY);
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
  uint8_t out[57] = {0}, untouched[57] = {0};
  CHECK(mv_fdb_rows(&functions, at(&call), 7, &answer, out, 35) == 0);
  CHECK(answer.count == 3 && answer.more == 1 && answer.size == 3 * 8 + 1 + 3 + 0 + 0 + 3 + 5);
  CHECK(memcmp(out, untouched, sizeof out) == 0);
  CHECK(mv_fdb_rows(&functions, at(&call), 0, &answer, out, sizeof out) == 0 && answer.size == 57);
  CHECK(mv_fdb_rows(&functions, at(&call), 7, &answer, out, 36) == 0);
  uint32_t lengths[6];
  memcpy(lengths, out, sizeof lengths);
  CHECK(lengths[0] == 1 && lengths[1] == 3 && lengths[2] == 0 && lengths[3] == 0 && lengths[4] == 3 && lengths[5] == 5);
  CHECK(memcmp(out + sizeof lengths, "aonebcdthree", 12) == 0);
  refuses = 1009;
  CHECK(mv_fdb_rows(&functions, at(&call), 7, &answer, out, sizeof out) == 1009);
  refuses = 0;
}

static void *answers(void *arg) {
  usleep(20000);
  call(&call, context);
  return arg;
}

static void who_waits_is_woken(void) {
  uint64_t wait = mv_fdb_wait(&functions, at(&call), 0, 1000);
  CHECK(wait > MV_FDB_NO_MEMORY && mv_fdb_wait(&functions, at(&call), wait, 1000) == wait); /* nothing came */
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, answers, NULL) == 0);
  while ((wait = mv_fdb_wait(&functions, at(&call), wait, 30000000))) CHECK(wait > MV_FDB_NO_MEMORY);
  pthread_join(thread, NULL);

  ready = 1;
  CHECK(mv_fdb_wait(&functions, at(&call), 0, 0) == 0); /* nobody is called back */
  ready = 0;
  wait = mv_fdb_wait(&functions, at(&call), 0, 0); /* who waited has gone before the answer comes */
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
  functions = (mv_fdb_functions){
      .create_transaction = (uint64_t)(uintptr_t)create,
      .destroy_transaction = (uint64_t)(uintptr_t)destroy,
      .set_option = (uint64_t)(uintptr_t)option,
      .get_read_version = (uint64_t)(uintptr_t)get_read_version,
      .set_read_version = (uint64_t)(uintptr_t)set_read_version,
      .get = (uint64_t)(uintptr_t)get,
      .get_range = (uint64_t)(uintptr_t)get_range,
      .set = (uint64_t)(uintptr_t)set,
      .clear = (uint64_t)(uintptr_t)clear,
      .clear_range = (uint64_t)(uintptr_t)clear_range,
      .atomic_op = (uint64_t)(uintptr_t)atomic_op,
      .add_conflict_range = (uint64_t)(uintptr_t)conflict,
      .get_versionstamp = (uint64_t)(uintptr_t)get_stamp,
      .commit = (uint64_t)(uintptr_t)commit,
      .set_callback = (uint64_t)(uintptr_t)set_callback,
      .is_ready = (uint64_t)(uintptr_t)is_ready,
      .get_keyvalue_array = (uint64_t)(uintptr_t)get_rows,
  };
  all_that_begins_a_transaction_goes_with_the_first_read();
  what_is_written_goes_in_order();
  rows_are_copied();
  who_waits_is_woken();
  what_comes_is_posted();
  return 0;
}
