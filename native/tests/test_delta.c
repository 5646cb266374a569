/* Page deltas: every change comes back, no room is overstepped, no garbage harms. */
#include <stdint.h>

#include "../store.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

static uint32_t state = 1;

static uint32_t below(uint32_t n) {
  state = state * 1664525u + 1013904223u;
  return (state >> 8) % n;
}

static void example_of_the_source(void) {
  static const uint8_t delta[] = {0x03, 0x02, 0xaa, 0xbb, 0x81, 0x01, 0x01, 0xcc};
  uint8_t old[200] = {0}, page[200] = {0}, made[32];
  page[3] = 0xaa, page[4] = 0xbb, page[134] = 0xcc;
  CHECK(mv_delta_make(old, page, sizeof page, made, sizeof made) == sizeof delta);
  CHECK(memcmp(made, delta, sizeof delta) == 0);
  CHECK(mv_delta_apply(old, sizeof old, delta, sizeof delta) == 0);
  CHECK(memcmp(old, page, sizeof page) == 0);
}

/* Buffers on the heap, as large as they must be and no larger, so that the sanitizer sees each overstep. */
static void every_change_comes_back(void) {
  for (int round = 0; round < 3000; round++) {
    uint32_t size = 512u << below(4);
    uint8_t *old = malloc(size), *page = malloc(size);
    for (uint32_t i = 0; i < size; i++) old[i] = (uint8_t)below(256);
    memcpy(page, old, size);
    for (uint32_t edits = below(6); edits > 0; edits--) {
      uint32_t at = below(size), length = 1 + below(size - at < 40 ? size - at : 40);
      for (uint32_t i = 0; i < length; i++) page[at + i] = (uint8_t)below(256);
    }
    if (below(10) == 0) page[0] ^= 1;
    if (below(10) == 0) page[size - 1] ^= 1;
    uint32_t room = 1 + below(size / 2);
    uint8_t *delta = malloc(room);
    int length = mv_delta_make(old, page, size, delta, room);
    CHECK(length <= (int)room);
    if (length >= 0) {
      CHECK(mv_delta_apply(old, size, delta, (uint32_t)length) == 0);
      CHECK(memcmp(old, page, size) == 0);
    }
    free(delta), free(page), free(old);
  }
}

static void room_is_all_or_nothing(void) {
  uint8_t old[512] = {0}, page[512] = {0}, made[64];
  memset(page + 100, 1, 10);
  CHECK(mv_delta_make(old, page, 512, made, 12) == 12);
  for (uint32_t room = 0; room < 12; room++) CHECK(mv_delta_make(old, page, 512, made, room) == -1);
  CHECK(mv_delta_make(page, page, 512, made, 0) == 0);
}

static void garbage_is_refused_or_harmless(void) {
  for (int round = 0; round < 20000; round++) {
    uint32_t size = 512, length = below(24);
    uint8_t *page = calloc(1, size), *delta = malloc(length ? length : 1);
    for (uint32_t i = 0; i < length; i++) delta[i] = (uint8_t)(below(3) ? below(20) : below(256));
    int result = mv_delta_apply(page, size, delta, length);
    CHECK(result == 0 || result == -1);
    free(delta), free(page);
  }
  uint8_t page[512] = {0};
  static const uint8_t none[] = {0, 0}, far[] = {0xff, 0x7f, 1, 1}, cut[] = {1, 9, 1}, endless[] = {0x80, 0x80};
  CHECK(mv_delta_apply(page, 512, none, sizeof none) == -1);
  CHECK(mv_delta_apply(page, 512, far, sizeof far) == -1);
  CHECK(mv_delta_apply(page, 512, cut, sizeof cut) == -1);
  CHECK(mv_delta_apply(page, 512, endless, sizeof endless) == -1);
}

static void a_chain_is_undone_from_the_oldest(void) {
  uint8_t page[512] = {0}, wanted[512] = {0};
  /* newest first, each behind a head of 2 bytes: byte 3 becomes 7; bytes 2 and 3 become 5 and 6; byte 9 becomes 1 */
  static const uint8_t deltas[] = {90, 91, 3, 1, 7, 90, 91, 2, 2, 5, 6, 90, 91, 9, 1, 1};
  uint32_t lengths[] = {5, 6, 5};
  wanted[2] = 5, wanted[3] = 7, wanted[9] = 1;
  CHECK(mv_delta_apply_all(page, 512, deltas, lengths, 3, 2) == 0);
  CHECK(memcmp(page, wanted, 512) == 0);
  CHECK(mv_delta_apply_all(page, 512, deltas, lengths, 0, 2) == 0);
  CHECK(mv_delta_apply_all(page, 3, deltas, lengths, 3, 2) == 1); /* the oldest lies outside of so small a page */
  CHECK(mv_delta_apply_all(page, 9, deltas, lengths, 1, 5) == 0);
  CHECK(mv_delta_apply_all(page, 9, deltas, lengths, 1, 6) == 1); /* no room for its head */
}

int main(void) {
  a_chain_is_undone_from_the_oldest();
  example_of_the_source();
  every_change_comes_back();
  room_is_all_or_nothing();
  garbage_is_refused_or_harmless();
  return 0;
}
