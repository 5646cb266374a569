/* The ring of recent changes; see recent.h. */
#include "recent.h"

#include <string.h>

#include "store.h"

/* An entry, in words. */
enum {
  SIZE,            /* of the whole entry */
  STATE,           /* LIVE or VOID */
  NAMESPACE,       /* 64 bits */
  WORD = 4,        /* 64 bits: its head word, odd */
  VERSION = 6,     /* 10 bytes and 2 zero ones */
  BEFORE = 9,      /* likewise */
  NUMBERS = 12,    /* how many pages were written, allocated, freed; then these */
  SMALLEST = 15
};

enum { LIVE = 1, VOID = 2 };

#define LARGEST 2048u                    /* words of an entry */
#define GROUP (MV_RECENT_WORDS / 4)      /* words of a commit's entries */
#define REACH (MV_RECENT_WORDS - GROUP)  /* further back, the next committer may be writing already */

_Static_assert(sizeof(_Atomic uint32_t) == 4 && sizeof(_Atomic uint64_t) == 8, "shared between processes");
_Static_assert(sizeof(mv_recent) == 64 + 4 * MV_RECENT_WORDS, "no holes");

/* Acquire and release: what a reader finds here, he finds before he looks at `sequence` again; what a committer
** puts here, he puts after he made it odd. */
static uint32_t get(const mv_recent *ring, uint64_t at) {
  return atomic_load_explicit(&ring->words[at % MV_RECENT_WORDS], memory_order_acquire);
}

static uint64_t get64(const mv_recent *ring, uint64_t at) {
  return (uint64_t)get(ring, at) | (uint64_t)get(ring, at + 1) << 32;
}

static void put(mv_recent *ring, uint64_t at, uint32_t word) {
  atomic_store_explicit(&ring->words[at % MV_RECENT_WORDS], word, memory_order_release);
}

static void put64(mv_recent *ring, uint64_t at, uint64_t value) {
  put(ring, at, (uint32_t)value);
  put(ring, at + 1, (uint32_t)(value >> 32));
}

static void get_bytes(const mv_recent *ring, uint64_t at, void *out, uint32_t words) {
  for (uint32_t i = 0; i < words; i++) {
    uint32_t word = get(ring, at + i);
    memcpy((uint8_t *)out + 4 * i, &word, 4);
  }
}

static void put_version(mv_recent *ring, uint64_t at, const uint8_t version[10]) {
  uint32_t words[3] = {0};
  memcpy(words, version, 10);
  for (uint32_t i = 0; i < 3; i++) put(ring, at + i, words[i]);
}

/* ---- committers, under the engine's write lock ---- */

static mv_recent *at_address(uint64_t address) { return (mv_recent *)(uintptr_t)address; }

uint64_t mv_recent_size(void) { return sizeof(mv_recent); }

/* Out of everybody's reach: all ask the engine. */
static void skip(mv_recent *ring, uint64_t tail) {
  atomic_store(&ring->group, tail + 2 * MV_RECENT_WORDS);
  atomic_store(&ring->tail, tail + 2 * MV_RECENT_WORDS);
}

/* Rule 2.  0: the ring is not as a committer that died would leave it. */
static int make_void(mv_recent *ring, uint64_t at, uint64_t tail) {
  if (tail - at > GROUP) return 0;
  for (uint32_t size; at < tail; at += size) {
    size = get(ring, at + SIZE);
    if (size < SMALLEST || size > LARGEST) return 0;
    put(ring, at + STATE, VOID);
  }
  return at == tail;
}

/* The ring is this committer's until mv_recent_end, or until he dies.  What to end it with. */
uint64_t mv_recent_begin(uint64_t address) {
  mv_recent *ring = at_address(address);
  uint64_t before = atomic_load(&ring->sequence), odd = (before + 1) | 1, tail = atomic_load(&ring->tail);
  atomic_store(&ring->sequence, odd);
  if (before & 1 && !make_void(ring, atomic_load(&ring->group), tail)) skip(ring, tail);
  else atomic_store(&ring->group, tail);
  return odd;
}

/* One namespace's part of the commit about to be made.  `numbers` as behind the version in packed changes. */
void mv_recent_add(uint64_t address, uint64_t namespace_id, uint64_t word, const uint8_t *version,
                   const uint8_t *before, const uint8_t *numbers, uint32_t length) {
  mv_recent *ring = at_address(address);
  uint64_t at = atomic_load(&ring->tail), group = atomic_load(&ring->group);
  uint32_t size = NUMBERS + length / 4;
  if (size > LARGEST || at - group + size > GROUP) {
    skip(ring, at);
    return;
  }
  put(ring, at + SIZE, size);
  put(ring, at + STATE, LIVE);
  put64(ring, at + NAMESPACE, namespace_id);
  put64(ring, at + WORD, word);
  put_version(ring, at + VERSION, version);
  put_version(ring, at + BEFORE, before);
  for (uint32_t i = 0; i < length / 4; i++) {
    uint32_t number;
    memcpy(&number, numbers + 4 * i, 4);
    put(ring, at + NUMBERS + i, number);
  }
  atomic_store(&ring->tail, at + size);
}

/* The commit is visible.  (Where the next committer has begun, he has made the entries void.) */
void mv_recent_end(uint64_t address, uint64_t odd) {
  mv_recent *ring = at_address(address);
  atomic_compare_exchange_strong(&ring->sequence, &odd, odd + 1);
}

/* ---- readers ---- */

uint64_t mv_recent_tail(const mv_recent *ring) { return atomic_load(&ring->tail); }

typedef struct reading {
  const mv_recent *ring;
  uint64_t namespace_id, newest, newest_word; /* position and head word of its newest entry */
  uint8_t reached[12];                        /* the version that is known so far */
  uint32_t *out, room, used, count;
} reading;

static int later(const uint8_t a[12], const uint8_t b[12]) { return memcmp(a, b, 10) > 0; }

/* Take in the entry at `at`.  Its size, or 0: amiss. */
static uint32_t take(reading *r, uint64_t at) {
  uint32_t size = get(r->ring, at + SIZE);
  uint8_t version[12], before[12];
  if (size < SMALLEST || size > LARGEST) return 0;
  if (get(r->ring, at + STATE) != LIVE || get64(r->ring, at + NAMESPACE) != r->namespace_id) return size;
  r->newest = at;
  r->newest_word = get64(r->ring, at + WORD);
  get_bytes(r->ring, at + VERSION, version, 3);
  get_bytes(r->ring, at + BEFORE, before, 3);
  if (!later(version, r->reached)) return size;
  uint32_t needed = size - NUMBERS + 3;
  if (later(before, r->reached) || needed > r->room - r->used) return 0;
  memcpy(r->out + r->used, version, sizeof version);
  get_bytes(r->ring, at + NUMBERS, r->out + r->used + 3, size - NUMBERS);
  const uint32_t *counts = r->out + r->used + 3;
  if ((uint64_t)counts[0] + counts[1] + counts[2] != size - SMALLEST) return 0;
  memcpy(r->reached, version, sizeof version);
  r->used += needed;
  r->count++;
  return size;
}

uint64_t mv_recent_read(const mv_recent *ring, const _Atomic uint64_t *word, uint64_t *at, uint64_t namespace_id,
                        const uint8_t after[10], uint32_t *out, uint32_t room, uint32_t *count) {
  uint64_t sequence = atomic_load(&ring->sequence), seen = atomic_load(word), tail = atomic_load(&ring->tail);
  uint64_t from = *at;
  reading r = {.ring = ring, .namespace_id = namespace_id, .newest = from, .out = out, .room = room};
  if (sequence & 1 || seen & 1) return 0;
  if (from > tail || tail - from > REACH) {
    *at = tail;
    return 0;
  }
  memcpy(r.reached, after, 10);
  uint32_t size = 1;
  for (; from < tail && size; from += size)
    if ((size = take(&r, from)) > tail - from) size = 0;
  if (atomic_load(&ring->sequence) != sequence) return 0; /* nothing of what was read holds */
  *at = r.newest;
  *count = r.count;
  return size && r.newest_word + 1 == seen ? seen : 0;
}
