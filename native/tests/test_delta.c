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

static void example_of_a_move(void) {
  static const uint8_t delta[] = {0x03, 0x04, 0xaa, 0xbb, 0x05, 0x21, 0xc8, 0x01};
  uint8_t old[200], page[200], made[32];
  for (int i = 0; i < 200; i++) old[i] = page[i] = (uint8_t)(i * 7);
  page[3] = 0xaa, page[4] = 0xbb;
  memcpy(page + 10, old + 110, 16);
  CHECK(mv_delta_make_moving(old, page, sizeof page, made, sizeof made) == sizeof delta);
  CHECK(memcmp(made, delta, sizeof delta) == 0);
  CHECK(mv_delta_apply_moving(old, sizeof old, delta, sizeof delta) == 0);
  CHECK(memcmp(old, page, sizeof page) == 0);
}

/* Overlapping, both ways, over each other, to both ends. */
static void every_move_comes_back(void) {
  uint64_t lengths[2] = {0};
  for (int round = 0; round < 3000; round++) {
    uint32_t size = 512u << below(8);
    uint8_t *old = malloc(size), *page = malloc(size), *delta = malloc(size);
    for (uint32_t i = 0; i < size; i++) old[i] = (uint8_t)below(round % 3 ? 256 : 2);
    memcpy(page, old, size);
    for (uint32_t moves = 1 + below(5); moves > 0; moves--) {
      uint32_t length = 1 + below(size / 2);
      uint32_t to = below(4) ? below(size - length + 1) : below(2) * (size - length);
      uint32_t from = below(4) ? below(size - length + 1) : below(2) * (size - length);
      memmove(page + to, (below(2) ? old : page) + from, length);
      if (below(2)) page[below(size)] ^= 1;
    }
    uint32_t room = below(4) ? size : below(size);
    int moving = 2, length = mv_delta_make_shorter(old, page, size, delta, room, &moving);
    int alone = mv_delta_make(old, page, size, delta, room);
    CHECK(length <= (int)room && (moving == 0 || moving == 1));
    CHECK(alone < 0 || (length >= 0 && length <= alone));
    if (length >= 0) {
      CHECK(mv_delta_make_shorter(old, page, size, delta, room, &moving) == length);
      lengths[0] += (uint64_t)length, lengths[1] += alone < 0 ? size : (uint64_t)alone;
      CHECK((moving ? mv_delta_apply_moving : mv_delta_apply)(old, size, delta, (uint32_t)length) == 0);
      CHECK(memcmp(old, page, size) == 0);
    }
    free(delta), free(page), free(old);
  }
  CHECK(lengths[0] * 10 < lengths[1]);
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
    result = mv_delta_apply_moving(page, size, delta, length);
    CHECK(result == 0 || result == -1);
    result = mv_delta_apply_blob(page, size, delta, length);
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

static void no_move_from_outside_of_the_page(void) {
  uint8_t page[512] = {0};
  static const uint8_t before[] = {5, 0x21, 11}, at_start[] = {5, 0x21, 9}, behind[] = {0xf0, 3, 0x21, 2},
                       at_end[] = {0xf0, 3, 0x21, 0}, nothing[] = {0, 1, 0}, cut[] = {0, 0x21};
  CHECK(mv_delta_apply_moving(page, 512, before, sizeof before) == -1);
  CHECK(mv_delta_apply_moving(page, 512, at_start, sizeof at_start) == 0);
  CHECK(mv_delta_apply_moving(page, 512, behind, sizeof behind) == -1);
  CHECK(mv_delta_apply_moving(page, 512, at_end, sizeof at_end) == 0);
  CHECK(mv_delta_apply_moving(page, 512, nothing, sizeof nothing) == -1);
  CHECK(mv_delta_apply_moving(page, 512, cut, sizeof cut) == -1);
}

static void a_chain_is_undone_from_the_oldest(void) {
  uint8_t page[512] = {0}, wanted[512] = {0};
  /* newest first: byte 3 becomes 7; bytes 12 to 27 become 2 to 17; bytes 2 and 3 become 5 and 6; byte 9 becomes 1 */
  static const uint8_t blobs[] = {2, 0, 4, 0, 0, 0, 0, 3, 1, 7, 0x85, 0, 3, 0, 0, 0, 0, 12, 0x21, 19,
                                  2, 0, 2, 0, 0, 0, 0, 2, 2, 5, 6, 2, 0, 1, 0, 0, 0, 0, 9, 1, 1};
  uint32_t lengths[] = {10, 10, 11, 10}, short_head = 6;
  wanted[2] = 5, wanted[3] = 7, wanted[9] = 1, wanted[12] = 5, wanted[13] = 6, wanted[19] = 1;
  CHECK(mv_delta_apply_all(page, 512, blobs, lengths, 4) == 0);
  CHECK(memcmp(page, wanted, 512) == 0);
  CHECK(mv_delta_apply_all(page, 512, blobs, lengths, 0) == 0);
  CHECK(mv_delta_apply_all(page, 3, blobs, lengths, 4) == 1); /* the oldest lies outside of so small a page */
  CHECK(mv_delta_apply_all(page, 20, blobs, lengths, 4) == 3); /* and there is no room for the move */
  CHECK(mv_delta_apply_all(page, 9, blobs, &short_head, 1) == 1);
}

int main(void) {
  a_chain_is_undone_from_the_oldest();
  example_of_the_source();
  example_of_a_move();
  every_change_comes_back();
  every_move_comes_back();
  room_is_all_or_nothing();
  garbage_is_refused_or_harmless();
  no_move_from_outside_of_the_page();
  return 0;
}
