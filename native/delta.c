/*
** A page's delta: the runs of bytes in which it differs from its version before.
**
** Called by pagestore/encoding.py through cffi: made once a page and commit, applied at every fetch of a
** page that is not stored whole.  That is why it is C, and not a compressor's work: one that looks for
** repetitions takes ten times as long and, on a changed row or two, gains nothing.
**
** A delta is a sequence of runs, ascending: how many bytes to skip since the end of the run before, how
** many bytes follow (not 0), and these bytes, as they are in the newer version.  Numbers are LEB128: seven
** bits a byte, the lowest first, the top bit set on all but the last.  Example, on a page of zeros:
**
**     03 02 aa bb  81 01 01 cc        bytes 3, 4 become aa bb; 129 bytes on, byte 134 becomes cc
**
** 1. mv_delta_make writes nothing beyond `room`, mv_delta_apply nothing beyond `size`, whatever they read.
** 2. A delta is applied whole or refused; refused, the page is left half changed, for the caller to drop.
*/
#include <stdint.h>
#include <string.h>

#include "store.h"

/* Equal bytes between two runs that are cheaper to repeat than to skip. */
enum { GAP = 3 };

static uint8_t *put_number(uint8_t *out, const uint8_t *end, uint32_t n) {
  do {
    if (out == end) return 0;
    *out++ = (uint8_t)((n & 0x7f) | (n > 0x7f ? 0x80 : 0));
    n >>= 7;
  } while (n);
  return out;
}

static const uint8_t *get_number(const uint8_t *in, const uint8_t *end, uint32_t *n) {
  *n = 0;
  for (int shift = 0; in < end && shift < 28; shift += 7) {
    *n |= (uint32_t)(*in & 0x7f) << shift;
    if (!(*in++ & 0x80)) return in;
  }
  return 0;
}

/* The first position from `at` on where the two differ, or `size`. */
static uint32_t next_difference(const uint8_t *a, const uint8_t *b, uint32_t at, uint32_t size) {
  for (uint64_t x, y; at + 8 <= size; at += 8) {
    memcpy(&x, a + at, 8);
    memcpy(&y, b + at, 8);
    if (x != y) break;
  }
  while (at < size && a[at] == b[at]) at++;
  return at;
}

/* The end of the run that starts at `at`: more than GAP equal bytes, or the page's end, follow. */
static uint32_t end_of_run(const uint8_t *a, const uint8_t *b, uint32_t at, uint32_t size) {
  uint32_t end = at + 1;
  for (at++; at < size && at - end <= GAP; at++)
    if (a[at] != b[at]) end = at + 1;
  return end;
}

/* Write the delta from `old` to `new_` to `out`; its length, or -1 if it takes more than `room`. */
int mv_delta_make(const uint8_t *old, const uint8_t *new_, uint32_t size, uint8_t *out, uint32_t room) {
  uint8_t *to = out, *end = out + room;
  uint32_t done = 0;
  for (;;) {
    uint32_t start = next_difference(old, new_, done, size);
    if (start == size) return (int)(to - out);
    uint32_t stop = end_of_run(old, new_, start, size);
    if (!(to = put_number(to, end, start - done))) return -1;
    if (!(to = put_number(to, end, stop - start))) return -1;
    if ((size_t)(end - to) < stop - start) return -1;
    memcpy(to, new_ + start, stop - start);
    to += stop - start;
    done = stop;
  }
}

/* Change `page` as the delta says; 0, or -1 if no mv_delta_make made it for a page of this size. */
int mv_delta_apply(uint8_t *page, uint32_t size, const uint8_t *delta, uint32_t length) {
  const uint8_t *in = delta, *end = delta + length;
  uint32_t at = 0, skip, run;
  while (in < end) {
    if (!(in = get_number(in, end, &skip)) || !(in = get_number(in, end, &run))) return -1;
    if (skip > size - at) return -1;
    at += skip;
    if (run == 0 || run > size - at || run > (size_t)(end - in)) return -1;
    memcpy(page + at, in, run);
    at += run;
    in += run;
  }
  return 0;
}

/* Change `page` as several deltas say, which stand one behind the other, the newest first, each behind a head of so
** many bytes; their lengths with it, uint32_t.  0, or the place of the first one, from the oldest, that does not
** fit. */
uint32_t mv_delta_apply_all(uint8_t *page, uint32_t size, const uint8_t *deltas, const void *lengths, uint32_t count,
                            uint32_t head) {
  uint64_t at = 0;
  uint32_t length;
  for (uint32_t i = 0; i < count; i++) {
    memcpy(&length, (const uint8_t *)lengths + 4 * (size_t)i, sizeof length);
    at += length;
  }
  for (uint32_t i = count; i > 0; i--) {
    memcpy(&length, (const uint8_t *)lengths + 4 * (size_t)(i - 1), sizeof length);
    at -= length;
    if (length < head || mv_delta_apply(page, size, deltas + at + head, length - head)) return count - i + 1;
  }
  return 0;
}
