/* exit() gives back what cells and batches hold, also while other threads wait; _exit() does not. */
#include "check.h"
#include "pools.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

struct exiting {
    int ends[2];
    jobserver_client *client;
    int threads;
    int held;
};

static struct exiting with_tokens(const char *tokens) {
    struct exiting pool = {.client = NULL};
    make_pipe(pool.ends, tokens);
    return pool;
}

static void close_ends(struct exiting *pool) {
    close(pool->ends[0]);
    close(pool->ends[1]);
}

static void hold_all(void *argument) {
    struct exiting *pool = argument;
    jobserver_client *client = join(pool->ends[0], pool->ends[1]);
    jobserver_client_inherit(client);
    jobserver_token *implicit = cell(client);
    CHECK(jobserver_token_acquire_implicit(implicit) > 0);
    acquired(cell(client));
    jobserver_batch *batch = jobserver_batch_new(client, 2);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 1, -1), 2);
    jobserver_client *closed = join(pool->ends[0], pool->ends[1]);
    acquired(cell(closed));
    CHECK_EQUAL(jobserver_client_close(closed), 0);
    jobserver_client_free(closed);
    CHECK_EQUAL(jobserver_acquire_raw(client, -1), 'e'); /* whose byte the caller keeps, exit() does not know */
}

static void test_exit_gives_back(void) {
    struct exiting pool = with_tokens("abcde");
    finish(start(hold_all, &pool));
    char bytes[5];
    CHECK_EQUAL(read(pool.ends[0], bytes, 5), 4);
    int seen = 0;
    for (int i = 0; i < 4; i++) {
        CHECK(bytes[i] >= 'a' && bytes[i] <= 'd');
        seen |= 1 << (bytes[i] - 'a');
    }
    CHECK_EQUAL(seen, 15);
    close_ends(&pool);
}

static void test_exit_at_once_does_not(void) {
    struct exiting pool = with_tokens("abcde");
    finish(start_without_exit(hold_all, &pool));
    CHECK_EQUAL(in_pipe(pool.ends[0]), 0);
    close_ends(&pool);
}

static void strand(void *argument) {
    struct exiting *pool = argument;
    jobserver_client *client = join(pool->ends[0], pool->ends[1]);
    jobserver_token *token = cell(client);
    acquired(token);
    fill_pipe(pool->ends[1]);
    jobserver_token_free(token);
    jobserver_client_free(client);
    drain_pipe(pool->ends[0], in_pipe(pool->ends[0]));
}

static void test_exit_gives_back_what_is_stranded(void) {
    struct exiting pool = with_tokens("a");
    finish(start(strand, &pool));
    char byte;
    CHECK_EQUAL(in_pipe(pool.ends[0]), 1);
    CHECK_EQUAL(read(pool.ends[0], &byte, 1), 1);
    CHECK_EQUAL(byte, 'a');
    close_ends(&pool);
}

/* Threads that take whatever they can get, in each kind of wait, until the process exits. */
static atomic_int waiting;

static void *take_for_ever(void *argument) {
    struct exiting *pool = argument;
    int kind = waiting++ % 4;
    jobserver_token *token = cell(pool->client);
    jobserver_batch *batch = jobserver_batch_new(pool->client, 3);
    int64_t result = 0;
    while (result >= 0) {
        if (kind == 0) {
            result = jobserver_token_acquire(token, -1);
        } else if (kind == 1) {
            result = jobserver_token_acquire(token, 1000000 * MILLISECOND);
        } else {
            result = jobserver_batch_acquire(batch, kind == 2 ? 1 : 2, kind == 2 ? -1 : 1000000 * MILLISECOND);
        }
        if (kind < 2 && result > 0) {
            CHECK(jobserver_token_release(token, result) >= 0);
        } else if (result > 0) {
            CHECK(jobserver_batch_release(batch) >= 0);
        }
    }
    CHECK(result == -ECANCELED || result == JOBSERVER_UNSUPPORTED);
    return NULL;
}

static void exit_among_threads(void *argument) {
    struct exiting *pool = argument;
    pool->client = join(pool->ends[0], pool->ends[1]);
    for (int i = 0; i < pool->held; i++) {
        acquired(cell(pool->client));
    }
    for (int i = 0; i < pool->threads; i++) {
        pthread_t thread;
        CHECK_EQUAL(pthread_create(&thread, NULL, take_for_ever, pool), 0);
    }
    WAIT_WHILE(waiting < pool->threads);
}

static void test_exit_while_threads_wait(void) {
    for (int round = 0; round < scaled(100); round++) {
        struct exiting pool = with_tokens("abcd");
        pool.threads = round % 2 == 0 ? 8 : 1;
        pool.held = 4 - round % 3;
        finish(start(exit_among_threads, &pool));
        CHECK_EQUAL(in_pipe(pool.ends[0]), 4);
        close_ends(&pool);
    }
}

struct neighbours {
    struct exiting pool;
    atomic_int *stop;
    atomic_int *taken;
};

static void take_until_told(void *argument) {
    struct neighbours *neighbours = argument;
    jobserver_client *client = join(neighbours->pool.ends[0], neighbours->pool.ends[1]);
    jobserver_token *token = cell(client);
    while (!*neighbours->stop) {
        int64_t serial = acquired(token);
        ++*neighbours->taken;
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    }
}

/* The tokens of who exits go to others that wait, and none is lost or left lying beside them. */
static void test_exit_while_others_wait(void) {
    if (!ON_LINUX) {
        return; /* where only a blocking read is safe, a thread may take a token with it when it dies */
    }
    for (int round = 0; round < scaled(30); round++) {
        struct neighbours neighbours = {.pool = with_tokens("abcd")};
        neighbours.stop = shared_memory(sizeof(atomic_int) * 2);
        neighbours.taken = neighbours.stop + 1;
        neighbours.pool.threads = 6;
        neighbours.pool.held = round % 4;
        pid_t others[2] = {start(take_until_told, &neighbours), start(take_until_told, &neighbours)};
        finish(start(exit_among_threads, &neighbours.pool));
        int before = *neighbours.taken;
        WAIT_WHILE(*neighbours.taken < before + 10); /* they are not stuck */
        *neighbours.stop = 1;
        finish(others[0]);
        finish(others[1]);
        CHECK_EQUAL(in_pipe(neighbours.pool.ends[0]), 4);
        close_ends(&neighbours.pool);
    }
}

/* A waiter of another process that fell asleep after the threads of one that exits. */
struct queue {
    struct exiting pool;
    atomic_int *asleep;
};

static void *wait_in_queue(void *argument) {
    struct queue *queue = argument;
    queue->asleep[1] = this_thread();
    jobserver_token_acquire(cell(queue->pool.client), -1);
    return NULL;
}

static void exit_when_the_other_sleeps(void *argument) {
    struct queue *queue = argument;
    queue->pool.client = join(queue->pool.ends[0], queue->pool.ends[1]);
    acquired(cell(queue->pool.client));
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        queue->asleep[1] = 0;
        CHECK_EQUAL(pthread_create(&thread, NULL, wait_in_queue, queue), 0);
        WAIT_WHILE(queue->asleep[1] == 0);
        wait_until_asleep(getpid(), queue->asleep[1]);
    }
    queue->asleep[0] = 1;
    WAIT_WHILE(queue->asleep[2] == 0);
}

static void wait_last_in_queue(void *argument) {
    struct queue *queue = argument;
    jobserver_client *client = join(queue->pool.ends[0], queue->pool.ends[1]);
    WAIT_WHILE(queue->asleep[0] == 0);
    acquired(cell(client));
}

static void test_the_token_of_who_exits_goes_to_who_waits(void) {
    if (!ON_LINUX) {
        return;
    }
    for (int round = 0; round < scaled(50); round++) {
        struct queue queue = {.pool = with_tokens("a"), .asleep = shared_memory(3 * sizeof(atomic_int))};
        pid_t last = start(wait_last_in_queue, &queue);
        pid_t first = start(exit_when_the_other_sleeps, &queue);
        WAIT_WHILE(queue.asleep[0] == 0);
        wait_until_asleep(last, last);
        queue.asleep[2] = 1;
        finish(first);
        finish(last);
        CHECK_EQUAL(in_pipe(queue.pool.ends[0]), 1);
        close_ends(&queue.pool);
    }
}

/* Gives a token that its own thread, first in the queue, is woken for, and exits at that moment. */
static void give_and_exit(void *argument) {
    struct queue *queue = argument;
    queue->pool.client = join(queue->pool.ends[0], queue->pool.ends[1]);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, wait_in_queue, queue), 0);
    WAIT_WHILE(queue->asleep[1] == 0);
    wait_until_asleep(getpid(), queue->asleep[1]);
    queue->asleep[0] = 1;
    WAIT_WHILE(queue->asleep[2] == 0);
    CHECK_EQUAL(write(queue->pool.ends[1], "a", 1), 1);
}

static void test_the_wake_up_of_who_exits_goes_to_who_waits(void) {
    if (!ON_LINUX) {
        return;
    }
    for (int round = 0; round < scaled(200); round++) {
        struct queue queue = {.pool = with_tokens(""), .asleep = shared_memory(3 * sizeof(atomic_int))};
        pid_t last = start(wait_last_in_queue, &queue);
        pid_t first = start(give_and_exit, &queue);
        WAIT_WHILE(queue.asleep[0] == 0);
        wait_until_asleep(last, last);
        queue.asleep[2] = 1;
        finish(first);
        finish(last);
        CHECK_EQUAL(in_pipe(queue.pool.ends[0]), 1);
        close_ends(&queue.pool);
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"exit_gives_back", test_exit_gives_back},
        {"exit_at_once_does_not", test_exit_at_once_does_not},
        {"exit_gives_back_what_is_stranded", test_exit_gives_back_what_is_stranded},
        {"exit_while_threads_wait", test_exit_while_threads_wait},
        {"exit_while_others_wait", test_exit_while_others_wait},
        {"the_token_of_who_exits_goes_to_who_waits", test_the_token_of_who_exits_goes_to_who_waits},
        {"the_wake_up_of_who_exits_goes_to_who_waits", test_the_wake_up_of_who_exits_goes_to_who_waits},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
