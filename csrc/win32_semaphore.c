/* Windows: a pool is a named semaphore, whose count is the number of free tokens. They have no bytes. */
#define _CRT_RAND_S

#include "win32.h"

#if defined(_WIN32)

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The rights to wait, to release and to ask for the count. */
#define RIGHTS (SYNCHRONIZE | SEMAPHORE_MODIFY_STATE | 0x0001)

/* Releases a channel that is whole, or as far as it was made. */
void jobserver_channel_close(jobserver_channel *channel, bool remove) {
    (void)remove;
    if (channel->semaphore != NULL) {
        CloseHandle(channel->semaphore);
    }
    if (channel->retired != NULL) {
        CloseHandle(channel->retired);
    }
    free(channel->name);
    free(channel);
}

/* A semaphore vanishes with its last handle. */
void jobserver_channel_remove(jobserver_channel *channel) {
    (void)channel;
}

/* FNV-1a, from one of two starts: twice 64 bits stand for a name. */
static uint64_t hash(const char *name, uint64_t start) {
    for (; *name != '\0'; name++) {
        start = (start ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return start;
}

/* A channel without a semaphore, with a copy of the name. Null when memory is short. */
static jobserver_channel *channel_new(const char *name) {
    jobserver_channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL) {
        return NULL;
    }
    channel->name = _strdup(name);
    channel->retired = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (channel->name == NULL || channel->retired == NULL) {
        jobserver_channel_close(channel, false);
        return NULL;
    }
    channel->pool.device = hash(name, 0xcbf29ce484222325u);
    channel->pool.number = hash(name, 0x84222325cbf29ce4u);
    return channel;
}

/* Hands the channel to the caller, or closes it if `result` is an error. */
static int finish(jobserver_channel *channel, int result, jobserver_channel **out) {
    if (result < 0) {
        jobserver_channel_close(channel, false);
        return result;
    }
    *out = channel;
    return 0;
}

/* The name is unguessable, without a character that make escapes, and known in this session only. */
static int make_name(char name[JOBSERVER_SEMAPHORE_NAME]) {
    unsigned random[4];
    for (int i = 0; i < 4; i++) {
        if (rand_s(&random[i]) != 0) {
            return -ENOSYS;
        }
    }
    const char *form = "jobserver-ffi-%08x%08x%08x%08x";
    snprintf(name, JOBSERVER_SEMAPHORE_NAME, form, random[0], random[1], random[2], random[3]);
    return 0;
}

/* There is no semaphore without room. */
int jobserver_semaphore_create(int count, int room, char name[JOBSERVER_SEMAPHORE_NAME], HANDLE *semaphore) {
    struct jobserver_private attributes;
    int result = jobserver_private_fill(&attributes, SEMAPHORE_ALL_ACCESS);
    if (result == 0) {
        result = make_name(name);
    }
    if (result < 0) {
        return result;
    }
    *semaphore = CreateSemaphoreA(&attributes.attributes, count, room > 0 ? room : 1, name);
    if (*semaphore == NULL) {
        return jobserver_last_error();
    }
    if (GetLastError() == ERROR_ALREADY_EXISTS) {
        CloseHandle(*semaphore);
        return -EEXIST;
    }
    return 0;
}

int jobserver_channel_create_semaphore(int limit, jobserver_channel **out) {
    char name[JOBSERVER_SEMAPHORE_NAME];
    HANDLE semaphore;
    int result = jobserver_semaphore_create(limit, limit, name, &semaphore);
    if (result < 0) {
        return result;
    }
    jobserver_channel *channel = channel_new(name);
    if (channel == NULL) {
        CloseHandle(semaphore);
        return -ENOMEM;
    }
    channel->semaphore = semaphore;
    *out = channel;
    return 0;
}

int jobserver_channel_open_semaphore(const char *name, jobserver_channel **out) {
    wchar_t wide[MAX_PATH];
    if (!jobserver_widen(name, L"", wide)) {
        return -EINVAL;
    }
    jobserver_channel *channel = channel_new(name);
    if (channel == NULL) {
        return -ENOMEM;
    }
    channel->semaphore = OpenSemaphoreW(RIGHTS, FALSE, wide);
    return finish(channel, channel->semaphore == NULL ? jobserver_last_error() : 0, out);
}

struct jobserver_pool jobserver_channel_pool(const jobserver_channel *channel) {
    return channel->pool;
}

void jobserver_channel_descriptors(const jobserver_channel *channel, int descriptors[2]) {
    (void)channel;
    descriptors[0] = descriptors[1] = -1;
}

const char *jobserver_channel_path(const jobserver_channel *channel) {
    return channel->name;
}

/* Takes up to `size` of what waits took. Returns how many. */
static size_t take_taken(jobserver_channel *channel, size_t size) {
    int taken = atomic_load(&channel->taken);
    int part;
    do {
        part = (size_t)taken < size ? taken : (int)size;
    } while (part > 0 && !atomic_compare_exchange_weak(&channel->taken, &taken, taken - part));
    return (size_t)part;
}

int jobserver_channel_take(jobserver_channel *channel, unsigned char *bytes, size_t size) {
    size = size < INT_MAX ? size : INT_MAX;
    size_t count = take_taken(channel, size);
    DWORD result = WAIT_OBJECT_0;
    while (count < size && result == WAIT_OBJECT_0) {
        result = WaitForSingleObject(channel->semaphore, 0);
        count += result == WAIT_OBJECT_0 ? 1 : 0;
    }
    if (count == 0) {
        return result == WAIT_TIMEOUT ? -EAGAIN : jobserver_last_error();
    }
    memset(bytes, JOBSERVER_TOKEN_BYTE, count);
    return (int)count;
}

int jobserver_channel_take_sleeping(jobserver_channel *channel, unsigned char *bytes, size_t size) {
    (void)channel, (void)bytes, (void)size;
    return JOBSERVER_UNSUPPORTED;
}

/* The system wakes the waiters of a semaphore in order, one for each token. */
int jobserver_channel_wait(jobserver_channel *channel, const struct jobserver_until *until) {
    atomic_fetch_add(&channel->sleepers, 1);
    int result = jobserver_wait_for(channel->semaphore, channel->retired, until);
    if (result == 1) {
        atomic_fetch_add(&channel->taken, 1);
        result = 0;
    }
    atomic_fetch_sub(&channel->sleepers, 1);
    return result;
}

static int release(jobserver_channel *channel, size_t count) {
    return ReleaseSemaphore(channel->semaphore, (LONG)count, NULL) ? (int)count : jobserver_last_error();
}

/* Ends all waits, now and later, and gives back what they took that nobody has yet. */
void jobserver_channel_retire(jobserver_channel *channel) {
    int64_t end = jobserver_now() + 1000000000;
    SetEvent(channel->retired);
    while (atomic_load(&channel->sleepers) > 0 && jobserver_now() < end) {
        jobserver_pause();
    }
    size_t left = take_taken(channel, INT_MAX);
    if (left > 0) {
        release(channel, left);
    }
}

/* The system releases all of them or none. */
int jobserver_channel_give(jobserver_channel *channel, const unsigned char *bytes, size_t size) {
    (void)bytes;
    size = size < LONG_MAX ? size : LONG_MAX;
    int result = release(channel, size);
    return result == JOBSERVER_TOO_MANY && size > 1 ? release(channel, 1) : result;
}

/* What the headers do not declare: winternl.h has the function's kin. */
typedef LONG NTAPI query_semaphore(HANDLE semaphore, int kind, void *state, ULONG size, ULONG *returned);

bool jobserver_semaphore_ask(HANDLE semaphore, struct jobserver_semaphore_state *state) {
    FARPROC found = GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "NtQuerySemaphore");
    query_semaphore *query = (query_semaphore *)(void (*)(void))found;
    return query != NULL && query(semaphore, 0, state, sizeof *state, NULL) >= 0;
}

int jobserver_channel_available(jobserver_channel *channel) {
    struct jobserver_semaphore_state state;
    bool told = jobserver_semaphore_ask(channel->semaphore, &state);
    return told ? (int)state.count + atomic_load(&channel->taken) : JOBSERVER_UNSUPPORTED;
}

size_t jobserver_channel_capacity(const jobserver_channel *channel) {
    struct jobserver_semaphore_state state;
    return jobserver_semaphore_ask(channel->semaphore, &state) ? (size_t)state.maximum : 1;
}

/* There is no fork. */
void jobserver_channel_forked(jobserver_channel *channel) {
    (void)channel;
}

/* Pipes are POSIX's. */
int jobserver_channel_create_pipe(int limit, jobserver_channel **channel) {
    (void)limit, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_channel_create_fifo(const char *path, int limit, jobserver_channel **channel) {
    (void)path, (void)limit, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_channel_create_private_fifo(const char *directory, int limit, jobserver_channel **channel) {
    (void)directory, (void)limit, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_channel_open_descriptors(int read_fd, int write_fd, jobserver_channel **channel) {
    (void)read_fd, (void)write_fd, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_channel_open_path(const char *path, jobserver_channel **channel) {
    (void)path, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_channel_check(int descriptor, bool for_writing) {
    (void)descriptor, (void)for_writing;
    return JOBSERVER_UNSUPPORTED;
}

#endif
