/*
 * For extension modules: the core of the installed package jobserver_ffi, without compiling or linking it.
 *
 * jobserver_import(), called when the module is initialised, lets `jobserver` point to the package's functions; then
 * jobserver_token_acquire(...) of jobserver.h is jobserver->token_acquire(...). The pointer is static: each C file that
 * includes this header imports for itself. It needs Python.h before it, and the limited API is enough; nothing in the
 * core includes this.
 *
 * With JOBSERVER_COMPILED_IN defined `jobserver` is the copy of the core that is compiled into the extension.
 */
#ifndef JOBSERVER_IMPORT_H
#define JOBSERVER_IMPORT_H

#ifndef Py_PYTHON_H
#error "include Python.h before jobserver_import.h"
#endif

#include "jobserver_table.h"

static const struct jobserver_table *jobserver;

#ifdef JOBSERVER_COMPILED_IN

/* Returns 0. */
static inline int jobserver_import(void) {
    jobserver = jobserver_functions();
    return 0;
}

/* A client made in Python belongs to another copy of the core: null, with a TypeError. */
static inline jobserver_client *jobserver_client_of(PyObject *client) {
    PyErr_Format(PyExc_TypeError,
                 "this extension has a jobserver core of its own, which cannot use %R: hand it client.auth to open, or "
                 "build it without JOBSERVER_COMPILED_IN",
                 client);
    return NULL;
}

#else

/* The address of the installed package's table, or null with an exception. */
static inline const struct jobserver_table *jobserver_installed_table(void) {
    PyObject *module = PyImport_ImportModule("jobserver_ffi");
    if (module == NULL) {
        return NULL;
    }
    PyObject *address = PyObject_GetAttrString(module, "FUNCTION_TABLE");
    Py_DECREF(module);
    if (address == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(PyExc_ImportError,
                         "this extension needs version %d of jobserver-ffi's function table, and the installed "
                         "jobserver-ffi has none: install a newer jobserver-ffi",
                         JOBSERVER_TABLE_VERSION);
        }
        return NULL;
    }
    const struct jobserver_table *table = (const struct jobserver_table *)PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    return table;
}

/* Returns 0, or -1 with an exception: an ImportError if the installed package is not one that this was built for. */
static inline int jobserver_import(void) {
    const struct jobserver_table *table = jobserver_installed_table();
    if (table == NULL) {
        return -1;
    }
    if (table->version != JOBSERVER_TABLE_VERSION || table->count < JOBSERVER_TABLE_COUNT) {
        int newer = table->version > JOBSERVER_TABLE_VERSION;
        PyErr_Format(
            PyExc_ImportError,
            "this extension was built for version %d of jobserver-ffi's function table (%d functions), and the "
            "installed jobserver-ffi has version %d (%d functions): %s",
            JOBSERVER_TABLE_VERSION, JOBSERVER_TABLE_COUNT, table->version, table->count,
            newer ? "build the extension again with it, or install an older jobserver-ffi"
                  : "install a newer jobserver-ffi, or build the extension again with this one");
        return -1;
    }
    jobserver = table;
    return 0;
}

/*
 * The core's client behind a jobserver_ffi.Client, or null with an exception (ClientClosed, AttributeError). It is the
 * Python object's, which must be kept until a cell, a batch or a hold was made of it: these keep it alive themselves.
 */
static inline jobserver_client *jobserver_client_of(PyObject *client) {
    PyObject *handle = PyObject_GetAttrString(client, "handle");
    if (handle == NULL) {
        return NULL;
    }
    jobserver_client *found = (jobserver_client *)PyLong_AsVoidPtr(handle);
    Py_DECREF(handle);
    return found;
}

#endif

#endif
