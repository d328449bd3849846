/* Many tokens at once, and two that want many. */
#include "check.h"
#include "pools.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static jobserver_batch *new_batch(jobserver_client *client, int maximum) {
    jobserver_batch *batch = jobserver_batch_new(client, maximum);
    CHECK(batch != NULL);
    return batch;
}

static void take_and_give_back(struct pool *pool) {
    jobserver_batch *batch = new_batch(pool->client, 2);
    int first = jobserver_batch_acquire(batch, 1, can_try(pool) ? 0 : -1);
    CHECK(first >= 1 && first <= 2); /* packets come one by one */
    CHECK_EQUAL(jobserver_client_available(pool->client), POOL_TOKENS - first);
    CHECK_EQUAL(jobserver_batch_release(batch), 0);
    CHECK_EQUAL(jobserver_batch_release(batch), 1);
    serve(pool, first);
    int second = jobserver_batch_acquire(batch, 1, -1);
    CHECK(second > 0);
    jobserver_batch_free(batch);
    serve(pool, second);
}

static void test_every_kind_of_pool(void) {
    for (enum pool_kind kind = OWN_PIPE; kind < POOL_KINDS; kind++) {
        struct pool pool = open_pool(kind);
        take_and_give_back(&pool);
        close_pool(&pool);
    }
}

/* Whether a process can wait with some tokens of this pool in its hands. */
static bool can_lock(enum pool_kind kind) {
    bool is_socket = kind == STREAM_SOCKET || kind == PACKET_SOCKET || kind == SOCKET_AND_PIPE;
    return ON_LINUX ? !is_socket : kind == OWN_FIFO || kind == PRIVATE_FIFO;
}

static void test_a_minimum(void) {
    for (enum pool_kind kind = OWN_PIPE; kind < POOL_KINDS; kind++) {
        struct pool pool = open_pool(kind);
        if (can_lock(kind)) {
            jobserver_batch *batch = new_batch(pool.client, 3), *other = new_batch(pool.client, 3);
            CHECK_EQUAL(jobserver_batch_acquire(batch, 2, -1), 3);
            CHECK_EQUAL(jobserver_batch_release(batch), 0);
            serve(&pool, 3);
            jobserver_token *token = cell(pool.client);
            acquired(token);
            CHECK_EQUAL(jobserver_batch_acquire(batch, 3, 0), -EAGAIN);
            CHECK_EQUAL(jobserver_batch_acquire(batch, 3, MILLISECOND), -ETIMEDOUT);
            serve(&pool, 2);
            CHECK_EQUAL(jobserver_client_available(pool.client), 2); /* nothing is held, and nothing locked */
            CHECK_EQUAL(jobserver_batch_acquire(other, 2, 0), 2);
            jobserver_batch_free(other);
            jobserver_batch_free(batch);
            jobserver_token_free(token);
            serve(&pool, 3);
        } else if (kind != JOINED_FIFO) {
            jobserver_batch *batch = new_batch(pool.client, 3);
            CHECK_EQUAL(jobserver_batch_acquire(batch, 2, -1), JOBSERVER_UNSUPPORTED);
            jobserver_batch_free(batch);
        }
        close_pool(&pool);
    }
}

/* The pool is locked only as long as a batch waits. */
static void test_who_has_enough_locks_nobody_out(void) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), 4, &client), 0);
    jobserver_batch *batch = new_batch(client, 2), *other = new_batch(client, 2);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 2, -1), 2);
    CHECK_EQUAL(jobserver_batch_acquire(other, 2, 0), 2);
    jobserver_batch_free(batch);
    jobserver_batch_free(other);
    jobserver_client_free(client);
}

static void test_bytes_are_kept(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_batch *batch = new_batch(pool.client, 3);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 1, -1), 3);
    CHECK_EQUAL(jobserver_batch_release(batch), 0);
    char bytes[3];
    CHECK_EQUAL(read(pool.read_fd, bytes, 3), 3);
    CHECK_EQUAL(memcmp(bytes, "abc", 3), 0);
    CHECK_EQUAL(write(pool.write_fd, bytes, 3), 3);
    jobserver_batch_free(batch);
    close_pool(&pool);
}

struct greedy {
    char path[600];
    int64_t timeout;
    int rounds;
};

static void take_five_of_eight(void *argument) {
    struct greedy *greedy = argument;
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_open_path(greedy->path, &client), 0);
    jobserver_batch *batch = new_batch(client, 5);
    for (int taken = 0; taken < greedy->rounds;) {
        int count = jobserver_batch_acquire(batch, 5, greedy->timeout);
        if (count == 5) {
            taken++;
            CHECK_EQUAL(jobserver_batch_release(batch), 0);
        } else {
            CHECK(greedy->timeout >= 0 && (count == -ETIMEDOUT || count == -EAGAIN));
        }
    }
    jobserver_batch_free(batch);
    jobserver_client_free(client);
}

/* Two that hold while they wait would wait for each other for ever. */
static void test_five_and_five_of_eight(void) {
    static const int64_t timeouts[][2] = {{-1, -1}, {-1, 100 * MILLISECOND}, {MILLISECOND, 5 * MILLISECOND}, {-1, 0}};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        struct greedy greedy[2] = {{.rounds = scaled(200)}, {.rounds = scaled(200)}};
        snprintf(greedy[0].path, sizeof greedy[0].path, "%s/fifo", scratch_directory());
        memcpy(greedy[1].path, greedy[0].path, sizeof greedy[0].path);
        jobserver_client *client = NULL;
        CHECK_EQUAL(jobserver_client_create_fifo(greedy[0].path, 8, &client), 0);
        pid_t children[2];
        for (int child = 0; child < 2; child++) {
            greedy[child].timeout = timeouts[i][child];
            children[child] = start(take_five_of_eight, &greedy[child]);
        }
        finish(children[0]);
        finish(children[1]);
        CHECK_EQUAL(jobserver_client_available(client), 8);
        jobserver_client_free(client);
    }
}

static void interrupted(int number) {
    (void)number;
}

struct taker {
    jobserver_batch *batch;
    _Atomic pid_t thread;
    int result;
};

static void *take_two(void *argument) {
    struct taker *taker = argument;
    taker->thread = this_thread();
    taker->result = jobserver_batch_acquire(taker->batch, 2, -1);
    return NULL;
}

/* A batch that was interrupted with one of the two tokens that it wants in its hands, and so with the pool locked. */
static jobserver_batch *interrupt_batch(jobserver_client *client) {
    struct sigaction action = {.sa_handler = interrupted};
    sigaction(SIGUSR1, &action, NULL);
    struct taker taker = {.batch = new_batch(client, 2)};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, take_two, &taker), 0);
    WAIT_WHILE(taker.thread == 0 || jobserver_client_available(client) != 0);
    wait_until_asleep(getpid(), taker.thread);
    CHECK_EQUAL(pthread_kill(thread, SIGUSR1), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(taker.result, -EINTR);
    return taker.batch;
}

static jobserver_client *open_lockable(void) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), 2, &client), 0);
    return client;
}

struct heir {
    jobserver_batch *batch;
    int descriptors;
    int go[2];
};

/* In a child the batch is as new, and it has not got its parent's lock. */
static void inherit_batch(void *argument) {
    struct heir *heir = argument;
    char byte;
    CHECK_EQUAL(read(heir->go[0], &byte, 1), 1);
    CHECK_EQUAL(open_descriptors(), heir->descriptors - (ON_LINUX ? 2 : 1)); /* the lock, and a spare epoll */
    CHECK_EQUAL(jobserver_batch_release(heir->batch), 1);
    CHECK_EQUAL(jobserver_batch_acquire(heir->batch, 2, 0), 2);
    CHECK_EQUAL(jobserver_batch_release(heir->batch), 0);
    CHECK_EQUAL(jobserver_batch_acquire(heir->batch, 1, 0), 2);
    jobserver_batch_free(heir->batch);
}

/* A forked child would keep the pool locked for as long as it lives. */
static void test_the_lock_is_not_inherited(void) {
    jobserver_client *client = open_lockable();
    jobserver_token *token = cell(client);
    acquired(token);
    struct heir heir = {.batch = interrupt_batch(client)};
    CHECK_EQUAL(pipe(heir.go), 0);
    heir.descriptors = open_descriptors();
    pid_t child = start(inherit_batch, &heir);
    jobserver_token_free(token);
    CHECK_EQUAL(jobserver_batch_acquire(heir.batch, 2, -1), 2); /* it goes on where it was interrupted */
    jobserver_batch_free(heir.batch);
    jobserver_batch *other = new_batch(client, 2);
    CHECK_EQUAL(jobserver_batch_acquire(other, 2, 0), 2);
    jobserver_batch_free(other);
    CHECK_EQUAL(write(heir.go[1], "", 1), 1);
    finish(child);
    CHECK_EQUAL(jobserver_client_available(client), 2);
    jobserver_client_free(client);
    close(heir.go[0]);
    close(heir.go[1]);
}

static void test_giving_up_after_an_interruption(void) {
    jobserver_client *client = open_lockable();
    for (int way = 0; way < 3; way++) {
        jobserver_token *token = cell(client);
        acquired(token);
        jobserver_batch *batch = interrupt_batch(client);
        if (way == 1) {
            CHECK_EQUAL(jobserver_batch_release(batch), 0);
        } else if (way == 2) {
            CHECK_EQUAL(jobserver_batch_acquire(batch, 2, MILLISECOND), -ETIMEDOUT);
        }
        jobserver_batch *other = new_batch(client, 2);
        if (way > 0) {
            jobserver_token_free(token);
            CHECK_EQUAL(jobserver_batch_acquire(other, 2, 0), 2);
        }
        jobserver_batch_free(batch);
        jobserver_batch_free(other);
        if (way == 0) {
            jobserver_token_free(token);
        }
        CHECK_EQUAL(jobserver_client_available(client), 2);
    }
    jobserver_client_free(client);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"every_kind_of_pool", test_every_kind_of_pool},
        {"a_minimum", test_a_minimum},
        {"who_has_enough_locks_nobody_out", test_who_has_enough_locks_nobody_out},
        {"bytes_are_kept", test_bytes_are_kept},
        {"five_and_five_of_eight", test_five_and_five_of_eight},
        {"the_lock_is_not_inherited", test_the_lock_is_not_inherited},
        {"giving_up_after_an_interruption", test_giving_up_after_an_interruption},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
