/* The process's list of clients, and what becomes of them in a forked child and at exit. */
#ifndef JOBSERVER_PROCESS_H
#define JOBSERVER_PROCESS_H

#include <stdbool.h>

#include "jobserver.h"

void jobserver_process_add(jobserver_client *client);
void jobserver_process_remove(jobserver_client *client);

/* Whether exit() has begun: nobody may take a token any more, since exit() gives back what it finds just once. */
bool jobserver_process_exiting(void);

#endif
