/* What cannot be done: pools that are full or gone, clients that are closed, limits, bad arguments. */
#include "check.h"
#include "pools.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

/* A pipe that two tokens were taken from, and that is full then: neither goes in again. */
struct full {
    int ends[2];
    int back[2]; /* the same, or another pipe: what is full */
    jobserver_client *client;
    jobserver_token *token;
    int64_t serial;
};

static struct full make_full(bool two_pipes) {
    struct full full;
    make_pipe(full.ends, "ab");
    full.back[0] = full.ends[0];
    full.back[1] = full.ends[1];
    if (two_pipes) {
        make_pipe(full.back, "");
    }
    full.client = join(full.ends[0], full.back[1]);
    full.token = cell(full.client);
    full.serial = acquired(full.token);
    CHECK_EQUAL(jobserver_acquire_raw(full.client, -1), 'b');
    fill_pipe(full.back[1]);
    return full;
}

static void close_full(struct full *full) {
    CHECK_EQUAL(jobserver_client_close(full->client), 0);
    jobserver_client_free(full->client);
    close(full->ends[0]);
    close(full->ends[1]);
    if (full->back[0] != full->ends[0]) {
        close(full->back[0]);
        close(full->back[1]);
    }
}

static void make_room(struct full *full) {
    drain_pipe(full->back[0], in_pipe(full->back[0]));
}

/* Never a hang, and the tokens stay held. */
static void test_a_full_pipe(void) {
    for (int two_pipes = 0; two_pipes < 2; two_pipes++) {
        struct full full = make_full(two_pipes);
        for (int again = 0; again < 2; again++) {
            CHECK_EQUAL(jobserver_token_release(full.token, full.serial), -EAGAIN);
            CHECK_EQUAL(jobserver_release_raw(full.client, -1), -EAGAIN);
            CHECK_EQUAL(jobserver_release_raw(full.client, 'b'), -EAGAIN);
        }
        make_room(&full);
        CHECK_EQUAL(jobserver_token_release(full.token, full.serial), 0);
        CHECK_EQUAL(jobserver_release_raw(full.client, 'b'), 0);
        CHECK_EQUAL(in_pipe(full.back[0]), 2);
        jobserver_token_free(full.token);
        close_full(&full);
    }
}

/* The failure of a release in a destructor is told once, and the token given back by a later call. */
static void test_stranded_tokens(void) {
    struct full full = make_full(false);
    jobserver_token *other = cell(full.client);
    jobserver_token_free(full.token);
    int stranded = 0;
    CHECK_EQUAL(jobserver_client_available(full.client), JOBSERVER_STRANDED);
    CHECK_EQUAL(jobserver_token_acquire(other, -1), JOBSERVER_STRANDED);
    CHECK_EQUAL(jobserver_client_settle(full.client, &stranded), -EAGAIN);
    CHECK_EQUAL(stranded, 1);
    int64_t serial = acquired(other); /* told once: nobody else hears of it */
    CHECK(jobserver_client_available(full.client) > 0);
    make_room(&full);
    CHECK_EQUAL(jobserver_client_available(full.client), 1); /* and given back by the next call */
    CHECK_EQUAL(jobserver_client_settle(full.client, &stranded), 0);
    CHECK_EQUAL(stranded, 0);
    CHECK_EQUAL(jobserver_token_release(other, serial), 0);
    CHECK_EQUAL(jobserver_release_raw(full.client, 'b'), 0);
    CHECK_EQUAL(in_pipe(full.ends[0]), 3);
    jobserver_token_free(other);
    close_full(&full);
}

static void test_a_stranded_batch(void) {
    struct full full = make_full(false);
    CHECK_EQUAL(jobserver_token_release(full.token, full.serial), -EAGAIN);
    jobserver_batch *batch = jobserver_batch_new(full.client, 8);
    make_room(&full);
    CHECK_EQUAL(jobserver_token_release(full.token, full.serial), 0);
    CHECK_EQUAL(jobserver_release_raw(full.client, 'b'), 0);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 1, -1), 2);
    fill_pipe(full.ends[1]);
    CHECK_EQUAL(jobserver_batch_release(batch), -EAGAIN);
    jobserver_batch_free(batch);
    make_room(&full);
    int stranded = 1;
    CHECK_EQUAL(jobserver_client_available(full.client), JOBSERVER_STRANDED); /* given back, but told all the same */
    CHECK_EQUAL(jobserver_client_settle(full.client, &stranded), -EAGAIN);
    CHECK_EQUAL(stranded, 0);
    char bytes[2];
    CHECK_EQUAL(read(full.ends[0], bytes, 2), 2);
    CHECK(bytes[0] == 'a' && bytes[1] == 'b');
    jobserver_token_free(full.token);
    close_full(&full);
}

struct waiting {
    jobserver_token *token;
    atomic_int *thread;
};

static void *take_in_thread(void *argument) {
    struct waiting *waiting = argument;
    *waiting->thread = this_thread();
    acquired(waiting->token);
    return NULL;
}

/* Who waits for a token leaves something to be done by the next release: also by one of a stranded token. */
static void test_a_stranded_token_after_a_wait(void) {
    struct full full = make_full(true);
    pthread_t thread;
    jobserver_token *other = cell(full.client);
    atomic_int waiter = 0;
    struct waiting waiting = {.token = other, .thread = &waiter};
    CHECK_EQUAL(pthread_create(&thread, NULL, take_in_thread, &waiting), 0);
    WAIT_WHILE(waiter == 0);
    wait_until_asleep(getpid(), waiter);
    jobserver_token_free(full.token);
    make_room(&full);
    CHECK_EQUAL(write(full.ends[1], "c", 1), 1);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    int stranded = 1;
    CHECK_EQUAL(jobserver_client_settle(full.client, &stranded), -EAGAIN);
    CHECK_EQUAL(stranded, 0);
    CHECK_EQUAL(jobserver_release_raw(full.client, 'b'), 0);
    jobserver_token_free(other);
    CHECK_EQUAL(in_pipe(full.back[0]), 3);
    close_full(&full);
}

static void test_nobody_reads_any_more(void) {
    int there[2], back[2];
    make_pipe(there, "a");
    make_pipe(back, "");
    jobserver_client *client = join(there[0], back[1]);
    jobserver_token *token = cell(client);
    int64_t serial = acquired(token);
    close(back[0]);
    CHECK_EQUAL(jobserver_token_release(token, serial), -EPIPE);
    close(there[1]);
    CHECK_EQUAL(jobserver_token_acquire(cell(client), -1), JOBSERVER_GONE);
    jobserver_token_free(token); /* it is never given back: told, and then gone with the client */
    int stranded = 0;
    CHECK_EQUAL(jobserver_client_settle(client, &stranded), -EPIPE);
    CHECK_EQUAL(stranded, 1);
    _exit(0);
}

static void test_the_far_end_of_a_socket_is_gone(void) {
    for (int unread = 0; unread < 2; unread++) {
        int ends[2];
        CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        CHECK_EQUAL(write(ends[1], "a", 1), 1);
        jobserver_client *client = join(ends[0], ends[0]);
        jobserver_token *token = cell(client);
        int64_t serial = acquired(token);
        if (unread) {
            CHECK_EQUAL(jobserver_token_release(token, serial), 0); /* what the server has not read is a reset */
        }
        close(ends[1]);
        CHECK_EQUAL(jobserver_token_acquire(token, -1), JOBSERVER_GONE);
        CHECK_EQUAL(jobserver_token_acquire(token, 1000 * MILLISECOND), JOBSERVER_GONE);
        jobserver_token_free(token);
        jobserver_client_free(client);
        close(ends[0]);
    }
}

static void test_closed(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_client *client = join(pool.read_fd, pool.write_fd);
    int descriptors[2], before = open_descriptors();
    char path[10];
    jobserver_token *token = cell(client), *other = cell(client);
    jobserver_batch *batch = jobserver_batch_new(client, 2);
    int64_t serial = acquired(token);
    CHECK_EQUAL(jobserver_acquire_raw(client, -1), 'b');
    CHECK_EQUAL(jobserver_client_close(client), 0);
    CHECK_EQUAL(jobserver_client_close(client), 0);
    CHECK_EQUAL(jobserver_token_acquire(other, -1), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_token_acquire_implicit(other), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_acquire_raw(client, 0), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 1, 0), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_client_available(client), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_client_descriptors(client, descriptors), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_client_path(client, path, sizeof path), JOBSERVER_CLOSED);
    CHECK(jobserver_hold_new(client) == NULL);
    CHECK_EQUAL(jobserver_token_release(token, serial), 0); /* what is out may still come back */
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(jobserver_release_raw(client, -1), 0); /* and the last one closes the descriptors */
    CHECK(!ON_LINUX || open_descriptors() < before);
    CHECK_EQUAL(jobserver_release_raw(client, -1), JOBSERVER_CLOSED);
    jobserver_token_free(token);
    jobserver_client_free(client); /* cells keep it alive */
    jobserver_token_free(other);
    jobserver_batch_free(batch);
    close_pool(&pool);
}

static void test_a_hold_keeps_descriptors_open(void) {
    jobserver_client *client = own_pipe(2);
    int ends[2], before = open_descriptors();
    CHECK_EQUAL(jobserver_client_descriptors(client, ends), 0);
    jobserver_hold *hold = jobserver_hold_new(client);
    CHECK_EQUAL(jobserver_client_close(client), 0);
    jobserver_client_free(client);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(in_pipe(ends[0]), 2);
    jobserver_hold_free(hold);
    CHECK(open_descriptors() < before);
}

struct waiter {
    jobserver_token *token;
    _Atomic pid_t thread;
    int64_t result;
};

static void *wait_in_thread(void *argument) {
    struct waiter *waiter = argument;
    waiter->thread = this_thread();
    waiter->result = jobserver_token_acquire(waiter->token, -1);
    return NULL;
}

static void test_busy(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    drain_pipe(pool.read_fd, POOL_TOKENS);
    struct waiter waiter = {.token = cell(pool.client)};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, wait_in_thread, &waiter), 0);
    WAIT_WHILE(waiter.thread == 0);
    wait_until_asleep(getpid(), waiter.thread);
    CHECK_EQUAL(jobserver_client_close(pool.client), -EBUSY);
    CHECK_EQUAL(write(pool.write_fd, "abc", POOL_TOKENS), POOL_TOKENS);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK(waiter.result > 0);
    jobserver_token_free(waiter.token);
    close_pool(&pool);
}

static void test_check_descriptor(void) {
    int ends[2];
    make_pipe(ends, "");
    int file = open("/dev/null", O_RDWR), directory = open("/", O_RDONLY);
    CHECK_EQUAL(jobserver_check_descriptor(ends[0], 0), 0);
    CHECK_EQUAL(jobserver_check_descriptor(ends[1], 1), 0);
    CHECK_EQUAL(jobserver_check_descriptor(ends[0], 1), JOBSERVER_WRONG_DIRECTION);
    CHECK_EQUAL(jobserver_check_descriptor(ends[1], 0), JOBSERVER_WRONG_DIRECTION);
    CHECK_EQUAL(jobserver_check_descriptor(file, 1), 0); /* a character device may be anything */
    CHECK_EQUAL(jobserver_check_descriptor(directory, 0), JOBSERVER_NOT_A_PIPE);
    CHECK_EQUAL(jobserver_check_descriptor(-1, 0), -EBADF);
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_open_descriptors(ends[1], ends[0], &client), JOBSERVER_WRONG_DIRECTION);
    CHECK_EQUAL(jobserver_client_open_descriptors(ends[0], directory, &client), JOBSERVER_NOT_A_PIPE);
    CHECK_EQUAL(jobserver_client_open_path("/", &client), -EISDIR);
    CHECK(client == NULL);
    int all[] = {ends[0], ends[1], file, directory};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        CHECK_EQUAL(jobserver_check_descriptor(all[i], 0) == -EBADF, false);
        close(all[i]);
        CHECK_EQUAL(jobserver_check_descriptor(all[i], 0), -EBADF);
    }
}

static void test_bad_arguments(void) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_pipe(-1, &client), -EINVAL);
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), -1, &client), -EINVAL);
    CHECK_EQUAL(jobserver_client_create_fifo("/nonexistent/fifo", 1, &client), -ENOENT);
    CHECK_EQUAL(jobserver_client_create_private_fifo("/nonexistent", 1, &client), -ENOENT);
    CHECK_EQUAL(jobserver_client_open_path("/nonexistent", &client), -ENOENT);
    CHECK(client == NULL);
    client = own_pipe(2);
    CHECK(jobserver_batch_new(client, 0) == NULL);
    CHECK(jobserver_batch_new(client, -1) == NULL);
    jobserver_batch *batch = jobserver_batch_new(client, 2);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 0, 0), -EINVAL);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 3, 0), -EINVAL);
    jobserver_batch_free(batch);
    jobserver_client_free(client);
}

static void test_no_tokens_at_all(void) {
    jobserver_client *client = own_pipe(0);
    jobserver_token *token = cell(client);
    CHECK_EQUAL(jobserver_client_available(client), 0);
    CHECK_EQUAL(jobserver_token_acquire(token, 0), -EAGAIN);
    jobserver_token_free(token);
    jobserver_client_free(client);
}

/* Those who set up standard streams close what is there. */
static void close_standard_streams(void *unused) {
    (void)unused;
    for (enum pool_kind kind = OWN_PIPE; kind <= PRIVATE_FIFO; kind++) {
        int saved = dup(STDERR_FILENO);
        close(0);
        close(1);
        close(2);
        struct pool pool = open_pool(kind);
        jobserver_token *token = cell(pool.client);
        bool taken[3];
        CHECK(jobserver_token_acquire(token, 1000 * MILLISECOND) > 0);
        for (int i = 0; i < 3; i++) {
            taken[i] = fcntl(i, F_GETFD) >= 0;
        }
        dup2(saved, STDERR_FILENO);
        close(saved);
        CHECK(!taken[0] && !taken[1] && !taken[2]);
        jobserver_token_free(token);
        close_pool(&pool);
    }
}

static void test_standard_streams_are_left_free(void) {
    scratch_directory();
    finish(start(close_standard_streams, NULL));
}

static void test_many_clients(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    int before = open_descriptors();
    for (int i = 0; i < scaled(ON_LINUX ? 10000 : 2000); i++) {
        jobserver_client *client = i % 2 == 0 ? own_pipe(2) : join(pool.read_fd, pool.write_fd);
        jobserver_token *token = cell(client);
        acquired(token);
        CHECK_EQUAL(jobserver_client_close(client), 0);
        jobserver_client_free(client);
        jobserver_token_free(token);
    }
    CHECK_EQUAL(open_descriptors(), before);
    close_pool(&pool);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_full_pipe", test_a_full_pipe},
        {"stranded_tokens", test_stranded_tokens},
        {"a_stranded_batch", test_a_stranded_batch},
        {"a_stranded_token_after_a_wait", test_a_stranded_token_after_a_wait},
        {"nobody_reads_any_more", test_nobody_reads_any_more},
        {"the_far_end_of_a_socket_is_gone", test_the_far_end_of_a_socket_is_gone},
        {"closed", test_closed},
        {"a_hold_keeps_descriptors_open", test_a_hold_keeps_descriptors_open},
        {"busy", test_busy},
        {"check_descriptor", test_check_descriptor},
        {"bad_arguments", test_bad_arguments},
        {"no_tokens_at_all", test_no_tokens_at_all},
        {"standard_streams_are_left_free", test_standard_streams_are_left_free},
        {"many_clients", test_many_clients},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
