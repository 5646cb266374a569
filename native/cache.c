/* The page cache: its pages; see cache.h.  Where it stands in the changelog is position.c. */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 1024u
#define PARENT_BYTES 256 /* of the cache, for each page whose parent is noted */

mv_version mv_version_get(const uint8_t b[MV_VERSION_SIZE]) {
  mv_version v = {0, 0};
  for (int i = 0; i < 8; i++) v.hi = v.hi << 8 | b[i];
  v.lo = (uint16_t)(b[8] << 8 | b[9]);
  return v;
}

void mv_version_put(mv_version v, uint8_t b[MV_VERSION_SIZE]) {
  for (int i = 7; i >= 0; i--, v.hi >>= 8) b[i] = (uint8_t)v.hi;
  b[8] = (uint8_t)(v.lo >> 8);
  b[9] = (uint8_t)v.lo;
}

mv_version mv_version_next(mv_version v) {
  if (++v.lo == 0) v.hi++;
  return v;
}

mv_page *mv_page_new(uint32_t number, uint32_t size) {
  mv_page *p = malloc(sizeof *p + size);
  if (p) *p = (mv_page){.number = number, .size = size, .data = (uint8_t *)(p + 1)};
  return p;
}

mv_page *mv_page_spilled(uint32_t number, uint32_t size, uint8_t *data) {
  mv_page *p = malloc(sizeof *p);
  if (p) *p = (mv_page){.number = number, .size = size, .spilled = 1, .data = data};
  return p;
}

static size_t footprint(const mv_page *p) { return sizeof *p + p->size; }

/* ---- hash table and clock; the caller holds the mutex ---- */

static mv_page **bucket(const mv_db *db, uint32_t number) {
  return &db->buckets[(number * 0x9E3779B1u) >> 7 & (db->bucket_count - 1)];
}

static void grow(mv_db *db) {
  uint32_t old_count = db->bucket_count;
  mv_page **old = db->buckets, **wider = calloc((size_t)old_count * 2, sizeof *wider);
  if (!wider) return; /* longer chains, nothing worse */
  db->buckets = wider;
  db->bucket_count = old_count * 2;
  for (uint32_t i = 0; i < old_count; i++) {
    for (mv_page *p = old[i], *next; p; p = next) {
      next = p->hash_next;
      mv_page **b = bucket(db, p->number);
      p->hash_next = *b;
      *b = p;
    }
  }
  free(old);
}

static void unlink_page(mv_db *db, mv_page *p) {
  mv_page **at = bucket(db, p->number);
  while (*at != p) at = &(*at)->hash_next;
  *at = p->hash_next;
  if (p->clock_next == p) {
    db->hand = NULL;
  } else {
    p->clock_prev->clock_next = p->clock_next;
    p->clock_next->clock_prev = p->clock_prev;
    if (db->hand == p) db->hand = p->clock_next;
  }
  db->page_count--;
  db->bytes -= footprint(p);
  p->cached = 0;
  if (!p->pins) free(p);
}

void mv_db_evict(mv_db *db) {
  uint32_t tries = db->page_count * 2;
  while (db->bytes > db->limit && db->hand && tries--) {
    mv_page *p = db->hand;
    if (p->pins || p->referenced) {
      p->referenced = 0;
      db->hand = p->clock_next;
    } else {
      unlink_page(db, p);
    }
  }
}

/* What the tree knows of pages that have gone is forgotten with everything else, now and then. */
static void note_children(mv_db *db, const mv_page *p) {
  if (db->tree.parents.count > db->limit / PARENT_BYTES) mv_map_clear(&db->tree.parents);
  mv_tree_note(&db->tree, p->number, p->data, p->size); /* out of memory: it is not needed */
}

void mv_db_link(mv_db *db, mv_page *p) {
  if (db->reads_ahead) note_children(db, p);
  if (db->page_count >= db->bucket_count) grow(db);
  mv_page **b = bucket(db, p->number);
  p->hash_next = *b;
  *b = p;
  if (db->hand) { /* behind the hand: the last place that it will look at */
    p->clock_next = db->hand;
    p->clock_prev = db->hand->clock_prev;
    p->clock_prev->clock_next = p;
    db->hand->clock_prev = p;
  } else {
    db->hand = p->clock_prev = p->clock_next = p;
  }
  p->cached = 1;
  p->referenced = 1;
  db->page_count++;
  db->bytes += footprint(p);
}

static int valid_at(const mv_db *db, const mv_page *p, mv_version at) {
  if (mv_version_cmp(p->from, at) > 0) return 0;
  return p->open ? mv_version_cmp(at, db->applied) <= 0 : mv_version_cmp(at, p->end) < 0;
}

static mv_page *find(const mv_db *db, uint32_t number, mv_version at) {
  for (mv_page *p = *bucket(db, number); p; p = p->hash_next)
    if (p->number == number && valid_at(db, p, at)) return p;
  return NULL;
}

static int anyone_needs(const mv_db *db, const mv_page *p) {
  for (const mv_snapshot *s = db->snapshots.next; s != &db->snapshots; s = s->next)
    if (valid_at(db, p, s->version)) return 1;
  return 0;
}

void mv_db_supersede(mv_db *db, uint32_t number, mv_version v) {
  for (mv_page *p = *bucket(db, number), *next; p; p = next) {
    next = p->hash_next;
    if (p->number != number || mv_version_cmp(p->from, v) >= 0) continue;
    if (p->open) {
      p->open = 0;
      p->end = v;
    }
    if (!anyone_needs(db, p)) unlink_page(db, p);
  }
}

void mv_db_end_all(mv_db *db) {
  mv_version end = mv_version_next(db->applied);
  for (uint32_t i = 0; i < db->bucket_count; i++) {
    for (mv_page *p = db->buckets[i]; p; p = p->hash_next) {
      if (!p->open) continue;
      p->open = 0;
      p->end = mv_version_cmp(p->from, end) < 0 ? end : mv_version_next(p->from);
      p->referenced = 0;
    }
  }
}

/* ---- life ---- */

mv_db *mv_db_new(uint64_t cache_bytes) {
  mv_db *db = calloc(1, sizeof *db);
  if (!db) return NULL;
  db->buckets = calloc(FIRST_BUCKETS, sizeof *db->buckets);
  db->alloc = mv_alloc_new(0, NULL, 0);
  if (!db->buckets || !db->alloc || pthread_mutex_init(&db->mutex, NULL)) {
    mv_alloc_release(db->alloc);
    free(db->buckets);
    free(db);
    return NULL;
  }
  db->bucket_count = FIRST_BUCKETS;
  db->limit = (size_t)cache_bytes;
  db->snapshots.prev = db->snapshots.next = &db->snapshots;
  atomic_init(&db->references, 1);
  return db;
}

void mv_db_retain(mv_db *db) { atomic_fetch_add(&db->references, 1); }

void mv_db_release(mv_db *db) {
  if (atomic_fetch_sub(&db->references, 1) != 1) return;
  while (db->hand) unlink_page(db, db->hand);
  mv_alloc_release(db->alloc);
  mv_tree_free(&db->tree);
  pthread_mutex_destroy(&db->mutex);
  free(db->buckets);
  free(db);
}

int mv_db_set_page_size(mv_db *db, uint32_t page_size) {
  if (page_size & (page_size - 1)) return -1;
  if (page_size && (page_size < MV_SMALLEST_PAGE || page_size > MV_LARGEST_PAGE)) return -1;
  pthread_mutex_lock(&db->mutex);
  db->page_size = page_size;
  pthread_mutex_unlock(&db->mutex);
  return 0;
}

uint32_t mv_db_page_size(mv_db *db) {
  pthread_mutex_lock(&db->mutex);
  uint32_t page_size = db->page_size;
  pthread_mutex_unlock(&db->mutex);
  return page_size;
}

void mv_db_limit(mv_db *db, uint64_t cache_bytes) {
  pthread_mutex_lock(&db->mutex);
  db->limit = (size_t)cache_bytes;
  mv_db_evict(db);
  pthread_mutex_unlock(&db->mutex);
}

void mv_db_read_ahead(mv_db *db) {
  pthread_mutex_lock(&db->mutex);
  for (uint32_t i = 0; !db->reads_ahead && i < db->bucket_count; i++)
    for (const mv_page *p = db->buckets[i]; p; p = p->hash_next) note_children(db, p);
  db->reads_ahead = 1;
  pthread_mutex_unlock(&db->mutex);
}

/* ---- content ---- */

void mv_db_put(mv_db *db, mv_page *p, mv_version at) {
  pthread_mutex_lock(&db->mutex);
  p->open = db->has_applied && mv_version_cmp(db->applied, at) <= 0;
  p->end = mv_version_next(at);
  for (mv_page *q = *bucket(db, p->number), *next; q; q = next) {
    next = q->hash_next;
    if (q->number != p->number || mv_version_cmp(q->from, p->from) != 0) continue;
    if (q->open) { /* it knows at least as much */
      pthread_mutex_unlock(&db->mutex);
      free(p);
      return;
    }
    if (!p->open && mv_version_cmp(q->end, p->end) > 0) p->end = q->end;
    unlink_page(db, q);
  }
  mv_db_link(db, p);
  mv_db_evict(db);
  pthread_mutex_unlock(&db->mutex);
}

int mv_db_insert(mv_db *db, uint32_t number, const uint8_t *from, const uint8_t *snapshot, uint8_t chain,
                 const uint8_t *data, uint32_t size) {
  mv_page *p = mv_page_new(number, size);
  if (!p) return -1;
  memcpy(p->data, data, size);
  p->from = mv_version_get(from);
  p->chain = chain;
  mv_db_put(db, p, mv_version_get(snapshot));
  return 0;
}

int mv_db_copy(mv_db *db, uint32_t number, mv_version at, void *out, uint32_t offset, uint32_t amount) {
  pthread_mutex_lock(&db->mutex);
  mv_page *p = find(db, number, at);
  int hit = p && (uint64_t)offset + amount <= p->size;
  if (hit) {
    memcpy(out, p->data + offset, amount);
    p->referenced = 1;
  }
  pthread_mutex_unlock(&db->mutex);
  return hit;
}

typedef struct vantage { /* what read-ahead may look at */
  const mv_db *db;
  mv_version at;
  const mv_alloc *alloc;
} vantage;

static const uint8_t *content_at(void *context, uint32_t number, uint32_t *size) {
  const vantage *from = context;
  const mv_page *p = find(from->db, number, from->at);
  if (p) *size = p->size;
  return p ? p->data : NULL;
}

static int exists_at(void *context, uint32_t number) {
  const vantage *from = context;
  return number && number <= from->alloc->highest && number != mv_pending_page(from->db->page_size) &&
         mv_alloc_has(from->alloc, number);
}

uint32_t mv_db_plan(mv_db *db, mv_ahead *a, uint32_t number, mv_version at, const mv_alloc *alloc,
                    uint32_t *out) {
  pthread_mutex_lock(&db->mutex);
  vantage from = {db, at, alloc};
  mv_view view = {&db->tree, &from, content_at, exists_at};
  size_t bytes = db->limit / 4 < MV_AHEAD_BYTES ? db->limit / 4 : MV_AHEAD_BYTES, count = 1;
  if (db->reads_ahead && db->page_size) count = bytes / db->page_size;
  if (count > MV_AHEAD_PAGES) count = MV_AHEAD_PAGES;
  out[0] = number;
  if (count > 1) count = mv_ahead_plan(a, &view, number, out, (uint32_t)count);
  pthread_mutex_unlock(&db->mutex);
  return count ? (uint32_t)count : 1;
}

mv_page *mv_db_pin(mv_db *db, uint32_t number, mv_version at) {
  pthread_mutex_lock(&db->mutex);
  mv_page *p = find(db, number, at);
  if (p) p->pins++;
  pthread_mutex_unlock(&db->mutex);
  return p;
}

void mv_db_unpin(mv_db *db, mv_page *p) {
  pthread_mutex_lock(&db->mutex);
  if (--p->pins == 0 && !p->cached) free(p);
  pthread_mutex_unlock(&db->mutex);
}
