/* bench queue - how fast a broker takes jobs durably, and how fast it brings them through their whole life.
 */

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/bench.h"
#include "client/files.h"
#include "client/hall.h"
#include "client/private_hall.h"
#include "client/say.h"
#include "client/stop.h"

enum {
    CLIENTS_MAX = 256,
    CREDIT = 256,          /* leases that the bench's worker holds at once */
    LIFE_IN_FLIGHT = 1024, /* jobs of the life case that are submitted and not fetched */
    FETCH_ITEMS = 256,
    PATIENCE_MS = 60 * 1000,
};

struct place {
    struct link_context *context;
    struct private_hall *private_hall;
    struct state_lock lock;
    char dir[4096], endpoint[256], filesystem[32];
};

static bool place_open(struct place *place, const struct bench_options *o, struct err *err)
{
    struct private_config config = { .lock = &place->lock };

    place->lock.run_fd = place->lock.shared_fd = -1;
    place->context = link_context_new();
    strcpy(place->filesystem, "unknown");
    if (*o->broker) {
        snprintf(place->endpoint, sizeof place->endpoint, "%s", o->broker);
        return true;
    }
    if (!bench_directory(o, "queue", place->dir, sizeof place->dir, err) ||
        !state_lock_take(&place->lock, place->dir, "bench", err) ||
        !private_hall_start(&place->private_hall, place->context, &config, err))
        return false;
    snprintf(place->filesystem, sizeof place->filesystem, "%s", bench_filesystem(place->dir));
    snprintf(place->endpoint, sizeof place->endpoint, "%s", private_hall_endpoint(place->private_hall));
    return true;
}

static void place_close(struct place *place)
{
    private_hall_stop(place->private_hall);
    link_context_free(place->context);
    state_lock_release(&place->lock);
    if (*place->dir)
        file_remove_tree(place->dir, NULL);
}

static bool look_after(struct place *place, struct err *err)
{
    return place->private_hall ? private_hall_turn(place->private_hall, err) : stop_check(err);
}

static void print_result(const char *which, double rate, const struct bench_options *o,
                         const struct place *place, int64_t clients, int64_t in_flight, uint64_t jobs,
                         double seconds)
{
    printf("{\"bench\":\"queue\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"jobs/s\",\"jobs\":%" PRIu64
           ",\"seconds\":%.3f,\"clients\":%" PRId64 ",\"in_flight\":%" PRId64 ",\"size\":%" PRId64
           ",\"jobs_per_message\":1,\"durability\":\"fsync\",\"filesystem\":\"%s\",\"broker\":\"%s\","
           "\"cores\":%ld,\"version\":\"%s\"}\n",
           which, rate, jobs, seconds, clients, in_flight, o->size_bytes, place->filesystem,
           *o->broker ? "given" : "private", sysconf(_SC_NPROCESSORS_ONLN), MOOTHALL_VERSION);
    fflush(stdout);
}

/* Jobs of one batch with ids of their own. */
struct source {
    struct hall_submission submission;
    char batch[40];
    uint8_t *body;
    size_t size;
    uint64_t next, total;
};

static void source_open(struct source *source, const char *what, size_t size, uint64_t total)
{
    uint64_t random;

    memset(source, 0, sizeof *source);
    randombytes_buf(&random, sizeof random);
    snprintf(source->batch, sizeof source->batch, "bench-%s-%016" PRIx64, what, random);
    source->submission =
        (struct hall_submission){ .queue = "bench", .batch = source->batch, .batch_total = (uint32_t)total };
    source->size = size;
    source->total = total;
    source->body = malloc(size);
    if (!source->body)
        abort();
    memset(source->body, 'x', size);
}

/* One job in a message of its own. */
static bool source_submit(struct source *source, struct hall *hall, struct err *err)
{
    char id[48];
    int n = snprintf(id, sizeof id, "%s-%" PRIu64, source->batch + 6, source->next);
    struct hall_job job = { .id = id,
                            .custom_id = "",
                            .position = (uint32_t)source->next,
                            .endpoint = "/v1/completions",
                            .body = span_of(source->body, source->size) };

    memcpy(source->body, id, (size_t)n < source->size ? (size_t)n : source->size); /* no two bodies alike */
    source->next++;
    return hall_submit(hall, &source->submission, &job, err) &&
           hall_submit_push(hall, &source->submission, err);
}

/* ---- case submit ------------------------------------------------------------------------------------ */

static bool measure_submit(struct place *place, const struct bench_options *o, struct err *err)
{
    struct hall *hall[CLIENTS_MAX] = { 0 };
    struct hall_config config = { .endpoint = place->endpoint,
                                  .name = "bench",
                                  .role = MOOTHALL__ROLE__CLIENT,
                                  .timeout_ms = PATIENCE_MS };
    struct source source;
    struct link *links[CLIENTS_MAX];
    bool ready[CLIENTS_MAX], ok = true;
    int64_t begin_ns, now_ns, look_ms = 0;
    uint64_t acknowledged = 0;

    source_open(&source, "submit", (size_t)o->size_bytes, 10 * 1000 * 1000);
    if (place->private_hall)
        config.side = private_hall_side(place->private_hall);
    for (int i = 0; ok && i < o->clients; i++)
        ok = hall_new(&hall[i], place->context, &config, err) && hall_open(hall[i], NULL, err);
    begin_ns = now_ns = clock_now_ns();
    for (int i = 0; i < o->clients; i++)
        ready[i] = true;
    while (ok && now_ns - begin_ns < o->seconds * 1000000000) {
        for (int i = 0; ok && i < o->clients; i++) {
            if (!ready[i])
                continue;
            ok = hall_turn(hall[i], err);
            while (ok && hall_unanswered(hall[i]) < o->in_flight && hall_is_open(hall[i]) &&
                   source.next < source.total)
                ok = source_submit(&source, hall[i], err);
        }
        for (int i = 0; i < o->clients; i++) {
            links[i] = hall_link(hall[i]);
            if (!links[i])
                ok = err_set(err, ERR_IO, "the broker went away in the middle of the measurement");
        }
        if (ok)
            link_wait(links, (int)o->clients, NULL, 0, 100, ready);
        now_ns = clock_now_ns();
        if (ok && now_ns / 1000000 - look_ms > 50) {
            look_ms = now_ns / 1000000;
            ok = look_after(place, err);
        }
    }
    for (int i = 0; ok && i < o->clients; i++) {
        struct hall_tally tally = hall_tally(hall[i]);

        acknowledged += tally.accepted;
    }
    if (ok)
        print_result("submit", (double)acknowledged * 1e9 / (double)(now_ns - begin_ns), o, place, o->clients,
                     o->in_flight, acknowledged, (double)(now_ns - begin_ns) / 1e9);
    for (int i = 0; ok && i < o->clients; i++) /* so that nothing is left under way for the next case */
        ok = hall_submit_end(hall[i], &source.submission, err);
    for (int i = 0; i < o->clients; i++)
        hall_free(hall[i]);
    free(source.body);
    return ok;
}

/* ---- case life: a worker that answers without computing ---------------------------------------------------
 */

struct idler {
    struct link *link;
    uint64_t fence[CREDIT];
    int held;
    bool welcomed;
    int64_t beat_ms;
    uint64_t answered;
};

static bool idler_say(struct idler *idler, Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    Moothall__Envelope envelope;

    link_envelope(&envelope, kind, body, 0);
    return link_send(idler->link, NULL, &envelope, payload) == LINK_SENT;
}

static bool idler_hello(struct idler *idler)
{
    static char family[] = "idle", endpoint[] = "ipc:///dev/null/idle", name[] = "idler", weights[] = "f32";
    static uint8_t fingerprint[32] = "a worker that does not compute";
    char *families[] = { family };
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;

    offer.endpoint = endpoint;
    offer.n_families = 1;
    offer.families = families;
    offer.weights = weights;
    offer.shard_count = 1;
    offer.shard_bytes = 1;
    offer.memory_bytes = 1 << 20;
    offer.pid = (uint32_t)getpid();
    hello.role = MOOTHALL__ROLE__WORKER;
    hello.name = name;
    hello.incarnation = 1;
    randombytes_buf(&hello.incarnation, sizeof hello.incarnation);
    hello.fingerprint.data = fingerprint;
    hello.fingerprint.len = sizeof fingerprint;
    hello.offer = &offer;
    return idler_say(idler, MOOTHALL__ENVELOPE__BODY_HELLO, &hello, span_of(NULL, 0));
}

static void idler_answer(struct idler *idler, const Moothall__Lease *lease)
{
    static const char body[] =
        "{\"object\":\"text_completion\",\"model\":\"idle\",\"choices\":[],\"usage\":{\"prompt_tokens\":0,"
        "\"completion_tokens\":0,\"total_tokens\":0}}";
    Moothall__Result result = MOOTHALL__RESULT__INIT;
    static char numerics[] = "idle";

    result.job = lease->job;
    result.generation = lease->generation;
    result.fence = lease->fence;
    result.outcome = MOOTHALL__OUTCOME__FINISHED;
    result.status_code = 200;
    result.numerics = numerics;
    idler_say(idler, MOOTHALL__ENVELOPE__BODY_RESULT, &result, span_of(body, sizeof body - 1));
    idler->answered++;
    if (idler->held < CREDIT)
        idler->fence[idler->held++] = lease->fence;
}

static bool idler_turn(struct idler *idler, struct link_message *message, int64_t now_ms, struct err *err)
{
    while (link_receive(idler->link, message)) {
        Moothall__Envelope *e = message->envelope;

        if (e->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME) {
            Moothall__Credit credit = MOOTHALL__CREDIT__INIT;

            idler->welcomed = true;
            credit.jobs = CREDIT;
            credit.bytes = 64 << 20;
            idler_say(idler, MOOTHALL__ENVELOPE__BODY_CREDIT, &credit, span_of(NULL, 0));
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_MAP) {
            Moothall__Seated seated = MOOTHALL__SEATED__INIT;

            seated.epoch = e->map->epoch;
            idler_say(idler, MOOTHALL__ENVELOPE__BODY_SEATED, &seated, span_of(NULL, 0));
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_LEASE) {
            idler_answer(idler, e->lease);
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_STORED) {
            for (int i = 0; i < idler->held; i++)
                if (idler->fence[i] == e->stored->fence) {
                    idler->fence[i] = idler->fence[--idler->held];
                    break;
                }
        } else if (e->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL) {
            return err_set(err, ERR_REFUSED, "the broker refused the bench's worker: %.500s",
                           e->refusal->text);
        }
    }
    if (idler->welcomed && now_ms - idler->beat_ms > 250) {
        Moothall__Heartbeat beat = MOOTHALL__HEARTBEAT__INIT;

        beat.n_held = (size_t)idler->held;
        beat.held = idler->fence;
        beat.waiting_shard = -1;
        beat.progress = idler->answered;
        idler_say(idler, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &beat, span_of(NULL, 0));
        idler->beat_ms = now_ms;
    }
    return true;
}

/* Submits, computes nothing, fetches: a session each, one thread.  The fetching session keeps a question open
 * all the time. */
static bool measure_life(struct place *place, const struct bench_options *o, struct err *err)
{
    struct hall *submitter = NULL, *fetcher = NULL;
    struct hall_config config = { .endpoint = place->endpoint,
                                  .name = "bench",
                                  .role = MOOTHALL__ROLE__CLIENT,
                                  .timeout_ms = PATIENCE_MS };
    struct idler idler = { 0 };
    struct link_message message;
    struct source source;
    uint64_t from = 1, fetched = 0;
    int64_t begin_ns = 0, now_ns = clock_now_ns(), give_up_ns = now_ns + (int64_t)PATIENCE_MS * 1000000,
            look_ms = 0;
    bool ok;

    link_message_init(&message);
    source_open(&source, "life", (size_t)o->size_bytes, 10 * 1000 * 1000);
    if (place->private_hall)
        config.side = private_hall_side(place->private_hall);
    ok = hall_new(&submitter, place->context, &config, err) && hall_open(submitter, NULL, err) &&
         hall_new(&fetcher, place->context, &config, err) && hall_open(fetcher, NULL, err) &&
         link_connect(&idler.link, place->context, place->endpoint, err);
    for (int tries = 0; ok && !idler_hello(&idler); tries++) {
        usleep(10 * 1000);
        if (tries > 500)
            ok = err_set(err, ERR_TIMEOUT, "the bench's worker cannot reach %s", place->endpoint);
    }
    while (ok && (!begin_ns || now_ns - begin_ns < o->seconds * 1000000000)) {
        struct link *links[] = { idler.link, hall_link(submitter) };

        ok = idler_turn(&idler, &message, now_ns / 1000000, err) && hall_turn(submitter, err);
        while (ok && hall_unanswered(submitter) < o->in_flight && source.next < fetched + LIFE_IN_FLIGHT &&
               source.next < source.total)
            ok = source_submit(&source, submitter, err);
        if (ok && idler.answered > fetched) {
            Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
            const struct link_message *answer;

            if (!begin_ns)
                begin_ns = clock_now_ns(); /* the shards are dealt, leasing has begun */
            fetch.queue = (char *)(uintptr_t)source.submission.queue;
            fetch.batch = source.batch;
            fetch.order = MOOTHALL__ORDER__COMPLETION;
            fetch.from = from;
            fetch.items_max = FETCH_ITEMS;
            fetch.bytes_max = 1 << 20;
            ok = hall_ask(fetcher, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, MOOTHALL__ENVELOPE__BODY_ENTRIES,
                          &answer, err);
            if (ok) {
                fetched += answer->envelope->entries->n_entry;
                from = answer->envelope->entries->next;
            }
        }
        if (ok && idler.answered <= fetched && links[1])
            link_wait(links, 2, NULL, 0, 20, NULL);
        now_ns = clock_now_ns();
        if (ok && now_ns / 1000000 - look_ms > 50) {
            look_ms = now_ns / 1000000;
            ok = look_after(place, err);
        }
        if (ok && !begin_ns && now_ns > give_up_ns)
            ok = err_set(err, ERR_TIMEOUT, "nothing was leased within %d s", PATIENCE_MS / 1000);
    }
    if (ok)
        print_result("life", (double)fetched * 1e9 / (double)(now_ns - begin_ns), o, place, 1, o->in_flight,
                     fetched, (double)(now_ns - begin_ns) / 1e9);
    if (idler.link) {
        Moothall__Goodbye goodbye = MOOTHALL__GOODBYE__INIT;

        idler_say(&idler, MOOTHALL__ENVELOPE__BODY_GOODBYE, &goodbye, span_of(NULL, 0));
    }
    link_free(idler.link);
    link_message_fini(&message);
    hall_free(submitter);
    hall_free(fetcher);
    free(source.body);
    return ok;
}

bool bench_queue(const struct bench_options *options, struct err *err)
{
    struct place place = { 0 };
    struct bench_options life_options = *options;
    bool ok;

    ok = place_open(&place, options, err) && measure_submit(&place, options, err);
    place_close(&place);
    if (!ok)
        return false;
    /* A store of its own: the jobs of the first case would be leased first.  A given broker has its own
     * worker's model. */
    if (*options->broker) {
        say("case life needs a hall without a model: measured on a private broker");
        *life_options.broker = '\0';
    }
    memset(&place, 0, sizeof place);
    ok = place_open(&place, &life_options, err) && measure_life(&place, &life_options, err);
    place_close(&place);
    return ok;
}
