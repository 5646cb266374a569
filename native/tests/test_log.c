/* Changelog records: the example comes out, and no garbage is read or written beyond its end. */
#include <stdint.h>

#include "../store.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

static const uint8_t head[25] = {0};

static uint32_t record(uint8_t *out, uint8_t flags, const char *rest, uint32_t length) {
  memcpy(out, head, sizeof head);
  out[0] = flags;
  memcpy(out + sizeof head, rest, length);
  return (uint32_t)sizeof head + length;
}

static void examples(void) {
  uint8_t versions[20] = {1, [9] = 2, [10] = 3, [19] = 4}, records[200];
  uint32_t lengths[2], out[100];
  lengths[0] = record(records, 0x41, "\0\0\0\1\0\0\0\0\x09\x03\x09", 11); /* that of changelog.py */
  lengths[1] = record(records + lengths[0], 0x82, "\0\2hi\1\0\2\0", 8);
  CHECK(mv_log_unpack(versions, records, lengths, 2, out) == (6 + 3 + 6 + 2) * 4);
  CHECK(memcmp(out, versions, 10) == 0 && memcmp((uint8_t *)out + 10, "\0\0", 2) == 0);
  static const uint32_t first[] = {2, 1, 0, 3, 9, 9}, second[] = {2, 0, 0, 256, 512};
  CHECK(memcmp(out + 3, first, sizeof first) == 0);
  CHECK(memcmp(out + 9, versions + 10, 10) == 0);
  CHECK(memcmp(out + 12, second, sizeof second) == 0);

  lengths[0] = record(records, 0x51, "\0\0\0\1\0\0\0\0\x09\x03\x09\x02", 12);
  CHECK(mv_log_unpack(versions, records, lengths, 1, out + 50) == (6 + 3) * 4);
  CHECK(memcmp(out + 53, first, sizeof first) == 0);
  lengths[0] = record(records, 0x11, "\1\2\3\4\5\6\7\x08\x09\xff\1", 11);
  CHECK(mv_log_unpack(versions, records, lengths, 1, out + 50) == (6 + 9) * 4);
  lengths[0] = record(records, 0x11, "\1\2\3\4\5\6\7\x08\x09\xff", 10);
  CHECK(mv_log_unpack(versions, records, lengths, 1, out + 50) == -1);

  static const uint32_t apart[] = {4, 1, 513, 255}, meeting[] = {7, 512};
  CHECK(mv_log_meets(out, 17 * 4, apart, 4) == 0);
  CHECK(mv_log_meets(out, 17 * 4, meeting, 2) == 1);
  CHECK(mv_log_meets(out, 17 * 4, meeting, 1) == 0);
  CHECK(mv_log_meets(out, 17 * 4, apart, 0) == 0);
  CHECK(mv_log_meets(out, 0, meeting, 2) == 0);
}

/* On the heap, as large as they must be and no larger, so that the sanitizer sees each overstep. */
static void garbage(void) {
  uint32_t state = 1;
  for (int round = 0; round < 20000; round++) {
    uint32_t length = (state >> 8) % 60;
    uint8_t *bytes = malloc(length + !length), version[10] = {0};
    uint32_t *out = malloc((6 + length) * 4);
    for (uint32_t i = 0; i < length; i++) {
      state = state * 1664525u + 1013904223u;
      bytes[i] = (uint8_t)((state >> 24) & (i > 24 ? 0x03 : 0xff));
    }
    state = state * 1664525u + 1013904223u;
    int64_t size = mv_log_unpack(version, bytes, &length, 1, out);
    CHECK(size == -1 || (size >= 24 && (uint64_t)size <= (6 + (uint64_t)length) * 4));
    if (size > 0) CHECK(mv_log_meets(out, (uint64_t)size, &state, 1) >= 0);
    free(bytes), free(out);
  }
}

int main(void) {
  examples();
  garbage();
  return 0;
}
