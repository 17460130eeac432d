/* moothall-broker - a durable queue on one file, for clients and workers. */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/manual.h"
#include "broker/hall.h"

enum { KEPT_BYTES = 16 * 1024 * 1024, LARGE_BYTES = 4 * 1024 * 1024 };

static struct manual manual(void)
{
    return (struct manual){
        .program = "moothall-broker",
        .what = "keeps jobs in one file, hands them to workers, and keeps their results",
        .words = "--listen ENDPOINT --store FILE [flags]",
        .more = "It prints `listening on ENDPOINT` when it is ready.  SIGTERM and SIGINT end it cleanly.",
        .example = "moothall-broker --listen tcp://127.0.0.1:7500 --store hall.db\n"
                   "moothall-broker --config broker.yaml --log json",
        .status = "0 told to leave; 1 it could not be done (one line on stderr says why).",
        .fields = broker_fields,
        .field_count = broker_field_count,
        .keys = true,
    };
}

static int fail(const struct err *err)
{
    fprintf(stderr, "moothall-broker: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv)
{
    struct broker_config config;
    struct hall *hall = NULL;
    struct err err = { 0 };
    struct manual says = manual();
    sigset_t signals;
    int stop_fd;
    bool ok;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return manual_help(&says, stdout), 0;
        if (!strcmp(argv[i], "--man")) /* this and the next are for the build */
            return manual_page(&says, "moothall(1), moothall-worker(1)", stdout), 0;
        if (!strcmp(argv[i], "--completion"))
            return manual_completion(&says, 1, stdout), 0;
        if (!strcmp(argv[i], "--version"))
            return printf("moothall-broker %s\n", MOOTHALL_VERSION), 0;
    }
    if (!broker_config_read(&config, argc, argv, &err))
        return fail(&err);
    log_init("broker", (enum log_level)config.log_level, config.log == 1);

    /* Every transaction takes and frees a few megabytes; giving them back to the system each time costs more
     * than keeping them (7 % of the time of a busy broker). */
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);

    /* Before the first thread, so that all of them leave the signals to the descriptor. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    stop_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (stop_fd < 0) {
        err_errno(&err, "watch for signals");
        return fail(&err);
    }
    if (config.control_fd >= 0 && fcntl((int)config.control_fd, F_SETFL, O_NONBLOCK) != 0) {
        err_errno(&err, "--control-fd %lld", (long long)config.control_fd);
        return fail(&err);
    }
    if (!hall_open(&hall, &config, &err))
        return fail(&err);
    printf("listening on %s\n", hall_endpoint(hall));
    fflush(stdout);
    log_info("broker.ready", "endpoint=%s store=\"%s\" pid=%ld", hall_endpoint(hall), config.store,
             (long)getpid());
    ok = hall_run(hall, stop_fd, (int)config.control_fd, &err);
    hall_free(hall);
    close(stop_fd);
    return ok ? 0 : fail(&err);
}
