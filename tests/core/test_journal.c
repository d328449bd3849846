/* The journal: every change with its time, in its order; and what is said when there is no room. */
#include "check.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOR_EVER (-1)
#define MOST 64

/* A broker with the thread that serves it, and one lease as its process sees it. */
struct scene {
    jobserver_broker *broker;
    pthread_t thread;
    jobserver_lease *lease;
    int take;
    int give;
};

static void *serve(void *broker) {
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    return NULL;
}

/* With a journal that has room for so much; 0: without. */
static struct scene begin(int limit, int room) {
    struct scene scene;
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), limit, &scene.broker), 0);
    CHECK_EQUAL(pthread_create(&scene.thread, NULL, serve, scene.broker), 0);
    if (room > 0) {
        CHECK_EQUAL(jobserver_broker_record(scene.broker, room), 0);
    }
    jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_PIPE, .weight = 1.0, .orphan_timeout = FOR_EVER};
    int descriptors[3];
    CHECK_EQUAL(jobserver_lease_open(scene.broker, &terms, &scene.lease), 0);
    CHECK_EQUAL(jobserver_lease_descriptors(scene.lease, descriptors), 0);
    scene.take = dup(descriptors[0]);
    scene.give = dup(descriptors[1]);
    CHECK_EQUAL(jobserver_lease_start(scene.lease, FOR_EVER), 0);
    CHECK_EQUAL(jobserver_lease_spawned(scene.lease, 0), 0);
    return scene;
}

static void end(struct scene *scene) {
    jobserver_broker_stop(scene->broker);
    CHECK_EQUAL(pthread_join(scene->thread, NULL), 0);
    jobserver_lease_free(scene->lease);
    jobserver_broker_free(scene->broker);
    close(scene->take);
    close(scene->give);
}

static int slots_of(const struct scene *scene) {
    jobserver_lease_report report;
    CHECK_EQUAL(jobserver_lease_describe(scene->lease, &report), 0);
    return report.slots;
}

/* One token is taken, and has been seen to be. */
static void take_one(const struct scene *scene) {
    int before = slots_of(scene);
    char byte;
    CHECK_EQUAL(read(scene->take, &byte, 1), 1);
    WAIT_WHILE(slots_of(scene) != before + 1);
}

static void give_one(const struct scene *scene) {
    int before = slots_of(scene);
    CHECK_EQUAL(write(scene->give, "+", 1), 1);
    WAIT_WHILE(slots_of(scene) != before - 1);
}

static int64_t now(void) {
    struct timespec time;
    CHECK_EQUAL(clock_gettime(CLOCK_MONOTONIC, &time), 0);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

struct taken {
    jobserver_change changes[MOST];
    int count;
    int64_t dropped;
};

static struct taken taken_from(const struct scene *scene, int most) {
    struct taken taken;
    taken.count = jobserver_broker_changes(scene->broker, taken.changes, most, &taken.dropped);
    return taken;
}

/* These are the changes, in pairs of lease and slots. */
static void check_changes(const struct taken *taken, const int (*expected)[2], int count) {
    CHECK_EQUAL(taken->count, count);
    for (int at = 0; at < count; at++) {
        CHECK_EQUAL(taken->changes[at].lease, expected[at][0]);
        CHECK_EQUAL(taken->changes[at].slots, expected[at][1]);
    }
}

static void test_each_change_is_there_with_its_time(void) {
    int64_t before = now();
    struct scene scene = begin(3, MOST);
    take_one(&scene);
    take_one(&scene);
    give_one(&scene);
    CHECK_EQUAL(jobserver_lease_end(scene.lease), 0);
    struct taken taken = taken_from(&scene, MOST);
    const int expected[][2] = {{0, 3}, {1, 1}, {1, 2}, {1, 3}, {1, 2}, {1, 0}};
    check_changes(&taken, expected, 6);
    CHECK_EQUAL(taken.dropped, 0);
    CHECK_EQUAL(jobserver_lease_number(scene.lease), 1);
    for (int at = 0; at < taken.count; at++) {
        CHECK(taken.changes[at].time >= before);
        before = taken.changes[at].time;
    }
    CHECK(before <= now());
    CHECK_EQUAL(taken_from(&scene, MOST).count, 0);
    end(&scene);
}

static void test_the_limit_is_in_it(void) {
    struct scene scene = begin(2, MOST);
    CHECK_EQUAL(jobserver_broker_resize(scene.broker, 4), 0);
    take_one(&scene);
    take_one(&scene);
    struct taken taken = taken_from(&scene, MOST);
    bool seen = false;
    for (int at = 0; at < taken.count; at++) {
        seen |= taken.changes[at].lease == 0 && taken.changes[at].slots == 4;
        CHECK(seen || taken.changes[at].slots <= 2);
    }
    CHECK(seen);
    end(&scene);
}

/* A ring of three: it is full with the limit, the start and the first taking. */
static void test_what_has_no_room_is_counted_and_the_next_one_is_right(void) {
    struct scene scene = begin(9, 3);
    for (int count = 0; count < 4; count++) {
        take_one(&scene);
    }
    struct taken taken = taken_from(&scene, 2);
    const int first[][2] = {{0, 9}, {1, 1}}, rest[][2] = {{1, 2}, {1, 5}, {1, 6}};
    check_changes(&taken, first, 2);
    CHECK_EQUAL(taken.dropped, 3);
    take_one(&scene);
    struct taken next = taken_from(&scene, MOST);
    CHECK_EQUAL(next.dropped, taken.dropped);
    check_changes(&next, rest, 3);
    end(&scene);
}

static void test_one_that_begins_late_says_how_things_are(void) {
    struct scene scene = begin(4, 0);
    struct taken none = taken_from(&scene, MOST);
    CHECK_EQUAL(none.count, JOBSERVER_CLOSED);
    take_one(&scene);
    CHECK_EQUAL(jobserver_broker_record(scene.broker, 0), -EINVAL);
    CHECK_EQUAL(jobserver_broker_record(scene.broker, MOST), 0);
    CHECK_EQUAL(jobserver_broker_record(scene.broker, MOST), -EBUSY);
    struct taken taken = taken_from(&scene, MOST);
    const int expected[][2] = {{0, 4}, {1, 2}};
    check_changes(&taken, expected, 2);
    end(&scene);
}

/* Somebody empties a small ring all the time: nothing is dropped, and the sum of the steps is where it ends. */
static void test_many_changes_go_through_a_small_ring(void) {
    struct scene scene = begin(2, 8);
    int rounds = scaled(2000), changes = 0, last = 0;
    for (int round = 0; round < rounds; round++) {
        take_one(&scene);
        give_one(&scene);
        struct taken taken = taken_from(&scene, MOST);
        CHECK_EQUAL(taken.dropped, 0);
        for (int at = 0; at < taken.count; at++) {
            changes += taken.changes[at].lease == 1;
            last = taken.changes[at].slots;
        }
    }
    CHECK_EQUAL(changes, 2 * rounds + 1);
    CHECK_EQUAL(last, 1);
    end(&scene);
}

static void look_in_child(void *argument) {
    struct taken taken = taken_from(argument, MOST);
    CHECK_EQUAL(taken.count, JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_broker_record(((struct scene *)argument)->broker, MOST), JOBSERVER_CLOSED);
}

static void test_a_forked_child_has_none(void) {
    struct scene scene = begin(2, MOST);
    finish(start_without_exit(look_in_child, &scene));
    end(&scene);
}

int main(int argc, char **argv) {
    const struct test tests[] = {
        {"each change is there with its time", test_each_change_is_there_with_its_time},
        {"the limit is in it", test_the_limit_is_in_it},
        {"what has no room is counted", test_what_has_no_room_is_counted_and_the_next_one_is_right},
        {"one that begins late says how things are", test_one_that_begins_late_says_how_things_are},
        {"many changes go through a small ring", test_many_changes_go_through_a_small_ring},
        {"a forked child has none", test_a_forked_child_has_none},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
