/* The thread queue: nothing is lost, doubled or reordered; full and empty are plain answers. */

#include "base/queue.h"
#include "tests/check.h"

#include <poll.h>
#include <pthread.h>

enum { ITEMS = 20000 };

static bool readable(const struct queue *queue, int timeout_ms)
{
    struct pollfd p = { .fd = queue_fd(queue), .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

static void test_full_and_empty_are_plain_answers(void **state)
{
    int a, b, c;
    struct queue *queue = queue_new(2);

    (void)state;
    CHECK(!queue_take(queue));
    CHECK(!readable(queue, 0));
    CHECK(queue_put(queue, &a));
    CHECK(queue_put(queue, &b));
    CHECK(!queue_put(queue, &c));
    CHECK(readable(queue, 0));
    CHECK(queue_take(queue) == &a);
    CHECK(readable(queue, 0));
    CHECK(queue_put(queue, &c));
    CHECK(queue_take(queue) == &b);
    CHECK(queue_take(queue) == &c);
    CHECK(!readable(queue, 0));
    queue_free(queue);
    queue_free(NULL);
}

static int item[ITEMS];

static void *feed(void *queue)
{
    for (int i = 0; i < ITEMS; i++) {
        item[i] = i; /* written here, read by the other thread: the queue must order the two */
        while (!queue_put(queue, &item[i]))
            sched_yield();
    }
    return NULL;
}

static void test_items_cross_threads_whole_and_in_order(void **state)
{
    struct queue *queue = queue_new(64);
    pthread_t thread;
    int next = 0;

    (void)state;
    CHECK(pthread_create(&thread, NULL, feed, queue) == 0);
    while (next < ITEMS) {
        int *got = queue_take(queue);

        if (!got) {
            CHECK(readable(queue, 5000));
            continue;
        }
        CHECK(*got == next);
        next++;
    }
    pthread_join(thread, NULL);
    CHECK(queue_count(queue) == 0);
    queue_free(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_empty_are_plain_answers),
        cmocka_unit_test(test_items_cross_threads_whole_and_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
