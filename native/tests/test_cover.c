/* Page numbers covered by few ranges. */
#include <stdint.h>

#include "../store.h"

#include <string.h>

#include "check.h"

static void check(uint32_t count, const uint32_t *numbers, uint32_t most, uint32_t ranges, const uint32_t *wanted) {
  uint32_t out[32];
  CHECK(mv_cover(numbers, count, most, out) == ranges);
  CHECK(memcmp(out, wanted, 2 * ranges * sizeof *out) == 0);
}

#define NUMBERS(...) sizeof((uint32_t[]){__VA_ARGS__}) / 4, (uint32_t[]){__VA_ARGS__}

static void check_keys(uint32_t count, const uint32_t *numbers, uint32_t most, uint32_t size, const uint8_t *wanted) {
  uint8_t out[200];
  CHECK(mv_cover_keys((const uint8_t *)"xy", 2, numbers, count, most, out) == size);
  CHECK(memcmp(out, wanted, size) == 0);
}

#define BYTES(...) sizeof((uint8_t[]){__VA_ARGS__}), (uint8_t[]){__VA_ARGS__}

static void keys_are_integers_of_the_tuple_encoding(void) {
  check_keys(0, (uint32_t[]){0}, 3, 0, (uint8_t[]){0});
  check_keys(NUMBERS(0), 3, BYTES(3, 0, 0, 0, 4, 0, 0, 0, 'x', 'y', 0x14, 'x', 'y', 0x14, 0));
  check_keys(NUMBERS(3, 9), 3, BYTES(4, 0, 0, 0, 5, 0, 0, 0, 'x', 'y', 0x15, 3, 'x', 'y', 0x15, 3, 0,
                                     4, 0, 0, 0, 5, 0, 0, 0, 'x', 'y', 0x15, 9, 'x', 'y', 0x15, 9, 0));
  check_keys(NUMBERS(255, 0x10203), 1,
             BYTES(4, 0, 0, 0, 7, 0, 0, 0, 'x', 'y', 0x15, 255, 'x', 'y', 0x17, 1, 2, 3, 0));
  check_keys(NUMBERS(256, 0xfffffffe), 1,
             BYTES(5, 0, 0, 0, 8, 0, 0, 0, 'x', 'y', 0x16, 1, 0, 'x', 'y', 0x18, 255, 255, 255, 254, 0));
}

int main(void) {
  check(0, (uint32_t[]){0}, 3, 0, (uint32_t[]){0});
  check(NUMBERS(7), 1, 1, (uint32_t[]){7, 7});
  check(NUMBERS(9, 3, 2, 9, 1), 2, 2, (uint32_t[]){1, 3, 9, 9});
  check(NUMBERS(9, 3, 2, 9, 1), 1, 1, (uint32_t[]){1, 9});
  check(NUMBERS(1, 3, 10, 12, 40), 2, 2, (uint32_t[]){1, 12, 40, 40});
  check(NUMBERS(1, 3, 10, 12, 40), 3, 3, (uint32_t[]){1, 3, 10, 12, 40, 40});
  check(NUMBERS(1, 3, 5, 7, 9), 3, 3, (uint32_t[]){1, 1, 3, 3, 5, 9}); /* of equal gaps the first ones stay */
  check(NUMBERS(1, 3, 5, 7, 9), 5, 5, (uint32_t[]){1, 1, 3, 3, 5, 5, 7, 7, 9, 9});
  check(NUMBERS(0, 0xffffffff), 2, 2, (uint32_t[]){0, 0, 0xffffffff, 0xffffffff});
  check(NUMBERS(0, 0xffffffff), 1, 1, (uint32_t[]){0, 0xffffffff});
  keys_are_integers_of_the_tuple_encoding();
  return 0;
}
