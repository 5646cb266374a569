/*
** A page's delta: in what it differs from its version before.
**
** Called by pagestore/encoding.py through cffi, and by told.c: made once a page and commit, applied at every
** fetch of a page that is not stored whole.  That is why it is C, and not a compressor's work, which takes ten
** times as long and, on a changed row or two, gains nothing.
**
** A plain delta is a sequence of runs, ascending: how many bytes to skip since the end of the run before, how
** many bytes follow (not 0), and these bytes, as they are in the newer version.  Numbers are LEB128: seven
** bits a byte, the lowest first, the top bit set on all but the last.  Example, on a page of zeros:
**
**     03 02 aa bb  81 01 01 cc        bytes 3, 4 become aa bb; 129 bytes on, byte 134 becomes cc
**
** A moving delta also has runs that were somewhere else in the older version: what SQLite makes of a full page
** when a row grows, or one is put between others (it moves the cells: defragmentPage() in its btree.c).  How many
** bytes to skip; twice the length of the run, and one more if it was moved; then the bytes, or how far behind
** its place the run was in the older version (zigzag: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...).  Example:
**
**     03 04 aa bb  05 21 c8 01        bytes 3, 4 become aa bb; 5 bytes on, 16 bytes become what was 100 further on
**
** 1. What makes a delta writes nothing beyond `room`, what applies one nothing beyond `size`, whatever they read.
** 2. A delta is applied whole or refused; refused, the page is left half changed, for the caller to drop.
** 3. What moves is read from the page as it was before any of the delta was applied.
*/
#include <stdint.h>
#include <string.h>

#include "store.h"

/* Equal bytes between two runs that are cheaper to repeat than to skip. */
enum { GAP = 3 };

/* Bytes by which a move is found; the shortest that is worth its numbers; every so manieth place it may come from is
** known. */
enum { WINDOW = 8, LEAST = 12, STEP = 4 };

/* A plain delta up to this length is not compared with a moving one. */
enum { SHORT = 128 };

enum { LARGEST = 65536, PLACE_BITS = 14 };
enum { HEAD = 7, INDEX = 0x80, MOVING = 5 }; /* pagestore/encoding.py */

static _Thread_local uint8_t scratch[LARGEST]; /* a page before a delta is applied; a delta that is being made */
static _Thread_local uint16_t places[1 << PLACE_BITS]; /* in the older version, from 1; by the hash of what is there */

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

/* ---- moves ---- */

static uint32_t hash(const uint8_t *at) {
  uint64_t window;
  memcpy(&window, at, WINDOW);
  return (uint32_t)(window * 0x9E3779B97F4A7C15u >> (64 - PLACE_BITS));
}

typedef struct move {
  uint32_t to, from, length;
} move;

/* The move that ends a literal run which began at `start` and has come to `at`; of length 0: there is none. */
static move find_move(const uint8_t *old, const uint8_t *new_, uint32_t start, uint32_t at, uint32_t size) {
  move m = {at, 0, 0};
  if (size - at < WINDOW) return m;
  uint16_t place = places[hash(new_ + at)];
  if (!place || memcmp(old + place - 1, new_ + at, WINDOW) != 0) return m;
  uint32_t from = place - 1u, end = from + WINDOW, to_end = at + WINDOW;
  while (end < size && to_end < size && old[end] == new_[to_end]) end++, to_end++;
  while (m.to > start && from > 0 && old[from - 1] == new_[m.to - 1]) m.to--, from--;
  if (end - from < LEAST) return m;
  m.from = from;
  m.length = end - from;
  return m;
}

static int equal_beyond_gap(const uint8_t *old, const uint8_t *new_, uint32_t at, uint32_t size) {
  uint32_t end = size - at > GAP ? at + GAP + 1 : size;
  while (at < end && old[at] == new_[at]) at++;
  return at == end;
}

static uint8_t *put_bytes(uint8_t *to, const uint8_t *end, uint32_t skip, const uint8_t *bytes, uint32_t count) {
  if (!(to = put_number(to, end, skip)) || !(to = put_number(to, end, count << 1))) return 0;
  if ((size_t)(end - to) < count) return 0;
  memcpy(to, bytes, count);
  return to + count;
}

static uint8_t *put_move(uint8_t *to, const uint8_t *end, uint32_t skip, const move *m) {
  uint32_t further = m->from >= m->to ? (m->from - m->to) << 1 : ((m->to - m->from) << 1) - 1;
  if (!(to = put_number(to, end, skip)) || !(to = put_number(to, end, m->length << 1 | 1))) return 0;
  return put_number(to, end, further);
}

/* As mv_delta_make, of a moving delta. */
int mv_delta_make_moving(const uint8_t *old, const uint8_t *new_, uint32_t size, uint8_t *out, uint32_t room) {
  if (size > LARGEST) return -1;
  memset(places, 0, sizeof places);
  for (uint32_t at = 0; at + WINDOW <= size; at += STEP) places[hash(old + at)] = (uint16_t)(at + 1);
  uint8_t *to = out, *end = out + room;
  uint32_t done = 0;
  for (;;) {
    uint32_t start = next_difference(old, new_, done, size), at = start;
    if (start == size) return (int)(to - out);
    move m = {0, 0, 0};
    for (; at < size && !equal_beyond_gap(old, new_, at, size); at++) {
      if (at - start > (size_t)(end - to)) return -1;
      if ((m = find_move(old, new_, start, at, size)).length) break;
    }
    uint32_t stop = m.length ? m.to : at;
    if (stop > start) {
      if (!(to = put_bytes(to, end, start - done, new_ + start, stop - start))) return -1;
      done = stop;
    }
    if (m.length) {
      if (!(to = put_move(to, end, m.to - done, &m))) return -1;
      done = m.to + m.length;
    }
  }
}

/* The shorter of both, of up to `room` bytes; or -1.  `*moving`: which one it is. */
int mv_delta_make_shorter(const uint8_t *old, const uint8_t *new_, uint32_t size, uint8_t *out, uint32_t room,
                          int *moving) {
  int plain = mv_delta_make(old, new_, size, out, room);
  *moving = 0;
  if (plain >= 0 && plain <= SHORT) return plain;
  uint32_t less = plain < 0 ? room : (uint32_t)plain - 1; /* the plain one stays where it is until then */
  int length = mv_delta_make_moving(old, new_, size, scratch, less < LARGEST ? less : LARGEST);
  if (length < 0) return plain;
  memcpy(out, scratch, (size_t)length);
  *moving = 1;
  return length;
}

/* ---- applied ---- */

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

/* The same with a moving delta. */
int mv_delta_apply_moving(uint8_t *page, uint32_t size, const uint8_t *delta, uint32_t length) {
  const uint8_t *in = delta, *end = delta + length;
  uint32_t at = 0, skip, run, further;
  if (size > LARGEST) return -1;
  memcpy(scratch, page, size);
  while (in < end) {
    if (!(in = get_number(in, end, &skip)) || !(in = get_number(in, end, &run))) return -1;
    int moved = run & 1;
    run >>= 1;
    if (skip > size - at) return -1;
    at += skip;
    if (run == 0 || run > size - at) return -1;
    if (moved) {
      if (!(in = get_number(in, end, &further))) return -1;
      int64_t from = (int64_t)at + ((int64_t)(further >> 1) ^ -(int64_t)(further & 1));
      if (from < 0 || from + run > size) return -1;
      memcpy(page + at, scratch + from, run);
    } else {
      if (run > (size_t)(end - in)) return -1;
      memcpy(page + at, in, run);
      in += run;
    }
    at += run;
  }
  return 0;
}

/* The same with the blob of a delta (pagestore/encoding.py), of which only the codec is looked at. */
int mv_delta_apply_blob(uint8_t *page, uint32_t size, const uint8_t *blob, uint32_t length) {
  if (length < HEAD) return -1;
  if ((blob[0] & ~INDEX) == MOVING) return mv_delta_apply_moving(page, size, blob + HEAD, length - HEAD);
  return mv_delta_apply(page, size, blob + HEAD, length - HEAD);
}

/* Change `page` as several blobs of deltas say, which stand one behind the other, the newest first; their lengths
** with it, uint32_t.  0, or the place of the first one, from the oldest, that does not fit. */
uint32_t mv_delta_apply_all(uint8_t *page, uint32_t size, const uint8_t *blobs, const void *lengths, uint32_t count) {
  uint64_t at = 0;
  uint32_t length;
  for (uint32_t i = 0; i < count; i++) {
    memcpy(&length, (const uint8_t *)lengths + 4 * (size_t)i, sizeof length);
    at += length;
  }
  for (uint32_t i = count; i > 0; i--) {
    memcpy(&length, (const uint8_t *)lengths + 4 * (size_t)(i - 1), sizeof length);
    at -= length;
    if (mv_delta_apply_blob(page, size, blobs + at, length)) return count - i + 1;
  }
  return 0;
}
