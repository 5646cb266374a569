/* Recent changes: committers that come, die and overtake each other; readers who must see all or be told no. */
#include <stdint.h>

#include "../recent.h"
#include "../store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

#define NS 7u
#define OTHER 8u
#define ROOM 1024u
#define COMMITS 8000u

static mv_recent *ring;
static _Atomic uint64_t words[2]; /* head words of NS and OTHER */
static uint64_t address;

static void bytes_of(uint64_t n, uint8_t out[10]) {
  memset(out, 0, 10);
  for (int i = 9; n; i--, n >>= 8) out[i] = (uint8_t)n;
}

static uint64_t number_of(const void *version) {
  uint64_t n = 0;
  for (int i = 0; i < 10; i++) n = n << 8 | ((const uint8_t *)version)[i];
  return n;
}

/* One page, of this number, written and allocated, `extra` of it freed. */
static void add(uint64_t namespace_id, uint64_t word, uint64_t version, uint64_t before, uint32_t page,
                uint32_t extra) {
  uint8_t v[10], b[10];
  uint32_t length = (5 + extra) * 4, *numbers = malloc(length);
  numbers[0] = numbers[1] = 1, numbers[2] = extra;
  for (uint32_t i = 0; i < 2 + extra; i++) numbers[3 + i] = page;
  bytes_of(version, v), bytes_of(before, b);
  mv_recent_add(address, namespace_id, word, v, b, (const uint8_t *)numbers, length);
  free(numbers);
}

static uint64_t begin_word(_Atomic uint64_t *word) {
  uint64_t odd = (atomic_load(word) + 1) | 1;
  atomic_store(word, odd);
  return odd;
}

static void end_word(_Atomic uint64_t *word, uint64_t odd) { atomic_compare_exchange_strong(word, &odd, odd + 1); }

static void commit(uint64_t namespace_id, uint64_t version, uint64_t before, uint32_t page, uint32_t extra) {
  uint64_t told = mv_recent_begin(address), odd = begin_word(&words[namespace_id - NS]);
  add(namespace_id, odd, version, before, page, extra);
  mv_recent_end(address, told);
  end_word(&words[namespace_id - NS], odd);
}

static uint64_t at;

static int64_t read_after(uint64_t after, uint32_t *out) {
  uint8_t v[10];
  uint32_t count = 0;
  bytes_of(after, v);
  return mv_recent_read(ring, &words[0], &at, NS, v, out, ROOM, &count) ? (int64_t)count : -1;
}

static void start_anew(uint64_t word) {
  memset((void *)ring, 0, sizeof *ring);
  atomic_store(&words[0], word);
  atomic_store(&words[1], word);
  at = 0;
}

static void by_the_rules(void) {
  uint32_t out[ROOM];
  start_anew(2);
  CHECK(read_after(10, out) == -1); /* nothing says that nothing was committed */
  commit(NS, 12, 10, 3, 1);
  commit(OTHER, 13, 9, 4, 0);
  commit(NS, 15, 12, 5, 0);
  CHECK(read_after(10, out) == 2);
  static const uint32_t counts[] = {1, 1, 1, 3, 3, 3}, next[] = {1, 1, 0, 5, 5};
  CHECK(number_of(out) == 12 && memcmp(out + 3, counts, sizeof counts) == 0);
  CHECK(number_of(out + 9) == 15 && memcmp(out + 12, next, sizeof next) == 0);
  CHECK(read_after(12, out) == 1 && number_of(out) == 15);
  CHECK(read_after(15, out) == 0);
  CHECK(read_after(16, out) == 0);
  at = 0;
  CHECK(read_after(9, out) == -1); /* the commit before is not there */
  commit(NS, 20, 18, 3, 0);        /* someone committed 18 and left nothing */
  CHECK(read_after(15, out) == -1 && read_after(17, out) == -1);
  CHECK(read_after(18, out) == 1);
  end_word(&words[0], begin_word(&words[0])); /* and again, after it */
  CHECK(read_after(20, out) == -1);
}

static void the_dead_are_not_believed(void) {
  uint32_t out[ROOM];
  start_anew(2);
  commit(NS, 12, 10, 3, 0);
  uint64_t told = mv_recent_begin(address), odd = begin_word(&words[0]);
  CHECK(read_after(10, out) == -1); /* odd */
  add(NS, odd, 13, 12, 666, 0);
  CHECK(read_after(10, out) == -1);
  commit(OTHER, 13, 9, 4, 0); /* the dead one's was never committed */
  CHECK(read_after(12, out) == -1);
  commit(NS, 14, 12, 5, 0);
  CHECK(read_after(10, out) == 2 && out[6] == 3 && out[14] == 5);
  mv_recent_end(address, told); /* it was only slow */
  end_word(&words[0], odd);
  CHECK(read_after(12, out) == 1 && out[6] == 5);
}

/* Its head word is even again, as another committer's end may make it, and still nobody can say. */
static void before_it_is_ended(void) {
  uint32_t out[ROOM];
  start_anew(2);
  uint64_t told = mv_recent_begin(address), odd = begin_word(&words[0]);
  add(NS, odd, 12, 10, 3, 0);
  end_word(&words[0], odd);
  CHECK(read_after(10, out) == -1);
  mv_recent_end(address, told);
  CHECK(read_after(10, out) == 1);
}

static void too_large_or_too_far(void) {
  uint32_t out[ROOM];
  start_anew(2);
  commit(NS, 12, 10, 3, 0);
  CHECK(read_after(10, out) == 1);
  commit(NS, 13, 12, 3, 5000);
  CHECK(read_after(12, out) == -1);
  commit(NS, 14, 13, 3, 0);
  CHECK(read_after(12, out) == -1 && read_after(13, out) == 1);
  commit(NS, 15, 14, 3, ROOM);
  CHECK(read_after(14, out) == -1 && read_after(15, out) == 0);
  uint64_t version = 15;
  for (uint32_t i = 0; i < MV_RECENT_WORDS / 17; i++, version++) commit(NS, version + 1, version, 3, 0);
  CHECK(read_after(15, out) == -1);
  commit(NS, version + 1, version, 3, 0);
  CHECK(read_after(version, out) == 1);
}

/* As a power cut, or another release, may leave it: no crash, no endless loop, and good again later on. */
static void garbage(void) {
  uint32_t out[ROOM], state = 1;
  for (int round = 0; round < 300; round++) {
    start_anew(2);
    for (uint32_t i = 0; i < sizeof *ring / 4; i++) {
      state = state * 1664525u + 1013904223u;
      ((uint32_t *)(void *)ring)[i] = state >> (i % 7 * 4);
    }
    if (round % 2) atomic_store(&ring->sequence, 1);
    if (round % 3) atomic_store(&ring->tail, state >> 20);
    if (round % 5) atomic_store(&ring->group, (state >> 20) - state % 3000);
    at = mv_recent_tail(ring);
    CHECK(read_after(10, out) == -1);
    commit(NS, 12, 10, 3, 0);
    int64_t count = read_after(10, out);
    CHECK(count == -1 || (count == 1 && out[6] == 3));
    commit(NS, 13, 12, 4, 0);
    if (round % 3) CHECK(read_after(12, out) == 1 && out[6] == 4);
  }
}

/* ---- threads: the write lock, an engine, and readers ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t content[COMMITS + 2]; /* of each committed version */
static _Atomic uint64_t engine, newest;       /* newest version of all, and of NS */
static atomic_uint told_some;

static uint32_t below(uint32_t *state, uint32_t n) {
  *state = *state * 1664525u + 1013904223u;
  return (*state >> 8) % n;
}

static void *committer(void *arg) {
  uint32_t state = *(uint32_t *)arg;
  for (int running = 1; running;) {
    pthread_mutex_lock(&lock);
    uint64_t version = atomic_load(&engine) + 1, before = atomic_load(&newest);
    uint32_t page = 1 + below(&state, 1000000), fate = below(&state, 50), namespace_id = NS + !below(&state, 5);
    running = version < COMMITS;
    if (running) {
      uint64_t told = mv_recent_begin(address), odd = begin_word(&words[namespace_id - NS]);
      if (fate != 1) add(namespace_id, odd, version, namespace_id == NS ? before : 0, page, below(&state, 20));
      if (fate != 0) { /* 0: dies before */
        if (namespace_id == NS) {
          atomic_store(&content[version], page);
          atomic_store(&newest, version);
        }
        atomic_store(&engine, version);
      }
      if (fate == 2) { /* the lock is free before its words are */
        pthread_mutex_unlock(&lock);
        for (uint32_t i = below(&state, 2000); i > 0; i--) atomic_load(&engine);
      }
      if (fate != 0 && fate != 3) { /* 3: dies after */
        mv_recent_end(address, told);
        end_word(&words[namespace_id - NS], odd);
      }
    }
    if (!running || fate != 2) pthread_mutex_unlock(&lock);
    nanosleep(&(struct timespec){.tv_nsec = below(&state, 30000)}, NULL); /* let the readers keep up */
  }
  return arg;
}

static void *reader(void *arg) {
  uint32_t out[ROOM], count;
  uint64_t from = 0, stand = 0;
  uint8_t v[10];
  while (atomic_load(&engine) + 1 < COMMITS) {
    uint64_t least = atomic_load(&newest);
    bytes_of(stand, v);
    if (!mv_recent_read(ring, &words[0], &from, NS, v, out, ROOM, &count)) {
      stand = atomic_load(&newest); /* asks the engine */
      continue;
    }
    const uint32_t *at_ = out;
    for (uint32_t i = 0; i < count; i++, at_ += 6 + at_[3] + at_[4] + at_[5]) {
      uint64_t version = number_of(at_);
      CHECK(version > stand && version < COMMITS);
      for (uint64_t between = stand + 1; between < version; between++) CHECK(!atomic_load(&content[between]));
      CHECK(at_[6] == atomic_load(&content[version]));
      stand = version;
    }
    CHECK(stand >= least);
    atomic_fetch_add(&told_some, count);
  }
  return arg;
}

static void threads(void) {
  pthread_t all[5];
  uint32_t seeds[2] = {1, 2};
  start_anew(2);
  for (int i = 0; i < 2; i++) pthread_create(&all[i], NULL, committer, &seeds[i]);
  for (int i = 2; i < 5; i++) pthread_create(&all[i], NULL, reader, NULL);
  for (int i = 0; i < 5; i++) pthread_join(all[i], NULL);
  CHECK(atomic_load(&told_some) > 20);
}

int main(void) {
  CHECK(mv_recent_size() == sizeof *ring);
  ring = malloc(sizeof *ring);
  address = (uint64_t)(uintptr_t)ring;
  by_the_rules();
  the_dead_are_not_believed();
  before_it_is_ended();
  too_large_or_too_far();
  garbage();
  threads();
  free(ring);
  return 0;
}
