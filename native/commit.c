/*
** FCNTL_SYNC: the commit point, or the end of a rollback; see mainfile.h.
**
** SQLite calls it in phase one of every commit, after all pages are written and while an error still
** rolls back; and also when a rollback has written old pages back.  The two are told apart by the
** change counter in page 1 (rules 8 and 9).
*/
#include "mainfile.h"

#include <stdlib.h>

static int by_number(const void *a, const void *b) {
  const mv_page *p = *(mv_page *const *)a, *q = *(mv_page *const *)b;
  return p->number < q->number ? -1 : p->number > q->number;
}

/* Page 1 as stored (rule 12): what every write transaction rewrites is zeroed, and the file format
** versions are those of a rollback-journal database, also after an import from a WAL one. */
static void undress_page_1(mv_page *p) {
  memset(p->data + 24, 0, 16);
  memset(p->data + 92, 0, 8);
  p->data[18] = p->data[19] = 1;
}

typedef struct batch { /* a commit in the making */
  mv_page **pages;     /* ascending; the header pseudo-page first, if it changed */
  mv_write *writes;
  mv_page **before; /* pinned */
  uint32_t *reads;
  uint32_t count, read_count;
} batch;

static void free_batch(mv_file *f, batch *b) {
  for (uint32_t i = 0; b->before && i < b->count; i++)
    if (b->before[i]) mv_db_unpin(f->db, b->before[i]);
  free(b->pages);
  free(b->writes);
  free(b->before);
  free(b->reads);
}

static int is_unchanged_page_1(mv_file *f, const mv_page *p) {
  mv_page *before = mv_db_pin(f->db, 1, mv_base(f));
  if (!before) return 0;
  int same = before->size == p->size && memcmp(before->data, p->data, p->size) == 0;
  mv_db_unpin(f->db, before);
  return same;
}

/* Moves the pages to commit out of the write set; the others are dropped with it: residue above the
** final page count (rule 11), and a page 1 that is what it was. */
static int collect(mv_file *f, batch *b, const uint8_t *header) {
  uint32_t count = mv_be32(header);
  b->pages = calloc(f->writes.count + 1, sizeof(mv_page *));
  if (!b->pages) return SQLITE_NOMEM;
  if (memcmp(header, f->header, MV_HEADER_SIZE) != 0) {
    mv_page *p = mv_page_new(MV_HEADER_PAGE, MV_HEADER_SIZE);
    if (!p) return SQLITE_NOMEM;
    memcpy(p->data, header, MV_HEADER_SIZE);
    b->pages[b->count++] = p;
  }
  for (uint32_t i = 0; i < f->writes.capacity; i++) {
    mv_page *p = f->writes.keys[i] ? f->writes.values[i] : NULL;
    if (!p) continue;
    if (p->number == 1) undress_page_1(p);
    if (p->number > count || (p->number == 1 && is_unchanged_page_1(f, p))) {
      free(p);
    } else {
      b->pages[b->count++] = p;
    }
  }
  mv_map_clear(&f->writes);
  f->highest_write = 0;
  qsort(b->pages, b->count, sizeof *b->pages, by_number);
  return SQLITE_OK;
}

/* What is written counts as read (invariant 3 of the design). */
static int prepare(mv_file *f, batch *b) {
  b->writes = calloc(b->count, sizeof *b->writes);
  b->before = calloc(b->count, sizeof *b->before);
  if (!b->writes || !b->before) return SQLITE_NOMEM;
  for (uint32_t i = 0; i < b->count; i++) {
    mv_page *p = b->pages[i], *before = b->before[i] = mv_db_pin(f->db, p->number, mv_base(f));
    b->writes[i] = (mv_write){.number = p->number, .size = p->size, .data = p->data};
    if (before && before->size == p->size) {
      b->writes[i].before = before->data;
      b->writes[i].before_chain = before->chain;
    }
    if (mv_set_add(&f->reads, p->number)) return SQLITE_NOMEM;
    if (mv_set_has(&f->stale, p->number))
      return mv_fail(f, SQLITE_BUSY_SNAPSHOT, "another commit changed a page since an open cursor began");
  }
  b->reads = malloc((size_t)f->reads.count * sizeof *b->reads);
  if (!b->reads) return SQLITE_NOMEM;
  b->read_count = mv_set_pack(&f->reads, b->reads);
  return SQLITE_OK;
}

static void accept(mv_file *f, batch *b, const mv_commit *c, const uint8_t *header, uint64_t word) {
  mv_version version = mv_version_get(c->version), last;
  for (uint32_t i = 0; i < b->count; i++) {
    b->pages[i]->chain = b->writes[i].chain;
    if (b->before[i]) mv_db_unpin(f->db, b->before[i]); /* before its successor may drop it */
    b->before[i] = NULL;
  }
  mv_version base = mv_base(f);
  mv_db_hold(f->db, &f->snapshot, version, &last);
  mv_db_committed(f->db, base, version, b->pages, b->count, c->others, word);
  memcpy(f->header, header, MV_HEADER_SIZE);
  mv_db_set_page_size(f->db, f->page_size);
  f->stats.commits++;
  f->stats.pages_written += b->count;
  f->wrote = b->count;
  f->outcome = 1;
  b->count = 0; /* the cache has the pages now */
  if (c->others) f->must_move = 1;
}

static int refuse(mv_file *f, batch *b, int rc) {
  for (uint32_t i = 0; i < b->count; i++) free(b->pages[i]);
  mv_drop_writes(f);
  if (rc == SQLITE_BUSY_SNAPSHOT) f->stats.conflicts++;
  f->state = MV_REFUSED;
  f->must_move = 1;
  f->outcome = 2;
  return rc == SQLITE_BUSY ? SQLITE_IOERR : rc; /* rule 10 */
}

/* VACUUM and the backup API write pages of the old size with the new one in the header (rule 23). */
static int check_page_1(mv_file *f, const mv_page *page_1) {
  uint32_t size = (uint32_t)page_1->data[16] << 8 | (uint32_t)page_1->data[17] << 16; /* 1 means 65536 */
  if (size == f->page_size) return SQLITE_OK;
  return mv_fail(f, SQLITE_ERROR, "the page size of a database can't be changed");
}

static int commit(mv_file *f, mv_page *page_1) {
  uint8_t header[MV_HEADER_SIZE];
  batch b = {0};
  memcpy(header, page_1->data + 28, MV_HEADER_SIZE);
  uint64_t word = mv_db_word_seen(f->db);
  f->counter = mv_shown_counter(f) + 1; /* SQLite keeps its step even if refused, in mode OFF */
  int rc = check_page_1(f, page_1);
  if (rc == SQLITE_OK) rc = collect(f, &b, header);
  if (rc == SQLITE_OK && b.count) {
    rc = prepare(f, &b);
    if (rc == SQLITE_OK) {
      mv_commit c = {.page_size = f->page_size,
                     .reads = b.reads,
                     .read_count = b.read_count,
                     .writes = b.writes,
                     .write_count = b.count,
                     .file = f};
      mv_version_put(mv_base(f), c.base);
      rc = mv_call_commit(f->host, f->session, &c);
      if (rc == SQLITE_OK) accept(f, &b, &c, header, word);
    }
  }
  if (rc == SQLITE_OK) {
    f->state = MV_COMMITTED;
  } else {
    if (b.before)
      for (uint32_t i = 0; i < b.count; i++)
        if (b.before[i]) mv_db_unpin(f->db, b.before[i]);
    free(b.before);
    b.before = NULL;
    rc = refuse(f, &b, rc);
  }
  free_batch(f, &b);
  return rc;
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
    batch none = {0};
    return refuse(f, &none,
                  mv_fail(f, SQLITE_ERROR,
                          super_journal
                              ? "a transaction can't write an mv database and another file: it would not be atomic"
                              : "a transaction can't write one mv database while it reads or writes another"));
  }
  return commit(f, page_1);
}
