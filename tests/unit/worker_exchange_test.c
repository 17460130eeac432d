/* The exchange between workers, two or three of them in one thread over real sockets. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "worker/exchange.h"

enum { HIDDEN = 64, SHARDS = 4 };

static const uint8_t moe[3] = { 0, 1, 1 };
static char directory[] = "/tmp/moothall-exchange-XXXXXX";
static struct link_context *context;
static int endpoints;

struct hall {
    struct exchange *worker[3];
    struct seat_map map;
    struct seat_map_worker name[3];
    int count;
};

static struct exchange *worker_new(struct hall *hall, int i, uint64_t incarnation, uint8_t fingerprint)
{
    struct exchange_config config = { .bytes_max = 16 << 20, .incarnation = incarnation };
    struct exchange *ex;
    struct err err;

    snprintf(config.endpoint, sizeof config.endpoint, "ipc://%s/%d", directory, endpoints++);
    snprintf(config.name, sizeof config.name, "w%d", i);
    snprintf(config.family, sizeof config.family, "cpu");
    memset(config.fingerprint, fingerprint, 32);
    config.shape = (struct dispatch_shape){ .hidden = HIDDEN,
                                            .carrier_bytes = 4,
                                            .expert_count = 8,
                                            .experts_per_shard = 2,
                                            .shard_count = SHARDS,
                                            .layer_count = 3,
                                            .moe = moe };
    CHECK(exchange_new(&ex, context, &config, &err));
    hall->name[i].incarnation = incarnation;
    memcpy(hall->name[i].name, config.name, sizeof config.name);
    snprintf(hall->name[i].endpoint, LINK_ENDPOINT_MAX, "%s", exchange_endpoint(ex));
    hall->worker[i] = ex;
    return ex;
}

/* Worker i holds the shards whose letter in `seats` is i. */
static void deal(struct hall *hall, uint64_t epoch, const char *seats)
{
    free(hall->map.seat);
    hall->map = (struct seat_map){ .epoch = epoch, .worker_count = hall->count, .worker = hall->name };
    hall->map.seat = calloc(SHARDS, sizeof *hall->map.seat);
    for (int s = 0; s < SHARDS; s++)
        if (seats[s] != '-') {
            hall->map.seat[hall->map.seat_count].shard = (uint32_t)s;
            hall->map.seat[hall->map.seat_count++].worker = (uint32_t)(seats[s] - '0');
        }
    for (int i = 0; i < hall->count; i++)
        if (hall->worker[i])
            exchange_map(hall->worker[i], &hall->map);
}

static void turn(struct hall *hall)
{
    for (int i = 0; i < hall->count; i++)
        if (hall->worker[i])
            exchange_turn(hall->worker[i], clock_now_ms());
}

static bool all_ready(struct hall *hall)
{
    for (int i = 0; i < hall->count; i++)
        if (hall->worker[i] && !exchange_is_ready(hall->worker[i]))
            return false;
    return true;
}

#define UNTIL(hall, condition)                                                                               \
    do {                                                                                                     \
        int64_t until_ms = clock_now_ms() + 10000;                                                           \
        for (;;) {                                                                                           \
            turn(hall);                                                                                      \
            if (condition)                                                                                   \
                break;                                                                                       \
            if (clock_now_ms() > until_ms)                                                                   \
                fail_msg("never came true: %s", #condition);                                                 \
            usleep(500);                                                                                     \
        }                                                                                                    \
    } while (0)

static void hall_open(struct hall *hall, int count, const char *seats)
{
    memset(hall, 0, sizeof *hall);
    hall->count = count;
    for (int i = 0; i < count; i++)
        worker_new(hall, i, 100 + (uint64_t)i, 7);
    deal(hall, 1, seats);
    UNTIL(hall, all_ready(hall));
}

static void hall_close(struct hall *hall)
{
    for (int i = 0; i < hall->count; i++)
        exchange_free(hall->worker[i]);
    free(hall->map.seat);
}

/* rows rows, each at the first expert of each of the given shards ("23"). */
static struct exchange_call *call_new(uint32_t rows, const char *shards, bool decode)
{
    struct exchange_call *c = calloc(1, sizeof *c);
    uint32_t n = (uint32_t)strlen(shards), at = 0;
    struct expert_pair *pairs;

    *c = (struct exchange_call){ .layer = 1,
                                 .row_count = rows,
                                 .pair_count = rows * n,
                                 .slot_count = rows * n,
                                 .decode = decode,
                                 .shard_count = n };
    c->payload_size = (size_t)rows * HIDDEN * 4 + (size_t)rows * n * sizeof *pairs;
    c->payload = calloc(1, c->payload_size);
    c->shard = calloc(n, sizeof *c->shard);
    pairs = (struct expert_pair *)(void *)(c->payload + (size_t)rows * HIDDEN * 4);
    for (uint32_t s = 0; s < n; s++) {
        c->shard[s] = (uint16_t)(shards[s] - '0');
        for (uint32_t r = 0; r < rows; r++, at++)
            pairs[at] = (struct expert_pair){
                .row = (uint16_t)r, .slot = (uint16_t)at, .expert = c->shard[s] * 2u, .weight = 1
            };
    }
    return c;
}

/* Serves one piece of work: every value of slot i becomes i + base. */
static bool serve(struct exchange *ex, float base)
{
    struct exchange_work *work = exchange_work(ex);
    float *sums;

    if (!work)
        return false;
    sums = malloc(sizeof(float) * HIDDEN * work->slot_count);
    for (uint32_t i = 0; i < work->slot_count * HIDDEN; i++)
        sums[i] = base + (float)(i / HIDDEN);
    exchange_answer(ex, work, (uint8_t *)sums);
    free(sums);
    return true;
}

static float sum_of(const struct exchange_call *call, uint32_t slot)
{
    float value;

    memcpy(&value, call->sums + sizeof(float) * HIDDEN * slot, sizeof value);
    return value;
}

/* The way a row goes: to the holder of its shards and back, in two messages for both shards. */
static void test_rows_go_to_the_holder_and_sums_come_back(void **state)
{
    struct hall hall;
    struct exchange_call *call;

    (void)state;
    hall_open(&hall, 2, "0011");
    CHECK(exchange_holder(hall.worker[0], 0) == EXCHANGE_HERE && exchange_holder(hall.worker[0], 3) >= 0);
    call = call_new(3, "23", true);
    exchange_post(hall.worker[0], call);
    UNTIL(&hall, serve(hall.worker[1], 40));
    UNTIL(&hall, call->state == CALL_ANSWERED);
    CHECK(sum_of(call, 0) == 40 && sum_of(call, 5) == 45);
    CHECK(exchange_counts(hall.worker[0]).dispatches == 1 && exchange_counts(hall.worker[1]).served == 1);
    CHECK(exchange_counts(hall.worker[0]).decode_dispatches == 1);
    exchange_call_free(hall.worker[0], call);
    hall_close(&hall);
}

/* Without credit a fast caller would fill the memory of a slow holder. */
static void test_no_more_bytes_are_sent_than_the_window_allows(void **state)
{
    struct hall hall;
    struct exchange_call *call[12];
    int sent = 0, answered = 0;

    (void)state;
    hall_open(&hall, 2, "0011");
    for (int i = 0; i < 12; i++) {
        call[i] = call_new(700, "2", false); /* about 190 kB each: five fit into a megabyte */
        exchange_post(hall.worker[0], call[i]);
    }
    for (int i = 0; i < 50; i++) {
        turn(&hall);
        usleep(1000);
    }
    for (int i = 0; i < 12; i++)
        sent += call[i]->state == CALL_SENT;
    CHECK(sent == 5);
    UNTIL(&hall, (answered += serve(hall.worker[1], 1)) == 12);
    for (int i = 0; i < 12; i++)
        UNTIL(&hall, call[i]->state == CALL_ANSWERED);
    CHECK(exchange_counts(hall.worker[1]).over_window == 0);
    for (int i = 0; i < 12; i++)
        exchange_call_free(hall.worker[0], call[i]);
    hall_close(&hall);
}

/* One row of a generation must not wait behind a neighbour's prompt. */
static void test_decode_rows_overtake_prompts(void **state)
{
    struct hall hall;
    struct exchange_call *prompt[3], *decode;
    struct exchange_work *first;
    uint8_t *sums = calloc(700, HIDDEN * 4);

    (void)state;
    hall_open(&hall, 3, "0011");
    for (int i = 0; i < 3; i++)
        exchange_post(hall.worker[2], prompt[i] = call_new(700, "2", false));
    for (int i = 0; i < 3; i++)
        UNTIL(&hall, prompt[i]->state == CALL_SENT);
    exchange_post(hall.worker[0], decode = call_new(1, "2", true));
    UNTIL(&hall, decode->state == CALL_SENT);
    for (int i = 0; i < 50; i++) {
        turn(&hall);
        usleep(1000);
    }
    first = exchange_work(hall.worker[1]);
    CHECK(first && first->row_count == 1);
    exchange_answer(hall.worker[1], first, sums);
    UNTIL(&hall, decode->state == CALL_ANSWERED);
    for (int i = 0; i < 3; i++)
        exchange_call_free(hall.worker[2], prompt[i]);
    exchange_call_free(hall.worker[0], decode);
    free(sums);
    hall_close(&hall);
}

/* A holder that dies with calls unanswered must not take the rows with it: the same call goes to its
 * successor, and what was answered stays answered. */
static void test_calls_of_a_lost_holder_go_to_its_successor(void **state)
{
    struct hall hall;
    struct exchange_call *before, *lost;

    (void)state;
    hall_open(&hall, 2, "0011");
    before = call_new(2, "2", true);
    exchange_post(hall.worker[0], before);
    UNTIL(&hall, serve(hall.worker[1], 1));
    UNTIL(&hall, before->state == CALL_ANSWERED);
    lost = call_new(2, "23", true);
    exchange_post(hall.worker[0], lost);
    UNTIL(&hall, lost->state == CALL_SENT);
    CHECK(exchange_waiting_shard(hall.worker[0], clock_now_ms() + 1000, 500) == 2);

    exchange_free(hall.worker[1]); /* gone without a word */
    hall.worker[1] = NULL;
    deal(&hall, 2, "00--");
    CHECK(lost->state == CALL_WAITING);
    worker_new(&hall, 1, 999, 7);
    deal(&hall, 3, "0011");
    UNTIL(&hall, serve(hall.worker[1], 70));
    UNTIL(&hall, lost->state == CALL_ANSWERED);
    CHECK(sum_of(lost, 3) == 73 && sum_of(before, 1) == 2);
    CHECK(exchange_counts(hall.worker[0]).resent == 1 && exchange_counts(hall.worker[0]).dispatches == 2);
    CHECK(exchange_waiting_shard(hall.worker[0], clock_now_ms() + 1000, 500) == -1);
    exchange_call_free(hall.worker[0], before);
    exchange_call_free(hall.worker[0], lost);
    hall_close(&hall);
}

/* The next map may give a call's shards to different workers, or to the caller itself: then the caller
 * must build it anew, and may not wait for ever. */
static void test_a_call_whose_shards_part_ways_is_returned(void **state)
{
    struct hall hall;
    struct exchange_call *split, *own, *kept;

    (void)state;
    hall_open(&hall, 3, "0111");
    exchange_post(hall.worker[0], split = call_new(1, "12", true));
    exchange_post(hall.worker[0], own = call_new(1, "3", true));
    exchange_post(hall.worker[0], kept = call_new(1, "1", true));
    UNTIL(&hall, split->state == CALL_SENT && own->state == CALL_SENT && kept->state == CALL_SENT);
    deal(&hall, 2, "0120");
    CHECK(split->state == CALL_RETURNED && own->state == CALL_RETURNED && kept->state == CALL_SENT);
    exchange_call_free(hall.worker[0], split);
    exchange_call_free(hall.worker[0], own);
    exchange_call_free(hall.worker[0], kept);
    hall_close(&hall);
}

/* Maps do not reach all workers at once.  A call that comes where the shard is not yet (or no longer)
 * held is answered with a word, kept, and comes again. */
static void test_a_call_to_the_wrong_place_is_kept(void **state)
{
    struct hall hall;
    struct exchange_call *call;
    struct seat_map old;

    (void)state;
    hall_open(&hall, 2, "0001");
    old = hall.map;
    hall.map.seat = NULL;
    deal(&hall, 2, "0011"); /* both know */
    UNTIL(&hall, all_ready(&hall));
    exchange_map(hall.worker[1], &old); /* as if the second had not heard of it yet */
    exchange_post(hall.worker[0], call = call_new(1, "2", true));
    UNTIL(&hall, call->was_sent && call->state == CALL_WAITING);
    CHECK(!serve(hall.worker[1], 0));
    exchange_map(hall.worker[1], &hall.map);
    UNTIL(&hall, serve(hall.worker[1], 5));
    UNTIL(&hall, call->state == CALL_ANSWERED);
    exchange_call_free(hall.worker[0], call);
    free(old.seat);
    hall_close(&hall);
}

/* Sums of other weights would be plausible nonsense. */
static void test_a_worker_of_another_model_is_refused(void **state)
{
    struct hall hall = { .count = 2 };
    struct exchange_call *call;

    (void)state;
    worker_new(&hall, 0, 1, 7);
    worker_new(&hall, 1, 2, 8);
    deal(&hall, 1, "0011");
    exchange_post(hall.worker[0], call = call_new(1, "2", true));
    for (int i = 0; i < 100; i++) {
        turn(&hall);
        usleep(1000);
    }
    CHECK(!exchange_is_ready(hall.worker[0]) && call->state == CALL_WAITING);
    exchange_call_free(hall.worker[0], call);
    hall_close(&hall);
}

/* A stranger's frames on the same socket: counted, dropped, and the holder serves on. */
static void test_malformed_and_unmet_callers_hurt_nobody(void **state)
{
    struct hall hall;
    struct link *stranger;
    struct link_message message;
    struct exchange_call *call;
    struct err err;
    Moothall__Envelope envelope;
    Moothall__PeerHello hello = MOOTHALL__PEER_HELLO__INIT;
    Moothall__Dispatch dispatch = MOOTHALL__DISPATCH__INIT;
    uint8_t fingerprint[32], junk[HIDDEN * 4 + 12];
    char name[] = "stranger", family[] = "cpu";

    (void)state;
    memset(fingerprint, 7, 32);
    memset(junk, 0xff, sizeof junk);
    hall_open(&hall, 2, "0011");
    link_message_init(&message);
    CHECK(link_connect(&stranger, context, hall.name[1].endpoint, &err));
    dispatch.call = 1;
    dispatch.layer = 1;
    dispatch.row_count = dispatch.pair_count = dispatch.slot_count = 1;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_DISPATCH, &dispatch, 1);
    UNTIL(&hall, link_send(stranger, NULL, &envelope, span_of(junk, sizeof junk)) == LINK_SENT);
    UNTIL(&hall, link_receive(stranger, &message));
    CHECK(message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL);
    CHECK(message.envelope->refusal->code == MOOTHALL__REFUSAL_CODE__NEED_HELLO);

    hello.name = name;
    hello.family = family;
    hello.fingerprint.data = fingerprint;
    hello.fingerprint.len = 32;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_PEER_HELLO, &hello, 1);
    CHECK(link_send(stranger, NULL, &envelope, (struct span){ 0 }) == LINK_SENT);
    UNTIL(&hall, link_receive(stranger, &message));
    CHECK(message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_PEER_WELCOME);
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_DISPATCH, &dispatch, 1);
    CHECK(link_send(stranger, NULL, &envelope, span_of(junk, sizeof junk)) == LINK_SENT);
    UNTIL(&hall, exchange_counts(hall.worker[1]).malformed == 1);

    exchange_post(hall.worker[0], call = call_new(1, "3", true));
    UNTIL(&hall, serve(hall.worker[1], 2));
    UNTIL(&hall, call->state == CALL_ANSWERED);
    exchange_call_free(hall.worker[0], call);
    link_message_fini(&message);
    link_free(stranger);
    hall_close(&hall);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_go_to_the_holder_and_sums_come_back),
        cmocka_unit_test(test_no_more_bytes_are_sent_than_the_window_allows),
        cmocka_unit_test(test_decode_rows_overtake_prompts),
        cmocka_unit_test(test_calls_of_a_lost_holder_go_to_its_successor),
        cmocka_unit_test(test_a_call_whose_shards_part_ways_is_returned),
        cmocka_unit_test(test_a_call_to_the_wrong_place_is_kept),
        cmocka_unit_test(test_a_worker_of_another_model_is_refused),
        cmocka_unit_test(test_malformed_and_unmet_callers_hurt_nobody),
    };
    int rc;

    if (!mkdtemp(directory))
        return 1;
    context = link_context_new();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    link_context_free(context);
    for (int i = 0; i < endpoints; i++) {
        char path[128];

        snprintf(path, sizeof path, "%s/%d", directory, i);
        unlink(path);
    }
    rmdir(directory);
    return rc;
}
