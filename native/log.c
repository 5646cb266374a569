/*
** Changelog records, many at once: what a transaction must know of what others committed.
**
** Called by pagestore/changelog.py (`Rows.packed`) and pagestore/commit.py (the check) through cffi.  The
** format of a record stands at the head of changelog.py; messages and tokens are skipped here.
**
** Packed changes, native-endian and a multiple of 4 bytes, one commit after the other:
**
**    0..9     version
**    10, 11   zero
**    12..23   how many pages were written, allocated and freed, 4 bytes each
**    24..     their numbers, in this order, 4 bytes each
*/
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ascending.h"
#include "store.h"

enum { HAS_MESSAGE = 0x80, HAS_ALLOCATION = 0x40, HAS_INDEX_PAGES = 0x10, WIDTH = 0x07, UNKNOWN = 0x28 };
enum { HEAD = 25, VERSION = 10, COUNTS = 3 };

#define PACKED_HEAD 24u
#define HIGHEST_PAGE 0xFFFFFFFEu

static uint32_t big_endian(const uint8_t *in, uint32_t width) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < width; i++) n = n << 8 | in[i];
  return n;
}

/* Where the page numbers start, after head and message; NULL if that is past the end. */
static const uint8_t *skip_message(const uint8_t *record, const uint8_t *end) {
  if (end - record < HEAD) return NULL;
  const uint8_t *at = record + HEAD;
  if (!(record[0] & HAS_MESSAGE)) return at;
  if (end - at < 2) return NULL;
  uint32_t size = big_endian(at, 2);
  return (size_t)(end - at) < 2 + (size_t)size ? NULL : at + 2 + size;
}

/* The numbers of one record to `out`, which holds as many as the record has bytes; NULL if it is damaged. */
static uint32_t *unpack(const uint8_t *record, uint32_t length, uint32_t counts[COUNTS], uint32_t *out) {
  const uint8_t *end = record + length, *at = skip_message(record, end);
  if (!at) return NULL;
  if (record[0] & UNKNOWN) return NULL;  // also of one that is kept in pieces, and was not put together
  uint32_t width = record[0] & WIDTH, listed = 0;
  if (width != 1 && width != 2 && width != 4) return NULL;
  counts[1] = counts[2] = 0;
  if (record[0] & HAS_ALLOCATION) {
    if (end - at < 8) return NULL;
    counts[1] = big_endian(at, 4), counts[2] = big_endian(at + 4, 4);
    at += 8;
    uint64_t both = (uint64_t)counts[1] + counts[2];
    if (both * width > (uint64_t)(end - at)) return NULL;
    listed = (uint32_t)both;
  }
  const uint8_t *pages = at + listed * width;
  if (record[0] & HAS_INDEX_PAGES) {
    uint64_t size = (uint64_t)(end - pages), count = 8 * size / (8 * width + 1);
    if (count * width + (count + 7) / 8 != size) return NULL;
    end = pages + count * width;
  }
  if ((uint32_t)(end - pages) % width) return NULL;
  counts[0] = (uint32_t)(end - pages) / width;
  for (; pages < end; pages += width) *out++ = big_endian(pages, width);
  for (uint32_t i = 0; i < listed; i++, at += width) *out++ = big_endian(at, width);
  return out;
}

/* `count` records, one right after the other, and the versions of their commits likewise, to `out`, which
** holds PACKED_HEAD bytes for each and 4 for each byte of them all.  How many bytes that came to; -1 - n if
** record n is damaged. */
int64_t mv_log_unpack(const uint8_t *versions, const uint8_t *records, const uint32_t *lengths, uint32_t count,
                      uint32_t *out) {
  uint32_t *start = out;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t counts[COUNTS], *numbers = out + PACKED_HEAD / 4;
    memset(out, 0, PACKED_HEAD);
    memcpy(out, versions, VERSION);
    numbers = unpack(records, lengths[i], counts, numbers);
    if (!numbers) return -1 - (int64_t)i;
    memcpy(out + 3, counts, sizeof counts);
    out = numbers;
    versions += VERSION;
    records += lengths[i];
  }
  return (int64_t)((const uint8_t *)out - (const uint8_t *)start);
}

static const uint32_t *checked(const uint32_t *numbers, uint32_t count) {
  for (uint32_t i = 0, before = 0; i < count; before = numbers[i++])
    if (numbers[i] <= before || numbers[i] > HIGHEST_PAGE) return NULL;
  return numbers + count;
}

int64_t mv_log_check(const void *changes, uint64_t length) {
  const uint32_t *at = changes, *end = at + length / 4;
  int64_t found = 0;
  if (length % 4) return -1;
  for (; at < end; found++) {
    uint64_t left = (uint64_t)(end - at);
    if (left < PACKED_HEAD / 4 ||
        (uint64_t)at[3] + at[4] + at[5] > left - PACKED_HEAD / 4)
      return -1;
    const uint32_t *counts = at + 3;
    at += PACKED_HEAD / 4;
    for (int list = 0; list < COUNTS; list++)
      if (!(at = checked(at, counts[list]))) return -1;
  }
  return found;
}

/* Whether a page that the packed changes list as written is among `count` numbers, in any order, of 4 bytes.
** Both aligned to 4 bytes.  -1: no memory. */
int mv_log_meets(const void *changes, uint64_t length, const void *touched, uint32_t count) {
  const uint32_t *at = changes, *end = at + length / 4, *numbers = touched;
  uint32_t *pages = malloc(length + 1), found = 0;
  if (!pages) return -1;
  for (; at < end; at += PACKED_HEAD / 4 + at[3] + at[4] + at[5]) {
    memcpy(pages + found, at + PACKED_HEAD / 4, at[3] * sizeof *pages);
    found += at[3];
  }
  if (found > 1) qsort(pages, found, sizeof *pages, mv_ascending);
  int meets = 0;
  for (uint32_t i = 0; i < count && found && !meets; i++)
    meets = bsearch(&numbers[i], pages, found, sizeof *pages, mv_ascending) != NULL;
  free(pages);
  return meets;
}
