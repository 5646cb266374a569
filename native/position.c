/* Where the page cache of a database stands in the changelog: what has been taken in, whether there is
** anything newer, which snapshots are held, what a commit of our own makes of it; see cache.h. */
#include "cache.h"

#include <string.h>
#include <time.h>

#define MOST_RECENT_WORDS 1024u /* of the changes that are taken in without asking the store */

static _Thread_local mv_set *collected; /* changes seen by this thread, see mv_collect_changes() */

/* ---- the changelog ---- */

void mv_collect_changes(mv_set *into) { collected = into; }

static void collect(const uint32_t *pages, uint32_t count) {
  for (uint32_t i = 0; collected && i < count; i++)
    if (mv_set_add(collected, pages[i])) mv_set_add(collected, MV_EVERYTHING);
}

static void note_change(mv_db *db, mv_version v) {
  if (mv_version_cmp(v, db->last_change) > 0) {
    db->change_before = db->last_change;
    db->last_change = v;
  } else if (mv_version_cmp(v, db->last_change) < 0 && mv_version_cmp(v, db->change_before) > 0) {
    db->change_before = v;
  }
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
    for (uint32_t p = 0; p < changes[i].page_count; p++) mv_db_supersede(db, changes[i].pages[p], v);
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
    mv_db_end_all(db);
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

/* ---- the head word ---- */

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
  uint64_t word = mv_recent_read(db->recent, &db->head->word, &db->recent_at, db->id, applied, packed,
                                 MOST_RECENT_WORDS, &count);
  if (!word) return 0;
  if (mv_changes_list(packed, MOST_RECENT_WORDS, changes, count) < count) return 0;
  if (take_in(db, changes, count)) return 0;
  reach(db, count ? mv_version_get(changes[count - 1].version) : db->applied, word);
  return 1;
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

void mv_db_watch(mv_db *db, int watched) {
  pthread_mutex_lock(&db->mutex);
  db->unwatched = !watched;
  pthread_mutex_unlock(&db->mutex);
}

int mv_db_watched(mv_db *db) {
  pthread_mutex_lock(&db->mutex);
  int watched = !db->unwatched;
  pthread_mutex_unlock(&db->mutex);
  return watched;
}

int mv_db_quick_begin(mv_db *db, mv_snapshot *s, int64_t within, mv_start *out) {
  pthread_mutex_lock(&db->mutex);
  int quick = !db->unwatched && (word_still(db, within) || catch_up(db));
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
    if (!p || p->spilled) continue; /* freed; or goes with its transaction */
    p->from = version;
    p->open = !late;
    p->end = mv_version_next(version);
    mv_db_link(db, p);
  }
}

void mv_db_committed_unknown(mv_db *db, mv_snapshot *s, const mv_part *part, const uint8_t *at,
                             mv_page **pages) {
  mv_version version = mv_version_get(at);
  pthread_mutex_lock(&db->mutex);
  hold(db, s, version);
  take_over(db, part, version, pages, mv_version_cmp(db->applied, version) > 0);
  mv_db_evict(db);
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
    for (uint32_t i = 0; i < part->freed_count; i++) mv_db_supersede(db, part->freed[i], version);
    for (uint32_t i = 0; i < part->write_count; i++)
      if (pages[i]) mv_db_supersede(db, pages[i]->number, version);
    take_over(db, part, version, pages, late);
    reach(db, version, quick ? word_after : 0);
    mv_db_evict(db);
  }
  pthread_mutex_unlock(&db->mutex);
  return rc;
}
