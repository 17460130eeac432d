#include "worker/schedule.h"

static uint32_t pages_of(uint32_t positions, uint32_t page)
{
    return positions / page + (positions % page != 0);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Takes the cache of the youngest running item after `than`.  False when there is none. */
static bool preempt_younger(struct schedule_item *item, int count, int than, struct schedule_limits *limits,
                            uint32_t *budget)
{
    for (int i = count - 1; i > than; i--) {
        if (!item[i].running)
            continue;
        limits->pages_free += pages_of(item[i].cached + item[i].rows, limits->page) - item[i].shared;
        *budget += item[i].rows;
        item[i].rows = 0;
        item[i].cached = 0;
        item[i].running = false;
        item[i].preempt = true;
        return true;
    }
    return false;
}

/* Gives a running item its rows, and their pages, at the expense of younger ones if need be. */
static void grow(struct schedule_item *item, int count, int i, struct schedule_limits *limits,
                 uint32_t *budget)
{
    uint32_t rows = smaller(item[i].total - item[i].cached, *budget);

    while (rows > 0) {
        uint32_t need =
            pages_of(item[i].cached + rows, limits->page) - pages_of(item[i].cached, limits->page);
        uint32_t room;

        if (need <= limits->pages_free) {
            limits->pages_free -= need;
            break;
        }
        if (preempt_younger(item, count, i, limits, budget))
            continue;
        /* What still fits into the page begun and the free ones. */
        room = (pages_of(item[i].cached, limits->page) + limits->pages_free) * limits->page - item[i].cached;
        rows = smaller(rows, room);
        if (rows == 0)
            break;
    }
    item[i].rows = rows;
    *budget -= rows;
}

void schedule_plan(struct schedule_item *item, int count, struct schedule_limits limits)
{
    uint32_t budget = limits.batch_tokens, running = 0;
    bool preempted = false, alone = false;

    for (int i = 0; i < count; i++) {
        item[i].rows = 0;
        item[i].preempt = item[i].impossible = item[i].share = false;
    }
    for (int i = 0; i < count && budget; i++)
        if (item[i].running && item[i].total - item[i].cached == 1)
            grow(item, count, i, &limits, &budget);
    for (int i = 0; i < count && budget; i++)
        if (item[i].running && item[i].total - item[i].cached > 1)
            grow(item, count, i, &limits, &budget);
    for (int i = 0; i < count; i++) {
        running += item[i].running;
        preempted |= item[i].preempt;
        alone |= item[i].running && item[i].alone;
    }

    /* Who was just sent away would only be let in to be sent away again. */
    for (int i = 0; i < count && budget && !preempted && !alone && running < limits.sequences_max; i++) {
        uint32_t need;

        if (item[i].running || item[i].held)
            continue;
        need = pages_of(item[i].total + 1, limits.page);
        if (need > limits.pages_all) {
            item[i].impossible = true;
            continue;
        }
        need -= item[i].offered / limits.page;
        /* A page for each that runs, so that the newcomer does not push itself out at once. */
        if ((running && need + running > limits.pages_free) || need > limits.pages_free ||
            (item[i].alone && running))
            break;
        item[i].running = true;
        if (item[i].offered) { /* and a copy of the page begun */
            item[i].share = true;
            item[i].cached = item[i].offered;
            limits.pages_free -= item[i].offered % limits.page != 0;
        }
        grow(item, count, i, &limits, &budget);
        running++;
        alone = item[i].alone;
    }

    /* The oldest that runs, and got nothing though it runs alone, has the whole cache already.  (Where others
     * were sent away just now, more may have come free than was counted.) */
    for (int i = 0; i < count && !preempted; i++)
        if (item[i].running && !item[i].rows && running == 1)
            item[i].impossible = true;
}
