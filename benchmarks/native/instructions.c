/* Lets a process under callgrind say which of its instructions are to be counted. */
#include <valgrind/callgrind.h>

void counting_begin(void) {
    CALLGRIND_ZERO_STATS;
}

void counting_end(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
}
