/* Fifos that the core makes: who removes them, and when; and what dead owners leave behind. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[600];

static bool exists(const char *name) {
    return access(name, F_OK) == 0;
}

static int mode_of(const char *name) {
    struct stat status;
    CHECK_EQUAL(lstat(name, &status), 0);
    return (int)(status.st_mode & 07777);
}

static jobserver_client *create(int limit) {
    jobserver_client *client = NULL;
    snprintf(path, sizeof path, "%s/fifo", scratch_directory());
    CHECK_EQUAL(jobserver_client_create_fifo(path, limit, &client), 0);
    return client;
}

static jobserver_client *create_private(void) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), 2, &client), 0);
    CHECK_EQUAL(jobserver_client_path(client, path, sizeof path), 0);
    return client;
}

static int entries_in(const char *directory) {
    DIR *entries = opendir(directory);
    CHECK(entries != NULL);
    int count = -2; /* the directory itself and the one above */
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count;
}

static void test_a_fifo_with_a_name(void) {
    jobserver_client *client = create(3), *other = NULL;
    char found[600];
    CHECK_EQUAL(mode_of(path), 0600);
    CHECK_EQUAL(jobserver_client_path(client, found, sizeof found), 0);
    CHECK_EQUAL(strcmp(found, path), 0);
    CHECK_EQUAL(jobserver_client_path(client, found, strlen(path)), -ENAMETOOLONG);
    CHECK_EQUAL(jobserver_client_create_fifo(path, 1, &other), -EEXIST);
    CHECK_EQUAL(jobserver_client_open_path(path, &other), 0);
    CHECK_EQUAL(jobserver_client_close(other), 0);
    jobserver_client_free(other);
    CHECK(exists(path)); /* who joined does not remove it */
    CHECK_EQUAL(jobserver_client_close(client), 0);
    CHECK(!exists(path));
    jobserver_client_free(client);
}

static void test_a_private_fifo(void) {
    jobserver_client *client = create_private();
    char directory[600];
    snprintf(directory, sizeof directory, "%s", path);
    *strrchr(directory, '/') = '\0';
    CHECK_EQUAL(mode_of(path), 0600);
    CHECK_EQUAL(mode_of(directory), 0700);
    jobserver_client_free(client);
    CHECK(!exists(directory));
}

static void test_the_directory_of_the_process_may_change(void) {
    jobserver_client *client = NULL, *hidden = NULL;
    CHECK_EQUAL(chdir(scratch_directory()), 0);
    CHECK_EQUAL(jobserver_client_create_fifo("fifo", 1, &client), 0);
    CHECK_EQUAL(jobserver_client_create_private_fifo(".", 1, &hidden), 0);
    CHECK_EQUAL(jobserver_client_path(client, path, sizeof path), 0);
    CHECK_EQUAL(path[0], '/');
    CHECK_EQUAL(entries_in("."), 2);
    CHECK_EQUAL(chdir("/"), 0);
    jobserver_client_free(client);
    jobserver_client_free(hidden);
    CHECK_EQUAL(entries_in(scratch_directory()), 0);
}

static void test_a_fifo_that_others_put_in_its_place_stays(void) {
    jobserver_client *client = create(1);
    CHECK_EQUAL(unlink(path), 0);
    CHECK_EQUAL(mkfifo(path, 0600), 0);
    jobserver_client_free(client);
    CHECK(exists(path));
}

static void test_a_token_or_a_hold_keeps_it(void) {
    jobserver_client *client = create(1);
    jobserver_token *token = cell(client);
    int64_t serial = acquired(token);
    jobserver_hold *hold = jobserver_hold_new(client);
    CHECK_EQUAL(jobserver_client_close(client), 0);
    CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    CHECK(exists(path));
    jobserver_hold_free(hold);
    CHECK(!exists(path));
    jobserver_token_free(token);
    jobserver_client_free(client);
}

static void use_and_close(void *argument) {
    jobserver_client *client = argument;
    acquired(cell(client));
    CHECK_EQUAL(jobserver_client_close(client), 0);
    jobserver_client_free(client);
}

static void use_and_exit(void *argument) {
    acquired(cell(argument));
}

static void test_a_child_does_not_remove_it(void) {
    jobserver_client *client = create(1);
    finish(start(use_and_close, client));
    CHECK(exists(path));
    finish(start(use_and_exit, client));
    CHECK(exists(path));
    CHECK_EQUAL(jobserver_client_available(client), 1);
    jobserver_client_free(client);
}

enum ending { OPEN, WITH_HOLD, CLOSED_WITH_RAW_TOKEN };

static void leave(void *argument) {
    enum ending ending = *(enum ending *)argument;
    jobserver_client *client = create(1);
    if (ending == WITH_HOLD) {
        CHECK(jobserver_hold_new(client) != NULL);
    } else if (ending == CLOSED_WITH_RAW_TOKEN) {
        CHECK_EQUAL(jobserver_acquire_raw(client, -1), '+');
        CHECK_EQUAL(jobserver_client_close(client), 0);
    }
    jobserver_client *other = create_private();
    CHECK_EQUAL(jobserver_client_available(other), 2);
}

/* exit() removes it, unless a hold says that a child of this process uses it. */
static void test_exit_removes_it(void) {
    snprintf(path, sizeof path, "%s/fifo", scratch_directory());
    for (enum ending ending = OPEN; ending <= CLOSED_WITH_RAW_TOKEN; ending++) {
        finish(start(leave, &ending));
        CHECK_EQUAL(exists(path), ending == WITH_HOLD);
        unlink(path);
        CHECK_EQUAL(entries_in(scratch_directory()), 0);
    }
}

static void die(void *argument) {
    int ready = *(int *)argument;
    create_private();
    CHECK_EQUAL(write(ready, path, sizeof path), sizeof path);
    for (;;) {
        pause();
    }
}

/* A start removes what dead owners left, and nothing else. */
static void test_the_directories_of_the_dead_are_swept(void) {
    int ready[2];
    char left[600];
    CHECK_EQUAL(pipe(ready), 0);
    scratch_directory();
    pid_t owner = start(die, &ready[1]);
    CHECK_EQUAL(read(ready[0], left, sizeof left), sizeof left);
    jobserver_client *living = create_private();
    char own[600];
    memcpy(own, path, sizeof own);
    CHECK(exists(left)); /* its owner lives */
    kill_child(owner);
    CHECK(exists(left));
    jobserver_client *next = create_private();
    CHECK(!exists(left));
    CHECK(exists(own));
    CHECK_EQUAL(entries_in(scratch_directory()), 2);
    jobserver_client_free(living);
    jobserver_client_free(next);
    close(ready[0]);
    close(ready[1]);
}

static void test_a_limit_that_does_not_fit_leaves_nothing(void) {
    jobserver_client *client = NULL;
    snprintf(path, sizeof path, "%s/fifo", scratch_directory());
    CHECK_EQUAL(jobserver_client_create_fifo(path, INT32_MAX, &client), JOBSERVER_LIMIT);
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), INT32_MAX, &client), JOBSERVER_LIMIT);
    CHECK_EQUAL(entries_in(scratch_directory()), 0);
}

static void make_and_remove(void *argument) {
    (void)argument;
    for (int i = 0; i < scaled(100); i++) {
        jobserver_client *client = create_private();
        CHECK(exists(path));
        CHECK_EQUAL(jobserver_client_available(client), 2);
        jobserver_client_free(client);
    }
}

/* Each sweeps what the others make, before they have locked it too. */
static void test_many_who_start_at_once(void) {
    scratch_directory();
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = start(make_and_remove, NULL);
    }
    for (int i = 0; i < 4; i++) {
        finish(children[i]);
    }
    CHECK_EQUAL(entries_in(scratch_directory()), 0);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_fifo_with_a_name", test_a_fifo_with_a_name},
        {"a_private_fifo", test_a_private_fifo},
        {"the_directory_of_the_process_may_change", test_the_directory_of_the_process_may_change},
        {"a_fifo_that_others_put_in_its_place_stays", test_a_fifo_that_others_put_in_its_place_stays},
        {"a_token_or_a_hold_keeps_it", test_a_token_or_a_hold_keeps_it},
        {"a_child_does_not_remove_it", test_a_child_does_not_remove_it},
        {"exit_removes_it", test_exit_removes_it},
        {"the_directories_of_the_dead_are_swept", test_the_directories_of_the_dead_are_swept},
        {"a_limit_that_does_not_fit_leaves_nothing", test_a_limit_that_does_not_fit_leaves_nothing},
        {"many_who_start_at_once", test_many_who_start_at_once},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
