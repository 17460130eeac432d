#include "client/named.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "proto/request.h"

enum { IDS_MAX = 256, ID_MAX = 64 };

bool named_enough(const char *broker, const char *flag, const char *name, struct err *err)
{
    return !*broker || *name ||
           err_set(err, ERR_INPUT, "expected --%s NAME; `moothall status` lists them", flag);
}

bool named_batch(struct named_batch *named, struct connection *connection, const char *queue,
                 const char *batch, struct err *err)
{
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    const struct link_message *answer;
    const Moothall__Status *status;
    const Moothall__Counts *c;

    memset(named, 0, sizeof *named);
    if (!*queue && !*batch && connection->has_record) {
        queue = connection->record.is.queue;
        batch = connection->record.batch;
    }
    if (!*batch)
        return err_set(err, ERR_INPUT, "no batch: expected --batch NAME, as `submit` printed it");
    ask.queue = (char *)(uintptr_t)queue;
    ask.batch = (char *)(uintptr_t)batch;
    if (!hall_ask(connection->hall, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask,
                  MOOTHALL__ENVELOPE__BODY_STATUS, &answer, err))
        return false;
    status = answer->envelope->status;
    c = status->counts;
    snprintf(named->batch, sizeof named->batch, "%s", batch);
    if (status->n_batch > 1)
        return err_set(err, ERR_INPUT, "queue `%s` and queue `%s` both have a batch `%s`; say which with --queue",
                       status->batch[0]->queue, status->batch[1]->queue, batch);
    if (!c || status->n_batch != 1 || strlen(status->batch[0]->queue) >= sizeof named->queue)
        return err_set(err, ERR_INPUT,
                       "the broker does not say in which queue batch `%s` is; name it with --queue", batch);
    strcpy(named->queue, status->batch[0]->queue);
    named->live = c->ready + c->leased + c->delayed;
    named->ended = c->done + c->failed + c->dead + c->cancelled + c->expired;
    return true;
}

bool named_queue(char queue[65], const struct connection *connection, const char *given, struct err *err)
{
    if (!*given && connection->has_record)
        given = connection->record.is.queue;
    if (!*given)
        return err_set(err, ERR_INPUT, "no queue: expected --queue NAME; `moothall status` lists them");
    snprintf(queue, 65, "%s", given);
    return true;
}

static const char *id_in(const char *word)
{
    static const char front[] = "batch_req_";

    return strncmp(word, front, sizeof front - 1) ? word : word + sizeof front - 1;
}

static bool could_be_id(const char *word)
{
    size_t n = strlen(word);

    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)word[i]) && !strchr("._-", word[i]))
            return false;
    return n >= 1 && n <= ID_MAX;
}

static bool ask_one(const struct named_batch *named, char *word, bool first, named_ask *ask, void *arg,
                    struct err *err)
{
    char id[REQUEST_JOB_ID_SIZE], *ids[1] = { id };

    request_job_id(id, span_text(named->batch), span_text(word));
    if (ask(arg, ids, 1, err))
        return true;
    if (err->code != ERR_NOT_FOUND)
        return false;
    ids[0] = (char *)(uintptr_t)id_in(word);
    if (could_be_id(ids[0])) {
        if (ask(arg, ids, 1, err))
            return true;
        if (err->code != ERR_NOT_FOUND)
            return false;
    }
    return err_set(err, ERR_NOT_FOUND, "batch `%s` has no job `%.200s`, neither by custom_id nor by id%s",
                   named->batch, word, first ? "" : "; those before it were taken");
}

bool named_jobs(const struct named_batch *named, char **word, int count, named_ask *ask, void *arg,
                struct err *err)
{
    char id[IDS_MAX][REQUEST_JOB_ID_SIZE], *ids[IDS_MAX];

    for (int at = 0, n; at < count; at += n) {
        n = count - at < IDS_MAX ? count - at : IDS_MAX;
        for (int i = 0; i < n; i++) {
            request_job_id(id[i], span_text(named->batch), span_text(word[at + i]));
            ids[i] = id[i];
        }
        if (ask(arg, ids, (size_t)n, err))
            continue;
        if (err->code != ERR_NOT_FOUND)
            return false;
        /* Some of them are ids, or nothing at all: one by one. */
        for (int i = 0; i < n; i++)
            if (!ask_one(named, word[at + i], at + i == 0, ask, arg, err))
                return false;
    }
    return true;
}
