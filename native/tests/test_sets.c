/* Sets and maps of page numbers, against a plain array. */
#include "../sets.h"

#include <string.h>

#include "check.h"

#define RANGE 5000u

static void set_agrees_with_an_array(void) {
  static unsigned char expected[RANGE];
  mv_set s = {0};
  uint32_t x = 12345, count = 0;
  CHECK(!mv_set_has(&s, 0));
  for (int i = 0; i < 4000; i++) {
    x = x * 1103515245u + 12345u;
    uint32_t number = x >> 8 & 0xFFFFFF;
    number %= RANGE;
    CHECK(mv_set_add(&s, number) == 0);
    count += !expected[number];
    expected[number] = 1;
  }
  CHECK(s.count == count);
  for (uint32_t n = 0; n < RANGE; n++) CHECK(mv_set_has(&s, n) == expected[n]);
  uint32_t *packed = malloc(count * sizeof *packed);
  CHECK(mv_set_pack(&s, packed) == count);
  for (uint32_t i = 0; i < count; i++) CHECK(expected[packed[i]]);
  free(packed);
  mv_set_clear(&s);
  CHECK(s.count == 0 && !mv_set_has(&s, 1));
  CHECK(mv_set_add(&s, 0) == 0 && mv_set_has(&s, 0) && !mv_set_has(&s, 1)); /* 0 is a member like any */
  mv_set_free(&s);
}

static void map_keeps_values(void) {
  mv_map m = {0};
  static int values[3000];
  for (uint32_t n = 0; n < 3000; n++) {
    void **at = mv_map_at(&m, n * 7);
    CHECK(at && !*at);
    *at = &values[n];
  }
  for (uint32_t n = 0; n < 3000; n++) CHECK(mv_map_get(&m, n * 7) == &values[n]);
  CHECK(!mv_map_get(&m, 1));
  CHECK(*mv_map_at(&m, 7) == &values[1] && m.count == 3000);
  for (uint32_t n = 3000; m.count * 3 < m.capacity * 2; n++) *mv_map_at(&m, n * 7) = &values[0];
  uint32_t capacity = m.capacity; /* the next new one would need more memory; one that is there needs none */
  CHECK(*mv_map_at(&m, 7) == &values[1] && m.capacity == capacity);
  mv_map_clear(&m);
  CHECK(m.count == 0 && !mv_map_get(&m, 7));
  mv_map_free(&m);
}

int main(void) {
  set_agrees_with_an_array();
  map_keeps_values();
  return 0;
}
