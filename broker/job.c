#include "broker/job.h"

#include <sodium.h>
#include <string.h>

/* from, cause, to.  JOB_NONE as `from` is a job that is not stored yet. */
static const struct {
    enum job_state from;
    enum job_cause cause;
    enum job_state to;
} transitions[] = {
    { JOB_NONE, CAUSE_SUBMITTED, JOB_READY },
    { JOB_NONE, CAUSE_POSTPONED, JOB_DELAYED },
    { JOB_NONE, CAUSE_REFUSED, JOB_FAILED },

    { JOB_READY, CAUSE_LEASED, JOB_LEASED },
    { JOB_READY, CAUSE_FINISHED, JOB_DONE }, /* late, and the first */
    { JOB_READY, CAUSE_AT_FAULT, JOB_FAILED },
    { JOB_READY, CAUSE_SUPERSEDED, JOB_CANCELLED },
    { JOB_READY, CAUSE_CANCELLED, JOB_CANCELLED },
    { JOB_READY, CAUSE_EXPIRED, JOB_EXPIRED },
    { JOB_READY, CAUSE_DAMAGED, JOB_DEAD },

    { JOB_LEASED, CAUSE_FINISHED, JOB_DONE },
    { JOB_LEASED, CAUSE_AT_FAULT, JOB_FAILED },
    { JOB_LEASED, CAUSE_HINDERED, JOB_DELAYED },
    { JOB_LEASED, CAUSE_LOST, JOB_READY },
    { JOB_LEASED, CAUSE_RELEASED, JOB_READY },
    { JOB_LEASED, CAUSE_SPENT, JOB_DEAD },
    { JOB_LEASED, CAUSE_SUPERSEDED, JOB_CANCELLED },
    { JOB_LEASED, CAUSE_CANCELLED, JOB_CANCELLED },
    { JOB_LEASED, CAUSE_EXPIRED, JOB_EXPIRED },
    { JOB_LEASED, CAUSE_DAMAGED, JOB_DEAD },

    { JOB_DELAYED, CAUSE_DUE, JOB_READY },
    { JOB_DELAYED, CAUSE_FINISHED, JOB_DONE }, /* late, and the first */
    { JOB_DELAYED, CAUSE_AT_FAULT, JOB_FAILED },
    { JOB_DELAYED, CAUSE_SUPERSEDED, JOB_CANCELLED },
    { JOB_DELAYED, CAUSE_CANCELLED, JOB_CANCELLED },
    { JOB_DELAYED, CAUSE_EXPIRED, JOB_EXPIRED },

    { JOB_DONE, CAUSE_RENEWED, JOB_READY },
    { JOB_FAILED, CAUSE_RENEWED, JOB_READY },
    { JOB_DEAD, CAUSE_RENEWED, JOB_READY },
    { JOB_CANCELLED, CAUSE_RENEWED, JOB_READY },
    { JOB_EXPIRED, CAUSE_RENEWED, JOB_READY },

    { JOB_DONE, CAUSE_POSTPONED, JOB_DELAYED }, /* a new generation for later */
    { JOB_FAILED, CAUSE_POSTPONED, JOB_DELAYED },
    { JOB_DEAD, CAUSE_POSTPONED, JOB_DELAYED },
    { JOB_CANCELLED, CAUSE_POSTPONED, JOB_DELAYED },
    { JOB_EXPIRED, CAUSE_POSTPONED, JOB_DELAYED },

    { JOB_DONE, CAUSE_REFUSED, JOB_FAILED }, /* a new generation that the client refused */
    { JOB_FAILED, CAUSE_REFUSED, JOB_FAILED },
    { JOB_DEAD, CAUSE_REFUSED, JOB_FAILED },
    { JOB_CANCELLED, CAUSE_REFUSED, JOB_FAILED },
    { JOB_EXPIRED, CAUSE_REFUSED, JOB_FAILED },

    { JOB_DONE, CAUSE_DAMAGED, JOB_DEAD },
    { JOB_FAILED, CAUSE_DAMAGED, JOB_DEAD },
    { JOB_CANCELLED, CAUSE_DAMAGED, JOB_DEAD },
    { JOB_EXPIRED, CAUSE_DAMAGED, JOB_DEAD },
};

enum job_state job_next(enum job_state from, enum job_cause cause)
{
    for (size_t i = 0; i < sizeof transitions / sizeof *transitions; i++)
        if (transitions[i].from == from && transitions[i].cause == cause)
            return transitions[i].to;
    return JOB_NONE;
}

int64_t job_wake(const struct job *job, int64_t now_wall_ms)
{
    int64_t wake = 0;

    if (job_ended(job->state) || job->state == JOB_NONE)
        return 0;
    if (job->state == JOB_DELAYED)
        wake = job->run_at_ms;
    else if (job->state == JOB_READY && job->ready_ttl_ms && !job->leased_ms)
        wake = now_wall_ms + job->ready_ttl_ms;
    return job->deadline_ms && (!wake || job->deadline_ms < wake) ? job->deadline_ms : wake;
}

const char *job_state_name(enum job_state state)
{
    static const char *const names[JOB_STATES] = { "none",   "ready", "leased",    "delayed", "done",
                                                   "failed", "dead",  "cancelled", "expired" };

    return state < JOB_STATES ? names[state] : "none";
}

void job_digest(uint8_t digest[JOB_DIGEST_SIZE], const char *endpoint, const char *custom_id, uint64_t seed,
                bool refused, struct span body)
{
    crypto_generichash_state state;
    uint8_t fixed[9];

    for (int i = 0; i < 8; i++)
        fixed[i] = (uint8_t)(seed >> 8 * i);
    fixed[8] = refused;
    crypto_generichash_init(&state, NULL, 0, JOB_DIGEST_SIZE);
    crypto_generichash_update(&state, fixed, sizeof fixed);
    /* With their terminators: "a" + "bc" is not "ab" + "c". */
    crypto_generichash_update(&state, (const uint8_t *)endpoint, strlen(endpoint) + 1);
    crypto_generichash_update(&state, (const uint8_t *)custom_id, strlen(custom_id) + 1);
    crypto_generichash_update(&state, body.data, body.size);
    crypto_generichash_final(&state, digest, JOB_DIGEST_SIZE);
}

void text_copy(char *into, size_t size, const char *text)
{
    size_t n = strlen(text);

    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80)
            n--;
    }
    memcpy(into, text, n);
    into[n] = '\0';
}
