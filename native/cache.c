/* The page cache; see cache.h. */
#include "cache.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_BUCKETS 1024u
#define MOST_RECENT_WORDS 1024u /* of the changes that are taken in without asking the store */
#define PARENT_BYTES 256 /* of the cache, for each page whose parent is noted */

static _Thread_local mv_set *collected; /* changes seen by this thread, see mv_collect_changes() */

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

static mv_version successor(mv_version v) {
  if (++v.lo == 0) v.hi++;
  return v;
}

mv_page *mv_page_new(uint32_t number, uint32_t size) {
  mv_page *p = malloc(sizeof *p + size);
  if (p) {
    memset(p, 0, sizeof *p);
    p->number = number;
    p->size = size;
  }
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

static void evict(mv_db *db) {
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

static void link_page(mv_db *db, mv_page *p) {
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

/* The page's next version is `v`: an open entry ends there; one that no snapshot needs is dropped. */
static void supersede(mv_db *db, uint32_t number, mv_version v) {
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

static void note_change(mv_db *db, mv_version v) {
  if (mv_version_cmp(v, db->last_change) > 0) {
    db->change_before = db->last_change;
    db->last_change = v;
  } else if (mv_version_cmp(v, db->last_change) < 0 && mv_version_cmp(v, db->change_before) > 0) {
    db->change_before = v;
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

void mv_db_set_word(mv_db *db, uint64_t address, int followed) {
  pthread_mutex_lock(&db->mutex);
  db->head = (mv_head *)(uintptr_t)address;
  db->followed = followed;
  db->word_seen = 0;
  pthread_mutex_unlock(&db->mutex);
}

void mv_db_set_recent(mv_db *db, uint64_t address, uint64_t namespace_id) {
  pthread_mutex_lock(&db->mutex);
  db->recent = (const mv_recent *)(uintptr_t)address;
  db->recent_at = db->recent ? mv_recent_tail(db->recent) : 0;
  db->id = namespace_id;
  pthread_mutex_unlock(&db->mutex);
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
  evict(db);
  pthread_mutex_unlock(&db->mutex);
}

void mv_db_read_ahead(mv_db *db) {
  pthread_mutex_lock(&db->mutex);
  for (uint32_t i = 0; !db->reads_ahead && i < db->bucket_count; i++)
    for (const mv_page *p = db->buckets[i]; p; p = p->hash_next) note_children(db, p);
  db->reads_ahead = 1;
  pthread_mutex_unlock(&db->mutex);
}

/* ---- the changelog ---- */

void mv_collect_changes(mv_set *into) { collected = into; }

static void collect(const uint32_t *pages, uint32_t count) {
  for (uint32_t i = 0; collected && i < count; i++)
    if (mv_set_add(collected, pages[i])) mv_set_add(collected, MV_EVERYTHING);
}

/* Takes in the changes after `applied`, if there is memory for it. */
static int take_in(mv_db *db, const mv_change *changes, uint32_t count) {
  mv_alloc *alloc = mv_alloc_retain(db->alloc);
  uint32_t pending = mv_pending_page(db->page_size);
  for (uint32_t i = 0; i < count; i++) {
    const mv_change *c = &changes[i];
    if (!c->allocated_count && !c->freed_count) continue;
    if (mv_version_cmp(mv_version_get(c->version), db->applied) <= 0) continue;
    mv_alloc *next =
        mv_alloc_change(alloc, c->allocated, c->allocated_count, c->freed, c->freed_count, pending);
    mv_alloc_release(alloc);
    if (!next) return -1;
    alloc = next;
  }
  mv_alloc_release(db->alloc);
  db->alloc = alloc;
  for (uint32_t i = 0; i < count; i++) {
    mv_version v = mv_version_get(changes[i].version);
    for (uint32_t p = 0; p < changes[i].page_count; p++) supersede(db, changes[i].pages[p], v);
    note_change(db, v);
  }
  return 0;
}

uint32_t mv_changes_list(const uint32_t *packed, uint64_t words, mv_change *out, uint32_t count) {
  const uint32_t *at = packed, *end = packed + words;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t left = (uint64_t)(end - at);
    if (left < MV_PACKED_CHANGE || (uint64_t)at[3] + at[4] + at[5] > left - MV_PACKED_CHANGE) return i;
    memcpy(out[i].version, at, sizeof out[i].version);
    out[i].page_count = at[3], out[i].allocated_count = at[4], out[i].freed_count = at[5];
    out[i].pages = at + MV_PACKED_CHANGE;
    out[i].allocated = out[i].pages + out[i].page_count;
    out[i].freed = out[i].allocated + out[i].allocated_count;
    at = out[i].freed + out[i].freed_count;
  }
  return count;
}

static void reach(mv_db *db, mv_version v, uint64_t word) {
  if (db->has_applied && mv_version_cmp(v, db->applied) < 0) return;
  db->applied = v;
  db->has_applied = 1;
  db->word_seen = word & 1 ? 0 : word;
}

int mv_db_apply(mv_db *db, const mv_change *changes, uint32_t count, const uint8_t *version, uint64_t word) {
  static const uint32_t reallocated = MV_REALLOCATED;
  for (uint32_t i = 0; i < count; i++) {
    collect(changes[i].pages, changes[i].page_count);
    if (changes[i].allocated_count || changes[i].freed_count) collect(&reallocated, 1);
  }
  pthread_mutex_lock(&db->mutex);
  int rc = take_in(db, changes, count);
  if (rc == 0) reach(db, mv_version_get(version), word);
  pthread_mutex_unlock(&db->mutex);
  return rc;
}

void mv_db_reset(mv_db *db, const uint8_t *version, uint64_t word, mv_alloc *alloc) {
  static const uint32_t everything = MV_EVERYTHING;
  mv_version v = mv_version_get(version);
  collect(&everything, 1);
  pthread_mutex_lock(&db->mutex);
  if (!db->has_applied || mv_version_cmp(v, db->applied) > 0) {
    mv_version end = successor(db->applied);
    for (uint32_t i = 0; i < db->bucket_count; i++) {
      for (mv_page *p = db->buckets[i]; p; p = p->hash_next) {
        if (!p->open) continue;
        p->open = 0;
        p->end = mv_version_cmp(p->from, end) < 0 ? end : successor(p->from);
        p->referenced = 0;
      }
    }
    mv_alloc_release(db->alloc);
    db->alloc = mv_alloc_retain(alloc);
    db->last_change = db->change_before = v; /* there may be any number of them */
  }
  reach(db, v, word);
  pthread_mutex_unlock(&db->mutex);
}

uint32_t mv_db_snapshots(mv_db *db, uint8_t *versions, uint32_t room) {
  uint32_t count = 0;
  pthread_mutex_lock(&db->mutex);
  for (const mv_snapshot *s = db->snapshots.next; s != &db->snapshots && count < room; s = s->next)
    mv_version_put(s->version, versions + 10 * count++);
  pthread_mutex_unlock(&db->mutex);
  return count;
}

int mv_db_applied(mv_db *db, uint8_t *version) {
  pthread_mutex_lock(&db->mutex);
  int has = db->has_applied;
  mv_version_put(db->applied, version);
  pthread_mutex_unlock(&db->mutex);
  return has;
}

uint64_t mv_db_load_word(mv_db *db) {
  return db->head ? atomic_load_explicit(&db->head->word, memory_order_acquire) : 0;
}

uint64_t mv_db_word_seen(mv_db *db) {
  pthread_mutex_lock(&db->mutex);
  uint64_t word = db->word_seen;
  pthread_mutex_unlock(&db->mutex);
  return word;
}

void mv_head_move(uint64_t address, uint64_t commits, int64_t as_of) {
  mv_head *head = (mv_head *)(uintptr_t)address;
  if (commits) atomic_fetch_add(&head->word, 2 * commits);
  if (as_of > atomic_load(&head->as_of)) atomic_store(&head->as_of, as_of);
}

int mv_head_used(uint64_t address) {
  return atomic_exchange(&((mv_head *)(uintptr_t)address)->used, 0) != 0;
}

static int64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The time is read before the word: who moves both moves the word first. */
static int is_recent(mv_db *db, int64_t within) {
  if (!db->followed) return 1;
  if (within <= 0) return 0;
  atomic_store_explicit(&db->head->used, 1, memory_order_relaxed);
  return nanoseconds() - atomic_load_explicit(&db->head->as_of, memory_order_acquire) <= within;
}

static int word_still(mv_db *db, int64_t within) {
  return db->head && is_recent(db, within) && db->word_seen != 0 && mv_db_load_word(db) == db->word_seen;
}

/* Take in what others have committed since `applied`, if all of it is among the recent changes.  (Not for
** a database that has no pages yet: its first commit also decides their size.) */
static int catch_up(mv_db *db) {
  uint32_t packed[MOST_RECENT_WORDS], count;
  mv_change changes[MOST_RECENT_WORDS / MV_PACKED_CHANGE];
  uint8_t applied[MV_VERSION_SIZE];
  if (!db->recent || !db->head || !db->has_applied || !db->page_size) return 0;
  mv_version_put(db->applied, applied);
  uint64_t word =
      mv_recent_read(db->recent, &db->head->word, &db->recent_at, db->id, applied, packed, MOST_RECENT_WORDS, &count);
  if (!word) return 0;
  if (mv_changes_list(packed, MOST_RECENT_WORDS, changes, count) < count) return 0;
  if (take_in(db, changes, count)) return 0;
  reach(db, count ? mv_version_get(changes[count - 1].version) : db->applied, word);
  return 1;
}

/* ---- content ---- */

int mv_db_insert(mv_db *db, uint32_t number, const uint8_t *from, const uint8_t *snapshot, uint8_t chain,
                 const uint8_t *data, uint32_t size) {
  mv_version v = mv_version_get(from), at = mv_version_get(snapshot);
  mv_page *p = mv_page_new(number, size);
  if (!p) return -1;
  memcpy(p->data, data, size);
  p->from = v;
  p->chain = chain;
  pthread_mutex_lock(&db->mutex);
  p->open = db->has_applied && mv_version_cmp(db->applied, at) <= 0;
  p->end = successor(at);
  for (mv_page *q = *bucket(db, number), *next; q; q = next) {
    next = q->hash_next;
    if (q->number != number || mv_version_cmp(q->from, v) != 0) continue;
    if (q->open) { /* it knows at least as much */
      pthread_mutex_unlock(&db->mutex);
      free(p);
      return 0;
    }
    if (!p->open && mv_version_cmp(q->end, p->end) > 0) p->end = q->end;
    unlink_page(db, q);
  }
  link_page(db, p);
  evict(db);
  pthread_mutex_unlock(&db->mutex);
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

/* ---- snapshots ---- */

static void hold(mv_db *db, mv_snapshot *s, mv_version v) {
  s->version = v;
  if (s->active) return;
  s->active = 1;
  s->next = &db->snapshots;
  s->prev = db->snapshots.prev;
  s->prev->next = s;
  db->snapshots.prev = s;
}

static void start(mv_db *db, mv_snapshot *s, mv_start *out) {
  hold(db, s, db->applied);
  *out = (mv_start){db->last_change, db->change_before, mv_alloc_retain(db->alloc), db->page_size};
}

int mv_db_quick_begin(mv_db *db, mv_snapshot *s, int64_t within, mv_start *out) {
  pthread_mutex_lock(&db->mutex);
  int quick = word_still(db, within) || catch_up(db);
  if (quick) start(db, s, out);
  pthread_mutex_unlock(&db->mutex);
  return quick;
}

void mv_db_begin(mv_db *db, mv_snapshot *s, mv_start *out) {
  pthread_mutex_lock(&db->mutex);
  start(db, s, out);
  pthread_mutex_unlock(&db->mutex);
}

void mv_db_hold(mv_db *db, mv_snapshot *s, mv_version v) {
  pthread_mutex_lock(&db->mutex);
  hold(db, s, v);
  pthread_mutex_unlock(&db->mutex);
}

void mv_db_drop(mv_db *db, mv_snapshot *s) {
  if (!s->active) return;
  pthread_mutex_lock(&db->mutex);
  s->active = 0;
  s->prev->next = s->next;
  s->next->prev = s->prev;
  pthread_mutex_unlock(&db->mutex);
}

int mv_db_unmoved(mv_db *db, mv_version v, int64_t within) {
  pthread_mutex_lock(&db->mutex);
  int still = (word_still(db, within) || catch_up(db)) && mv_version_cmp(db->last_change, v) <= 0;
  pthread_mutex_unlock(&db->mutex);
  return still;
}

int mv_db_newest(mv_db *db, mv_version *out) {
  pthread_mutex_lock(&db->mutex);
  int still = word_still(db, 0) || catch_up(db);
  if (still) *out = db->applied;
  pthread_mutex_unlock(&db->mutex);
  return still;
}

/* All commits up to `v` had moved the head word before `v` was seen, so a word that is still the same
** says that there is none between `applied` and `v`. */
int mv_db_begin_at(mv_db *db, mv_snapshot *s, mv_version v, mv_start *out) {
  pthread_mutex_lock(&db->mutex);
  int known = db->has_applied && mv_version_cmp(db->last_change, v) <= 0 &&
              (mv_version_cmp(v, db->applied) <= 0 || word_still(db, 0));
  if (known) {
    if (mv_version_cmp(v, db->applied) > 0) db->applied = v;
    start(db, s, out);
    hold(db, s, v);
  }
  pthread_mutex_unlock(&db->mutex);
  return known;
}

void mv_db_relabel(mv_db *db, mv_snapshot *s, mv_version v) {
  pthread_mutex_lock(&db->mutex);
  if (mv_version_cmp(s->version, db->applied) <= 0 && mv_version_cmp(db->applied, v) < 0) db->applied = v;
  hold(db, s, v);
  pthread_mutex_unlock(&db->mutex);
}

/* The caller holds the mutex.  `late`: what came after `version` has been taken in already. */
static void take_over(mv_db *db, const mv_part *part, mv_version version, mv_page **pages, int late) {
  for (uint32_t i = 0; i < part->write_count; i++) {
    mv_page *p = pages[i];
    if (!p) continue; /* freed */
    p->from = version;
    p->open = !late;
    p->end = successor(version);
    link_page(db, p);
  }
}

void mv_db_committed_unknown(mv_db *db, mv_snapshot *s, const mv_part *part, const uint8_t *at,
                             mv_page **pages) {
  mv_version version = mv_version_get(at);
  pthread_mutex_lock(&db->mutex);
  hold(db, s, version);
  take_over(db, part, version, pages, mv_version_cmp(db->applied, version) > 0);
  evict(db);
  pthread_mutex_unlock(&db->mutex);
}

int mv_db_committed(mv_db *db, mv_snapshot *s, const mv_part *part, const uint8_t *at, mv_page **pages,
                    uint64_t word_before) {
  mv_version base = s->version, version = mv_version_get(at);
  mv_change own = {.allocated = part->allocated,
                   .freed = part->freed,
                   .allocated_count = part->allocated_count,
                   .freed_count = part->freed_count};
  uint64_t word_after = word_before + (part->write_count ? 2 : 0); /* odd and even again: one commit, ours */
  mv_version_put(version, own.version);
  pthread_mutex_lock(&db->mutex);
  /* What is applied reached the base, so with the others' changes and ours it reaches the commit; unless
  ** another thread of this process was quicker and took all of it in already. */
  int quick = !part->other_count && mv_version_cmp(db->applied, base) == 0 && db->word_seen != 0 &&
              db->word_seen == word_before && mv_db_load_word(db) == word_after;
  int late = mv_version_cmp(db->applied, version) > 0;
  int rc = take_in(db, part->others, part->other_count);
  if (rc == 0 && part->write_count) rc = take_in(db, &own, 1);
  if (rc == 0) {
    hold(db, s, version); /* first: what only the base needs may go */
    for (uint32_t i = 0; i < part->freed_count; i++) supersede(db, part->freed[i], version);
    for (uint32_t i = 0; i < part->write_count; i++)
      if (pages[i]) supersede(db, pages[i]->number, version);
    take_over(db, part, version, pages, late);
    reach(db, version, quick ? word_after : 0);
    evict(db);
  }
  pthread_mutex_unlock(&db->mutex);
  return rc;
}
