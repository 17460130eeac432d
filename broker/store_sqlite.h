/* store_sqlite - the store on one SQLite file.
 *
 * The file is locked for as long as it is open: a second broker on it is refused and told the
 * first one's process id.  Beside FILE lie FILE-wal (SQLite's) and FILE.ballast, which holds disk
 * space so that leased work can still be finished and stored when the disk is full.
 *
 * Formats only go forward: `user_version` is the number of migrations applied (the table in
 * store_sqlite_open.c); an older file is brought up to date when it is opened, a newer one is refused.
 * To change the format, add a migration at the end of that table, and a test that opens a file of
 * the version before. */

#ifndef BROKER_STORE_SQLITE_H
#define BROKER_STORE_SQLITE_H

#include "broker/store.h"

struct store_options {
    int64_t ballast_bytes; /* at most; an eighth of the free disk where that is less */
    uint64_t hall;         /* the random id of a hall that is made new */
};

/* ":memory:" is a store without a file, for tests.  Refused, with the path and what was expected:
 * another program's file, a newer version, a read-only or damaged file, one that is in use. */
bool store_sqlite_open(struct store **store, const char *path, const struct store_options *options,
                       struct err *err);

#endif
