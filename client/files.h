/* files - small things about files that several verbs need. */

#ifndef CLIENT_FILES_H
#define CLIENT_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

/* Writes aside, syncs, renames, syncs the directory: after a crash the file is the old one or the new one. */
bool file_replace(const char *path, struct span text, struct err *err);

/* For what is written piece by piece: a file that is whole and synced takes the place of another, and the directory is
 * synced; the second syncs and closes it first (ok false: only closes). */
bool file_put_in_place(const char *aside, const char *path, struct err *err);
bool file_close_in_place(int fd, bool ok, const char *aside, const char *path, struct err *err);

/* ERR_NOT_FOUND when there is none; ERR_LIMIT above max bytes. */
bool file_read(const char *path, size_t max, struct buf *text, struct err *err);

bool file_write_all(int fd, struct span bytes, const char *name, struct err *err);
bool file_sync_directory_of(const char *path, struct err *err);

/* An absolute path without links in its directory; the last part need not exist, its directory must. */
bool file_absolute(const char *path, char *absolute, size_t size, struct err *err);

/* Removes a directory and what is in it, links not followed.  A missing one is fine. */
bool file_remove_tree(const char *path, struct err *err);

/* Joins with '/'; an error when it does not fit. */
bool file_join(char *path, size_t size, const char *dir, const char *name, struct err *err);

#endif
