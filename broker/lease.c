#include "broker/lease.h"

#include <assert.h>
#include <stdlib.h>

#include "broker/job.h"

/* A plain array of leases, for the scans (what is due, what does a worker hold), and a table of
 * slots beside it that finds one by its job.  A job has at most one lease, so its number is the key. */
struct lease_table {
    size_t count, max;
    int64_t due_ms; /* no lease is due before this: most looks for expired leases end here */
    size_t slot_mask;
    uint32_t *slot; /* index + 1 into lease; 0: free.  Open addressing, at most half full */
    struct lease lease[];
};

struct lease_table *lease_table_new(size_t lease_max)
{
    struct lease_table *table;
    size_t slots = 2;

    assert(lease_max > 0 && lease_max < UINT32_MAX / 2);
    while (slots < 2 * lease_max)
        slots *= 2;
    table = malloc(sizeof *table + lease_max * sizeof table->lease[0]);
    if (!table)
        return NULL;
    *table = (struct lease_table){ .max = lease_max, .due_ms = INT64_MAX, .slot_mask = slots - 1 };
    table->slot = calloc(slots, sizeof *table->slot);
    if (!table->slot) {
        free(table);
        return NULL;
    }
    return table;
}

void lease_table_free(struct lease_table *table)
{
    if (!table)
        return;
    free(table->slot);
    free(table);
}

size_t lease_count(const struct lease_table *table)
{
    return table->count;
}

static size_t home(const struct lease_table *table, int64_t seq)
{
    return (size_t)((uint64_t)seq * 0x9e3779b97f4a7c15u >> 20) & table->slot_mask;
}

/* The slot that holds the job's lease, or the free one where it would go. */
static size_t find_slot(const struct lease_table *table, int64_t seq)
{
    size_t s = home(table, seq);

    while (table->slot[s] && fence_seq(table->lease[table->slot[s] - 1].fence) != seq)
        s = (s + 1) & table->slot_mask;
    return s;
}

static struct lease *find(const struct lease_table *table, uint64_t fence)
{
    uint32_t index = table->slot[find_slot(table, fence_seq(fence))];
    const struct lease *lease = index ? &table->lease[index - 1] : NULL;

    return lease && lease->fence == fence ? (struct lease *)(uintptr_t)lease : NULL;
}

bool lease_grant(struct lease_table *table, struct lease lease, struct err *err)
{
    size_t s = find_slot(table, fence_seq(lease.fence));

    assert(!table->slot[s]); /* the window never offers a leased job */
    if (table->count == table->max)
        return err_set(err, ERR_LIMIT, "all %zu leases are out", table->max);
    table->lease[table->count++] = lease;
    table->slot[s] = (uint32_t)table->count;
    if (lease.deadline_ms < table->due_ms)
        table->due_ms = lease.deadline_ms;
    return true;
}

bool lease_find(const struct lease_table *table, uint64_t fence, struct lease *found)
{
    const struct lease *lease = find(table, fence);

    if (lease)
        *found = *lease;
    return lease != NULL;
}

bool lease_find_job(const struct lease_table *table, int64_t seq, struct lease *found)
{
    uint32_t index = table->slot[find_slot(table, seq)];

    if (index)
        *found = table->lease[index - 1];
    return index != 0;
}

bool lease_touch(struct lease_table *table, uint64_t fence, uint32_t worker, int64_t deadline_ms)
{
    struct lease *lease = find(table, fence);

    if (!lease || lease->worker != worker)
        return false;
    lease->deadline_ms = deadline_ms;
    return true;
}

/* Frees the slot and moves later ones of the same run up, so that no search stops short. */
static void free_slot(struct lease_table *table, size_t s)
{
    size_t next = s;

    table->slot[s] = 0;
    for (;;) {
        size_t wanted;

        next = (next + 1) & table->slot_mask;
        if (!table->slot[next])
            return;
        wanted = home(table, fence_seq(table->lease[table->slot[next] - 1].fence));
        if (((next - wanted) & table->slot_mask) >= ((next - s) & table->slot_mask)) {
            table->slot[s] = table->slot[next];
            table->slot[next] = 0;
            s = next;
        }
    }
}

static void remove_at(struct lease_table *table, size_t i)
{
    size_t last = table->count - 1;

    free_slot(table, find_slot(table, fence_seq(table->lease[i].fence)));
    if (i != last) {
        table->slot[find_slot(table, fence_seq(table->lease[last].fence))] = (uint32_t)i + 1;
        table->lease[i] = table->lease[last];
    }
    table->count = last;
}

bool lease_remove(struct lease_table *table, uint64_t fence)
{
    const struct lease *lease = find(table, fence);

    if (!lease)
        return false;
    remove_at(table, (size_t)(lease - table->lease));
    return true;
}

bool lease_expire(struct lease_table *table, int64_t now_ms, struct lease *expired)
{
    if (now_ms < table->due_ms)
        return false;
    table->due_ms = INT64_MAX;
    for (size_t i = 0; i < table->count; i++) {
        if (table->lease[i].deadline_ms <= now_ms) {
            *expired = table->lease[i];
            table->due_ms = now_ms; /* there may be more */
            remove_at(table, i);
            return true;
        }
        if (table->lease[i].deadline_ms < table->due_ms)
            table->due_ms = table->lease[i].deadline_ms;
    }
    return false;
}

bool lease_take(struct lease_table *table, uint32_t worker, struct lease *taken)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->lease[i].worker == worker) {
            *taken = table->lease[i];
            remove_at(table, i);
            return true;
        }
    return false;
}

struct lease lease_at(const struct lease_table *table, size_t i)
{
    assert(i < table->count);
    return table->lease[i];
}
