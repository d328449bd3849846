/* Lets a process under callgrind say which of its instructions are to be counted. */
#include <valgrind/callgrind.h>

void counting_begin(void) {
    CALLGRIND_DUMP_STATS_AT(
        "before"); /* which begins anew; what CALLGRIND_ZERO_STATS leaves would count for functions */
}

void counting_end(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
}
