/* The gate: who waits is woken, and nobody waits for what is over already or longer than he said. */
#include <stdint.h>

#include "../store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "check.h"

#define LONG_US 30000000u
#define ROUNDS 2000u

static uint64_t words[2]; /* one gate there and one back */
static uint64_t there = (uint64_t)(uintptr_t)&words[0], back = (uint64_t)(uintptr_t)&words[1];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void wait_past(uint64_t gate, uint32_t past) {
  for (uint32_t at = mv_gate_look(gate); at <= past;) at = mv_gate_wait(gate, at, LONG_US);
}

static void *other(void *arg) {
  for (uint32_t i = 0; i < ROUNDS; i++) {
    wait_past(there, i);
    mv_gate_open(back);
  }
  return arg;
}

int main(void) {
  uint32_t looked = mv_gate_look(there);
  double start = now();
  CHECK(mv_gate_wait(there, looked, 2000) == looked); /* nobody comes */
  CHECK(now() - start < 5);
  CHECK(mv_gate_wait(there, looked - 1, LONG_US) == looked); /* it was opened since */

  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
  for (uint32_t i = 0; i < ROUNDS; i++) {
    mv_gate_open(there);
    wait_past(back, i);
  }
  pthread_join(thread, NULL);
  CHECK(mv_gate_look(there) == ROUNDS && now() - start < 30);
  return 0;
}
