/*
** Pages that a begin brings along: what the newest commits wrote, applied to the pages that are cached as of the
** version before.  Called by mvvfs/told.py through cffi; calls cache.c and delta.c.
**
** 1. A page goes forward over commits that are told.  One that is not told, and changed it, leaves it behind.
** 2. What comes of it is in no cache before mv_told_keep(): the caller checks it, and applies the changelog, first.
** 3. Nothing that stands in the packed commits is relied on; the format is at the head of pagestore/told.py.
*/
#ifndef MV_TOLD_H
#define MV_TOLD_H

#include <stdint.h>

#include "cache.h"

enum {
  MV_TOLD_LEFT,    /* it is not cached, was freed, or cannot be known */
  MV_TOLD_FORWARD, /* `page` is what it became */
  MV_TOLD_WHOLE,   /* it is cached, and the last commit of it wrote it whole: for the caller to decode */
  MV_TOLD_DAMAGED, /* a blob is not what it should be */
};

typedef struct mv_told_page {
  uint32_t number;
  uint32_t size;       /* bytes of `content` */
  uint32_t check;      /* the checksum in its newest blob */
  int state;
  uint8_t chain;       /* of its newest blob */
  uint8_t version[10]; /* of the commit that wrote that */
  mv_page *page;       /* if MV_TOLD_FORWARD */
  const uint8_t *content; /* the page's; if MV_TOLD_WHOLE, the blob, which is the caller's */
} mv_told_page;

typedef struct mv_told {
  mv_db *db; /* one reference; NULL: it has ended */
  uint32_t count;
  mv_told_page *pages; /* each page that the commits wrote, once */
  mv_page **bases;     /* of each the cached page, pinned; NULL: there is none, or it is not needed any more */
} mv_told;

/* `told`: some of the commits in `changes`, which are all after `known`.  0; -1: no memory; -2: it is not that. */
int mv_told_apply(mv_told *t, mv_db *db, const uint8_t *told, uint64_t size, const mv_change *changes, uint32_t count,
                  const uint8_t *known);
/* Put the pages that went forward into the cache, as of `snapshot`. */
void mv_told_keep(mv_told *t, const uint8_t *snapshot);
void mv_told_end(mv_told *t); /* once more does no harm */

#endif
