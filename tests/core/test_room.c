/* Pools so large that they fill their pipe, and pipes that are nearly full. */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As many tokens as fit into a pipe of 16 pages, however they are taken and given back. */
#define MOST (65536 - 4095)

static jobserver_batch *new_batch(jobserver_client *client, int maximum) {
    jobserver_batch *batch = jobserver_batch_new(client, maximum);
    CHECK(batch != NULL);
    return batch;
}

/* Takes a pool of `limit` in batches and single tokens of these sizes, one after the other, and gives all back. */
static void drain_and_refill(int limit, const int *sizes, int count, bool backwards) {
    jobserver_client *client = own_pipe(limit);
    jobserver_batch **batches = calloc((size_t)limit, sizeof *batches);
    int number = 0;
    for (int taken = 0; taken < limit;) {
        batches[number] = new_batch(client, sizes[number % count]);
        int got = jobserver_batch_acquire(batches[number++], 1, 0);
        CHECK(got > 0);
        taken += got;
    }
    CHECK_EQUAL(jobserver_client_available(client), 0);
    for (int i = 0; i < number; i++) {
        jobserver_batch *batch = batches[backwards ? number - 1 - i : i];
        CHECK_EQUAL(jobserver_batch_release(batch), 0);
        jobserver_batch_free(batch);
    }
    CHECK_EQUAL(jobserver_client_available(client), limit);
    free(batches);
    jobserver_client_free(client);
}

/* A write of many leaves a gap in a page of the pipe: a pool that fills the pipe has no room for gaps. */
static void test_the_largest_pool_fits_in_any_order(void) {
    if (!ON_LINUX) {
        return; /* the portable core takes it that pipes have no pages */
    }
    static const int halves[] = {2049}, mixed[] = {1, 4096, 3000, 2, 700, 1999, 4095}, alternating[] = {1, 4095};
    for (int backwards = 0; backwards < scaled(2); backwards++) {
        drain_and_refill(MOST, halves, 1, backwards);
        drain_and_refill(MOST, mixed, 7, backwards);
        drain_and_refill(MOST, alternating, 2, backwards);
    }
    drain_and_refill(50000, halves, 1, false);
}

static void test_a_joined_pool_fits_in_any_order(void) {
    int ends[2];
    make_pipe(ends, "");
    enum { LIMIT = 57000, SIZE = 2049 };
    for (int i = 0; i < LIMIT; i++) {
        CHECK_EQUAL(write(ends[1], "+", 1), 1);
    }
    jobserver_client *client = join(ends[0], ends[1]);
    jobserver_batch *batches[LIMIT / SIZE + 1];
    int number = 0;
    for (int taken = 0; taken < LIMIT; number++) {
        batches[number] = new_batch(client, SIZE);
        taken += jobserver_batch_acquire(batches[number], 1, -1);
    }
    for (int i = 0; i < number; i++) {
        CHECK_EQUAL(jobserver_batch_release(batches[i]), 0);
        jobserver_batch_free(batches[i]);
    }
    CHECK_EQUAL(in_pipe(ends[0]), LIMIT);
    jobserver_client_free(client);
    close(ends[0]);
    close(ends[1]);
}

/* Some are taken, so that the front page is partly read, and given back. */
static void take_and_give_back_some(int limit, int number) {
    jobserver_client *client = own_pipe(limit);
    for (int i = 0; i < number; i++) {
        CHECK_EQUAL(jobserver_acquire_raw(client, 0), '+');
    }
    for (int i = 0; i < number; i++) {
        CHECK_EQUAL(jobserver_release_raw(client, '+'), 0);
    }
    CHECK_EQUAL(jobserver_client_available(client), limit);
    jobserver_client_free(client);
}

static void test_single_tokens_of_the_largest_pools(void) {
    static const int limits[] = {MOST, MOST + 1, 200000}; /* for the last two the pipe grows */
    for (int i = 0; i < 3; i++) {
        if (limits[i] == MOST || (ON_LINUX && scaled(2) == 2)) {
            take_and_give_back_some(limits[i], limits[i]);
            take_and_give_back_some(limits[i], 1);
            take_and_give_back_some(limits[i], 4095);
            take_and_give_back_some(limits[i], limits[i] / 2 + 1);
        }
    }
}

static void test_limits_beyond_any_pipe(void) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_pipe(INT32_MAX, &client), JOBSERVER_LIMIT);
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), INT32_MAX, &client), JOBSERVER_LIMIT);
    CHECK(client == NULL);
}

/* With a page that is almost full, what fits goes in and the rest stays held. */
static void test_a_pipe_that_is_nearly_full(void) {
    int ends[2];
    if (!ON_LINUX) {
        return; /* the portable core goes by what poll says, which is that there is no room */
    }
    make_pipe(ends, "abcdefgh");
    jobserver_client *client = join(ends[0], ends[1]);
    jobserver_batch *batch = new_batch(client, 8);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 1, -1), 8);
    fill_pipe(ends[1]);
    drain_pipe(ends[0], 4096); /* the first page is free: room for 4096 */
    char filler[4091];
    memset(filler, '#', sizeof filler);
    CHECK_EQUAL(write(ends[1], filler, sizeof filler), sizeof filler);
    CHECK_EQUAL(jobserver_batch_release(batch), -EAGAIN);
    CHECK_EQUAL(jobserver_batch_release(batch), -EAGAIN);
    drain_pipe(ends[0], in_pipe(ends[0]) - 5);
    char bytes[8];
    CHECK_EQUAL(read(ends[0], bytes, 8), 5);
    CHECK_EQUAL(memcmp(bytes, "abcde", 5), 0);
    CHECK_EQUAL(jobserver_batch_release(batch), 0);
    CHECK_EQUAL(read(ends[0], bytes, 8), 3);
    CHECK_EQUAL(memcmp(bytes, "fgh", 3), 0);
    jobserver_batch_free(batch);
    jobserver_client_free(client);
    close(ends[0]);
    close(ends[1]);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"the_largest_pool_fits_in_any_order", test_the_largest_pool_fits_in_any_order},
        {"a_joined_pool_fits_in_any_order", test_a_joined_pool_fits_in_any_order},
        {"single_tokens_of_the_largest_pools", test_single_tokens_of_the_largest_pools},
        {"limits_beyond_any_pipe", test_limits_beyond_any_pipe},
        {"a_pipe_that_is_nearly_full", test_a_pipe_that_is_nearly_full},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
