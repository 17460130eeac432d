#include "broker/store_sqlite_inside.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define AUDIT_OF_ENTRIES (INT64_C(1) << 62)

static void fault(struct audit_slice *slice, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct audit_slice *slice, const char *format, ...)
{
    va_list args;

    if (*slice->first_fault)
        return;
    va_start(args, format);
    vsnprintf(slice->first_fault, sizeof slice->first_fault, format, args);
    va_end(args);
}

/* One job: does every ended generation have its one entry, and are the bytes what was stored? */
static size_t audit_entries_of(struct sqlite_store *self, int64_t seq, const char *id, int64_t generations,
                               bool ended, int64_t newest, struct audit_slice *slice)
{
    sqlite3_stmt *s = use(self, AUDIT_ENTRY);
    int64_t distinct = 0, last = 0, newest_key = 0;
    size_t bytes = 0;

    if (!s)
        return 0;
    sqlite3_bind_int64(s, 1, seq);
    while (next_row(self, s)) {
        int64_t generation = sqlite3_column_int64(s, 1);
        struct span data = column_span(s, 3);

        slice->entries++;
        bytes += data.size;
        newest_key = sqlite3_column_int64(s, 0);
        if (generation == last) {
            slice->doubled++;
            fault(slice, "job %s generation %" PRId64 " has two entries", id, generation);
        } else if (generation < 1 || generation > generations - !ended) {
            slice->doubled++;
            fault(slice, "job %s has an entry of generation %" PRId64 ", which has not ended", id,
                  generation);
        } else {
            distinct++;
        }
        last = generation;
        if (!body_is_intact(s, 2, 3, 4)) {
            slice->corrupt++;
            fault(slice, "the result of job %s (entry %" PRId64 ") has a wrong checksum", id,
                  entry_number(newest_key));
        }
    }
    if (distinct != generations - !ended) {
        slice->missing += generations - !ended - distinct;
        fault(slice, "job %s: %" PRId64 " generations have ended, %" PRId64 " have an entry", id,
              generations - !ended, distinct);
    } else if (ended && newest != entry_number(newest_key)) {
        slice->missing++;
        fault(slice, "job %s names entry %" PRId64 ", its newest is %" PRId64, id, newest,
              entry_number(newest_key));
    }
    return bytes;
}

static void audit_jobs(struct sqlite_store *self, const char *batch_name, int64_t after,
                       struct audit_slice *slice)
{
    sqlite3_stmt *s = use(self, AUDIT_JOB);
    int64_t last = one_number(self, use(self, JOB_LAST), 0), end = after + AUDIT_JOBS;
    size_t bytes = 0;

    slice->next = AUDIT_OF_ENTRIES;
    if (!s)
        return;
    sqlite3_bind_int64(s, 1, after);
    sqlite3_bind_int64(s, 2, end);
    bind_text(s, 3, batch_name);
    if (end < last)
        slice->next = end;
    while (next_row(self, s)) {
        int64_t seq = sqlite3_column_int64(s, 0);
        char id[JOB_ID_MAX + 1];
        int64_t generations = sqlite3_column_int64(s, 2);
        bool ended = job_ended((enum job_state)sqlite3_column_int(s, 3));
        struct span data = column_span(s, 6);

        column_text(s, 1, id, sizeof id);
        slice->jobs++;
        slice->generations += generations;
        slice->unfinished += !ended;
        bytes += data.size;
        if (sqlite3_column_type(s, 5) == SQLITE_NULL
                ? sqlite3_column_int64(s, 7) == 0 /* it was not purged */
                : span_crc32c(0, data) != (uint32_t)sqlite3_column_int64(s, 5)) {
            slice->corrupt++;
            fault(slice, "the request of job %s has a wrong checksum", id);
        }
        bytes += audit_entries_of(self, seq, id, generations, ended, sqlite3_column_int64(s, 4), slice);
        if (bytes >= AUDIT_BYTES && seq < last) {
            slice->next = seq;
            sqlite3_reset(s);
            return;
        }
    }
}

static void audit_numbers(struct sqlite_store *self, int64_t after, struct audit_slice *slice)
{
    sqlite3_stmt *s = use(self, AUDIT_KEYS);
    int64_t before = after;
    int n = 0;

    if (!s)
        return;
    sqlite3_bind_int64(s, 1, after);
    sqlite3_bind_int(s, 2, AUDIT_ENTRIES);
    while (next_row(self, s)) {
        int64_t key = sqlite3_column_int64(s, 0);
        int64_t expected =
            key >> ENTRY_BITS == before >> ENTRY_BITS ? before + 1 : entry_key(key >> ENTRY_BITS, 1);

        if (key != expected) {
            slice->holes += key - expected;
            fault(slice, "a result queue jumps from entry %" PRId64 " to %" PRId64, entry_number(before),
                  entry_number(key));
        }
        before = key;
        n++;
    }
    if (n == AUDIT_ENTRIES) {
        slice->next = AUDIT_OF_ENTRIES | before;
        return;
    }
    slice->next = 0;
    s = use(self, AUDIT_KEY_LAST);
    while (s && next_row(self, s)) {
        int64_t counted = sqlite3_column_int64(s, 1), there = entry_number(sqlite3_column_int64(s, 2));

        if (counted != there) {
            slice->holes += counted > there ? counted - there : there - counted;
            fault(slice, "queue %s counts %" PRId64 " entries, its last has number %" PRId64,
                  (const char *)sqlite3_column_text(s, 3), counted, there);
        }
    }
}

void inside_audit(struct store *store, const char *batch_name, int64_t after, struct audit_slice *slice)
{
    memset(slice, 0, sizeof *slice);
    if (after & AUDIT_OF_ENTRIES)
        audit_numbers(self_of(store), after & ~AUDIT_OF_ENTRIES, slice);
    else
        audit_jobs(self_of(store), batch_name, after, slice);
}
