/* Allocated pages and the freelist shown; see alloc.h. */
#include "alloc.h"

#include <stdlib.h>
#include <string.h>

#define PENDING_BYTE 0x40000000u

uint32_t mv_pending_page(uint32_t page_size) { return page_size ? PENDING_BYTE / page_size + 1 : 0; }

int mv_numbers_add(mv_numbers *list, uint32_t number) {
  if (list->count == list->capacity) {
    uint32_t capacity = list->capacity ? list->capacity * 2 : 64;
    uint32_t *items = realloc(list->items, (size_t)capacity * sizeof *items);
    if (!items) return -1;
    list->items = items;
    list->capacity = capacity;
  }
  list->items[list->count++] = number;
  return 0;
}

void mv_numbers_free(mv_numbers *list) {
  free(list->items);
  memset(list, 0, sizeof *list);
}

/* ---- the set of allocated pages ---- */

static mv_alloc *reserve(uint32_t run_count) {
  mv_alloc *a = malloc(sizeof *a + (size_t)run_count * sizeof(mv_run));
  if (a) {
    memset(a, 0, sizeof *a);
    atomic_init(&a->references, 1);
  }
  return a;
}

mv_alloc *mv_alloc_new(uint32_t highest, const mv_run *runs, uint32_t count) {
  mv_alloc *a = reserve(count);
  if (!a) return NULL;
  a->highest = highest;
  a->run_count = count;
  for (uint32_t i = 0; i < count; i++) {
    a->runs[i] = runs[i];
    a->free_count += runs[i].count;
  }
  return a;
}

mv_alloc *mv_alloc_retain(mv_alloc *a) {
  if (a) atomic_fetch_add(&a->references, 1);
  return a;
}

void mv_alloc_release(mv_alloc *a) {
  if (a && atomic_fetch_sub(&a->references, 1) == 1) free(a);
}

/* Appends [first, last] to the free runs, melting it into the last one where they touch. */
static void append(mv_alloc *a, uint32_t first, uint32_t last) {
  mv_run *end = a->run_count ? &a->runs[a->run_count - 1] : NULL;
  if (first > last) return;
  if (end && first <= end->first + end->count) {
    if (last >= end->first + end->count) end->count = last - end->first + 1;
  } else {
    a->runs[a->run_count++] = (mv_run){first, last - first + 1};
  }
}

/* Appends [first, last] without the numbers that are taken; `taken` moves along. */
static void append_untaken(mv_alloc *a, uint32_t first, uint32_t last, const uint32_t *taken, uint32_t count,
                           uint32_t *at) {
  while (*at < count && taken[*at] < first) (*at)++;
  for (; *at < count && taken[*at] <= last; (*at)++) {
    if (taken[*at] > first) append(a, first, taken[*at] - 1);
    first = taken[*at] + 1;
  }
  append(a, first, last);
}

mv_alloc *mv_alloc_change(const mv_alloc *old, const uint32_t *allocated, uint32_t allocated_count,
                          const uint32_t *freed, uint32_t freed_count, uint32_t pending) {
  /* Each number taken out of a run splits it at most once; each freed one adds a run at most. */
  mv_alloc *a = reserve(old->run_count + allocated_count + freed_count + 3);
  if (!a) return NULL;
  uint32_t top = allocated_count ? allocated[allocated_count - 1] : 0;
  a->highest = top > old->highest ? top : old->highest;
  /* Three ascending sources of free numbers: old runs, freed numbers, the gap up to the new top. */
  mv_run gap = {old->highest + 1, a->highest - old->highest};
  uint32_t r = 0, f = 0, taken = 0;
  while (r <= old->run_count || f < freed_count) {
    const mv_run *run = r < old->run_count ? &old->runs[r] : r == old->run_count ? &gap : NULL;
    if (run && (f == freed_count || run->first < freed[f])) {
      if (run->count) append_untaken(a, run->first, run->first + run->count - 1, allocated, allocated_count, &taken);
      r++;
    } else {
      append_untaken(a, freed[f], freed[f], allocated, allocated_count, &taken);
      f++;
    }
  }
  /* The pending-byte page is neither free nor allocated. */
  for (uint32_t i = 0; i < a->run_count; i++) {
    mv_run *run = &a->runs[i];
    if (pending < run->first || pending >= run->first + run->count) continue;
    mv_run after = {pending + 1, run->first + run->count - 1 - pending};
    run->count = pending - run->first;
    uint32_t add = after.count != 0, drop = run->count == 0;
    memmove(&a->runs[i + 1 - drop + add], &a->runs[i + 1], (a->run_count - i - 1) * sizeof *run);
    if (add) a->runs[i + 1 - drop] = after;
    a->run_count = a->run_count + add - drop;
    break;
  }
  /* Free numbers at the top are no part of the database any more. */
  for (;;) {
    mv_run *end = a->run_count ? &a->runs[a->run_count - 1] : NULL;
    if (a->highest && a->highest == pending) {
      a->highest--;
    } else if (end && end->first + end->count - 1 == a->highest) {
      a->highest = end->first - 1;
      a->run_count--;
    } else {
      break;
    }
  }
  for (uint32_t i = 0; i < a->run_count; i++) a->free_count += a->runs[i].count;
  return a;
}

/* The first run that ends at or after `number`. */
static uint32_t run_at(const mv_alloc *a, uint32_t number) {
  uint32_t low = 0, high = a->run_count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (a->runs[middle].first + a->runs[middle].count <= number) low = middle + 1;
    else high = middle;
  }
  return low;
}

static int in_runs(const mv_alloc *a, uint32_t number) {
  uint32_t i = run_at(a, number);
  return i < a->run_count && a->runs[i].first <= number;
}

int mv_alloc_has(const mv_alloc *a, uint32_t number) {
  return number >= 1 && number <= a->highest && !in_runs(a, number);
}

/* ---- the freelist shown ---- */

int mv_freelist_make(mv_freelist *list, mv_alloc *a, const uint32_t *lease, uint32_t lease_count,
                     uint32_t page_size, uint32_t usable_size) {
  uint32_t *own = lease_count ? malloc((size_t)lease_count * sizeof *own) : NULL;
  if (lease_count && !own) return -1;
  mv_freelist_free(list);
  list->alloc = mv_alloc_retain(a);
  list->own = own;
  list->pending = mv_pending_page(page_size);
  list->leaves = usable_size / 4 - 8;
  for (uint32_t i = 0; i < lease_count && a->highest; i++)
    if (lease[i] > 1 && lease[i] != list->pending && !mv_alloc_has(a, lease[i])) own[list->own_count++] = lease[i];
  list->pages = a->highest;
  if (list->own_count && own[list->own_count - 1] > list->pages) list->pages = own[list->own_count - 1];
  list->count = a->free_count + (list->pages - a->highest);
  if (list->pending > a->highest && list->pending <= list->pages) list->count--;
  list->rest = list->count - list->own_count;
  list->first = 0;
  if (list->own_count) {
    list->first = own[0];
  } else if (list->count) { /* with no lease nothing above the highest page is shown */
    list->first = a->runs[0].first;
  }
  return 0;
}

void mv_freelist_free(mv_freelist *list) {
  mv_alloc_release(list->alloc);
  free(list->own);
  memset(list, 0, sizeof *list);
}

int mv_freelist_has(const mv_freelist *list, uint32_t number) {
  return number >= 2 && number <= list->pages && number != list->pending && !mv_alloc_has(list->alloc, number);
}

static uint32_t own_below(const mv_freelist *list, uint32_t number) {
  uint32_t low = 0, high = list->own_count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (list->own[middle] < number) low = middle + 1;
    else high = middle;
  }
  return low;
}

static uint32_t rest_below(const mv_freelist *list, uint32_t number) {
  const mv_alloc *a = list->alloc;
  uint32_t n = 0;
  for (uint32_t i = 0; i < a->run_count && a->runs[i].first < number; i++) {
    uint32_t end = a->runs[i].first + a->runs[i].count;
    n += (number < end ? number : end) - a->runs[i].first;
  }
  if (number > a->highest + 1) {
    n += number - a->highest - 1;
    if (list->pending > a->highest && list->pending < number) n--;
  }
  return n - own_below(list, number);
}

typedef struct cursor { /* over the rest, ascending */
  const mv_freelist *list;
  uint32_t run, number, own;
} cursor;

/* The first number of the rest that is >= number; 0 at the end. */
static uint32_t settle(cursor *c) {
  const mv_freelist *list = c->list;
  const mv_alloc *a = list->alloc;
  for (;; c->number++) {
    if (c->number <= a->highest) {
      while (c->run < a->run_count && a->runs[c->run].first + a->runs[c->run].count <= c->number) c->run++;
      if (c->run == a->run_count) c->number = a->highest + 1;
      else if (c->number < a->runs[c->run].first) c->number = a->runs[c->run].first;
    }
    if (c->number > list->pages) return 0;
    while (c->own < list->own_count && list->own[c->own] < c->number) c->own++;
    if (c->own < list->own_count && list->own[c->own] == c->number) continue;
    if (c->number != list->pending) return c->number;
  }
}

static cursor rest_from(const mv_freelist *list, uint32_t number) {
  return (cursor){list, run_at(list->alloc, number), number, own_below(list, number)};
}

static void put32(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}

static void own_trunk(const mv_freelist *list, uint32_t index, uint8_t *out) {
  uint32_t left = list->own_count - index - 1, n = left < list->leaves ? left : list->leaves, next = 0;
  for (uint32_t i = 0; i < n; i++) put32(out + 8 + 4 * i, list->own[index + 1 + i]);
  if (left > n) {
    next = list->own[index + 1 + n];
  } else if (list->rest) {
    cursor c = rest_from(list, 2);
    next = settle(&c);
  }
  put32(out, next);
  put32(out + 4, n);
}

static void rest_trunk(const mv_freelist *list, uint32_t number, uint8_t *out) {
  uint32_t n = 0, leaf = 0;
  cursor c = rest_from(list, number + 1);
  while ((leaf = settle(&c)) != 0 && n < list->leaves) {
    put32(out + 8 + 4 * n++, leaf);
    c.number = leaf + 1;
  }
  put32(out, leaf);
  put32(out + 4, n);
}

void mv_freelist_page(const mv_freelist *list, uint32_t number, uint8_t *out, uint32_t page_size) {
  uint32_t index = own_below(list, number);
  memset(out, 0, page_size);
  if (number == list->pending) return;
  if (index < list->own_count && list->own[index] == number) {
    if (index % (list->leaves + 1) == 0) own_trunk(list, index, out);
  } else if (rest_below(list, number) % (list->leaves + 1) == 0) {
    rest_trunk(list, number, out);
  }
}
