#include "tests/store/peer.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

/* ---- a broker ---- */

bool broker_start(struct broker *broker, const char *store, const char *const *flags, int *status)
{
    const char *program = getenv("MOOTHALL_BROKER");
    int out[2], errors[2];
    char line[512] = "";
    size_t n = 0;

    if (!program) {
        fprintf(stderr, "MOOTHALL_BROKER is not set\n");
        abort();
    }
    if (pipe(out) != 0 || pipe2(errors, O_CLOEXEC) != 0)
        abort();
    memset(broker, 0, sizeof *broker);
    broker->pid = fork();
    if (broker->pid == 0) {
        const char *argv[32];
        int argc = 0;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], STDOUT_FILENO);
        dup2(errors[1], STDERR_FILENO);
        close(out[0]);
        close(out[1]);
        argv[argc++] = program;
        argv[argc++] = "--listen=tcp://127.0.0.1:*";
        argv[argc++] = "--store";
        argv[argc++] = store;
        argv[argc++] = "--log-level=warn";
        for (; flags && *flags && argc < 31; flags++)
            if (**flags == '-')
                argv[argc++] = *flags;
            else
                putenv((char *)(uintptr_t)*flags);
        argv[argc] = NULL;
        execv(program, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(out[1]);
    close(errors[1]);
    broker->errors = errors[0];
    while (n < sizeof line - 1 && !strchr(line, '\n')) {
        ssize_t got = read(out[0], line + n, 1);

        if (got <= 0)
            break;
        n += (size_t)got;
        line[n] = '\0';
    }
    close(out[0]);
    if (sscanf(line, "listening on %255s", broker->endpoint) == 1)
        return true;
    *status = broker_wait(broker);
    return false;
}

static int reap(struct broker *broker)
{
    char text[8192];
    size_t n = 0;
    ssize_t got;
    int status = 0;
    char *last;

    waitpid(broker->pid, &status, 0);
    while (n < sizeof text - 1 && (got = read(broker->errors, text + n, sizeof text - 1 - n)) > 0)
        n += (size_t)got;
    close(broker->errors);
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n] = '\0';
    last = strrchr(text, '\n');
    snprintf(broker->last_words, sizeof broker->last_words, "%.1000s", last ? last + 1 : text);
    broker->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void broker_kill(struct broker *broker)
{
    if (broker->pid) {
        kill(broker->pid, SIGKILL);
        reap(broker);
    }
}

int broker_stop(struct broker *broker)
{
    kill(broker->pid, SIGTERM);
    return broker_wait(broker);
}

int broker_wait(struct broker *broker)
{
    for (int i = 0; i < 2000; i++) {
        siginfo_t info = { 0 };

        if (waitid(P_PID, (id_t)broker->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
            return reap(broker);
        usleep(10000);
    }
    broker_kill(broker);
    return 99;
}

/* ---- who talks to it ---- */

struct link_context *peer_context(void)
{
    static struct link_context *context;

    if (!context)
        context = link_context_new();
    return context;
}

uint64_t peer_send(struct peer *peer, Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    Moothall__Envelope envelope;

    link_envelope(&envelope, kind, body, ++peer->correlation);
    for (int i = 0; i < 1000; i++) {
        if (link_send(peer->link, NULL, &envelope, payload) == LINK_SENT)
            return peer->correlation;
        usleep(5000); /* the connection is being made */
    }
    return 0;
}

bool peer_receive(struct peer *peer, int timeout_ms)
{
    int64_t until = clock_now_ms() + timeout_ms;

    for (;;) {
        int64_t left;

        if (link_receive(peer->link, &peer->message))
            return true;
        left = until - clock_now_ms();
        if (left <= 0)
            return false;
        link_wait(&peer->link, 1, NULL, 0, (int)left, NULL);
    }
}

bool peer_expect(struct peer *peer, Moothall__Envelope__BodyCase kind, int timeout_ms)
{
    int64_t until = clock_now_ms() + timeout_ms;

    while (clock_now_ms() <= until)
        if (peer_receive(peer, (int)(until - clock_now_ms()) + 1) &&
            peer->message.envelope->body_case == kind)
            return true;
    return false;
}

bool peer_ask(struct peer *peer, Moothall__Envelope__BodyCase kind, void *body, struct span payload)
{
    uint64_t correlation = peer_send(peer, kind, body, payload);

    while (correlation && peer_receive(peer, 10000))
        if (peer->message.envelope->correlation == correlation)
            return true;
    return false;
}

bool peer_connect(struct peer *peer, const char *endpoint, Moothall__Hello *hello)
{
    struct err err;

    memset(peer, 0, sizeof *peer);
    link_message_init(&peer->message);
    if (!link_connect(&peer->link, peer_context(), endpoint, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    return peer_ask(peer, MOOTHALL__ENVELOPE__BODY_HELLO, hello, (struct span){ 0 }) &&
           peer->message.envelope->body_case == MOOTHALL__ENVELOPE__BODY_WELCOME;
}

bool peer_client(struct peer *peer, const char *endpoint, const char *name)
{
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;

    hello.role = MOOTHALL__ROLE__CLIENT;
    hello.name = (char *)(uintptr_t)name;
    return peer_connect(peer, endpoint, &hello);
}

bool peer_worker(struct peer *peer, const char *endpoint, const char *name, uint64_t incarnation,
                 uint32_t credit)
{
    static char family[] = "test", *families[] = { family };
    static uint8_t fingerprint[32] = { 1, 2, 3 };
    Moothall__Hello hello = MOOTHALL__HELLO__INIT;
    Moothall__WorkerOffer offer = MOOTHALL__WORKER_OFFER__INIT;
    Moothall__Credit window = MOOTHALL__CREDIT__INIT;
    Moothall__Seated seated = MOOTHALL__SEATED__INIT;

    offer.families = families;
    offer.n_families = 1;
    offer.pid = (uint32_t)getpid();
    hello.role = MOOTHALL__ROLE__WORKER;
    hello.name = (char *)(uintptr_t)name;
    hello.incarnation = incarnation;
    hello.offer = &offer;
    hello.fingerprint.data = fingerprint;
    hello.fingerprint.len = sizeof fingerprint;
    if (!peer_connect(peer, endpoint, &hello))
        return false;
    window.jobs = credit;
    if (!peer_send(peer, MOOTHALL__ENVELOPE__BODY_CREDIT, &window, (struct span){ 0 }) ||
        !peer_expect(peer, MOOTHALL__ENVELOPE__BODY_MAP, 5000))
        return false;
    seated.epoch = peer->message.envelope->map->epoch;
    return peer_send(peer, MOOTHALL__ENVELOPE__BODY_SEATED, &seated, (struct span){ 0 }) != 0;
}

void peer_close(struct peer *peer)
{
    link_free(peer->link);
    peer->link = NULL;
    link_message_fini(&peer->message);
}

Moothall__Acceptance peer_submit(struct peer *peer, const char *batch, uint32_t total, const char *id,
                                 uint32_t position, Moothall__SubmitMode mode, const char *body)
{
    Moothall__Submit submit = MOOTHALL__SUBMIT__INIT;
    Moothall__NewJob job = MOOTHALL__NEW_JOB__INIT, *jobs[] = { &job };
    static char queue[] = "q";

    job.id = job.custom_id = (char *)(uintptr_t)id;
    job.position = position;
    job.size = (uint32_t)strlen(body);
    submit.queue = queue;
    submit.batch = (char *)(uintptr_t)batch;
    submit.batch_total = total;
    submit.mode = mode;
    submit.job = jobs;
    submit.n_job = 1;
    if (!peer_ask(peer, MOOTHALL__ENVELOPE__BODY_SUBMIT, &submit, span_text(body)) ||
        peer->message.envelope->body_case != MOOTHALL__ENVELOPE__BODY_SUBMITTED)
        return MOOTHALL__ACCEPTANCE__ACCEPTANCE_UNSPECIFIED;
    return peer->message.envelope->submitted->acceptance[0];
}

bool peer_audit(struct peer *peer, Moothall__Audit *sum)
{
    Moothall__AuditAsk ask = MOOTHALL__AUDIT_ASK__INIT;

    moothall__audit__init(sum);
    do {
        const Moothall__Audit *slice;

        if (!peer_ask(peer, MOOTHALL__ENVELOPE__BODY_AUDIT_ASK, &ask, (struct span){ 0 }) ||
            peer->message.envelope->body_case != MOOTHALL__ENVELOPE__BODY_AUDIT)
            return false;
        slice = peer->message.envelope->audit;
        sum->jobs += slice->jobs;
        sum->generations += slice->generations;
        sum->entries += slice->entries;
        sum->unfinished += slice->unfinished;
        sum->missing += slice->missing;
        sum->doubled += slice->doubled;
        sum->corrupt += slice->corrupt;
        sum->holes += slice->holes;
        ask.after = slice->next;
    } while (ask.after);
    return true;
}
