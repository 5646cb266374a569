/*
** The made-up freelist at work: what is shown at the start of a lock period, what SQLite reads of it, and
** what it made of it by the time of its commit; see alloc.h.
**
** SQLite only ever works at the head of the freelist (allocateBtreePage and freePage2 in btree.c): it
** takes leaves off the first trunk, then the trunk itself, and pushes freed pages there.  So the final
** freelist is a written part, whose trunks are among the transaction's writes, and a rest that begins at
** the first trunk that was not written, and is what was shown from there on.
*/
#include "ascending.h"
#include "mainfile.h"

#include <stdlib.h>

void mv_overlay_clear(mv_file *f) {
  for (uint32_t i = 0; i < f->overlay.capacity; i++)
    if (f->overlay.keys[i]) free(f->overlay.values[i]);
  mv_map_clear(&f->overlay);
}

/* Page count and freelist to show in this lock period. */
int mv_header_make(mv_file *f) {
  uint8_t reserved = 0; /* bytes at the end of each page that SQLite leaves alone: byte 20 of page 1 */
  if (mv_alloc_has(f->alloc, 1)) {
    int rc = mv_stored(f, 1, &reserved, 20, 1);
    if (rc != SQLITE_OK) return rc;
  }
  if (mv_freelist_make(&f->list, f->alloc, f->lease.items, f->lease.count, f->page_size, f->page_size - reserved))
    return SQLITE_NOMEM;
  mv_put32(f->header, f->list.pages);
  mv_put32(f->header + 4, f->list.first);
  mv_put32(f->header + 8, f->list.count);
  return SQLITE_OK;
}

/* A page of the freelist as SQLite should see it: as it left it itself in this lock period, or made up. */
static void shown(mv_file *f, uint32_t number, uint8_t *page) {
  const mv_page *left = mv_map_get(&f->overlay, number);
  if (left) memcpy(page, left->data, f->page_size);
  else mv_freelist_page(&f->list, number, page, f->page_size);
}

int mv_free_page_read(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount) {
  uint8_t *page = malloc(f->page_size);
  if (!page) return SQLITE_NOMEM;
  shown(f, number, page);
  memcpy(out, page + offset, amount);
  free(page);
  return SQLITE_OK;
}

/* Adds a trunk and its leaves; the next trunk, or an error for a trunk that holds more than it can. */
static int add_trunk(mv_file *f, uint32_t number, const uint8_t *page, mv_set *out, uint32_t *next) {
  uint32_t leaves = mv_be32(page + 4);
  if (leaves > f->page_size / 4 - 2) return mv_fail(f, SQLITE_CORRUPT, "a freelist trunk is damaged");
  if (mv_set_add(out, number)) return SQLITE_NOMEM;
  for (uint32_t i = 0; i < leaves; i++)
    if (mv_set_add(out, mv_be32(page + 8 + 4 * i))) return SQLITE_NOMEM;
  *next = mv_be32(page);
  return SQLITE_OK;
}

/* The written part of the final freelist, and the trunk at which the rest begins (0: none). */
static int walk_final(mv_file *f, uint32_t trunk, mv_set *out, uint32_t *rest) {
  int rc = SQLITE_OK;
  const mv_page *page;
  while (rc == SQLITE_OK && trunk && (page = mv_map_get(&f->writes, trunk)) != NULL) {
    if (mv_set_has(out, trunk)) return mv_fail(f, SQLITE_CORRUPT, "the freelist has a cycle");
    rc = add_trunk(f, trunk, page->data, out, &trunk);
  }
  *rest = trunk;
  return rc;
}

/* The part of the freelist shown that lies before the trunk `rest`. */
static int walk_shown(mv_file *f, uint32_t rest, mv_set *out) {
  int rc = SQLITE_OK;
  uint32_t trunk = mv_be32(f->header + 4);
  uint8_t *page = malloc(f->page_size);
  if (!page) return SQLITE_NOMEM;
  while (rc == SQLITE_OK && trunk && trunk != rest && !mv_set_has(out, trunk)) {
    shown(f, trunk, page);
    rc = add_trunk(f, trunk, page, out, &trunk);
  }
  free(page);
  if (rc == SQLITE_OK && trunk != rest)
    return mv_fail(f, SQLITE_CORRUPT, "the freelist ends in a page that was not free");
  return rc;
}

static int add_allocated(mv_file *f, mv_allocation *out, uint32_t number) {
  if (number == f->list.pending) return SQLITE_OK;
  if (!mv_map_get(&f->writes, number))
    return mv_fail(f, SQLITE_CORRUPT, "a page was allocated and not written");
  return mv_numbers_add(&out->allocated, number) ? SQLITE_NOMEM : SQLITE_OK;
}

static int add_freed(mv_file *f, mv_allocation *out, uint32_t number) {
  if (!mv_alloc_has(f->alloc, number) || number == f->list.pending) return SQLITE_OK;
  return mv_numbers_add(&out->freed, number) ? SQLITE_NOMEM : SQLITE_OK;
}

static int compare(mv_file *f, const mv_set *before, uint32_t pages_before, uint32_t pages, mv_allocation *out) {
  int rc = SQLITE_OK;
  const mv_set *after = &out->free;
  for (uint32_t i = 0; i < before->capacity && rc == SQLITE_OK; i++) {
    uint32_t number = before->slots[i] ? before->slots[i] - 1 : 0;
    if (number && number <= pages && !mv_set_has(after, number)) rc = add_allocated(f, out, number);
  }
  for (uint32_t i = 0; i < after->capacity && rc == SQLITE_OK; i++) {
    uint32_t number = after->slots[i] ? after->slots[i] - 1 : 0;
    if (number && number <= pages && !mv_set_has(before, number)) rc = add_freed(f, out, number);
  }
  for (uint32_t n = pages_before + 1; n <= pages && rc == SQLITE_OK; n++)
    if (!mv_set_has(after, n)) rc = add_allocated(f, out, n);
  for (uint32_t n = pages + 1; n <= pages_before && rc == SQLITE_OK; n++) rc = add_freed(f, out, n);
  return rc;
}

/* What the transaction allocated and freed, by its final page count and freelist. */
int mv_allocation_find(mv_file *f, const uint8_t header[MV_HEADER_SIZE], mv_allocation *out) {
  mv_set before = {0};
  uint32_t rest = 0;
  if (!f->list.pending) f->list.pending = mv_pending_page(f->page_size); /* the database was empty */
  int rc = walk_final(f, mv_be32(header + 4), &out->free, &rest);
  if (rc == SQLITE_OK) rc = walk_shown(f, rest, &before);
  if (rc == SQLITE_OK) rc = compare(f, &before, mv_shown_pages(f), mv_be32(header), out);
  mv_set_free(&before);
  if (rc != SQLITE_OK) return rc;
  if (out->allocated.count) qsort(out->allocated.items, out->allocated.count, sizeof(uint32_t), mv_ascending);
  if (out->freed.count) qsort(out->freed.items, out->freed.count, sizeof(uint32_t), mv_ascending);
  return SQLITE_OK;
}

void mv_allocation_free(mv_allocation *a) {
  mv_numbers_free(&a->allocated);
  mv_numbers_free(&a->freed);
  mv_set_free(&a->free);
}
