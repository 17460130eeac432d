/* queue - how threads meet.
 *
 * A bounded queue of pointers with an eventfd that can be waited on beside sockets.  Whoever puts
 * a pointer in gives it away; whoever takes it out owns it.  Any number of threads at both ends. */

#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

struct queue;

struct queue *queue_new(size_t max); /* NULL without memory or descriptors */
void queue_free(struct queue *queue); /* must be empty; NULL is fine */

bool queue_put(struct queue *queue, void *item);  /* false when full: the caller still owns item */
void *queue_take(struct queue *queue);            /* NULL when empty; never blocks */
int queue_fd(const struct queue *queue);          /* readable while the queue is not empty */
size_t queue_count(struct queue *queue);

#endif
