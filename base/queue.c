#include "base/queue.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A mutex, not a lock-free ring: a hand-over happens a few thousand times a second, and the thread
 * sanitizer understands it. */
struct queue {
    pthread_mutex_t lock;
    size_t first, count, max;
    int fd;
    void *item[];
};

struct queue *queue_new(size_t max)
{
    struct queue *queue;

    if (max == 0 || max > (SIZE_MAX - sizeof *queue) / sizeof(void *))
        return NULL;
    queue = malloc(sizeof *queue + max * sizeof(void *));
    if (!queue)
        return NULL;
    queue->first = queue->count = 0;
    queue->max = max;
    queue->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (queue->fd < 0) {
        free(queue);
        return NULL;
    }
    pthread_mutex_init(&queue->lock, NULL);
    return queue;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    assert(queue->count == 0);
    pthread_mutex_destroy(&queue->lock);
    close(queue->fd);
    free(queue);
}

bool queue_put(struct queue *queue, void *item)
{
    bool ok;

    pthread_mutex_lock(&queue->lock);
    ok = queue->count < queue->max;
    if (ok) {
        queue->item[(queue->first + queue->count) % queue->max] = item;
        if (queue->count++ == 0) {
            uint64_t one = 1;
            ssize_t n = write(queue->fd, &one, sizeof one);

            assert(n == sizeof one);
            (void)n;
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return ok;
}

void *queue_take(struct queue *queue)
{
    void *item = NULL;

    pthread_mutex_lock(&queue->lock);
    if (queue->count > 0) {
        item = queue->item[queue->first];
        queue->first = (queue->first + 1) % queue->max;
        if (--queue->count == 0) {
            uint64_t drained;
            ssize_t n = read(queue->fd, &drained, sizeof drained);

            assert(n == sizeof drained);
            (void)n;
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return item;
}

int queue_fd(const struct queue *queue)
{
    return queue->fd;
}

size_t queue_count(struct queue *queue)
{
    size_t count;

    pthread_mutex_lock(&queue->lock);
    count = queue->count;
    pthread_mutex_unlock(&queue->lock);
    return count;
}
