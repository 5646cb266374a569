/* For qsort and bsearch: numbers of 32 bits, the lowest first. */
#ifndef MV_ASCENDING_H
#define MV_ASCENDING_H

#include <stdint.h>

static inline int mv_ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

#endif
