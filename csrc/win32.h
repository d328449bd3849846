/* What the Windows files share. Included first, so that the system's headers show what Windows 7 has. */
#ifndef JOBSERVER_WIN32_H
#define JOBSERVER_WIN32_H

#include "jobserver.h"
#include "platform.h"

#if defined(_WIN32)

#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0601
#endif
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <stdatomic.h>

/*
 * A wait for a semaphore takes the token that ends it. So the channel keeps what its waits took until somebody takes
 * it from there, and gives the rest back when the process exits.
 */
struct jobserver_channel {
    HANDLE semaphore;
    HANDLE retired;      /* an event that ends all waits, now and later */
    atomic_int taken;    /* tokens that waits took */
    atomic_int sleepers; /* waits that may take one */
    struct jobserver_pool pool;
    char *name; /* UTF-8 */
};

/* The last error of this thread as a result: a negated errno where there is one, else JOBSERVER_WINDOWS - code. */
int jobserver_last_error(void);

/*
 * Sleeps until an object is signalled, and takes it as waits do: a semaphore is counted down, a mutex is locked. Returns
 * 1 then; 0 if `leave` (may be null) is signalled, or for nothing; JOBSERVER_READY, -ETIMEDOUT, -EINTR or an error.
 */
int jobserver_wait_for(HANDLE object, HANDLE leave, const struct jobserver_until *until);

/* win32_semaphore.c: a semaphore under a new name, with so many tokens and room for so many. 0 or an error. */
#define JOBSERVER_SEMAPHORE_NAME 64
int jobserver_semaphore_create(int count, int room, char name[JOBSERVER_SEMAPHORE_NAME], HANDLE *semaphore);

/* win32_semaphore.c: asks for its count and maximum, as NtQuerySemaphore tells them. False if the system does not. */
struct jobserver_semaphore_state {
    LONG count;
    LONG maximum;
};
bool jobserver_semaphore_ask(HANDLE semaphore, struct jobserver_semaphore_state *state);

/*
 * The handle behind a number in what the platforms share, which is -1 for none; and the number of a handle. Windows uses
 * 32 bits of a handle, and extends the sign.
 */
static inline HANDLE jobserver_handle(int number) {
    return (HANDLE)(intptr_t)number;
}
static inline int jobserver_handle_number(HANDLE handle) {
    return (int)(intptr_t)handle;
}

/* win32_leases.c: closes the handle, if there is one, and puts -1 in its place. */
void jobserver_handle_close(int *number);

/* win32_leases.c: whether no process is in the job object. */
bool jobserver_job_is_empty(int job);

/* A name as the system wants it, with a suffix. False if it is too long, or no UTF-8. */
bool jobserver_widen(const char *name, const wchar_t *suffix, wchar_t wide[MAX_PATH]);

/* win32_security.c: lets only the user of this process open what is made with it. */
struct jobserver_private {
    SECURITY_ATTRIBUTES attributes;
    SECURITY_DESCRIPTOR descriptor;
    union {
        ACL list;
        BYTE space[sizeof(ACL) + sizeof(ACCESS_ALLOWED_ACE) + SECURITY_MAX_SID_SIZE];
    } access;
};

/* Fills it; it refers to itself, so it cannot be moved. 0 or an error. */
int jobserver_private_fill(struct jobserver_private *private_to_user, DWORD rights);

#endif

#endif
