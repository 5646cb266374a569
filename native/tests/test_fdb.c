/* FoundationDB's client library from C, against functions that note what they are called with. */
#include <stdint.h>

#include "../store.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static char seen[600];
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

static mv_fdb_keyspace keyspace;

static uint8_t operations[400];
static uint64_t size;

static void add(uint8_t kind, uint8_t code, const char *a, const char *b, const char *c) {
  const char *strings[3] = {a, b, c};
  int32_t lengths[3] = {(int32_t)strlen(a), (int32_t)strlen(b), (int32_t)strlen(c)};
  operations[size++] = kind;
  operations[size++] = code;
  memcpy(operations + size, lengths, sizeof lengths);
  size += sizeof lengths;
  for (int i = 0; i < 3; i++) {
    memcpy(operations + size, strings[i], (size_t)lengths[i]);
    size += (uint64_t)lengths[i];
  }
}

static void all_that_begins_a_transaction_goes_with_the_first_read(void) {
  mv_fdb_transaction tr = {.keyspace = &keyspace, .timeout = 77, .asks_version = 1};
  CHECK(mv_fdb_get_range(&tr, (const uint8_t *)"a", 1, (const uint8_t *)"bc", 2, 5, 1, 1) == 0);
  CHECK(strcmp(seen, "create   0;option   500;option   51;version   0;rows /a /bc 511;") == 0);
  CHECK(tr.future == at(&call) && tr.version == at(&version_future));
  seen[0] = 0;
  CHECK(mv_fdb_ask_version(&tr) == 0 && !seen[0]); /* once */
  CHECK(mv_fdb_get(&tr, (const uint8_t *)"key", 3) == 0);
  mv_fdb_end(&tr);
  mv_fdb_end(&tr);
  CHECK(strcmp(seen, "get /key  0;destroy   0;") == 0);
  seen[0] = 0;
  tr = (mv_fdb_transaction){.keyspace = &keyspace, .timeout = 77, .read_version = 9, .sees_writes = 1};
  CHECK(mv_fdb_get(&tr, (const uint8_t *)"key", 3) == 0 && !tr.version);
  CHECK(strcmp(seen, "create   0;option   500;stand   9;get /key  0;") == 0);
  tr = (mv_fdb_transaction){.keyspace = &keyspace};
  refuses = 2000;
  CHECK(mv_fdb_get(&tr, (const uint8_t *)"key", 3) == 2000 && !tr.transaction);
  refuses = 0;
  seen[0] = 0;
}

static void parts_of_an_answer_are_counted_and_long_keys_refused(void) {
  static const uint8_t longest[10000];
  mv_fdb_transaction tr = {.keyspace = &keyspace, .timeout = 77, .transaction = at(seen)};
  memset(&keyspace.counted, 0, sizeof keyspace.counted);
  CHECK(mv_fdb_get_range(&tr, longest, 1, longest, 1, 5, 1, 0) == 0);
  CHECK(mv_fdb_get_range(&tr, longest, 1, longest, 1, 5, 2, 0) == 0);
  CHECK(keyspace.counted.range_reads == 1 && keyspace.counted.parts == 2);
  CHECK(mv_fdb_get(&tr, longest, 10000) == 2102);
  CHECK(mv_fdb_get_range(&tr, longest, 10000, longest, 1, 5, 1, 0) == 2102);
  CHECK(mv_fdb_get_range(&tr, longest, 1, longest, 10000, 5, 1, 0) == 2102);
  CHECK(keyspace.counted.gets == 0 && keyspace.counted.range_reads == 1);
  seen[0] = 0;
}

static const uint8_t two_ranges[] = {1, 0, 0, 0, 2, 0, 0, 0, 'a', 'b', 'c', 0, 0, 0, 0, 1, 0, 0, 0, 'd'};

static void what_is_written_goes_in_order(void) {
  mv_fdb_transaction tr = {.keyspace = &keyspace, .transaction = at(seen)};
  memset(&keyspace.counted, 0, sizeof keyspace.counted);
  CHECK(mv_fdb_commit(&tr, operations, 0) == 0 && strcmp(seen, "stamp   0;commit   0;") == 0);
  CHECK(tr.stamp == at(&refuses) && tr.future == at(&call));
  seen[0] = 0;
  add(MV_FDB_SET, 0, "key", "value", "");
  add(MV_FDB_CLEAR, 0, "gone", "", "");
  add(MV_FDB_CLEAR_RANGE, 0, "from", "to", "");
  add(MV_FDB_CONFLICTS, 1, "", "", "");
  operations[size - 12] = sizeof two_ranges;
  memcpy(operations + size, two_ranges, sizeof two_ranges);
  size += sizeof two_ranges;
  CHECK(mv_fdb_commit(&tr, operations, size) == 0);
  CHECK(strcmp(seen, "set /key value 0;clear /gone  0;range /from /to 0;conflict /a /bc 1;conflict / /d 1;stamp   0;commit   0;") == 0);
  mv_fdb_operations counted = keyspace.counted;
  CHECK(counted.sets == 1 && counted.clears == 2 && counted.conflicts == 2 && !counted.commits);
  refuses = 2005;
  seen[0] = 0;
  CHECK(mv_fdb_commit(&tr, operations, size) == 2005);
  CHECK(strcmp(seen, "set /key value 0;clear /gone  0;range /from /to 0;") == 0);
  CHECK(mv_fdb_wait(&functions, at(&call), 0, 0) == MV_FDB_NO_WAIT);
  refuses = 0, seen[0] = 0;
}

/* What the library is given where a version belongs is too odd for `note`. */
static const char *wanted_key, *wanted_param;
static int wanted_key_length, wanted_param_length, wanted_type, stamped;
static void stamped_op(void *tr, const uint8_t *k, int kl, const uint8_t *p, int pl, int op) {
  CHECK(tr == seen && op == wanted_type && kl == wanted_key_length && pl == wanted_param_length);
  CHECK(memcmp(k, wanted_key, (size_t)kl) == 0 && memcmp(p, wanted_param, (size_t)pl) == 0);
  stamped++;
}

#define WANT(type, key, param) \
  (wanted_type = (type), wanted_key = key, wanted_key_length = sizeof key - 1, wanted_param = param, \
   wanted_param_length = sizeof param - 1, seen[0] = 0)

static void a_version_is_left_to_the_library(void) {
  mv_fdb_transaction tr = {.keyspace = &keyspace, .transaction = at(seen)};
  memset(&keyspace.counted, 0, sizeof keyspace.counted);
  functions.atomic_op = (uint64_t)(uintptr_t)stamped_op;
  size = 0, seen[0] = 0;
  add(MV_FDB_VERSIONED_KEY, 0, "page", "..", "value");
  WANT(14, "/page\0\0\0\0\0\0\0\0\0\0..\5\0\0\0", "value");
  CHECK(mv_fdb_commit(&tr, operations, size) == 0 && strcmp(seen, "option   30;stamp   0;commit   0;") == 0);
  size = 0;
  add(MV_FDB_VERSIONED_VALUE, 0, "key", "at ", "!");
  WANT(15, "/key", "at \0\0\0\0\0\0\0\0\0\0!\3\0\0\0");
  CHECK(mv_fdb_commit(&tr, operations, size) == 0 && strcmp(seen, "stamp   0;commit   0;") == 0);
  size = 0;
  add(MV_FDB_VERSIONED_VALUE, 1, "key", "", "");
  WANT(15, "/key", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
  CHECK(mv_fdb_commit(&tr, operations, size) == 0 && strcmp(seen, "option   30;stamp   0;commit   0;") == 0);
  CHECK(stamped == 3 && keyspace.counted.sets == 3);
  functions.atomic_op = (uint64_t)(uintptr_t)atomic_op;
}

static const uint8_t stamp_bytes[] = "0123456789";
static int stamp_length = 10;
static int get_key(void *future, const uint8_t **key, int *length) {
  CHECK(future == &call);
  *key = stamp_bytes, *length = stamp_length;
  return refuses;
}

static void a_commit_is_counted_once_its_version_is_known(void) {
  uint8_t out[10];
  memset(&keyspace.counted, 0, sizeof keyspace.counted);
  refuses = 1020;
  CHECK(mv_fdb_stamp_of(&keyspace, at(&call), out) == 1020);
  refuses = 0, stamp_length = 9;
  CHECK(mv_fdb_stamp_of(&keyspace, at(&call), out) && !keyspace.counted.commits);
  stamp_length = 10;
  CHECK(mv_fdb_stamp_of(&keyspace, at(&call), out) == 0 && memcmp(out, stamp_bytes, 10) == 0);
  mv_fdb_count_retry(&keyspace);
  CHECK(keyspace.counted.commits == 1 && keyspace.counted.retries == 1);
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
  mv_fdb_keyspace whole = {.functions = &functions}, below = {.functions = &functions, .prefix_length = 7};
  mv_fdb_answer answer;
  uint8_t out[57] = {0}, untouched[57] = {0};
  CHECK(mv_fdb_rows(&below, at(&call), &answer, out, 35) == 0);
  CHECK(answer.count == 3 && answer.more == 1 && answer.size == 3 * 8 + 1 + 3 + 0 + 0 + 3 + 5);
  CHECK(memcmp(out, untouched, sizeof out) == 0 && below.counted.rows == 0);
  CHECK(mv_fdb_rows(&whole, at(&call), &answer, out, sizeof out) == 0 && answer.size == 57);
  CHECK(mv_fdb_rows(&below, at(&call), &answer, out, 36) == 0 && below.counted.rows == 3);
  uint32_t lengths[6];
  memcpy(lengths, out, sizeof lengths);
  CHECK(lengths[0] == 1 && lengths[1] == 3 && lengths[2] == 0 && lengths[3] == 0 && lengths[4] == 3 && lengths[5] == 5);
  CHECK(memcmp(out + sizeof lengths, "aonebcdthree", 12) == 0);
  refuses = 1009;
  CHECK(mv_fdb_rows(&below, at(&call), &answer, out, sizeof out) == 1009);
  refuses = 0;
}

static void *answers(void *arg) {
  usleep(20000);
  call(&call, context);
  return arg;
}

static void who_waits_is_woken(void) {
  uint64_t wait = mv_fdb_wait(&functions, at(&call), 0, 1000);
  CHECK(wait > MV_FDB_NO_WAIT && mv_fdb_wait(&functions, at(&call), wait, 1000) == wait); /* nothing came */
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, answers, NULL) == 0);
  while ((wait = mv_fdb_wait(&functions, at(&call), wait, 30000000))) CHECK(wait > MV_FDB_NO_WAIT);
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
      .get_key = (uint64_t)(uintptr_t)get_key,
      .get_keyvalue_array = (uint64_t)(uintptr_t)get_rows,
  };
  keyspace = (mv_fdb_keyspace){
      .functions = &functions, .database = at(&refuses), .prefix = (const uint8_t *)"/", .prefix_length = 1};
  all_that_begins_a_transaction_goes_with_the_first_read();
  parts_of_an_answer_are_counted_and_long_keys_refused();
  what_is_written_goes_in_order();
  a_version_is_left_to_the_library();
  a_commit_is_counted_once_its_version_is_known();
  rows_are_copied();
  who_waits_is_woken();
  what_comes_is_posted();
  return 0;
}
