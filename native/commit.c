/*
** FCNTL_SYNC: the commit point, or the end of a rollback; see mainfile.h.
**
** SQLite calls it in phase one of every commit, after all pages are written and while an error still
** rolls back; and also when a rollback has written old pages back.  The two are told apart by the
** change counter in page 1 (rules 8 and 9).
**
** Of several participants (attached.c) each but the last is staged: its pages stay in its write set.  The
** last one's phase one commits all of them in one call, together with what the connection's other files of
** the store have read (rules 16 and 17).
*/
#include "ascending.h"
#include "mainfile.h"

#include <stdlib.h>

#define DEAR_READS 512

/* Page 1 as stored (rule 12): what every write transaction rewrites is zeroed, and the file format
** versions are those of a rollback-journal database, also after an import from a WAL one. */
static void undress_page_1(mv_page *p) {
  memset(p->data + 24, 0, 16);
  memset(p->data + 92, 0, 8);
  p->data[18] = p->data[19] = 1;
}

typedef struct batch { /* one database's part of a commit in the making */
  mv_file *file;
  int takes_part;                 /* it is written; else it was only read */
  int place;                      /* among the connection's databases */
  uint8_t header[MV_HEADER_SIZE]; /* of the final page 1 */
  uint64_t word;
  mv_allocation allocation;
  mv_write *writes; /* ascending */
  mv_page **pages;  /* the page of each write; NULL: freed */
  mv_page **before; /* pinned */
  uint32_t *reads;
  uint32_t count, read_count;
} batch;

static void unpin_before(batch *b) {
  for (uint32_t i = 0; b->before && i < b->count; i++)
    if (b->before[i]) mv_db_unpin(b->file->db, b->before[i]);
  free(b->before);
  b->before = NULL;
}

static void free_batch(batch *b) {
  unpin_before(b);
  mv_allocation_free(&b->allocation);
  free(b->pages);
  free(b->writes);
  free(b->reads);
}

static int by_number(const void *a, const void *b) {
  const mv_page *p = *(mv_page *const *)a, *q = *(mv_page *const *)b;
  return p->number < q->number ? -1 : p->number > q->number;
}

/* The pages to commit, of the write set.  Left behind are residue above the final page count (rule 11) and
** pages that are free in the end (rule 21). */
static int collect(mv_file *f, batch *b, uint32_t page_count) {
  uint32_t most = f->writes.count + b->allocation.freed.count;
  b->pages = calloc(most ? most : 1, sizeof *b->pages);
  b->before = calloc(most ? most : 1, sizeof *b->before);
  if (!b->pages || !b->before) return SQLITE_NOMEM;
  for (uint32_t i = 0; i < f->writes.capacity; i++) {
    mv_page *p = f->writes.keys[i] ? f->writes.values[i] : NULL;
    if (!p || p->number > page_count || mv_set_has(&b->allocation.free, p->number)) continue;
    if (p->number == 1) undress_page_1(p);
    b->pages[b->count++] = p;
  }
  qsort(b->pages, b->count, sizeof *b->pages, by_number);
  return SQLITE_OK;
}

static int is_stale(const mv_file *f, uint32_t number) {
  return f->stale.count && (mv_set_has(&f->stale, number) || mv_set_has(&f->stale, MV_EVERYTHING));
}

/* Pins what the pages were at the base, where that is at hand, and leaves those behind that are the same:
** nobody has to hear of them (rule 12).  That they are what they were counts as read. */
static int drop_unchanged(mv_file *f, batch *b) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < b->count; i++) {
    mv_page *page = b->pages[i], *before = mv_db_pin(f->db, page->number, mv_base(f));
    b->pages[kept] = page;
    b->before[kept] = before;
    if (!before || before->size != page->size || memcmp(before->data, page->data, page->size) != 0 ||
        !mv_alloc_has(f->alloc, page->number) || is_stale(f, page->number)) {
      kept++;
      continue;
    }
    b->before[kept] = NULL;
    mv_db_unpin(f->db, before);
    if (mv_set_add(&f->reads, page->number)) return SQLITE_NOMEM;
  }
  b->count = kept;
  return SQLITE_OK;
}

/* The list of writes: pages and freed numbers, merged. */
static int list_writes(batch *b) {
  const mv_numbers *freed = &b->allocation.freed;
  uint32_t total = b->count + freed->count, p = b->count, q = freed->count;
  b->writes = calloc(total ? total : 1, sizeof *b->writes);
  if (!b->writes) return SQLITE_NOMEM;
  for (uint32_t i = total; i-- > 0;) { /* from the end, so that `pages` and `before` can be spread in place */
    int written = p && (!q || b->pages[p - 1]->number > freed->items[q - 1]);
    mv_page *page = written ? b->pages[--p] : NULL, *before = written ? b->before[p] : NULL;
    b->pages[i] = page;
    b->before[i] = before;
    b->writes[i] = (mv_write){.number = page ? page->number : freed->items[--q]};
    if (!page) continue;
    b->writes[i].size = page->size;
    b->writes[i].data = page->data;
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
    if (is_stale(f, number))
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
static int keep_view(mv_file *f, const mv_part *part) {
  mv_change own = {.allocated = part->allocated,
                   .freed = part->freed,
                   .allocated_count = part->allocated_count,
                   .freed_count = part->freed_count};
  for (uint32_t i = 0; i < part->other_count; i++) {
    const mv_change *other = &part->others[i];
    for (uint32_t p = 0; p < other->page_count; p++)
      if (mv_set_add(&f->stale, other->pages[p])) return SQLITE_NOMEM;
    f->alloc = changed(f->alloc, other, f->list.pending);
  }
  f->alloc = changed(f->alloc, &own, f->list.pending);
  return f->alloc ? SQLITE_OK : SQLITE_NOMEM;
}

static mv_page *on_the_heap(mv_page *p) {
  if (!p->spilled) return p;
  mv_page *copy = mv_page_new(p->number, p->size);
  if (copy) memcpy(copy->data, p->data, p->size);
  return copy;
}

/* Trunks that SQLite wrote: it may read them again while it holds its lock, and has to find its order of
** the free pages. */
static int keep_trunks(mv_file *f, const mv_set *free_numbers) {
  for (uint32_t i = 0; i < f->writes.capacity; i++) {
    mv_page *p = f->writes.keys[i] ? f->writes.values[i] : NULL;
    if (!p || !mv_set_has(free_numbers, p->number)) continue;
    mv_page **at = (mv_page **)mv_map_at(&f->overlay, p->number), *kept = at ? on_the_heap(p) : NULL;
    if (!kept) return SQLITE_NOMEM;
    free(*at);
    *at = kept;
    if (kept == p) f->writes.values[i] = NULL;
  }
  return SQLITE_OK;
}

static void wish_for_lease(mv_file *f, uint32_t allocated) {
  uint32_t left = 0;
  if (!f->leases || !allocated) return;
  for (uint32_t i = 0; i < f->lease.count; i++) left += !mv_alloc_has(f->alloc, f->lease.items[i]);
  while (f->lease_size < 4 * allocated && f->lease_size < MV_LARGEST_LEASE) f->lease_size *= 2;
  f->wants_lease = left * 4 < f->lease_size;
}

/* No memory: good for nothing more until the lock falls. */
static void lose_view(mv_file *f) {
  mv_set_add(&f->stale, MV_EVERYTHING);
  f->must_move = 1;
}

static void accept(batch *b, const mv_part *part, const mv_commit *c) {
  mv_file *f = b->file;
  int lost = 0;
  for (uint32_t i = 0; i < b->count; i++) {
    if (!b->pages[i] || b->pages[i]->spilled) continue;
    b->pages[i]->chain = b->writes[i].chain;
    *mv_map_at(&f->writes, b->pages[i]->number) = NULL; /* the cache's from here on */
  }
  unpin_before(b); /* before its successor may drop it */
  f->unsure = c->without_others;
  f->sure_until = mv_base(f);
  if (f->unsure) {
    mv_db_committed_unknown(f->db, &f->snapshot, part, c->version, b->pages);
    lost = mv_set_add(&f->stale, MV_EVERYTHING) != 0;
  } else {
    lost = mv_db_committed(f->db, &f->snapshot, part, c->version, b->pages, b->word) != 0;
    for (uint32_t i = 0; lost && i < b->count; i++)
      if (b->pages[i] && !b->pages[i]->spilled) free(b->pages[i]);
  }
  f->unconfirmed = 0;
  if (keep_view(f, part) != SQLITE_OK || lost) lose_view(f);
  if (part->other_count) f->must_move = 1;
  f->outcome = 1;
  if (!b->takes_part) return;
  if (keep_trunks(f, &b->allocation.free) != SQLITE_OK) lose_view(f);
  mv_drop_writes(f);
  memcpy(f->header, b->header, MV_HEADER_SIZE);
  mv_db_set_page_size(f->db, f->page_size);
  f->stats.commits++;
  f->stats.pages_written += b->count;
  f->wrote = b->count;
  /* A large read set is dear to hand over with every commit: let SQLite's cache go instead (rule 3). */
  if (part->allocated_count || part->freed_count || f->reads.count > DEAR_READS) f->must_move = 1;
  wish_for_lease(f, part->allocated_count);
}

/* The same database under another name, where it is only read: what was written is not what it saw. */
static void accept_twin(mv_file *f, const batch *b, const mv_part *part) {
  int lost = keep_view(f, part) != SQLITE_OK;
  for (uint32_t i = 0; i < b->count; i++) lost |= mv_set_add(&f->stale, b->writes[i].number) != 0;
  if (lost) lose_view(f);
  mv_db_hold(f->db, &f->snapshot, mv_base(b->file));
  f->must_move = 1;
}

static void refuse(mv_file *f, int rc) {
  mv_drop_writes(f);
  if (rc == SQLITE_BUSY_SNAPSHOT) f->stats.conflicts++;
  f->state = MV_REFUSED;
  f->staged = 0;
  f->must_move = 1;
  f->outcome = 2;
}

static mv_part part_of(const batch *b) {
  const mv_file *f = b->file;
  mv_part part = {.session = f->session,
                  .page_size = f->page_size,
                  .reads = b->reads,
                  .read_count = b->read_count,
                  .writes = b->writes,
                  .write_count = b->count,
                  .allocated = b->allocation.allocated.items,
                  .freed = b->allocation.freed.items,
                  .allocated_count = b->allocation.allocated.count,
                  .freed_count = b->allocation.freed.count};
  for (uint32_t i = 0; i < part.allocated_count && f->list.own_count && !part.leased; i++)
    part.leased =
        bsearch(&part.allocated[i], f->list.own, f->list.own_count, sizeof(uint32_t), mv_ascending) != NULL;
  return part;
}

/* The next try should not meet others at the page numbers that it allocates; or, where a lease was too
** short for it, do without. */
static void prepare_next_try(const batch *b, const mv_part *part, int lease_ended) {
  if (lease_ended && part->leased) {
    mv_numbers_free(&b->file->lease);
    b->file->wants_lease = 0;
  } else {
    wish_for_lease(b->file, part->allocated_count);
  }
}

static void accept_all(batch *batches, uint32_t count, const mv_commit *c) {
  for (uint32_t i = 0; i < count; i++) accept(&batches[i], &c->parts[i], c);
  for (uint32_t i = 0; i < count; i++) {
    mv_file *f = batches[i].file;
    for (mv_file *g = f->peer; g != f; g = g->peer)
      if (mv_holds_with(f, g) && g->namespace == f->namespace) accept_twin(g, &batches[i], &c->parts[i]);
  }
}

/* Whether SQLite may go on reading in this snapshot: another statement than the one that commits is open. */
static int reads_on(const mv_file *f) {
  int open = 0;
  sqlite3_stmt *s = NULL;
  if (!f->connection) return 1;
  while (open < 2 && (s = api_next_stmt(f->host->api, f->connection, s)) != NULL)
    open += api_stmt_busy(f->host->api, s) != 0;
  return open > 1;
}

static int send(mv_file *f, batch *batches, uint32_t count) {
  mv_commit c = {.part_count = count, .parts = calloc(count, sizeof *c.parts)};
  int has_open_cursors = reads_on(f);
  c.tells_others = !f->distant || f->peer != f || f->within || has_open_cursors;
  if (!c.parts) return SQLITE_NOMEM;
  mv_version_put(mv_base(f), c.base);
  for (uint32_t i = 0; i < count; i++) c.parts[i] = part_of(&batches[i]);
  int rc = mv_call_commit(f->host, f->session, &c, has_open_cursors);
  if (rc == SQLITE_OK) accept_all(batches, count, &c);
  else
    for (uint32_t i = 0; i < count; i++)
      if (batches[i].takes_part) prepare_next_try(&batches[i], &c.parts[i], c.lease_ended);
  free(c.parts);
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

/* What the file writes, if it takes part, and what it has read. */
static int prepare(batch *b) {
  mv_file *f = b->file;
  int rc = SQLITE_OK;
  b->word = mv_db_word_seen(f->db);
  if (b->takes_part) {
    const mv_page *page_1 = mv_map_get(&f->writes, 1);
    memcpy(b->header, page_1->data + 28, MV_HEADER_SIZE);
    f->counter = mv_shown_counter(f) + 1; /* SQLite keeps its step even if refused, in mode OFF */
    rc = mv_keep_lease(f);
    if (rc == SQLITE_OK) rc = check_page_1(f, page_1);
    if (rc == SQLITE_OK) rc = mv_allocation_find(f, b->header, &b->allocation);
    if (rc == SQLITE_OK) rc = collect(f, b, mv_be32(b->header));
    if (rc == SQLITE_OK) rc = drop_unchanged(f, b);
    if (rc == SQLITE_OK) rc = list_writes(b);
  }
  return rc == SQLITE_OK ? list_reads(f, b) : rc;
}

static int takes_part(const mv_file *f, const mv_file *g) { return g == f || (mv_holds_with(f, g) && g->staged); }

static batch *find_database(batch *batches, uint32_t count, uint64_t namespace) {
  for (uint32_t i = 0; i < count; i++)
    if (batches[i].file->namespace == namespace) return &batches[i];
  return NULL;
}

static int by_place(const void *a, const void *b) { return ((const batch *)a)->place - ((const batch *)b)->place; }

/* One batch for each database: those that are written, then those that hold a snapshot.  One that is there
** already under another name adds what was read by that one. */
static int gather(mv_file *f, batch *batches, uint32_t *count) {
  for (int pass = 0; pass < 2; pass++) {
    mv_file *g = f;
    do {
      int part = takes_part(f, g);
      batch *twin = find_database(batches, *count, g->namespace);
      if (pass == 0 ? !part : part || !mv_holds_with(f, g)) continue;
      if (mv_version_cmp(mv_base(g), mv_base(f)) != 0)
        return mv_fail(f, SQLITE_IOERR, "the databases of a transaction stand at different versions");
      if (twin && part) return mv_fail(f, SQLITE_IOERR, "a database is written under two names");
      if (twin && mv_set_add_all(&twin->file->reads, &g->reads)) return SQLITE_NOMEM;
      if (twin) continue;
      batches[(*count)++] = (batch){.file = g, .takes_part = part, .place = f->peer == f ? 0 : mv_place(g)};
    } while ((g = g->peer) != f);
  }
  qsort(batches, *count, sizeof *batches, by_place);
  return SQLITE_OK;
}

/* Nothing is different, so there is no commit; but that it is so may be another's, not flushed yet. */
static int flush_what_was_seen(const batch *b) {
  const mv_file *f = b->file;
  uint8_t version[MV_VERSION_SIZE];
  mv_version_put(mv_base(f), version);
  return b->takes_part && !f->distant ? mv_call_flush(f->host, f->session, version) : SQLITE_OK;
}

static void accept_unchanged(batch *b) {
  mv_file *f = b->file;
  keep_trunks(f, &b->allocation.free);
  mv_drop_writes(f);
  memcpy(f->header, b->header, MV_HEADER_SIZE);
}

/* All participants, of which `f` is the last. */
static int commit(mv_file *f) {
  uint32_t room = 1, count = 0, writes = 0;
  for (const mv_file *g = f->peer; g != f; g = g->peer) room++;
  batch *batches = calloc(room, sizeof *batches);
  if (!batches) return SQLITE_NOMEM;
  int rc = gather(f, batches, &count);
  for (uint32_t i = 0; i < count && rc == SQLITE_OK; i++) {
    rc = prepare(&batches[i]);
    writes += batches[i].count;
  }
  if (rc == SQLITE_OK && writes) rc = send(f, batches, count);
  for (uint32_t i = 0; i < count && rc == SQLITE_OK && !writes; i++)
    rc = flush_what_was_seen(&batches[i]);
  for (uint32_t i = 0; i < count; i++) {
    mv_file *g = batches[i].file;
    if (rc == SQLITE_OK && batches[i].takes_part) {
      if (!writes) accept_unchanged(&batches[i]);
      g->state = MV_COMMITTED;
      g->staged = 0;
    }
    if (rc != SQLITE_OK) g->outcome = 2;
    free_batch(&batches[i]);
  }
  free(batches);
  return rc;
}

static int refuse_all(mv_file *f, int rc) {
  mv_file *g = f;
  do {
    if (takes_part(f, g)) refuse(g, rc);
  } while ((g = g->peer) != f);
  return rc == SQLITE_BUSY ? SQLITE_IOERR : rc; /* rule 10 */
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
    f->staged = 0;
    f->must_move = 1;
    f->stats.rollbacks++;
    return SQLITE_OK;
  }
  int rc = mv_check_commit(f, super_journal);
  if (rc == SQLITE_OK && super_journal) mv_super_seen(f, super_journal);
  if (rc == SQLITE_OK && mv_awaits_others(f)) {
    f->staged = 1;
    return SQLITE_OK;
  }
  if (rc == SQLITE_OK) rc = commit(f);
  return rc == SQLITE_OK ? SQLITE_OK : refuse_all(f, rc);
}
