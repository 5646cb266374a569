/*
** Read-ahead: which pages to fetch together with one that is missing.  Called by pages.c on a miss, and
** by cache.c for every page that enters the cache; only where a fetch costs a round trip.
**
** A B-tree tells what a scan reads next: an interior page lists its children in order
** (https://www.sqlite.org/fileformat2.html#b_tree_pages), so from the pages in the cache follows the order of
** those that are not.  SQLite's own cache hides that it read a page's parent, but not which page is missing:
** hence the parents of pages are noted when the parents arrive, and scans are known by their misses alone.
**
** Invariants:
**
** 1. All of it is a guess.  A wrong one costs bytes, never an answer: what is fetched ahead enters the page
**    cache by the rule for any page, and the read set only if SQLite reads it.
** 2. A first miss fetches one page.  Only a miss at which a run of misses was expected to go on fetches more,
**    twice as much each time, up to a bound: so at most as many pages again come for nothing as were read,
**    and one.
** 3. Nothing is guessed from a miss on the way down: the child of a page that was missing just before.
**
** Runs are kept under the interior page that they stand at, so that those of several cursors, or an index
** scan with its look-ups all over a table, don't disturb each other.  A leaf lists the first overflow page of
** each row and an overflow page the next one, so the chains of the rows that come next advance together.  What
** nothing lists (one long chain, a copy of the whole file) is guessed by number: pages are mostly allocated in
** that order.
*/
#ifndef MV_AHEAD_H
#define MV_AHEAD_H

#include <stdint.h>

#include "sets.h"

#define MV_AHEAD_PAGES 256        /* fetched together, at most */
#define MV_AHEAD_BYTES (1u << 20) /* of content fetched together, at most */
#define MV_AHEAD_NUMBERED 4       /* runs by number of one connection */

typedef struct mv_tree { /* made of the pages that came into a cache */
  mv_map parents; /* page -> the page that leads to it: its number doubled, and 1 if to an overflow page */
} mv_tree;

/* A page has entered the cache.  0, or -1 when out of memory (it is then not noted). */
int mv_tree_note(mv_tree *t, uint32_t number, const uint8_t *data, uint32_t size);
uint32_t mv_tree_parent(const mv_tree *t, uint32_t number); /* 0: not known */
int mv_tree_is_overflow(const mv_tree *t, uint32_t number);
void mv_tree_free(mv_tree *t);

typedef struct mv_ahead { /* of one connection */
  mv_map runs; /* interior page -> the runs of misses that stand there */
  struct mv_by_number {
    uint32_t last; /* fetched up to here; 0: none */
    uint32_t misses, window;
  } numbered[MV_AHEAD_NUMBERED];
  uint32_t next_slot;
  uint32_t missed; /* the page that was missing last */
} mv_ahead;

/* What it looks at, as of the snapshot of the connection that asks. */
typedef struct mv_view {
  const mv_tree *tree;
  void *context;
  const uint8_t *(*content)(void *context, uint32_t number, uint32_t *size); /* NULL: not in the cache */
  int (*exists)(void *context, uint32_t number);
} mv_view;

/* `number` is missing: the pages to fetch, itself first; how many (1 to `room`). */
uint32_t mv_ahead_plan(mv_ahead *a, const mv_view *view, uint32_t number, uint32_t *out, uint32_t room);
void mv_ahead_free(mv_ahead *a);

#endif
