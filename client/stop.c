#include "client/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static volatile sig_atomic_t asked;
static int event_fd = -1;

static void on_signal(int number)
{
    int kept = errno;
    uint64_t one = 1;

    asked = 1;
    if (write(event_fd, &one, sizeof one) < 0) {
        /* The counter of an eventfd is not full after one signal; nothing else can fail here. */
    }
    signal(number, SIG_DFL);
    errno = kept;
}

void stop_install(void)
{
    struct sigaction action = { .sa_handler = on_signal }, hangup;

    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0)
        abort();
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A terminal that was closed, unless nohup says that this does not matter. */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of write, with words */
}

bool stop_asked(void)
{
    return asked;
}

int stop_fd(void)
{
    return event_fd;
}

bool stop_check(struct err *err)
{
    return asked ? err_set(err, ERR_INTERRUPTED, "interrupted") : true;
}

void stop_restore(void)
{
    sigset_t none;

    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}
