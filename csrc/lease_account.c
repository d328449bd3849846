/* What one lease has: the accounts of its tokens, and moving them. */
#include "broker.h"

/* The most bytes that are fetched at once: more than any pipe holds at the limits that systems set. */
#define MOST_FETCHED 1048576

int jobserver_lease_slots(const jobserver_lease *lease) {
    return lease->given - lease->untaken + lease->own;
}

void jobserver_lease_count(jobserver_lease *lease, int64_t now) {
    int slots = jobserver_lease_slots(lease);
    lease->report.slot_time += slots * (now - lease->changed_at);
    lease->changed_at = now;
}

static void note_peak(jobserver_lease *lease) {
    int slots = jobserver_lease_slots(lease);
    lease->report.peak = slots > lease->report.peak ? slots : lease->report.peak;
}

void jobserver_lease_note(jobserver_lease *lease, int64_t now) {
    note_peak(lease);
    if (lease->broker->journal != NULL) {
        jobserver_journal_slots(lease, now);
    }
}

/* So many tokens more (or less) are out at the lease. */
static void give(jobserver_lease *lease, int count) {
    lease->given += count;
    lease->broker->out += count;
}

/*
 * What was given back is fetched before what is untaken is counted: so for each token that is fetched the taking is
 * counted too. More bytes than were given are nobody's tokens: they are thrown away.
 */
void jobserver_lease_refresh(jobserver_lease *lease, int64_t now) {
    lease->moved = false;
    jobserver_lease_count(lease, now);
    int returned = jobserver_lease_pipes_fetch(&lease->pipes, MOST_FETCHED, &lease->report.foreign);
    int untaken = jobserver_lease_pipes_untaken(&lease->pipes);
    if (untaken > lease->given) {
        int excess = untaken - lease->given;
        int thrown = jobserver_lease_pipes_withdraw(&lease->pipes, excess, &lease->report.foreign);
        lease->report.over_released += thrown;
        untaken = lease->given;
    }
    int held = lease->given - untaken;
    int credit = returned < held ? returned : held;
    lease->report.over_released += returned - credit;
    int took = untaken < lease->untaken ? lease->untaken - untaken : 0;
    int gave = credit + (untaken > lease->untaken ? untaken - lease->untaken : 0);
    lease->untaken = untaken;
    note_peak(lease);
    give(lease, -credit);
    jobserver_lease_note(lease, now);
    lease->report.taken += took;
    lease->broker->busy |= took > 0 || gave > 0;
    jobserver_hunger_moved(lease, took, gave, now);
}

int jobserver_lease_offer(jobserver_lease *lease, int count) {
    int offered = jobserver_lease_pipes_offer(&lease->pipes, count);
    give(lease, offered);
    lease->untaken += offered;
    return offered;
}

/* Who takes meanwhile is faster: then there are fewer to withdraw, and the next look finds out. */
int jobserver_lease_withdraw(jobserver_lease *lease, int count) {
    int withdrawn = jobserver_lease_pipes_withdraw(&lease->pipes, count, &lease->report.foreign);
    give(lease, -withdrawn);
    lease->untaken -= withdrawn;
    return withdrawn;
}
