/*
 * The core on Windows, without Python: tokens, batches, waits, events and exit, between threads and processes. Called
 * with a name and a role it is the other process of a test.
 */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobserver.h"

#define MILLISECOND INT64_C(1000000)
#define GUARD 60000 /* milliseconds until a test that hangs is ended */
#define CHECK(condition) check_that(condition, #condition, __LINE__)
#define CHECK_EQUAL(actual, expected) check_equal((int64_t)(actual), (int64_t)(expected), #actual, __LINE__)

enum { LIMIT = 3, THREADS = 8, PROCESSES = 3, ROUNDS = 300 };

static const char *program;

static void check_that(bool holds, const char *text, int line) {
    if (!holds) {
        fprintf(stderr, "line %d: not so: %s\n", line, text);
        _exit(1);
    }
}

static void check_equal(int64_t actual, int64_t expected, const char *text, int line) {
    if (actual != expected) {
        fprintf(stderr, "line %d: %s is %lld, not %lld\n", line, text, (long long)actual, (long long)expected);
        _exit(1);
    }
}

static jobserver_client *own(int limit) {
    jobserver_client *client;
    CHECK_EQUAL(jobserver_client_create_semaphore(limit, &client), 0);
    return client;
}

static jobserver_client *join(const char *name) {
    jobserver_client *client;
    CHECK_EQUAL(jobserver_client_open_semaphore(name, &client), 0);
    return client;
}

static jobserver_token *cell(jobserver_client *client) {
    jobserver_token *token = jobserver_token_new(client);
    CHECK(token != NULL);
    return token;
}

static jobserver_event *new_event(void) {
    jobserver_event *event;
    CHECK_EQUAL(jobserver_event_new(&event), 0);
    return event;
}

static void name_of(jobserver_client *client, char name[MAX_PATH]) {
    CHECK(jobserver_client_path(client, name, MAX_PATH) >= 0);
}

static HANDLE start(LPTHREAD_START_ROUTINE run, void *argument) {
    HANDLE thread = CreateThread(NULL, 0, run, argument, 0, NULL);
    CHECK(thread != NULL);
    return thread;
}

/* Waits for threads or processes. */
static void finish(HANDLE *handles, int count) {
    CHECK_EQUAL(WaitForMultipleObjects((DWORD)count, handles, TRUE, GUARD), WAIT_OBJECT_0);
    for (int i = 0; i < count; i++) {
        CloseHandle(handles[i]);
    }
}

/* Starts this program in a role, with the pool's name. */
static HANDLE start_process(const char *role, const char *name) {
    char line[3 * MAX_PATH];
    snprintf(line, sizeof line, "\"%s\" %s %s", program, role, name);
    STARTUPINFOA startup = {.cb = sizeof startup};
    PROCESS_INFORMATION process;
    CHECK(CreateProcessA(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &process));
    CloseHandle(process.hThread);
    return process.hProcess;
}

static DWORD status_of(HANDLE process) {
    DWORD status;
    CHECK_EQUAL(WaitForSingleObject(process, GUARD), WAIT_OBJECT_0);
    CHECK(GetExitCodeProcess(process, &status));
    CloseHandle(process);
    return status;
}

static void test_tokens(void) {
    jobserver_client *client = own(LIMIT);
    jobserver_token *cells[LIMIT + 1];
    int64_t serials[LIMIT];
    for (int i = 0; i <= LIMIT; i++) {
        cells[i] = cell(client);
    }
    for (int i = 0; i < LIMIT; i++) {
        serials[i] = jobserver_token_acquire(cells[i], i - 1);
        CHECK(serials[i] > 0);
        CHECK_EQUAL(jobserver_client_available(client), LIMIT - 1 - i);
    }
    CHECK_EQUAL(jobserver_token_acquire(cells[LIMIT], 0), -EAGAIN);
    CHECK_EQUAL(jobserver_token_acquire(cells[LIMIT], MILLISECOND), -ETIMEDOUT);
    CHECK_EQUAL(jobserver_token_release(cells[0], serials[0]), 0);
    CHECK_EQUAL(jobserver_token_release(cells[0], serials[0]), 1); /* late: nobody's token is freed */
    jobserver_token_free(cells[1]);                                /* gives back what it holds */
    CHECK_EQUAL(jobserver_client_available(client), LIMIT - 1);
    CHECK_EQUAL(jobserver_token_release(cells[2], serials[2]), 0);
    jobserver_token_free(cells[0]);
    jobserver_token_free(cells[2]);
    jobserver_token_free(cells[LIMIT]);
    CHECK_EQUAL(jobserver_client_available(client), LIMIT);
    jobserver_client_free(client);
}

static void test_raw_tokens_are_counted(void) {
    jobserver_client *client = own(1);
    CHECK_EQUAL(jobserver_release_raw(client, -1), JOBSERVER_OVER_RELEASE);
    CHECK_EQUAL(jobserver_acquire_raw(client, -1), '+');
    CHECK_EQUAL(jobserver_release_raw(client, 'a'), JOBSERVER_NOT_OUT);
    CHECK_EQUAL(jobserver_release_raw(client, '+'), 0);
    jobserver_client_free(client);
}

static void test_a_pool_has_room_for_no_more(void) {
    jobserver_client *client = own(1);
    char name[MAX_PATH];
    name_of(client, name);
    jobserver_token *token = cell(client);
    int64_t serial = jobserver_token_acquire(token, -1);
    HANDLE semaphore = OpenSemaphoreA(SEMAPHORE_ALL_ACCESS, FALSE, name);
    CHECK(semaphore != NULL && ReleaseSemaphore(semaphore, 1, NULL)); /* by one who has taken none */
    CHECK_EQUAL(jobserver_token_release(token, serial), JOBSERVER_TOO_MANY);
    CHECK_EQUAL(WaitForSingleObject(semaphore, 0), WAIT_OBJECT_0);
    CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    CloseHandle(semaphore);
    jobserver_token_free(token);
    jobserver_client_free(client);
}

static void test_names(void) {
    jobserver_client *client;
    CHECK_EQUAL(jobserver_client_open_semaphore("no-such-semaphore", &client),
                JOBSERVER_WINDOWS - ERROR_FILE_NOT_FOUND);
    jobserver_client *made = own(0);
    char name[MAX_PATH];
    name_of(made, name);
    jobserver_client *joined = join(name);
    CHECK_EQUAL(jobserver_client_available(joined), 0);
    jobserver_client_free(joined);
    jobserver_client_free(made);
    CHECK_EQUAL(jobserver_client_open_semaphore(name, &client), JOBSERVER_WINDOWS - ERROR_FILE_NOT_FOUND);
}

static void test_a_batch(void) {
    jobserver_client *client = own(LIMIT);
    jobserver_batch *batch = jobserver_batch_new(client, LIMIT), *second = jobserver_batch_new(client, LIMIT);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 2, -1), LIMIT);
    CHECK_EQUAL(jobserver_batch_acquire(second, 1, 0), -EAGAIN);
    CHECK_EQUAL(jobserver_batch_acquire(second, 2, MILLISECOND), -ETIMEDOUT);
    CHECK_EQUAL(jobserver_batch_release(batch), 0);
    CHECK_EQUAL(jobserver_client_available(client), LIMIT);
    jobserver_batch_free(batch);
    jobserver_batch_free(second);
    jobserver_client_free(client);
}

static DWORD WINAPI take_two_again_and_again(void *argument) {
    jobserver_batch *batch = jobserver_batch_new(argument, 2);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_EQUAL(jobserver_batch_acquire(batch, 2, -1), 2);
        CHECK_EQUAL(jobserver_batch_release(batch), 0);
    }
    jobserver_batch_free(batch);
    return 0;
}

/* Each wants more than half: who holds one of them while it waits must be alone in that. */
static void test_minima_do_not_deadlock(void) {
    jobserver_client *client = own(LIMIT);
    HANDLE threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start(take_two_again_and_again, client);
    }
    finish(threads, THREADS);
    CHECK_EQUAL(jobserver_client_available(client), LIMIT);
    jobserver_client_free(client);
}

static void test_the_token_or_something_else(void) {
    jobserver_client *client = own(1);
    jobserver_token *held = cell(client), *token = cell(client);
    jobserver_event *event = new_event();
    intptr_t other = jobserver_event_waitable(event);
    CHECK(jobserver_token_acquire_or(held, -1, &other, 1) > 0);
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, &other, 1), -ETIMEDOUT);
    jobserver_event_set(event);
    CHECK_EQUAL(jobserver_token_acquire_or(token, -1, &other, 1), JOBSERVER_READY);
    CHECK_EQUAL(jobserver_event_wait(event), 0);
    CHECK_EQUAL(jobserver_token_give(held), 0);
    CHECK(jobserver_token_acquire_or(token, -1, &other, 1) > 0); /* a free token goes first */
    jobserver_token_free(held);
    jobserver_token_free(token);
    jobserver_event_free(event);
    jobserver_client_free(client);
}

static void test_as_many_others_as_the_system_can_wait_for(void) {
    jobserver_client *client = own(0);
    jobserver_token *token = cell(client);
    jobserver_event *event = new_event();
    intptr_t others[MAXIMUM_WAIT_OBJECTS];
    for (int i = 0; i < MAXIMUM_WAIT_OBJECTS; i++) {
        others[i] = jobserver_event_waitable(event);
    }
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, others, 61), -ETIMEDOUT);
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, others, MAXIMUM_WAIT_OBJECTS), -EINVAL);
    jobserver_event_set(event);
    CHECK_EQUAL(jobserver_token_acquire_or(token, -1, others, 61), JOBSERVER_READY);
    jobserver_token_free(token);
    jobserver_event_free(event);
    jobserver_client_free(client);
}

struct hammer {
    jobserver_client *client;
    jobserver_event *event;
    atomic_int *at_work; /* shared by processes */
};

static void work(struct hammer *hammer, int tokens) {
    CHECK(atomic_fetch_add(hammer->at_work, tokens) + tokens <= LIMIT);
    SwitchToThread();
    atomic_fetch_sub(hammer->at_work, tokens);
}

static void take_one(struct hammer *hammer, jobserver_token *token, int64_t timeout) {
    intptr_t other = jobserver_event_waitable(hammer->event);
    int64_t serial = jobserver_token_acquire_or(token, timeout, &other, 1);
    if (serial > 0) {
        work(hammer, 1);
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    } else {
        CHECK(serial == -EAGAIN || serial == -ETIMEDOUT || serial == JOBSERVER_READY);
    }
}

/* Every way to take, in one thread of many. */
static DWORD WINAPI hammer_here(void *argument) {
    struct hammer *hammer = argument;
    jobserver_token *token = cell(hammer->client);
    jobserver_batch *batch = jobserver_batch_new(hammer->client, 2);
    for (int round = 0; round < ROUNDS; round++) {
        take_one(hammer, token, -1);
        take_one(hammer, token, 0);
        take_one(hammer, token, MILLISECOND / 2);
        CHECK_EQUAL(jobserver_acquire_raw(hammer->client, -1), '+');
        work(hammer, 1);
        CHECK_EQUAL(jobserver_release_raw(hammer->client, -1), 0);
        int count = jobserver_batch_acquire(batch, 1, -1);
        CHECK(count > 0);
        work(hammer, count);
        CHECK_EQUAL(jobserver_batch_release(batch), 0);
        (round % 2 ? jobserver_event_set : jobserver_event_clear)(hammer->event);
    }
    jobserver_token_free(token);
    jobserver_batch_free(batch);
    return 0;
}

/* Memory with a name made of the pool's. */
static atomic_int *shared(const char *name) {
    char mapping[MAX_PATH + 8];
    snprintf(mapping, sizeof mapping, "%s-count", name);
    HANDLE handle = CreateFileMappingA(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, sizeof(atomic_int), mapping);
    atomic_int *memory = handle == NULL ? NULL : MapViewOfFile(handle, FILE_MAP_ALL_ACCESS, 0, 0, sizeof(atomic_int));
    CHECK(memory != NULL);
    return memory;
}

static int hammer_in_threads(const char *name) {
    struct hammer hammer = {.client = join(name), .event = new_event(), .at_work = shared(name)};
    HANDLE threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start(hammer_here, &hammer);
    }
    finish(threads, THREADS);
    jobserver_event_free(hammer.event);
    jobserver_client_free(hammer.client);
    return 0;
}

static void test_processes_that_hammer(void) {
    jobserver_client *client = own(LIMIT);
    char name[MAX_PATH];
    name_of(client, name);
    const atomic_int *at_work = shared(name); /* exists from the first process on to the last */
    HANDLE processes[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        processes[i] = start_process("hammer", name);
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_EQUAL(status_of(processes[i]), 0);
    }
    CHECK_EQUAL(*at_work, 0);
    CHECK_EQUAL(jobserver_client_available(client), LIMIT);
    jobserver_client_free(client);
}

static DWORD WINAPI wait_for_ever(void *argument) {
    jobserver_token *token = cell(argument);
    while (jobserver_token_take(token) == 0) {
        jobserver_token_give(token);
    }
    return 0;
}

/* Ends with tokens in its hands and threads in their waits. */
static int exit_in_the_middle(const char *name) {
    jobserver_client *client = join(name);
    CHECK_EQUAL(jobserver_token_take(cell(client)), 0);
    CHECK_EQUAL(jobserver_batch_acquire(jobserver_batch_new(client, 1), 1, -1), 1);
    for (int i = 0; i < THREADS; i++) {
        CloseHandle(start(wait_for_ever, client));
    }
    return 0;
}

/* Takes one, tells by an event, and is killed. */
static int hold(const char *name) {
    jobserver_client *client = join(name);
    CHECK_EQUAL(jobserver_token_take(cell(client)), 0);
    char told[MAX_PATH + 8];
    snprintf(told, sizeof told, "%s-held", name);
    HANDLE event = OpenEventA(EVENT_ALL_ACCESS, FALSE, told);
    CHECK(event != NULL && SetEvent(event));
    Sleep(GUARD);
    return 1;
}

static void test_exit_gives_back(void) {
    jobserver_client *client = own(LIMIT);
    char name[MAX_PATH];
    name_of(client, name);
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(status_of(start_process("exit", name)), 0);
        CHECK_EQUAL(jobserver_client_available(client), LIMIT);
    }
    jobserver_client_free(client);
}

static void test_who_is_killed_takes_along_what_it_holds_only(void) {
    jobserver_client *client = own(LIMIT);
    char name[MAX_PATH], told[MAX_PATH + 8];
    name_of(client, name);
    snprintf(told, sizeof told, "%s-held", name);
    HANDLE event = CreateEventA(NULL, TRUE, FALSE, told), process = start_process("hold", name);
    CHECK_EQUAL(WaitForSingleObject(event, GUARD), WAIT_OBJECT_0);
    CHECK(TerminateProcess(process, 9));
    CHECK_EQUAL(status_of(process), 9);
    CHECK_EQUAL(jobserver_client_available(client), LIMIT - 1);
    CloseHandle(event);
    jobserver_client_free(client);
}

static DWORD WINAPI serve(void *broker) {
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    return 0;
}

static jobserver_lease_report report_of(jobserver_lease *lease) {
    jobserver_lease_report report;
    CHECK_EQUAL(jobserver_lease_describe(lease, &report), 0);
    return report;
}

/* Its process holds a token when it is killed: it is counted as held, then as lost, and all is back in the pool. */
static void test_a_lease_whose_process_is_killed(void) {
    jobserver_broker *broker;
    jobserver_lease *lease;
    jobserver_broker_report pool;
    jobserver_lease_terms terms = {.weight = 1, .life_line = 1, .orphan_timeout = -1};
    char name[MAX_PATH], told[MAX_PATH + 8];
    CHECK_EQUAL(jobserver_broker_create("", LIMIT, &broker), 0);
    HANDLE server = start(serve, broker);
    CHECK_EQUAL(jobserver_lease_open(broker, &terms, &lease), 0);
    CHECK_EQUAL(jobserver_lease_path(lease, name, sizeof name), 0);
    CHECK_EQUAL(jobserver_lease_start(lease, -1), 0);
    snprintf(told, sizeof told, "%s-held", name);
    HANDLE event = CreateEventA(NULL, TRUE, FALSE, told), process = start_process("hold", name);
    CHECK_EQUAL(jobserver_lease_spawned(lease, (int)GetProcessId(process)), 0);
    CHECK_EQUAL(WaitForSingleObject(event, GUARD), WAIT_OBJECT_0);
    CHECK_EQUAL(report_of(lease).slots, 2);
    CHECK(TerminateProcess(process, 9));
    CHECK_EQUAL(status_of(process), 9);
    CHECK_EQUAL(jobserver_lease_wait(lease, GUARD * MILLISECOND), 0);
    CHECK_EQUAL(report_of(lease).lost, 1);
    CHECK_EQUAL(jobserver_broker_describe(broker, &pool), 0);
    CHECK_EQUAL(pool.in_use, 0);
    jobserver_lease_free(lease);
    jobserver_broker_stop(broker);
    CHECK_EQUAL(WaitForSingleObject(server, GUARD), WAIT_OBJECT_0);
    CloseHandle(server);
    CloseHandle(event);
    jobserver_broker_free(broker);
}

static DWORD WINAPI guard(void *argument) {
    Sleep(3 * GUARD);
    fprintf(stderr, "%s: not after %d seconds\n", (const char *)argument, 3 * GUARD / 1000);
    _exit(99);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(const char *pool);
} roles[] = {{"hammer", hammer_in_threads}, {"exit", exit_in_the_middle}, {"hold", hold}};

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"tokens", test_tokens},
    {"raw_tokens_are_counted", test_raw_tokens_are_counted},
    {"a_pool_has_room_for_no_more", test_a_pool_has_room_for_no_more},
    {"names", test_names},
    {"a_batch", test_a_batch},
    {"minima_do_not_deadlock", test_minima_do_not_deadlock},
    {"the_token_or_something_else", test_the_token_or_something_else},
    {"as_many_others_as_the_system_can_wait_for", test_as_many_others_as_the_system_can_wait_for},
    {"processes_that_hammer", test_processes_that_hammer},
    {"exit_gives_back", test_exit_gives_back},
    {"who_is_killed_takes_along_what_it_holds_only", test_who_is_killed_takes_along_what_it_holds_only},
    {"a_lease_whose_process_is_killed", test_a_lease_whose_process_is_killed},
};

int main(int argc, char **argv) {
    program = argv[0];
    CloseHandle(start(guard, argc > 1 ? argv[1] : "tests"));
    for (size_t i = 0; argc == 3 && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(argv[1], roles[i].name) == 0) {
            return roles[i].run(argv[2]);
        }
    }
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        tests[i].run();
        printf("%s\n", tests[i].name);
        fflush(stdout);
    }
    return 0;
}
