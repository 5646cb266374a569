/* Sets and maps of page numbers; see sets.h. */
#include "sets.h"

#include <stdlib.h>
#include <string.h>

#define SMALL 256

static uint32_t mix(uint32_t x) { /* page numbers come in runs: spread them */
  x *= 0x9E3779B1u;
  return x ^ (x >> 15);
}

static uint32_t probe(const uint32_t *slots, uint32_t capacity, uint32_t key) {
  uint32_t i = mix(key) & (capacity - 1);
  while (slots[i] != 0 && slots[i] != key) i = (i + 1) & (capacity - 1);
  return i;
}

static int set_grow(mv_set *s) {
  uint32_t capacity = s->capacity ? s->capacity * 2 : SMALL;
  uint32_t *slots = calloc(capacity, sizeof *slots);
  if (!slots) return -1;
  for (uint32_t i = 0; i < s->capacity; i++)
    if (s->slots[i]) slots[probe(slots, capacity, s->slots[i])] = s->slots[i];
  free(s->slots);
  s->slots = slots;
  s->capacity = capacity;
  return 0;
}

int mv_set_add(mv_set *s, uint32_t number) {
  if (s->count * 3 >= s->capacity * 2 && set_grow(s)) return -1;
  uint32_t i = probe(s->slots, s->capacity, number + 1);
  if (!s->slots[i]) {
    s->slots[i] = number + 1;
    s->count++;
  }
  return 0;
}

int mv_set_add_all(mv_set *s, const mv_set *from) {
  for (uint32_t i = 0; i < from->capacity; i++)
    if (from->slots[i] && mv_set_add(s, from->slots[i] - 1)) return -1;
  return 0;
}

int mv_set_has(const mv_set *s, uint32_t number) {
  return s->count && s->slots[probe(s->slots, s->capacity, number + 1)] != 0;
}

void mv_set_clear(mv_set *s) {
  if (s->capacity > 16 * SMALL) {
    mv_set_free(s);
  } else if (s->count) {
    memset(s->slots, 0, s->capacity * sizeof *s->slots);
    s->count = 0;
  }
}

void mv_set_free(mv_set *s) {
  free(s->slots);
  memset(s, 0, sizeof *s);
}

uint32_t mv_set_pack(const mv_set *s, uint32_t *out) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < s->capacity; i++)
    if (s->slots[i]) out[n++] = s->slots[i] - 1;
  return n;
}

static int map_grow(mv_map *m) {
  uint32_t capacity = m->capacity ? m->capacity * 2 : SMALL;
  uint32_t *keys = calloc(capacity, sizeof *keys);
  void **values = calloc(capacity, sizeof *values);
  if (!keys || !values) {
    free(keys);
    free(values);
    return -1;
  }
  for (uint32_t i = 0; i < m->capacity; i++) {
    if (!m->keys[i]) continue;
    uint32_t j = probe(keys, capacity, m->keys[i]);
    keys[j] = m->keys[i];
    values[j] = m->values[i];
  }
  free(m->keys);
  free(m->values);
  m->keys = keys;
  m->values = values;
  m->capacity = capacity;
  return 0;
}

void **mv_map_at(mv_map *m, uint32_t number) {
  uint32_t i = m->count ? probe(m->keys, m->capacity, number + 1) : 0;
  if (m->count && m->keys[i]) return &m->values[i];
  if (m->count * 3 >= m->capacity * 2 && map_grow(m)) return NULL;
  i = probe(m->keys, m->capacity, number + 1);
  m->keys[i] = number + 1;
  m->values[i] = NULL;
  m->count++;
  return &m->values[i];
}

void *mv_map_get(const mv_map *m, uint32_t number) {
  if (!m->count) return NULL;
  uint32_t i = probe(m->keys, m->capacity, number + 1);
  return m->keys[i] ? m->values[i] : NULL;
}

void mv_map_clear(mv_map *m) {
  if (m->capacity > 16 * SMALL) {
    mv_map_free(m);
  } else if (m->count) {
    memset(m->keys, 0, m->capacity * sizeof *m->keys);
    m->count = 0;
  }
}

void mv_map_free(mv_map *m) {
  free(m->keys);
  free(m->values);
  memset(m, 0, sizeof *m);
}
