/* Read-ahead, over a made-up tree: which pages are planned for which misses. */
#include "../ahead.h"

#include <string.h>

#include "check.h"

#define SIZE 512u
#define PAGES 4096u

static uint8_t pages[PAGES][SIZE];
static uint8_t is_cached[PAGES];
static mv_tree tree;

static const uint8_t *content(void *context, uint32_t number, uint32_t *size) {
  (void)context;
  *size = SIZE;
  return number < PAGES && is_cached[number] ? pages[number] : NULL;
}

static int exists(void *context, uint32_t number) {
  (void)context;
  return number > 0 && number < PAGES && number != 13;
}

static const mv_view view = {&tree, NULL, content, exists};

static void put32(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}

static void interior(uint32_t number, const uint32_t *children, uint32_t count) {
  uint8_t *p = pages[number];
  memset(p, 0, SIZE);
  p[0] = 5;
  p[4] = (uint8_t)(count - 1);
  put32(p + 8, children[count - 1]);
  for (uint32_t i = 0; i + 1 < count; i++) {
    uint32_t at = SIZE - 8 * (i + 1);
    p[12 + 2 * i] = (uint8_t)(at >> 8), p[13 + 2 * i] = (uint8_t)at;
    put32(p + at, children[i]);
  }
}

static void arrives(uint32_t number) {
  is_cached[number] = 1;
  CHECK(mv_tree_note(&tree, number, pages[number], SIZE) == 0);
}

static void start_cold(void) {
  memset(is_cached, 0, sizeof is_cached);
  mv_tree_free(&tree);
}

/* Page 2 over 3..12; page 2 + i over 100 * i .. 100 * i + 29: leaves of no cells. */
static void make_tree(void) {
  uint32_t children[30];
  memset(pages, 0, sizeof pages);
  for (uint32_t i = 1; i <= 10; i++) {
    for (uint32_t j = 0; j < 30; j++) {
      children[j] = 100 * i + j;
      pages[children[j]][0] = 13;
    }
    interior(2 + i, children, 30);
  }
  for (uint32_t i = 0; i < 10; i++) children[i] = 3 + i;
  interior(2, children, 10);
  start_cold();
}

/* What the cache does for a page that SQLite reads; how many were fetched. */
static uint32_t reads(mv_ahead *a, uint32_t number) {
  uint32_t out[MV_AHEAD_PAGES];
  if (is_cached[number]) return 0;
  uint32_t count = mv_ahead_plan(a, &view, number, out, MV_AHEAD_PAGES);
  CHECK(count >= 1 && count <= MV_AHEAD_PAGES && out[0] == number);
  for (uint32_t i = 0; i < count; i++) {
    CHECK(!is_cached[out[i]]); /* nothing that is there, nothing twice */
    arrives(out[i]);
  }
  return count;
}

static void a_path_is_fetched_page_by_page(void) {
  mv_ahead a = {0};
  make_tree();
  CHECK(reads(&a, 2) == 1 && reads(&a, 5) == 1 && reads(&a, 315) == 1);
  CHECK(reads(&a, 9) == 1 && reads(&a, 703) == 1);
  mv_ahead_free(&a);
}

static void a_scan_doubles(int step) {
  mv_ahead a = {0};
  uint32_t calls = 0, fetched = 0, largest = 0;
  make_tree();
  calls += reads(&a, 2) > 0;
  for (uint32_t i = 0; i < 10; i++) {
    uint32_t up = step > 0 ? i + 1 : 10 - i;
    uint32_t n = reads(&a, 2 + up);
    calls += n > 0, fetched += n;
    for (uint32_t j = 0; j < 30; j++) {
      n = reads(&a, 100 * up + (step > 0 ? j : 29 - j));
      calls += n > 0, fetched += n;
      if (n > largest) largest = n;
    }
  }
  CHECK(fetched == 310 && calls <= 12 && largest >= 100);
  mv_ahead_free(&a);
}

static void what_does_not_go_on_does_not_grow(void) {
  mv_ahead a = {0};
  make_tree();
  reads(&a, 2), reads(&a, 3);
  CHECK(reads(&a, 100) == 1 && reads(&a, 101) == 2 && reads(&a, 103) == 4);
  CHECK(reads(&a, 120) == 1); /* elsewhere: a new one */
  CHECK(reads(&a, 121) == 2);
  CHECK(reads(&a, 107) == 8); /* and the first goes on */
  mv_ahead_free(&a);
}

static void look_ups_in_between_do_no_harm(void) {
  mv_ahead a = {0};
  make_tree();
  reads(&a, 2), reads(&a, 3), reads(&a, 7), reads(&a, 8), reads(&a, 9);
  CHECK(reads(&a, 100) == 1);
  CHECK(reads(&a, 517) == 1 && reads(&a, 602) == 1);
  CHECK(reads(&a, 101) == 2);
  CHECK(reads(&a, 629) == 1 && reads(&a, 511) == 1 && reads(&a, 705) == 1);
  CHECK(reads(&a, 103) == 4);
  mv_ahead_free(&a);
}

static void by_number_after_three(void) {
  mv_ahead a = {0};
  make_tree();
  CHECK(reads(&a, 2000) == 1 && reads(&a, 2001) == 1 && reads(&a, 2002) == 2 && reads(&a, 2004) == 4);
  CHECK(reads(&a, 3000) == 1);
  CHECK(reads(&a, 2008) == 8);
  mv_ahead_free(&a);
}

/* Rows with overflow, one to a leaf: the chains of the rows to come advance together. */
static void chains_of_several_rows(void) {
  mv_ahead a = {0};
  uint32_t calls = 0;
  make_tree();
  for (uint32_t j = 0; j < 30; j++) { /* 2000 bytes: in the cell and three overflow pages */
    uint8_t *p = pages[100 + j];
    p[4] = 1, p[8] = 0, p[9] = 20;
    p[20] = 0x8f, p[21] = 0x50, p[22] = 1; /* 2000, row 1 */
    uint32_t least = (SIZE - 12) * 32 / 255 - 23, local = least + (2000 - least) % (SIZE - 4);
    if (local > SIZE - 35) local = least;
    put32(p + 23 + local, 1000 + 7 * j);
    put32(pages[1000 + 7 * j], 1002 + 7 * j);
    put32(pages[1002 + 7 * j], 1001 + 7 * j);
  }
  reads(&a, 2), reads(&a, 3);
  for (uint32_t j = 0; j < 30; j++) {
    calls += reads(&a, 100 + j) > 0;
    for (uint32_t k = 0; k < 3; k++) {
      static const uint32_t order[] = {0, 2, 1};
      calls += reads(&a, 1000 + 7 * j + order[k]) > 0;
    }
  }
  CHECK(calls <= 40); /* of 120 pages */
  mv_ahead_free(&a);
}

/* Content that is no tree, or a circle, ends somewhere. */
static void nonsense(void) {
  mv_ahead a = {0};
  uint32_t round[] = {3, 4, 2}, state = 1;
  make_tree();
  interior(2, round, 3), interior(3, round, 3), interior(4, round, 3);
  for (uint32_t i = 2; i < 9; i++) reads(&a, i);
  start_cold();
  for (uint32_t n = 0; n < PAGES; n++)
    for (uint32_t i = 0; i < SIZE; i++) {
      state = state * 1664525u + 1013904223u;
      pages[n][i] = (uint8_t)(state >> 24);
      if (i == 0) pages[n][0] = "\x02\x05\x0a\x0d"[state >> 16 & 3];
      if (i == 3) pages[n][3] = 0;
      if (i == 12 || i == 14) pages[n][i] &= 1;
    }
  for (uint32_t i = 0; i < 3000; i++) {
    state = state * 1664525u + 1013904223u;
    reads(&a, 1 + (state >> 8) % (PAGES - 1));
  }
  mv_ahead_free(&a);
  mv_tree_free(&tree);
}

/* As many cells as their pointers fill the page with, all of them in the same bytes. */
static void a_page_of_overlapping_cells_has_no_more_children_than_room(void) {
  static const uint8_t types[] = {2, 5, 10, 13};
  start_cold();
  for (uint32_t i = 0; i < 4; i++) {
    uint8_t *p = pages[20 + i];
    memset(p, 0xff, SIZE);
    uint32_t header = types[i] < 10 ? 12 : 8, cells = (SIZE - header) / 2;
    p[0] = types[i];
    p[3] = (uint8_t)(cells >> 8), p[4] = (uint8_t)cells;
    for (uint32_t c = 0; c < cells; c++) p[header + 2 * c] = 0, p[header + 2 * c + 1] = 16;
    arrives(20 + i);
  }
  start_cold();
}

int main(void) {
  a_path_is_fetched_page_by_page();
  a_scan_doubles(1);
  a_scan_doubles(-1);
  what_does_not_go_on_does_not_grow();
  look_ups_in_between_do_no_harm();
  by_number_after_three();
  chains_of_several_rows();
  nonsense();
  a_page_of_overlapping_cells_has_no_more_children_than_room();
  return 0;
}
