/* A real broker, a real file, and what can happen to both. */

#include "tests/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/store/peer.h"

static const Moothall__SubmitMode NEW = MOOTHALL__SUBMIT_MODE__NEW;
static char directory[256];

static const char *path_of(const char *name)
{
    static char path[8][512];
    static int n;
    char *p = path[n++ % 8];

    snprintf(p, 512, "%s/%s", directory, name);
    return p;
}

static void empty(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    while (d && (entry = readdir(d))) {
        char path[1024];

        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
}

static int set_up(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(directory, sizeof directory, "%s/moothall-store-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(directory) ? 0 : 1;
}

static int tear_down(void **state)
{
    static const char *const disks[] = { "disk", "full" };

    (void)state;
    for (int i = 0; i < 2; i++) { /* of a test that failed */
        umount2(path_of(disks[i]), MNT_DETACH);
        rmdir(path_of(disks[i]));
    }
    empty(directory);
    rmdir(directory);
    return 0;
}

/* A store with three jobs, one of them done, closed again. */
static void make_store(const char *path)
{
    struct broker broker;
    struct peer client, worker;
    Moothall__Result m = MOOTHALL__RESULT__INIT;
    char job[65];
    int status;

    CHECK(broker_start(&broker, path, NULL, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    for (uint32_t i = 0; i < 3; i++) {
        char id[4];

        snprintf(id, sizeof id, "j%u", i);
        CHECK(peer_submit(&client, "b", 3, id, i, NEW, "a request that can be found in the file") ==
              MOOTHALL__ACCEPTANCE__ACCEPTED);
    }
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 1));
    CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 10000));
    snprintf(job, sizeof job, "%s", worker.message.envelope->lease->job);
    m.job = job;
    m.generation = 1;
    m.fence = worker.message.envelope->lease->fence;
    m.outcome = MOOTHALL__OUTCOME__FINISHED;
    CHECK(peer_send(&worker, MOOTHALL__ENVELOPE__BODY_RESULT, &m,
                    span_text("a result that can be found in the file")));
    CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_STORED, 10000));
    peer_close(&worker);
    peer_close(&client);
    assert_int_equal(broker_stop(&broker), 0);
}

static void expect_refusal(const char *path, const char *words)
{
    struct broker broker;
    int status = 0;

    CHECK(!broker_start(&broker, path, NULL, &status));
    assert_int_equal(status, 1);
    if (!strstr(broker.last_words, words) || !strstr(broker.last_words, path) ||
        strncmp(broker.last_words, "moothall-broker: ", 17) != 0)
        fail_msg("said `%s`, expected `%s`", broker.last_words, words);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    size_t n;

    CHECK(in && out);
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0)
        CHECK(fwrite(buffer, 1, n, out) == n);
    fclose(in);
    CHECK(fclose(out) == 0);
}

static void poke(const char *path, off_t at, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY);

    CHECK(fd >= 0 && pwrite(fd, bytes, size, at) == (ssize_t)size);
    close(fd);
}

/* ---- acknowledged means on disk ---- */

/* Without waiting for the answer, and without trying again.  False when the connection is gone. */
static bool try_submit(struct peer *client, uint32_t position)
{
    Moothall__Envelope envelope;
    Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT, *jobs[1] = { &job };
    static char queue[] = "q", batch[] = "b";
    char id[16];

    snprintf(id, sizeof id, "p%u", position);
    job.id = id;
    job.position = position;
    job.size = 7;
    m.queue = queue;
    m.batch = batch;
    m.batch_total = 1000000;
    m.job = jobs;
    m.n_job = 1;
    link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, ++client->correlation);
    return link_send(client->link, NULL, &envelope, span_text("request")) == LINK_SENT;
}

static void send_submit(struct peer *client, uint32_t position)
{
    CHECK(try_submit(client, position));
}

/* Twenty times the broker is killed while a client submits; what it had acknowledged is there each time. */
static void test_nothing_acknowledged_is_lost_when_the_broker_is_killed(void **state)
{
    enum { ROUNDS = 20, IN_FLIGHT = 16 };
    const char *store = path_of("killed.db");
    uint32_t position = 0, acknowledged = 0;
    uint64_t random = 99;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct broker broker;
        struct peer client;
        Moothall__Audit audit;
        int64_t until;
        int status;

        CHECK(broker_start(&broker, store, NULL, &status));
        CHECK(peer_client(&client, broker.endpoint, "c"));
        random = random * 6364136223846793005u + 1442695040888963407u;
        until = clock_now_ms() + 20 + (int64_t)(random >> 33) % 180;
        for (int k = 0; k < IN_FLIGHT; k++)
            send_submit(&client, position++);
        while (clock_now_ms() < until)
            if (peer_receive(&client, 5) &&
                client.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED) {
                CHECK(client.message.envelope->submitted->acceptance[0] == MOOTHALL__ACCEPTANCE__ACCEPTED);
                acknowledged++;
                send_submit(&client, position++);
            }
        broker_kill(&broker);
        /* What the socket still holds was acknowledged too. */
        while (peer_receive(&client, 0))
            acknowledged += client.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED;
        peer_close(&client);

        CHECK(broker_start(&broker, store, NULL, &status));
        CHECK(peer_client(&client, broker.endpoint, "c"));
        CHECK(peer_audit(&client, &audit));
        CHECK(audit.missing == 0 && audit.doubled == 0 && audit.corrupt == 0 && audit.holes == 0);
        if (audit.jobs < acknowledged || audit.jobs > position)
            fail_msg("round %d: %" PRIu64 " jobs are stored, %u were acknowledged, %u sent", round,
                     audit.jobs, acknowledged, position);
        peer_close(&client);
        broker_kill(&broker);
    }
    CHECK(acknowledged > ROUNDS);
}

/* What has arrived is committed together: two hundred jobs are not two hundred transactions.  Each of those
 * would write at least one page of every table and index it touches into the log. */
static void test_commits_are_grouped(void **state)
{
    enum { JOBS = 200, PAGE = 4096 };
    struct broker broker;
    struct peer client;
    struct stat before, after;
    int status, answered = 0;

    (void)state;
    CHECK(broker_start(&broker, path_of("group.db"), NULL, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(stat(path_of("group.db-wal"), &before) == 0);
    kill(broker.pid, SIGSTOP); /* everything arrives before the broker looks */
    for (uint32_t i = 0; i < JOBS; i++)
        send_submit(&client, i);
    usleep(200000);
    kill(broker.pid, SIGCONT);
    while (answered < JOBS && peer_receive(&client, 5000))
        answered += client.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED;
    assert_int_equal(answered, JOBS);
    CHECK(stat(path_of("group.db-wal"), &after) == 0);
    CHECK(after.st_size - before.st_size < JOBS * PAGE);
    peer_close(&client);
    assert_int_equal(broker_stop(&broker), 0);
}

static const char *shim(void)
{
    static char preload[600];
    const char *path = getenv("MOOTHALL_SYNC_SHIM");

    if (!path)
        return NULL;
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", path);
    return preload;
}

/* After a failed sync nothing that the system says of the file can be believed: the broker ends at once, in
 * one line, without acknowledging.  Whatever sync it was, the next broker has all that was acknowledged. */
static void test_failed_sync_ends_the_broker_without_a_false_answer(void **state)
{
    enum { LAST = 24 };
    int at_start = 0, later = 0;

    (void)state;
    if (!shim()) {
        printf("skip: MOOTHALL_SYNC_SHIM is not set\n");
        skip();
    }
    for (int n = 1; n <= LAST; n++) {
        char fail_at[32];
        const char *flags[] = { shim(), fail_at, "ASAN_OPTIONS=verify_asan_link_order=0", NULL };
        const char *store = path_of("eio.db");
        struct broker broker;
        struct peer client;
        Moothall__Audit audit;
        uint32_t acknowledged = 0;
        int status = 0;

        empty(directory);
        snprintf(fail_at, sizeof fail_at, "SYNC_FAIL_AT=%d", n);
        if (broker_start(&broker, store, flags, &status)) {
            CHECK(peer_client(&client, broker.endpoint, "c"));
            /* One after another, so that each is a transaction with its own sync. */
            while (acknowledged < 2 * LAST && try_submit(&client, acknowledged)) {
                siginfo_t dead = { 0 };
                bool answered = false;

                while (!dead.si_pid && !answered) {
                    answered = peer_receive(&client, 20);
                    waitid(P_PID, (id_t)broker.pid, &dead, WEXITED | WNOHANG | WNOWAIT);
                }
                if (!answered && !peer_receive(&client, 50))
                    break;
                CHECK(client.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_SUBMITTED);
                acknowledged++;
            }
            peer_close(&client);
            status = broker_wait(&broker);
            later++;
        } else {
            at_start++;
        }
        assert_int_equal(status, 1);
        if (!strstr(broker.last_words, "moothall-broker: store ") || !strstr(broker.last_words, store))
            fail_msg("sync %d: said `%s`", n, broker.last_words);
        if (broker_start(&broker, store, NULL, &status)) {
            CHECK(peer_client(&client, broker.endpoint, "c"));
            CHECK(peer_audit(&client, &audit));
            if (audit.jobs < acknowledged || audit.missing || audit.holes || audit.corrupt)
                fail_msg("sync %d: %u were acknowledged, %" PRIu64 " are there", n, acknowledged, audit.jobs);
            peer_close(&client);
            broker_kill(&broker);
        } else {
            fail_msg("sync %d: the store is lost: %s", n, broker.last_words);
        }
    }
    CHECK(at_start > 0 && later > 0);
}

/* Who asks without waiting for the Welcome is told so: a question is never met with silence. */
static void test_question_before_the_welcome_is_answered(void **state)
{
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    struct broker broker;
    struct peer first, peer;
    int status;

    (void)state;
    CHECK(broker_start(&broker, path_of("early.db"), NULL, &status));
    CHECK(peer_client(&first, broker.endpoint, "first"));
    hello.role = MOOTHALL__ROLE__CLIENT;
    hello.name = (char *)(uintptr_t)"hasty";
    for (int i = 0; i < 20; i++) {
        struct err err;

        memset(&peer, 0, sizeof peer);
        link_message_init(&peer.message);
        CHECK(link_connect(&peer.link, peer_context(), broker.endpoint, &err));
        CHECK(peer_send(&peer, MOOTHALL__ENVELOPE__BODY_HELLO, &hello, (struct span){ 0 }));
        CHECK(peer_ask(&peer, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, (struct span){ 0 }));
        CHECK(peer.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_STATUS ||
              (peer.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_REFUSAL &&
               peer.message.envelope->refusal->code == MOOTHALL__REFUSAL_CODE__NO_ROOM &&
               peer.message.envelope->refusal->retry_after_ms > 0));
        peer_close(&peer);
    }
    peer_close(&first);
    CHECK(broker_stop(&broker) == 0);
}

/* While the disk takes its time, workers are heard and answered, and their leases live on. */
static void test_heartbeats_do_not_wait_for_the_disk(void **state)
{
    char delay[640], stuck[600];
    const char *flags[] = { shim(),
                            delay,
                            "ASAN_OPTIONS=verify_asan_link_order=0",
                            "--workers=1",
                            "--heartbeat-ms=300ms",
                            "--lease-ms=1500ms",
                            NULL };
    Moothall__Heartbeat beat = MOOTHALL__HEARTBEAT__INIT;
    Moothall__Ping ping = MOOTHALL__PING__INIT;
    struct broker broker;
    struct peer client, worker;
    int64_t slowest = 0, until;
    uint64_t fence;
    int status, beats = 0;

    (void)state;
    if (!shim()) {
        printf("skip: MOOTHALL_SYNC_SHIM is not set\n");
        skip();
    }
    snprintf(stuck, sizeof stuck, "%s/stuck", directory);
    snprintf(delay, sizeof delay, "SYNC_DELAY=%s", stuck);
    CHECK(broker_start(&broker, path_of("slow.db"), flags, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(peer_submit(&client, "b", 10, "a", 0, NEW, "x") == MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 1));
    CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 10000));
    fence = worker.message.envelope->lease->fence;
    beat.held = &fence;
    beat.n_held = 1;
    fclose(fopen(stuck, "w"));
    send_submit(&client, 5);
    until = clock_now_ms() + 1800; /* the submit is in its sync all that time */
    while (clock_now_ms() < until) {
        int64_t sent = clock_now_ms(), took;

        CHECK(peer_send(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &beat, (struct span){ 0 }));
        CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY, 5000));
        took = clock_now_ms() - sent;
        if (took > slowest)
            slowest = took;
        CHECK(worker.message.envelope->heartbeat_reply->n_dropped == 0);
        CHECK(peer_send(&client, MOOTHALL__ENVELOPE__BODY_PING, &ping, (struct span){ 0 }));
        beats++;
        usleep(100000);
    }
    unlink(stuck);
    CHECK(peer_expect(&client, MOOTHALL__ENVELOPE__BODY_SUBMITTED, 10000));
    CHECK(beats >= 5 && slowest < 1000);
    /* And the lease is still the worker's when the core looks up again. */
    for (int i = 0; i < 5; i++) {
        CHECK(peer_send(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &beat, (struct span){ 0 }));
        CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT_REPLY, 5000));
        CHECK(worker.message.envelope->heartbeat_reply->n_dropped == 0);
        usleep(100000);
    }
    peer_close(&worker);
    peer_close(&client);
    broker_kill(&broker);
}

/* One clean file is left: no log beside it that somebody could forget to copy. */
static void test_broker_that_is_stopped_leaves_one_file(void **state)
{
    struct stat st;

    (void)state;
    make_store(path_of("clean.db"));
    CHECK(stat(path_of("clean.db"), &st) == 0);
    CHECK(stat(path_of("clean.db-wal"), &st) != 0 && errno == ENOENT);
}

/* Children of a `run` that was killed must not stay behind. */
static void test_broker_ends_when_its_control_pipe_closes(void **state)
{
    struct broker broker;
    char flag[32];
    const char *flags[] = { flag, NULL };
    int ends[2], status;

    (void)state;
    CHECK(pipe(ends) == 0);
    CHECK(fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0);
    snprintf(flag, sizeof flag, "--control-fd=%d", ends[0]);
    CHECK(broker_start(&broker, path_of("child.db"), flags, &status));
    usleep(100000);
    CHECK(kill(broker.pid, 0) == 0);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(broker_wait(&broker), 0);
}

static void test_peers_are_told_when_the_broker_stops(void **state)
{
    struct broker broker;
    struct peer client;
    int status;

    (void)state;
    CHECK(broker_start(&broker, path_of("told.db"), NULL, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    kill(broker.pid, SIGINT);
    CHECK(peer_expect(&client, MOOTHALL__ENVELOPE__BODY_REFUSAL, 5000));
    CHECK(client.message.envelope->refusal->code == MOOTHALL__REFUSAL_CODE__SHUTTING_DOWN);
    peer_close(&client);
    assert_int_equal(broker_wait(&broker), 0);
}

/* ---- files that are not what they should be ---- */

static void test_file_that_is_no_database_is_refused(void **state)
{
    const char *path = path_of("text.db");
    FILE *file = fopen(path, "w");

    (void)state;
    fputs("these are my notes, do not touch\n", file);
    fclose(file);
    expect_refusal(path, "is not a database; expected a Moothall store or a new name");
    /* And it is untouched. */
    {
        char text[64] = "";

        file = fopen(path, "r");
        CHECK(file && fgets(text, sizeof text, file));
        fclose(file);
        assert_string_equal(text, "these are my notes, do not touch\n");
    }
}

static void test_database_of_another_program_is_refused(void **state)
{
    const char *path = path_of("other.db");
    uint8_t none[4] = { 0 };

    (void)state;
    make_store(path);
    poke(path, 68, none, 4); /* the application id */
    expect_refusal(path, "belongs to another program; expected a Moothall store or a new name");
}

static void test_store_of_a_newer_version_is_refused(void **state)
{
    const char *path = path_of("newer.db");
    uint8_t version[4] = { 0, 0, 0, 99 };

    (void)state;
    make_store(path);
    poke(path, 60, version, 4); /* user_version */
    expect_refusal(path, "has format version 99; this program");
}

static void test_read_only_store_is_refused(void **state)
{
    const char *path = path_of("readonly.db");

    (void)state;
    make_store(path);
    CHECK(chmod(path, 0444) == 0);
    expect_refusal(path, "is read-only; expected a file that can be written");
    chmod(path, 0644);
}

static void test_truncated_store_is_refused(void **state)
{
    const char *path = path_of("short.db");
    struct stat st;

    (void)state;
    make_store(path);
    CHECK(stat(path, &st) == 0 && truncate(path, st.st_size / 2) == 0);
    expect_refusal(path, "is cut short: it has");
    CHECK(truncate(path, 50) == 0);
    expect_refusal(path, "is not a database");
}

static void test_store_that_cannot_be_made_is_refused(void **state)
{
    (void)state;
    expect_refusal(path_of("missing/hall.db"), "cannot be opened: No such file or directory");
    expect_refusal(directory, "is not a regular file");
}

static void test_second_broker_on_a_store_is_refused_and_told_of_the_first(void **state)
{
    const char *path = path_of("twice.db");
    struct broker first;
    char words[64];
    struct peer client;
    int status;

    (void)state;
    CHECK(broker_start(&first, path, NULL, &status));
    snprintf(words, sizeof words, "is in use by process %ld", (long)first.pid);
    expect_refusal(path, words);
    CHECK(peer_client(&client, first.endpoint, "c")); /* the first does not mind */
    CHECK(peer_submit(&client, "b", 1, "a", 0, NEW, "x") == MOOTHALL__ACCEPTANCE__ACCEPTED);
    peer_close(&client);
    expect_refusal(path, words);
    assert_int_equal(broker_stop(&first), 0);
}

static void test_port_in_use_is_refused_by_name(void **state)
{
    struct broker first, second;
    char flag[300];
    const char *flags[] = { flag, NULL };
    int status;

    (void)state;
    CHECK(broker_start(&first, path_of("port1.db"), NULL, &status));
    snprintf(flag, sizeof flag, "--listen=%s", first.endpoint);
    CHECK(!broker_start(&second, path_of("port2.db"), flags, &status));
    assert_int_equal(status, 1);
    CHECK(strstr(second.last_words, first.endpoint) && strstr(second.last_words, "in use"));
    broker_kill(&first);
}

static void test_mistakes_in_flags_and_file_name_themselves(void **state)
{
    static const struct {
        const char *yaml, *flag, *words;
    } table[] = {
        { NULL, "--lease-msec=5", "unknown flag --lease-msec (did you mean --lease-ms?)" },
        { NULL, "--workers=many", "workers" },
        { NULL, "--heartbeat-ms=14s", "lease_ms is 15000; expected at least three heartbeats" },
        { NULL, "--listen=tcp://0.0.0.0:0", "only ipc and loopback addresses" },
        { "workers: 2\nlisten_on: x\n", NULL, ":2:1: unknown key `listen_on`" },
        { "workers: 2\nworkers: 3\n", NULL, ":2:1: duplicate key `workers`" },
        { "workers:\t2\n\tlease_ms: 3\n", NULL, "broker.yaml:" },
        { "lease_ms: 10\n", NULL, ":1:11: lease_ms" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct broker broker;
        char config[600];
        const char *flags[] = { table[i].flag ? table[i].flag : config, NULL };
        int status = 0;

        snprintf(config, sizeof config, "--config=%s", path_of("broker.yaml"));
        if (table[i].yaml) {
            FILE *file = fopen(path_of("broker.yaml"), "w");

            fputs(table[i].yaml, file);
            fclose(file);
        }
        CHECK(!broker_start(&broker, path_of("flags.db"), flags, &status));
        assert_int_equal(status, 1);
        if (!strstr(broker.last_words, table[i].words))
            fail_msg("said `%s`, expected `%s`", broker.last_words, table[i].words);
    }
}

/* ---- damage ---- */

static off_t find_in(const char *path, const char *words)
{
    FILE *file = fopen(path, "rb");
    static char bytes[4 << 20];
    size_t n;
    char *at;

    CHECK(file != NULL);
    n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    at = memmem(bytes, n, words, strlen(words));
    CHECK(at != NULL);
    return at - bytes;
}

/* SQLite has no checksums of its own: one flipped byte in a body must be found, and never served as if it
 * were right. */
static void test_flipped_byte_in_a_body_is_found_and_not_served(void **state)
{
    const char *request = path_of("request.db"), *result = path_of("result.db");
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    static char queue[] = "q", batch[] = "b";
    struct broker broker;
    struct peer peer;
    Moothall__Audit audit;
    const Moothall__Entries *entries;
    int status;

    (void)state;
    make_store(result);
    copy_file(result, request);
    poke(result, find_in(result, "a result that can be found") + 5, "R", 1);
    CHECK(broker_start(&broker, result, NULL, &status));
    CHECK(peer_client(&peer, broker.endpoint, "c"));
    CHECK(peer_audit(&peer, &audit) && audit.corrupt == 1);
    fetch.queue = queue;
    fetch.batch = batch;
    fetch.from = 1;
    CHECK(peer_ask(&peer, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, (struct span){ 0 }));
    entries = peer.message.envelope->entries;
    CHECK(entries->n_entry == 1 && entries->entry[0]->size == 0 && peer.message.payload.size == 0);
    CHECK(entries->entry[0]->state == MOOTHALL__STATE__DEAD && strstr(entries->entry[0]->reason, "checksum"));
    /* It counts as dead from now on, so it can be retried. */
    CHECK(peer_submit(&peer, "b", 3, "j0", 0, MOOTHALL__SUBMIT_MODE__RETRY,
                      "a request that can be found in the file") == MOOTHALL__ACCEPTANCE__RENEWED);
    peer_close(&peer);
    broker_kill(&broker);

    /* The newest of the three requests stands first on its page; it is still waiting. */
    {
        off_t at = find_in(request, "a request that can be found");

        poke(request, at + 5, "X", 1);
    }
    CHECK(broker_start(&broker, request, NULL, &status));
    CHECK(peer_client(&peer, broker.endpoint, "c"));
    CHECK(peer_audit(&peer, &audit) && audit.corrupt == 1);
    peer_close(&peer);
    {
        struct peer worker;
        int leases = 0, dead;

        /* It ends as dead, with its entry, and is not handed out; the other one is. */
        CHECK(peer_worker(&worker, broker.endpoint, "w", 2, 10));
        while (peer_receive(&worker, 500))
            if (worker.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_LEASE) {
                CHECK(
                    span_equal(worker.message.payload, span_text("a request that can be found in the file")));
                leases++;
            }
        CHECK(peer_client(&peer, broker.endpoint, "c"));
        CHECK(peer_ask(&peer, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, (struct span){ 0 }));
        dead = 0;
        for (size_t i = 0; i < peer.message.envelope->entries->n_entry; i++)
            dead += peer.message.envelope->entries->entry[i]->state == MOOTHALL__STATE__DEAD;
        CHECK(leases == 1 && dead == 1);
        peer_close(&worker);
        peer_close(&peer);
    }
    broker_kill(&broker);
}

/* ---- a full disk ---- */

/* Submits are refused in words and nothing new is leased; what was leased is still finished and stored; and
 * when there is room again everything goes on. */
static void test_full_disk_refuses_new_work_and_finishes_what_is_leased(void **state)
{
    const char *disk = path_of("disk");
    char store[600], filler[600], ballast[600], body[8192];
    static char result[100000];
    const char *flags[] = { "--ballast=1MiB", "--lease-ms=60s", NULL };
    struct broker broker;
    struct peer client, worker;
    Moothall__Status *s;
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    Moothall__Acceptance answer = MOOTHALL__ACCEPTANCE__ACCEPTED;
    Moothall__Audit audit;
    uint64_t fence[8];
    char job[8][65], id[16];
    uint32_t position = 0, before;
    int leased = 0, status, fd;
    struct stat st;
    bool mounted;

    (void)state;
    CHECK(mkdir(disk, 0700) == 0);
    mounted = mount("tmpfs", disk, "tmpfs", 0, "size=12m") == 0;
    if (!mounted) {
        printf("skip: a small tmpfs cannot be mounted here (%s)\n", strerror(errno));
        rmdir(disk);
        skip();
    }
    snprintf(store, sizeof store, "%s/hall.db", disk);
    snprintf(filler, sizeof filler, "%s/filler", disk);
    snprintf(ballast, sizeof ballast, "%s/hall.db.ballast", disk);
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    CHECK(broker_start(&broker, store, flags, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 8));
    for (; position < 20; position++) {
        snprintf(id, sizeof id, "j%u", position);
        CHECK(peer_submit(&client, "b", 5000, id, position, NEW, body) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    }
    while (leased < 8 && peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 5000)) {
        snprintf(job[leased], sizeof job[0], "%s", worker.message.envelope->lease->job);
        fence[leased++] = worker.message.envelope->lease->fence;
    }
    assert_int_equal(leased, 8);

    /* Until it is full. */
    while (position < 5000 && answer == MOOTHALL__ACCEPTANCE__ACCEPTED) {
        snprintf(id, sizeof id, "j%u", position);
        answer = peer_submit(&client, "b", 5000, id, position, NEW, body);
        position += answer == MOOTHALL__ACCEPTANCE__ACCEPTED;
        if (position % 50 == 0) {
            Moothall__Heartbeat beat = MOOTHALL__HEARTBEAT__INIT;

            beat.held = fence;
            beat.n_held = 8;
            peer_send(&worker, MOOTHALL__ENVELOPE__BODY_HEARTBEAT, &beat, (struct span){ 0 });
        }
    }
    assert_int_equal(answer, MOOTHALL__ACCEPTANCE__TURNED_AWAY);
    assert_string_equal(client.message.envelope->submitted->reason, "the broker's disk is full");
    before = position;

    /* And fuller: not one byte is left for anybody but who has the ballast. */
    fd = open(filler, O_WRONLY | O_CREAT, 0600);
    while (write(fd, body, sizeof body - 1) > 0 || write(fd, body, 1) > 0)
        ;
    close(fd);
    for (int i = 0; i < 8; i++) {
        Moothall__Result m = MOOTHALL__RESULT__INIT;

        m.job = job[i];
        m.generation = 1;
        m.fence = fence[i];
        m.outcome = MOOTHALL__OUTCOME__FINISHED;
        CHECK(peer_send(&worker, MOOTHALL__ENVELOPE__BODY_RESULT, &m, span_of(result, sizeof result)));
        CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_STORED, 10000));
        CHECK(worker.message.envelope->stored->recorded);
    }
    CHECK(stat(ballast, &st) == 0 && st.st_size == 0); /* that is where their room came from */
    CHECK(!peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 500)); /* nothing new */
    CHECK(peer_ask(&client, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, (struct span){ 0 }));
    s = client.message.envelope->status;
    CHECK(s->counts->done == 8 && s->counts->ready == before - 8);
    assert_string_equal(s->waiting_for, "room on the disk");

    /* Killed in that state, it starts again and has everything. */
    broker_kill(&broker);
    peer_close(&worker);
    peer_close(&client);
    if (!broker_start(&broker, store, flags, &status))
        fail_msg("%s", broker.last_words);
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(peer_audit(&client, &audit));
    CHECK(audit.jobs == before && audit.entries == 8 && !audit.missing && !audit.doubled && !audit.corrupt &&
          !audit.holes);
    CHECK(peer_submit(&client, "b", 5000, "late", position, NEW, body) == MOOTHALL__ACCEPTANCE__TURNED_AWAY);

    /* Room again. */
    CHECK(unlink(filler) == 0);
    CHECK(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, "size=64m") == 0);
    answer = MOOTHALL__ACCEPTANCE__TURNED_AWAY;
    for (int i = 0; i < 100 && answer != MOOTHALL__ACCEPTANCE__ACCEPTED; i++) {
        usleep(50000);
        answer = peer_submit(&client, "b", 5000, "late", position, NEW, body);
    }
    assert_int_equal(answer, MOOTHALL__ACCEPTANCE__ACCEPTED);
    CHECK(stat(ballast, &st) == 0 && st.st_size == 1 << 20); /* for the next time */
    CHECK(peer_worker(&worker, broker.endpoint, "w", 2, 8));
    CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 5000));
    peer_close(&worker);
    peer_close(&client);
    assert_int_equal(broker_stop(&broker), 0);
    CHECK(umount(disk) == 0);
    rmdir(disk);
}

/* A purge is what people do about a full disk.  What it erases is written once more, and must not take what is left. */
static void test_purge_on_a_full_disk_leaves_the_broker_alive(void **state)
{
    const char *disk = path_of("purged");
    char store[600], id[16];
    static char body[20000], queue[] = "q", batch[] = "b";
    const char *flags[] = { NULL };
    struct broker broker;
    struct peer client;
    Moothall__Cancel cancel = MOOTHALL__CANCEL__INIT;
    Moothall__Purge purge = MOOTHALL__PURGE__INIT;
    Moothall__Audit audit;
    uint32_t position = 0, full;
    int status;

    (void)state;
    CHECK(mkdir(disk, 0700) == 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=24m") != 0) {
        printf("skip: a small tmpfs cannot be mounted here (%s)\n", strerror(errno));
        rmdir(disk);
        skip();
    }
    snprintf(store, sizeof store, "%s/hall.db", disk);
    memset(body, 'b', sizeof body - 1);
    CHECK(broker_start(&broker, store, flags, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    do
        snprintf(id, sizeof id, "j%u", position);
    while (position++ < 5000 && peer_submit(&client, "b", 5000, id, position, NEW, body) == MOOTHALL__ACCEPTANCE__ACCEPTED);
    full = position - 1;
    CHECK(full > 300 && full < 1500);

    cancel.queue = purge.queue = queue;
    cancel.batch = purge.batch = batch;
    do {
        CHECK(peer_ask(&client, MOOTHALL__ENVELOPE__BODY_CANCEL, &cancel, (struct span){ 0 }));
        CHECK(client.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_CANCELLED);
        usleep(5000);
    } while (client.message.envelope->cancelled->more);
    do {
        CHECK(peer_ask(&client, MOOTHALL__ENVELOPE__BODY_PURGE, &purge, (struct span){ 0 }));
        CHECK(client.message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_PURGED);
        purge.after = client.message.envelope->purged->next;
    } while (purge.after);

    CHECK(peer_audit(&client, &audit));
    CHECK(audit.jobs == full && audit.entries == full && !audit.missing && !audit.doubled &&
          !audit.corrupt && !audit.holes);
    peer_close(&client);
    assert_int_equal(broker_stop(&broker), 0);
    CHECK(umount(disk) == 0);
    rmdir(disk);
}

static void test_store_cannot_be_made_on_a_full_disk_and_says_so(void **state)
{
    const char *disk = path_of("full");
    char path[600], block[4096] = "";
    int fd;

    (void)state;
    CHECK(mkdir(disk, 0700) == 0);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=1m") != 0) {
        printf("skip: a small tmpfs cannot be mounted here (%s)\n", strerror(errno));
        rmdir(disk);
        skip();
    }
    snprintf(path, sizeof path, "%s/filler", disk);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    while (write(fd, block, sizeof block) > 0)
        ;
    close(fd);
    snprintf(path, sizeof path, "%s/hall.db", disk);
    expect_refusal(path, "no room on the disk");
    CHECK(umount(disk) == 0);
    rmdir(disk);
}

/* ---- the older format ---- */

/* A store that an earlier release left behind opens, and everything in it goes on. */
static void test_store_of_the_first_format_is_brought_up_to_date(void **state)
{
    const char *store = path_of("version1.db"), *python = getenv("MOOTHALL_PYTHON"),
               *sql = getenv("MOOTHALL_VERSION1");
    Moothall__StatusAsk ask = MOOTHALL__STATUS_ASK__INIT;
    Moothall__CursorAsk cursor = MOOTHALL__CURSOR_ASK__INIT;
    Moothall__Fetch fetch = MOOTHALL__FETCH__INIT;
    Moothall__Result result = MOOTHALL__RESULT__INIT;
    static char q[] = "q", old[] = "old", reader[] = "reader", job[65];
    const Moothall__BatchStatus *batch;
    const Moothall__Status *m;
    Moothall__Audit audit;
    struct broker broker;
    struct peer client, worker;
    char command[2048];
    int status;

    (void)state;
    if (!python || !sql)
        skip();
    snprintf(command, sizeof command,
             "'%s' -c 'import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
             "c.executescript(open(sys.argv[2]).read())' '%s' '%s'",
             python, store, sql);
    CHECK(system(command) == 0);
    CHECK(broker_start(&broker, store, NULL, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(peer_audit(&client, &audit));
    CHECK(audit.jobs == 6 && audit.generations == 7 && audit.entries == 4 && audit.unfinished == 3);
    CHECK(!audit.missing && !audit.doubled && !audit.corrupt && !audit.holes);
    ask.queue = q;
    ask.batch = old;
    CHECK(peer_ask(&client, MOOTHALL__ENVELOPE__BODY_STATUS_ASK, &ask, (struct span){ 0 }));
    m = client.message.envelope->status;
    CHECK(m->n_queue == 1 && !m->queue[0]->paused && m->queue[0]->retention_ms == 0 &&
          m->queue[0]->n_consumer == 1);
    /* The back-off of the delayed one is over by now. */
    CHECK(m->counts->done == 2 && m->counts->failed == 1 && m->counts->leased == 1 &&
          m->counts->delayed + m->counts->ready == 2);
    batch = m->batch[0];
    CHECK(batch->state == MOOTHALL__BATCH_STATE__IN_PROGRESS && batch->in_progress_ms > 0 &&
          batch->prompt_tokens == 9);
    assert_string_equal(batch->endpoint, "/v1/completions");
    cursor.queue = q;
    cursor.batch = old;
    cursor.consumer = reader;
    CHECK(peer_ask(&client, MOOTHALL__ENVELOPE__BODY_CURSOR_ASK, &cursor, (struct span){ 0 }));
    CHECK(client.message.envelope->cursor->known && client.message.envelope->cursor->position == 2);
    fetch.queue = q;
    CHECK(peer_ask(&client, MOOTHALL__ENVELOPE__BODY_FETCH, &fetch, (struct span){ 0 }));
    CHECK(client.message.envelope->entries->n_entry == 4);
    CHECK(span_equal(span_of(client.message.payload.data, 18), span_text("the result of done")));

    /* The worker that held a lease comes back and finishes it; then the others are given out, oldest first.
     */
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 1));
    for (int i = 0; i < 3; i++) {
        static const char *const order[] = { "held", "late", "low" };

        result.fence =
            UINT64_C(5) << 20 | 1; /* it came with the Welcome, while peer_worker() waited for its Map */
        if (i > 0) {
            CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 10000));
            assert_string_equal(worker.message.envelope->lease->job, order[i]);
            result.fence = worker.message.envelope->lease->fence;
        }
        snprintf(job, sizeof job, "%s", order[i]);
        result.job = job;
        result.generation = 1;
        result.outcome = MOOTHALL__OUTCOME__FINISHED;
        CHECK(peer_send(&worker, MOOTHALL__ENVELOPE__BODY_RESULT, &result, span_text("r")));
    }
    CHECK(peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_STORED, 10000));
    peer_close(&worker);
    CHECK(peer_audit(&client, &audit) && audit.entries == 7 && audit.unfinished == 0 && !audit.missing);
    peer_close(&client);
    assert_int_equal(broker_stop(&broker), 0);
    CHECK(broker_start(&broker, store, NULL, &status)); /* it is of the new format now */
    assert_int_equal(broker_stop(&broker), 0);
}

/* ---- what a client asks of whole batches ---- */

static void submit_many(struct peer *client, const char *batch, int count, size_t body_size,
                        const char *marker)
{
    static Moothall__NewJob job[256];
    static char name[256][24];
    Moothall__NewJob *jobs[256];
    static char queue[] = "q";

    for (int at = 0; at < count;) {
        Moothall__Submit m = MOOTHALL__SUBMIT__INIT;
        struct buf bodies = { .max = (size_t)256 << 20 };

        m.queue = queue;
        m.batch = (char *)(uintptr_t)batch;
        m.batch_total = (uint32_t)count;
        m.job = jobs;
        for (; m.n_job < 256 && at < count; at++) {
            size_t i = m.n_job++, size = body_size ? body_size : 20 + (size_t)at * 7919 % 9000;
            char *body = malloc(size + 64);

            CHECK(body != NULL);
            moothall__new_job__init(&job[i]);
            jobs[i] = &job[i];
            snprintf(name[i], sizeof name[i], "j%d", at);
            job[i].id = job[i].custom_id = name[i];
            job[i].position = (uint32_t)at;
            for (size_t k = 0; k < size; k += strlen(marker))
                snprintf(body + k, 64, "%s", marker);
            job[i].size = (uint32_t)size;
            CHECK(buf_add(&bodies, body, size));
            free(body);
        }
        CHECK(peer_ask(client, MOOTHALL__ENVELOPE__BODY_SUBMIT, &m, span_of(bodies.data, bodies.size)));
        CHECK(client->message.envelope->submitted->acceptance[0] == MOOTHALL__ACCEPTANCE__ACCEPTED);
        buf_fini(&bodies);
    }
}

/* For peers that have other things to do than to say that they are alive. */
static const char *const patient[] = { "--heartbeat-ms=10s", "--lease-ms=60s", NULL };

static bool cancel_batch(struct peer *client, const char *batch)
{
    Moothall__Cancel m = MOOTHALL__CANCEL__INIT;
    static char queue[] = "q";

    m.queue = queue;
    m.batch = (char *)(uintptr_t)batch;
    return peer_ask(client, MOOTHALL__ENVELOPE__BODY_CANCEL, &m, (struct span){ 0 }) &&
           client->message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_CANCELLED;
}

/* Ten thousand jobs, some of them leased: the answer does not wait for their entries.  On a machine that does
 * other things too, one of three tries has to be in time. */
static void test_cancel_of_ten_thousand_is_answered_at_once(void **state)
{
    enum { JOBS = 10000, IN_TIME_MS = 100 };
    struct broker broker;
    struct peer client, worker;
    Moothall__Audit audit;
    int64_t best = INT64_MAX;
    int status;

    (void)state;
    CHECK(broker_start(&broker, path_of("cancel.db"), patient, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 64));
    for (int i = 0; i < 3 && best >= IN_TIME_MS; i++) {
        char batch[8];
        int64_t began;

        snprintf(batch, sizeof batch, "b%d", i);
        submit_many(&client, batch, JOBS, 30, "x");
        began = clock_now_ms();
        CHECK(cancel_batch(&client, batch));
        if (clock_now_ms() - began < best)
            best = clock_now_ms() - began;
        CHECK(client.message.envelope->cancelled->jobs == JOBS);
        /* Whatever was sent to the worker before is in its socket; after it nothing of the batch may come. */
        while (peer_receive(&worker, 300))
            CHECK(worker.message.envelope->body_case != MOOTHALL__ENVELOPE__BODY_LEASE ||
                  !strcmp(worker.message.envelope->lease->queue, "q"));
    }
    print_message("cancel of %d jobs: answered after %lld ms\n", JOBS, (long long)best);
    CHECK(best < IN_TIME_MS);
    for (int i = 0; i < 200; i++) {
        CHECK(peer_audit(&client, &audit));
        if (audit.unfinished == 0)
            break;
        usleep(20000);
    }
    CHECK(audit.unfinished == 0 && audit.entries == audit.jobs && !audit.missing && !audit.doubled &&
          !audit.holes);
    peer_close(&worker);
    peer_close(&client);
    broker_kill(&broker);
}

/* The mark is on disk with the answer; the broker is killed while the entries follow, again and again. */
static void test_cancel_survives_kills_in_its_midst(void **state)
{
    enum { JOBS = 4000 };
    const char *store = path_of("cancel-kill.db");
    struct broker broker;
    struct peer client, worker;
    Moothall__Audit audit = { 0 };
    int status, kills = 0;

    (void)state;
    CHECK(broker_start(&broker, store, patient, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    submit_many(&client, "b", JOBS, 30, "x");
    CHECK(cancel_batch(&client, "b"));
    for (;;) {
        uint64_t before = audit.entries;

        broker_kill(&broker);
        peer_close(&client);
        CHECK(broker_start(&broker, store, patient, &status));
        CHECK(peer_client(&client, broker.endpoint, "c"));
        CHECK(peer_audit(&client, &audit));
        CHECK(audit.jobs == JOBS && audit.entries >= before && !audit.missing && !audit.doubled &&
              !audit.holes);
        if (audit.unfinished == 0)
            break;
        CHECK(++kills < 100);
    }
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 8));
    CHECK(!peer_expect(&worker, MOOTHALL__ENVELOPE__BODY_LEASE, 300));
    peer_close(&worker);
    peer_close(&client);
    broker_kill(&broker);
}

/* How often the words stand in the file. */
static int count_in_file(const char *path, const char *words)
{
    FILE *file = fopen(path, "rb");
    size_t size, n = strlen(words);
    int found = 0;
    char *all;

    if (!file)
        return 0;
    fseek(file, 0, SEEK_END);
    size = (size_t)ftell(file);
    rewind(file);
    all = malloc(size + 1);
    CHECK(all && fread(all, 1, size, file) == size);
    fclose(file);
    for (char *at = all; (at = memmem(at, size - (size_t)(at - all), words, n)); at += n)
        found++;
    free(all);
    return found;
}

static int traces(const char *store, const char *words)
{
    char wal[600];

    snprintf(wal, sizeof wal, "%s-wal", store);
    return count_in_file(store, words) + count_in_file(wal, words);
}

static void finish_leases(struct peer *worker, int count)
{
    while (count > 0) {
        Moothall__Result m = MOOTHALL__RESULT__INIT;
        static char job[65], reason[] = "words of the worker", body[9000];
        bool kept;

        CHECK(peer_expect(worker, MOOTHALL__ENVELOPE__BODY_LEASE, 10000));
        snprintf(job, sizeof job, "%s", worker->message.envelope->lease->job);
        m.job = job;
        m.generation = worker->message.envelope->lease->generation;
        m.fence = worker->message.envelope->lease->fence;
        m.outcome = count % 3 ? MOOTHALL__OUTCOME__FINISHED : MOOTHALL__OUTCOME__AT_FAULT;
        m.reason = reason;
        kept = worker->message.payload.size > 2 && !memcmp(worker->message.payload.data, "a ", 2);
        for (size_t k = 0; k + 16 < sizeof body; k += 13)
            memcpy(body + k, kept ? "a good result" : "SECRETRESULT,", 13);
        CHECK(peer_send(worker, MOOTHALL__ENVELOPE__BODY_RESULT, &m,
                        span_of(body, 13 + (size_t)count * 31 % 8000)));
        count--;
    }
}

static uint64_t purge_batch(struct peer *client, const char *batch)
{
    Moothall__Purge purge = MOOTHALL__PURGE__INIT;
    static char q[] = "q";
    uint64_t jobs = 0;

    purge.queue = q;
    purge.batch = (char *)(uintptr_t)batch;
    do {
        CHECK(peer_ask(client, MOOTHALL__ENVELOPE__BODY_PURGE, &purge, (struct span){ 0 }));
        CHECK(client->message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_PURGED);
        jobs += client->message.envelope->purged->jobs;
        purge.after = client->message.envelope->purged->next;
    } while (purge.after);
    return jobs;
}

/* Erased is erased: when the purge is answered, no byte of a request or a result is left in the store's
 * files, whatever their sizes and whatever lay beside them; what was not purged is unharmed. */
static void test_purge_leaves_no_trace_in_the_files(void **state)
{
    enum { ROUNDS = 6, GONE = 250, KEPT = 60, FINISHED = 150 };
    const char *store = path_of("purge.db");
    struct broker broker;
    struct peer client, worker;
    Moothall__Audit audit;
    uint64_t jobs = 0;
    char name[16];
    int status;

    (void)state;
    CHECK(broker_start(&broker, store, patient, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    CHECK(peer_worker(&worker, broker.endpoint, "w", 1, 16));
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(name, sizeof name, "kept%d", round);
        submit_many(&client, name, KEPT, 0, "a request to keep. ");
        snprintf(name, sizeof name, "gone%d", round);
        submit_many(&client, name, GONE, 0, "SECRETREQUEST");
        for (uint32_t i = 0; i < 40; i++) { /* another body for some */
            char id[16], body[512];

            snprintf(id, sizeof id, "j%u", GONE - 1 - i);
            snprintf(body, sizeof body, "SECRETREQUEST%0*u", 10 + 7 * (int)i, i);
            CHECK(peer_submit(&client, name, GONE, id, GONE - 1 - i, MOOTHALL__SUBMIT_MODE__UPDATE, body) ==
                  MOOTHALL__ACCEPTANCE__RENEWED);
        }
        finish_leases(&worker, FINISHED);
        if (round % 2 == 0)
            continue; /* every other one is purged while the next are at work */
        CHECK(cancel_batch(&client, name));
        jobs += purge_batch(&client, name);
    }
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(name, sizeof name, "gone%d", round);
        CHECK(cancel_batch(&client, name));
    }
    peer_close(&worker);
    for (int i = 0; i < 500; i++) {
        CHECK(peer_audit(&client, &audit));
        if (audit.unfinished <= ROUNDS * KEPT)
            break;
        usleep(20000);
    }
    CHECK(traces(store, "SECRET") > 1000);
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(name, sizeof name, "gone%d", round);
        jobs += purge_batch(&client, name);
    }
    assert_int_equal(jobs, ROUNDS * GONE);
    assert_int_equal(traces(store, "SECRET"), 0);
    CHECK(traces(store, "a request to keep. ") >= ROUNDS * KEPT);
    CHECK(peer_audit(&client, &audit));
    CHECK(!audit.missing && !audit.doubled && !audit.holes && !audit.corrupt);
    peer_close(&client);
    assert_int_equal(broker_stop(&broker), 0);
}

/* What a retention erases leaves the files too, without anybody asking. */
static void test_retention_leaves_no_trace_in_the_files(void **state)
{
    const char *store = path_of("retention.db"), *flags[] = { "--retention=500ms", NULL };
    struct broker broker;
    struct peer client;
    Moothall__Audit audit;
    int status, before, after = 1;

    (void)state;
    CHECK(broker_start(&broker, store, flags, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    submit_many(&client, "b", 300, 0, "SECRETREQUEST");
    before = traces(store, "SECRET");
    CHECK(before > 300 && cancel_batch(&client, "b"));
    for (int i = 0; i < 200 && after; i++) {
        usleep(50000);
        after = traces(store, "SECRET");
    }
    CHECK(after == 0);
    CHECK(peer_audit(&client, &audit) && audit.jobs == 300 && audit.entries == 300 && !audit.corrupt &&
          !audit.missing);
    peer_close(&client);
    broker_kill(&broker);
}

/* In their order the oldest bodies give their space back, so a store with a retention does not grow for ever.
 */
static void test_space_of_what_was_purged_is_used_again(void **state)
{
    enum { ROUNDS = 4, JOBS = 1500 };
    const char *store = path_of("space.db");
    struct broker broker;
    struct peer client;
    struct stat st;
    off_t second = 0;
    int status;

    (void)state;
    CHECK(broker_start(&broker, store, patient, &status));
    CHECK(peer_client(&client, broker.endpoint, "c"));
    for (int round = 0; round < ROUNDS; round++) {
        char name[16];

        snprintf(name, sizeof name, "b%d", round);
        submit_many(&client, name, JOBS, 3000, "a body of some length. ");
        CHECK(cancel_batch(&client, name));
        for (int i = 0; i < 500; i++) {
            Moothall__Audit audit;

            CHECK(peer_audit(&client, &audit));
            if (audit.unfinished == 0)
                break;
            usleep(10000);
        }
        purge_batch(&client, name);
        usleep(450000); /* idle moments: they do it */
        if (round == 1)
            CHECK(stat(store, &st) == 0 && (second = st.st_size));
    }
    CHECK(stat(store, &st) == 0);
    if (st.st_size > second * 5 / 4)
        fail_msg("%lld bytes after two rounds, %lld after four", (long long)second, (long long)st.st_size);
    peer_close(&client);
    broker_kill(&broker);
}

/* With a name (or a pattern of names) only those tests. */
int main(int argc, char **argv)
{
#define PROMISE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        PROMISE(test_nothing_acknowledged_is_lost_when_the_broker_is_killed),
        PROMISE(test_commits_are_grouped),
        PROMISE(test_failed_sync_ends_the_broker_without_a_false_answer),
        PROMISE(test_question_before_the_welcome_is_answered),
        PROMISE(test_heartbeats_do_not_wait_for_the_disk),
        PROMISE(test_broker_that_is_stopped_leaves_one_file),
        PROMISE(test_broker_ends_when_its_control_pipe_closes),
        PROMISE(test_peers_are_told_when_the_broker_stops),
        PROMISE(test_file_that_is_no_database_is_refused),
        PROMISE(test_database_of_another_program_is_refused),
        PROMISE(test_store_of_a_newer_version_is_refused),
        PROMISE(test_read_only_store_is_refused),
        PROMISE(test_truncated_store_is_refused),
        PROMISE(test_store_that_cannot_be_made_is_refused),
        PROMISE(test_second_broker_on_a_store_is_refused_and_told_of_the_first),
        PROMISE(test_port_in_use_is_refused_by_name),
        PROMISE(test_mistakes_in_flags_and_file_name_themselves),
        PROMISE(test_flipped_byte_in_a_body_is_found_and_not_served),
        PROMISE(test_store_cannot_be_made_on_a_full_disk_and_says_so),
        PROMISE(test_purge_on_a_full_disk_leaves_the_broker_alive),
        PROMISE(test_full_disk_refuses_new_work_and_finishes_what_is_leased),
        PROMISE(test_store_of_the_first_format_is_brought_up_to_date),
        PROMISE(test_cancel_of_ten_thousand_is_answered_at_once),
        PROMISE(test_cancel_survives_kills_in_its_midst),
        PROMISE(test_purge_leaves_no_trace_in_the_files),
        PROMISE(test_retention_leaves_no_trace_in_the_files),
        PROMISE(test_space_of_what_was_purged_is_used_again),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
