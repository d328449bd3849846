/*
 * A bridge: the slots of a broker are tokens of an outer jobserver, and first the implicit slot of this process if the
 * jobserver was inherited. They are taken when a lease would use one more, and go back when nobody does.
 *
 * Each token is in a cell, so it goes back under its own byte whatever ends the bridge. The outer jobserver's other
 * clients must get their share although a busy lease takes again at once what it gives back: so as long as the outer
 * pool is dry one token is passed on now and then, and this process waits for the next one like everybody else.
 *
 * While leases take tokens they are offered in advance what there is, but for one token: if others take that one the
 * pool is dry, and they get more. For ninja does not wait for tokens: it takes what lies there when it looks.
 */
#include "broker.h"

#include <errno.h>
#include <stdlib.h>

#define MILLISECOND INT64_C(1000000)

/* Between two looks whether the outer pool is dry. They grow while nobody wants what is passed on. */
#define SHORTEST_PAUSE (5 * MILLISECOND)
#define LONGEST_PAUSE_MOVING (320 * MILLISECOND)
#define LONGEST_PAUSE (1000 * MILLISECOND)

/* So many may lie in the reach of busy leases although the outer pool is dry then. */
#define FEW_IN_ADVANCE 2

/* For what was taken in advance there is more time than for what others are known to wait for. */
#define PAUSE_AFTER_ADVANCE (50 * MILLISECOND)

/* Leases that have taken nothing for so long are not busy; the broker thinks so sooner, for it can offer again. */
#define BUSY_FOR (100 * MILLISECOND)

/* Until a token is passed on although none has come back for the last one: others may take again at once, too. */
#define PAUSE_FOR_EXCHANGE (25 * MILLISECOND)

/* Others who wait for what is passed on come first. */
#define BEFORE_RETAKING (2 * MILLISECOND)

struct bridge {
    jobserver_client *client;
    struct jobserver_source source;
    jobserver_token **cells; /* the first `held` have a token each, the next one is free */
    int held;
    int room;
    jobserver_token *own; /* the cell for the implicit slot */
    bool has_own;
    bool exchanged;  /* others gave one, which was waited for, since the last one was passed on */
    bool passed_on;  /* a token, and it is not known yet whether anybody wanted it */
    int64_t rest_at; /* when leases that are busy no more shall count as idle; or 0 */
    int64_t pause;
    int64_t look_at;
    int64_t take_at;
};

/* A free cell behind those that hold tokens, or null. */
static jobserver_token *free_cell(struct bridge *bridge) {
    if (bridge->held == bridge->room) {
        int room = 2 * bridge->room + 8;
        jobserver_token **cells = realloc(bridge->cells, (size_t)room * sizeof *cells);
        if (cells == NULL) {
            return NULL;
        }
        for (int at = bridge->room; at < room; at++) {
            cells[at] = NULL;
        }
        bridge->cells = cells;
        bridge->room = room;
    }
    if (bridge->cells[bridge->held] == NULL) {
        bridge->cells[bridge->held] = jobserver_token_new(bridge->client);
    }
    return bridge->cells[bridge->held];
}

/* How many tokens are in the outer pool; none where that cannot be known. */
static int left_outside(struct bridge *bridge) {
    int left = jobserver_client_available(bridge->client);
    return left > 0 ? left : 0;
}

/* Gives one slot back: the implicit one last. 0, or an error with which it is still held. */
static int give_one(struct bridge *bridge) {
    if (bridge->held == 0) {
        bridge->has_own = false;
        return jobserver_token_release(bridge->own, 0);
    }
    int result = jobserver_token_release(bridge->cells[bridge->held - 1], 0);
    bridge->held -= result >= 0;
    return result < 0 ? result : 0;
}

/* Takes up to `most` slots that nobody uses from the broker and gives them back. Returns how many, or an error. */
static int give_back(struct bridge *bridge, int most) {
    int count = jobserver_source_reclaim(&bridge->source, most);
    for (int given = 0; given < count; given++) {
        int result = give_one(bridge);
        if (result < 0) {
            jobserver_source_grant(&bridge->source, count - given);
            return result;
        }
    }
    if (count > 0) {
        bridge->take_at = jobserver_now() + BEFORE_RETAKING;
    }
    return count;
}

static void look_again(struct bridge *bridge, int64_t now, int64_t pause) {
    bridge->pause = pause < LONGEST_PAUSE ? pause : LONGEST_PAUSE;
    bridge->look_at = now + bridge->pause;
}

/* Nobody is busy: all that is spare goes back. One may lie in the reach of the leases while the outer pool has more. */
static int put_down(struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    int kept = demand->leases && left_outside(bridge) > 0 ? 1 : 0;
    int result = demand->spare > kept ? give_back(bridge, demand->spare - kept) : 0;
    jobserver_source_tolerate(&bridge->source, kept);
    if (now >= bridge->look_at) {
        look_again(bridge, now, 2 * bridge->pause);
    }
    return result;
}

/* Leases are busy: if the outer pool is dry, one of the tokens in their reach goes to whoever else waits for it. */
static int pass_on(struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    bool dry = left_outside(bridge) == 0;
    bool was_wanted = bridge->passed_on && dry;
    bool many = dry && demand->unused > FEW_IN_ADVANCE;
    int64_t pause = 2 * bridge->pause;
    if (was_wanted) {
        pause = bridge->exchanged ? SHORTEST_PAUSE : PAUSE_FOR_EXCHANGE;
    } else if (many) {
        pause = SHORTEST_PAUSE;
    }
    bridge->exchanged = false;
    bridge->passed_on = false;
    look_again(bridge, now, pause < LONGEST_PAUSE_MOVING ? pause : LONGEST_PAUSE_MOVING);
    if (!dry) {
        return 0;
    }
    int result = give_back(bridge, 1);
    bridge->passed_on = result > 0;
    return result;
}

/* The time to end a sleep at, since there may be something to give back then. -1 for none. */
static int64_t next_look(const struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    if (!demand->leases || demand->unused == 0) {
        return -1;
    }
    if (!demand->moving && now >= bridge->rest_at) {
        return demand->spare > 0 ? bridge->look_at : -1;
    }
    return !demand->moving && bridge->rest_at < bridge->look_at ? bridge->rest_at : bridge->look_at;
}

/* Takes a token until the time (0: only if one is there). 1, 0 if there was something else, or an error. */
static int take_token(struct bridge *bridge, int64_t timeout) {
    jobserver_token *cell = free_cell(bridge);
    if (cell == NULL) {
        return -ENOMEM;
    }
    intptr_t rung = jobserver_event_waitable(bridge->source.event);
    int64_t serial = jobserver_token_acquire_or(cell, timeout, &rung, 1);
    bridge->held += serial > 0;
    bool nothing = serial == -EAGAIN || serial == -ETIMEDOUT || serial == -EINTR || serial == JOBSERVER_READY;
    return serial > 0 ? 1 : nothing ? 0 : (int)serial;
}

/* Takes what is wanted at once, if it is there: the process's own slot first. 1, 0 or an error. */
static int take_wanted(struct bridge *bridge) {
    if (!bridge->has_own && jobserver_token_acquire_implicit(bridge->own) > 0) {
        bridge->has_own = true;
        return 1;
    }
    return take_token(bridge, 0);
}

/* Takes what is there and busy leases may be offered, beyond so many. How many in all, or an error. */
static int take_in_advance(struct bridge *bridge, const struct jobserver_demand *demand, int taken) {
    int outside = left_outside(bridge);
    int result = 1;
    while (result > 0 && demand->unused + taken < demand->room &&
           (outside > 1 || (outside == 1 && demand->unused + taken < FEW_IN_ADVANCE))) {
        result = take_token(bridge, 0);
        taken += result > 0;
        outside--;
    }
    return result < 0 ? result : taken;
}

/*
 * Takes what is there. It is granted together, since a process that gets its slot may look for tokens at once. How
 * many, or an error.
 */
static int take_what_is_there(struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    int held = bridge->held + bridge->has_own;
    int result = demand->wanting ? take_wanted(bridge) : 0;
    if (result >= 0 && demand->moving) {
        result = take_in_advance(bridge, demand, result);
    }
    int taken = bridge->held + bridge->has_own - held;
    if (taken > 0) {
        jobserver_source_grant(&bridge->source, taken);
        if (!bridge->passed_on && demand->unused + taken > 1) {
            look_again(bridge, now, PAUSE_AFTER_ADVANCE);
        }
        bridge->passed_on = false;
    }
    return result;
}

/* A token has come from others, so that one may go to them. */
static void look_sooner(struct bridge *bridge) {
    int64_t now = jobserver_now();
    if (bridge->look_at > now + SHORTEST_PAUSE) {
        look_again(bridge, now, SHORTEST_PAUSE);
    }
}

/* Waits for the next token, as any client does, until there is something else to do. Whether it came, or an error. */
static int wait_for_token(struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    if (bridge->passed_on) {
        bridge->passed_on = false;
        look_again(bridge, now, PAUSE_FOR_EXCHANGE);
    }
    int64_t end = next_look(bridge, demand, now);
    int result = take_token(bridge, end < 0 ? -1 : end > now ? end - now : 0);
    if (result > 0) {
        bridge->exchanged = true;
        look_sooner(bridge);
        jobserver_source_grant(&bridge->source, 1);
    }
    return result;
}

/* Whether leases are busy, or were a moment ago. */
static bool is_busy(struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    if (demand->moving || !demand->leases) {
        bridge->rest_at = 0;
    } else if (bridge->rest_at == 0) {
        bridge->rest_at = now + BUSY_FOR;
    }
    return demand->moving || now < bridge->rest_at;
}

/* Gives back what is due. How many, or an error. */
static int give_what_is_due(struct bridge *bridge, const struct jobserver_demand *demand, int64_t now) {
    if (!is_busy(bridge, demand, now)) {
        return demand->spare > 0 ? put_down(bridge, demand, now) : 0;
    }
    return demand->unused > 0 && now >= bridge->look_at ? pass_on(bridge, demand, now) : 0;
}

/* Does what there is to do, or sleeps until there is. 0, or why the outer jobserver cannot be used any more. */
static int serve_once(struct bridge *bridge, const struct jobserver_demand *demand) {
    int64_t now = jobserver_now();
    bool taking = demand->wanting || demand->moving;
    int result = give_what_is_due(bridge, demand, now);
    if (result == 0 && taking && now >= bridge->take_at) {
        result = take_what_is_there(bridge, demand, now);
    }
    if (result != 0) {
        return result < 0 ? result : 0;
    }
    if (demand->wanting && now >= bridge->take_at) {
        result = wait_for_token(bridge, demand, now);
        return result < 0 ? result : 0;
    }
    int64_t end = next_look(bridge, demand, now);
    if (taking && bridge->take_at > now && (end < 0 || bridge->take_at < end)) {
        end = bridge->take_at;
    }
    jobserver_event_wait_until(bridge->source.event, end);
    return 0;
}

/* What the bridge needs besides the broker. */
static int prepare(struct bridge *bridge) {
    int result = jobserver_event_new(&bridge->source.event);
    if (result < 0) {
        return result;
    }
    bridge->own = jobserver_token_new(bridge->client);
    return bridge->own == NULL ? -ENOMEM : jobserver_implicit_watch(bridge->source.event);
}

/* A token that cannot be given back stays with the client, which tells its next caller. */
static void free_cells(struct bridge *bridge) {
    for (int at = 0; at < bridge->room; at++) {
        if (bridge->cells[at] != NULL) {
            jobserver_token_free(bridge->cells[at]);
        }
    }
    free(bridge->cells);
    if (bridge->own != NULL) {
        jobserver_token_free(bridge->own);
    }
    if (bridge->source.event != NULL) {
        jobserver_event_free(bridge->source.event);
    }
}

/*
 * Serves a broker that was made without slots until it is stopped. All tokens are back then, also those that processes
 * on leases still use. Returns 0, or why the outer jobserver could not be used any more.
 */
int jobserver_broker_bridge(jobserver_broker *broker, jobserver_client *client) {
    struct bridge bridge = {.client = client, .pause = SHORTEST_PAUSE};
    struct jobserver_demand demand;
    int result = prepare(&bridge);
    if (result == 0) {
        result = jobserver_source_attach(&bridge.source, broker);
    } else {
        jobserver_source_fail(broker, result);
    }
    while (result == 0 && jobserver_source_ask(&bridge.source, &demand)) {
        result = serve_once(&bridge, &demand);
    }
    jobserver_source_detach(&bridge.source, result == JOBSERVER_CLOSED ? JOBSERVER_GONE : result);
    free_cells(&bridge);
    return result;
}
