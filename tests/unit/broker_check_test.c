#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/check.h"
#include "broker/core.h"
#include "broker/store_sqlite.h"
#include "proto/frame.h"
#include "proto/link.h"

static char text[2000];

static char *letters(int n)
{
    static char copy[8][2000];
    static int next;
    char *t = copy[next++ % 8];

    memset(t, 'x', (size_t)n);
    t[n] = '\0';
    return t;
}

/* One field is wrong; the words must name it. */
static void expect(Moothall__Envelope__BodyCase kind, void *body, size_t payload, const char *field)
{
    Moothall__Envelope e;
    struct err err = { 0 };
    bool good;

    link_envelope(&e, kind, body, 1);
    good = check_message(&e, span_of(text, payload), &err);
    if (!field) {
        if (!good)
            fail_msg("refused: %s", err.text);
        return;
    }
    if (good || strncmp(err.text, field, strlen(field)) != 0)
        fail_msg("`%s`, expected `%s...`", good ? "accepted" : err.text, field);
}

static void test_submit_fields_are_checked(void **state)
{
    Moothall__NewJob good = MOOTHALL__NEW_JOB__INIT, bad, *jobs[300];
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    static char q[] = "q", b[] = "b", id[] = "a-Z_0.9", control[] = "a\nb", slash[] = "a/b", none[] = "";

    (void)state;
    for (int i = 0; i < 300; i++)
        jobs[i] = &good;
    good.id = id;
    good.size = 4;
    m.queue = q;
    m.batch = b;
    m.batch_total = 1;
    m.job = jobs;
    m.n_job = 2;
#define SUBMIT(payload, field) expect(MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, payload, field)
    SUBMIT(8, NULL);
    SUBMIT(7, "submit.job sizes add up to 8, the payload has 7");
    SUBMIT(9, "submit.job sizes add up to 8");
    good.size = UINT32_MAX; /* two of them would wrap in 32 bits */
    SUBMIT(8, "submit.job sizes add up to 8589934590");
    good.size = 0;
    m.queue = none;
    SUBMIT(0, "submit.queue is empty");
    m.queue = letters(65);
    SUBMIT(0, "submit.queue has 65 bytes");
    m.queue = control;
    SUBMIT(0, "submit.queue holds a control character");
    m.queue = q;
    m.batch = letters(129);
    SUBMIT(0, "submit.batch has 129 bytes");
    m.batch = letters(128);
    SUBMIT(0, NULL);
    m.batch_total = 0;
    SUBMIT(0, NULL); /* it grows with what comes */
    m.batch_total = 10000001;
    SUBMIT(0, "submit.batch_total is 10000001");
    m.batch_total = 10000000;
    m.mode = (Moothall__SubmitMode)7;
    SUBMIT(0, "submit.mode");
    m.mode = MOOTHALL__SUBMIT_MODE__RETRY;
    m.n_job = 0;
    SUBMIT(0, "submit.job has 0 jobs");
    m.n_job = 257;
    SUBMIT(0, "submit.job has 257 jobs");
    m.n_job = 256;
    SUBMIT(0, NULL);
    jobs[3] = &bad;
#define JOB(change, field) (bad = good, change, expect(MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, 0, field))
    JOB(bad.id = none, "submit.job[3].id is not 1 to 64");
    JOB(bad.id = slash, "submit.job[3].id is not");
    JOB(bad.id = letters(65), "submit.job[3].id is not");
    JOB(bad.custom_id = letters(513), "submit.job[3].custom_id has 513 bytes");
    JOB(bad.endpoint = letters(64), "submit.job[3].endpoint has 64 bytes");
    JOB(bad.position = 10000000, "submit.job[3].position 10000000 is not below batch_total 10000000");
    JOB(bad.position = UINT32_MAX, NULL); /* none */
    JOB(bad.deadline_ms = -1, "submit.job[3].deadline_ms");
    JOB(bad.not_before_ms = INT64_MAX, "submit.job[3].not_before_ms");
    JOB(bad.ready_ttl_ms = UINT64_MAX, "submit.job[3].ready_ttl_ms");
    JOB(bad.priority = 3, "submit.job[3].priority");
    JOB(bad.status_code = 1000, "submit.job[3].status_code");
    JOB(bad.custom_id = letters(512), NULL);
}

static void test_other_messages_of_clients_are_checked(void **state)
{
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    Moothall__CursorSet set = MOOTHALL__CURSOR_SET__INIT;
    Moothall__CursorAsk ask = MOOTHALL__CURSOR_ASK__INIT;
    Moothall__StatusAsk status = MOOTHALL__STATUS_ASK__INIT;
    Moothall__AuditAsk audit = MOOTHALL__AUDIT_ASK__INIT;
    Moothall__Ping ping = MOOTHALL__PING__INIT;
    Moothall__Pong pong = MOOTHALL__PONG__INIT;
    Moothall__Welcome welcome = MOOTHALL__WELCOME__INIT;
    Moothall__Cancel cancel = MOOTHALL__CANCEL__INIT;
    Moothall__Retry retry = MOOTHALL__RETRY__INIT;
    Moothall__Purge purge = MOOTHALL__PURGE__INIT;
    Moothall__QueueSet queue_set = MOOTHALL__QUEUE_SET__INIT;
    Moothall__State states[] = { MOOTHALL__STATE__FAILED, MOOTHALL__STATE__DEAD, MOOTHALL__STATE__CANCELLED,
                                 MOOTHALL__STATE__EXPIRED, MOOTHALL__STATE__DONE };
    static char q[] = "q", control[] = "\x7f", *names[257];

    (void)state;
    for (int i = 0; i < 257; i++)
        names[i] = q;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.queue is empty");
    fetch.queue = q;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, NULL);
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 1, "payload is not empty");
    fetch.order = MOOTHALL__ORDER__POSITION;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.batch is empty");
    fetch.order = MOOTHALL__ORDER__NAMED;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.batch is empty");
    fetch.batch = q;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.job is empty; NAMED wants");
    fetch.job = names;
    fetch.n_job = 256;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, NULL);
    fetch.order = MOOTHALL__ORDER__POSITION;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.job is of the order NAMED only");
    fetch.order = MOOTHALL__ORDER__NAMED;
    fetch.n_job = 257;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.job has 257 ids");
    fetch.n_job = 3;
    names[2] = control;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.job is not 1 to 64 characters");
    names[2] = q;
    fetch.n_job = 0;
    fetch.order = (Moothall__Order)3;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.order");
    fetch.order = MOOTHALL__ORDER__COMPLETION;
    fetch.from = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.from");
    fetch.from = 1;
    fetch.items_max = 257;
    expect(MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, 0, "fetch.items_max");
    expect(MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, &ask, 0, "cursor.queue is empty");
    ask.queue = set.queue = q;
    expect(MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, &ask, 0, "cursor.consumer is empty");
    set.consumer = q;
    set.note.data = (uint8_t *)text;
    set.note.len = 1024;
    expect(MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &set, 0, NULL);
    set.note.len = 1025;
    expect(MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &set, 0, "cursor_set.note is longer");
    set.note.len = 0;
    set.position = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_CURSOR_SET, &set, 0, "cursor_set.position");
    status.batch = control;
    expect(MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &status, 0, "status_ask.batch holds a control");
    expect(MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, 0, "cancel.queue is empty");
    cancel.queue = q;
    expect(MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, 0, "cancel.batch is empty");
    cancel.batch = q;
    expect(MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, 0, NULL);
    cancel.job = names;
    cancel.n_job = 257;
    expect(MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, 0, "cancel.job has 257 ids");
    cancel.n_job = 256;
    cancel.reason = letters(201);
    expect(MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, 0, "cancel.reason has 201 bytes");
    expect(MOOTHALL__ENVELOPE__BODY_RETRY, &retry, 0, "retry.queue is empty");
    retry.queue = retry.batch = q;
    retry.state = states;
    retry.n_state = 4;
    expect(MOOTHALL__ENVELOPE__BODY_RETRY, &retry, 0, NULL);
    retry.n_state = 5;
    expect(MOOTHALL__ENVELOPE__BODY_RETRY, &retry, 0, "retry.state is not");
    retry.n_state = 0;
    retry.after = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_RETRY, &retry, 0, "retry.after");
    expect(MOOTHALL__ENVELOPE__BODY_PURGE, &purge, 0, "purge.queue is empty");
    purge.queue = q;
    purge.older_than_ms = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_PURGE, &purge, 0, NULL);
    purge.after = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_PURGE, &purge, 0, "purge.after");
    expect(MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &queue_set, 0, "queue_set.queue is empty");
    queue_set.queue = q;
    expect(MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &queue_set, 0, NULL);
    queue_set.retention_ms = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &queue_set, 0, "queue_set.retention_ms");
    queue_set.pause = (Moothall__QueueSet__Pause)3;
    expect(MOOTHALL__ENVELOPE__BODY_QUEUE_SET, &queue_set, 0, "queue_set.pause");
    audit.after = UINT64_MAX;
    expect(MOOTHALL__ENVELOPE__BODY_AUDIT_ASK, &audit, 0, "audit_ask.after");
    expect(MOOTHALL__ENVELOPE__BODY_PING, &ping, 0, NULL);
    expect(MOOTHALL__ENVELOPE__BODY_PONG, &pong, 0, "body is a kind of message that a broker does not take");
    expect(MOOTHALL__ENVELOPE__BODY_WELCOME, &welcome, 0, "body is a kind");
}

static void test_messages_of_workers_are_checked(void **state)
{
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;
    Moothall__Result result = MOOTHALL__RESULT__INIT;
    Moothall__Heartbeat beat = MOOTHALL__HEARTBEAT__INIT;
    Moothall__Release release = MOOTHALL__RELEASE__INIT;
    Moothall__Credit credit = MOOTHALL__CREDIT__INIT;
    Moothall__Death death = MOOTHALL__DEATH__INIT;
    static char w[] = "w", family[] = "cpu", *families[17] = { family };
    static uint64_t fences[5000];

    (void)state;
#define HELLO(field) expect(MOOTHALL__ENVELOPE__BODY_HELLO, &hello, 0, field)
    HELLO("hello.role");
    hello.role = MOOTHALL__ROLE__CLIENT;
    HELLO(NULL);
    hello.role = MOOTHALL__ROLE__WORKER;
    HELLO("hello.name is empty");
    hello.name = letters(65);
    HELLO("hello.name has 65 bytes");
    hello.name = w;
    HELLO("hello.fingerprint is missing");
    hello.fingerprint.data = (uint8_t *)text;
    hello.fingerprint.len = 31;
    HELLO("hello.fingerprint has not 32 bytes");
    hello.fingerprint.len = 32;
    HELLO("hello.offer is missing");
    hello.offer = &offer;
    HELLO("hello.offer.families has not 1 to 16");
    for (int i = 0; i < 17; i++)
        families[i] = family;
    offer.families = families;
    offer.n_families = 17;
    HELLO("hello.offer.families has not 1 to 16");
    offer.n_families = 16;
    HELLO(NULL);
    families[9] = letters(33);
    HELLO("hello.offer.families has 33 bytes");
    families[9] = family;
    offer.endpoint = letters(129);
    HELLO("hello.offer.endpoint has 129 bytes");
    offer.endpoint = w;
    offer.shard_count = 1025;
    HELLO("hello.offer.shard_count");
    offer.shard_count = 1024;
    hello.held = beat.held = release.fence = fences;
    hello.n_held = beat.n_held = release.n_fence = 4097;
    HELLO("hello.held names more than 4096");
    expect(MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &beat, 0, "heartbeat.held");
    expect(MOOTHALL__ENVELOPE__BODY_RELEASE, &release, 0, "release.fence");
    credit.jobs = 4097;
    expect(MOOTHALL__ENVELOPE__BODY_CREDIT, &credit, 0, "credit.jobs");
    expect(MOOTHALL__ENVELOPE__BODY_DEATH, &death, 0, "death.worker is empty");
    expect(MOOTHALL__ENVELOPE__BODY_RESULT, &result, 0, "result.job");
    result.job = w;
    expect(MOOTHALL__ENVELOPE__BODY_RESULT, &result, 0, "result.outcome");
    result.outcome = MOOTHALL__OUTCOME__FINISHED;
    expect(MOOTHALL__ENVELOPE__BODY_RESULT, &result, 1000, NULL);
    result.numerics = letters(129);
    expect(MOOTHALL__ENVELOPE__BODY_RESULT, &result, 0, "result.numerics");
}

static void test_roles_keep_to_their_messages(void **state)
{
    (void)state;
    CHECK(check_role(MOOTHALL__ROLE__CLIENT, MOOTHALL__ENVELOPE__BODY_SUBMIT));
    CHECK(!check_role(MOOTHALL__ROLE__CLIENT, MOOTHALL__ENVELOPE__BODY_RESULT));
    CHECK(!check_role(MOOTHALL__ROLE__CLIENT, MOOTHALL__ENVELOPE__BODY_DEATH));
    CHECK(!check_role(MOOTHALL__ROLE__WORKER, MOOTHALL__ENVELOPE__BODY_DEATH));
    CHECK(check_role(MOOTHALL__ROLE__SUPERVISOR, MOOTHALL__ENVELOPE__BODY_DEATH));
    CHECK(check_role(MOOTHALL__ROLE__WORKER, MOOTHALL__ENVELOPE__BODY_RESULT));
}

/* ---- whatever passes the checks cannot harm the core ---- */

static uint64_t xorshift;

static uint64_t draw(uint64_t below)
{
    xorshift ^= xorshift << 13;
    xorshift ^= xorshift >> 7;
    xorshift ^= xorshift << 17;
    return xorshift % below;
}

static uint64_t random_next(struct random *random)
{
    (void)random;
    return draw(UINT64_MAX);
}

/* A message of that type with random fields: short texts and small numbers mostly, so that many get through.
 */
static void *random_message(struct arena *arena, const ProtobufCMessageDescriptor *type, int depth)
{
    ProtobufCMessage *m = arena_take(arena, type->sizeof_message);
    static const char *const words[] = { "",         "a",  "b", "w", "q", "cpu", "j1", "/v1/completions",
                                         "\xc3\xa4", "a b" };

    protobuf_c_message_init(type, m);
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        uint8_t *at = (uint8_t *)m + f->offset;
        size_t count = f->label == PROTOBUF_C_LABEL_REPEATED ? draw(4) : 1, size = 8;

        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF || (f->label != PROTOBUF_C_LABEL_REPEATED && draw(5) == 0))
            continue;
        if (f->type == PROTOBUF_C_TYPE_UINT32 || f->type == PROTOBUF_C_TYPE_INT32 ||
            f->type == PROTOBUF_C_TYPE_BOOL || f->type == PROTOBUF_C_TYPE_ENUM)
            size = 4;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            uint8_t *list = arena_take(arena, count * 16 + 16);

            *(size_t *)((uint8_t *)m + f->quantifier_offset) = count;
            memcpy(at, &list, sizeof list);
            at = list;
        }
        for (size_t k = 0; k < count; k++, at += size) {
            uint64_t number = draw(3) ? draw(4) : draw(2) ? draw(300) : draw(UINT64_MAX);
            char *word = arena_copy(arena, words[number % 10], strlen(words[number % 10]));

            if (f->type == PROTOBUF_C_TYPE_STRING) {
                memcpy(at, &word, sizeof word);
            } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
                void *inner = depth < 3 ? random_message(arena, f->descriptor, depth + 1) : NULL;

                memcpy(at, &inner, sizeof inner);
            } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
                ProtobufCBinaryData data = { .len = draw(2) ? 32 : draw(40), .data = (uint8_t *)text };

                memcpy(at, &data, sizeof data);
            } else {
                memcpy(at, &number, size);
            }
        }
    }
    return m;
}

static void test_random_messages_that_pass_leave_the_store_sound(void **state)
{
    static const Moothall__Envelope__BodyCase kinds[] = {
        MOOTHALL__ENVELOPE__BODY_HELLO,      MOOTHALL__ENVELOPE__BODY_SUBMIT,
        MOOTHALL__ENVELOPE__BODY_SUBMIT,     MOOTHALL__ENVELOPE__BODY_FETCH,
        MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, MOOTHALL__ENVELOPE__BODY_CURSOR_SET,
        MOOTHALL__ENVELOPE__BODY_STATUS_ASK, MOOTHALL__ENVELOPE__BODY_AUDIT_ASK,
        MOOTHALL__ENVELOPE__BODY_DEATH,      MOOTHALL__ENVELOPE__BODY_CREDIT,
        MOOTHALL__ENVELOPE__BODY_RESULT,     MOOTHALL__ENVELOPE__BODY_RESULT,
        MOOTHALL__ENVELOPE__BODY_HEARTBEAT,  MOOTHALL__ENVELOPE__BODY_SEATED,
        MOOTHALL__ENVELOPE__BODY_SEATED,     MOOTHALL__ENVELOPE__BODY_RELEASE,
        MOOTHALL__ENVELOPE__BODY_CANCEL,     MOOTHALL__ENVELOPE__BODY_RETRY,
        MOOTHALL__ENVELOPE__BODY_RETRY,      MOOTHALL__ENVELOPE__BODY_PURGE,
        MOOTHALL__ENVELOPE__BODY_QUEUE_SET,
    };
    struct core_config config = core_config_default();
    struct store_options options = { .hall = 1 };
    struct random random = { .next = random_next };
    struct core_time now = { .mono_ms = 1, .wall_ms = 1700000000000 };
    struct store *store;
    struct core *core;
    struct arena arena;
    struct err err = { 0 };
    uint64_t fence[16] = { 0 }, epoch = 1;
    int passed = 0, leases = 0;

    (void)state;
    xorshift = 0x123456789abcdefu;
    config.settle_ms = 0;
    CHECK(store_sqlite_open(&store, ":memory:", &options, &err));
    store->begin(store);
    core = core_new(&config, store, &random, now, &err);
    CHECK(core && store->commit(store, &err) == STORE_KEPT);
    arena_init(&arena, 0);
    for (int step = 0; step < 30000; step++) {
        Moothall__Envelope__BodyCase kind = kinds[draw(sizeof kinds / sizeof *kinds)];
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(&moothall__envelope__descriptor, kind);
        struct event event = { .kind = EVENT_MESSAGE, .session = 1 + draw(4), .reason = "test" };
        struct effects effects;
        struct audit_slice slice;
        Moothall__Envelope e;
        size_t payload = draw(4);

        arena_reset(&arena);
        effects_init(&effects);
        now.mono_ms += (int64_t)draw(300);
        now.wall_ms += (int64_t)draw(300);
        link_envelope(&e, kind, random_message(&arena, field->descriptor, 0), draw(100));
        if (kind == MOOTHALL__ENVELOPE__BODY_SUBMIT && e.submit->n_job) { /* sizes seldom add up by chance */
            payload = 0;
            for (size_t i = 0; i < e.submit->n_job; i++) {
                e.submit->job[i]->size = (uint32_t)draw(50);
                e.submit->job[i]->refused = draw(4) == 0;
                if (draw(8)) { /* a random time has passed, or never comes */
                    e.submit->job[i]->not_before_ms = e.submit->job[i]->deadline_ms = 0;
                    e.submit->job[i]->ready_ttl_ms = 0;
                }
                payload += e.submit->job[i]->size;
            }
            e.submit->batch_total |= 8;
        }
        if (kind == MOOTHALL__ENVELOPE__BODY_HELLO &&
            draw(4)) { /* mostly workers that could be of one hall */
            static char family[] = "cpu", *families[] = { family };
            Moothall__WorkerOffer *offer = random_message(&arena, &moothall__worker_offer__descriptor, 1);

            offer->families = families;
            offer->n_families = 1;
            offer->shard_count = 4;
            offer->shard_bytes = 1 << 20;
            offer->memory_bytes = 16 << 20;
            e.hello->offer = offer;
            e.hello->role = MOOTHALL__ROLE__WORKER;
            e.hello->name = family;
            e.hello->incarnation = draw(2);
            e.hello->fingerprint.data = (uint8_t *)text;
            e.hello->fingerprint.len = 32;
        }
        /* A hall whose queues are all paused and whose batches are all cancelled would prove little. */
        if (kind == MOOTHALL__ENVELOPE__BODY_QUEUE_SET && draw(4))
            e.queue_set->pause = MOOTHALL__QUEUE_SET__PAUSE__RESUME;
        if (kind == MOOTHALL__ENVELOPE__BODY_CANCEL && e.cancel->n_job == 0 && draw(4))
            continue;
        if (kind == MOOTHALL__ENVELOPE__BODY_RESULT)
            e.result->fence = fence[draw(16)];
        if (kind == MOOTHALL__ENVELOPE__BODY_SEATED)
            e.seated->epoch = epoch;
        if (kind != MOOTHALL__ENVELOPE__BODY_SUBMIT && kind != MOOTHALL__ENVELOPE__BODY_RESULT)
            payload = 0;
        event.at = now;
        event.envelope = &e;
        event.payload = span_of(text, payload);
        if (draw(20) == 0)
            event.kind = draw(2) ? EVENT_ENDED : EVENT_TICK;
        if (event.kind == EVENT_MESSAGE && !check_message(&e, event.payload, &err))
            continue;
        passed++;
        store->begin(store);
        core_step(core, &event, &effects);
        core_turn(core, now, &effects);
        if (store->commit(store, &err) != STORE_KEPT)
            fail_msg("step %d: %s", step, err.text);
        for (struct effect *effect = effects.first; effect; effect = effect->next) {
            if (effect->kind != EFFECT_SEND)
                continue;
            CHECK(moothall__envelope__get_packed_size(&effect->envelope) <= LINK_ENVELOPE_MAX);
            if (effect->envelope.body_case == MOOTHALL__ENVELOPE__BODY_LEASE) {
                fence[draw(16)] = effect->envelope.lease->fence;
                leases++;
            }
            if (effect->envelope.body_case == MOOTHALL__ENVELOPE__BODY_MAP)
                epoch = effect->envelope.map->epoch;
        }
        effects_fini(&effects);
        if (step % 500 == 0) {
            int64_t after = 0;

            do {
                store->audit(store, "", after, &slice);
                if (slice.missing || slice.doubled || slice.corrupt || slice.holes)
                    fail_msg("step %d: %s", step, slice.first_fault);
                after = slice.next;
            } while (after);
        }
    }
    if (passed < 5000 || leases < 100)
        fail_msg("%d messages passed, %d leases were given: too few to prove anything", passed, leases);
    core_free(core);
    store->free(store);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_fields_are_checked),
        cmocka_unit_test(test_other_messages_of_clients_are_checked),
        cmocka_unit_test(test_messages_of_workers_are_checked),
        cmocka_unit_test(test_roles_keep_to_their_messages),
        cmocka_unit_test(test_random_messages_that_pass_leave_the_store_sound),
    };

    log_init("test", LOG_ERROR, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
