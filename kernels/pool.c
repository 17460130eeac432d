#include "kernels/pool.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

/* A job's number, its next unit and its number of units stand in one word, so that a thread that wakes
 * late can never take a unit of a job it knows nothing of: the compare-and-swap fails. */
enum { UNIT_BITS = 21 };
#define UNIT_MASK (((uint64_t)1 << UNIT_BITS) - 1)

/* How long a thread looks before it sleeps: about what sleeping and waking cost.  By the clock, since a pause
 * takes from 5 to 140 cycles. */
enum { SPIN_NS = 20000, SPIN_PAUSES = 32 };

struct pool {
    _Atomic uint64_t word;   /* job << 42 | next unit << 21 | units */
    _Atomic uint32_t done;   /* units finished; the caller sleeps on it */
    _Atomic uint32_t posted; /* grows with each job; threads sleep on it */
    _Atomic uint32_t sleepers;
    _Atomic bool caller_sleeps;
    _Atomic bool stop;
    pool_work *work;
    void *context;
    uint64_t job;
    int threads, started;
    pthread_t thread[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* Looks for a while until the word is (or is no longer) the value. */
static void spin(_Atomic uint32_t *word, uint32_t value, bool until_equal)
{
    int64_t end = 0;

    for (int i = 1; (atomic_load_explicit(word, memory_order_relaxed) == value) != until_equal; i++) {
        __builtin_ia32_pause();
        if (i % SPIN_PAUSES)
            continue;
        if (end == 0)
            end = clock_now_ns() + SPIN_NS;
        else if (clock_now_ns() >= end)
            return;
    }
}

/* Takes units of the current job until none is left. */
static void take_units(struct pool *pool)
{
    uint64_t word = atomic_load(&pool->word);

    for (;;) {
        uint64_t next = word >> UNIT_BITS & UNIT_MASK, units = word & UNIT_MASK;

        if (next >= units)
            return;
        if (!atomic_compare_exchange_weak(&pool->word, &word, word + (UNIT_MASK + 1)))
            continue;
        /* The unit is ours, so the job cannot end and its fields cannot change before we say done. */
        pool->work(pool->context, (int)next);
        if (atomic_fetch_add(&pool->done, 1) + 1 == units && atomic_load(&pool->caller_sleeps))
            futex_wake(&pool->done, 1);
        word = atomic_load(&pool->word);
    }
}

static bool has_units(struct pool *pool)
{
    uint64_t word = atomic_load(&pool->word);

    return (word >> UNIT_BITS & UNIT_MASK) < (word & UNIT_MASK);
}

static void *thread_main(void *context)
{
    struct pool *pool = context;

    while (!atomic_load(&pool->stop)) {
        uint32_t posted = atomic_load(&pool->posted);

        take_units(pool);
        spin(&pool->posted, posted, false);
        if (atomic_load(&pool->posted) != posted)
            continue;
        /* Whoever posts after we counted ourselves sees the count; whoever posted before changed the word. */
        atomic_fetch_add(&pool->sleepers, 1);
        if (!has_units(pool) && !atomic_load(&pool->stop))
            futex_wait(&pool->posted, posted);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
    return NULL;
}

static void stop_threads(struct pool *pool)
{
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->posted, 1);
    futex_wake(&pool->posted, INT_MAX);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->thread[i], NULL);
}

bool pool_new(struct pool **out, int threads, struct err *err)
{
    struct pool *pool;

    if (threads < 1 || threads > POOL_THREADS_MAX)
        return err_set(err, ERR_INPUT, "%d threads; expected 1 to %d", threads, POOL_THREADS_MAX);
    pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->thread[0]);
    if (!pool)
        return err_set(err, ERR_IO, "no memory for a thread pool");
    pool->threads = threads;
    for (int i = 0; i < threads - 1; i++) {
        int failed = pthread_create(&pool->thread[i], NULL, thread_main, pool);

        if (failed) {
            stop_threads(pool);
            free(pool);
            return err_set(err, ERR_IO, "start compute thread %d of %d: %s", i + 1, threads,
                           strerror(failed));
        }
        pool->started++;
    }
    *out = pool;
    return true;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    stop_threads(pool);
    free(pool);
}

int pool_threads(const struct pool *pool)
{
    return pool->threads;
}

void pool_run(struct pool *pool, pool_work *work, void *context, int units)
{
    uint32_t done;

    assert(units >= 0 && units <= POOL_UNITS_MAX);
    if (pool->threads == 1 || units <= 1) {
        for (int i = 0; i < units; i++)
            work(context, i);
        return;
    }
    pool->work = work;
    pool->context = context;
    atomic_store(&pool->done, 0);
    pool->job++;
    atomic_store(&pool->word, pool->job << 2 * UNIT_BITS | (uint64_t)units);
    atomic_fetch_add(&pool->posted, 1);
    if (atomic_load(&pool->sleepers) > 0)
        futex_wake(&pool->posted, units - 1 < pool->threads - 1 ? units - 1 : pool->threads - 1);
    take_units(pool);
    spin(&pool->done, (uint32_t)units, true);
    atomic_store(&pool->caller_sleeps, true);
    while ((done = atomic_load(&pool->done)) != (uint32_t)units)
        futex_wait(&pool->done, done);
    atomic_store(&pool->caller_sleeps, false);
}
