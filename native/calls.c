/*
** The way into Python; see calls.h for the boundary itself.
**
** An exception that a callback met is noted by mv_set_pending() and becomes the thread's current
** exception when the call is over, if the host's binding looks for one (APSW does, after every SQLite
** call that failed): so it surfaces as itself.  Until the binding looks, SQLite may call us again
** (rollback, unlock, close): an exception that is already pending is put aside during the call.
**
** Python may collect garbage in any call, and find connections and cursors in it:
**
** 1. A call may so begin inside another one on the same thread (another connection closes).  Each has its own
**    noted exception.
** 2. A cursor that is still open must not be reset in the middle of its own connection's commit: SQLite would
**    commit anew, inside FCNTL_SYNC.  So there is no collection during the commit of a connection that has
**    one; others can't be in the way (attached.c, snapshot.c and pages.c look again after a call).
** 3. When the interpreter ends, Python is not called any more: what is open then goes with the process.
*/
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "shim.h"

#include <pthread.h>
#include <string.h>

int mv_py_open(mv_open *args);
void mv_py_close(void *session);
int mv_py_begin(void *session, mv_begin *args);
int mv_py_join(void *session, mv_join *args);
int mv_py_fetch(void *session, mv_fetch *args);
int mv_py_commit(void *session, mv_commit *args);
int mv_py_lease(void *session, mv_lease *args);
int mv_py_renew_lease(void *session, double *seconds);
int mv_py_pragma(void *session, void *file, const char *name, const char *value, char *out, int size);
int mv_py_flush(void *session, const uint8_t *version);
int mv_py_turn(void *session, int take);
void mv_py_failed(void *session, void *file, int code, const char *what);
void mv_py_slow(void *session, const mv_slow *args);

volatile unsigned mv_fork_generation = 0;

static _Thread_local PyObject *noted; /* by the callback that is running; owned */

/* cffi lets go of the GIL around C functions; references are counted under it. */
void mv_set_pending(uint64_t object) {
  PyGILState_STATE gil = PyGILState_Ensure();
  PyObject *before = noted;
  noted = Py_XNewRef((PyObject *)(uintptr_t)object);
  Py_XDECREF(before);
  PyGILState_Release(gil);
}

/* Raise KeyboardInterrupt as soon as the interpreter runs again. */
void mv_interrupt_again(void) { PyErr_SetInterrupt(); }

typedef struct call {
  PyGILState_STATE gil;
  PyObject *type, *value, *traceback;
  PyObject *noted; /* by the call that this one is inside of */
} call;

static call enter(void) {
  call c = {.gil = PyGILState_Ensure(), .noted = noted};
  noted = NULL;
  PyErr_Fetch(&c.type, &c.value, &c.traceback);
  return c;
}

static void leave(const mv_host *host, call c) {
  PyObject *exception = noted;
  noted = c.noted;
  if (c.type) {
    Py_XDECREF(exception);
    PyErr_Restore(c.type, c.value, c.traceback); /* the first one is the cause */
  } else if (exception) {
    if (host->raises) PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else if (PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt))
      PyErr_SetInterrupt(); /* comes again as soon as the binding returns */
    Py_DECREF(exception);
  }
  PyGILState_Release(c.gil);
}

/* Calls with the result code `otherwise` where there is no Python any more. */
#define CALL(host, otherwise, function) \
  int rc = otherwise;                   \
  if (Py_IsInitialized()) {             \
    call c = enter();                   \
    rc = function;                      \
    leave(host, c);                     \
  }

#define CALL_VOID(host, function) \
  if (Py_IsInitialized()) {       \
    call c = enter();             \
    function;                     \
    leave(host, c);               \
  }

int mv_call_open(const mv_host *host, mv_open *args) {
  CALL(host, SQLITE_CANTOPEN, mv_py_open(args))
  return rc;
}

void mv_call_close(const mv_host *host, void *session) { CALL_VOID(host, mv_py_close(session)) }

int mv_call_begin(const mv_host *host, void *session, mv_begin *args) {
  CALL(host, SQLITE_IOERR, mv_py_begin(session, args))
  return rc;
}

int mv_call_join(const mv_host *host, void *session, mv_join *args) {
  CALL(host, SQLITE_IOERR, mv_py_join(session, args))
  return rc;
}

int mv_call_fetch(const mv_host *host, void *session, mv_fetch *args) {
  CALL(host, SQLITE_IOERR, mv_py_fetch(session, args))
  return rc;
}

/* ---- rule 2; what follows is read and written under the GIL ---- */

static int uncollected; /* commits that are going on without the collector */
static int collects;    /* whether it was enabled before the first of them */

static void hold_collector(void) {
  if (uncollected++ == 0) collects = PyGC_Disable();
}

static void let_collector(void) {
  if (--uncollected == 0 && collects) PyGC_Enable();
}

static int commit_uncollected(void *session, mv_commit *args) {
  hold_collector();
  int rc = mv_py_commit(session, args);
  let_collector();
  return rc;
}

int mv_call_commit(const mv_host *host, void *session, mv_commit *args, int has_open_cursors) {
  CALL(host, SQLITE_IOERR, has_open_cursors ? commit_uncollected(session, args) : mv_py_commit(session, args))
  return rc;
}

int mv_call_lease(const mv_host *host, void *session, mv_lease *args) {
  CALL(host, SQLITE_IOERR, mv_py_lease(session, args))
  return rc;
}

int mv_call_renew_lease(const mv_host *host, void *session, double *seconds) {
  CALL(host, SQLITE_IOERR, mv_py_renew_lease(session, seconds))
  return rc;
}

int mv_call_pragma(const mv_host *host, void *session, void *file, const char *name, const char *value,
                   char **result) {
  char text[4096] = "";
  CALL(host, SQLITE_IOERR, mv_py_pragma(session, file, name, value, text, (int)sizeof text))
  if (rc == SQLITE_OK || text[0]) { /* without a text the result has a column without a name: hosts mind that */
    *result = api_mprintf(host->api)("%s", text);
    if (!*result) return SQLITE_NOMEM;
  }
  return rc;
}

int mv_call_flush(const mv_host *host, void *session, const uint8_t *version) {
  call c = enter();
  int rc = mv_py_flush(session, version);
  leave(host, c);
  return rc;
}

int mv_call_turn(const mv_host *host, void *session, int take) {
  CALL(host, SQLITE_IOERR, mv_py_turn(session, take))
  return rc;
}

void mv_call_failed(const mv_host *host, void *session, void *file, int code, const char *what) {
  CALL_VOID(host, mv_py_failed(session, file, code, what))
}

void mv_call_slow(const mv_host *host, void *session, const mv_slow *args) {
  CALL_VOID(host, mv_py_slow(session, args))
}

/* ---- fork ---- */

static void before_fork(void) { mv_files_freeze(1); }
static void in_parent(void) { mv_files_freeze(0); }

static void in_child(void) {
  mv_files_freeze(0);
  mv_fork_generation++;
}

/* Run once, when Python imports the module. */
int mv_setup(void) { return pthread_atfork(before_fork, in_parent, in_child); }
