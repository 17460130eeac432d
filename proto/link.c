#include "proto/link.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/log.h"
#include "proto/frame.h"

enum {
    HIGH_WATER = 16384,      /* messages; above every credit window, so reaching it means a dead reader */
    RECEIVE_HIGH_WATER = 1024, /* then the sender is held back: what one peer can pile up here is bounded */
    LINGER_MS = 200,
    RECONNECT_MS = 50,
    RECONNECT_MAX_MS = 2000,
    HANDSHAKE_MS = 3000,
    HEARTBEAT_MS = 5000,     /* libzmq's own: finds dead TCP, not dead programs */
    HEARTBEAT_TIMEOUT_MS = 15000,
    WAIT_MAX = 320,
    FAULTS = 1024,
};

struct link {
    void *socket;
    bool router;
    char endpoint[LINK_ENDPOINT_MAX];
    struct link_counts counts;
    uint8_t fault_seen[FAULTS / 8]; /* which (peer, kind) were logged: a small hash, once is enough */
    uint8_t *scratch;
};

/* libzmq's context is the process's handle; ours is the same pointer under a type of our own. */
struct link_context *link_context_new(void)
{
    void *context = zmq_ctx_new();

    if (!context) {
        log_error("link.context", "reason=\"%s\"", zmq_strerror(errno));
        abort();
    }
    return context;
}

void link_context_free(struct link_context *context)
{
    if (!context)
        return;
    while (zmq_ctx_term(context) != 0 && errno == EINTR)
        ;
}

void link_message_init(struct link_message *message)
{
    memset(message, 0, sizeof *message);
    arena_init(&message->arena, FRAME_UNPACKED_MAX);
    message->arena.block_first = FRAME_FIRST_BLOCK;
    message->frame = malloc(sizeof(zmq_msg_t));
    if (!message->frame)
        abort();
    zmq_msg_init(message->frame);
}

void link_message_fini(struct link_message *message)
{
    if (!message->frame)
        return;
    zmq_msg_close(message->frame);
    free(message->frame);
    arena_fini(&message->arena);
    memset(message, 0, sizeof *message);
}

static void set(void *socket, int option, int value)
{
    int rc = zmq_setsockopt(socket, option, &value, sizeof value);

    assert(rc == 0);
    (void)rc;
}

static struct link *link_new(struct link_context *context, const char *endpoint, bool router, struct err *err)
{
    struct link *link = calloc(1, sizeof *link);
    int64_t size_max = LINK_PAYLOAD_MAX + LINK_ENVELOPE_MAX;

    if (link)
        link->scratch = malloc(LINK_ENVELOPE_MAX);
    if (!link || !link->scratch) {
        free(link);
        err_set(err, ERR_IO, "no memory for a socket");
        return NULL;
    }
    link->router = router;
    link->socket = zmq_socket(context, router ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!link->socket) {
        err_set(err, ERR_IO, "make a socket: %s", zmq_strerror(errno));
        free(link->scratch);
        free(link);
        return NULL;
    }
    set(link->socket, ZMQ_SNDHWM, HIGH_WATER);
    set(link->socket, ZMQ_RCVHWM, RECEIVE_HIGH_WATER);
    set(link->socket, ZMQ_LINGER, LINGER_MS);
    set(link->socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set(link->socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set(link->socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS);
    set(link->socket, ZMQ_IPV6, strchr(endpoint, '[') != NULL);
    zmq_setsockopt(link->socket, ZMQ_MAXMSGSIZE, &size_max, sizeof size_max);
    if (router) {
        set(link->socket, ZMQ_ROUTER_MANDATORY, 1);
        set(link->socket, ZMQ_BACKLOG, 1024);
    } else {
        set(link->socket, ZMQ_IMMEDIATE, 1); /* nothing waits for a peer that is not there and arrives stale */
        set(link->socket, ZMQ_RECONNECT_IVL, RECONNECT_MS);
        set(link->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    }
    return link;
}

/* ---- endpoints ----------------------------------------------------------------------------- */

/* A namespace of the process's own: nothing outside the tests can reach a socket in it. */
static bool in_test_namespace(void)
{
    const char *asked = getenv("MOOTHALL_TEST_NETNS");
    char own[64], init[64];
    ssize_t a, b;

    if (!asked || strcmp(asked, "1") != 0)
        return false;
    a = readlink("/proc/self/ns/net", own, sizeof own);
    b = readlink("/proc/1/ns/net", init, sizeof init);
    return a > 0 && b > 0 && (a != b || memcmp(own, init, (size_t)a) != 0);
}

/* The host and port of tcp://host:port, host without its brackets. */
static bool split_tcp(const char *endpoint, char *host, size_t host_size, const char **port)
{
    const char *at = endpoint + strlen("tcp://"), *colon = strrchr(at, ':');
    size_t n;

    if (!colon || colon == at || !colon[1])
        return false;
    n = (size_t)(colon - at);
    if (*at == '[' && n >= 2 && at[n - 1] == ']') {
        at++;
        n -= 2;
    }
    if (n == 0 || n >= host_size)
        return false;
    memcpy(host, at, n);
    host[n] = '\0';
    *port = colon + 1;
    return true;
}

static bool port_is_good(const char *port, bool bind)
{
    char *end;
    long n;

    if (bind && !strcmp(port, "*"))
        return true;
    n = strtol(port, &end, 10);
    return *port >= '0' && *port <= '9' && *end == '\0' && n >= (bind ? 0 : 1) && n <= 65535;
}

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (!strcmp(host, "localhost"))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* libzmq unlinks whatever stands at an ipc path before it binds; a live socket there is somebody's. */
static bool ipc_is_taken(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool taken;

    if (fd < 0)
        return false;
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    taken = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return taken;
}

static bool check_endpoint(const char *endpoint, bool bind, struct err *err)
{
    char host[128];
    const char *port;

    if (strlen(endpoint) >= LINK_ENDPOINT_MAX)
        return err_set(err, ERR_INPUT, "endpoint is longer than %d bytes", LINK_ENDPOINT_MAX - 1);
    if (!strncmp(endpoint, "ipc://", 6)) {
        struct sockaddr_un address;

        if (!endpoint[6])
            return err_set(err, ERR_INPUT, "endpoint `%s` has no path", endpoint);
        if (strlen(endpoint + 6) >= sizeof address.sun_path)
            return err_set(err, ERR_INPUT, "endpoint `%s`: a socket's path has at most %zu bytes, this has %zu", endpoint,
                           sizeof address.sun_path - 1, strlen(endpoint + 6));
        if (bind && ipc_is_taken(endpoint + 6))
            return err_set(err, ERR_BUSY, "endpoint `%s` is in use by another process", endpoint);
        return true;
    }
    if (!strncmp(endpoint, "inproc://", 9) && endpoint[9])
        return true;
    if (strncmp(endpoint, "tcp://", 6) != 0 || !split_tcp(endpoint, host, sizeof host, &port) || !port_is_good(port, bind))
        return err_set(err, ERR_INPUT, "endpoint `%s` is not understood; expected ipc:///path or tcp://host:port", endpoint);
    if (bind && !is_loopback(host) && !in_test_namespace())
        return err_set(err, ERR_REFUSED,
                       "endpoint `%s`: links are not encrypted yet, so only ipc and loopback addresses (127.0.0.1, [::1]) may be bound",
                       endpoint);
    return true;
}

bool link_bind(struct link **out, struct link_context *context, const char *endpoint, struct err *err)
{
    static const char localhost[] = "tcp://localhost:";
    char numeric[LINK_ENDPOINT_MAX];
    struct link *link;
    size_t size;

    *out = NULL;
    if (!check_endpoint(endpoint, true, err))
        return false;
    if (!strncmp(endpoint, localhost, strlen(localhost))) {
        /* libzmq binds addresses and interfaces, and takes no name. */
        snprintf(numeric, sizeof numeric, "tcp://127.0.0.1:%s", endpoint + strlen(localhost));
        endpoint = numeric;
    }
    link = link_new(context, endpoint, true, err);
    if (!link)
        return false;
    size = sizeof link->endpoint;
    if (zmq_bind(link->socket, endpoint) != 0 ||
        zmq_getsockopt(link->socket, ZMQ_LAST_ENDPOINT, link->endpoint, &size) != 0) {
        if (errno == EADDRINUSE)
            err_set(err, ERR_BUSY, "endpoint `%s` is in use by another process", endpoint);
        else
            err_set(err, ERR_IO, "bind `%s`: %s", endpoint, zmq_strerror(errno));
        link_free(link);
        return false;
    }
    *out = link;
    return true;
}

bool link_connect(struct link **out, struct link_context *context, const char *endpoint, struct err *err)
{
    struct link *link;

    *out = NULL;
    if (!check_endpoint(endpoint, false, err))
        return false;
    link = link_new(context, endpoint, false, err);
    if (!link)
        return false;
    if (zmq_connect(link->socket, endpoint) != 0) {
        err_set(err, ERR_INPUT, "connect to `%s`: %s", endpoint, zmq_strerror(errno));
        link_free(link);
        return false;
    }
    snprintf(link->endpoint, sizeof link->endpoint, "%s", endpoint);
    *out = link;
    return true;
}

void link_free(struct link *link)
{
    if (!link)
        return;
    zmq_close(link->socket);
    free(link->scratch);
    free(link);
}

const char *link_endpoint(const struct link *link)
{
    return link->endpoint;
}

struct link_counts link_counts(const struct link *link)
{
    return link->counts;
}

/* ---- sending ------------------------------------------------------------------------------- */

void link_envelope(Moothall__Envelope *envelope, Moothall__Envelope__BodyCase kind, void *body, uint64_t correlation)
{
    moothall__envelope__init(envelope);
    envelope->correlation = correlation;
    envelope->body_case = kind;
    envelope->hello = body; /* every member of the union is a pointer to a message */
}

enum link_sent link_send(struct link *link, const struct link_peer *peer, Moothall__Envelope *envelope, struct span payload)
{
    size_t size;

    assert(link->router == (peer != NULL));
    assert(payload.size <= LINK_PAYLOAD_MAX);
    envelope->major = FRAME_MAJOR;
    envelope->payload_size = (uint32_t)payload.size;
    envelope->payload_crc32c = payload.size ? span_crc32c(0, payload) : 0;
    size = moothall__envelope__get_packed_size(envelope);
    assert(size <= LINK_ENVELOPE_MAX);
    moothall__envelope__pack(envelope, link->scratch);

    /* Only the first frame can fail for want of a peer or of room: libzmq takes a message whole. */
    if (peer && zmq_send(link->socket, peer->id, peer->size, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return LINK_LOST;
    if (zmq_send(link->socket, link->scratch, size, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return LINK_LOST;
    if (zmq_send(link->socket, payload.data, payload.size, ZMQ_DONTWAIT) < 0)
        return LINK_LOST;
    link->counts.sent++;
    link->counts.bytes_sent += size + payload.size;
    return LINK_SENT;
}

/* ---- receiving ----------------------------------------------------------------------------- */

static void count_malformed(struct link *link, const struct link_peer *peer, const char *fault)
{
    uint32_t slot = span_crc32c(span_crc32c(0, span_text(fault)), span_of(peer->id, peer->size)) % FAULTS;

    link->counts.malformed++;
    if (link->fault_seen[slot / 8] & (1 << slot % 8))
        return;
    link->fault_seen[slot / 8] |= (uint8_t)(1 << slot % 8);
    log_warn("link.malformed", "endpoint=%s fault=\"%s\"", link->endpoint, fault);
}

static bool has_more(void *socket)
{
    int more = 0;
    size_t size = sizeof more;

    zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    return more;
}

/* Reads one whole message; NULL when it is good, "" when there was none, else what is wrong with it. */
static const char *receive(struct link *link, struct link_message *message)
{
    const char *fault = NULL;
    zmq_msg_t envelope;
    zmq_msg_t *payload = message->frame;

    message->peer.size = 0;
    if (link->router) {
        uint8_t id[256];
        int n = zmq_recv(link->socket, id, sizeof id, ZMQ_DONTWAIT);

        if (n < 0)
            return "";
        if (n > LINK_PEER_ID_MAX) { /* ours are chosen by the ROUTER and have 5 bytes */
            fault = "routing id too long";
        } else {
            memcpy(message->peer.id, id, (size_t)n);
            message->peer.size = (uint8_t)n;
        }
        if (!has_more(link->socket))
            return "no frames";
    }
    zmq_msg_init(&envelope);
    if (zmq_msg_recv(&envelope, link->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&envelope);
        return "";
    }
    link->counts.bytes_received += zmq_msg_size(&envelope);
    if (!has_more(link->socket)) {
        fault = "one frame, expected two";
    } else {
        zmq_msg_recv(payload, link->socket, ZMQ_DONTWAIT);
        link->counts.bytes_received += zmq_msg_size(payload);
        if (has_more(link->socket)) {
            zmq_msg_t extra;

            fault = "more than two frames";
            zmq_msg_init(&extra);
            do
                zmq_msg_recv(&extra, link->socket, ZMQ_DONTWAIT);
            while (has_more(link->socket));
            zmq_msg_close(&extra);
        }
    }
    if (!fault && zmq_msg_size(&envelope) > LINK_ENVELOPE_MAX)
        fault = "envelope over 64 KiB";
    if (!fault) {
        message->envelope = frame_unpack(&message->arena, span_of(zmq_msg_data(&envelope), zmq_msg_size(&envelope)), &fault);
        message->payload = span_of(zmq_msg_data(payload), zmq_msg_size(payload));
    }
    if (!fault && message->envelope->payload_size != message->payload.size)
        fault = "payload of another size than announced";
    if (!fault && message->payload.size && message->envelope->payload_crc32c != span_crc32c(0, message->payload))
        fault = "payload checksum differs";
    zmq_msg_close(&envelope);
    return fault;
}

bool link_receive(struct link *link, struct link_message *message)
{
    for (;;) {
        const char *fault;

        arena_reset(&message->arena);
        message->envelope = NULL;
        message->payload = (struct span){ 0 };
        fault = receive(link, message);
        if (!fault) {
            link->counts.received++;
            return true;
        }
        if (!*fault)
            return false;
        count_malformed(link, &message->peer, fault);
    }
}

bool link_wait(struct link *const *links, int link_count, const int *fds, int fd_count, int timeout_ms, bool *ready)
{
    zmq_pollitem_t item[WAIT_MAX];
    int n = 0, rc;

    assert(link_count + fd_count <= WAIT_MAX);
    for (int i = 0; i < link_count; i++)
        item[n++] = (zmq_pollitem_t){ .socket = links[i]->socket, .events = ZMQ_POLLIN };
    for (int i = 0; i < fd_count; i++)
        item[n++] = (zmq_pollitem_t){ .fd = fds[i], .events = ZMQ_POLLIN };
    rc = zmq_poll(item, n, timeout_ms);
    for (int i = 0; ready && i < n; i++)
        ready[i] = rc > 0 && (item[i].revents & (ZMQ_POLLIN | ZMQ_POLLERR));
    return rc > 0;
}
