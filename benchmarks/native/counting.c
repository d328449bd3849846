/* Counts allocations, when it is preloaded into a process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

static atomic_long made;

/* dlsym allocates itself before it has found calloc: that comes from here, and is never freed. */
static char early[4096];
static size_t used;

long allocations(void) {
    return atomic_load(&made);
}

void *malloc(size_t size) {
    static void *(*next)(size_t);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "malloc");
    }
    atomic_fetch_add(&made, 1);
    return next(size);
}

void *calloc(size_t count, size_t size) {
    static void *(*next)(size_t, size_t);
    static int looking;
    if (next == NULL && looking) {
        void *found = early + used;
        used += (count * size + 15) & ~(size_t)15;
        return used <= sizeof early ? found : NULL;
    }
    if (next == NULL) {
        looking = 1;
        *(void **)&next = dlsym(RTLD_NEXT, "calloc");
    }
    atomic_fetch_add(&made, 1);
    return next(count, size);
}

void *realloc(void *block, size_t size) {
    static void *(*next)(void *, size_t);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "realloc");
    }
    atomic_fetch_add(&made, 1);
    return next(block, size);
}

void free(void *block) {
    static void (*next)(void *);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "free");
    }
    if ((char *)block < early || (char *)block >= early + sizeof early) {
        next(block);
    }
}
