/* Holds a token of a jobserver's fifo or pipe while it calls a function. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "jobserver_import.h"

/* A client for an address as make hands it out, or a negated errno. */
static int open_auth(const char *auth, jobserver_client **client) {
    int read_fd, write_fd;
    if (strncmp(auth, "fifo:", 5) == 0) {
        return jobserver->client_open_path(auth + 5, client);
    }
    if (sscanf(auth, "%d,%d", &read_fd, &write_fd) == 2) {
        return jobserver->client_open_descriptors(read_fd, write_fd, client);
    }
    return -EINVAL;
}

/* Waits for a token without the GIL, and lets Python run its signal handlers when a signal ends the wait. */
static int64_t acquire(jobserver_token *token) {
    int64_t serial;
    do {
        Py_BEGIN_ALLOW_THREADS;
        serial = jobserver->token_acquire(token, -1);
        Py_END_ALLOW_THREADS;
    } while (serial == -EINTR && PyErr_CheckSignals() == 0);
    return serial;
}

/* Calls the function on a token of the client. A new reference to what it returns, or null with an exception. */
static PyObject *call_on_token(jobserver_client *client, PyObject *function) {
    jobserver_token *token = jobserver->token_new(client);
    if (token == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *result = NULL;
    int64_t serial = acquire(token);
    if (serial > 0) {
        result = PyObject_CallNoArgs(function);
    } else if (!PyErr_Occurred()) {
        errno = (int)-serial;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    jobserver->token_free(token); /* gives back what it holds */
    return result;
}

/* run(auth, function): calls the function on a token of the jobserver with this address. */
static PyObject *run(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *auth;
    PyObject *function;
    jobserver_client *client;
    if (!PyArg_ParseTuple(arguments, "sO", &auth, &function)) {
        return NULL;
    }
    int result = open_auth(auth, &client);
    if (result < 0) {
        return PyErr_Format(PyExc_OSError, "cannot use the jobserver %s (%d)", auth, result);
    }
    PyObject *returned = call_on_token(client, function);
    jobserver->client_free(client);
    return returned;
}

/* inherit(auth): whether the process's implicit slot belongs to this copy of the core. */
static PyObject *inherit(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *auth;
    jobserver_client *client;
    if (!PyArg_ParseTuple(arguments, "s", &auth)) {
        return NULL;
    }
    if (open_auth(auth, &client) < 0) {
        return PyErr_Format(PyExc_OSError, "cannot use the jobserver %s", auth);
    }
    jobserver->client_inherit(client);
    jobserver->client_free(client);
    return PyBool_FromLong(jobserver->implicit_owned());
}

/* take(client): what a client made in Python is refused with here. */
static PyObject *take(PyObject *module, PyObject *client) {
    (void)module;
    return jobserver_client_of(client) == NULL ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"run", run, METH_VARARGS, "run(auth, function): call the function on a token"},
    {"inherit", inherit, METH_VARARGS, "inherit(auth): whether the implicit slot is this module's"},
    {"take", take, METH_O, "take(client): refuses it"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "solo", "Calls on tokens.", -1, methods, 0, 0, 0, 0};

PyMODINIT_FUNC PyInit_solo(void) {
    return jobserver_import() < 0 ? NULL : PyModule_Create(&definition);
}
