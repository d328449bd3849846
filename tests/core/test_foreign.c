/*
 * Pools that this process may use, but not open again, as those of another user are. Root makes the pool and becomes
 * nobody; without root the pool's mode shuts its own user out.
 */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#define NOBODY 65534

struct foreign {
    int ends[2];
    bool fifo;
    bool blocks;
};

static void lose_access(const struct foreign *pool) {
    char path[64];
    if (geteuid() == 0) {
        CHECK_EQUAL(setgid(NOBODY), 0);
        CHECK_EQUAL(setuid(NOBODY), 0);
#if defined(__linux__)
        CHECK_EQUAL(prctl(PR_SET_DUMPABLE, 1), 0); /* or its own /proc would be root's */
#endif
    } else {
        CHECK_EQUAL(fchmod(pool->ends[0], 0), 0);
    }
    snprintf(path, sizeof path, "/dev/fd/%d", pool->ends[0]);
    CHECK(!ON_LINUX || open(path, O_RDONLY | O_NONBLOCK) == -1);
}

static void *give_later(void *argument) {
    struct foreign *pool = argument;
    wait_until_asleep(getpid(), getpid());
    CHECK_EQUAL(write(pool->ends[1], "c", 1), 1);
    return NULL;
}

static void take_all_and_wait_for_another(struct foreign *pool, jobserver_client *client, int64_t timeout) {
    jobserver_token *cells[3] = {cell(client), cell(client), cell(client)};
    int64_t serials[3] = {acquired(cells[0]), acquired(cells[1]), 0};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, give_later, pool), 0);
    serials[2] = jobserver_token_acquire(cells[2], timeout);
    CHECK(serials[2] > 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(jobserver_token_drop(cells[2], serials[2]), 'c');
    CHECK_EQUAL(jobserver_token_release(cells[0], serials[0]), 0);
    CHECK_EQUAL(jobserver_token_release(cells[1], serials[1]), 0);
    for (int i = 0; i < 3; i++) {
        jobserver_token_free(cells[i]);
    }
}

/* What needs a read that does not wait: it works, or is refused, and never hangs. */
static void try(struct foreign *pool, jobserver_client *client) {
    bool can_try = !pool->blocks || (ON_LINUX && !pool->fifo);
    jobserver_token *token = cell(client);
    jobserver_batch *batch = jobserver_batch_new(client, 2);
    int64_t serial = jobserver_token_acquire(token, 0);
    if (can_try) {
        CHECK(serial > 0);
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
        CHECK_EQUAL(jobserver_batch_acquire(batch, 1, 0), 2);
        CHECK_EQUAL(jobserver_token_acquire(token, 0), -EAGAIN);
        CHECK_EQUAL(jobserver_token_acquire(token, MILLISECOND), -ETIMEDOUT);
        CHECK_EQUAL(jobserver_batch_release(batch), 0);
        take_all_and_wait_for_another(pool, client, 1000000 * MILLISECOND);
    } else {
        CHECK_EQUAL(serial, JOBSERVER_UNSUPPORTED);
        CHECK_EQUAL(jobserver_token_acquire(token, MILLISECOND), JOBSERVER_UNSUPPORTED);
        CHECK_EQUAL(jobserver_acquire_raw(client, 0), JOBSERVER_UNSUPPORTED);
        CHECK_EQUAL(jobserver_batch_acquire(batch, 1, 0), JOBSERVER_UNSUPPORTED);
    }
    CHECK_EQUAL(jobserver_batch_acquire(batch, 2, -1), JOBSERVER_UNSUPPORTED); /* it cannot be locked */
    jobserver_batch_free(batch);
    jobserver_token_free(token);
}

static void use(void *argument) {
    struct foreign *pool = argument;
    lose_access(pool);
    int flags[2] = {fcntl(pool->ends[0], F_GETFL), fcntl(pool->ends[1], F_GETFL)};
    jobserver_client *client = join(pool->ends[0], pool->ends[1]);
    CHECK_EQUAL(jobserver_client_available(client), 2);
    try(pool, client);
    take_all_and_wait_for_another(pool, client, -1);
    jobserver_token *token = cell(client);
    int64_t serial = acquired(token);
    fill_pipe(pool->ends[1]);
    CHECK_EQUAL(jobserver_token_release(token, serial), -EAGAIN); /* a full pipe is no hang here either */
    drain_pipe(pool->ends[0], in_pipe(pool->ends[0]));
    CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    CHECK_EQUAL(fcntl(pool->ends[0], F_GETFL), flags[0]);
    CHECK_EQUAL(fcntl(pool->ends[1], F_GETFL), flags[1]);
    jobserver_token_free(token);
    jobserver_client_free(client);
}

static void use_without_access(bool fifo, bool blocks) {
    struct foreign pool = {.fifo = fifo, .blocks = blocks};
    char path[600];
    if (fifo) {
        snprintf(path, sizeof path, "%s/fifo", scratch_directory());
        CHECK_EQUAL(mkfifo(path, 0600), 0);
        pool.ends[0] = open(path, O_RDONLY | O_NONBLOCK);
        pool.ends[1] = open(path, O_WRONLY);
        CHECK(pool.ends[0] >= 0 && pool.ends[1] >= 0);
        CHECK_EQUAL(fcntl(pool.ends[0], F_SETFL, 0), 0);
    } else {
        CHECK_EQUAL(pipe(pool.ends), 0);
    }
    if (!blocks) {
        set_nonblocking(pool.ends[0]);
    }
    CHECK_EQUAL(write(pool.ends[1], "ab", 2), 2);
    finish(start(use, &pool));
    CHECK(in_pipe(pool.ends[0]) == 1);
    close(pool.ends[0]);
    close(pool.ends[1]);
}

static void test_a_pipe_that_blocks(void) {
    use_without_access(false, true);
}

static void test_a_pipe_that_does_not(void) {
    use_without_access(false, false);
}

static void test_a_fifo_that_blocks(void) {
    use_without_access(true, true);
}

static void test_a_fifo_that_does_not(void) {
    use_without_access(true, false);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_pipe_that_blocks", test_a_pipe_that_blocks},
        {"a_pipe_that_does_not", test_a_pipe_that_does_not},
        {"a_fifo_that_blocks", test_a_fifo_that_blocks},
        {"a_fifo_that_does_not", test_a_fifo_that_does_not},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
