#include "client/private_hall.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/files.h"
#include "client/say.h"
#include "client/stop.h"

enum {
    LOCK_WAIT_MS = 30 * 1000,
    LOCK_LOOK_MS = 300,   /* somebody only looks who holds the lock, and so holds it for a moment */
    LOCK_BRIEF_MS = 2000, /* for a command that is soon over (status, audit) */
    BACKOFF_MS = 100,
    BACKOFF_MAX_MS = 10 * 1000,
    LEAVE_MS = 15 * 1000, /* a child that was told to leave, until it is ended */
    LOG_LOOK_MS = 5000,
    PATH_SIZE = 4096,
    LINE_SIZE = 600,
    EXIT_MODEL = 3, /* moothall-worker: starting it again is of no use */
    EXIT_REFUSED = 4,
    DEATHS_PENDING_MAX = 64,
};

/* ---- the state directory ------------------------------------------------------------------------ */

static int open_lock(const char *dir, const char *name, struct err *err)
{
    char path[PATH_SIZE];
    int fd;

    if (!file_join(path, sizeof path, dir, name, err))
        return -1;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        err_errno(err, "open %s", path);
    return fd;
}

static void read_holder(int fd, int *pid, char *verb, size_t size)
{
    char text[64] = "", word[32] = "";

    *pid = 0;
    if (pread(fd, text, sizeof text - 1, 0) > 0)
        sscanf(text, "%d %31s", pid, word);
    snprintf(verb, size, "%s", word);
}

/* The descriptor's file is the one that has this name. */
static bool is_still_there(int fd, const char *dir, const char *name)
{
    char path[PATH_SIZE];
    struct stat held, named;

    return file_join(path, sizeof path, dir, name, NULL) && fstat(fd, &held) == 0 &&
           stat(path, &named) == 0 && held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

static bool is_long(const char *verb)
{
    static const char *const verbs[] = { "run", "extract", "summarize", "bench" };

    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(verb, verbs[i]))
            return true;
    return false;
}

static bool take_run_lock(struct state_lock *lock, const char *verb, struct err *err)
{
    int64_t begin_ms = clock_now_ms();
    char holder[32], text[64];
    int pid, n;

    for (;;) {
        if (lock->run_fd < 0)
            lock->run_fd = open_lock(lock->dir, "run.lock", err);
        if (lock->run_fd < 0)
            return false;
        if (flock(lock->run_fd, LOCK_EX | LOCK_NB) == 0) {
            if (is_still_there(lock->run_fd, lock->dir, "run.lock"))
                break;
            close(lock->run_fd); /* its last holder removed it; there may be another by now */
            lock->run_fd = -1;
            continue;
        }
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_errno(err, "lock %s/run.lock", lock->dir);
        read_holder(lock->run_fd, &pid, holder, sizeof holder);
        if (clock_now_ms() - begin_ms >= (is_long(holder) ? LOCK_LOOK_MS : LOCK_BRIEF_MS))
            return err_set(err, ERR_BUSY, "process %d (moothall %s) is at work in %s; wait for it or stop it",
                           pid, holder, lock->dir);
        if (!stop_check(err))
            return false;
        usleep(20 * 1000);
    }
    n = snprintf(text, sizeof text, "%d %s\n", (int)getpid(), verb);
    if (ftruncate(lock->run_fd, 0) != 0 || pwrite(lock->run_fd, text, (size_t)n, 0) != n)
        return err_errno(err, "write %s/run.lock", lock->dir);
    return true;
}

static bool take_shared_lock(struct state_lock *lock, struct err *err)
{
    int64_t until_ms = clock_now_ms() + LOCK_WAIT_MS;
    bool said = false;

    lock->shared_fd = open_lock(lock->dir, "lock", err);
    if (lock->shared_fd < 0)
        return false;
    while (flock(lock->shared_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_errno(err, "lock %s/lock", lock->dir);
        if (clock_now_ms() >= until_ms)
            return err_set(
                err, ERR_BUSY,
                "processes of an earlier, killed run still work in %s after %d s; `fuser %s/lock` names them",
                lock->dir, LOCK_WAIT_MS / 1000, lock->dir);
        if (!said && clock_now_ms() >= until_ms - LOCK_WAIT_MS + 500) {
            say("waiting for the processes of an earlier run to end");
            said = true;
        }
        if (!stop_check(err))
            return false;
        usleep(20 * 1000);
    }
    return true;
}

/* A directory of somebody's own files must not become a state directory: names in it would be ours to
 * replace. */
static bool is_state_dir(const char *dir, struct err *err)
{
    static const char *const marks[] = { "run.lock", "record.json" };
    char path[PATH_SIZE];
    struct dirent *entry;
    bool empty = true;
    DIR *d;

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (file_join(path, sizeof path, dir, marks[i], NULL) && access(path, F_OK) == 0)
            return true;
    d = opendir(dir);
    if (!d)
        return err_errno(err, "open the state directory %s", dir);
    while (empty && (entry = readdir(d)))
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    closedir(d);
    return empty ||
           err_set(err, ERR_CONFLICT,
                   "%s holds other files and is not the state of a run; expected a new or an empty directory",
                   dir);
}

bool state_lock_take(struct state_lock *lock, const char *dir, const char *verb, struct err *err)
{
    lock->run_fd = lock->shared_fd = -1;
    snprintf(lock->dir, sizeof lock->dir, "%s", dir);
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        err_errno(err, "make the state directory %s", dir);
        return false;
    }
    if (!is_state_dir(dir, err) || !take_run_lock(lock, verb, err) || !take_shared_lock(lock, err)) {
        state_lock_release(lock);
        return false;
    }
    return true;
}

void state_lock_release(struct state_lock *lock)
{
    if (lock->shared_fd >= 0)
        close(lock->shared_fd);
    if (lock->run_fd >= 0)
        close(lock->run_fd);
    lock->run_fd = lock->shared_fd = -1;
}

bool state_is_live(const char *dir, int *pid)
{
    char path[PATH_SIZE], verb[32];
    int fd;
    bool live;

    if (!file_join(path, sizeof path, dir, "run.lock", NULL))
        return false;
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    live = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    read_holder(fd, pid, verb, sizeof verb);
    close(fd);
    return live;
}

static bool store_path(char *path, size_t size, const char *dir, struct err *err)
{
    return file_join(path, size, dir, "store/hall.db", err);
}

bool state_store_exists(const char *dir)
{
    char path[PATH_SIZE];

    return store_path(path, sizeof path, dir, NULL) && access(path, F_OK) == 0;
}

bool state_clear(const char *dir, bool keep_store, struct err *err)
{
    char path[PATH_SIZE], name[32];
    bool ok = true;

    if (!keep_store)
        ok = file_join(path, sizeof path, dir, "store", err) && file_remove_tree(path, err);
    /* With the store its processes' logs are kept too. */
    for (int i = -2; ok && i <= (keep_store ? -1 : PRIVATE_WORKERS_MAX); i++) {
        snprintf(name, sizeof name,
                 i == -2   ? "input.jsonl"
                 : i == -1 ? "record.json.new"
                 : i == 0  ? "broker.log"
                           : "worker-%d.log",
                 i);
        ok = file_join(path, sizeof path, dir, name, err);
        if (ok)
            unlink(path);
    }
    return ok;
}

/* ---- sockets ---------------------------------------------------------------------------------------- */

/* Where the state directory's hall has, or had, its sockets: another login's runtime directory, maybe. */
static bool socket_dir_noted(char *dir, size_t size, const char *state)
{
    char path[PATH_SIZE];
    struct buf text = { 0 };
    bool ok = file_join(path, sizeof path, state, "sockets", NULL) &&
              file_read(path, size - 1, &text, NULL) && text.size > 0 && text.size < size &&
              text.data[0] == '/' && memmem(text.data, text.size, "/moothall-", 10) &&
              !memchr(text.data, 0, text.size);

    if (ok)
        snprintf(dir, size, "%.*s", (int)text.size, (const char *)text.data);
    buf_fini(&text);
    return ok;
}

/* BASE/moothall-<16 hex of the state directory's path>; BASE is the runtime directory, or /tmp where
 * that is missing or so long that a socket's path would not fit. */
static bool socket_dir(char *dir, size_t size, const char *state, struct err *err)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    char real[PATH_SIZE], hex[17];
    uint8_t digest[16];
    struct stat st;

    if (!file_absolute(state, real, sizeof real, err))
        return false;
    crypto_generichash(digest, sizeof digest, (const uint8_t *)real, strlen(real), NULL, 0);
    sodium_bin2hex(hex, sizeof hex, digest, 8);
    if (!base || *base != '/' || strlen(base) + 40 > sizeof((struct sockaddr_un *)0)->sun_path ||
        stat(base, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        base = "/tmp";
    snprintf(dir, size, "%s/moothall-%s", base, hex);
    return true;
}

bool state_endpoint(char *endpoint, size_t size, const char *state, struct err *err)
{
    char dir[128];

    if (!socket_dir_noted(dir, sizeof dir, state) && !socket_dir(dir, sizeof dir, state, err))
        return false;
    snprintf(endpoint, size, "ipc://%s/broker", dir);
    return true;
}

/* Ours, empty and closed to others, and noted before it is made.  Whoever calls this holds the state's
 * locks, so nobody uses it. */
static bool make_socket_dir(const char *dir, const char *state, struct err *err)
{
    char path[PATH_SIZE], old[128];
    struct stat st;

    if (socket_dir_noted(old, sizeof old, state) && strcmp(old, dir) != 0 && lstat(old, &st) == 0 &&
        S_ISDIR(st.st_mode) && st.st_uid == geteuid())
        file_remove_tree(old, NULL);
    if (!file_join(path, sizeof path, state, "sockets", err) || !file_replace(path, span_text(dir), err))
        return false;
    if (lstat(dir, &st) == 0) {
        if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
            return err_set(err, ERR_CONFLICT, "%s is somebody else's; sockets cannot be put there", dir);
        if (!file_remove_tree(dir, err))
            return false;
    }
    return mkdir(dir, 0700) == 0 || err_errno(err, "make %s", dir);
}

/* ---- children ------------------------------------------------------------------------------------ */

struct child {
    char name[32]; /* "broker", "worker-1" */
    bool is_worker;
    pid_t pid;      /* 0: not running */
    int control_fd; /* our end of its control pipe */
    char **argv;
    int argument_count; /* before --control-fd, which is another in every life */
    int log_fd;
    char log_path[PATH_SIZE];
    bool ready;          /* in this life */
    int deaths;          /* in a row, before it was ready */
    int64_t start_at_ms; /* when it is not running */
    int64_t backoff_ms;
};

struct death {
    char worker[32];
    pid_t pid;
    char reason[LINE_SIZE];
};

struct private_hall {
    struct link_context *context;
    const struct state_lock *lock;
    char sockets[128];
    char endpoint[160];
    char broker_program[PATH_SIZE], worker_program[PATH_SIZE];
    char model[PATH_SIZE], weights[16], chat_template[16], family[40];
    int workers, threads, sequences;
    struct child child[1 + PRIVATE_WORKERS_MAX]; /* the broker first */
    int child_count;
    int64_t log_look_ms;
    struct hall *session; /* the supervisor's own */
    struct death death[DEATHS_PENDING_MAX];
    int death_count;
    struct hall_side side;
    struct err fatal; /* it has come to its end */
};

static int child_event = -1;

static void on_child(int number)
{
    int kept = errno;
    uint64_t one = 1;

    (void)number;
    if (write(child_event, &one, sizeof one) < 0) {
        /* full: it is readable, which is all that matters */
    }
    errno = kept;
}

static void watch_children(void)
{
    struct sigaction action = { .sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP };

    if (child_event >= 0)
        return;
    child_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (child_event < 0)
        abort();
    sigemptyset(&action.sa_mask);
    sigaction(SIGCHLD, &action, NULL);
}

/* Beside this program, else in $PATH. */
static bool find_program(char *path, size_t size, const char *name, struct err *err)
{
    char self[PATH_SIZE];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    const char *list = getenv("PATH");

    if (n > 0) {
        char *slash;

        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash) {
            *slash = '\0';
            if (file_join(path, size, self, name, NULL) && access(path, X_OK) == 0)
                return true;
        }
    }
    while (list && *list) {
        const char *end = strchrnul(list, ':');

        snprintf(path, size, "%.*s/%s", (int)(end - list), list, name);
        if (end > list && access(path, X_OK) == 0)
            return true;
        list = *end ? end + 1 : end;
    }
    return err_set(err, ERR_NOT_FOUND, "%s was found neither beside the moothall program nor in PATH", name);
}

/* The last line that the child wrote: in most cases why it died. */
static void last_line(const struct child *child, char *line, size_t size)
{
    char tail[4096];
    off_t end = lseek(child->log_fd, 0, SEEK_END);
    off_t from = end > (off_t)sizeof tail ? end - (off_t)sizeof tail : 0;
    ssize_t n = pread(child->log_fd, tail, sizeof tail, from);
    ssize_t start;

    *line = '\0';
    while (n > 0 && (tail[n - 1] == '\n' || tail[n - 1] == '\r'))
        n--;
    for (start = n; start > 0 && tail[start - 1] != '\n'; start--)
        ;
    if (n > start)
        snprintf(line, size, "%.*s", (int)(n - start), tail + start);
}

static char *copy_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *copy_format(const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    return text;
}

static bool start_child(struct private_hall *hall, struct child *child, struct err *err)
{
    int control[2];
    pid_t pid, parent = getpid();
    struct stat st;

    if (fstat(child->log_fd, &st) == 0 && st.st_size > PRIVATE_LOG_BYTES_MAX &&
        ftruncate(child->log_fd, 0) != 0)
        return err_errno(err, "begin %s anew", child->log_path);
    if (pipe2(control, O_CLOEXEC) != 0)
        return err_errno(err, "make a pipe for %s", child->name);
    free(child->argv[child->argument_count]);
    child->argv[child->argument_count] = copy_format("--control-fd=%d", control[0]);
    pid = fork();
    if (pid < 0) {
        close(control[0]);
        close(control[1]);
        return err_errno(err, "start %s", child->name);
    }
    if (pid == 0) {
        char *argument = child->argv[0];

        /* A group of its own: ^C is for the command, which then ends its children in order. */
        setsid();
        /* The pipe ends them in order.  But a worker that loads a large model does not look at it for a
         * while, and has nothing to lose; the broker closes its store. */
        prctl(PR_SET_PDEATHSIG, child->is_worker ? SIGKILL : SIGTERM);
        if (getppid() != parent)
            _exit(0);
        stop_restore();
        signal(SIGCHLD, SIG_DFL);
        if (dup2(child->log_fd, STDOUT_FILENO) < 0 || dup2(child->log_fd, STDERR_FILENO) < 0)
            _exit(127);
        if (fcntl(control[0], F_SETFD, 0) != 0 || fcntl(hall->lock->shared_fd, F_SETFD, 0) != 0)
            _exit(127);
        close(STDIN_FILENO);
        if (open("/dev/null", O_RDONLY) != STDIN_FILENO)
            _exit(127);
        execv(argument, child->argv);
        _exit(127);
    }
    close(control[0]);
    child->control_fd = control[1];
    child->pid = pid;
    child->ready = false;
    return true;
}

enum { ARGUMENTS_MAX = 24 };

static bool add_child(struct private_hall *hall, bool is_worker, int number, struct err *err)
{
    struct child *child = &hall->child[hall->child_count];
    char name[48];
    int n = 0;

    memset(child, 0, sizeof *child);
    child->control_fd = child->log_fd = -1;
    child->is_worker = is_worker;
    child->backoff_ms = BACKOFF_MS;
    snprintf(child->name, sizeof child->name, is_worker ? "worker-%d" : "broker", number);
    snprintf(name, sizeof name, "%s.log", child->name);
    if (!file_join(child->log_path, sizeof child->log_path, hall->lock->dir, name, err))
        return false;
    child->log_fd = open(child->log_path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (child->log_fd < 0)
        return err_errno(err, "write %s", child->log_path);
    hall->child_count++;
    child->argv = calloc(ARGUMENTS_MAX, sizeof *child->argv);
    if (!child->argv)
        abort();
    if (is_worker) {
        child->argv[n++] = copy_format("%s", hall->worker_program);
        child->argv[n++] = copy_format("--broker=%s", hall->endpoint);
        child->argv[n++] = copy_format("--model=%s", hall->model);
        child->argv[n++] = copy_format("--weights=%s", hall->weights);
        child->argv[n++] = copy_format("--threads=%d", hall->threads);
        child->argv[n++] = copy_format("--name=%s", child->name);
        child->argv[n++] = copy_format("--exchange=ipc://%s/w%d", hall->sockets, number);
        if (*hall->chat_template)
            child->argv[n++] = copy_format("--chat-template=%s", hall->chat_template);
        if (hall->sequences)
            child->argv[n++] = copy_format("--sequences=%d", hall->sequences);
    } else {
        char store[PATH_SIZE];

        if (!store_path(store, sizeof store, hall->lock->dir, err))
            return false;
        child->argv[n++] = copy_format("%s", hall->broker_program);
        child->argv[n++] = copy_format("--listen=%s", hall->endpoint);
        child->argv[n++] = copy_format("--store=%s", store);
        child->argv[n++] = copy_format("--workers=%d", hall->workers);
        if (*hall->family)
            child->argv[n++] = copy_format("--family=%s", hall->family);
    }
    child->argv[n++] = copy_format("--lock-fd=%d", hall->lock->shared_fd);
    child->argument_count = n;
    assert(n + 1 < ARGUMENTS_MAX);
    return start_child(hall, child, err);
}

/* ---- supervision ------------------------------------------------------------------------------------ */

static void note_death(struct private_hall *hall, const struct child *child, pid_t pid, const char *reason)
{
    struct death *death;

    if (hall->death_count ==
        DEATHS_PENDING_MAX) /* the broker has been away for long: it will miss their heartbeats */
        return;
    death = &hall->death[hall->death_count++];
    snprintf(death->worker, sizeof death->worker, "%s", child->name);
    snprintf(death->reason, sizeof death->reason, "%s", reason);
    death->pid = pid;
}

/* Nobody waits for the Pong: a broker that dies before it has heard this finds out by itself. */
static void tell_deaths(struct private_hall *hall)
{
    struct err ignored;

    if (!hall->session || !hall_turn(hall->session, &ignored) || !hall_is_open(hall->session))
        return;
    for (int i = 0; i < hall->death_count; i++) {
        Moothall__Envelope envelope;
        Moothall__Death death = MOOTHALL__DEATH__INIT;

        death.worker = hall->death[i].worker;
        death.pid = (uint32_t)hall->death[i].pid;
        death.reason = hall->death[i].reason;
        link_envelope(&envelope, MOOTHALL__ENVELOPE__BODY_DEATH, &death, 0);
        link_send(hall_link(hall->session), NULL, &envelope, span_of(NULL, 0));
    }
    hall->death_count = 0;
}

static bool open_session(struct private_hall *hall, struct err *err)
{
    struct hall_config config = { .endpoint = hall->endpoint,
                                  .name = "supervisor",
                                  .role = MOOTHALL__ROLE__SUPERVISOR,
                                  .timeout_ms = INT64_MAX,
                                  .backoff_max_ms = 500,
                                  .silent = true };

    return hall_new(&hall->session, hall->context, &config, err);
}

static void how_it_ended(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d", WTERMSIG(status));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

static void buried(struct private_hall *hall, struct child *child, int status, int64_t now_ms)
{
    char end[64], line[LINE_SIZE];
    pid_t pid = child->pid;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;

    close(child->control_fd);
    child->control_fd = -1;
    child->pid = 0;
    how_it_ended(status, end, sizeof end);
    last_line(child, line, sizeof line);
    if (child->is_worker) {
        note_death(hall, child, pid, end);
    } else {
        /* Its session died with it, and must not pass for the next one's. */
        hall_free(hall->session);
        hall->session = NULL;
        if (!open_session(hall, &hall->fatal))
            return;
    }
    if (child->ready) {
        child->deaths = 0;
        child->backoff_ms = BACKOFF_MS;
    } else {
        child->deaths++;
    }
    if (child->is_worker && (code == EXIT_MODEL || code == EXIT_REFUSED)) {
        /* its own words are the error; what stands before them is only its name */
        const char *words = !strncmp(line, "moothall-worker: ", 17) ? line + 17 : line;

        err_set(&hall->fatal, code == EXIT_MODEL ? ERR_INPUT : ERR_REFUSED, "%s: %s", child->name,
                *words               ? words
                : code == EXIT_MODEL ? "the model cannot be loaded"
                                     : "the broker refused it");
        return;
    }
    if (child->deaths >= PRIVATE_DEATHS_MAX) {
        err_set(&hall->fatal, ERR_IO,
                "%s died %d times before it was ready (%s); its last words: %s; its log: %s", child->name,
                child->deaths, end, *line ? line : "none", child->log_path);
        return;
    }
    say("%s (process %d) died: %s; starting it again", child->name, (int)pid, end);
    child->start_at_ms = now_ms + child->backoff_ms;
    child->backoff_ms = child->backoff_ms * 2 < BACKOFF_MAX_MS ? child->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void look_at_logs(struct private_hall *hall, int64_t now_ms)
{
    if (now_ms - hall->log_look_ms < LOG_LOOK_MS)
        return;
    hall->log_look_ms = now_ms;
    for (int i = 0; i < hall->child_count; i++) {
        struct stat st;

        /* Writers append, so a file cut to nothing goes on from its start. */
        if (fstat(hall->child[i].log_fd, &st) == 0 && st.st_size > PRIVATE_LOG_BYTES_MAX &&
            ftruncate(hall->child[i].log_fd, 0) != 0)
            say("%s cannot be cut", hall->child[i].log_path);
    }
}

bool private_hall_turn(struct private_hall *hall, struct err *err)
{
    int64_t now_ms = clock_now_ms();
    uint64_t count;

    if (!stop_check(err))
        return false;
    if (read(child_event, &count, sizeof count) < 0) {
        /* nothing to clear */
    }
    for (int i = 0; i < hall->child_count && !hall->fatal.code; i++) {
        struct child *child = &hall->child[i];
        int status;

        if (child->pid && waitpid(child->pid, &status, WNOHANG) == child->pid)
            buried(hall, child, status, now_ms);
        if (!child->pid && !hall->fatal.code && now_ms >= child->start_at_ms &&
            !start_child(hall, child, &hall->fatal))
            break;
    }
    tell_deaths(hall);
    look_at_logs(hall, now_ms);
    if (hall->session && hall_is_open(hall->session))
        hall->child[0].ready = true;
    if (hall->fatal.code) {
        *err = hall->fatal;
        return false;
    }
    return true;
}

static bool side_turn(void *arg, struct err *err)
{
    return private_hall_turn(arg, err);
}

struct hall_side *private_hall_side(struct private_hall *hall)
{
    return &hall->side;
}

const char *private_hall_endpoint(const struct private_hall *hall)
{
    return hall->endpoint;
}

void private_hall_note(struct private_hall *hall, const Moothall__Status *status)
{
    for (size_t w = 0; w < status->n_worker; w++)
        for (int i = 1; i < hall->child_count; i++)
            if (status->worker[w]->connected && status->worker[w]->seated &&
                (pid_t)status->worker[w]->pid == hall->child[i].pid) {
                hall->child[i].ready = true;
                hall->child[i].backoff_ms = BACKOFF_MS;
            }
}

bool private_hall_is_ready(const struct private_hall *hall)
{
    for (int i = 1; i < hall->child_count; i++)
        if (!hall->child[i].ready)
            return false;
    return true;
}

/* ---- start and stop ---------------------------------------------------------------------------------- */

static int machine_threads(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

bool private_hall_add_workers(struct private_hall *hall, int workers, struct err *err)
{
    assert(workers <= PRIVATE_WORKERS_MAX);
    if (workers && !find_program(hall->worker_program, sizeof hall->worker_program, "moothall-worker", err))
        return false;
    if (!hall->threads) {
        hall->threads = machine_threads() / (workers ? workers : 1);
        if (hall->threads < 1)
            hall->threads = 1;
    }
    for (int i = 1; i <= workers; i++)
        if (!add_child(hall, true, i, err))
            return false;
    return true;
}

bool private_hall_start(struct private_hall **out, struct link_context *context,
                        const struct private_config *config, struct err *err)
{
    struct private_hall *hall = calloc(1, sizeof *hall);
    char store[PATH_SIZE];

    *out = NULL;
    if (!hall)
        return err_set(err, ERR_IO, "no memory for a hall");
    watch_children();
    hall->context = context;
    hall->lock = config->lock;
    hall->workers = config->workers;
    hall->threads = config->threads;
    hall->sequences = config->sequences;
    snprintf(hall->model, sizeof hall->model, "%s", config->model ? config->model : "");
    snprintf(hall->weights, sizeof hall->weights, "%s", config->weights ? config->weights : "auto");
    snprintf(hall->chat_template, sizeof hall->chat_template, "%s",
             config->chat_template ? config->chat_template : "");
    snprintf(hall->family, sizeof hall->family, "%s", config->family ? config->family : "");
    hall->side.turn = side_turn;
    hall->side.arg = hall;
    hall->side.fd[hall->side.fd_count++] = child_event;
    hall->side.fd[hall->side.fd_count++] = stop_fd();
    if (!socket_dir(hall->sockets, sizeof hall->sockets, config->lock->dir, err) ||
        !make_socket_dir(hall->sockets, config->lock->dir, err)) {
        free(hall);
        return false;
    }
    snprintf(hall->endpoint, sizeof hall->endpoint, "ipc://%s/broker", hall->sockets);
    if (!find_program(hall->broker_program, sizeof hall->broker_program, "moothall-broker", err) ||
        !file_join(store, sizeof store, config->lock->dir, "store", err))
        goto fail;
    if (mkdir(store, 0700) != 0 && errno != EEXIST) {
        err_errno(err, "make %s", store);
        goto fail;
    }
    if (!add_child(hall, false, 0, err) || !private_hall_add_workers(hall, config->workers, err) ||
        !open_session(hall, err))
        goto fail;
    *out = hall;
    return true;
fail:
    private_hall_stop(hall);
    return false;
}

/* True when all of them have ended. */
static bool wait_ended(struct private_hall *hall, bool workers, int64_t until_ms)
{
    for (;;) {
        bool running = false;

        for (int i = 0; i < hall->child_count; i++) {
            struct child *child = &hall->child[i];
            int status;

            if (child->is_worker != workers || !child->pid)
                continue;
            if (waitpid(child->pid, &status, WNOHANG) == child->pid)
                child->pid = 0;
            else
                running = true;
        }
        if (!running)
            return true;
        if (clock_now_ms() >= until_ms)
            return false;
        usleep(2000);
    }
}

static void end_children(struct private_hall *hall, bool workers)
{
    for (int i = 0; i < hall->child_count; i++)
        if (hall->child[i].is_worker == workers && hall->child[i].control_fd >= 0) {
            close(hall->child[i].control_fd);
            hall->child[i].control_fd = -1;
        }
    if (wait_ended(hall, workers, clock_now_ms() + LEAVE_MS))
        return;
    for (int i = 0; i < hall->child_count; i++)
        if (hall->child[i].is_worker == workers && hall->child[i].pid) {
            say("%s (process %d) did not leave within %d s and is ended", hall->child[i].name,
                (int)hall->child[i].pid, LEAVE_MS / 1000);
            kill(hall->child[i].pid, SIGKILL);
        }
    wait_ended(hall, workers, INT64_MAX);
}

void private_hall_stop(struct private_hall *hall)
{
    char noted[PATH_SIZE];

    if (!hall)
        return;
    hall_free(hall->session);
    end_children(hall, true);
    end_children(hall, false);
    for (int i = 0; i < hall->child_count; i++) {
        struct child *child = &hall->child[i];

        for (char **a = child->argv; a && *a; a++)
            free(*a);
        free(child->argv);
        if (child->log_fd >= 0)
            close(child->log_fd);
    }
    file_remove_tree(hall->sockets, NULL);
    if (file_join(noted, sizeof noted, hall->lock->dir, "sockets", NULL))
        unlink(noted);
    free(hall);
}
