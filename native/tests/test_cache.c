/* The page cache: validity of entries, eviction, commits, and threads. */
#include "../cache.h"

#include <string.h>
#include <time.h>

#include "check.h"

static const uint8_t *version(uint64_t n) {
  static _Thread_local uint8_t ring[8][MV_VERSION_SIZE];
  static _Thread_local int next;
  uint8_t *out = ring[next++ & 7];
  mv_version_put((mv_version){n, 0}, out);
  return out;
}

/* One change at version n, of one page; and the changelog reaches it. */
static void change(mv_db *db, uint64_t n, uint32_t page) {
  mv_change c = {.pages = &page, .page_count = page != 0};
  memcpy(c.version, version(n), MV_VERSION_SIZE);
  CHECK(mv_db_apply(db, &c, 1, version(n), 0) == 0);
}

static void advance(mv_db *db, uint64_t n, uint64_t word) {
  CHECK(mv_db_apply(db, NULL, 0, version(n), word) == 0);
}

static mv_version v(uint64_t n) { return (mv_version){n, 0}; }

static void put(mv_db *db, uint32_t number, uint64_t from, uint64_t at, uint8_t fill) {
  uint8_t page[512];
  memset(page, fill, sizeof page);
  CHECK(mv_db_insert(db, number, version(from), version(at), 0, page, sizeof page) == 0);
}

static int content(mv_db *db, uint32_t number, uint64_t at) { /* first byte, or -1 */
  uint8_t byte;
  return mv_db_copy(db, number, v(at), &byte, 0, 1) ? byte : -1;
}

static void versions_are_ten_big_endian_bytes(void) {
  uint8_t bytes[MV_VERSION_SIZE] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, back[MV_VERSION_SIZE];
  mv_version_put(mv_version_get(bytes), back);
  CHECK(memcmp(bytes, back, sizeof bytes) == 0);
  CHECK(mv_version_cmp(v(1), v(2)) < 0);
  CHECK(mv_version_cmp((mv_version){1, 2}, (mv_version){1, 1}) > 0);
}

static void an_open_entry_lasts_until_its_page_changes(void) {
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot reader = {0};
  advance(db, 10, 0);
  put(db, 7, 4, 10, 'a');
  CHECK(content(db, 7, 10) == 'a' && content(db, 7, 4) == 'a' && content(db, 7, 3) == -1);
  CHECK(content(db, 7, 11) == -1); /* nothing is known of 11 yet */
  mv_db_hold(db, &reader, v(10));
  change(db, 11, 8);
  CHECK(content(db, 7, 11) == 'a');
  change(db, 12, 7);
  CHECK(content(db, 7, 12) == -1 && content(db, 7, 10) == 'a'); /* the reader keeps what it sees */
  put(db, 7, 12, 12, 'b');
  CHECK(content(db, 7, 12) == 'b' && content(db, 7, 10) == 'a');
  mv_db_drop(db, &reader);
  mv_db_release(db);
}

static void a_change_during_a_fetch_is_not_lost(void) {
  mv_db *db = mv_db_new(1 << 20);
  advance(db, 10, 0);
  /* a fetch at 10 is under way; meanwhile page 7 changes at 11 */
  change(db, 11, 7);
  put(db, 7, 4, 10, 'a');
  CHECK(content(db, 7, 10) == 'a' && content(db, 7, 11) == -1);
  mv_db_release(db);
}

static void forgetting_ends_every_entry(void) {
  mv_db *db = mv_db_new(1 << 20);
  advance(db, 10, 0);
  put(db, 7, 4, 10, 'a');
  mv_alloc *alloc = mv_alloc_new(30, NULL, 0);
  mv_db_reset(db, version(20), 0, alloc);
  CHECK(db->alloc == alloc);
  mv_alloc_release(alloc);
  CHECK(content(db, 7, 10) == 'a' && content(db, 7, 20) == -1);
  mv_db_release(db);
}

static void a_commit_takes_its_pages_over(void) {
  mv_head head = {.word = 8};
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot s = {0};
  mv_start start;
  uint32_t nine = 9;
  mv_db_set_word(db, (uint64_t)(uintptr_t)&head, 0);
  advance(db, 10, 8);
  mv_db_watch(db, 0); /* then it asks */
  CHECK(!mv_db_watched(db) && !mv_db_quick_begin(db, &s, 0, &start));
  mv_db_watch(db, 1);
  CHECK(mv_db_watched(db) && mv_db_quick_begin(db, &s, 0, &start) && mv_version_cmp(s.version, v(10)) == 0);
  mv_alloc_release(start.alloc);
  put(db, 7, 4, 10, 'a');
  mv_page *before = mv_db_pin(db, 7, v(10));
  CHECK(before && before->data[0] == 'a');
  mv_page *page = mv_page_new(7, 512);
  memset(page->data, 'b', 512);
  atomic_store(&head.word, 10); /* odd and even: one commit */
  mv_part c = {.write_count = 1, .allocated = &nine, .allocated_count = 1};
  CHECK(mv_db_committed(db, &s, &c, version(12), &page, 8) == 0);
  CHECK(content(db, 7, 12) == 'b' && content(db, 7, 11) == -1);
  CHECK(mv_alloc_has(db->alloc, 9) && db->alloc->highest == 9 && db->alloc->free_count == 8);
  CHECK(before->data[0] == 'a'); /* pinned: still there */
  mv_db_unpin(db, before);
  CHECK(mv_db_quick_begin(db, &s, 0, &start) && mv_version_cmp(start.last_change, v(12)) == 0);
  mv_alloc_release(start.alloc);
  atomic_store(&head.word, 11); /* someone commits: ask */
  CHECK(!mv_db_quick_begin(db, &s, 0, &start));
  atomic_store(&head.word, 12);
  CHECK(!mv_db_quick_begin(db, &s, 0, &start));
  mv_db_drop(db, &s);
  mv_db_release(db);
}

/* What others committed up to it is not known: it waits for the changelog to get there. */
static void a_commit_waits_for_what_others_did(void) {
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot s = {0};
  mv_start start;
  advance(db, 10, 0);
  put(db, 7, 4, 10, 'a');
  put(db, 8, 4, 10, 'a');
  mv_db_hold(db, &s, v(10));
  mv_page *page = mv_page_new(7, 512);
  memset(page->data, 'b', 512);
  mv_part c = {.write_count = 1};
  mv_db_committed_unknown(db, &s, &c, version(12), &page);
  CHECK(mv_version_cmp(s.version, v(12)) == 0 && mv_version_cmp(db->applied, v(10)) == 0);
  CHECK(content(db, 7, 10) == 'a' && content(db, 7, 12) == -1 && content(db, 8, 12) == -1);

  uint32_t seven = 7, eight = 8;
  mv_change log[] = {{.pages = &eight, .page_count = 1}, {.pages = &seven, .page_count = 1}};
  memcpy(log[0].version, version(11), MV_VERSION_SIZE);
  memcpy(log[1].version, version(12), MV_VERSION_SIZE);
  CHECK(mv_db_apply(db, log, 2, version(12), 0) == 0);
  CHECK(content(db, 7, 12) == 'b' && content(db, 8, 12) == -1); /* ours is there, theirs has to be fetched */
  mv_db_begin(db, &s, &start);
  CHECK(mv_version_cmp(start.last_change, v(12)) == 0 && mv_version_cmp(start.change_before, v(11)) == 0);
  mv_alloc_release(start.alloc);

  page = mv_page_new(7, 512); /* another thread has taken in what came after it already */
  memset(page->data, 'c', 512);
  change(db, 13, 7);
  change(db, 14, 7);
  mv_db_committed_unknown(db, &s, &c, version(13), &page);
  CHECK(content(db, 7, 13) == 'c' && content(db, 7, 14) == -1);
  mv_db_drop(db, &s);
  mv_db_release(db);
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The word of a followed store is good for as long as it says, and only for who takes an older snapshot. */
static void a_followed_word_grows_old(void) {
  const int64_t hour = 3600ll * 1000000000;
  mv_head head = {.word = 8};
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot s = {0};
  mv_start start;
  mv_db_set_word(db, (uint64_t)(uintptr_t)&head, 1);
  advance(db, 10, 8);
  atomic_store(&head.as_of, now());
  CHECK(!mv_db_quick_begin(db, &s, 0, &start));
  CHECK(!atomic_load(&head.used));
  CHECK(mv_db_quick_begin(db, &s, hour, &start));
  CHECK(atomic_load(&head.used) == 1);
  mv_alloc_release(start.alloc);
  CHECK(mv_db_unmoved(db, v(10), hour) && !mv_db_unmoved(db, v(10), 0) && mv_db_unmoved(db, v(9), hour));
  atomic_store(&head.as_of, now() - 2 * hour);
  CHECK(!mv_db_quick_begin(db, &s, hour, &start));
  CHECK(mv_db_quick_begin(db, &s, 3 * hour, &start));
  mv_alloc_release(start.alloc);
  uint64_t address = (uint64_t)(uintptr_t)&head;
  CHECK(mv_head_used(address) && !mv_head_used(address));
  mv_head_move(address, 0, now());
  CHECK(mv_db_quick_begin(db, &s, hour, &start));
  mv_alloc_release(start.alloc);
  mv_head_move(address, 1, 0); /* a commit; the time does not go back */
  CHECK(atomic_load(&head.word) == 10 && atomic_load(&head.as_of) > 0);
  CHECK(!mv_db_quick_begin(db, &s, hour, &start));
  mv_db_drop(db, &s);
  mv_db_release(db);
}

/* Databases that are read together stand at one version: its name may be later than what is known of them. */
static void a_snapshot_may_stand_at_another_databases_version(void) {
  mv_head head = {.word = 8};
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot s = {0}, other = {0};
  mv_start start;
  mv_version newest;
  uint32_t seven = 7;
  mv_db_set_word(db, (uint64_t)(uintptr_t)&head, 0);
  mv_change change = {.pages = &seven, .page_count = 1};
  memcpy(change.version, version(10), MV_VERSION_SIZE);
  CHECK(mv_db_apply(db, &change, 1, version(10), 8) == 0);
  put(db, 7, 10, 10, 'a');
  CHECK(mv_db_newest(db, &newest) && mv_version_cmp(newest, v(10)) == 0);
  CHECK(mv_db_begin_at(db, &s, v(20), &start) && mv_version_cmp(s.version, v(20)) == 0);
  CHECK(mv_version_cmp(start.last_change, v(10)) == 0);
  mv_alloc_release(start.alloc);
  CHECK(content(db, 7, 20) == 'a' && mv_db_unmoved(db, v(20), 0) && mv_db_unmoved(db, v(10), 0));
  atomic_store(&head.word, 10); /* someone commits, at a version that is not known */
  CHECK(!mv_db_begin_at(db, &other, v(30), &start) && !mv_db_newest(db, &newest) && !mv_db_unmoved(db, v(20), 0));
  CHECK(mv_db_begin_at(db, &other, v(15), &start)); /* what is known reaches to 20 */
  mv_alloc_release(start.alloc);
  memcpy(change.version, version(25), MV_VERSION_SIZE);
  mv_db_relabel(db, &s, v(24)); /* its owner has found out that it was not before 25 */
  CHECK(content(db, 7, 24) == 'a');
  CHECK(mv_db_apply(db, &change, 1, version(25), 10) == 0);
  CHECK(content(db, 7, 24) == 'a' && content(db, 7, 25) == -1);
  mv_db_drop(db, &other);
  CHECK(!mv_db_begin_at(db, &other, v(24), &start)); /* it has changed since: the allocation is that of 25 */
  CHECK(mv_db_begin_at(db, &other, v(25), &start));
  mv_alloc_release(start.alloc);
  mv_db_drop(db, &other);
  mv_db_drop(db, &s);
  mv_db_release(db);
}

/* A database that was only read in a commit to others: the head word stays. */
static void a_part_that_wrote_nothing_moves_the_snapshot(void) {
  mv_head head = {.word = 8};
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot s = {0};
  mv_start start;
  mv_part part = {.write_count = 0};
  mv_db_set_word(db, (uint64_t)(uintptr_t)&head, 0);
  advance(db, 10, 8);
  CHECK(mv_db_quick_begin(db, &s, 0, &start));
  mv_alloc_release(start.alloc);
  CHECK(mv_db_committed(db, &s, &part, version(12), NULL, 8) == 0);
  CHECK(mv_version_cmp(s.version, v(12)) == 0 && mv_db_unmoved(db, v(12), 0));
  mv_db_drop(db, &s);
  CHECK(mv_db_quick_begin(db, &s, 0, &start) && mv_version_cmp(s.version, v(12)) == 0);
  mv_alloc_release(start.alloc);
  mv_db_drop(db, &s);
  mv_db_release(db);
}

/* Another thread took our commit in before we did: nothing counts twice. */
static void a_late_commit_is_not_applied_twice(void) {
  mv_db *db = mv_db_new(1 << 20);
  mv_snapshot s = {0};
  uint32_t two = 2;
  advance(db, 10, 0);
  mv_db_hold(db, &s, v(10));
  mv_change ours = {.pages = &two, .allocated = &two, .page_count = 1, .allocated_count = 1};
  memcpy(ours.version, version(11), MV_VERSION_SIZE);
  mv_change theirs = {.pages = &two, .freed = &two, .page_count = 1, .freed_count = 1};
  memcpy(theirs.version, version(12), MV_VERSION_SIZE);
  mv_change both[] = {ours, theirs};
  CHECK(mv_db_apply(db, both, 2, version(12), 0) == 0);
  mv_page *page = mv_page_new(2, 512);
  memset(page->data, 'x', 512);
  mv_part c = {.write_count = 1, .allocated = &two, .allocated_count = 1};
  CHECK(mv_db_committed(db, &s, &c, version(11), &page, 0) == 0);
  CHECK(!mv_alloc_has(db->alloc, 2) && content(db, 2, 11) == 'x' && content(db, 2, 12) == -1);
  mv_db_drop(db, &s);
  mv_db_release(db);
}

static void memory_is_bounded(void) {
  mv_db *db = mv_db_new(64 * 1024);
  advance(db, 10, 0);
  for (uint32_t n = 1; n <= 5000; n++) {
    put(db, n, 4, 10, (uint8_t)n);
    CHECK(db->bytes <= 64 * 1024);
    CHECK(content(db, n, 10) == (uint8_t)n);
  }
  mv_page *held = mv_db_pin(db, 5000, v(10));
  for (uint32_t n = 6000; n <= 9000; n++) put(db, n, 4, 10, 1);
  CHECK(held->data[0] == (uint8_t)5000 && content(db, 5000, 10) == (uint8_t)5000);
  mv_db_unpin(db, held);
  mv_db_limit(db, 0);
  CHECK(db->page_count == 0);
  mv_db_release(db);
}

static void superseded_versions_do_not_pile_up(void) {
  mv_db *db = mv_db_new(64 << 20);
  for (uint64_t n = 1; n <= 2000; n++) {
    change(db, n, 7);
    put(db, 7, n, n, 'x');
    CHECK(db->page_count == 1);
  }
  mv_db_release(db);
}

enum { WRITES = 4000 };

/* Content says which version it is of; a reader never sees another one than its snapshot's. */
static void *writer(void *arg) {
  mv_db *db = arg;
  for (uint64_t n = 2; n < WRITES; n++) {
    change(db, n, 1 + (uint32_t)(n % 16));
  }
  return NULL;
}

static void *reader(void *arg) {
  mv_db *db = arg;
  uint8_t bytes[MV_VERSION_SIZE];
  uint64_t found;
  for (int i = 0; i < 20000; i++) {
    mv_snapshot s = {0};
    mv_db_applied(db, bytes);
    mv_version at = mv_version_get(bytes);
    mv_db_hold(db, &s, at);
    uint32_t number = 1 + (uint32_t)(i % 16);
    /* the newest n <= at with n % 16 == number - 1, as the writer numbers its changes */
    uint64_t expected = at.hi - (at.hi - (number - 1)) % 16;
    if (at.hi > 32) {
      if (mv_db_copy(db, number, at, &found, 0, sizeof found)) {
        CHECK(found == expected);
      } else {
        uint8_t page[512] = {0};
        memcpy(page, &expected, sizeof expected);
        CHECK(mv_db_insert(db, number, version(expected), bytes, 0, page, sizeof page) == 0);
      }
    }
    mv_db_drop(db, &s);
  }
  return NULL;
}

static void threads_agree(void) {
  mv_db *db = mv_db_new(1 << 20);
  pthread_t threads[4];
  advance(db, 1, 0);
  CHECK(pthread_create(&threads[0], NULL, writer, db) == 0);
  for (int i = 1; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, reader, db) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  mv_db_release(db);
}

static void what_is_not_whole_is_not_listed(void) {
  uint32_t packed[] = {0, 0, 0, 2, 0, 1, 7, 8, 9, 0, 0, 0, 1, 0, 0, 5};
  const uint64_t words = sizeof packed / sizeof *packed;
  mv_change out[2];
  CHECK(mv_changes_list(packed, words, out, 2) == 2);
  CHECK(out[0].page_count == 2 && out[0].freed[0] == 9 && out[1].pages[0] == 5);
  CHECK(mv_changes_list(packed, words - 1, out, 2) == 1);
  CHECK(mv_changes_list(packed, words - 2, out, 2) == 1);
  packed[3] = UINT32_MAX; /* the sum of two would not fit into 32 bits */
  CHECK(mv_changes_list(packed, words, out, 2) == 0);
  CHECK(mv_changes_list(packed, 0, out, 1) == 0);
}

static void pages_have_the_sizes_that_sqlite_has(void) {
  static const uint32_t no[] = {1, 256, 513, 4095, 131072, 0x80000000u};
  mv_db *db = mv_db_new(1 << 20);
  for (uint32_t size = 512; size <= 65536; size *= 2) CHECK(mv_db_set_page_size(db, size) == 0);
  for (uint32_t i = 0; i < sizeof no / sizeof *no; i++) CHECK(mv_db_set_page_size(db, no[i]) == -1);
  CHECK(mv_db_page_size(db) == 65536);
  CHECK(mv_db_set_page_size(db, 0) == 0);
  mv_db_release(db);
}

int main(void) {
  versions_are_ten_big_endian_bytes();
  an_open_entry_lasts_until_its_page_changes();
  a_change_during_a_fetch_is_not_lost();
  forgetting_ends_every_entry();
  a_commit_takes_its_pages_over();
  a_commit_waits_for_what_others_did();
  a_followed_word_grows_old();
  a_snapshot_may_stand_at_another_databases_version();
  a_part_that_wrote_nothing_moves_the_snapshot();
  a_late_commit_is_not_applied_twice();
  memory_is_bounded();
  superseded_versions_do_not_pile_up();
  threads_agree();
  what_is_not_whole_is_not_listed();
  pages_have_the_sizes_that_sqlite_has();
  return 0;
}
