/*
 * The bare wait that the others are compared with: a blocking read, in a process of its own.
 *
 * Arguments: the pool's two descriptors, a pipe from which a byte says go, a pipe to which the times are written.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int main(int count, char **arguments) {
    if (count != 5) {
        return 2;
    }
    int pool_read = atoi(arguments[1]), pool_write = atoi(arguments[2]);
    int go = atoi(arguments[3]), times = atoi(arguments[4]);
    char byte, token;
    while (read(go, &byte, 1) == 1 && read(pool_read, &token, 1) == 1) {
        int64_t taken = now();
        if (write(pool_write, &token, 1) != 1 || write(times, &taken, sizeof taken) != sizeof taken) {
            return 1;
        }
    }
    return 0;
}
