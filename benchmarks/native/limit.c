/* The physical limit: the system calls alone. And the steps that all loops share. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void worker_before(struct worker *worker) {
    char byte;
    if (worker->go >= 0) {
        if (worker->taken != 0 && write(worker->times, &worker->taken, sizeof worker->taken) < 0) {
            _exit(1);
        }
        if (read(worker->go, &byte, 1) != 1) {
            _exit(1);
        }
    }
    worker->began = now();
}

void worker_held(struct worker *worker) {
    struct shared *shared = worker->shared;
    int64_t taken = now();
    worker->taken = taken;
    worker->waits[worker->tokens++ % WAITS] = taken - worker->began;
    if (shared != NULL && shared->released != 0) {
        shared->latencies[shared->count++ % LATENCIES] = taken - shared->released;
    }
    if (worker->hold > 0) {
        nanosleep(&(struct timespec){.tv_nsec = worker->hold}, NULL);
    }
    if (shared != NULL) {
        shared->released = now();
    }
}

/* Takes and gives back so many times. */
void limit_pairs(int read_fd, int write_fd, long pairs) {
    char byte;
    while (pairs-- > 0) {
        if (read(read_fd, &byte, 1) != 1 || write(write_fd, &byte, 1) != 1) {
            abort();
        }
    }
}

/* The same with many at once. */
void limit_batches(int read_fd, int write_fd, long pairs, int size) {
    char bytes[4096];
    while (pairs-- > 0) {
        if (read(read_fd, bytes, (size_t)size) != size || write(write_fd, bytes, (size_t)size) != size) {
            abort();
        }
    }
}

/* Waits in a blocking read, for ever. */
void limit_wait(int read_fd, int write_fd, struct worker *worker) {
    char byte;
    for (;;) {
        worker_before(worker);
        if (read(read_fd, &byte, 1) != 1) {
            abort();
        }
        worker_held(worker);
        if (write(write_fd, &byte, 1) != 1) {
            abort();
        }
    }
}
