/* Who wakes up: everybody for whom there is a token, in the order in which they came, and nobody else. */
#include "check.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "posix.h"

#define FOR_EVER (INT64_C(1000000000) * MILLISECOND)

enum way { WITHOUT_LIMIT, WITH_TIMEOUT, IN_BATCH, RAW, AS_MAKE_DOES, WAYS };

struct taken {
    enum way way;
    jobserver_client *client;
    jobserver_token *token;
    jobserver_batch *batch;
};

/* Sleeps for one token. As make does: by reading the pipe that it inherited. */
static struct taken take(jobserver_client *client, enum way way) {
    struct taken taken = {.way = way, .client = client, .token = cell(client), .batch = jobserver_batch_new(client, 1)};
    int ends[2];
    unsigned char byte;
    switch (way) {
    case WITHOUT_LIMIT:
        CHECK(jobserver_token_acquire(taken.token, -1) > 0);
        break;
    case WITH_TIMEOUT:
        CHECK(jobserver_token_acquire(taken.token, FOR_EVER) > 0);
        break;
    case IN_BATCH:
        CHECK_EQUAL(jobserver_batch_acquire(taken.batch, 1, -1), 1);
        break;
    case RAW:
        CHECK_EQUAL(jobserver_acquire_raw(client, -1), '+');
        break;
    case AS_MAKE_DOES:
        CHECK_EQUAL(jobserver_client_descriptors(client, ends), 0);
        CHECK_EQUAL(read(ends[0], &byte, 1), 1);
        break;
    case WAYS:
        break;
    }
    return taken;
}

static void give_back(struct taken *taken) {
    int ends[2];
    if (taken->way == RAW) {
        CHECK_EQUAL(jobserver_release_raw(taken->client, '+'), 0);
    } else if (taken->way == AS_MAKE_DOES) {
        CHECK_EQUAL(jobserver_client_descriptors(taken->client, ends), 0);
        CHECK_EQUAL(write(ends[1], "+", 1), 1);
    }
    jobserver_token_free(taken->token);
    jobserver_batch_free(taken->batch);
}

/* All that the waiters share. */
struct scene {
    jobserver_client *client;
    int waiters;
    atomic_int *arrived; /* who have got their token */
    enum way way;
    _Atomic pid_t *thread;
};

/* Nobody gives back a token before all have one: each must be woken for one of those that came at once. */
static void wait_for_all(struct scene *scene) {
    *scene->thread = this_thread();
    struct taken taken = take(scene->client, scene->way);
    ++*scene->arrived;
    WAIT_WHILE(*scene->arrived < scene->waiters);
    give_back(&taken);
}

static void *in_thread(void *argument) {
    wait_for_all(argument);
    return NULL;
}

static void in_process(void *argument) {
    wait_for_all(argument);
}

enum { MOST_WAITERS = 4 * WAYS };

/* As many threads and processes as there are ways, each in another way. */
static void test_many_tokens_wake_as_many(void) {
    for (int round = 0; round < scaled(20); round++) {
        struct scene scenes[MOST_WAITERS];
        pthread_t threads[MOST_WAITERS / 2];
        pid_t processes[MOST_WAITERS / 2];
        jobserver_client *client = own_pipe(MOST_WAITERS);
        jobserver_batch *batch = jobserver_batch_new(client, MOST_WAITERS);
        CHECK_EQUAL(jobserver_batch_acquire(batch, 1, -1), MOST_WAITERS);
        _Atomic pid_t *numbers = shared_memory((MOST_WAITERS + 1) * sizeof *numbers);
        for (int i = 0; i < MOST_WAITERS; i++) {
            scenes[i] =
                (struct scene){.client = client, .waiters = MOST_WAITERS, .way = (enum way)((i / 2 + round) % WAYS)};
            scenes[i].arrived = numbers;
            scenes[i].thread = numbers + 1 + i;
            if (i % 2 == 0) {
                processes[i / 2] = start(in_process, &scenes[i]);
            } else {
                CHECK_EQUAL(pthread_create(&threads[i / 2], NULL, in_thread, &scenes[i]), 0);
            }
            WAIT_WHILE(*scenes[i].thread == 0);
            wait_until_asleep(i % 2 == 0 ? processes[i / 2] : getpid(), *scenes[i].thread);
        }
        CHECK_EQUAL(jobserver_batch_release(batch), 0);
        for (int i = 0; i < MOST_WAITERS / 2; i++) {
            CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
            finish(processes[i]);
        }
        jobserver_batch_free(batch);
        CHECK_EQUAL(jobserver_client_available(client), MOST_WAITERS);
        jobserver_client_free(client);
    }
}

/* What a socket holds cannot be passed on one by one, so there all wake. */
static void test_many_tokens_in_one_message(void) {
    int ends[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    enum { WAITERS = 6 };
    static _Atomic pid_t numbers[WAITERS];
    static atomic_int arrived;
    jobserver_client *client = join(ends[0], ends[0]);
    struct scene scenes[WAITERS];
    pthread_t threads[WAITERS];
    for (int i = 0; i < WAITERS; i++) {
        scenes[i] = (struct scene){.client = client, .waiters = WAITERS, .way = (enum way)(i % AS_MAKE_DOES)};
        scenes[i].arrived = &arrived;
        scenes[i].thread = &numbers[i];
        CHECK_EQUAL(pthread_create(&threads[i], NULL, in_thread, &scenes[i]), 0);
        WAIT_WHILE(numbers[i] == 0);
        wait_until_asleep(getpid(), numbers[i]);
    }
    CHECK_EQUAL(write(ends[1], "++++++", WAITERS), WAITERS);
    for (int i = 0; i < WAITERS; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQUAL(in_pipe(ends[1]), WAITERS);
    jobserver_client_free(client);
    close(ends[0]);
    close(ends[1]);
}

enum { IN_ORDER = 4 };

struct line {
    jobserver_client *client;
    int number;
    atomic_int *count; /* of tokens that were taken */
    atomic_int *log;   /* who took them */
};

/* Takes token after token, none of which comes back. */
static void take_again_and_again(void *argument) {
    struct line *line = argument;
    for (;;) {
        jobserver_token *token = cell(line->client);
        int64_t serial = jobserver_token_acquire(token, line->number % 2 == 0 ? FOR_EVER : -1);
        if (serial < 0) {
            _exit(0); /* the test is over */
        }
        jobserver_token_drop(token, serial);
        line->log[*line->count] = line->number;
        ++*line->count;
    }
}

/* Who has just had a token stands behind those who have not: the first to come is not first for ever. */
static void test_the_order_is_that_of_coming(void) {
    if (!ON_LINUX) {
        return; /* poll wakes all, and the fastest takes the token */
    }
    int ends[2];
    make_pipe(ends, "");
    int rounds = scaled(100);
    atomic_int *shared = shared_memory(sizeof(atomic_int) * ((size_t)rounds + 1));
    struct line lines[IN_ORDER];
    pid_t children[IN_ORDER];
    for (int i = 0; i < IN_ORDER; i++) {
        lines[i] = (struct line){.client = join(ends[0], ends[1]), .number = i, .count = shared, .log = shared + 1};
        children[i] = start_without_exit(take_again_and_again, &lines[i]);
        wait_until_asleep(children[i], children[i]);
    }
    for (int round = 0; round < rounds; round++) {
        CHECK_EQUAL(write(ends[1], "+", 1), 1);
        WAIT_WHILE(*shared == round);
        CHECK_EQUAL(shared[1 + round], round % IN_ORDER);
        wait_until_asleep(children[round % IN_ORDER], children[round % IN_ORDER]);
    }
    for (int i = 0; i < IN_ORDER; i++) {
        kill_child(children[i]);
        jobserver_client_free(lines[i].client);
    }
    close(ends[0]);
    close(ends[1]);
}

static void test_timeouts(void) {
    jobserver_client *client = own_pipe(0);
    jobserver_token *token = cell(client);
    jobserver_batch *batch = jobserver_batch_new(client, 1);
    for (int64_t timeout = 1; timeout < 30 * MILLISECOND; timeout *= 17) {
        int64_t begin = jobserver_now();
        CHECK_EQUAL(jobserver_token_acquire(token, timeout), -ETIMEDOUT);
        CHECK_EQUAL(jobserver_acquire_raw(client, timeout), -ETIMEDOUT);
        CHECK_EQUAL(jobserver_batch_acquire(batch, 1, timeout), -ETIMEDOUT);
        CHECK(jobserver_now() - begin >= 3 * timeout);
    }
    CHECK_EQUAL(jobserver_token_acquire(token, 0), -EAGAIN);
    CHECK_EQUAL(jobserver_acquire_raw(client, 0), -EAGAIN);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 1, 0), -EAGAIN);
    jobserver_token_free(token);
    jobserver_batch_free(batch);
    jobserver_client_free(client);
}

/* The system's calls sleep for 24 days at most. */
static void test_long_timeouts(void) {
    jobserver_client *client = own_pipe(1);
    jobserver_token *token = cell(client);
    CHECK(jobserver_token_acquire(token, INT64_MAX) > 0);
    jobserver_token_free(token);
    jobserver_client_free(client);
    int64_t month = INT64_C(30) * 24 * 3600 * 1000 * MILLISECOND;
    CHECK_EQUAL(jobserver_milliseconds_left(jobserver_now() + month), INT_MAX);
    CHECK_EQUAL(jobserver_nothing_until(jobserver_now() + month), 0);
    CHECK_EQUAL(jobserver_nothing_until(-1), 0);
    CHECK_EQUAL(jobserver_nothing_until(jobserver_now()), -ETIMEDOUT);
}

enum { CROWD = 64, CROWD_TOKENS = 2 };

struct crowd {
    int ends[2];
    int64_t timeout;
    atomic_int *left; /* tokens that are still to be handed over */
};

static void pass_tokens_on(void *argument) {
    struct crowd *crowd = argument;
    jobserver_client *client = join(crowd->ends[0], crowd->ends[1]);
    jobserver_token *token = cell(client);
    struct timespec hold = {.tv_nsec = 300000};
    while (--*crowd->left >= 0) {
        int64_t serial = jobserver_token_acquire(token, crowd->timeout);
        CHECK(serial > 0);
        nanosleep(&hold, NULL);
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    }
    jobserver_token_free(token);
    jobserver_client_free(client);
}

/* One switch to sleep while the token is held, and about one to wait for it: a token wakes one waiter. */
static void switches_per_token(const char *name, int64_t timeout) {
    struct crowd crowd = {.timeout = timeout, .left = shared_memory(sizeof(atomic_int))};
    pid_t children[CROWD];
    struct rusage before, after;
    int tokens = scaled(4000), waiters = scaled(CROWD) < CROWD ? CROWD / 4 : CROWD;
    *crowd.left = tokens;
    make_pipe(crowd.ends, "");
    if (!ON_LINUX) {
        set_nonblocking(crowd.ends[0]);
    }
    CHECK_EQUAL(getrusage(RUSAGE_CHILDREN, &before), 0);
    for (int i = 0; i < waiters; i++) {
        children[i] = start(pass_tokens_on, &crowd);
    }
    for (int i = 0; i < waiters; i++) {
        wait_until_asleep(children[i], children[i]);
    }
    CHECK_EQUAL(write(crowd.ends[1], "++", CROWD_TOKENS), CROWD_TOKENS);
    for (int i = 0; i < waiters; i++) {
        finish(children[i]);
    }
    CHECK_EQUAL(getrusage(RUSAGE_CHILDREN, &after), 0);
    double each = (double)(after.ru_nvcsw - before.ru_nvcsw) / tokens;
    printf("%d waiters %s: %.2f voluntary context switches per token\n", waiters, name, each);
    CHECK(!ON_LINUX || each < 8);
    CHECK_EQUAL(in_pipe(crowd.ends[0]), CROWD_TOKENS);
    close(crowd.ends[0]);
    close(crowd.ends[1]);
}

static void test_one_token_wakes_one(void) {
    switches_per_token("without a limit", -1);
    switches_per_token("with a timeout", FOR_EVER);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"many_tokens_wake_as_many", test_many_tokens_wake_as_many},
        {"many_tokens_in_one_message", test_many_tokens_in_one_message},
        {"the_order_is_that_of_coming", test_the_order_is_that_of_coming},
        {"timeouts", test_timeouts},
        {"long_timeouts", test_long_timeouts},
        {"one_token_wakes_one", test_one_token_wakes_one},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
