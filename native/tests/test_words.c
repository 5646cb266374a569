/* Head words, with committers and a reader on threads: even and unmoved means nothing was committed. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "../store.h"

#include "check.h"

#define COMMITTERS 4
#define COMMITS 20000

static _Alignas(8) uint64_t memory;
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint committed, finished;

static void one_after_the_other(void) {
  uint64_t word = 0, address = (uint64_t)(uintptr_t)&word;
  mv_word_start(address);
  mv_word_start(address);
  CHECK(mv_word_load(address) == 2);
  CHECK(mv_word_begin(address) == 3);
  mv_word_end(address, 3);
  CHECK(mv_word_load(address) == 4);
  CHECK(mv_word_begin(address) == 5); /* dies */
  CHECK(mv_word_begin(address) == 7);
  mv_word_end(address, 5); /* was only slow */
  CHECK(mv_word_load(address) == 7);
  mv_word_end(address, 7);
  CHECK(mv_word_load(address) == 8);
}

static void *commit(void *address) {
  for (int i = 0; i < COMMITS; i++) {
    pthread_mutex_lock(&write_lock);
    uint64_t odd = mv_word_begin((uint64_t)(uintptr_t)address);
    atomic_fetch_add(&committed, 1); /* visible */
    pthread_mutex_unlock(&write_lock);
    mv_word_end((uint64_t)(uintptr_t)address, odd);
  }
  atomic_fetch_add(&finished, 1);
  return 0;
}

static void a_still_word_means_nothing_new(void) {
  uint64_t address = (uint64_t)(uintptr_t)&memory;
  pthread_t threads[COMMITTERS];
  mv_word_start(address);
  for (int i = 0; i < COMMITTERS; i++) CHECK(pthread_create(&threads[i], 0, commit, &memory) == 0);
  while (atomic_load(&finished) < COMMITTERS) {
    uint64_t before = mv_word_load(address);
    unsigned seen = atomic_load(&committed), again = atomic_load(&committed);
    if (before % 2 == 0 && mv_word_load(address) == before) CHECK(seen == again);
  }
  for (int i = 0; i < COMMITTERS; i++) pthread_join(threads[i], 0);
  CHECK(mv_word_load(address) % 2 == 0);
  CHECK(atomic_load(&committed) == COMMITTERS * COMMITS);
}

int main(void) {
  one_after_the_other();
  a_still_word_means_nothing_new();
  return 0;
}
