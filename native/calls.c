/*
** The way into Python; see calls.h for the boundary itself.
**
** An exception that a callback met is noted by mv_set_pending() and becomes the thread's current
** exception when the call is over, if the host's binding looks for one (APSW does, after every SQLite
** call that failed): so it surfaces as itself.  Until the binding looks, SQLite may call us again
** (rollback, unlock, close): an exception that is already pending is put aside during the call.
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
int mv_py_pragma(void *session, void *file, const char *name, const char *value, char *out, int size);
int mv_py_turn(void *session, int take);
void mv_py_failed(void *session, void *file, int code, const char *what);
void mv_py_slow(void *session, const mv_slow *args);

volatile unsigned mv_fork_generation = 0;

static _Thread_local PyObject *noted; /* by the callback that is running; owned */

void mv_set_pending(uint64_t object) {
  Py_XDECREF(noted);
  noted = (PyObject *)(uintptr_t)object;
  Py_XINCREF(noted);
}

/* Raise KeyboardInterrupt as soon as the interpreter runs again. */
void mv_interrupt_again(void) { PyErr_SetInterrupt(); }

typedef struct call {
  PyGILState_STATE gil;
  PyObject *type, *value, *traceback;
} call;

static call enter(void) {
  call c = {PyGILState_Ensure(), NULL, NULL, NULL};
  PyErr_Fetch(&c.type, &c.value, &c.traceback);
  return c;
}

static void leave(const mv_host *host, call c) {
  PyObject *exception = noted;
  noted = NULL;
  if (c.type) {
    PyErr_Restore(c.type, c.value, c.traceback); /* the first one is the cause */
  } else if (exception && host->raises) {
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
  } else if (exception && PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) {
    PyErr_SetInterrupt(); /* comes again as soon as the binding returns */
  }
  Py_XDECREF(exception);
  PyGILState_Release(c.gil);
}

int mv_call_open(const mv_host *host, mv_open *args) {
  call c = enter();
  int rc = mv_py_open(args);
  leave(host, c);
  return rc;
}

void mv_call_close(const mv_host *host, void *session) {
  if (!Py_IsInitialized()) return; /* a connection that outlived the interpreter */
  call c = enter();
  mv_py_close(session);
  leave(host, c);
}

int mv_call_begin(const mv_host *host, void *session, mv_begin *args) {
  call c = enter();
  int rc = mv_py_begin(session, args);
  leave(host, c);
  return rc;
}

int mv_call_join(const mv_host *host, void *session, mv_join *args) {
  call c = enter();
  int rc = mv_py_join(session, args);
  leave(host, c);
  return rc;
}

int mv_call_fetch(const mv_host *host, void *session, mv_fetch *args) {
  call c = enter();
  int rc = mv_py_fetch(session, args);
  leave(host, c);
  return rc;
}

int mv_call_commit(const mv_host *host, void *session, mv_commit *args) {
  call c = enter();
  int rc = mv_py_commit(session, args);
  leave(host, c);
  return rc;
}

int mv_call_lease(const mv_host *host, void *session, mv_lease *args) {
  call c = enter();
  int rc = mv_py_lease(session, args);
  leave(host, c);
  return rc;
}

int mv_call_pragma(const mv_host *host, void *session, void *file, const char *name, const char *value,
                   char **result) {
  char text[4096] = "";
  call c = enter();
  int rc = mv_py_pragma(session, file, name, value, text, (int)sizeof text);
  leave(host, c);
  if (rc == SQLITE_OK || text[0]) { /* without a text the result has a column without a name: hosts mind that */
    *result = api_mprintf(host->api)("%s", text);
    if (!*result) return SQLITE_NOMEM;
  }
  return rc;
}

int mv_call_turn(const mv_host *host, void *session, int take) {
  call c = enter();
  int rc = mv_py_turn(session, take);
  leave(host, c);
  return rc;
}

void mv_call_failed(const mv_host *host, void *session, void *file, int code, const char *what) {
  call c = enter();
  mv_py_failed(session, file, code, what);
  leave(host, c);
}

void mv_call_slow(const mv_host *host, void *session, const mv_slow *args) {
  call c = enter();
  mv_py_slow(session, args);
  leave(host, c);
}

static void in_child(void) { mv_fork_generation++; }

/* Run once, when Python imports the module. */
int mv_setup(void) { return pthread_atfork(NULL, NULL, in_child); }
