#include "client/files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };

bool file_join(char *path, size_t size, const char *dir, const char *name, struct err *err)
{
    int n = snprintf(path, size, "%s/%s", dir, name);

    if (n < 0 || (size_t)n >= size)
        return err_set(err, ERR_INPUT, "the path %.200s.../%s is too long", dir, name);
    return true;
}

bool file_write_all(int fd, struct span bytes, const char *name, struct err *err)
{
    while (bytes.size) {
        ssize_t n = write(fd, bytes.data, bytes.size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(err, "write %s", name);
        bytes = span_of(bytes.data + n, bytes.size - (size_t)n);
    }
    return true;
}

bool file_sync_directory_of(const char *path, struct err *err)
{
    char dir[PATH_SIZE];
    const char *slash = strrchr(path, '/');
    int fd;
    bool ok;

    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "open directory %s", dir);
    ok = fsync(fd) == 0 || errno == EINVAL || err_errno(err, "sync directory %s", dir);
    close(fd);
    return ok;
}

bool file_put_in_place(const char *aside, const char *path, struct err *err)
{
    if (rename(aside, path) != 0)
        return err_errno(err, "rename %s to %s", aside, path);
    return file_sync_directory_of(path, err);
}

bool file_close_in_place(int fd, bool ok, const char *aside, const char *path, struct err *err)
{
    ok = ok && (fsync(fd) == 0 || err_errno(err, "sync %s", aside));
    close(fd);
    return ok && file_put_in_place(aside, path, err);
}

bool file_replace(const char *path, struct span text, struct err *err)
{
    char aside[PATH_SIZE];
    int fd;
    bool ok;

    if (snprintf(aside, sizeof aside, "%s.new", path) >= (int)sizeof aside)
        return err_set(err, ERR_INPUT, "the path %.200s... is too long", path);
    fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "write %s", aside);
    ok = file_write_all(fd, text, aside, err);
    return file_close_in_place(fd, ok, aside, path, err);
}

bool file_read(const char *path, size_t max, struct buf *text, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        bool missing = errno == ENOENT || errno == ENOTDIR;

        err_errno(err, "open %s", path);
        if (missing && err)
            err->code = ERR_NOT_FOUND;
        return false;
    }
    for (;;) {
        ssize_t n;

        if (text->size > max) {
            close(fd);
            return err_set(err, ERR_LIMIT, "%s has more than %zu bytes", path, max);
        }
        if (!buf_reserve(text, 65536)) {
            close(fd);
            return err_set(err, ERR_IO, "no memory to read %s", path);
        }
        n = read(fd, text->data + text->size, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, "read %s", path);
            close(fd);
            return false;
        }
        if (n == 0)
            break;
        text->size += (size_t)n;
    }
    close(fd);
    return true;
}

bool file_absolute(const char *path, char *absolute, size_t size, struct err *err)
{
    char dir[PATH_SIZE], real[PATH_MAX];
    const char *slash, *name;

    if (strlen(path) >= sizeof dir)
        return err_set(err, ERR_INPUT, "the path %.200s... is too long", path);
    slash = strrchr(path, '/');
    name = slash ? slash + 1 : path;
    if (!*name || !strcmp(name, ".") || !strcmp(name, "..")) {
        if (!realpath(path, real))
            return err_errno(err, "%s", path);
        snprintf(absolute, size, "%s", real);
        return strlen(real) < size || err_set(err, ERR_INPUT, "the path %.200s... is too long", path);
    }
    snprintf(dir, sizeof dir, "%.*s",
             slash == path ? 1
             : slash       ? (int)(slash - path)
                           : 1,
             slash ? path : ".");
    if (!realpath(dir, real)) {
        int why = errno;

        if (why == ENOENT || why == ENOTDIR)
            return err_set(err, ERR_NOT_FOUND, "%s: there is no directory %s", path, dir);
        return err_errno(err, "%s", dir);
    }
    return file_join(absolute, size, strcmp(real, "/") ? real : "", name, err);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

bool file_remove_tree(const char *path, struct err *err)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT || err_errno(err, "%s", path);
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return err_errno(err, "remove %s", path);
    return true;
}
