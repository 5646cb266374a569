/* Pages that a begin brings along; see told.h. */
#include "told.h"

#include <stdlib.h>
#include <string.h>

#include "sets.h"
#include "store.h"

enum { COMMIT_HEAD = 20, WRITE_HEAD = 8, BLOB_HEAD = 7 };
enum { INDEX = 0x80, DELTA = 2, FREED = 3, MOVING = 5 }; /* pagestore/encoding.py */

typedef struct reader { /* of packed commits */
  const uint8_t *at, *end;
} reader;

typedef struct commit {
  const uint8_t *version;
  uint32_t count;
  reader writes;
} commit;

typedef struct write {
  uint32_t number, length;
  const uint8_t *blob;
} write;

static uint32_t little_endian(const uint8_t *in) {
  return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static uint32_t big_endian(const uint8_t *in) {
  return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | (uint32_t)in[3];
}

/* 1, or 0 at the end, or -1 if what is there is not whole. */
static int next_commit(reader *r, commit *out) {
  if (r->at == r->end) return 0;
  if (r->end - r->at < COMMIT_HEAD) return -1;
  uint32_t size = little_endian(r->at + 16);
  *out = (commit){.version = r->at, .count = little_endian(r->at + 12), .writes = {r->at + COMMIT_HEAD, r->end}};
  if (size > (size_t)(r->end - out->writes.at)) return -1;
  r->at = out->writes.end = out->writes.at + size;
  return 1;
}

static int next_write(reader *r, write *out) {
  if (r->at == r->end) return 0;
  if (r->end - r->at < WRITE_HEAD) return -1;
  *out = (write){little_endian(r->at), little_endian(r->at + 4), r->at + WRITE_HEAD};
  if (out->number == 0 || out->number > MV_HIGHEST_PAGE) return -1;
  if (out->length < BLOB_HEAD || out->length > (size_t)(r->end - out->blob)) return -1;
  r->at = out->blob + out->length;
  return 1;
}

/* How many writes there are; -1 if something is not whole. */
static int64_t count_writes(const uint8_t *told, uint64_t size) {
  reader all = {told, told + size};
  int64_t total = 0;
  commit c;
  write w;
  int more, rest;
  while ((more = next_commit(&all, &c)) == 1) {
    uint32_t found = 0;
    while ((rest = next_write(&c.writes, &w)) == 1) found++;
    if (rest < 0 || found != c.count) return -1;
    total += found;
  }
  return more < 0 ? -1 : total;
}

/* ---- one page ---- */

static void let_go(mv_told *t, uint32_t i) {
  if (t->bases[i]) mv_db_unpin(t->db, t->bases[i]);
  t->bases[i] = NULL;
}

/* It does not go forward, or no further. */
static void leave(mv_told *t, uint32_t i, int state) {
  mv_told_page *p = &t->pages[i];
  let_go(t, i);
  free(p->page);
  p->page = NULL;
  p->content = NULL;
  p->state = state;
}

/* A delta, to the page as it is cached or as the one before it left it.  0, or -1: no memory. */
static int advance(mv_told *t, uint32_t i, const write *w) {
  mv_told_page *p = &t->pages[i];
  int follows = 1;
  if (!p->page) {
    const mv_page *base = t->bases[i];
    p->page = mv_page_new(p->number, base->size);
    if (!p->page) return -1;
    memcpy(p->page->data, base->data, base->size);
    p->content = p->page->data;
    p->size = base->size;
    let_go(t, i);
    p->state = MV_TOLD_FORWARD;
  } else {
    follows = w->blob[2] == p->chain + 1;
  }
  if (!follows || mv_delta_apply_blob(p->page->data, p->size, w->blob, w->length)) leave(t, i, MV_TOLD_DAMAGED);
  return 0;
}

/* One commit's write of it. */
static int take(mv_told *t, uint32_t i, const uint8_t *version, const write *w) {
  mv_told_page *p = &t->pages[i];
  uint8_t codec = w->blob[0] & ~INDEX, key = w->blob[1];
  int rc = 0, is_delta = codec == DELTA || codec == MOVING;
  if (!t->bases[i] && p->state != MV_TOLD_FORWARD && p->state != MV_TOLD_WHOLE) return 0;
  p->check = big_endian(w->blob + 3);
  memcpy(p->version, version, sizeof p->version);
  if (key != 0 || (codec > FREED && codec != MOVING) || is_delta != (w->blob[2] > 0)) {
    leave(t, i, MV_TOLD_DAMAGED);
  } else if (codec == FREED) {
    leave(t, i, MV_TOLD_LEFT);
  } else if (!is_delta) {
    leave(t, i, MV_TOLD_WHOLE);
    p->content = w->blob;
    p->size = w->length;
  } else if (p->state == MV_TOLD_WHOLE) { /* seldom: not worth the trouble */
    leave(t, i, MV_TOLD_LEFT);
  } else {
    rc = advance(t, i, w);
  }
  p->chain = w->blob[2];
  return rc;
}

/* ---- all of them ---- */

/* The pages that are written, each once, with what is cached of them; `places`: their indexes, from 1. */
static int list(mv_told *t, mv_map *places, const uint8_t *told, uint64_t size, mv_version known) {
  reader all = {told, told + size};
  commit c;
  write w;
  while (next_commit(&all, &c) == 1) {
    while (next_write(&c.writes, &w) == 1) {
      void **place = mv_map_at(places, w.number);
      if (!place) return -1;
      if (*place) continue;
      t->bases[t->count] = mv_db_pin(t->db, w.number, known);
      t->pages[t->count].number = w.number;
      *place = (void *)(uintptr_t)++t->count;
    }
  }
  return 0;
}

static int walk(mv_told *t, const mv_map *places, const uint8_t *told, uint64_t size, const mv_change *changes,
                uint32_t count) {
  reader all = {told, told + size};
  commit c;
  write w;
  int has = next_commit(&all, &c);
  for (uint32_t i = 0; i < count; i++) {
    if (has == 1 && memcmp(c.version, changes[i].version, sizeof changes[i].version) == 0) {
      while (next_write(&c.writes, &w) == 1) {
        uintptr_t place = (uintptr_t)mv_map_get(places, w.number);
        if (take(t, (uint32_t)place - 1, c.version, &w)) return -1;
      }
      has = next_commit(&all, &c);
      continue;
    }
    for (uint32_t n = 0; n < changes[i].page_count; n++) {
      uintptr_t place = (uintptr_t)mv_map_get(places, changes[i].pages[n]);
      if (place) leave(t, (uint32_t)place - 1, MV_TOLD_LEFT);
    }
  }
  return has == 1 ? -2 : 0;
}

int mv_told_apply(mv_told *t, mv_db *db, const uint8_t *told, uint64_t size, const mv_change *changes, uint32_t count,
                  const uint8_t *known) {
  int64_t room = count_writes(told, size);
  *t = (mv_told){.db = NULL};
  if (room < 0) return -2;
  mv_db_retain(db);
  t->db = db;
  t->pages = calloc((size_t)room + 1, sizeof *t->pages);
  t->bases = calloc((size_t)room + 1, sizeof *t->bases);
  mv_map places = {0};
  int rc = !t->pages || !t->bases || list(t, &places, told, size, mv_version_get(known)) ? -1 : 0;
  if (rc == 0) rc = walk(t, &places, told, size, changes, count);
  mv_map_free(&places);
  if (rc) mv_told_end(t);
  return rc;
}

void mv_told_keep(mv_told *t, const uint8_t *snapshot) {
  for (uint32_t i = 0; i < t->count; i++) {
    mv_told_page *p = &t->pages[i];
    if (p->state != MV_TOLD_FORWARD) continue;
    p->page->from = mv_version_get(p->version);
    p->page->chain = p->chain;
    mv_db_put(t->db, p->page, mv_version_get(snapshot));
    p->page = NULL; /* it is the cache's */
    leave(t, i, MV_TOLD_LEFT);
  }
}

void mv_told_end(mv_told *t) {
  for (uint32_t i = 0; i < t->count; i++) {
    free(t->pages[i].page);
    let_go(t, i);
  }
  free(t->pages);
  free(t->bases);
  if (t->db) mv_db_release(t->db);
  *t = (mv_told){.db = NULL};
}
