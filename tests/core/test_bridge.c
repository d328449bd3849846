/* Slots of a broker that come from an outer jobserver, and gates: nothing is lost between the threads. */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "broker.h"

#define FOR_EVER (-1)
#define OUTER "abcdefgh"

/* A broker with the thread that serves it and the one that brings its slots from an outer pipe. */
struct scene {
    int outer[2];
    jobserver_client *client;
    jobserver_broker *broker;
    pthread_t serving;
    pthread_t bridging;
};

static void *serve(void *broker) {
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    return NULL;
}

static void *bridge(void *argument) {
    struct scene *scene = argument;
    CHECK_EQUAL(jobserver_broker_bridge(scene->broker, scene->client), 0);
    return NULL;
}

static void begin(struct scene *scene) {
    make_pipe(scene->outer, OUTER);
    set_nonblocking(scene->outer[0]); /* as make does; without /proc a blocking one cannot be tried */
    scene->client = join(scene->outer[0], scene->outer[1]);
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), 0, &scene->broker), 0);
    CHECK_EQUAL(pthread_create(&scene->serving, NULL, serve, scene->broker), 0);
    CHECK_EQUAL(pthread_create(&scene->bridging, NULL, bridge, scene), 0);
}

/* Every byte must be back in the outer pipe. */
static void end(struct scene *scene) {
    char found[sizeof OUTER] = "";
    bool seen[256] = {false};
    jobserver_broker_stop(scene->broker);
    CHECK_EQUAL(pthread_join(scene->serving, NULL), 0);
    CHECK_EQUAL(pthread_join(scene->bridging, NULL), 0);
    jobserver_broker_free(scene->broker);
    CHECK_EQUAL(jobserver_client_close(scene->client), 0);
    jobserver_client_free(scene->client);
    CHECK_EQUAL(in_pipe(scene->outer[0]), strlen(OUTER));
    CHECK_EQUAL(read(scene->outer[0], found, strlen(OUTER)), strlen(OUTER));
    for (size_t at = 0; at < strlen(OUTER); at++) {
        seen[(unsigned char)found[at]] = true;
    }
    for (size_t at = 0; at < strlen(OUTER); at++) {
        CHECK(seen[(unsigned char)OUTER[at]]);
    }
    close(scene->outer[0]);
    close(scene->outer[1]);
}

static jobserver_broker_report pool_of(const struct scene *scene) {
    jobserver_broker_report report;
    CHECK_EQUAL(jobserver_broker_describe(scene->broker, &report), 0);
    return report;
}

/* Starts a lease with a fifo, works with its tokens, and ends it, holding some of them. */
static void *build(void *argument) {
    const struct scene *scene = argument;
    for (int round = 0; round < scaled(40); round++) {
        jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_FIFO, .weight = 1.0};
        jobserver_lease *lease;
        char path[1000], bytes[4];
        CHECK_EQUAL(jobserver_lease_open(scene->broker, &terms, &lease), 0);
        CHECK_EQUAL(jobserver_lease_path(lease, path, sizeof path), 0);
        int fifo = open(path, O_RDWR | O_CLOEXEC);
        CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), 0);
        CHECK_EQUAL(jobserver_lease_spawned(lease, 0), 0);
        for (int job = 0; job < 3; job++) {
            CHECK_EQUAL(read(fifo, bytes, 1), 1);
            CHECK_EQUAL(bytes[0], '+');
            sched_yield();
            CHECK_EQUAL(write(fifo, bytes, 1), 1);
        }
        CHECK_EQUAL(read(fifo, bytes, 1), 1);
        CHECK_EQUAL(jobserver_lease_end(lease), 0);
        jobserver_lease_free(lease);
        close(fifo);
    }
    return NULL;
}

static void test_every_byte_is_back(void) {
    struct scene scene;
    begin(&scene);
    CHECK_EQUAL(in_pipe(scene.outer[0]), strlen(OUTER));
    pthread_t builds[3];
    for (int number = 0; number < 3; number++) {
        CHECK_EQUAL(pthread_create(&builds[number], NULL, build, &scene), 0);
    }
    jobserver_client *neighbour = join(scene.outer[0], scene.outer[1]);
    jobserver_token *token = cell(neighbour);
    for (int round = 0; round < scaled(40); round++) {
        CHECK_EQUAL(jobserver_token_release(token, acquired(token)), 0);
    }
    for (int number = 0; number < 3; number++) {
        CHECK_EQUAL(pthread_join(builds[number], NULL), 0);
    }
    jobserver_token_free(token);
    jobserver_client_free(neighbour);
    WAIT_WHILE(in_pipe(scene.outer[0]) < (int)strlen(OUTER)); /* nobody uses any, so they go back by themselves */
    CHECK_EQUAL(pool_of(&scene).limit, 0);
    end(&scene);
}

static void test_stopped_in_the_middle(void) {
    for (int round = 0; round < scaled(20); round++) {
        struct scene scene;
        begin(&scene);
        jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_PIPE, .weight = 1.0};
        jobserver_lease *lease;
        CHECK_EQUAL(jobserver_lease_open(scene.broker, &terms, &lease), 0);
        CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), 0);
        jobserver_lease_free(lease);
        end(&scene);
    }
}

static void test_closed_outer_client_is_told_of(void) {
    struct scene scene;
    make_pipe(scene.outer, OUTER);
    set_nonblocking(scene.outer[0]);
    scene.client = join(scene.outer[0], scene.outer[1]);
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), 0, &scene.broker), 0);
    CHECK_EQUAL(pthread_create(&scene.serving, NULL, serve, scene.broker), 0);
    jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_FIFO, .weight = 1.0};
    jobserver_lease *lease;
    CHECK_EQUAL(jobserver_lease_open(scene.broker, &terms, &lease), 0);
    CHECK_EQUAL(jobserver_lease_start(lease, 0), -ETIMEDOUT);
    CHECK_EQUAL(jobserver_client_close(scene.client), 0);
    CHECK_EQUAL(jobserver_broker_bridge(scene.broker, scene.client), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), JOBSERVER_GONE);
    jobserver_lease_free(lease);
    jobserver_broker_stop(scene.broker);
    CHECK_EQUAL(pthread_join(scene.serving, NULL), 0);
    jobserver_broker_free(scene.broker);
    jobserver_client_free(scene.client);
    close(scene.outer[0]);
    close(scene.outer[1]);
}

/* A gatekeeper that allows now more, now less, and rests while nothing moves. */
static void *keep_gates(void *argument) {
    const struct scene *scene = argument;
    jobserver_event *event;
    CHECK_EQUAL(jobserver_event_new(&event), 0);
    for (int look = 0; jobserver_broker_rest(scene->broker, event, MILLISECOND) == 0; look++) {
        int result = jobserver_broker_allow(scene->broker, look % 2 == 0 ? 1 : 6);
        CHECK(result == 0 || result == JOBSERVER_CLOSED); /* it may just have been stopped */
    }
    jobserver_event_free(event);
    return NULL;
}

static void test_gates_that_open_and_close(void) {
    struct scene scene;
    pthread_t keeper, builds[2];
    begin(&scene);
    CHECK_EQUAL(pthread_create(&keeper, NULL, keep_gates, &scene), 0);
    for (int number = 0; number < 2; number++) {
        CHECK_EQUAL(pthread_create(&builds[number], NULL, build, &scene), 0);
    }
    for (int number = 0; number < 2; number++) {
        CHECK_EQUAL(pthread_join(builds[number], NULL), 0);
    }
    jobserver_broker_stop(scene.broker);
    CHECK_EQUAL(pthread_join(keeper, NULL), 0);
    end(&scene);
}

/* A bridge that cannot begin ends the waits for a first slot, too. */
static void test_a_bridge_that_cannot_begin_is_told_of(void) {
    struct scene scene;
    make_pipe(scene.outer, OUTER);
    set_nonblocking(scene.outer[0]);
    scene.client = join(scene.outer[0], scene.outer[1]);
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), 0, &scene.broker), 0);
    struct rlimit limit, none;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_EQUAL(jobserver_broker_bridge(scene.broker, scene.client), -EMFILE);
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_FIFO, .weight = 1.0};
    jobserver_lease *lease;
    CHECK_EQUAL(jobserver_lease_open(scene.broker, &terms, &lease), 0);
    CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), -EMFILE);
    jobserver_lease_free(lease);
    jobserver_broker_free(scene.broker);
    jobserver_client_free(scene.client);
    close(scene.outer[0]);
    close(scene.outer[1]);
}

/* A lease that has started, with its fifo. Nobody serves. */
static jobserver_lease *start_unserved(jobserver_broker *broker, int *fifo) {
    jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_FIFO, .weight = 1.0};
    jobserver_lease *lease;
    char path[1000];
    CHECK_EQUAL(jobserver_lease_open(broker, &terms, &lease), 0);
    CHECK_EQUAL(jobserver_lease_path(lease, path, sizeof path), 0);
    *fifo = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQUAL(jobserver_lease_start(lease, 0), 0);
    return lease;
}

/* Bytes that a process writes too many, and that nobody has looked at yet, are no slots that could be taken away. */
static void test_a_flood_is_not_reclaimed(void) {
    for (int flooded = 0; flooded < 2; flooded++) {
        jobserver_broker *broker;
        jobserver_lease *leases[2];
        jobserver_broker_report report;
        int fifos[2];
        CHECK_EQUAL(jobserver_broker_create(scratch_directory(), 6, &broker), 0);
        for (int number = 0; number < 2; number++) {
            leases[number] = start_unserved(broker, &fifos[number]);
        }
        CHECK_EQUAL(in_pipe(fifos[0]) + in_pipe(fifos[1]), 4);
        CHECK_EQUAL(write(fifos[flooded], "++++++++", 8), 8);
        jobserver_lock();
        CHECK_EQUAL(jobserver_share_reclaim(broker, 4, jobserver_now()), 4);
        jobserver_unlock();
        CHECK_EQUAL(jobserver_broker_describe(broker, &report), 0); /* which throws away what is too much */
        CHECK_EQUAL(report.limit, 2);
        CHECK_EQUAL(in_pipe(fifos[0]) + in_pipe(fifos[1]), 0);
        for (int number = 0; number < 2; number++) {
            jobserver_lease_free(leases[number]);
            close(fifos[number]);
        }
        jobserver_broker_free(broker);
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"every byte is back", test_every_byte_is_back},
        {"stopped in the middle", test_stopped_in_the_middle},
        {"closed outer client is told of", test_closed_outer_client_is_told_of},
        {"gates that open and close", test_gates_that_open_and_close},
        {"a bridge that cannot begin is told of", test_a_bridge_that_cannot_begin_is_told_of},
        {"a flood is not reclaimed", test_a_flood_is_not_reclaimed},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
