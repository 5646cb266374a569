/* Read-ahead; see ahead.h. */
#include "ahead.h"

#include <stdlib.h>
#include <string.h>

#define INTERIOR_INDEX 2
#define INTERIOR_TABLE 5
#define LEAF_INDEX 10
#define LEAF_TABLE 13
#define MAX_DEPTH 24 /* 20 of a B-tree (SQLite's BTCURSOR_MAX_DEPTH), and overflow */
#define MAX_STEPS 1024
#define MAX_CHAIN 64 /* overflow pages up to a leaf; for longer ones there is what goes by number */
#define MAX_RUNS 1024
#define MAX_TRIES 16
#define SKIPPED_NUMBERS 64

static uint32_t be32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- the tree ---- */

typedef struct cells { /* of a B-tree page: https://www.sqlite.org/fileformat2.html#b_tree_pages */
  const uint8_t *data;
  uint32_t size, header, count;
  uint8_t type;
} cells;

static int cells_of(const uint8_t *data, uint32_t number, uint32_t size, cells *out) {
  uint32_t header = number == 1 ? 100 : 0;
  if (size < header + 12) return 0;
  *out = (cells){data, size, header, (uint32_t)data[header + 3] << 8 | data[header + 4], data[header]};
  int interior = out->type == INTERIOR_INDEX || out->type == INTERIOR_TABLE;
  if (!interior && out->type != LEAF_INDEX && out->type != LEAF_TABLE) return 0;
  return header + (interior ? 12u : 8u) + 2 * out->count <= size;
}

static uint32_t cell_at(const cells *c, uint32_t pointers, uint32_t i) {
  const uint8_t *pointer = c->data + c->header + pointers + 2 * i;
  return (uint32_t)pointer[0] << 8 | pointer[1];
}

static uint32_t lower_pages(const cells *c, uint32_t *out) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < c->count; i++) {
    uint32_t cell = cell_at(c, 12, i);
    if (cell + 4 <= c->size) out[count++] = be32(c->data + cell);
  }
  out[count++] = be32(c->data + c->header + 8);
  return count;
}

/* At most the five bytes that a payload's size or a step over a row id takes; returns what is behind it. */
static uint32_t varint(const cells *c, uint32_t at, uint64_t *out) {
  *out = 0;
  for (int i = 0; i < 9 && at < c->size; i++) {
    uint8_t byte = c->data[at++];
    *out = *out << 7 | (byte & 0x7f);
    if (byte < 0x80) break;
  }
  return at;
}

/* The first overflow pages of the cells that have any, taking all of the page's bytes as usable. */
static uint32_t overflow_pages(const cells *c, uint32_t *out) {
  uint32_t u = c->size, count = 0;
  uint32_t most = c->type == LEAF_TABLE ? u - 35 : (u - 12) * 64 / 255 - 23, least = (u - 12) * 32 / 255 - 23;
  for (uint32_t i = 0; i < c->count; i++) {
    uint64_t payload, row;
    uint32_t at = varint(c, cell_at(c, 8, i), &payload);
    if (c->type == LEAF_TABLE) at = varint(c, at, &row);
    if (payload <= most) continue;
    uint32_t local = least + (uint32_t)((payload - least) % (u - 4));
    at += local <= most ? local : least;
    if (at + 4 <= c->size) out[count++] = be32(c->data + at);
  }
  return count;
}

/* A cell pointer takes two bytes; that cells don't overlap is true of good pages only. */
static uint32_t most_children(uint32_t size) { return size / 2 + 1; }

/* What a page leads to, in order: a B-tree page to lower ones, or to the overflow pages of its cells; an
** overflow page to the next one.  `out` has room for most_children(). */
static uint32_t children(const mv_tree *t, const uint8_t *data, uint32_t number, uint32_t size, uint32_t *out,
                         int *overflow) {
  cells c;
  *overflow = mv_tree_is_overflow(t, number);
  if (*overflow) {
    out[0] = size >= 4 ? be32(data) : 0;
    return out[0] != 0;
  }
  if (!cells_of(data, number, size, &c)) return 0;
  *overflow = c.type == LEAF_TABLE || c.type == LEAF_INDEX;
  return *overflow ? overflow_pages(&c, out) : lower_pages(&c, out);
}

int mv_tree_note(mv_tree *t, uint32_t number, const uint8_t *data, uint32_t size) {
  uint32_t *pages = malloc(most_children(size) * sizeof *pages);
  if (!pages) return -1;
  int overflow, rc = 0;
  uint32_t count = children(t, data, number, size, pages, &overflow);
  for (uint32_t i = 0; i < count && rc == 0; i++) {
    void **parent = mv_map_at(&t->parents, pages[i]);
    if (!parent) rc = -1;
    else *parent = (void *)((uintptr_t)number << 1 | (uintptr_t)overflow);
  }
  free(pages);
  return rc;
}

uint32_t mv_tree_parent(const mv_tree *t, uint32_t number) {
  return (uint32_t)((uintptr_t)mv_map_get(&t->parents, number) >> 1);
}

int mv_tree_is_overflow(const mv_tree *t, uint32_t number) {
  return (uintptr_t)mv_map_get(&t->parents, number) & 1;
}

void mv_tree_free(mv_tree *t) { mv_map_free(&t->parents); }

/* ---- a walk: pages in the order in which a scan reads them, as far as the cache knows the tree ---- */

typedef struct level {
  uint32_t page, *children, count;
  int64_t at; /* index of the child that the walk is at; -1 and `count` are in front of the first one */
} level;

typedef struct walk {
  const mv_view *view;
  int step;   /* 1 forward, -1 backward */
  int height; /* of the top level over the one that is wanted; overflow is all one level, the lowest */
  int depth;
  level levels[MAX_DEPTH];
} walk;

static int load(const walk *w, uint32_t page, level *out) {
  uint32_t size;
  int overflow;
  const uint8_t *data = page ? w->view->content(w->view->context, page, &size) : NULL;
  if (!data) return 0;
  *out = (level){.page = page, .children = malloc(most_children(size) * sizeof *out->children)};
  if (out->children) out->count = children(w->view->tree, data, page, size, out->children, &overflow);
  if (!out->count) free(out->children);
  return out->count != 0;
}

static int load_parent(const walk *w, uint32_t page, level *out) {
  if (!load(w, mv_tree_parent(w->view->tree, page), out)) return 0;
  for (out->at = 0; out->at < out->count; out->at++)
    if (out->children[out->at] == page) return 1;
  free(out->children); /* not any more */
  return 0;
}

static int descend(walk *w, uint32_t page) {
  int overflow = mv_tree_is_overflow(w->view->tree, page);
  if (!overflow && w->height == 0) return 0;
  if (w->depth == MAX_DEPTH || !load(w, page, &w->levels[w->depth])) return 0;
  level *l = &w->levels[w->depth++];
  l->at = w->step > 0 ? -1 : (int64_t)l->count;
  if (!overflow) w->height--;
  return 1;
}

/* Stands at `page`, so high over the level that is wanted; the next step goes on from there. */
static int walk_begin(walk *w, const mv_view *view, uint32_t page, int height, int step) {
  *w = (walk){.view = view, .step = step, .height = height};
  w->depth = load_parent(w, page, &w->levels[0]);
  descend(w, page);
  return w->depth;
}

static void walk_end(walk *w) {
  while (w->depth > 0) free(w->levels[--w->depth].children);
}

/* The next page, or 0 where the cache knows no further. */
static uint32_t walk_next(walk *w) {
  while (w->depth > 0) {
    level *l = &w->levels[w->depth - 1];
    l->at += w->step;
    if (l->at >= 0 && l->at < l->count) {
      uint32_t page = l->children[l->at];
      descend(w, page);
      return page;
    }
    uint32_t done = l->page;
    free(l->children);
    w->depth--;
    if (!mv_tree_is_overflow(w->view->tree, done)) w->height++;
    if (w->depth == 0) w->depth = load_parent(w, done, &w->levels[0]);
  }
  return 0;
}

static int cached(const mv_view *view, uint32_t page) {
  uint32_t size;
  return view->content(view->context, page, &size) != NULL;
}

static uint32_t first_missing(const mv_view *view, uint32_t last, int height, int step) {
  walk w;
  uint32_t page = 0;
  if (walk_begin(&w, view, last, height, step))
    for (int i = 0; i < MAX_STEPS && (page = walk_next(&w)) != 0 && cached(view, page); i++)
      ;
  walk_end(&w);
  return page;
}

/* ---- runs of misses in trees ---- */

typedef struct run {
  uint32_t last;   /* everything up to here was fetched; 0: none */
  int height;      /* of that page over those that were missing */
  uint32_t row;    /* of overflow pages: the first one of their row */
  uint32_t window; /* pages fetched last time */
  int step;        /* 0: one page only, either way may follow */
} run;

typedef struct runs { /* two cursors may stand under one page */
  run slot[2];
  int oldest;
} runs;

static run *run_that_goes_on(mv_ahead *a, const mv_view *view, uint32_t key, uint32_t number) {
  runs *here = key ? mv_map_get(&a->runs, key) : NULL;
  for (int i = 0; here && i < 2; i++) {
    run *r = &here->slot[i];
    if (!r->last) continue;
    if (r->step >= 0 && first_missing(view, r->last, r->height, 1) == number) r->step = 1;
    else if (r->step <= 0 && first_missing(view, r->last, r->height, -1) == number) r->step = -1;
    else continue;
    return r;
  }
  return NULL;
}

/* A run goes on behind the page that it stands at: the nearest of those beside `page`. */
static run *run_next_to(mv_ahead *a, const mv_view *view, uint32_t page, uint32_t number) {
  walk w = {.view = view};
  level l;
  run *found = NULL;
  if (!a->runs.count || !load_parent(&w, page, &l)) return NULL;
  for (int64_t by = 1, tries = 0; !found && by < l.count && tries < MAX_TRIES; by++) {
    int64_t beside[2] = {l.at - by, l.at + by};
    for (int i = 0; !found && i < 2; i++) {
      if (beside[i] < 0 || beside[i] >= l.count || !mv_map_get(&a->runs, l.children[beside[i]])) continue;
      found = run_that_goes_on(a, view, l.children[beside[i]], number);
      tries++;
    }
  }
  free(l.children);
  return found;
}

/* Where a run that ends at `page` is kept: under the interior page above it, or the leaf whose rows the
** overflow pages belong to.  0: not known. */
static uint32_t key_of(const mv_view *view, uint32_t page, uint32_t *row) {
  *row = 0;
  for (int i = 0; i < MAX_CHAIN && mv_tree_is_overflow(view->tree, page); i++) {
    *row = page;
    page = mv_tree_parent(view->tree, page);
  }
  if (*row) return mv_tree_is_overflow(view->tree, page) ? 0 : page;
  return mv_tree_parent(view->tree, page);
}

static void clear_runs(mv_ahead *a) {
  for (uint32_t i = 0; i < a->runs.capacity; i++)
    if (a->runs.keys[i]) free(a->runs.values[i]);
  mv_map_clear(&a->runs);
}

static void keep_run(mv_ahead *a, uint32_t key, run r) {
  if (a->runs.count >= MAX_RUNS) clear_runs(a);
  runs **here = (runs **)mv_map_at(&a->runs, key);
  if (!here || (!*here && !(*here = calloc(1, sizeof **here)))) return;
  int i = (*here)->slot[0].last == 0 ? 0 : (*here)->slot[1].last == 0 ? 1 : (*here)->oldest;
  (*here)->slot[i] = r;
  (*here)->oldest = 1 - i;
}

/* A damaged tree may lead to a page twice. */
static int listed(const uint32_t *out, uint32_t count, uint32_t page) {
  for (uint32_t i = 0; i < count; i++)
    if (out[i] == page) return 1;
  return 0;
}

/* The pages behind `number`, `window` together with it.  Of pages higher up, whose children can't be known
** before they are here, only as many as the next fetch will want.  The run then ends where the order is known
** no further. */
static uint32_t gather(const mv_view *view, uint32_t number, uint32_t window, run *r, uint32_t *out) {
  walk w;
  uint32_t count = 1, above = 0, page;
  int known = !mv_tree_is_overflow(view->tree, number);
  out[0] = r->last = number;
  if (walk_begin(&w, view, number, 0, r->step)) {
    uint32_t enough = 2 * window / w.levels[0].count + 1;
    for (int i = 0; i < MAX_STEPS && count < window && above < enough && (page = walk_next(&w)) != 0; i++) {
      int missing = !cached(view, page);
      if (missing && (!view->exists(view->context, page) || listed(out, count, page))) continue;
      if (missing) out[count++] = page;
      if (missing && w.height > 0) above++;
      if (!known) continue;
      r->last = page;
      r->height = above ? w.height : 0;
      known = !missing || (!above && !mv_tree_is_overflow(view->tree, page));
    }
  }
  walk_end(&w);
  return count;
}

static uint32_t plan_by_tree(mv_ahead *a, const mv_view *view, uint32_t number, uint32_t *out,
                             uint32_t room) {
  uint32_t row, key = key_of(view, number, &row), count = 0;
  if (!key) return 0;
  run *going = run_that_goes_on(a, view, key, number), r = {.last = number, .window = 1, .row = row};
  if (!going && !row) going = run_next_to(a, view, number, number);
  if (!going) going = run_next_to(a, view, key, number);
  if (going) {
    r.step = going->step;
    r.window = going->window;
    if (!row || row != going->row) r.window = r.window < room / 2 ? r.window * 2 : room; /* another one */
    going->last = 0;
    count = gather(view, number, r.window, &r, out);
    key = r.height ? r.last : key_of(view, r.last, &(uint32_t){0});
  }
  if (key) keep_run(a, key, r);
  return count > 1 || (going && !row) ? count : 0;
}

/* ---- by number ---- */

static uint32_t number_behind(const mv_view *view, uint32_t number) {
  for (uint32_t n = number + 1; n <= number + SKIPPED_NUMBERS; n++)
    if (!cached(view, n) && view->exists(view->context, n)) return n;
  return 0;
}

static uint32_t plan_by_number(mv_ahead *a, const mv_view *view, uint32_t number, uint32_t *out,
                               uint32_t room) {
  struct mv_by_number *r = NULL;
  for (int i = 0; i < MV_AHEAD_NUMBERED && !r; i++)
    if (a->numbered[i].last && number_behind(view, a->numbered[i].last) == number) r = &a->numbered[i];
  if (!r) {
    r = &a->numbered[a->next_slot++ % MV_AHEAD_NUMBERED];
    r->misses = 0;
    r->window = 1;
  } else if (r->misses >= 2) { /* two in a row happen by chance */
    r->window = r->window < room / 2 ? r->window * 2 : room;
  }
  r->misses++;
  r->last = number;
  uint32_t count = 1;
  while (count < r->window && (number = number_behind(view, r->last)) != 0) out[count++] = r->last = number;
  return count;
}

/* ---- both ---- */

uint32_t mv_ahead_plan(mv_ahead *a, const mv_view *view, uint32_t number, uint32_t *out, uint32_t room) {
  int down = a->missed && mv_tree_parent(view->tree, number) == a->missed &&
             !mv_tree_is_overflow(view->tree, number);
  a->missed = number;
  out[0] = number;
  uint32_t count = plan_by_tree(a, view, number, out, room);
  if (!count && !down) count = plan_by_number(a, view, number, out, room);
  return count ? count : 1;
}

void mv_ahead_free(mv_ahead *a) {
  clear_runs(a);
  mv_map_free(&a->runs);
}
