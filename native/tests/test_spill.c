/* A temporary file: what lies there stays, also where it left memory; a full disk is an error. */
#include "../spill.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"

#define SIZE 65536u
#define COUNT 600u /* more than two chunks */

static uint8_t *rooms[COUNT];

static void fill(mv_spill *s) {
  for (uint32_t i = 0; i < COUNT; i++) {
    CHECK((rooms[i] = mv_spill_room(s, SIZE)));
    memset(rooms[i], (int)(i & 0xFF), SIZE);
  }
}

static void holds(void) {
  for (uint32_t i = 0; i < COUNT; i++)
    for (uint32_t at = 0; at < SIZE; at += 4095) CHECK(rooms[i][at] == (i & 0xFF));
}

static int descriptors(void) {
  int count = 0;
  for (int i = 0; i < 64; i++) count += dup2(i, i) == i;
  return count;
}

static void what_is_written_stays(void) {
  mv_spill s = {0};
  int before = descriptors();
  fill(&s);
  CHECK(s.size > (uint64_t)COUNT * SIZE && descriptors() == before + 1);
  mv_spill_cool(&s);
  holds();
  for (uint32_t i = 0; i < 5000; i++) {
    mv_spill_touch(&s);
    rooms[i % COUNT][7] = 1;
  }
  for (uint32_t i = 0; i < COUNT; i++) {
    CHECK(rooms[i][7] == 1);
    rooms[i][7] = (uint8_t)(i & 0xFF);
  }
  holds();
  mv_spill_end(&s);
  CHECK(!s.chunks && !s.size && descriptors() == before);
  mv_spill_end(&s);
  fill(&s); /* and again */
  holds();
  mv_spill_end(&s);
}

static void nothing_is_left_in_the_folder(void) {
  char folder[] = "/tmp/mvvfs-test-XXXXXX";
  CHECK(mkdtemp(folder));
  setenv("SQLITE_TMPDIR", folder, 1);
  mv_spill s = {0};
  CHECK(mv_spill_room(&s, SIZE));
  DIR *found = opendir(folder);
  int entries = 0;
  while (readdir(found)) entries++;
  closedir(found);
  CHECK(entries == 2); /* itself and its parent */
  CHECK(rmdir(folder) == 0);
  mv_spill_end(&s);
  CHECK(mv_spill_room(&s, SIZE)); /* the folder is gone: the next one serves */
  mv_spill_end(&s);
  unsetenv("SQLITE_TMPDIR");
}

static void no_room_is_an_error(void) {
  mv_spill s = {0};
  struct rlimit limit;
  int before = descriptors();
  signal(SIGXFSZ, SIG_IGN);
  CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  rlim_t usual = limit.rlim_cur;
  limit.rlim_cur = 1 << 20;
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  CHECK(!mv_spill_room(&s, SIZE) && errno == EFBIG && !s.chunks && descriptors() == before);
  limit.rlim_cur = 20 << 20; /* room for one chunk */
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  uint32_t count = 0;
  while ((rooms[count] = mv_spill_room(&s, SIZE))) memset(rooms[count], (int)(count & 0xFF), SIZE), count++;
  CHECK(count == 256 && errno == EFBIG);
  for (uint32_t i = 0; i < count; i++) CHECK(rooms[i][SIZE - 1] == (i & 0xFF));
  limit.rlim_cur = usual;
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  CHECK(mv_spill_room(&s, SIZE));
  mv_spill_end(&s);
}

int main(void) {
  what_is_written_stays();
  nothing_is_left_in_the_folder();
  no_room_is_an_error();
  return 0;
}
