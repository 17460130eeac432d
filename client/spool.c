#include "client/spool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };

/* Direct mapped: page n lies in slot n % SPOOL_PAGES.  A pass in order never evicts what it still needs, and
 * an order at random would not be served better by anything small. */
struct page {
    uint64_t number; /* + 1; 0: the slot is empty */
    bool changed;
    uint8_t bytes[SPOOL_PAGE_SIZE];
};

struct spool {
    int fd;
    size_t element_size, per_page;
    char name[PATH_SIZE]; /* of the directory, for messages */
    struct page page[SPOOL_PAGES];
};

bool spool_new(struct spool **out, const char *dir, size_t element_size, struct err *err)
{
    char path[PATH_SIZE];
    struct spool *spool;

    assert(element_size >= 1 && element_size <= SPOOL_PAGE_SIZE);
    *out = NULL;
    if (!dir) {
        dir = getenv("TMPDIR");
        dir = dir && *dir ? dir : "/tmp";
    }
    if (snprintf(path, sizeof path, "%s/spool-XXXXXX", dir) >= (int)sizeof path)
        return err_set(err, ERR_INPUT, "the path %.200s... is too long", dir);
    spool = calloc(1, sizeof *spool);
    if (!spool)
        return err_set(err, ERR_IO, "no memory for a spool file's pages");
    spool->element_size = element_size;
    spool->per_page = SPOOL_PAGE_SIZE / element_size;
    snprintf(spool->name, sizeof spool->name, "%s", dir);
    spool->fd = mkostemp(path, O_CLOEXEC);
    if (spool->fd < 0) {
        err_errno(err, "make a spool file in %s", dir);
        free(spool);
        return false;
    }
    unlink(path);
    *out = spool;
    return true;
}

void spool_free(struct spool *spool)
{
    if (!spool)
        return;
    close(spool->fd);
    free(spool);
}

static bool write_page(struct spool *spool, struct page *page, struct err *err)
{
    off_t at = (off_t)((page->number - 1) * SPOOL_PAGE_SIZE);

    for (size_t done = 0; done < SPOOL_PAGE_SIZE;) {
        ssize_t n = pwrite(spool->fd, page->bytes + done, SPOOL_PAGE_SIZE - done, at + (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(err, "write a spool file in %s", spool->name);
        done += (size_t)n;
    }
    page->changed = false;
    return true;
}

static bool read_page(struct spool *spool, struct page *page, struct err *err)
{
    off_t at = (off_t)((page->number - 1) * SPOOL_PAGE_SIZE);
    size_t done = 0;

    while (done < SPOOL_PAGE_SIZE) {
        ssize_t n = pread(spool->fd, page->bytes + done, SPOOL_PAGE_SIZE - done, at + (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, "read a spool file in %s", spool->name);
            page->number = 0;
            return false;
        }
        if (n == 0)
            break; /* beyond the end: zeros */
        done += (size_t)n;
    }
    memset(page->bytes + done, 0, SPOOL_PAGE_SIZE - done);
    return true;
}

/* Where the element lies in memory; NULL: err says why it cannot be there. */
static uint8_t *find(struct spool *spool, uint64_t number, bool change, struct err *err)
{
    uint64_t at = number / spool->per_page;
    struct page *page = &spool->page[at % SPOOL_PAGES];

    if (page->number != at + 1) {
        if (page->number && page->changed && !write_page(spool, page, err))
            return NULL;
        page->number = at + 1;
        if (!read_page(spool, page, err))
            return NULL;
    }
    page->changed = page->changed || change;
    return page->bytes + number % spool->per_page * spool->element_size;
}

bool spool_get(struct spool *spool, uint64_t number, void *element, struct err *err)
{
    const uint8_t *at = find(spool, number, false, err);

    if (at)
        memcpy(element, at, spool->element_size);
    return at;
}

bool spool_set(struct spool *spool, uint64_t number, const void *element, struct err *err)
{
    uint8_t *at = find(spool, number, true, err);

    if (at)
        memcpy(at, element, spool->element_size);
    return at;
}
