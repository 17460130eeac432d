#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "worker/worker.h"

/* Signals arrive as bytes on a descriptor that the link thread watches; every thread made later inherits
 * the mask. */
static int take_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool check_fd(int64_t fd, const char *flag)
{
    if (fd < 0 || fcntl((int)fd, F_GETFD) != -1)
        return true;
    fprintf(stderr, "moothall-worker: %s %d is not an open descriptor\n", flag, (int)fd);
    return false;
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct err err = { 0 };
    enum worker_exit end;
    int stop_fd;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            manual_help(&settings_manual, stdout);
            return 0;
        }
        if (!strcmp(argv[i], "--man")) { /* this and the next are for the build */
            manual_page(&settings_manual, "moothall(1), moothall-broker(1)", stdout);
            return 0;
        }
        if (!strcmp(argv[i], "--completion")) {
            manual_completion(&settings_manual, 1, stdout);
            return 0;
        }
        if (!strcmp(argv[i], "--version")) {
            puts("moothall-worker " MOOTHALL_VERSION);
            return 0;
        }
    }
    if (!settings_read(&settings, argc, argv, &err)) {
        fprintf(stderr, "moothall-worker: %s\n", err.text);
        return WORKER_FAILED;
    }
    if (!check_fd(settings.control_fd, "--control-fd") || !check_fd(settings.lock_fd, "--lock-fd"))
        return WORKER_FAILED;
    log_init(settings.name, (enum log_level)settings.log_level, settings.log == 1);
    stop_fd = take_signals();
    end = worker_run(&settings, stop_fd, &err);
    if (end != WORKER_LEFT)
        fprintf(stderr, "moothall-worker: %s\n", err.text);
    if (stop_fd >= 0)
        close(stop_fd);
    return (int)end;
}
