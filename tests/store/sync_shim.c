/* sync_shim - preloaded into a broker: the disk as it can be.
 *
 *     SYNC_FAIL_AT=N    the N-th fsync or fdatasync fails with EIO, and all after it
 *     SYNC_DELAY=FILE   while FILE exists, each takes two seconds */

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static int disk(const char *name, int fd)
{
    static atomic_int calls;
    const char *at = getenv("SYNC_FAIL_AT"), *delay = getenv("SYNC_DELAY");
    int (*real)(int);

    if (at && atomic_fetch_add(&calls, 1) + 1 >= atoi(at)) {
        errno = EIO;
        return -1;
    }
    if (delay && access(delay, F_OK) == 0)
        sleep(2);
    *(void **)&real = dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd)
{
    return disk("fsync", fd);
}

int fdatasync(int fd)
{
    return disk("fdatasync", fd);
}
