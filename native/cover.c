/*
** Page numbers covered by few ranges: what an optimistic engine is asked to compare (rule 1 of
** pagestore/commit.py), where each range costs every commit time.
**
** Called by pagestore/commit.py through cffi.
*/
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ascending.h"
#include "store.h"

/* How far those neighbours lie apart that are not consecutive; how many these are. */
static uint32_t find_gaps(const uint32_t *numbers, uint32_t count, uint32_t *gaps) {
  uint32_t found = 0;
  for (uint32_t i = 1; i < count; i++)
    if (numbers[i] - numbers[i - 1] > 1) gaps[found++] = numbers[i] - numbers[i - 1];
  return found;
}

uint32_t mv_cover(const void *numbers, uint32_t count, uint32_t most, uint32_t *out) {
  uint32_t *sorted = malloc(2 * ((size_t)count + 1) * sizeof *sorted);
  if (!sorted) return 0;
  uint32_t *gaps = sorted + count;
  memcpy(sorted, numbers, count * sizeof *sorted);
  qsort(sorted, count, sizeof *sorted, mv_ascending);
  uint32_t found = find_gaps(sorted, count, gaps), widest = 2, equal = found;
  if (found >= most) { /* what separates two ranges: the widest, and of the narrowest of those the first */
    qsort(gaps, found, sizeof *gaps, mv_ascending);
    widest = most > 1 ? gaps[found - (most - 1)] : UINT32_MAX;
    equal = 0;
    for (uint32_t i = found - (most - 1); i < found && gaps[i] == widest; i++) equal++;
  }
  uint32_t ranges = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t gap = i ? sorted[i] - sorted[i - 1] : 0;
    int apart = gap > 1 && (gap > widest || (gap == widest && equal && equal--));
    if (!i || apart) ranges++, out[2 * ranges - 2] = sorted[i];
    out[2 * ranges - 1] = sorted[i];
  }
  free(sorted);
  return ranges;
}

/* An integer of FoundationDB's tuple encoding (https://github.com/apple/foundationdb/blob/main/design/tuple.md): 0x14
** and its length in bytes, then these, big-endian.  Where it ends. */
static uint8_t *put_integer(uint32_t value, uint8_t *out) {
  int size = 0;
  while (size < 4 && value >> 8 * size) size++;
  *out++ = (uint8_t)(0x14 + size);
  while (size--) *out++ = (uint8_t)(value >> 8 * size);
  return out;
}

static uint8_t *put_key(const uint8_t *prefix, uint32_t length, uint32_t number, uint8_t *out) {
  memcpy(out, prefix, length);
  return put_integer(number, out + length);
}

int64_t mv_cover_keys(const uint8_t *prefix, uint32_t length, const void *numbers, uint32_t count, uint32_t most,
                      uint8_t *out) {
  uint32_t few[2 * 64], *ends = few;
  uint32_t room = count < most ? count : most;
  if (room > 64 && !(ends = malloc(2 * (size_t)room * sizeof *ends))) return -1;
  uint32_t ranges = mv_cover(numbers, count, most, ends);
  uint8_t *at = out;
  for (uint32_t i = 0; i < ranges; i++) {
    uint8_t *first = at + 8, *behind = put_key(prefix, length, ends[2 * i], first);
    uint8_t *end = put_key(prefix, length, ends[2 * i + 1], behind);
    *end++ = 0; /* the next key behind the last */
    uint32_t lengths[2] = {(uint32_t)(behind - first), (uint32_t)(end - behind)};
    memcpy(at, lengths, sizeof lengths);
    at = end;
  }
  if (ends != few) free(ends);
  return count && !ranges ? -1 : at - out;
}
