/*
** Inboxes, for the C files that post to them (inbox.c; store.h has the functions of who owns one).
**
** A letter is made before anything is set going, so that to post it later can't fail; it has a share in its inbox.
*/
#ifndef MV_INBOX_H
#define MV_INBOX_H

#include <stdint.h>

typedef struct mv_letter mv_letter;

/* One that says `id`.  NULL: no memory. */
mv_letter *mv_letter_new(uint64_t inbox, uint64_t id);
/* From any thread, once: it is the inbox's then. */
void mv_letter_post(mv_letter *letter);
/* One that will not be posted. */
void mv_letter_drop(mv_letter *letter);

#endif
