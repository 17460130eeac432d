#include "worker/model/grammar_inside.h"

/* ---- strings: dfa.h says how they are spelled --------------------------------------------------- */

static uint8_t string_body(uint8_t b, uint32_t *points)
{
    if (b == '"')
        return STRING_END;
    if (b < 0x20)
        return STRING_DEAD;
    ++*points;
    if (b == '\\')
        return STRING_ESCAPE;
    if (b < 0x80)
        return STRING_BODY;
    if (b >= 0xc2 && b <= 0xdf)
        return STRING_MORE1;
    if (b == 0xe0)
        return STRING_E0;
    if (b == 0xed)
        return STRING_ED;
    if (b >= 0xe1 && b <= 0xef)
        return STRING_MORE2;
    if (b == 0xf0)
        return STRING_F0;
    if (b >= 0xf1 && b <= 0xf3)
        return STRING_MORE3;
    if (b == 0xf4)
        return STRING_F4;
    --*points;
    return STRING_DEAD;
}

static uint8_t within(uint8_t b, uint8_t low, uint8_t high, uint8_t next)
{
    return b >= low && b <= high ? next : STRING_DEAD;
}

uint8_t string_move(uint8_t state, uint8_t b, uint32_t *points)
{
    bool digit = b >= '0' && b <= '9';

    switch (state) {
    case STRING_START:
        return b == '"' ? STRING_BODY : STRING_DEAD;
    case STRING_BODY:
        return string_body(b, points);
    case STRING_ESCAPE:
        if (b == 'u')
            return STRING_U;
        return b == '"' || b == '\\' || b == 'b' || b == 'f' || b == 'n' || b == 'r' || b == 't'
                   ? STRING_BODY
                   : STRING_DEAD;
    case STRING_U:
        return b == '0' ? STRING_U0 : STRING_DEAD;
    case STRING_U0:
        return b == '0' ? STRING_U00 : STRING_DEAD;
    case STRING_U00:
        return b == '0' ? STRING_U000 : b == '1' ? STRING_U001 : STRING_DEAD;
    case STRING_U000: /* \b \t \n \f \r have names */
        return (digit && b < '8') || b == 'b' || b == 'e' || b == 'f' ? STRING_BODY : STRING_DEAD;
    case STRING_U001:
        return digit || (b >= 'a' && b <= 'f') ? STRING_BODY : STRING_DEAD;
    case STRING_MORE1:
        return within(b, 0x80, 0xbf, STRING_BODY);
    case STRING_MORE2:
        return within(b, 0x80, 0xbf, STRING_MORE1);
    case STRING_MORE3:
        return within(b, 0x80, 0xbf, STRING_MORE2);
    case STRING_E0:
        return within(b, 0xa0, 0xbf, STRING_MORE1);
    case STRING_ED:
        return within(b, 0x80, 0x9f, STRING_MORE1);
    case STRING_F0:
        return within(b, 0x90, 0xbf, STRING_MORE2);
    case STRING_F4:
        return within(b, 0x80, 0x8f, STRING_MORE2);
    default:
        return STRING_DEAD;
    }
}

/* Bytes to the body, and the least byte on the shortest way there. */
static const struct {
    uint8_t left, best;
} string_way[STRING_STATES] = {
    [STRING_ESCAPE] = { 1, '"' }, [STRING_U] = { 4, '0' },      [STRING_U0] = { 3, '0' },
    [STRING_U00] = { 2, '0' },    [STRING_U000] = { 1, '0' },   [STRING_U001] = { 1, '0' },
    [STRING_MORE1] = { 1, 0x80 }, [STRING_MORE2] = { 2, 0x80 }, [STRING_MORE3] = { 3, 0x80 },
    [STRING_E0] = { 2, 0xa0 },    [STRING_ED] = { 2, 0x80 },    [STRING_F0] = { 3, 0x90 },
    [STRING_F4] = { 3, 0x80 },
};

/* Where there is no upper bound nothing can be told apart above the lower one. */
static uint32_t count_up(uint32_t counter, uint32_t by, uint32_t low, uint32_t high)
{
    counter += by;
    return high == GRAMMAR_NO_MAX && counter > low ? low : counter;
}

static bool move_string(const struct rule *r, const struct config *from, uint8_t byte, struct config *to)
{
    uint32_t points = 0;
    uint8_t next = string_move((uint8_t)from->local, byte, &points);

    if (next == STRING_DEAD || (next == STRING_END && from->counter < r->string.low) ||
        (points && from->counter >= r->string.high))
        return false;
    to->local = next;
    to->counter = count_up(from->counter, points, r->string.low, r->string.high);
    return true;
}

static uint64_t string_len(const struct rule *r, uint32_t local, uint32_t counter)
{
    if (local == STRING_START)
        return r->start.len;
    if (local == STRING_END)
        return 0;
    return string_way[local].left + (r->string.low > counter ? r->string.low - counter : 0) + (uint64_t)1;
}

/* ---- regular ------------------------------------------------------------------------------------ */

static uint32_t regular_next(const struct regular *r, uint32_t state, uint8_t byte)
{
    uint32_t next = dfa_step(r->dfa, state, byte);

    return next && r->far[next] != UINT32_MAX ? next : 0;
}

/* ---- arrays ------------------------------------------------------------------------------------- */

static uint32_t element(const struct rule *r, uint32_t i)
{
    return i < r->array.prefix_count ? r->array.prefix[i] : r->array.items;
}

/* Bytes of elements counter to low, each with a comma. */
static uint64_t elements_len(const struct grammar *g, const struct rule *r, uint32_t counter)
{
    uint32_t low = r->array.low, prefix = r->array.prefix_count;
    uint64_t sum = 0;

    if (counter >= low)
        return 0;
    if (counter < prefix)
        sum = r->array.sum[low < prefix ? low : prefix] - r->array.sum[counter];
    if (low > prefix)
        sum +=
            (uint64_t)(low - (counter > prefix ? counter : prefix)) * (g->rule[r->array.items].start.len + 1);
    return sum;
}

static struct reach array_reach(const struct grammar *g, const struct rule *r, uint32_t local,
                                uint32_t counter)
{
    struct reach reach = { 0, counter < r->array.low ? r->array.need : 0 };

    switch (local) {
    case ARRAY_START:
        return r->start;
    case ARRAY_OPEN:
        reach.len = r->array.low ? elements_len(g, r, 0) : 1;
        return reach;
    case ARRAY_AFTER:
        reach.len = elements_len(g, r, counter) + 1;
        return reach;
    case ARRAY_COMMA: {
        const struct reach *next = &g->rule[element(r, counter)].start;

        reach.len = next->len + elements_len(g, r, counter + 1) + 1;
        if (reach.need < next->need + 1)
            reach.need = next->need + 1;
        return reach;
    }
    default:
        return (struct reach){ 0, 0 };
    }
}

static uint32_t array_count(const struct rule *r, uint32_t counter)
{
    uint32_t low = r->array.low > r->array.prefix_count ? r->array.low : r->array.prefix_count;

    return count_up(counter, 1, low, r->array.last);
}

static bool move_array(const struct rule *r, const struct config *from, uint8_t byte, struct config *to)
{
    if (from->local == ARRAY_START && byte == '[') {
        to->local = ARRAY_OPEN;
    } else if (from->local == ARRAY_OPEN && byte == ']' && r->array.low == 0) {
        to->local = ARRAY_END;
    } else if (from->local == ARRAY_AFTER && byte == ',' && from->counter < r->array.last) {
        to->local = ARRAY_COMMA;
    } else if (from->local == ARRAY_AFTER && byte == ']' && from->counter >= r->array.low) {
        to->local = ARRAY_END;
        to->counter = 0;
    } else {
        return false;
    }
    return true;
}

/* ---- objects ------------------------------------------------------------------------------------ */

/* Required ones may not be passed over, optional ones may. */
static bool can_come(const struct object_rule *o, uint32_t property, uint32_t counter)
{
    return property >= counter && o->property[property].usable && property <= o->required_next[counter];
}

static bool any_can_come(const struct object_rule *o, const struct key_node *n, uint32_t counter)
{
    for (uint32_t k = n->from; k < n->to; k++)
        if (can_come(o, o->key_sorted[k], counter))
            return true;
    return false;
}

static bool others_can_come(const struct object_rule *o, uint32_t counter)
{
    return o->other_value && o->required_next[counter] == o->count;
}

static struct reach value_reach(const struct grammar *g, const struct object_rule *o, uint32_t property)
{
    const struct reach *value = &g->rule[o->property[property].value].start, *after = &o->after[property + 1];

    return (struct reach){ value->len + after->len,
                           value->need + 1 > after->need ? value->need + 1 : after->need };
}

/* From a node of the keys' trie; *best: the byte that leads there. */
static struct reach key_reach(const struct grammar *g, const struct object_rule *o, const struct key_node *n,
                              uint32_t counter, int *best)
{
    struct reach least = { GRAMMAR_FAR, 0 };

    for (uint32_t k = n->from; k < n->to; k++) {
        uint32_t p = o->key_sorted[k];
        struct reach reach;

        if (!can_come(o, p, counter))
            continue;
        reach = value_reach(g, o, p);
        reach.len += o->property[p].key.size - n->depth + 1;
        if (reach.len < least.len) { /* keys are in order: of equals the first has the least byte */
            least = reach;
            *best = n->depth == o->property[p].key.size ? ':' : o->property[p].key.data[n->depth];
        } else if (reach.len == least.len && reach.need > least.need) {
            least.need = reach.need; /* so that either way has room on the stack */
        }
    }
    return least;
}

static struct reach object_reach(const struct grammar *g, const struct rule *r, uint32_t local,
                                 uint32_t counter)
{
    const struct object_rule *o = &r->object;
    int best;

    switch (local) {
    case OBJECT_START:
        return r->start;
    case OBJECT_OPEN:
        return o->required_next[0] == o->count ? (struct reach){ 1, 0 } : o->key_best[0];
    case OBJECT_AFTER:
        return o->after[counter];
    case OBJECT_COMMA:
        return o->key_best[counter];
    case OBJECT_END:
        return (struct reach){ 0, 0 };
    case OBJECT_VALUE:
        return value_reach(g, o, counter);
    case OBJECT_OTHER:
        return (struct reach){ o->other_len - 1, o->other_need };
    case OBJECT_KEY:
        return o->property_best[counter];
    default:
        if (local < OBJECT_KEY + o->node_count)
            return key_reach(g, o, &o->node[local - OBJECT_KEY], counter, &best);
        return (struct reach){ o->other.far[local - OBJECT_KEY - o->node_count] + o->other_len,
                               o->other_need };
    }
}

static bool move_key(const struct object_rule *o, const struct config *from, uint8_t byte, struct config *to)
{
    const struct key_node *n = &o->node[from->local - OBJECT_KEY];
    uint32_t low = n->child_from, high = n->child_to;

    if (n->property >= 0) {
        if (byte != ':' || !can_come(o, (uint32_t)n->property, from->counter))
            return false;
        to->local = OBJECT_VALUE;
        to->counter = (uint32_t)n->property;
        return true;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (o->key_child[middle].byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == n->child_to || o->key_child[low].byte != byte ||
        !any_can_come(o, &o->node[o->key_child[low].node], from->counter))
        return false;
    to->local = OBJECT_KEY + o->key_child[low].node;
    return true;
}

static bool move_object(const struct rule *r, const struct config *from, uint8_t byte, struct config *to)
{
    const struct object_rule *o = &r->object;
    uint32_t next;

    switch (from->local) {
    case OBJECT_START:
        to->local = OBJECT_OPEN;
        return byte == '{';
    case OBJECT_OPEN:
        to->local = OBJECT_END;
        return byte == '}' && o->required_next[0] == o->count;
    case OBJECT_AFTER:
        if (byte == ',' && o->key_best[from->counter].len < GRAMMAR_FAR) {
            to->local = OBJECT_COMMA;
            return true;
        }
        to->local = OBJECT_END;
        to->counter = 0;
        return byte == '}' && o->required_next[from->counter] == o->count;
    case OBJECT_COMMA:
    case OBJECT_END:
    case OBJECT_VALUE:
    case OBJECT_OTHER:
        return false;
    default:
        if (from->local < OBJECT_KEY + o->node_count)
            return move_key(o, from, byte, to);
        next = from->local - OBJECT_KEY - o->node_count;
        if (byte == ':' && o->other.dfa->accepts[next]) {
            to->local = OBJECT_OTHER;
            return true;
        }
        next = regular_next(&o->other, next, byte);
        to->local = OBJECT_KEY + o->node_count + next;
        return next != 0;
    }
}

static int key_only(const struct object_rule *o, const struct config *config)
{
    const struct key_node *n = &o->node[config->local - OBJECT_KEY];
    int only = -1;

    if (n->property >= 0)
        return ':';
    for (uint32_t k = n->child_from; k < n->child_to; k++)
        if (any_can_come(o, &o->node[o->key_child[k].node], config->counter)) {
            if (only >= 0)
                return -2;
            only = o->key_child[k].byte;
        }
    return only;
}

static int object_only(const struct rule *r, const struct config *config)
{
    const struct object_rule *o = &r->object;
    bool more, done;
    uint32_t state;

    switch (config->local) {
    case OBJECT_START:
        return '{';
    case OBJECT_OPEN:
        return o->required_next[0] == o->count ? '}' : -1;
    case OBJECT_AFTER:
        more = o->key_best[config->counter].len < GRAMMAR_FAR;
        done = o->required_next[config->counter] == o->count;
        return more && done ? -2 : more ? ',' : '}';
    case OBJECT_COMMA:
    case OBJECT_END:
    case OBJECT_VALUE:
    case OBJECT_OTHER:
        return -1;
    default:
        if (config->local < OBJECT_KEY + o->node_count)
            return key_only(o, config);
        state = config->local - OBJECT_KEY - o->node_count;
        if (!o->other.dfa->accepts[state])
            return o->other.only[state];
        return o->other.only[state] == -1 ? ':' : -2;
    }
}

static int object_best(const struct grammar *g, const struct rule *r, const struct config *config)
{
    const struct object_rule *o = &r->object;
    int best = -1;
    uint32_t state;

    switch (config->local) {
    case OBJECT_START:
        return '{';
    case OBJECT_OPEN:
        return o->required_next[0] == o->count ? '}' : -1;
    case OBJECT_AFTER:
        return o->required_next[config->counter] == o->count ? '}' : ',';
    case OBJECT_COMMA:
    case OBJECT_END:
    case OBJECT_VALUE:
    case OBJECT_OTHER:
        return -1;
    default:
        if (config->local < OBJECT_KEY + o->node_count) {
            key_reach(g, o, &o->node[config->local - OBJECT_KEY], config->counter, &best);
            return best;
        }
        state = config->local - OBJECT_KEY - o->node_count;
        return o->other.dfa->accepts[state] ? ':' : o->other.best[state];
    }
}

/* ---- any rule ----------------------------------------------------------------------------------- */

bool local_move(const struct grammar *g, const struct config *from, uint8_t byte, struct config *to)
{
    const struct rule *r = &g->rule[from->rule];

    *to = *from;
    switch (r->kind) {
    case RULE_LITERAL:
        to->local++;
        return from->local < r->literal.size && r->literal.bytes[from->local] == byte;
    case RULE_REGULAR:
        to->local = regular_next(&r->regular, from->local, byte);
        return to->local != 0;
    case RULE_STRING:
        return move_string(r, from, byte, to);
    case RULE_ARRAY:
        return move_array(r, from, byte, to);
    case RULE_OBJECT:
        return move_object(r, from, byte, to);
    default:
        return false;
    }
}

struct reach local_reach(const struct grammar *g, uint32_t rule, uint32_t local, uint32_t counter)
{
    const struct rule *r = &g->rule[rule];

    switch (r->kind) {
    case RULE_LITERAL:
        return (struct reach){ r->literal.size - local, 0 };
    case RULE_REGULAR:
        return (struct reach){ r->regular.far[local], 0 };
    case RULE_STRING:
        return (struct reach){ string_len(r, local, counter), 0 };
    case RULE_SEQUENCE:
        return r->list.rest[local];
    case RULE_ARRAY:
        return array_reach(g, r, local, counter);
    case RULE_OBJECT:
        return object_reach(g, r, local, counter);
    case RULE_NOTHING:
    case RULE_CHOICE:
        break;
    }
    return r->start;
}

int local_only(const struct grammar *g, const struct config *c)
{
    const struct rule *r = &g->rule[c->rule];

    switch (r->kind) {
    case RULE_LITERAL:
        return c->local < r->literal.size ? r->literal.bytes[c->local] : -1;
    case RULE_REGULAR:
        return r->regular.only[c->local];
    case RULE_STRING:
        if (c->local == STRING_BODY)
            return c->counter >= r->string.high ? '"' : -2;
        if (c->local == STRING_START)
            return '"';
        return c->local == STRING_END ? -1 : c->local == STRING_U || c->local == STRING_U0 ? '0' : -2;
    case RULE_ARRAY:
        if (c->local == ARRAY_START)
            return '[';
        if (c->local == ARRAY_OPEN)
            return r->array.low == 0 ? ']' : -1;
        if (c->local == ARRAY_AFTER && c->counter < r->array.last)
            return c->counter >= r->array.low ? -2 : ',';
        return c->local == ARRAY_AFTER ? ']' : -1;
    case RULE_OBJECT:
        return object_only(r, c);
    default:
        return -1;
    }
}

bool local_is_active(const struct grammar *g, const struct config *c)
{
    const struct rule *r = &g->rule[c->rule];

    /* The root of the keys is entered only where one of them can come. */
    if (r->kind == RULE_OBJECT && c->local >= OBJECT_KEY)
        return true;
    return local_only(g, c) != -1;
}

int local_best(const struct grammar *g, const struct config *c)
{
    const struct rule *r = &g->rule[c->rule];

    switch (r->kind) {
    case RULE_LITERAL:
        return c->local < r->literal.size ? r->literal.bytes[c->local] : -1;
    case RULE_REGULAR:
        return r->regular.far[c->local] ? r->regular.best[c->local] : -1;
    case RULE_STRING:
        if (c->local == STRING_START)
            return '"';
        if (c->local == STRING_BODY)
            return c->counter < r->string.low ? ' ' : '"';
        return c->local == STRING_END ? -1 : string_way[c->local].best;
    case RULE_ARRAY:
        if (c->local == ARRAY_START)
            return '[';
        if (c->local == ARRAY_OPEN)
            return r->array.low == 0 ? ']' : -1;
        return c->local != ARRAY_AFTER ? -1 : c->counter < r->array.low ? ',' : ']';
    case RULE_OBJECT:
        return object_best(g, r, c);
    default:
        return -1;
    }
}

bool local_is_over(const struct grammar *g, uint32_t rule, uint32_t local)
{
    const struct rule *r = &g->rule[rule];

    switch (r->kind) {
    case RULE_SEQUENCE:
        return local == r->list.count;
    case RULE_STRING:
        return local == STRING_END;
    case RULE_ARRAY:
        return local == ARRAY_END;
    case RULE_OBJECT:
        return local == OBJECT_END;
    default:
        return false; /* nothing calls from within a literal or a regular language */
    }
}

/* ---- what follows without a byte ---------------------------------------------------------------- */

static bool call(const struct grammar *g, uint32_t rule, struct config *to)
{
    const struct rule *r = &g->rule[rule];

    to->rule = rule;
    to->local = r->kind == RULE_REGULAR ? r->regular.dfa->start : 0;
    to->counter = 0;
    return rule_is_usable(g, rule);
}

static bool silent_object(const struct grammar *g, const struct config *c, uint32_t i, enum silent *silent,
                          struct config *to, struct config *back)
{
    const struct object_rule *o = &g->rule[c->rule].object;
    bool keys, others;

    if (c->local == OBJECT_VALUE || c->local == OBJECT_OTHER) {
        *silent = SILENT_CALL;
        back->local = OBJECT_AFTER;
        back->counter = c->local == OBJECT_VALUE ? c->counter + 1 : o->count;
        return i == 0 &&
               call(g, c->local == OBJECT_VALUE ? o->property[c->counter].value : o->other_value, to);
    }
    if (c->local == OBJECT_END) {
        *silent = SILENT_RETURN;
        return i == 0;
    }
    if (c->local != OBJECT_OPEN && c->local != OBJECT_COMMA)
        return false;
    *silent = SILENT_STATE;
    keys = o->property_best[c->counter].len < GRAMMAR_FAR;
    others = others_can_come(o, c->counter);
    if (i >= (uint32_t)keys + others)
        return false;
    /* the nearer of the two first */
    if (keys && (!others || (o->property_best[c->counter].len <= o->key_best[c->counter].len) == (i == 0))) {
        to->local = OBJECT_KEY;
    } else {
        to->local = OBJECT_KEY + o->node_count + o->other.dfa->start;
        to->counter = o->count;
    }
    return true;
}

bool local_silent(const struct grammar *g, const struct config *c, uint32_t i, enum silent *silent,
                  struct config *to, struct config *back)
{
    const struct rule *r = &g->rule[c->rule];

    *to = *back = *c;
    *silent = SILENT_RETURN;
    switch (r->kind) {
    case RULE_LITERAL:
        return i == 0 && c->local == r->literal.size;
    case RULE_REGULAR:
        return i == 0 && r->regular.dfa->accepts[c->local];
    case RULE_STRING:
        return i == 0 && c->local == STRING_END;
    case RULE_SEQUENCE:
        if (i > 0 || c->local == r->list.count)
            return i == 0;
        *silent = SILENT_CALL;
        back->local++;
        return call(g, r->list.part[c->local], to);
    case RULE_CHOICE:
        *silent = SILENT_STATE; /* its end is theirs: nothing to come back to */
        if (i == 0)
            return call(g, r->list.best, to);
        if (i > r->list.count)
            return false;
        /* What cannot end is taken as the best again: it has been seen. */
        if (!call(g, r->list.part[i - 1], to))
            call(g, r->list.best, to);
        return true;
    case RULE_ARRAY:
        if (c->local == ARRAY_END)
            return i == 0;
        if (i > 0 || (c->local != ARRAY_OPEN && c->local != ARRAY_COMMA) || c->counter >= r->array.last)
            return false;
        *silent = SILENT_CALL;
        back->local = ARRAY_AFTER;
        back->counter = array_count(r, c->counter);
        return call(g, element(r, c->counter), to);
    case RULE_OBJECT:
        return silent_object(g, c, i, silent, to, back);
    case RULE_NOTHING:
        break;
    }
    return false;
}
