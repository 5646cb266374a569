/*
** Which pages of a database are allocated at one version, and the freelist that is shown to SQLite.
** Called by cache.c and position.c (which keep the newest), freelist.c, pages.c and commit.c.
**
** SQLite takes new pages from the freelist in page 1 and its trunk pages
** (https://www.sqlite.org/fileformat2.html#the_freelist), and so would every writer take the same ones.
** So the freelist is not stored in pages: it is made up for each connection, from the set of unallocated
** numbers and from the numbers leased to the connection, which come first.
**
** Invariants:
**
** 1. An mv_alloc never changes; a change of allocation makes a new one.
** 2. What is shown is the whole truth: the freelist holds every unallocated number in 2..N except the
**    pending-byte page, where N, the page count shown, is the larger of the highest allocated page and
**    the highest number of the lease.  A lease only sets the order.
** 3. It stays as it is while the lock is held.
**
** Worked example: page size 512 (a trunk holds 120 leaves), pages 1-9 allocated but for 4 and 7, lease
** {12, 13}: N is 13; the freelist has 6 numbers: trunk 12 with leaf 13, then trunk 4 with leaves 7, 10, 11.
*/
#ifndef MV_ALLOC_H
#define MV_ALLOC_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct mv_run { /* consecutive page numbers */
  uint32_t first, count;
} mv_run;

typedef struct mv_alloc {
  atomic_uint references;
  uint32_t highest;    /* highest allocated page; 0: an empty database */
  uint32_t free_count; /* unallocated numbers below it, not counting the pending-byte page */
  uint32_t run_count;
  mv_run runs[]; /* those numbers, ascending, runs apart from each other */
} mv_alloc;

typedef struct mv_numbers { /* a growing list of page numbers */
  uint32_t *items;
  uint32_t count, capacity;
} mv_numbers;

int mv_numbers_add(mv_numbers *list, uint32_t number); /* 0, or -1 when out of memory */
void mv_numbers_free(mv_numbers *list);

/* The page that holds SQLite's lock bytes and is never allocated. */
uint32_t mv_pending_page(uint32_t page_size);

/* Runs ascending and apart; NULL when out of memory.  One reference. */
mv_alloc *mv_alloc_new(uint32_t highest, const mv_run *runs, uint32_t count);
mv_alloc *mv_alloc_retain(mv_alloc *a);
void mv_alloc_release(mv_alloc *a);
/* What it becomes when `allocated` and `freed` (each ascending, disjoint) change; a new one. */
mv_alloc *mv_alloc_change(const mv_alloc *a, const uint32_t *allocated, uint32_t allocated_count,
                          const uint32_t *freed, uint32_t freed_count, uint32_t pending);
/* Whether the page is allocated; not to be asked of the pending-byte page, which never is. */
int mv_alloc_has(const mv_alloc *a, uint32_t number);

typedef struct mv_freelist { /* as shown to one connection while it holds its lock */
  mv_alloc *alloc;
  uint32_t *own; /* leased numbers, ascending, none of them allocated */
  uint32_t own_count;
  uint32_t pages, count, first; /* for bytes 28-39: page count, freelist count, first trunk */
  uint32_t rest;                /* unallocated numbers that are not our own */
  uint32_t pending;
  uint32_t leaves; /* that a trunk holds */
} mv_freelist;

/* Takes its own reference to `a`; `lease` ascending, distinct; numbers in it that are allocated are
** left out.  0, or -1 when out of memory. */
int mv_freelist_make(mv_freelist *list, mv_alloc *a, const uint32_t *lease, uint32_t lease_count,
                     uint32_t page_size, uint32_t usable_size);
void mv_freelist_free(mv_freelist *list);
int mv_freelist_has(const mv_freelist *list, uint32_t number);
/* The content of a free page: a trunk where it is one, else zeros. */
void mv_freelist_page(const mv_freelist *list, uint32_t number, uint8_t *out, uint32_t page_size);

#endif
