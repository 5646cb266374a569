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
  return 0;
}
