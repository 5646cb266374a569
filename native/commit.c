/*
** FCNTL_SYNC: the commit point, or the end of a rollback; see mainfile.h.
**
** SQLite calls it in phase one of every commit, after all pages are written and while an error still
** rolls back; and also when a rollback has written old pages back.  The two are told apart by the
** change counter in page 1 (rules 8 and 9).
*/
#include "mainfile.h"

#include <stdlib.h>

#define DEAR_READS 2048

/* Page 1 as stored (rule 12): what every write transaction rewrites is zeroed, and the file format
** versions are those of a rollback-journal database, also after an import from a WAL one. */
static void undress_page_1(mv_page *p) {
  memset(p->data + 24, 0, 16);
  memset(p->data + 92, 0, 8);
  p->data[18] = p->data[19] = 1;
}

typedef struct batch { /* a commit in the making */
  mv_allocation allocation;
  mv_write *writes; /* ascending */
  mv_page **pages;  /* the page of each write; NULL: freed */
  mv_page **before; /* pinned */
  uint32_t *reads;
  uint32_t count, read_count;
} batch;

static void unpin_before(mv_file *f, batch *b) {
  for (uint32_t i = 0; b->before && i < b->count; i++)
    if (b->before[i]) mv_db_unpin(f->db, b->before[i]);
  free(b->before);
  b->before = NULL;
}

static void free_batch(mv_file *f, batch *b) {
  unpin_before(f, b);
  mv_allocation_free(&b->allocation);
  free(b->pages);
  free(b->writes);
  free(b->reads);
}

static int is_unchanged_page_1(mv_file *f, const mv_page *p) {
  mv_page *before = mv_db_pin(f->db, 1, mv_base(f));
  if (!before) return 0;
  int same = before->size == p->size && memcmp(before->data, p->data, p->size) == 0;
  mv_db_unpin(f->db, before);
  return same;
}

static int by_number(const void *a, const void *b) {
  const mv_page *p = *(mv_page *const *)a, *q = *(mv_page *const *)b;
  return p->number < q->number ? -1 : p->number > q->number;
}

/* Moves the pages to commit out of the write set.  Left behind are residue above the final page count
** (rule 11), pages that are free in the end (rule 21), and a page 1 that is what it was. */
static int collect(mv_file *f, batch *b, uint32_t page_count) {
  uint32_t most = f->writes.count + b->allocation.freed.count;
  b->pages = calloc(most ? most : 1, sizeof(mv_page *));
  if (!b->pages) return SQLITE_NOMEM;
  for (uint32_t i = 0; i < f->writes.capacity; i++) {
    mv_page *p = f->writes.keys[i] ? f->writes.values[i] : NULL;
    if (!p || p->number > page_count || mv_set_has(&b->allocation.free, p->number)) continue;
    if (p->number == 1) {
      undress_page_1(p);
      if (is_unchanged_page_1(f, p)) continue;
    }
    b->pages[b->count++] = p;
  }
  qsort(b->pages, b->count, sizeof *b->pages, by_number);
  return SQLITE_OK;
}

/* The list of writes: pages and freed numbers, merged. */
static int list_writes(mv_file *f, batch *b) {
  const mv_numbers *freed = &b->allocation.freed;
  uint32_t total = b->count + freed->count, p = b->count, q = freed->count;
  b->writes = calloc(total ? total : 1, sizeof *b->writes);
  b->before = calloc(total ? total : 1, sizeof *b->before);
  if (!b->writes || !b->before) return SQLITE_NOMEM;
  for (uint32_t i = total; i-- > 0;) { /* from the end, so that `pages` can be spread in place */
    mv_page *page = p && (!q || b->pages[p - 1]->number > freed->items[q - 1]) ? b->pages[--p] : NULL;
    b->pages[i] = page;
    b->writes[i] = (mv_write){.number = page ? page->number : freed->items[--q]};
    if (!page) continue;
    b->writes[i].size = page->size;
    b->writes[i].data = page->data;
    mv_page *before = b->before[i] = mv_db_pin(f->db, page->number, mv_base(f));
    if (before && before->size == page->size) {
      b->writes[i].before = before->data;
      b->writes[i].before_chain = before->chain;
    }
  }
  b->count = total;
  return SQLITE_OK;
}

/* What is written counts as read (invariant 3 of the design). */
static int list_reads(mv_file *f, batch *b) {
  for (uint32_t i = 0; i < b->count; i++) {
    uint32_t number = b->writes[i].number;
    if (mv_set_add(&f->reads, number)) return SQLITE_NOMEM;
    if (f->stale.count && (mv_set_has(&f->stale, number) || mv_set_has(&f->stale, MV_EVERYTHING)))
      return mv_fail(f, SQLITE_BUSY_SNAPSHOT, "another commit changed a page since an open cursor began");
  }
  b->reads = malloc(((size_t)f->reads.count + 1) * sizeof *b->reads);
  if (!b->reads) return SQLITE_NOMEM;
  b->read_count = mv_set_pack(&f->reads, b->reads);
  return SQLITE_OK;
}

static mv_alloc *changed(mv_alloc *a, const mv_change *c, uint32_t pending) {
  if (!a || (!c->allocated_count && !c->freed_count)) return a;
  mv_alloc *next = mv_alloc_change(a, c->allocated, c->allocated_count, c->freed, c->freed_count, pending);
  mv_alloc_release(a);
  return next;
}

/* SQLite may keep its lock (a cursor is open): what others did meanwhile it may not see, and the
** freelist is as it left it (rules 4 and 21). */
static int keep_view(mv_file *f, const mv_commit *c) {
  mv_change own = {.allocated = c->allocated,
                   .freed = c->freed,
                   .allocated_count = c->allocated_count,
                   .freed_count = c->freed_count};
  for (uint32_t i = 0; i < c->other_count; i++) {
    const mv_change *other = &c->others[i];
    for (uint32_t p = 0; p < other->page_count; p++)
      if (mv_set_add(&f->stale, other->pages[p])) return SQLITE_NOMEM;
    f->alloc = changed(f->alloc, other, f->list.pending);
  }
  f->alloc = changed(f->alloc, &own, f->list.pending);
  return f->alloc ? SQLITE_OK : SQLITE_NOMEM;
}

/* Trunks that SQLite wrote: it may read them again while it holds its lock. */
static void keep_trunks(mv_file *f, const mv_set *free_numbers) {
  for (uint32_t i = 0; i < f->writes.capacity; i++) {
    mv_page *p = f->writes.keys[i] ? f->writes.values[i] : NULL;
    if (!p || !mv_set_has(free_numbers, p->number)) continue;
    mv_page **at = (mv_page **)mv_map_at(&f->overlay, p->number);
    if (!at) continue; /* made up again: another order, the same numbers */
    free(*at);
    *at = p;
    f->writes.values[i] = NULL;
  }
}

static void wish_for_lease(mv_file *f, uint32_t allocated) {
  uint32_t left = 0;
  if (!f->leases || !allocated) return;
  for (uint32_t i = 0; i < f->lease.count; i++) left += !mv_alloc_has(f->alloc, f->lease.items[i]);
  while (f->lease_size < 4 * allocated && f->lease_size < MV_LARGEST_LEASE) f->lease_size *= 2;
  f->wants_lease = left * 4 < f->lease_size;
}

static void accept(mv_file *f, batch *b, const mv_commit *c, const uint8_t *header, uint64_t word) {
  for (uint32_t i = 0; i < b->count; i++) {
    if (!b->pages[i]) continue;
    b->pages[i]->chain = b->writes[i].chain;
    *mv_map_at(&f->writes, b->pages[i]->number) = NULL; /* the cache's from here on */
  }
  unpin_before(f, b); /* before its successor may drop it */
  int lost = mv_db_committed(f->db, &f->snapshot, c, b->pages, word) != 0;
  if (keep_view(f, c) != SQLITE_OK || lost) { /* no memory: good for nothing more until the lock falls */
    mv_set_add(&f->stale, MV_EVERYTHING);
    f->must_move = 1;
  }
  keep_trunks(f, &b->allocation.free);
  mv_drop_writes(f);
  memcpy(f->header, header, MV_HEADER_SIZE);
  mv_db_set_page_size(f->db, f->page_size);
  f->stats.commits++;
  f->stats.pages_written += b->count;
  f->wrote = b->count;
  f->outcome = 1;
  /* A large read set is dear to hand over with every commit: let SQLite's cache go instead (rule 3). */
  if (c->other_count || c->allocated_count || c->freed_count || f->reads.count > DEAR_READS) f->must_move = 1;
  wish_for_lease(f, c->allocated_count);
}

static int refuse(mv_file *f, int rc) {
  mv_drop_writes(f);
  if (rc == SQLITE_BUSY_SNAPSHOT) f->stats.conflicts++;
  f->state = MV_REFUSED;
  f->must_move = 1;
  f->outcome = 2;
  return rc == SQLITE_BUSY ? SQLITE_IOERR : rc; /* rule 10 */
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static int send(mv_file *f, batch *b, const uint8_t *header, uint64_t word) {
  mv_commit c = {.page_size = f->page_size,
                 .reads = b->reads,
                 .read_count = b->read_count,
                 .writes = b->writes,
                 .write_count = b->count,
                 .allocated = b->allocation.allocated.items,
                 .freed = b->allocation.freed.items,
                 .allocated_count = b->allocation.allocated.count,
                 .freed_count = b->allocation.freed.count};
  mv_version_put(mv_base(f), c.base);
  for (uint32_t i = 0; i < c.allocated_count && f->list.own_count && !c.leased; i++)
    c.leased = bsearch(&c.allocated[i], f->list.own, f->list.own_count, sizeof(uint32_t), ascending) != NULL;
  int rc = mv_call_commit(f->host, f->session, &c);
  if (c.lease_ended) {
    mv_numbers_free(&f->lease); /* the next try does without: it may take as long */
    f->wants_lease = 0;
  } else if (rc != SQLITE_OK) {
    wish_for_lease(f, c.allocated_count); /* so that the next try does not meet others there */
  }
  if (rc == SQLITE_OK) accept(f, b, &c, header, word);
  return rc;
}

/* What can't change: VACUUM and the backup API would write pages of the old size with the new one in the
** header (rule 23). */
static int check_page_1(mv_file *f, const mv_page *page_1) {
  uint32_t size = (uint32_t)page_1->data[16] << 8 | (uint32_t)page_1->data[17] << 16; /* 1 means 65536 */
  if (size != f->page_size)
    return mv_fail(f, SQLITE_ERROR, "the page size of a database can't be changed");
  if (mv_be32(page_1->data + 52)) /* pointer-map pages describe the freelist, which is made up */
    return mv_fail(f, SQLITE_ERROR, "a database can't be in auto_vacuum mode: set auto_vacuum=NONE and VACUUM the original");
  return SQLITE_OK;
}

static int commit(mv_file *f, const mv_page *page_1) {
  uint8_t header[MV_HEADER_SIZE];
  batch b = {0};
  memcpy(header, page_1->data + 28, MV_HEADER_SIZE);
  uint64_t word = mv_db_word_seen(f->db);
  f->counter = mv_shown_counter(f) + 1; /* SQLite keeps its step even if refused, in mode OFF */
  int rc = check_page_1(f, page_1);
  if (rc == SQLITE_OK) rc = mv_allocation_find(f, header, &b.allocation);
  if (rc == SQLITE_OK) rc = collect(f, &b, mv_be32(header));
  if (rc == SQLITE_OK) rc = list_writes(f, &b);
  if (rc == SQLITE_OK && b.count) {
    rc = list_reads(f, &b);
    if (rc == SQLITE_OK) rc = send(f, &b, header, word);
  } else if (rc == SQLITE_OK) {
    mv_drop_writes(f); /* nothing that anyone else could see */
    memcpy(f->header, header, MV_HEADER_SIZE);
  }
  free_batch(f, &b);
  if (rc != SQLITE_OK) return refuse(f, rc);
  f->state = MV_COMMITTED;
  return SQLITE_OK;
}

int mv_sync(mv_file *f, const char *super_journal) {
  if (f->state == MV_REFUSED) return SQLITE_OK; /* the end of its rollback */
  if (f->state == MV_COMMITTED) {
    if (!f->writes.count) return SQLITE_OK;
    return mv_fail(f, SQLITE_ERROR, "locking_mode=EXCLUSIVE is not supported");
  }
  if (f->state != MV_WRITING) return mv_fail(f, SQLITE_IOERR, "a sync without a lock");
  mv_page *page_1 = mv_map_get(&f->writes, 1);
  if (!page_1 || mv_be32(page_1->data + 24) != mv_shown_counter(f) + 1) { /* rule 9: a rollback wrote back */
    mv_drop_writes(f);
    f->must_move = 1;
    f->stats.rollbacks++;
    return SQLITE_OK;
  }
  if (super_journal || mv_other_files_hold_snapshots(f)) {
    return refuse(f, mv_fail(f, SQLITE_ERROR,
                          super_journal
                              ? "a transaction can't write an mv database and another one: it would not be atomic"
                              : "a transaction can't write one mv database while it reads or writes another"));
  }
  return commit(f, page_1);
}
