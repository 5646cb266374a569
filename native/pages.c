/* Reading and writing the pages of a database file; see mainfile.h. */
#include "mainfile.h"

#include <errno.h>
#include <stdlib.h>

/* From the store, perhaps with pages that will be wanted next.  `*found` is 0 where the page does not exist at
** the snapshot. */
static int fetch(mv_file *f, uint32_t number, uint8_t *out, uint32_t size, int *found) {
  uint8_t version[MV_VERSION_SIZE];
  mv_version_put(mv_base(f), version);
  uint32_t numbers[MV_AHEAD_PAGES] = {number}, count = 1;
  if (f->read_ahead) count = mv_db_plan(f->db, &f->ahead, number, mv_base(f), f->alloc, numbers);
  mv_fetch args = {.version = version, .numbers = numbers, .count = count, .out = out, .size = size};
  f->stats.fetches++;
  f->stats.pages_fetched += args.count;
  int rc = mv_call_fetch(f->host, f->session, &args);
  *found = args.found;
  return rc;
}

/* The bytes of an allocated page as stored, from the cache or the store. */
int mv_stored(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount) {
  int found, rc;
  if (mv_db_copy(f->db, number, mv_base(f), out, offset, amount)) {
    f->stats.cache_hits++;
    return SQLITE_OK;
  }
  if (offset == 0 && amount == f->page_size) {
    rc = fetch(f, number, out, amount, &found);
  } else {
    if (!f->scratch && !(f->scratch = malloc(MV_LARGEST_PAGE))) return SQLITE_NOMEM;
    rc = fetch(f, number, f->scratch, f->page_size, &found);
    if (rc == SQLITE_OK && found) memcpy(out, f->scratch + offset, amount);
  }
  if (rc == SQLITE_OK && !found) return mv_fail(f, SQLITE_CORRUPT, "a page in use is missing from the store");
  return rc;
}

static void copy_overlap(uint8_t *out, uint32_t offset, uint32_t amount, const uint8_t *field, uint32_t at,
                         uint32_t size) {
  for (uint32_t i = 0; i < size; i++)
    if (at + i >= offset && at + i < offset + amount) out[at + i - offset] = field[i];
}

/* Page 1 as shown: the fields that are stored elsewhere, or not at all (rule 12). */
static void dress_page_1(const mv_file *f, uint8_t *out, uint32_t offset, uint32_t amount) {
  uint8_t field[4];
  mv_put32(field, f->counter);
  copy_overlap(out, offset, amount, field, 24, 4);
  copy_overlap(out, offset, amount, f->header, 28, MV_HEADER_SIZE);
  copy_overlap(out, offset, amount, field, 92, 4); /* version-valid-for: the page count is to be trusted */
  mv_put32(field, (uint32_t)api_libversion_number(f->host->api));
  copy_overlap(out, offset, amount, field, 96, 4);
}

int mv_page_read(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount) {
  f->stats.pages_read++;
  mv_page *own = mv_map_get(&f->writes, number);
  if (own) { /* spilled from SQLite's cache in this transaction */
    if (own->spilled) mv_spill_touch(&f->spill);
    memcpy(out, own->data + offset, amount);
    return SQLITE_OK;
  }
  if (number > mv_shown_pages(f)) {
    memset(out, 0, amount);
    return SQLITE_IOERR_SHORT_READ;
  }
  if (f->stale.count && (mv_set_has(&f->stale, number) || mv_set_has(&f->stale, MV_EVERYTHING)))
    return mv_fail(f, SQLITE_BUSY_SNAPSHOT,
                   "a cursor that was open across a commit needs a page that another commit changed: "
                   "close it and start a new transaction");
  if (number == f->list.pending || !mv_alloc_has(f->alloc, number))
    return mv_free_page_read(f, number, out, offset, amount);
  if (!f->pinned && mv_set_add(&f->reads, number)) return SQLITE_NOMEM;
  if (number == 1 && offset >= 24 && offset + amount <= 40) { /* at every SHARED: all of it is at hand */
    dress_page_1(f, out, offset, amount);
    return SQLITE_OK;
  }
  int rc = mv_stored(f, number, out, offset, amount);
  if (rc == SQLITE_OK && number == 1) dress_page_1(f, out, offset, amount);
  return rc;
}

static int new_page(mv_file *f, uint32_t number, uint32_t size, mv_page **out) {
  if ((uint64_t)f->writes.count * size <= f->spill_bytes)
    return (*out = mv_page_new(number, size)) ? SQLITE_OK : SQLITE_NOMEM;
  uint8_t *room = mv_spill_room(&f->spill, size);
  if (room) return (*out = mv_page_spilled(number, size, room)) ? SQLITE_OK : SQLITE_NOMEM;
  if (errno == ENOMEM) return SQLITE_NOMEM;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
    return mv_fail(f, SQLITE_FULL, "no room in the folder for temporary files, where a large transaction is kept");
  return mv_fail(f, SQLITE_IOERR_WRITE, "can't make a temporary file for a large transaction");
}

int mv_page_write(mv_file *f, const void *in, int amount, sqlite3_int64 offset) {
  uint32_t size = f->page_size ? f->page_size : (uint32_t)amount;
  if (amount < MV_SMALLEST_PAGE || amount > MV_LARGEST_PAGE || (uint32_t)amount != size || offset % amount)
    return mv_fail(f, SQLITE_IOERR_WRITE, "the page size of a database can't be changed");
  if (offset < 0 || offset / amount >= MV_HIGHEST_PAGE)
    return mv_fail(f, SQLITE_IOERR_WRITE, "a write outside of any database");
  uint32_t number = (uint32_t)(offset / amount) + 1;
  mv_page **at = (mv_page **)mv_map_at(&f->writes, number);
  if (!at) return SQLITE_NOMEM;
  int rc = *at ? SQLITE_OK : new_page(f, number, size, at);
  if (rc != SQLITE_OK) return rc;
  if ((*at)->spilled) mv_spill_touch(&f->spill);
  memcpy((*at)->data, in, size);
  f->page_size = size;
  if (number > f->highest_write) f->highest_write = number;
  return SQLITE_OK;
}

void mv_drop_writes(mv_file *f) {
  for (uint32_t i = 0; i < f->writes.capacity; i++)
    if (f->writes.keys[i]) free(f->writes.values[i]);
  mv_map_clear(&f->writes);
  mv_spill_end(&f->spill);
  f->highest_write = 0;
}
