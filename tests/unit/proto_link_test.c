/* The link: what arrives whole is delivered, what is malformed never reaches the caller. */

#include "proto/frame.h"
#include "proto/link.h"
#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>
#include <zmq.h>

static struct link_context *context;

static bool receive(struct link *link, struct link_message *message)
{
    for (int i = 0; i < 20; i++) { /* what arrives first may all be malformed */
        if (link_receive(link, message))
            return true;
        link_wait(&link, 1, NULL, 0, 100, NULL);
    }
    return false;
}

/* The connection is made in the background. */
static void send_when_connected(struct link *link, Moothall__Envelope *envelope, struct span payload)
{
    for (int i = 0; i < 400; i++) {
        if (link_send(link, NULL, envelope, payload) == LINK_SENT)
            return;
        usleep(5000);
    }
    fail_msg("never connected");
}

static void test_a_message_and_its_answer_cross(void **state)
{
    struct link *hall, *seat;
    struct link_message got, answer;
    Moothall__Envelope e;
    Moothall__Submit submit = MOOTHALL__SUBMIT__INIT;
    Moothall__Pong pong = MOOTHALL__PONG__INIT;
    struct err err;

    (void)state;
    link_message_init(&got);
    link_message_init(&answer);
    CHECK(link_bind(&hall, context, "tcp://127.0.0.1:*", &err));
    CHECK(link_connect(&seat, context, link_endpoint(hall), &err));
    submit.queue = (char[]){ "nightly" };
    submit.batch_total = 7;
    link_envelope(&e, MOOTHALL__ENVELOPE__BODY_SUBMIT, &submit, 42);
    send_when_connected(seat, &e, span_text("payload"));
    CHECK(receive(hall, &got));
    CHECK(got.envelope->body_case == MOOTHALL__ENVELOPE__BODY_SUBMIT);
    CHECK(got.envelope->correlation == 42);
    assert_string_equal(got.envelope->submit->queue, "nightly");
    CHECK(got.envelope->submit->batch_total == 7);
    CHECK(span_equal(got.payload, span_text("payload")));
    CHECK(got.peer.size > 0);

    link_envelope(&e, MOOTHALL__ENVELOPE__BODY_PONG, &pong, 42);
    CHECK(link_send(hall, &got.peer, &e, span_text("")) == LINK_SENT);
    CHECK(receive(seat, &answer));
    CHECK(answer.envelope->body_case == MOOTHALL__ENVELOPE__BODY_PONG);
    CHECK(answer.payload.size == 0);

    /* A peer that is gone is noticed when it is written to. */
    link_free(seat);
    for (int i = 0; i < 400 && link_send(hall, &got.peer, &e, span_text("")) == LINK_SENT; i++)
        usleep(5000);
    CHECK(link_send(hall, &got.peer, &e, span_text("")) == LINK_LOST);
    link_message_fini(&got);
    link_message_fini(&answer);
    link_free(hall);
}

/* Raw frames from a peer that does not follow the protocol; the last, good one is all that arrives. */
static void test_malformed_messages_are_counted_and_dropped(void **state)
{
    struct link *hall;
    struct link_message got;
    struct err err;
    void *raw = zmq_socket(context, ZMQ_DEALER);
    Moothall__Envelope e;
    Moothall__Ping ping = MOOTHALL__PING__INIT;
    uint8_t good[256];
    size_t size;
    uint8_t *big = calloc(1, LINK_ENVELOPE_MAX + 1);

    (void)state;
    link_message_init(&got);
    CHECK(link_bind(&hall, context, "tcp://127.0.0.1:*", &err));
    CHECK(zmq_connect(raw, link_endpoint(hall)) == 0);
    link_envelope(&e, MOOTHALL__ENVELOPE__BODY_PING, &ping, 1);
    e.major = 1;
    size = moothall__envelope__pack(&e, good);

    zmq_send(raw, good, size, 0); /* one frame */
    zmq_send(raw, good, size, ZMQ_SNDMORE), zmq_send(raw, "", 0, ZMQ_SNDMORE), zmq_send(raw, "", 0, 0); /* three */
    zmq_send(raw, "\xff\xff\xff", 3, ZMQ_SNDMORE), zmq_send(raw, "", 0, 0);   /* no protobuf */
    zmq_send(raw, big, LINK_ENVELOPE_MAX + 1, ZMQ_SNDMORE), zmq_send(raw, "", 0, 0);
    zmq_send(raw, good, size, ZMQ_SNDMORE), zmq_send(raw, "x", 1, 0);         /* unannounced payload */
    e.payload_size = 1;
    e.payload_crc32c = 1;
    size = moothall__envelope__pack(&e, good);
    zmq_send(raw, good, size, ZMQ_SNDMORE), zmq_send(raw, "x", 1, 0);         /* wrong checksum */
    e.payload_size = 0;
    e.payload_crc32c = 0;
    e.major = 2;
    size = moothall__envelope__pack(&e, good);
    zmq_send(raw, good, size, ZMQ_SNDMORE), zmq_send(raw, "", 0, 0);
    e.major = 1;
    e.correlation = 77;
    size = moothall__envelope__pack(&e, good);
    zmq_send(raw, good, size, ZMQ_SNDMORE), zmq_send(raw, "", 0, 0);

    CHECK(receive(hall, &got));
    CHECK(got.envelope->correlation == 77);
    CHECK(link_counts(hall).malformed == 7);
    CHECK(link_counts(hall).received == 1);
    free(big);
    zmq_close(raw);
    link_message_fini(&got);
    link_free(hall);
}

static void test_frames_that_would_harm_the_unpacker_are_refused(void **state)
{
    const ProtobufCMessageDescriptor *type = &moothall__envelope__descriptor;
    struct buf many = { 0 };
    uint8_t nested[3 * 200];

    (void)state;
    /* Submit (20) with 5,000 empty jobs (5): 2 bytes each. */
    for (int i = 0; i < 5000; i++)
        CHECK(buf_add(&many, "\x2a\x00", 2));
    {
        struct buf frame = { 0 };

        CHECK(buf_add(&frame, "\x08\x01\xa2\x01\x90\x4e", 6)); /* major 1; field 20, 10,000 bytes */
        CHECK(buf_add(&frame, many.data, many.size));
        assert_string_equal(frame_check(type, buf_span(&frame)), "too many of a repeated field");
        buf_fini(&frame);
    }
    buf_fini(&many);
    /* A packed list counts its elements: Heartbeat (44) with 6,000 fences in one field. */
    {
        struct buf frame = { 0 };

        CHECK(buf_add(&frame, "\xe2\x02\xf3\x2e\x0a\xf0\x2e", 7));
        for (int i = 0; i < 6000; i++)
            CHECK(buf_add(&frame, "\x01", 1));
        assert_string_equal(frame_check(type, buf_span(&frame)), "too many of a repeated field");
        buf_fini(&frame);
    }
    assert_string_equal(frame_check(type, span_of("\xa2\x01\x05\x0a\x03\x61\x00\x62", 8)), "text that is not UTF-8 or holds U+0000");
    assert_string_equal(frame_check(type, span_of("\xa2\x01\x05\x0a\x03\x61\xff\x62", 8)), "text that is not UTF-8 or holds U+0000");
    assert_string_equal(frame_check(type, span_of("\xa2\x01\x7f\x0a", 4)), "cut short");
    assert_string_equal(frame_check(type, span_of("\x07", 1)), "broken field tag");
    memset(nested, 0x7a, sizeof nested);
    CHECK(frame_check(type, span_of(nested, sizeof nested)) != NULL);
}

/* The walk above holds its promise only while no type can contain itself and every type fits its table. */
static int depth_of(const ProtobufCMessageDescriptor *type, int level)
{
    int deepest = level;

    CHECK(level <= FRAME_DEPTH_MAX);
    CHECK(type->n_fields <= 64);
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
            int d = depth_of(type->fields[i].descriptor, level + 1);

            deepest = d > deepest ? d : deepest;
        }
    return deepest;
}

static void test_no_message_type_is_recursive(void **state)
{
    (void)state;
    CHECK(depth_of(&moothall__envelope__descriptor, 1) <= FRAME_DEPTH_MAX);
}

static void test_endpoints_that_are_refused_say_why(void **state)
{
    static const struct {
        const char *endpoint, *says;
    } table[] = {
        { "tcp://0.0.0.0:7500", "only ipc and loopback" }, { "tcp://*:7500", "only ipc and loopback" },
        { "tcp://10.1.2.3:7500", "only ipc and loopback" }, { "tcp://[::]:7500", "only ipc and loopback" },
        { "tcp://example.org:1", "only ipc and loopback" }, { "tcp://127.0.0.1", "not understood" },
        { "tcp://127.0.0.1:99999", "not understood" },      { "tcp://127.0.0.1:x", "not understood" },
        { "http://127.0.0.1:80", "not understood" },        { "ipc://", "no path" },
        { "ipc:///tmp/a-directory-with-a-name-that-is-far-too-long/so-that-the-whole-path-does-not-fit-the-hundred-and-seven-bytes", "at most 107 bytes" },
        { "ipc:///nonexistent-directory/socket", "bind `ipc:///nonexistent-directory/socket`" },
    };
    struct link *link;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(!link_bind(&link, context, table[i].endpoint, &err));
        if (!strstr(err.text, table[i].says))
            fail_msg("%s: %s", table[i].endpoint, err.text);
        CHECK(!link);
    }
}

static void test_an_endpoint_in_use_is_named(void **state)
{
    struct link *first, *second;
    struct err err;
    char path[64];

    (void)state;
    CHECK(link_bind(&first, context, "tcp://127.0.0.1:*", &err));
    CHECK(!link_bind(&second, context, link_endpoint(first), &err));
    CHECK(strstr(err.text, link_endpoint(first)) && strstr(err.text, "in use"));
    link_free(first);
    snprintf(path, sizeof path, "ipc:///tmp/moothall-link-test-%d", (int)getpid());
    CHECK(link_bind(&first, context, path, &err));
    CHECK(!link_bind(&second, context, path, &err));
    CHECK(strstr(err.text, "in use"));
    link_free(first);
    unlink(path + 6);
}

static int begin(void **state)
{
    (void)state;
    context = link_context_new();
    return 0;
}

static int end(void **state)
{
    (void)state;
    link_context_free(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_and_its_answer_cross),
        cmocka_unit_test(test_malformed_messages_are_counted_and_dropped),
        cmocka_unit_test(test_frames_that_would_harm_the_unpacker_are_refused),
        cmocka_unit_test(test_no_message_type_is_recursive),
        cmocka_unit_test(test_endpoints_that_are_refused_say_why),
        cmocka_unit_test(test_an_endpoint_in_use_is_named),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
