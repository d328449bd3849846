/* Windows: waiting, events, and the lock on a pool. */
#include "win32.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static _Atomic intptr_t interrupt_event;
static _Atomic DWORD interrupted_thread;

typedef void *__cdecl find_event(void);

/*
 * Has the waits of one thread end with -EINTR when an event is set, the one that a function of a loaded library
 * returns. A wait that it ends resets it, so an event that was set long ago ends no more than one.
 */
int jobserver_interrupt_from(intptr_t library, const char *function, unsigned thread) {
    FARPROC found = GetProcAddress((HMODULE)library, function);
    void *event = found == NULL ? NULL : ((find_event *)(void (*)(void))found)();
    if (event == NULL) {
        return JOBSERVER_UNSUPPORTED;
    }
    atomic_store(&interrupted_thread, thread);
    atomic_store(&interrupt_event, (intptr_t)event);
    return 0;
}

/* The event that ends waits of this thread, or null. */
static HANDLE own_interrupt(void) {
    intptr_t event = atomic_load(&interrupt_event);
    return event != 0 && atomic_load(&interrupted_thread) == GetCurrentThreadId() ? (HANDLE)event : NULL;
}

/* What is left until the deadline in milliseconds, rounded up; INFINITE for none. */
static DWORD milliseconds_left(int64_t deadline) {
    if (deadline < 0) {
        return INFINITE;
    }
    int64_t left = deadline - jobserver_now();
    if (left <= 0) {
        return 0;
    }
    int64_t milliseconds = (left + 999999) / 1000000;
    return milliseconds >= INFINITE ? INFINITE - 1 : (DWORD)milliseconds;
}

/* A wait lasts 49 days at most, which may be before the deadline. */
static int nothing_until(int64_t deadline) {
    return deadline >= 0 && jobserver_now() >= deadline ? -ETIMEDOUT : 0;
}

/* What stands in the list of a wait. If several are signalled the first counts: who must leave takes nothing. */
enum place { LEAVE, INTERRUPT, OBJECT, OTHERS };

/* Fills the list with what there is, and tells the place of each. Returns how many, or 0 if they are too many. */
static DWORD list(HANDLE *handles, enum place *places, const HANDLE fixed[OTHERS],
                  const struct jobserver_until *until) {
    DWORD count = 0;
    for (int place = LEAVE; place < OTHERS; place++) {
        if (fixed[place] != NULL) {
            places[count] = (enum place)place;
            handles[count++] = fixed[place];
        }
    }
    for (int index = 0; index < until->count; index++) {
        if (count == MAXIMUM_WAIT_OBJECTS) {
            return 0;
        }
        places[count] = OTHERS;
        handles[count++] = (HANDLE)until->others[index];
    }
    return count;
}

int jobserver_wait_for(HANDLE object, HANDLE leave, const struct jobserver_until *until) {
    const HANDLE fixed[OTHERS] = {leave, own_interrupt(), object};
    HANDLE handles[MAXIMUM_WAIT_OBJECTS];
    enum place places[MAXIMUM_WAIT_OBJECTS];
    DWORD count = list(handles, places, fixed, until);
    if (count == 0) {
        return -EINVAL;
    }
    DWORD woken = WaitForMultipleObjects(count, handles, FALSE, milliseconds_left(until->deadline));
    if (woken == WAIT_FAILED) {
        return jobserver_last_error();
    }
    if (woken == WAIT_TIMEOUT) {
        return nothing_until(until->deadline);
    }
    /* A mutex whose owner has ended counts from WAIT_ABANDONED_0 on, and is locked now as well. */
    switch (places[woken >= WAIT_ABANDONED_0 ? woken - WAIT_ABANDONED_0 : woken - WAIT_OBJECT_0]) {
    case INTERRUPT:
        ResetEvent(fixed[INTERRUPT]);
        return -EINTR;
    case OBJECT:
        return 1;
    case OTHERS:
        return JOBSERVER_READY;
    case LEAVE:
        break;
    }
    return 0;
}

struct jobserver_event {
    HANDLE handle;
};

int jobserver_event_new(jobserver_event **out) {
    jobserver_event *event = calloc(1, sizeof *event);
    int result = event == NULL ? -ENOMEM : 0;
    if (result == 0) {
        event->handle = CreateEventW(NULL, TRUE, FALSE, NULL);
        result = event->handle == NULL ? jobserver_last_error() : 0;
    }
    if (result < 0) {
        free(event);
        event = NULL;
    }
    *out = event;
    return result;
}

void jobserver_event_free(jobserver_event *event) {
    jobserver_implicit_unwatch(event);
    CloseHandle(event->handle);
    free(event);
}

void jobserver_event_set(jobserver_event *event) {
    SetEvent(event->handle);
}

void jobserver_event_clear(jobserver_event *event) {
    ResetEvent(event->handle);
}

int jobserver_event_wait_until(jobserver_event *event, int64_t deadline) {
    struct jobserver_until until = {.deadline = deadline};
    int result = jobserver_wait_for(event->handle, NULL, &until);
    return result < 0 ? result : 0;
}

int jobserver_event_wait(jobserver_event *event) {
    return jobserver_event_wait_until(event, -1);
}

intptr_t jobserver_event_waitable(const jobserver_event *event) {
    return (intptr_t)event->handle;
}

bool jobserver_widen(const char *name, const wchar_t *suffix, wchar_t wide[MAX_PATH]) {
    int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name, -1, wide, MAX_PATH);
    if (length == 0 || (size_t)length + wcslen(suffix) > MAX_PATH) {
        return false;
    }
    wcscpy(wide + length - 1, suffix);
    return true;
}

/*
 * A mutex beside the semaphore. The thread that has locked it must unlock it; it is unlocked too when that thread ends.
 */
struct jobserver_pool_lock {
    HANDLE mutex;
};

int jobserver_pool_lock_open(jobserver_channel *channel, jobserver_pool_lock **out) {
    wchar_t name[MAX_PATH];
    struct jobserver_private attributes;
    if (!jobserver_widen(channel->name, L"-lock", name) || jobserver_private_fill(&attributes, MUTEX_ALL_ACCESS) < 0) {
        return JOBSERVER_UNSUPPORTED;
    }
    jobserver_pool_lock *lock = calloc(1, sizeof *lock);
    if (lock == NULL) {
        return -ENOMEM;
    }
    lock->mutex = CreateMutexW(&attributes.attributes, FALSE, name);
    if (lock->mutex == NULL) {
        free(lock);
        return JOBSERVER_UNSUPPORTED;
    }
    *out = lock;
    return 0;
}

int jobserver_pool_lock_wait(jobserver_pool_lock *lock, const struct jobserver_until *until) {
    int result = 0;
    while (result == 0) {
        result = jobserver_wait_for(lock->mutex, NULL, until);
    }
    if (result == -ETIMEDOUT && until->deadline == 0) {
        return -EAGAIN;
    }
    return result < 0 ? result : 0;
}

/* Unlocking what is not locked fails, and does no harm. */
void jobserver_pool_lock_close(jobserver_pool_lock *lock) {
    ReleaseMutex(lock->mutex);
    CloseHandle(lock->mutex);
    free(lock);
}

#endif
