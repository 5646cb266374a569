/* Inboxes: nothing is lost among many who post, order, wake-ups, and who outlives whom. */
#include "../inbox.h"
#include "../store.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "check.h"

enum { POSTERS = 4, EACH = 20000 };

static uint64_t box;

static int rings(int ms) {
  struct pollfd bell = {.fd = mv_inbox_descriptor(box), .events = POLLIN};
  return poll(&bell, 1, ms) == 1;
}

static void in_order_and_one_ring_for_many(void) {
  uint64_t ids[4];
  box = mv_inbox_new();
  CHECK(box && !rings(0) && mv_inbox_take(box, ids, 4) == 0);
  for (uint64_t id = 1; id <= 6; id++) CHECK(mv_inbox_post(box, id));
  CHECK(rings(0));
  CHECK(mv_inbox_take(box, ids, 4) == 4 && ids[0] == 1 && ids[3] == 4);
  CHECK(!rings(0)); /* what is left is the owner's: he takes again where his room was filled */
  CHECK(mv_inbox_post(box, 7) && rings(0));
  CHECK(mv_inbox_take(box, ids, 4) == 2 && ids[0] == 5 && ids[1] == 6);
  CHECK(rings(0) && mv_inbox_take(box, ids, 4) == 1 && ids[0] == 7);
  CHECK(!rings(0) && mv_inbox_take(box, ids, 4) == 0);
  mv_inbox_end(box);
}

static void *posts(void *arg) {
  uint64_t first = *(uint64_t *)arg * EACH;
  for (uint64_t i = 0; i < EACH; i++) CHECK(mv_inbox_post(box, first + i));
  return NULL;
}

static void many_post_and_nothing_is_lost(void) {
  static unsigned char came[POSTERS * EACH];
  uint64_t last[POSTERS] = {0}, numbers[POSTERS], ids[100];
  pthread_t threads[POSTERS];
  box = mv_inbox_new();
  for (uint64_t i = 0; i < POSTERS; i++) {
    numbers[i] = i;
    CHECK(pthread_create(&threads[i], NULL, posts, &numbers[i]) == 0);
  }
  for (uint32_t all = 0; all < POSTERS * EACH;) {
    CHECK(rings(10000)); /* a lost ring is found here */
    uint32_t count;
    do {
      count = mv_inbox_take(box, ids, 100);
      for (uint32_t i = 0; i < count; i++) {
        CHECK(ids[i] < POSTERS * EACH && !came[ids[i]]);
        came[ids[i]] = 1;
        CHECK(ids[i] % EACH == 0 || last[ids[i] / EACH] < ids[i]); /* of each who posts, in his order */
        last[ids[i] / EACH] = ids[i];
      }
      all += count;
    } while (count == 100);
  }
  for (int i = 0; i < POSTERS; i++) pthread_join(threads[i], NULL);
  mv_inbox_end(box);
}

static void *posts_late(void *letter) {
  usleep(10000);
  mv_letter_post(letter);
  return NULL;
}

static void a_letter_outlives_the_owner(void) {
  box = mv_inbox_new();
  int descriptor = mv_inbox_descriptor(box);
  mv_letter *letter = mv_letter_new(box, 1), *another = mv_letter_new(box, 2);
  CHECK(letter && another && mv_inbox_post(box, 3)); /* one that is never taken */
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, posts_late, letter) == 0);
  mv_inbox_end(box);
  char none;
  CHECK(read(descriptor, &none, 0) == 0 || errno != EBADF); /* still open: nobody else is given it */
  pthread_join(thread, NULL);
  mv_letter_drop(another);
  CHECK(read(descriptor, &none, 1) < 0 && errno == EBADF);
}

int main(void) {
  in_order_and_one_ring_for_many();
  many_post_and_nothing_is_lost();
  a_letter_outlives_the_owner();
  return 0;
}
