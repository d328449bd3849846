/* One token in a cell, raw tokens, the implicit slot: on pools of every kind. */
#include "check.h"
#include "pools.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void for_every_kind(void (*check)(struct pool *pool)) {
    for (enum pool_kind kind = OWN_PIPE; kind < POOL_KINDS; kind++) {
        struct pool pool = open_pool(kind);
        check(&pool);
        close_pool(&pool);
    }
}

static void take_all_and_give_back(struct pool *pool) {
    jobserver_token *cells[POOL_TOKENS + 1];
    int64_t serials[POOL_TOKENS];
    for (int i = 0; i <= POOL_TOKENS; i++) {
        cells[i] = cell(pool->client);
    }
    for (int i = 0; i < POOL_TOKENS; i++) {
        serials[i] = jobserver_token_acquire(cells[i], i == 0 || !can_try(pool) ? -1 : i == 1 ? 0 : 1000 * MILLISECOND);
        CHECK(serials[i] > 0);
    }
    CHECK_EQUAL(jobserver_client_available(pool->client), 0);
    CHECK_EQUAL(jobserver_token_acquire(cells[POOL_TOKENS], 0), can_try(pool) ? -EAGAIN : JOBSERVER_UNSUPPORTED);
    CHECK_EQUAL(jobserver_token_acquire(cells[POOL_TOKENS], 1), can_try(pool) ? -ETIMEDOUT : JOBSERVER_UNSUPPORTED);
    for (int i = POOL_TOKENS - 1; i >= 0; i--) {
        CHECK_EQUAL(jobserver_token_release(cells[i], serials[i]), 0);
        CHECK_EQUAL(jobserver_token_release(cells[i], serials[i]), 1);
    }
    for (int i = 0; i <= POOL_TOKENS; i++) {
        jobserver_token_free(cells[i]);
    }
    serve(pool, POOL_TOKENS);
}

static void test_every_kind_of_pool(void) {
    for_every_kind(take_all_and_give_back);
}

static void flags_stay(struct pool *pool) {
    int flags[2] = {fcntl(pool->read_fd, F_GETFL), fcntl(pool->write_fd, F_GETFL)};
    int close_on_exec[2] = {fcntl(pool->read_fd, F_GETFD), fcntl(pool->write_fd, F_GETFD)};
    take_all_and_give_back(pool);
    CHECK_EQUAL(fcntl(pool->read_fd, F_GETFL), flags[0]);
    CHECK_EQUAL(fcntl(pool->write_fd, F_GETFL), flags[1]);
    CHECK_EQUAL(fcntl(pool->read_fd, F_GETFD), close_on_exec[0]);
    CHECK_EQUAL(fcntl(pool->write_fd, F_GETFD), close_on_exec[1]);
}

static void test_flags_of_what_is_inherited_stay(void) {
    for_every_kind(flags_stay);
}

/* What the core opens is close-on-exec; what the test opened is not. */
static void all_close_on_exec(struct pool *pool) {
    take_all_and_give_back(pool);
    int mine[] = {pool->read_fd, pool->write_fd, pool->server[0], pool->server[1]};
    for (int descriptor = 3; descriptor < 256; descriptor++) {
        bool is_mine = false;
        for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) {
            is_mine = is_mine || descriptor == mine[i];
        }
        int flags = fcntl(descriptor, F_GETFD);
        CHECK(is_mine || flags < 0 || (flags & FD_CLOEXEC));
    }
}

static void test_close_on_exec(void) {
    for (int descriptor = 3; descriptor < 256; descriptor++) {
        fcntl(descriptor, F_SETFD, FD_CLOEXEC); /* what the tools have open */
    }
    for_every_kind(all_close_on_exec);
}

static void test_bytes_are_kept(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_token *first = cell(pool.client), *second = cell(pool.client);
    int64_t first_serial = acquired(first), second_serial = acquired(second);
    CHECK_EQUAL(jobserver_token_release(second, second_serial), 0);
    CHECK_EQUAL(jobserver_token_release(first, first_serial), 0);
    char bytes[3];
    CHECK_EQUAL(read(pool.read_fd, bytes, 3), 3);
    CHECK_EQUAL(memcmp(bytes, "cba", 3), 0);
    CHECK_EQUAL(write(pool.write_fd, bytes, 3), 3);
    jobserver_token_free(first);
    jobserver_token_free(second);
    close_pool(&pool);
}

static void test_a_late_release_frees_no_other_token(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_token *token = cell(pool.client);
    int64_t old = acquired(token);
    CHECK_EQUAL(jobserver_token_release(token, old), 0);
    int64_t fresh = acquired(token);
    CHECK_EQUAL(jobserver_token_release(token, old), 1);
    CHECK_EQUAL(jobserver_client_available(pool.client), POOL_TOKENS - 1);
    CHECK_EQUAL(jobserver_token_drop(token, old), -ENOENT);
    CHECK_EQUAL(jobserver_token_release(token, fresh), 0);
    jobserver_token_free(token);
    close_pool(&pool);
}

static void test_freeing_gives_back(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_token *token = cell(pool.client);
    acquired(token);
    jobserver_token_free(token);
    close_pool(&pool);
}

static void test_raw_tokens(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_token *token = cell(pool.client);
    CHECK_EQUAL(jobserver_acquire_raw(pool.client, -1), 'a');
    CHECK_EQUAL(jobserver_release_raw(pool.client, 'b'), JOBSERVER_NOT_OUT);
    CHECK_EQUAL(jobserver_release_raw(pool.client, 'a' + 256), -EINVAL);
    CHECK_EQUAL(jobserver_acquire_raw(pool.client, -1), 'b');
    CHECK_EQUAL(jobserver_release_raw(pool.client, 'b'), 0);
    CHECK_EQUAL(jobserver_release_raw(pool.client, -1), 0);
    int64_t serial = acquired(token); /* in a cell: it licenses no raw release */
    CHECK_EQUAL(jobserver_release_raw(pool.client, -1), JOBSERVER_OVER_RELEASE);
    CHECK_EQUAL(jobserver_release_raw(pool.client, 'a'), JOBSERVER_OVER_RELEASE);
    CHECK_EQUAL(jobserver_token_drop(token, serial), 'c');
    CHECK_EQUAL(jobserver_token_release(token, serial), 1);
    CHECK_EQUAL(jobserver_release_raw(pool.client, 'c'), 0);
    jobserver_token_free(token);
    close_pool(&pool);
}

static void test_calls_of_one_argument(void) {
    struct pool pool = open_pool(INHERITED_PIPE), own = open_pool(OWN_PIPE);
    jobserver_token *token = cell(pool.client);
    CHECK_EQUAL(jobserver_token_give(token), 1);
    CHECK_EQUAL(jobserver_token_take(token), 0);
    CHECK_EQUAL(jobserver_client_available(pool.client), POOL_TOKENS - 1);
    CHECK_EQUAL(jobserver_token_give(token), 0);
    CHECK_EQUAL(jobserver_token_give(token), 1);
    CHECK_EQUAL(jobserver_take_raw(pool.client), 'b');
    CHECK_EQUAL(jobserver_give_raw_plus(pool.client), JOBSERVER_NOT_OUT);
    CHECK_EQUAL(jobserver_give_raw(pool.client), 0);
    CHECK_EQUAL(jobserver_take_raw(own.client), '+');
    CHECK_EQUAL(jobserver_give_raw_plus(own.client), 0);
    CHECK_EQUAL(jobserver_give_raw_plus(own.client), JOBSERVER_OVER_RELEASE);
    jobserver_token_free(token);
    close_pool(&own);
    close_pool(&pool);
}

static void test_the_maker_may_not_release_too_often(void) {
    jobserver_client *client = own_pipe(1);
    jobserver_client_inherit(client); /* changes nothing: this process made the pool */
    jobserver_token *token = cell(client);
    CHECK_EQUAL(jobserver_token_acquire_implicit(token), -EAGAIN);
    CHECK_EQUAL(jobserver_release_raw(client, -1), JOBSERVER_OVER_RELEASE);
    CHECK_EQUAL(jobserver_client_available(client), 1);
    jobserver_token_free(token);
    jobserver_client_free(client);
}

static void test_one_implicit_slot_for_all_clients(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_client *other = join(pool.read_fd, pool.write_fd);
    jobserver_client_inherit(pool.client);
    jobserver_client_inherit(other);
    jobserver_token *first = cell(pool.client), *second = cell(other);
    int64_t serial = jobserver_token_acquire_implicit(first);
    CHECK(serial > 0);
    CHECK_EQUAL(jobserver_token_acquire_implicit(second), -EAGAIN);
    CHECK_EQUAL(jobserver_release_raw(other, -1), JOBSERVER_OVER_RELEASE); /* taken: it cannot be lent */
    CHECK_EQUAL(jobserver_token_drop(first, serial), -EINVAL);
    CHECK_EQUAL(jobserver_token_release(first, serial), 0);
    CHECK_EQUAL(jobserver_token_release(first, serial), 1);
    CHECK_EQUAL(jobserver_release_raw(other, -1), 0); /* lent, once */
    CHECK_EQUAL(jobserver_release_raw(pool.client, -1), JOBSERVER_OVER_RELEASE);
    CHECK_EQUAL(jobserver_token_acquire_implicit(second), -EAGAIN);
    jobserver_token_free(first);
    jobserver_token_free(second);
    jobserver_client_free(other);
    CHECK_EQUAL(in_pipe(pool.read_fd), POOL_TOKENS + 1);
    char bytes[POOL_TOKENS + 1];
    CHECK_EQUAL(read(pool.read_fd, bytes, sizeof bytes), sizeof bytes);
    CHECK_EQUAL(bytes[POOL_TOKENS], '+');
    CHECK_EQUAL(write(pool.write_fd, bytes, POOL_TOKENS), POOL_TOKENS);
    close_pool(&pool);
}

/* The slot is lent to the pool that the process was started under, and to no other that it uses. */
static void test_the_slot_goes_with_its_pool(void) {
    struct pool pool = open_pool(INHERITED_PIPE), other = open_pool(OWN_PIPE);
    jobserver_client_inherit(pool.client);
    jobserver_token *token = cell(other.client);
    CHECK_EQUAL(jobserver_token_acquire_implicit(token), -EAGAIN);
    CHECK_EQUAL(jobserver_release_raw(other.client, -1), JOBSERVER_OVER_RELEASE);
    jobserver_token_free(token);
    close_pool(&other);
    close_pool(&pool);
}

static void test_who_only_knows_the_address_has_no_slot(void) {
    struct pool pool = open_pool(INHERITED_PIPE);
    jobserver_token *token = cell(pool.client);
    CHECK_EQUAL(jobserver_token_acquire_implicit(token), -EAGAIN);
    CHECK_EQUAL(jobserver_release_raw(pool.client, -1), JOBSERVER_OVER_RELEASE);
    jobserver_token_free(token);
    close_pool(&pool);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"every_kind_of_pool", test_every_kind_of_pool},
        {"flags_of_what_is_inherited_stay", test_flags_of_what_is_inherited_stay},
        {"close_on_exec", test_close_on_exec},
        {"bytes_are_kept", test_bytes_are_kept},
        {"a_late_release_frees_no_other_token", test_a_late_release_frees_no_other_token},
        {"freeing_gives_back", test_freeing_gives_back},
        {"raw_tokens", test_raw_tokens},
        {"calls_of_one_argument", test_calls_of_one_argument},
        {"the_maker_may_not_release_too_often", test_the_maker_may_not_release_too_often},
        {"one_implicit_slot_for_all_clients", test_one_implicit_slot_for_all_clients},
        {"the_slot_goes_with_its_pool", test_the_slot_goes_with_its_pool},
        {"who_only_knows_the_address_has_no_slot", test_who_only_knows_the_address_has_no_slot},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
