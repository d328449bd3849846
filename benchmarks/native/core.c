/* jobserver-ffi through its C functions. */
#include <stdlib.h>

#include "jobserver.h"
#include "worker.h"

#define EXPORTED __attribute__((visibility("default")))

EXPORTED jobserver_client *core_open(int read_fd, int write_fd) {
    jobserver_client *client;
    return jobserver_client_open_descriptors(read_fd, write_fd, &client) == 0 ? client : NULL;
}

EXPORTED void core_close(jobserver_client *client) {
    jobserver_client_close(client);
    jobserver_client_free(client);
}

EXPORTED void core_pairs(jobserver_client *client, long pairs) {
    jobserver_token *token = jobserver_token_new(client);
    while (pairs-- > 0) {
        if (jobserver_token_take(token) != 0 || jobserver_token_give(token) != 0) {
            abort();
        }
    }
    jobserver_token_free(token);
}

EXPORTED void core_raw_pairs(jobserver_client *client, long pairs) {
    while (pairs-- > 0) {
        if (jobserver_release_raw(client, jobserver_take_raw(client)) < 0) {
            abort();
        }
    }
}

EXPORTED void core_wait(jobserver_client *client, struct worker *worker, step *before, step *held) {
    jobserver_token *token = jobserver_token_new(client);
    for (;;) {
        before(worker);
        if (jobserver_token_take(token) != 0) {
            abort();
        }
        held(worker);
        if (jobserver_token_give(token) != 0) {
            abort();
        }
    }
}
