/*
** An inbox: where the answers that one thread waits for are put by others, by their numbers.
**
** Called by pagestore/service/strands.py through cffi, and by fdb.c, whose answers come in the client library's
** thread.  The owner has an event loop watch the inbox's descriptor; when it can be read, he takes what came.
**
** 1. To post waits for nobody and needs no interpreter.  Letters are a list that is pushed to by exchanging its
**    head; the owner takes all of it at once.
** 2. Only who posts into an empty inbox wakes the owner, so that many answers cost one wake-up.  The owner reads
**    the descriptor before he takes the list: what is posted after that finds it empty, and wakes him again.
** 3. The inbox belongs to its owner and to each letter that was not posted yet: the last of them frees it, and
**    closes the descriptor, so nobody ever writes to one that means something else by then.  A letter that is
**    never posted, because the process ends, leaves it.
*/
#include "inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/eventfd.h>
#endif

#include "store.h"

struct inbox;

struct mv_letter {
  mv_letter *next;
  struct inbox *inbox;
  uint64_t id;
};

typedef struct inbox {
  _Atomic(mv_letter *) posted; /* newest first */
  mv_letter *taken;            /* the owner's: oldest first */
  atomic_int owners;
  int readable, writable; /* descriptors; the same one, if it is an eventfd */
} inbox;

static inbox *at(uint64_t address) { return (inbox *)(uintptr_t)address; }

#ifdef __linux__
static int open_bell(inbox *box) {
  box->readable = box->writable = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return box->readable >= 0;
}
#else
static int open_bell(inbox *box) {
  int ends[2];
  if (pipe(ends)) return 0;
  for (int i = 0; i < 2; i++) {
    fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    fcntl(ends[i], F_SETFL, O_NONBLOCK);
  }
  box->readable = ends[0];
  box->writable = ends[1];
  return 1;
}
#endif

/* If it can't be written to it is full, and the owner is awake. */
static void ring(const inbox *box) {
  uint64_t one = 1;
  while (write(box->writable, &one, sizeof one) < 0 && errno == EINTR) continue;
}

static void silence(const inbox *box) {
  uint64_t rings[32];
  while (read(box->readable, rings, sizeof rings) < 0 && errno == EINTR) continue;
}

static void forget(mv_letter *letter) {
  while (letter) {
    mv_letter *next = letter->next;
    free(letter);
    letter = next;
  }
}

static void release(inbox *box) {
  if (atomic_fetch_sub(&box->owners, 1) != 1) return;
  forget(atomic_load(&box->posted));
  forget(box->taken);
  close(box->readable);
  if (box->writable != box->readable) close(box->writable);
  free(box);
}

uint64_t mv_inbox_new(void) {
  inbox *box = calloc(1, sizeof *box);
  if (!box) return 0;
  atomic_init(&box->posted, NULL);
  atomic_init(&box->owners, 1);
  if (!open_bell(box)) {
    free(box);
    return 0;
  }
  return (uint64_t)(uintptr_t)box;
}

int mv_inbox_descriptor(uint64_t inbox) { return at(inbox)->readable; }

void mv_inbox_end(uint64_t inbox) { release(at(inbox)); }

/* ---- posting ---- */

mv_letter *mv_letter_new(uint64_t inbox, uint64_t id) {
  mv_letter *letter = malloc(sizeof *letter);
  if (!letter) return NULL;
  *letter = (mv_letter){.next = NULL, .inbox = at(inbox), .id = id};
  atomic_fetch_add(&letter->inbox->owners, 1);
  return letter;
}

void mv_letter_post(mv_letter *letter) {
  inbox *box = letter->inbox;
  mv_letter *head = atomic_load(&box->posted);
  do letter->next = head;
  while (!atomic_compare_exchange_weak(&box->posted, &head, letter));
  if (!head) ring(box); /* the letter may be gone: the owner frees what he took */
  release(box);
}

void mv_letter_drop(mv_letter *letter) {
  inbox *box = letter->inbox;
  free(letter);
  release(box);
}

int mv_inbox_post(uint64_t inbox, uint64_t id) {
  mv_letter *letter = mv_letter_new(inbox, id);
  if (!letter) return 0;
  mv_letter_post(letter);
  return 1;
}

/* ---- taking ---- */

static mv_letter *oldest_first(mv_letter *newest) {
  mv_letter *first = NULL;
  while (newest) {
    mv_letter *older = newest->next;
    newest->next = first;
    first = newest;
    newest = older;
  }
  return first;
}

uint32_t mv_inbox_take(uint64_t inbox, uint64_t *ids, uint32_t room) {
  struct inbox *box = at(inbox);
  uint32_t count = 0;
  if (!box->taken) {
    silence(box);
    box->taken = oldest_first(atomic_exchange(&box->posted, NULL));
  }
  while (box->taken && count < room) {
    mv_letter *letter = box->taken;
    box->taken = letter->next;
    ids[count++] = letter->id;
    free(letter);
  }
  return count;
}
