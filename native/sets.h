/*
** Sets and maps of page numbers: open addressing, power-of-two capacity, grown at 2/3.
** 0 is a legal member, so slots hold number + 1.
*/
#ifndef MV_SETS_H
#define MV_SETS_H

#include <stddef.h>
#include <stdint.h>

typedef struct mv_set {
  uint32_t *slots;
  uint32_t capacity; /* 0 or a power of two */
  uint32_t count;
} mv_set;

int mv_set_add(mv_set *s, uint32_t number);             /* 0, or -1 when out of memory */
int mv_set_add_all(mv_set *s, const mv_set *from);      /* the same */
int mv_set_has(const mv_set *s, uint32_t number);
void mv_set_clear(mv_set *s);                           /* keeps a small allocation for the next use */
void mv_set_free(mv_set *s);
uint32_t mv_set_pack(const mv_set *s, uint32_t *out);   /* writes `count` numbers, unordered */

typedef struct mv_map {
  uint32_t *keys;
  void **values;
  uint32_t capacity;
  uint32_t count;
} mv_map;

void **mv_map_at(mv_map *m, uint32_t number);           /* the value's place, new ones NULL; NULL: no memory */
void *mv_map_get(const mv_map *m, uint32_t number);     /* NULL if absent */
void mv_map_clear(mv_map *m);                           /* forgets; the values are the caller's to free */
void mv_map_free(mv_map *m);

#endif
