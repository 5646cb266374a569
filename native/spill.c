/* See spill.h. */
#include "spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)16 * 1024 * 1024)

#define MOST_TOUCHED 1024u /* each may bring some 64 KiB to memory: what lies around it */

struct mv_spill_chunk {
  mv_spill_chunk *next;
  uint8_t *at;
  size_t used;
};

static int is_usable(const char *folder) {
  struct stat found;
  return folder && *folder && stat(folder, &found) == 0 && S_ISDIR(found.st_mode) && access(folder, W_OK | X_OK) == 0;
}

/* Where SQLite puts its temporary files: https://www.sqlite.org/tempfiles.html#temporary_file_storage_locations */
static const char *folder(void) {
  const char *places[] = {getenv("SQLITE_TMPDIR"), getenv("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (is_usable(places[i])) return places[i];
  return ".";
}

static int open_file(void) {
  const char *place = folder(), *name = "/mvvfs-XXXXXX";
  char *path = malloc(strlen(place) + strlen(name) + 1);
  if (!path) return -1;
  strcpy(path, place);
  strcat(path, name);
  int file = mkostemp(path, O_CLOEXEC);
  if (file >= 0) unlink(path);
  int error = errno;
  free(path);
  errno = error;
  return file;
}

#ifdef __linux__
static int allocate(int file, uint64_t from) {
  int error;
  do error = posix_fallocate(file, (off_t)from, (off_t)CHUNK);
  while (error == EINTR);
  errno = error;
  return error ? -1 : 0;
}
#else
static int allocate(int file, uint64_t from) {
  static const uint8_t zeros[65536];
  for (size_t done = 0; done < CHUNK;) {
    ssize_t written = pwrite(file, zeros, sizeof zeros, (off_t)(from + done));
    if (written > 0) done += (size_t)written;
    else if (written == 0 || errno != EINTR) return -1;
  }
  return 0;
}
#endif

static void *map(int file, uint64_t from) {
  void *at = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)from);
  return at == MAP_FAILED ? NULL : at;
}

/* 0, or -1 */
static int grow(mv_spill *s) {
  if (!s->chunks && (s->file = open_file()) < 0) return -1;
  mv_spill_chunk *chunk = calloc(1, sizeof *chunk);
  if (chunk && allocate(s->file, s->size) == 0) chunk->at = map(s->file, s->size);
  if (!chunk || !chunk->at) {
    int error = errno;
    free(chunk);
    if (!s->chunks) close(s->file);
    errno = error;
    return -1;
  }
  if (s->chunks) madvise(s->chunks->at, CHUNK, MADV_DONTNEED);
  chunk->next = s->chunks;
  s->chunks = chunk;
  s->size += CHUNK;
  return 0;
}

uint8_t *mv_spill_room(mv_spill *s, uint32_t size) {
  if ((!s->chunks || s->chunks->used + size > CHUNK) && grow(s)) return NULL;
  uint8_t *room = s->chunks->at + s->chunks->used;
  s->chunks->used += size;
  return room;
}

void mv_spill_touch(mv_spill *s) {
  if (++s->touched > MOST_TOUCHED) mv_spill_cool(s);
}

/* The mapping is shared: what leaves it is the file's. */
void mv_spill_cool(mv_spill *s) {
  s->touched = 0;
  for (mv_spill_chunk *c = s->chunks; c; c = c->next) madvise(c->at, CHUNK, MADV_DONTNEED);
}

void mv_spill_end(mv_spill *s) {
  if (s->chunks) close(s->file);
  while (s->chunks) {
    mv_spill_chunk *chunk = s->chunks;
    s->chunks = chunk->next;
    munmap(chunk->at, CHUNK);
    free(chunk);
  }
  s->size = 0;
}
