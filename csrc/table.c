/* The table of functions that extensions take from the installed package. */
#include "jobserver_table.h"

#define ENTRY(name) .name = jobserver_##name,

/* The table lives as long as the process does. */
const struct jobserver_table *jobserver_functions(void) {
    static const struct jobserver_table table = {
        .version = JOBSERVER_TABLE_VERSION, .count = JOBSERVER_TABLE_COUNT, JOBSERVER_FUNCTIONS(ENTRY)};
    return &table;
}
