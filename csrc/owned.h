/*
 * For the package's cffi module alone: how Python owns what the core makes.
 *
 * An object of cffi's allocators (ffi.new_allocator) takes no part in the cyclic garbage collector, and its destructor
 * runs when the last reference to it is gone. An allocator needs a complete struct, although no code reads it. It calls the
 * function that makes the object, with the size of that struct, and runs no Python before the object has its owner.
 */
#ifndef JOBSERVER_OWNED_H
#define JOBSERVER_OWNED_H

#include <stddef.h>

#include "jobserver.h"

/* [declarations] The build reads these too as the cffi cdef. */

/* The core's own structs are in other files. No code reads the members of these. */
struct jobserver_client {
    char unused;
};
struct jobserver_token {
    char unused;
};
struct jobserver_batch {
    char unused;
};
struct jobserver_hold {
    char unused;
};
struct jobserver_event {
    char unused;
};
struct jobserver_broker {
    char unused;
};
struct jobserver_lease {
    char unused;
};

/*
 * Where functions of the core put what they make. Its destructor frees what is still there: Ctrl-C may come before the
 * object is taken out.
 */
typedef struct jobserver_place {
    jobserver_client *client;
    jobserver_event *event;
    jobserver_broker *broker;
    jobserver_lease *lease;
} jobserver_place;

/* An empty place, or null; and its destructor. */
jobserver_place *jobserver_place_new(size_t size);
void jobserver_place_free(jobserver_place *place);

/* Each takes what is in a place out of it, or returns null. */
jobserver_client *jobserver_place_client(jobserver_place *place, size_t size);
jobserver_event *jobserver_place_event(jobserver_place *place, size_t size);
jobserver_broker *jobserver_place_broker(jobserver_place *place, size_t size);
jobserver_lease *jobserver_place_lease(jobserver_place *place, size_t size);

/* As jobserver_token_new, jobserver_batch_new, jobserver_hold_new, jobserver_lease_observe. */
jobserver_token *jobserver_owned_token(jobserver_client *client, size_t size);
jobserver_batch *jobserver_owned_batch(jobserver_client *client, int maximum, size_t size);
jobserver_hold *jobserver_owned_hold(jobserver_client *client, size_t size);
jobserver_lease *jobserver_owned_observer(jobserver_lease *lease, size_t size);

/* [/declarations] */

#endif
