/* Pages that come along: what goes into the cache, what stays out, and that no bytes do harm. */
#include "../told.h"

#include <string.h>

#include "check.h"

#define SIZE 512

static const uint8_t *version(uint64_t n) {
  static uint8_t ring[8][MV_VERSION_SIZE];
  static int next;
  uint8_t *out = ring[next++ & 7];
  mv_version_put((mv_version){n, 0}, out);
  return out;
}

static mv_version v(uint64_t n) { return (mv_version){n, 0}; }

static int content(mv_db *db, uint32_t number, uint64_t at) { /* first byte, or -1 */
  uint8_t byte;
  return mv_db_copy(db, number, v(at), &byte, 0, 1) ? byte : -1;
}

/* At version 10, pages 7 and 8 as of 4, all 'a'. */
static mv_db *cache(void) {
  uint8_t page[SIZE];
  mv_db *db = mv_db_new(1 << 20);
  memset(page, 'a', sizeof page);
  CHECK(db && mv_db_apply(db, NULL, 0, version(10), 0) == 0);
  CHECK(mv_db_insert(db, 7, version(4), version(10), 0, page, SIZE) == 0);
  CHECK(mv_db_insert(db, 8, version(4), version(10), 0, page, SIZE) == 0);
  return db;
}

static uint8_t *put_number(uint8_t *out, uint32_t n) {
  for (int i = 0; i < 4; i++, n >>= 8) *out++ = (uint8_t)n;
  return out;
}

/* A commit of one page, whose first byte becomes `fill`, `chain` deltas above a whole one; how many bytes it takes. */
static size_t commit(uint8_t *out, uint64_t n, uint32_t number, uint8_t chain, uint8_t fill) {
  const uint8_t blob[10] = {2, 0, chain, 0, 0, 0, n & 0xFF, 0, 1, fill};
  uint8_t *at = out;
  memcpy(at, version(n), MV_VERSION_SIZE);
  memset(at + 10, 0, 2);
  at = put_number(put_number(at + 12, 1), 8 + sizeof blob);
  at = put_number(put_number(at, number), sizeof blob);
  memcpy(at, blob, sizeof blob);
  return (size_t)(at - out) + sizeof blob;
}

static mv_change change(uint64_t n, const uint32_t *page) {
  mv_change c = {.pages = page, .page_count = 1};
  memcpy(c.version, version(n), MV_VERSION_SIZE);
  return c;
}

static void pages_go_forward_into_the_cache(void) {
  static const uint32_t seven = 7;
  mv_db *db = cache();
  uint8_t told[100];
  size_t size = commit(told, 11, 7, 1, 'b');
  size += commit(told + size, 12, 7, 2, 'c');
  const mv_change changes[] = {change(11, &seven), change(12, &seven)};
  mv_told t;
  CHECK(mv_told_apply(&t, db, told, size, changes, 2, version(10)) == 0);
  CHECK(t.count == 1 && t.pages[0].state == MV_TOLD_FORWARD && t.pages[0].size == SIZE);
  CHECK(t.pages[0].content[0] == 'c' && t.pages[0].content[1] == 'a' && t.pages[0].check == 12);
  CHECK(content(db, 7, 10) == 'a'); /* nothing has happened yet */
  CHECK(mv_db_apply(db, changes, 2, version(12), 0) == 0);
  CHECK(content(db, 7, 12) == -1);
  mv_told_keep(&t, version(12));
  CHECK(content(db, 7, 12) == 'c' && content(db, 7, 11) == -1 && content(db, 8, 12) == 'a');
  mv_told_end(&t);
  mv_told_end(&t);
  mv_page *page = mv_db_pin(db, 7, v(12));
  CHECK(page && page->chain == 2 && mv_version_cmp(page->from, v(12)) == 0);
  mv_db_unpin(db, page);
  mv_db_release(db);
}

static void what_is_ended_is_not_kept(void) {
  static const uint32_t seven = 7;
  mv_db *db = cache();
  uint8_t told[50];
  size_t size = commit(told, 11, 7, 1, 'b');
  const mv_change changes[] = {change(11, &seven)};
  mv_told t;
  CHECK(mv_told_apply(&t, db, told, size, changes, 1, version(10)) == 0);
  mv_told_end(&t);
  CHECK(mv_db_apply(db, changes, 1, version(11), 0) == 0);
  CHECK(content(db, 7, 11) == -1);
  mv_db_release(db);
}

static void a_commit_in_between_that_is_not_told(void) {
  static const uint32_t seven = 7, eight = 8;
  mv_db *db = cache();
  uint8_t told[100];
  size_t size = commit(told, 11, 7, 1, 'b');
  size += commit(told + size, 13, 8, 1, 'c');
  const mv_change changes[] = {change(11, &seven), change(12, &seven), change(13, &eight)};
  mv_told t;
  CHECK(mv_told_apply(&t, db, told, size, changes, 3, version(10)) == 0);
  CHECK(t.count == 2 && t.pages[0].state == MV_TOLD_LEFT && t.pages[1].state == MV_TOLD_FORWARD);
  mv_told_end(&t);
  CHECK(mv_told_apply(&t, db, told, size, changes, 2, version(10)) == -2); /* 13 is told, and is no change */
  mv_db_release(db);
}

/* On the heap, as large as they must be, so that the sanitizer sees each overstep. */
static void any_bytes_are_refused_or_harmless(void) {
  static const uint32_t seven = 7;
  uint8_t whole[100];
  size_t size = commit(whole, 11, 7, 1, 'b');
  size += commit(whole + size, 12, 7, 2, 'c');
  const mv_change changes[] = {change(11, &seven), change(12, &seven)};
  mv_db *db = cache();
  for (size_t at = 0; at < size; at++) {
    for (int bit = 0; bit < 8; bit++) {
      uint8_t *told = malloc(size);
      memcpy(told, whole, size);
      told[at] ^= (uint8_t)(1 << bit);
      mv_told t;
      int rc = mv_told_apply(&t, db, told, size, changes, 2, version(10));
      CHECK(rc == 0 || rc == -2);
      if (rc == 0) mv_told_end(&t);
      free(told);
    }
    uint8_t *cut = malloc(at + 1);
    memcpy(cut, whole, at);
    mv_told t;
    int rc = mv_told_apply(&t, db, cut, at, changes, 2, version(10));
    CHECK(rc == (at == 0 || at == size / 2 ? 0 : -2));
    if (rc == 0) mv_told_end(&t);
    free(cut);
  }
  CHECK(content(db, 7, 10) == 'a');
  mv_db_release(db);
}

int main(void) {
  pages_go_forward_into_the_cache();
  what_is_ended_is_not_kept();
  a_commit_in_between_that_is_not_told();
  any_bytes_are_refused_or_harmless();
  return 0;
}
