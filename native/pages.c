/* Reading and writing the pages of a database file; see mainfile.h. */
#include "mainfile.h"

#include <stdlib.h>

static const uint8_t zero_header[MV_HEADER_SIZE];

/* From the store.  `*found` is 0 where the page does not exist at the snapshot. */
static int fetch(mv_file *f, uint32_t number, uint8_t *out, uint32_t size, int *found) {
  uint8_t version[MV_VERSION_SIZE];
  mv_version_put(mv_base(f), version);
  mv_fetch args = {.version = version, .numbers = &number, .count = 1, .out = out, .size = size};
  f->stats.fetches++;
  int rc = mv_call_fetch(f->host, f->session, &args);
  *found = args.found;
  return rc;
}

static int scratch(mv_file *f) {
  if (!f->scratch) f->scratch = malloc(65536);
  return f->scratch ? SQLITE_OK : SQLITE_NOMEM;
}

/* The page's bytes as stored, from the cache or the store. */
static int stored(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount, int *found) {
  *found = 1;
  if (mv_db_copy(f->db, number, mv_base(f), out, offset, amount)) {
    f->stats.cache_hits++;
    return SQLITE_OK;
  }
  if (offset == 0 && amount == f->page_size) return fetch(f, number, out, amount, found);
  int rc = scratch(f);
  if (rc == SQLITE_OK) rc = fetch(f, number, f->scratch, f->page_size, found);
  if (rc == SQLITE_OK && *found) memcpy(out, f->scratch + offset, amount);
  return rc;
}

/* Page count and freelist at the snapshot; zeros while the database is empty. */
int mv_load_header(mv_file *f) {
  int found = 1;
  if (mv_db_copy(f->db, MV_HEADER_PAGE, mv_base(f), f->header, 0, MV_HEADER_SIZE)) return SQLITE_OK;
  int rc = fetch(f, MV_HEADER_PAGE, f->header, MV_HEADER_SIZE, &found);
  if (rc != SQLITE_OK || !found) memcpy(f->header, zero_header, MV_HEADER_SIZE);
  return rc;
}

/* Whether a page is a leaf of the freelist at the snapshot.  SQLite never writes the content of a page
** that it allocated and freed again, so only such a page may be missing (rule 23: it reads as zeros; a
** missing page in use is damage).  Walks the trunks (https://www.sqlite.org/fileformat2.html#the_freelist). */
static int is_free_leaf(mv_file *f, uint32_t number, int *is_free) {
  uint32_t trunk = mv_be32(f->header + 4), left = mv_be32(f->header + 8);
  uint8_t *page = malloc(f->page_size);
  int rc = page ? SQLITE_OK : SQLITE_NOMEM;
  *is_free = 0;
  while (rc == SQLITE_OK && trunk != 0 && left-- > 0 && !*is_free) {
    int found;
    rc = stored(f, trunk, page, 0, f->page_size, &found);
    if (rc != SQLITE_OK || !found) break;
    uint32_t leaves = mv_be32(page + 4);
    if (leaves > f->page_size / 4 - 2) break;
    for (uint32_t i = 0; i < leaves && !*is_free; i++) *is_free = mv_be32(page + 8 + 4 * i) == number;
    trunk = mv_be32(page);
  }
  free(page);
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

static int missing(mv_file *f, uint32_t number, uint8_t *out, uint32_t amount) {
  int is_free = 0;
  int rc = number == 1 ? SQLITE_OK : is_free_leaf(f, number, &is_free);
  if (rc != SQLITE_OK) return rc;
  if (!is_free) return mv_fail(f, SQLITE_CORRUPT, "a page in use is missing from the store");
  memset(out, 0, amount);
  return SQLITE_OK;
}

int mv_page_read(mv_file *f, uint32_t number, uint8_t *out, uint32_t offset, uint32_t amount) {
  f->stats.pages_read++;
  mv_page *own = mv_map_get(&f->writes, number);
  if (own) { /* spilled from SQLite's cache in this transaction */
    memcpy(out, own->data + offset, amount);
    return SQLITE_OK;
  }
  if (number > mv_shown_pages(f)) {
    memset(out, 0, amount);
    return SQLITE_IOERR_SHORT_READ;
  }
  if (f->stale.count && mv_set_has(&f->stale, number))
    return mv_fail(f, SQLITE_BUSY_SNAPSHOT,
                   "a cursor that was open across a commit needs a page that another commit changed: "
                   "close it and start a new transaction");
  if (!f->pinned && mv_set_add(&f->reads, number)) return SQLITE_NOMEM;
  int found;
  if (number == 1 && offset >= 24 && offset + amount <= 40) { /* at every SHARED: all of it is at hand */
    dress_page_1(f, out, offset, amount);
    return SQLITE_OK;
  }
  int rc = stored(f, number, out, offset, amount, &found);
  if (rc == SQLITE_OK && !found) rc = missing(f, number, out, amount);
  if (rc == SQLITE_OK && number == 1) dress_page_1(f, out, offset, amount);
  return rc;
}

int mv_page_write(mv_file *f, const void *in, int amount, sqlite3_int64 offset) {
  uint32_t size = f->page_size ? f->page_size : (uint32_t)amount;
  if ((uint32_t)amount != size || offset % amount || amount < 512 || amount > 65536)
    return mv_fail(f, SQLITE_IOERR_WRITE, "the page size of a database can't be changed");
  uint32_t number = (uint32_t)(offset / amount) + 1;
  mv_page **at = (mv_page **)mv_map_at(&f->writes, number);
  if (!at) return SQLITE_NOMEM;
  if (!*at && !(*at = mv_page_new(number, size))) return SQLITE_NOMEM;
  memcpy((*at)->data, in, size);
  f->page_size = size;
  if (number > f->highest_write) f->highest_write = number;
  return SQLITE_OK;
}

void mv_drop_writes(mv_file *f) {
  for (uint32_t i = 0; i < f->writes.capacity; i++)
    if (f->writes.keys[i]) free(f->writes.values[i]);
  mv_map_clear(&f->writes);
  f->highest_write = 0;
}
