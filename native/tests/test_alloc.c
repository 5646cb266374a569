/* Allocated pages and the freelist shown, against an array of flags. */
#include "../alloc.h"

#include <string.h>

#include "check.h"

#define TOP 400u

static unsigned char allocated[TOP + 2]; /* the truth */
static uint32_t state = 1;

static uint32_t below(uint32_t n) {
  state = state * 1103515245u + 12345u;
  return (state >> 8) % n;
}

static uint32_t highest(void) {
  uint32_t n = TOP;
  while (n && !allocated[n]) n--;
  return n;
}

static void check_set(const mv_alloc *a, uint32_t pending) {
  uint32_t free_count = 0;
  CHECK(a->highest == highest());
  for (uint32_t n = 1; n <= TOP; n++) CHECK(n == pending || mv_alloc_has(a, n) == allocated[n]);
  for (uint32_t n = 1; n < a->highest; n++) free_count += !allocated[n] && n != pending;
  CHECK(a->free_count == free_count);
  for (uint32_t i = 1; i < a->run_count; i++) CHECK(a->runs[i - 1].first + a->runs[i - 1].count < a->runs[i].first);
}

static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Walk the freelist as SQLite would: every unallocated number once, our own first. */
static void check_shown(mv_alloc *a, const uint32_t *lease, uint32_t lease_count, uint32_t page_size, uint32_t pending) {
  static unsigned char seen[TOP + 2];
  mv_freelist list = {0};
  uint8_t page[512];
  uint32_t count = 0, trunk;
  memset(seen, 0, sizeof seen);
  CHECK(mv_freelist_make(&list, a, lease, lease_count, page_size, page_size) == 0);
  list.leaves = 3; /* short trunks, so that there are many */
  if (pending <= TOP) list.pending = pending;
  for (trunk = list.first; trunk; trunk = get32(page)) {
    mv_freelist_page(&list, trunk, page, sizeof page);
    uint32_t n = get32(page + 4);
    CHECK(n <= 3);
    for (uint32_t i = 0; i <= n; i++, count++) {
      uint32_t number = i ? get32(page + 8 + 4 * (i - 1)) : trunk;
      CHECK(number > 1 && number <= list.pages && !allocated[number] && !seen[number]++);
      CHECK(mv_freelist_has(&list, number));
      if (count < list.own_count) CHECK(number == list.own[count]);
    }
  }
  CHECK(count == list.count);
  uint32_t expected = 0;
  for (uint32_t n = 2; n <= list.pages; n++) expected += !allocated[n] && n != pending;
  CHECK(count == expected);
  mv_freelist_free(&list);
}

static void changes_and_what_is_shown(uint32_t pending) {
  mv_alloc *a = mv_alloc_new(0, NULL, 0);
  memset(allocated, 0, sizeof allocated);
  for (int round = 0; round < 3000; round++) {
    uint32_t in[TOP], out[TOP], lease[20], ins = 0, outs = 0, leased = 0, rate = 1 + below(30);
    uint32_t limit = 1 + below(TOP);
    for (uint32_t n = 1; n <= TOP; n++) {
      if (n == pending || (below(rate) > 1 && n > 1)) continue; /* page 1 is always there */
      if (!allocated[n] && n <= limit) in[ins++] = n;
      else if (allocated[n] && n > 1) out[outs++] = n;
    }
    for (uint32_t i = 0; i < ins; i++) allocated[in[i]] = 1;
    for (uint32_t i = 0; i < outs; i++) allocated[out[i]] = 0;
    mv_alloc *next = mv_alloc_change(a, in, ins, out, outs, pending);
    CHECK(next);
    mv_alloc_release(a);
    a = next;
    check_set(a, pending);
    for (uint32_t n = 2 + below(50); n <= TOP && leased < 20; n += 1 + below(60)) lease[leased++] = n;
    if (pending > TOP) {
      check_shown(a, lease, leased, 512, pending);
      check_shown(a, NULL, 0, 512, pending);
    }
  }
  mv_alloc_release(a);
}

static void the_worked_example(void) {
  mv_run runs[] = {{4, 1}, {7, 1}};
  uint32_t lease[] = {12, 13};
  uint8_t page[512];
  mv_alloc *a = mv_alloc_new(9, runs, 2);
  mv_freelist list = {0};
  CHECK(mv_freelist_make(&list, a, lease, 2, 512, 512) == 0);
  CHECK(list.pages == 13 && list.count == 6 && list.first == 12);
  mv_freelist_page(&list, 12, page, 512);
  CHECK(get32(page) == 4 && get32(page + 4) == 1 && get32(page + 8) == 13);
  mv_freelist_page(&list, 4, page, 512);
  CHECK(get32(page) == 0 && get32(page + 4) == 3);
  CHECK(get32(page + 8) == 7 && get32(page + 12) == 10 && get32(page + 16) == 11);
  mv_freelist_free(&list);
  mv_alloc_release(a);
}

/* Beyond 1 GiB: the page that holds the lock bytes is in nobody's list. */
static void the_pending_byte_page_is_skipped(void) {
  uint32_t pending = mv_pending_page(512), edge[] = {pending - 1, pending + 3};
  CHECK(pending == 2097153);
  mv_run run = {2, pending - 3};
  mv_alloc *a = mv_alloc_new(pending - 1, &run, 1);
  mv_alloc *b = mv_alloc_change(a, &edge[1], 1, NULL, 0, pending);
  CHECK(b->highest == pending + 3 && b->free_count == pending - 3 + 2);
  CHECK(!mv_alloc_has(b, pending + 1) && mv_alloc_has(b, pending - 1));
  mv_freelist list = {0};
  uint32_t lease[] = {pending - 2, pending, pending + 5};
  CHECK(mv_freelist_make(&list, b, lease, 3, 512, 512) == 0);
  CHECK(list.own_count == 2 && !mv_freelist_has(&list, pending) && mv_freelist_has(&list, pending + 1));
  CHECK(list.pages == pending + 5 && list.count == b->free_count + 2);
  mv_freelist_free(&list);
  mv_alloc *c = mv_alloc_change(b, NULL, 0, &edge[1], 1, pending);
  CHECK(c->highest == pending - 1); /* the pending-byte page does not hold the end up */
  mv_alloc_release(a);
  mv_alloc_release(b);
  mv_alloc_release(c);
}

int main(void) {
  changes_and_what_is_shown(TOP + 1000);
  changes_and_what_is_shown(137);
  the_worked_example();
  the_pending_byte_page_is_skipped();
  return 0;
}
