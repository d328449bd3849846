/* What cffi's allocators call: with a size, which the core does not need. */
#include "owned.h"

#include <stdlib.h>

jobserver_place *jobserver_place_new(size_t size) {
    return calloc(1, size);
}

void jobserver_place_free(jobserver_place *place) {
    if (place->client != NULL) {
        jobserver_client_free(place->client);
    }
    if (place->event != NULL) {
        jobserver_event_free(place->event);
    }
    if (place->broker != NULL) {
        jobserver_broker_free(place->broker);
    }
    if (place->lease != NULL) {
        jobserver_lease_free(place->lease);
    }
    free(place);
}

jobserver_client *jobserver_place_client(jobserver_place *place, size_t size) {
    (void)size;
    jobserver_client *client = place->client;
    place->client = NULL;
    return client;
}

jobserver_event *jobserver_place_event(jobserver_place *place, size_t size) {
    (void)size;
    jobserver_event *event = place->event;
    place->event = NULL;
    return event;
}

jobserver_broker *jobserver_place_broker(jobserver_place *place, size_t size) {
    (void)size;
    jobserver_broker *broker = place->broker;
    place->broker = NULL;
    return broker;
}

jobserver_lease *jobserver_place_lease(jobserver_place *place, size_t size) {
    (void)size;
    jobserver_lease *lease = place->lease;
    place->lease = NULL;
    return lease;
}

jobserver_token *jobserver_owned_token(jobserver_client *client, size_t size) {
    (void)size;
    return jobserver_token_new(client);
}

jobserver_batch *jobserver_owned_batch(jobserver_client *client, int maximum, size_t size) {
    (void)size;
    return jobserver_batch_new(client, maximum);
}

jobserver_hold *jobserver_owned_hold(jobserver_client *client, size_t size) {
    (void)size;
    return jobserver_hold_new(client);
}

jobserver_lease *jobserver_owned_observer(jobserver_lease *lease, size_t size) {
    (void)size;
    return jobserver_lease_observe(lease);
}
