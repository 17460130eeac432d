#include "worker/step.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/model/forward.h"
#include "worker/schedule.h"

enum {
    LOGITS_MAX = 32, /* rows whose logits stand in memory at once */
    DRAWS_MAX = 32,  /* in one piece of work */
};

enum stage { STAGE_NONE, STAGE_ATTEND, STAGE_DENSE, STAGE_LOCAL, STAGE_SHARED, STAGE_AWAY, STAGE_LOGITS };

/* One row's part in one shard. */
struct part {
    uint16_t row, shard;
    uint16_t pair_count;
    bool given;                 /* to the local shards or to a call */
    struct exchange_call *call; /* NULL: computed here */
    uint32_t slot;              /* in the call's sums, or in the local ones */
};

/* A sequence's rows in the pass: [first, first + count). */
struct member {
    struct sequence *sequence;
    int first, count;
};

struct wanted {
    struct sequence *sequence;
    int32_t position;
};

struct step {
    struct model *model;
    const struct model_config *config;
    struct exchange *exchange;
    const struct tokenizer *tokenizer;
    struct step_config limits;
    struct dispatch_shape shape;
    size_t sum_size; /* one row in the carrier */

    struct cache_pool *pool;
    struct forward *forward;
    struct experts *experts;
    struct sampler *sampler;
    int32_t *hole; /* ids below the tokenizer's highest that it does not know: never drawn */
    int hole_count;
    struct job *jobs, *last_job;   /* oldest first */
    struct sequence *first, *last; /* those of their choices that are not over */
    int sequence_count;
    struct job *over; /* finished, to be taken */
    struct step_counts counts;

    /* The pass in progress. */
    enum stage stage;
    int layer;
    bool decode, away;
    struct forward_row *row;
    int row_count;
    struct member *member;
    int member_count;
    struct wanted *wanted;
    int wanted_count, wanted_ready, wanted_done; /* rows; those whose logits are there, those that are used */
    int choice_done;                             /* of the next row: choices that have drawn from it */
    struct schedule_item *item;
    struct sequence **item_sequence;
    int item_room;

    /* The MoE layer in progress. */
    struct part *part;
    int part_count, part_room;
    int *chosen; /* [part_room]: parts of one group */
    struct exchange_call **call;
    int call_count, call_room;
    struct expert_pair *pair;                  /* of the local call */
    int *expert_at;                            /* [experts + 1]: where an expert's pairs begin */
    uint8_t *sums;                             /* local: [part_room, H] */
    int local_first, local_count, local_pairs; /* slots of the local call under way; those before are done */
    bool local_begun;
    struct forward_sum *sum;
};

static void *must(void *memory)
{
    if (!memory) {
        log_error("step.memory", "reason=\"out of memory\"");
        abort();
    }
    return memory;
}

static void find_holes(struct step *step)
{
    int known = tokenizer_size(step->tokenizer);

    known = known < step->config->vocab ? known : step->config->vocab;
    step->hole = must(malloc(((size_t)known + 1) * sizeof *step->hole));
    for (int32_t id = 0; id < known; id++)
        if (!tokenizer_has(step->tokenizer, id))
            step->hole[step->hole_count++] = id;
}

bool step_new(struct step **out, struct model *model, const struct tokenizer *tokenizer,
              struct exchange *exchange, const struct step_config *config, struct err *err)
{
    struct step *step = must(calloc(1, sizeof *step));
    const struct model_config *c = model_config(model);
    size_t per_row, rows;

    *out = NULL;
    step->model = model;
    step->config = c;
    step->exchange = exchange;
    step->tokenizer = tokenizer;
    step->limits = *config;
    per_row = (size_t)(c->experts ? c->experts_per_token : 1);
    if (step->limits.batch_tokens > EXPERTS_SLOTS_MAX / (int)per_row)
        step->limits.batch_tokens = EXPERTS_SLOTS_MAX / (int)per_row;
    if (step->limits.batch_tokens > FORWARD_ROWS_MAX)
        step->limits.batch_tokens = FORWARD_ROWS_MAX;
    rows = (size_t)step->limits.batch_tokens;
    step->sum_size = (size_t)c->hidden * model_carrier_bytes(model);
    step->shape.hidden = (uint32_t)c->hidden;
    step->shape.carrier_bytes = (uint32_t)model_carrier_bytes(model);

    step->pool = cache_pool_new(model, config->cache_bytes);
    step->forward = forward_new(model, step->limits.batch_tokens, LOGITS_MAX);
    step->experts = experts_new(model);
    step->sampler = sampler_new(backend_best(NULL), c->vocab);
    if (!step->pool || !step->forward || !step->experts || !step->sampler) {
        step_free(step);
        return err_set(err, ERR_IO, "no memory for steps of %zu rows", rows);
    }
    if (cache_pool_pages_max(step->pool) < 1) {
        err_set(
            err, ERR_INPUT,
            "the cache of %lld bytes holds no page of %d positions; expected at least %lld bytes (--cache)",
            (long long)config->cache_bytes, CACHE_PAGE, (long long)model_position_bytes(model) * CACHE_PAGE);
        step_free(step);
        return false;
    }
    find_holes(step);
    step->part_room = (int)(rows * per_row);
    step->row = must(calloc(rows, sizeof *step->row));
    step->member = must(calloc(rows, sizeof *step->member));
    step->wanted = must(calloc(rows, sizeof *step->wanted));
    step->part = must(calloc((size_t)step->part_room, sizeof *step->part));
    step->chosen = must(calloc((size_t)step->part_room, sizeof *step->chosen));
    step->pair = must(calloc((size_t)step->part_room, sizeof *step->pair));
    step->sum = must(calloc((size_t)step->part_room, sizeof *step->sum));
    step->sums = must(malloc((size_t)step->part_room * step->sum_size));
    step->expert_at = must(calloc((size_t)c->experts + 2, sizeof *step->expert_at));
    *out = step;
    return true;
}

static void drop_calls(struct step *step)
{
    for (int i = 0; i < step->call_count; i++)
        exchange_call_free(step->exchange, step->call[i]);
    step->call_count = 0;
}

void step_free(struct step *step)
{
    if (!step)
        return;
    drop_calls(step);
    for (struct job *job = step->jobs, *next; job; job = next) {
        next = job->next;
        job_free(job);
    }
    for (struct job *job = step->over, *next; job; job = next) {
        next = job->next;
        job_free(job);
    }
    forward_free(step->forward);
    experts_free(step->experts);
    sampler_free(step->sampler);
    free(step->hole);
    cache_pool_free(step->pool);
    free(step->row);
    free(step->member);
    free(step->wanted);
    free(step->item);
    free(step->item_sequence);
    free(step->part);
    free(step->chosen);
    free(step->call);
    free(step->pair);
    free(step->expert_at);
    free(step->sums);
    free(step->sum);
    free(step);
}

struct step_counts step_counts(const struct step *step)
{
    struct step_counts counts = step->counts;

    counts.sequences = step->sequence_count;
    for (const struct sequence *s = step->first; s; s = s->next)
        counts.running += s->running;
    return counts;
}

bool step_in_pass(const struct step *step)
{
    return step->stage != STAGE_NONE;
}

/* ---- sequences come and go ------------------------------------------------------------------------- */

void step_add(struct step *step, struct job *job)
{
    job->next = NULL;
    *(step->last_job ? &step->last_job->next : &step->jobs) = job;
    step->last_job = job;
    for (int i = 0; i < job->choice_count; i++) {
        struct sequence *s = &job->choice[i];

        cache_sequence_init(&s->cache, step->pool);
        s->next = NULL;
        *(step->last ? &step->last->next : &step->first) = s;
        step->last = s;
        step->sequence_count++;
    }
}

/* The place of a choice that is over goes to one of the same job that has none yet: it has computed what they
 * have in common. */
static void hand_over(struct sequence *from)
{
    struct job *job = from->job;

    for (int i = 0; i < job->choice_count && from->cached >= job->common; i++) {
        struct sequence *to = &job->choice[i];

        if (to->over || to->running || !to->begun)
            continue;
        cache_shrink(&from->cache, job->common);
        cache_sequence_fini(&to->cache);
        to->cache = from->cache;
        cache_sequence_init(&from->cache, to->cache.pool);
        to->cached = job->common;
        if (!to->placed)
            to->taken = (int32_t)job->prompt.count;
        to->running = to->placed = true;
        return;
    }
}

static void collect_jobs(struct step *step)
{
    struct job **at = &step->jobs;

    step->last_job = NULL;
    while (*at) {
        struct job *job = *at;

        if (!job->dropped && job->open > 0) {
            step->last_job = job;
            at = &job->next;
            continue;
        }
        *at = job->next;
        job->next = NULL;
        if (job->dropped) {
            job_free(job);
        } else {
            job->next = step->over;
            step->over = job;
        }
    }
}

/* Takes out all that are over or dropped; never while a pass may still point at them. */
static void collect(struct step *step)
{
    struct sequence *kept = NULL, *last = NULL;

    for (struct sequence *s = step->first, *next; s; s = next) {
        next = s->next;
        s->next = NULL;
        if (s->job->dropped || s->over) {
            step->sequence_count--;
            if (!s->job->dropped && s->running)
                hand_over(s);
            cache_sequence_fini(&s->cache);
            s->cache.pool = NULL;
            s->running = false;
            continue;
        }
        *(last ? &last->next : &kept) = s;
        last = s;
    }
    step->first = kept;
    step->last = last;
    collect_jobs(step);
}

void step_drop(struct step *step, uint64_t fence)
{
    for (struct job *job = step->jobs; job; job = job->next)
        if (job->lease->fence == fence)
            job->dropped = true;
    if (step->stage == STAGE_NONE)
        collect(step);
}

struct job *step_take(struct step *step)
{
    struct job *job = step->over;

    if (job) {
        step->over = job->next;
        job->next = NULL;
    }
    return job;
}

const struct job *step_jobs(const struct step *step)
{
    return step->jobs;
}

/* ---- the beginning of a pass -------------------------------------------------------------------------- */

/* One of the same job that runs and has what they have in common. */
static const struct sequence *donor(const struct sequence *s)
{
    const struct job *job = s->job;

    for (int i = 0; i < job->choice_count; i++)
        if (job->choice[i].running && job->choice[i].cached >= job->common)
            return &job->choice[i];
    return NULL;
}

static void share(struct sequence *s)
{
    if (!cache_share(&s->cache, &donor(s)->cache, s->job->common, NULL)) {
        s->running = false; /* no memory for a page: later, then */
        return;
    }
    s->cached = s->job->common;
    if (!s->placed)
        s->taken = (int32_t)s->job->prompt.count;
}

/* True when somebody was sent away. */
static bool plan(struct step *step)
{
    struct schedule_limits limits = {
        .batch_tokens = (uint32_t)step->limits.batch_tokens,
        .sequences_max = (uint32_t)step->limits.sequences_max,
        .page = CACHE_PAGE,
        .pages_all = (uint32_t)cache_pool_pages_max(step->pool),
        .pages_free = (uint32_t)(cache_pool_pages_max(step->pool) - cache_pool_pages_used(step->pool)),
    };
    bool preempted = false;
    int n = 0;

    if (step->sequence_count > step->item_room) {
        step->item_room = 2 * step->sequence_count;
        step->item = must(realloc(step->item, (size_t)step->item_room * sizeof *step->item));
        step->item_sequence =
            must(realloc(step->item_sequence, (size_t)step->item_room * sizeof *step->item_sequence));
    }
    for (struct sequence *s = step->first; s; s = s->next) {
        bool offered = s->job->choice_count > 1 && !s->running && s->begun && donor(s);

        step->item[n] =
            (struct schedule_item){ .total = (uint32_t)sequence_total(s),
                                    .cached = (uint32_t)s->cached,
                                    .running = s->running,
                                    .alone = s->job->lease->alone,
                                    .held = sequence_is_held(s),
                                    .shared = (uint32_t)(s->cache.page_count - cache_pages_own(&s->cache)),
                                    .offered = offered ? (uint32_t)s->job->common : 0 };
        step->item_sequence[n++] = s;
    }
    schedule_plan(step->item, n, limits);
    for (int i = 0; i < n; i++) {
        struct sequence *s = step->item_sequence[i];

        if (step->item[i].preempt) {
            cache_shrink(&s->cache, 0);
            s->cached = 0;
            step->counts.preempted++;
            preempted = true;
            log_info("sequence.preempted", "job=%s tokens=%d", s->job->lease->job, (int)sequence_total(s));
        }
        s->running = step->item[i].running;
        if (step->item[i].share)
            share(s);
        s->placed = s->placed || s->running;
        if (step->item[i].impossible && !s->job->impossible) {
            s->job->impossible = true;
            job_fail(s->job, "cache_too_small", "the latent cache is too small");
        }
    }
    return preempted;
}

static bool fill_rows(struct step *step, struct err *err)
{
    int n = 0;

    step->row_count = step->member_count = 0;
    step->wanted_count = step->wanted_ready = step->wanted_done = step->choice_done = 0;
    step->decode = true;
    for (struct sequence *s = step->first; s; s = s->next, n++) {
        int count = (int)step->item[n].rows;

        if (!count || s->over || !s->running)
            continue;
        if (!cache_grow(&s->cache, s->cached + count, err))
            return err_wrap(err, "the plan of a step");
        if (!s->job->started_ms)
            s->job->started_ms = clock_wall_ms();
        step->member[step->member_count++] = (struct member){ s, step->row_count, count };
        for (int i = 0; i < count; i++) {
            struct forward_row *row = &step->row[step->row_count++];
            int32_t position = s->cached + i;

            *row = (struct forward_row){ .sequence = &s->cache,
                                         .token = sequence_token(s, position),
                                         .position = position,
                                         .generated = (size_t)position >= s->job->prompt.count,
                                         .want_logits = sequence_wants(s, position) };
            step->decode = step->decode && row->generated;
            step->counts.prompt_tokens += !row->generated;
            if (row->want_logits)
                step->wanted[step->wanted_count++] = (struct wanted){ s, position };
        }
    }
    return true;
}

/* ---- a MoE layer: who computes what ---------------------------------------------------------------------
 */

/* The parts of the layer, ordered by row, then by shard, as forward_combine wants them. */
static void find_parts(struct step *step)
{
    const struct forward_choice *choice = forward_choices(step->forward);
    int per_row = step->config->experts_per_token, per_shard = step->config->experts_per_shard;

    step->part_count = 0;
    for (int r = 0; r < step->row_count; r++, choice += per_row) {
        struct part *part = NULL;

        for (int k = 0; k < per_row; k++) { /* experts ascend, so a shard's stand together */
            uint16_t shard = (uint16_t)(choice[k].expert / (uint32_t)per_shard);

            if (!part || part->shard != shard) {
                part = &step->part[step->part_count++];
                *part = (struct part){ .row = (uint16_t)r, .shard = shard };
            }
            part->pair_count++;
        }
    }
    step->local_first = step->local_count = step->local_pairs = 0;
    step->local_begun = false;
}

/* Writes the pairs of the chosen parts, ascending by expert.  A part's slot is its place among the
 * chosen; its row is numbered anew by row_number, or as in the step when that is NULL. */
static int write_pairs(struct step *step, const int *chosen, int count, const uint16_t *row_number,
                       struct expert_pair *pairs)
{
    const struct forward_choice *all = forward_choices(step->forward);
    int per_row = step->config->experts_per_token;
    uint32_t per_shard = (uint32_t)step->config->experts_per_shard;
    int *at = step->expert_at, total = 0;

    memset(at, 0, ((size_t)step->config->experts + 2) * sizeof *at);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < count; i++) {
            const struct part *part = &step->part[chosen[i]];
            const struct forward_choice *choice = all + (size_t)part->row * (size_t)per_row;

            for (int k = 0; k < per_row; k++) {
                if (choice[k].expert / per_shard != part->shard)
                    continue;
                if (pass == 0) {
                    at[choice[k].expert + 1]++;
                    total++;
                    continue;
                }
                pairs[at[choice[k].expert]++] =
                    (struct expert_pair){ .row = row_number ? row_number[i] : part->row,
                                          .slot = (uint16_t)i,
                                          .expert = choice[k].expert,
                                          .weight = choice[k].weight };
            }
        }
        for (int e = 0; pass == 0 && e < step->config->experts; e++)
            at[e + 1] += at[e];
    }
    return total;
}

static void keep_call(struct step *step, struct exchange_call *call)
{
    if (step->call_count == step->call_room) {
        step->call_room = step->call_room ? 2 * step->call_room : 16;
        step->call = must(realloc(step->call, (size_t)step->call_room * sizeof(struct exchange_call *)));
    }
    step->call[step->call_count++] = call;
}

static void add_shard(struct exchange_call *call, uint16_t shard)
{
    uint32_t at = call->shard_count;

    while (at > 0 && call->shard[at - 1] > shard)
        at--;
    if (at > 0 && call->shard[at - 1] == shard)
        return;
    memmove(&call->shard[at + 1], &call->shard[at], (call->shard_count - at) * sizeof *call->shard);
    call->shard[at] = shard;
    call->shard_count++;
}

/* One frame: parts chosen[0 .. count), of row_count different rows. */
static void dispatch(struct step *step, const int *chosen, int count, int row_count, int pair_count)
{
    struct exchange_call *call = must(calloc(1, sizeof *call));
    const uint8_t *carried = forward_carried(step->forward);
    uint16_t *row_number = must(malloc((size_t)count * sizeof *row_number));
    size_t rows_size = (size_t)row_count * step->sum_size;
    int row = -1, last = -1;

    call->layer = (uint32_t)step->layer;
    call->row_count = (uint32_t)row_count;
    call->pair_count = (uint32_t)pair_count;
    call->slot_count = (uint32_t)count;
    call->decode = step->decode;
    call->payload_size = rows_size + (size_t)pair_count * sizeof(struct expert_pair);
    call->payload = must(malloc(call->payload_size));
    call->part = must(malloc((size_t)count * sizeof *call->part));
    call->shard = must(malloc(((size_t)step->config->shards + 1) * sizeof *call->shard));
    for (int i = 0; i < count; i++) {
        struct part *part = &step->part[chosen[i]];

        if (part->row != last) {
            last = part->row;
            memcpy(call->payload + (size_t)++row * step->sum_size,
                   carried + (size_t)part->row * step->sum_size, step->sum_size);
        }
        row_number[i] = (uint16_t)row;
        part->given = true;
        part->call = call;
        part->slot = (uint32_t)i;
        call->part[i] = (uint32_t)chosen[i];
        add_shard(call, part->shard);
    }
    /* Pairs stand behind the rows, where nothing promises alignment. */
    write_pairs(step, chosen, count, row_number, step->pair);
    memcpy(call->payload + rows_size, step->pair, (size_t)pair_count * sizeof(struct expert_pair));
    free(row_number);
    keep_call(step, call);
    exchange_post(step->exchange, call);
    step->away = true;
}

/* Cuts the parts of one holder into frames at row borders. */
static void dispatch_group(struct step *step, const int *chosen, int count)
{
    int rows_max = (int)dispatch_rows_max(&step->shape, step->decode);
    int from = 0, rows = 0, pairs = 0;

    for (int i = 0; i < count; i++) {
        const struct part *part = &step->part[chosen[i]];
        bool new_row = i == from || part->row != step->part[chosen[i - 1]].row;

        if (new_row && rows == rows_max) {
            dispatch(step, chosen + from, i - from, rows, pairs);
            from = i;
            rows = pairs = 0;
        }
        rows += new_row;
        pairs += part->pair_count;
    }
    if (count > from)
        dispatch(step, chosen + from, count - from, rows, pairs);
}

/* Shards that nobody holds wait one by one, so that each can go to whoever gets it. */
static int group_of(const struct step *step, const struct part *part)
{
    int holder = exchange_holder(step->exchange, part->shard);

    return holder == EXCHANGE_NOWHERE ? EXCHANGE_NOWHERE - 1 - part->shard : holder;
}

/* Gives every part that nobody has to its holder: the rows that go away first, then the local ones. */
static void give_parts(struct step *step)
{
    int local = 0;

    for (int i = 0; i < step->part_count; i++) {
        int group, count = 0;

        if (step->part[i].given)
            continue;
        group = group_of(step, &step->part[i]);
        if (group == EXCHANGE_HERE) {
            local++;
            continue;
        }
        for (int j = i; j < step->part_count; j++)
            if (!step->part[j].given && group_of(step, &step->part[j]) == group)
                step->chosen[count++] = j;
        dispatch_group(step, step->chosen, count);
    }
    if (!local)
        return;
    assert(!step->local_begun);
    step->local_first += step->local_count;
    step->local_count = 0;
    for (int i = 0; i < step->part_count; i++)
        if (!step->part[i].given) {
            struct part *part = &step->part[i];

            part->given = true;
            part->call = NULL;
            part->slot = (uint32_t)(step->local_first + step->local_count);
            step->chosen[step->local_count++] = i;
        }
    step->local_pairs = write_pairs(step, step->chosen, step->local_count, NULL, step->pair);
}

/* True when the local shards are done. */
static bool work_locally(struct step *step, bool *done, struct err *err)
{
    *done = false;
    if (step->local_pairs && !step->local_begun) {
        if (!experts_begin(step->experts, step->layer, forward_carried(step->forward), step->row_count,
                           step->pair, step->local_pairs, step->local_count, err))
            return err_wrap(err, "layer %d", step->layer);
        step->local_begun = true;
    }
    if (step->local_pairs &&
        !experts_work(step->experts, step->sums + (size_t)step->local_first * step->sum_size))
        return true;
    step->local_begun = false;
    step->local_pairs = 0;
    *done = true;
    return true;
}

/* A call that came back because its shards have parted ways: its parts are given anew. */
static void take_back(struct step *step)
{
    int kept = 0;

    for (int i = 0; i < step->call_count; i++) {
        struct exchange_call *call = step->call[i];

        if (call->state != CALL_RETURNED) {
            step->call[kept++] = call;
            continue;
        }
        for (uint32_t s = 0; s < call->slot_count; s++) {
            step->part[call->part[s]].given = false;
            step->part[call->part[s]].call = NULL;
        }
        exchange_call_free(step->exchange, call);
    }
    step->call_count = kept;
    give_parts(step);
}

static void combine(struct step *step)
{
    for (int i = 0; i < step->part_count; i++) {
        const struct part *part = &step->part[i];
        const uint8_t *sums = part->call ? part->call->sums : step->sums;

        step->sum[i] = (struct forward_sum){ .row = part->row,
                                             .shard = part->shard,
                                             .sum = sums + (size_t)part->slot * step->sum_size };
    }
    forward_combine(step->forward, step->layer, step->sum, step->part_count);
    drop_calls(step);
}

/* ---- the end of a pass ------------------------------------------------------------------------------------
 */

static void score(struct step *step, struct answer_score *into, const float *logits, int32_t token,
                  int top_count)
{
    struct sample_logprob top[SAMPLE_TOP_LOGPROBS_MAX];

    into->logprob = sample_logprobs(step->sampler, logits, token, top, top_count);
    into->known = true;
    into->top_count = top_count;
    for (int i = 0; i < top_count; i++)
        into->top[i] = (struct answer_top){ top[i].token, top[i].logprob };
}

static void draw(struct step *step, struct sequence *s, const float *logits, uint32_t position)
{
    int known = tokenizer_size(step->tokenizer);
    struct answer_score own = { 0 };
    struct sample_shape shape;
    int32_t token = sequence_forced(s);

    if (token < 0) {
        if (!sequence_shape(s, &shape))
            return;
        shape.banned = step->hole;
        shape.banned_count = step->hole_count;
        token = sample_token(step->sampler, sample_shaped(step->sampler, logits, known, &shape), known,
                             &s->sampling, position);
    }
    if (token >= 0) {
        if (s->job->request.logprobs)
            score(step, &own, logits, token, s->job->request.top_logprobs);
        step->counts.generated_tokens++;
    }
    sequence_add(s, token, &own);
}

/* From the row that choice 0 computes for all, all draw.  One of them; true when it was the last. */
static bool use_logits(struct step *step, const struct wanted *wanted, const float *logits)
{
    struct sequence *s = wanted->sequence;
    struct job *job = s->job;
    size_t next = (size_t)wanted->position + 1;

    if (job->dropped || job->failed)
        return true;
    if (next < job->prompt.count) {
        score(step, &s->answer.prompt_score[next], logits, job->prompt.id[next], job->request.top_logprobs);
        return true;
    }
    if (step->choice_done == 0 && s->begun) { /* on its own way */
        draw(step, s, logits, (uint32_t)next);
        return true;
    }
    s = &job->choice[step->choice_done++];
    draw(step, s, logits, (uint32_t)next);
    if (s->over && s != job->choice)
        s->taken = (int32_t)job->prompt.count;
    return step->choice_done == job->choice_count;
}

static void end_pass(struct step *step)
{
    for (int i = 0; i < step->member_count; i++) {
        struct sequence *s = step->member[i].sequence;

        s->cached += step->member[i].count;
        if (s->new_max == 0 && s->cached == (int32_t)s->job->prompt.count) /* only to be scored */
            job_scored(s->job);
    }
    if (step->decode && step->away)
        step->counts.decode_steps_away++;
    step->stage = STAGE_NONE;
    collect(step);
}

/* ---- stage by stage ---------------------------------------------------------------------------------------
 */

static void next_layer(struct step *step)
{
    step->layer++;
    step->stage = step->layer < step->config->layers ? STAGE_ATTEND : STAGE_LOGITS;
}

static enum step_state begin_pass(struct step *step, struct err *err)
{
    bool preempted;

    collect(step); /* what was over before it began: all of it was forced */
    if (!step->first)
        return step->over ? STEP_WORKED : STEP_IDLE;
    preempted = plan(step);
    if (!fill_rows(step, err))
        return STEP_FAILED;
    if (step->row_count == 0) {
        collect(step); /* what can never run */
        return step->over || preempted ? STEP_WORKED : STEP_IDLE;
    }
    step->counts.steps++;
    step->counts.decode_steps += step->decode;
    step->away = false;
    forward_begin(step->forward, step->row, step->row_count);
    step->layer = -1;
    next_layer(step);
    return STEP_WORKED;
}

static enum step_state on_logits(struct step *step)
{
    int count = step->wanted_count - step->wanted_ready;

    if (count > LOGITS_MAX)
        count = LOGITS_MAX;
    if (step->wanted_done == step->wanted_ready && count > 0) {
        if (!forward_logits(step->forward, step->wanted_ready, count))
            return STEP_WORKED;
        step->wanted_ready += count;
    }
    for (int i = 0; i < DRAWS_MAX && step->wanted_done < step->wanted_ready; i++)
        if (use_logits(step, &step->wanted[step->wanted_done],
                       forward_logits_of(step->forward, step->wanted_done))) {
            step->wanted_done++;
            step->choice_done = 0;
        }
    if (step->wanted_done == step->wanted_count)
        end_pass(step);
    return STEP_WORKED;
}

enum step_state step_advance(struct step *step, struct err *err)
{
    bool returned = false, done;

    switch (step->stage) {
    case STAGE_NONE:
        return begin_pass(step, err);
    case STAGE_ATTEND:
        if (!forward_attend(step->forward, step->layer))
            return STEP_WORKED;
        if (!config_layer_is_moe(step->config, step->layer)) {
            step->stage = STAGE_DENSE;
            return STEP_WORKED;
        }
        forward_route(step->forward, step->layer);
        find_parts(step);
        give_parts(step);
        step->stage = STAGE_LOCAL;
        return STEP_WORKED;
    case STAGE_DENSE:
        if (forward_dense(step->forward, step->layer))
            next_layer(step);
        return STEP_WORKED;
    case STAGE_LOCAL:
        if (!work_locally(step, &done, err))
            return STEP_FAILED;
        if (done)
            step->stage = STAGE_SHARED;
        return STEP_WORKED;
    case STAGE_SHARED:
        if (forward_shared(step->forward, step->layer))
            step->stage = STAGE_AWAY;
        return STEP_WORKED;
    case STAGE_AWAY:
        /* The map may change while rows are away; local work may come of it. */
        for (int i = 0; i < step->call_count && !step->local_pairs; i++)
            returned = returned || step->call[i]->state == CALL_RETURNED;
        if (returned)
            take_back(step);
        if (step->local_pairs)
            return work_locally(step, &done, err) ? STEP_WORKED : STEP_FAILED;
        for (int i = 0; i < step->call_count; i++)
            if (step->call[i]->state != CALL_ANSWERED)
                return STEP_AWAITS;
        combine(step);
        next_layer(step);
        return STEP_WORKED;
    case STAGE_LOGITS:
        return on_logits(step);
    }
    return STEP_IDLE;
}
