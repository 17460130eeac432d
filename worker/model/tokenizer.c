#include "worker/model/tokenizer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include "worker/model/bpe.h"
#include "worker/model/pretokenize.h"
#include "worker/model/tokenizer_added.h"
#include "worker/model/utf8.h"

enum {
    CONFIG_FILE_MAX = 16 * 1024 * 1024,
    PREFIX_MAX = 8,   /* ids that a post-processor puts in front */
    MARKS_MAX = 1024, /* combining marks in a row: putting n of them in order costs n * n */
};

struct tokenizer {
    struct bpe *bpe;
    struct pretokenizer *pretokenizer;
    utf8proc_option_t normalizer[TOKENIZER_STEPS_MAX];
    int normalizer_count;

    struct added_token *added; /* in the order the library tries them: special ones first */
    size_t added_count;
    struct buf content;
    int32_t *added_at; /* by id - first_added: index into added, or -1 */
    int32_t size;

    /* What matches before the normalizer and what after it; where control tokens are kept out of some
     * parts, all of those match before it, on the text as it was written. */
    struct added_set *raw, *normalized, *guarded_raw, *guarded_normalized;
    struct pattern *word_character;

    uint8_t *special, *control; /* by id */
    int32_t bos, eos;
    int32_t end[TOKENIZER_EOS_MAX]; /* eos and others */
    int end_count;
    bool add_bos;
    int32_t prefix[PREFIX_MAX];
    int prefix_count;
};

/* ---- ids ------------------------------------------------------------------------------------------------
 */

bool ids_add(struct ids *ids, int32_t id)
{
    if (ids->max && ids->count >= ids->max)
        return false;
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
        int32_t *grown = realloc(ids->id, capacity * sizeof *grown);

        if (!grown)
            return false;
        ids->id = grown;
        ids->capacity = capacity;
    }
    ids->id[ids->count++] = id;
    return true;
}

void ids_fini(struct ids *ids)
{
    free(ids->id);
    ids->id = NULL;
    ids->count = ids->capacity = 0;
}

/* ---- files ------------------------------------------------------------------------------------------------
 */

static bool out_of_memory(struct err *err)
{
    return err_set(err, ERR_IO, "out of memory");
}

/* missing: NULL, or set when there is no such file, which is then no error. */
static bool read_file(struct buf *bytes, const char *dir, const char *name, size_t max, bool *missing,
                      struct err *err)
{
    char path[4096];
    struct stat info;
    bool ok = false;
    int fd;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
        return err_set(err, ERR_INPUT, "path of %s is too long", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT && missing)
            return *missing = true;
        err_errno(err, "%s", path);
        if (errno == ENOENT && err)
            err->code = ERR_NOT_FOUND;
        return false;
    }
    if (fstat(fd, &info) != 0) {
        err_errno(err, "%s", path);
    } else if (!S_ISREG(info.st_mode)) {
        err_set(err, ERR_INPUT, "%s: not a file", path);
    } else if ((uint64_t)info.st_size > max) {
        err_set(err, ERR_LIMIT, "%s: %lld bytes, at most %zu", path, (long long)info.st_size, max);
    } else if (!buf_reserve(bytes, (size_t)info.st_size + 1)) {
        out_of_memory(err);
    } else {
        for (;;) {
            ssize_t n = read(fd, bytes->data + bytes->size, bytes->capacity - bytes->size);

            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0) {
                err_errno(err, "%s", path);
                break;
            }
            bytes->size += (size_t)n;
            if (n == 0) {
                ok = true;
                break;
            }
            if (bytes->size == bytes->capacity) {
                err_set(err, ERR_INPUT, "%s: grew while it was read", path);
                break;
            }
        }
    }
    close(fd);
    return ok;
}

static json_t *parse(struct span bytes, struct err *err)
{
    json_error_t fault;
    json_t *json =
        json_loadb((const char *)bytes.data, bytes.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);

    if (!json)
        err_set(err, ERR_INPUT, "line %d, column %d: %s", fault.line, fault.column, fault.text);
    return json;
}

/* ---- the normalizer
 * ----------------------------------------------------------------------------------------- */

static bool read_normalizer(struct tokenizer *t, const json_t *description, int depth, struct err *err)
{
    static const struct {
        const char *name;
        int options;
    } forms[] = {
        { "NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE },
        { "NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE },
    };
    const char *type = json_string_value(json_object_get(description, "type"));

    if (!description || json_is_null(description))
        return true;
    if (!type)
        return err_set(err, ERR_INPUT, "expected null or an object with a \"type\"");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(description, "normalizers"), *item;
        size_t i;

        if (!json_is_array(list))
            return err_set(err, ERR_INPUT, "Sequence: expected a list \"normalizers\"");
        if (depth == PRETOKENIZE_DEPTH_MAX)
            return err_set(err, ERR_LIMIT, "more than %d Sequences within each other", PRETOKENIZE_DEPTH_MAX);
        json_array_foreach(list, i, item) if (!read_normalizer(t, item, depth + 1, err)) return err_wrap(
            err, "step %zu", i + 1);
        return true;
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(type, forms[i].name) != 0)
            continue;
        if (t->normalizer_count == TOKENIZER_STEPS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d steps", TOKENIZER_STEPS_MAX);
        t->normalizer[t->normalizer_count++] = (utf8proc_option_t)forms[i].options;
        return true;
    }
    return err_set(err, ERR_INPUT, "type `%.40s` is not supported; expected Sequence, NFC or NFD", type);
}

/* Every normalization form leaves ASCII alone. */
static bool is_ascii(struct span text)
{
    uint8_t any = 0;

    for (size_t i = 0; i < text.size; i++)
        any |= text.data[i];
    return any < 0x80;
}

static bool check_marks(struct span text, struct err *err)
{
    size_t in_a_row = 0;

    for (size_t at = 0; at < text.size; at += utf8_length(text.data[at])) {
        const utf8proc_property_t *property =
            utf8proc_get_property((utf8proc_int32_t)utf8_read(text.data + at));

        in_a_row = property->combining_class ? in_a_row + 1 : 0;
        if (in_a_row > MARKS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d combining marks in a row", MARKS_MAX);
    }
    return true;
}

/* Characters that compose, decompose or change places since Unicode 9, which the library's normalizer has
 * (found by asking it).  To it they are plain characters, so text is normalized in runs between them.  Whole
 * blocks where all of a script is new. */
static bool is_new(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        { 0x7fd, 0x7fd },     { 0x897, 0x89f },     { 0x8ca, 0x8d3 },     { 0x9fe, 0x9fe },
        { 0xc3c, 0xc3c },     { 0xd3b, 0xd3c },     { 0xeba, 0xeba },     { 0x1715, 0x1715 },
        { 0x1abf, 0x1ace },   { 0x1df6, 0x1dfa },   { 0xa82c, 0xa82c },   { 0x105c0, 0x105ff },
        { 0x10d24, 0x10d27 }, { 0x10d69, 0x10d6d }, { 0x10eab, 0x10eac }, { 0x10efc, 0x10eff },
        { 0x10f46, 0x10f50 }, { 0x10f82, 0x10f85 }, { 0x11070, 0x11070 }, { 0x1133b, 0x1133b },
        { 0x11380, 0x113ff }, { 0x1145e, 0x1145e }, { 0x11839, 0x1183a }, { 0x11930, 0x11943 },
        { 0x119e0, 0x119e0 }, { 0x11a34, 0x11a34 }, { 0x11a47, 0x11a47 }, { 0x11a99, 0x11a99 },
        { 0x11d42, 0x11d45 }, { 0x11d97, 0x11d97 }, { 0x11f41, 0x11f42 }, { 0x16100, 0x1613f },
        { 0x16d40, 0x16d7f }, { 0x16ff0, 0x16ff1 }, { 0x1e08f, 0x1e08f }, { 0x1e130, 0x1e136 },
        { 0x1e2ae, 0x1e2ae }, { 0x1e2ec, 0x1e2ef }, { 0x1e4ec, 0x1e4ef }, { 0x1e5ee, 0x1e5ef },
    };

    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0] && c >= ranges[i].first; i++)
        if (c <= ranges[i].last)
            return true;
    return false;
}

static bool normalize_run(struct span run, utf8proc_option_t form, struct buf *out, struct err *err)
{
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t size;
    bool ok;

    if (run.size == 0)
        return true;
    size = utf8proc_map(run.data, (utf8proc_ssize_t)run.size, &made, form);
    ok = size >= 0 && buf_add(out, made, (size_t)size);
    if (!ok)
        err_set(err, ERR_IO, "normalizer: %s", size < 0 ? utf8proc_errmsg(size) : "out of memory");
    free(made);
    return ok;
}

static bool normalize_once(struct span text, utf8proc_option_t form, struct buf *out, struct err *err)
{
    size_t from = 0, at, size;

    for (at = 0; at < text.size; at += size) {
        size = utf8_length(text.data[at]);
        if (!is_new(utf8_read(text.data + at)))
            continue;
        if (!normalize_run(span_of(text.data + from, at - from), form, out, err))
            return false;
        if (!buf_add(out, text.data + at, size))
            return out_of_memory(err);
        from = at + size;
    }
    return normalize_run(span_of(text.data + from, at - from), form, out, err);
}

/* *result is text itself, or lies in memory, which the caller frees. */
static bool normalize(const struct tokenizer *t, struct span text, struct span *result, uint8_t **memory,
                      struct err *err)
{
    *result = text;
    *memory = NULL;
    if (t->normalizer_count == 0 || text.size == 0 || is_ascii(text))
        return true;
    for (int i = 0; i < t->normalizer_count; i++) {
        struct buf made = { 0 };

        if (!check_marks(*result, err) || !normalize_once(*result, t->normalizer[i], &made, err)) {
            buf_fini(&made);
            free(*memory);
            *memory = NULL;
            return false;
        }
        free(*memory);
        *memory = made.data;
        *result = buf_span(&made);
    }
    return true;
}

/* ---- added tokens
 * --------------------------------------------------------------------------------------------- */

static bool has_control_form(struct span text)
{
    static const char *const ends[][2] = { { "<｜", "｜>" }, { "<|", "|>" } };

    for (int i = 0; i < 2; i++) {
        size_t open = strlen(ends[i][0]), close = strlen(ends[i][1]);

        if (text.size >= open + close && memcmp(text.data, ends[i][0], open) == 0 &&
            memcmp(text.data + text.size - close, ends[i][1], close) == 0)
            return true;
    }
    return false;
}

static bool read_flag(const json_t *token, const char *key, bool *flag, struct err *err)
{
    const json_t *v = json_object_get(token, key);

    *flag = json_is_true(v);
    return !v || json_is_boolean(v) || err_set(err, ERR_INPUT, "%s: expected true or false", key);
}

static bool read_added_token(struct tokenizer *t, const json_t *json, struct err *err)
{
    struct added_token *token = &t->added[t->added_count];
    const json_t *id = json_object_get(json, "id"), *content = json_object_get(json, "content");
    int32_t known;

    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOKENIZER_IDS_MAX)
        return err_set(err, ERR_INPUT, "id: expected an integer 0..%d", TOKENIZER_IDS_MAX - 1);
    if (!json_is_string(content) || json_string_length(content) == 0 ||
        json_string_length(content) > ADDED_CONTENT_MAX)
        return err_set(err, ERR_INPUT, "content: expected a text of 1..%d bytes", ADDED_CONTENT_MAX);
    *token = (struct added_token){ .id = (int32_t)json_integer_value(id) };
    /* Room for all contents is reserved before the first, so they never move. */
    token->content = span_of(t->content.data + t->content.size, json_string_length(content));
    if (!buf_add(&t->content, json_string_value(content), json_string_length(content)))
        return out_of_memory(err);
    if (!read_flag(json, "special", &token->special, err) ||
        !read_flag(json, "normalized", &token->normalize, err) ||
        !read_flag(json, "lstrip", &token->lstrip, err) || !read_flag(json, "rstrip", &token->rstrip, err) ||
        !read_flag(json, "single_word", &token->single_word, err))
        return false;
    known = bpe_find(t->bpe, token->content);
    if (known >= 0 ? known != token->id : bpe_has(t->bpe, token->id)) {
        struct span other = bpe_bytes(t->bpe, token->id);

        if (known >= 0)
            return err_set(err, ERR_INPUT, "id %d, but the vocab has `%.*s` as %d", token->id,
                           token->content.size > 60 ? 60 : (int)token->content.size,
                           (const char *)token->content.data, known);
        return err_set(err, ERR_INPUT, "id %d is that of another token in the vocab (`%.*s`)", token->id,
                       other.size > 60 ? 60 : (int)other.size, (const char *)other.data);
    }
    t->added_count++;
    return true;
}

static int by_special(const void *left, const void *right)
{
    const struct added_token *a = left, *b = right;

    if (a->special != b->special)
        return a->special ? -1 : 1;
    return a->content.data < b->content.data ? -1 : a->content.data > b->content.data; /* the file's order */
}

static bool read_added(struct tokenizer *t, const json_t *list, struct err *err)
{
    size_t bytes = 0, i;
    const json_t *item;

    if (list && !json_is_array(list))
        return err_set(err, ERR_INPUT, "expected a list");
    if (json_array_size(list) > TOKENIZER_ADDED_MAX)
        return err_set(err, ERR_LIMIT, "%zu of them, at most %d", json_array_size(list), TOKENIZER_ADDED_MAX);
    json_array_foreach(list, i, item) bytes += json_string_length(json_object_get(item, "content"));
    t->added = calloc(json_array_size(list) + 1, sizeof *t->added);
    if (!t->added || !buf_reserve(&t->content, bytes + 1))
        return out_of_memory(err);
    json_array_foreach(list, i, item) if (!read_added_token(t, item, err)) return err_wrap(err, "[%zu]", i);
    qsort(t->added, t->added_count, sizeof *t->added, by_special);

    t->size = bpe_size(t->bpe);
    for (i = 0; i < t->added_count; i++)
        if (t->added[i].id >= t->size)
            t->size = t->added[i].id + 1;
    t->added_at = malloc((size_t)t->size * sizeof *t->added_at);
    t->special = calloc((size_t)t->size, 1);
    t->control = calloc((size_t)t->size, 1);
    if (!t->added_at || !t->special || !t->control)
        return out_of_memory(err);
    memset(t->added_at, 0xff, (size_t)t->size * sizeof *t->added_at);
    for (i = 0; i < t->added_count; i++) {
        struct added_token *token = &t->added[i];

        if (t->added_at[token->id] >= 0) {
            const struct added_token *other = &t->added[t->added_at[token->id]];

            if (span_equal(other->content, token->content)) /* said twice: the library passes over it */
                continue;
            return err_set(err, ERR_INPUT, "id %d stands for two texts", token->id);
        }
        t->added_at[token->id] = (int32_t)i;
        t->special[token->id] = token->special;
    }
    for (int32_t id = 0; id < t->size; id++)
        t->control[id] = t->special[id] || has_control_form(tokenizer_bytes(t, id));
    return true;
}

static bool is_raw(const struct added_token *token, const void *context)
{
    (void)context;
    return !token->normalize;
}

static bool is_normalized(const struct added_token *token, const void *context)
{
    (void)context;
    return token->normalize;
}

static bool is_raw_or_control(const struct added_token *token, const void *context)
{
    const struct tokenizer *t = context;

    return !token->normalize || t->control[token->id];
}

static bool is_normalized_and_plain(const struct added_token *token, const void *context)
{
    return !is_raw_or_control(token, context);
}

/* After special and control are known. */
static bool make_sets(struct tokenizer *t, struct err *err)
{
    for (size_t i = 0; i < t->added_count; i++) {
        uint8_t *memory;

        t->added[i].control = t->control[t->added[i].id];
        if (!normalize(t, t->added[i].content, &t->added[i].normalized, &memory, err))
            return false;
        if (memory) { /* keep it beside the contents, which must not move */
            struct span made = t->added[i].normalized;

            t->added[i].normalized.data = memory;
            if (made.size == 0)
                free(memory);
        }
    }
    return added_set_new(&t->raw, t->added, t->added_count, false, is_raw, NULL, err) &&
           added_set_new(&t->normalized, t->added, t->added_count, true, is_normalized, NULL, err) &&
           added_set_new(&t->guarded_raw, t->added, t->added_count, false, is_raw_or_control, t, err) &&
           added_set_new(&t->guarded_normalized, t->added, t->added_count, true, is_normalized_and_plain, t,
                         err);
}

/* ---- the rest of tokenizer.json
 * --------------------------------------------------------------------------------- */

static int32_t find_token(const struct tokenizer *t, struct span content)
{
    int32_t id = tokenizer_added(t, content);

    return id >= 0 ? id : bpe_find(t->bpe, content);
}

/* {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": ...}], "special_tokens": {"<s>": {"ids": [0]}}}
 */
static bool read_template(struct tokenizer *t, const json_t *description, struct err *err)
{
    const json_t *list = json_object_get(description, "single"), *item;
    const json_t *tokens = json_object_get(description, "special_tokens");
    bool text_seen = false;
    size_t i;

    if (!json_is_array(list))
        return err_set(err, ERR_INPUT, "TemplateProcessing: expected a list \"single\"");
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        const json_t *ids, *id;
        size_t k;

        if (json_object_get(item, "Sequence")) {
            text_seen = true;
            continue;
        }
        ids = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL;
        if (!json_is_array(ids))
            return err_set(err, ERR_INPUT,
                           "TemplateProcessing: single[%zu]: expected a Sequence or a SpecialToken "
                           "with its ids",
                           i);
        if (text_seen)
            return err_set(err, ERR_INPUT,
                           "TemplateProcessing puts `%.60s` after the text; only tokens in front "
                           "are supported",
                           name);
        json_array_foreach(ids, k, id)
        {
            if (!json_is_integer(id) ||
                !tokenizer_has(t, json_integer_value(id) > INT32_MAX ? -1 : (int32_t)json_integer_value(id)))
                return err_set(err, ERR_INPUT, "TemplateProcessing: `%.60s` has an id that does not exist",
                               name);
            if (t->prefix_count == PREFIX_MAX)
                return err_set(err, ERR_LIMIT, "TemplateProcessing: more than %d tokens in front",
                               PREFIX_MAX);
            t->prefix[t->prefix_count++] = (int32_t)json_integer_value(id);
        }
    }
    return true;
}

static bool read_post_processor(struct tokenizer *t, const json_t *description, int depth, struct err *err)
{
    const char *type = json_string_value(json_object_get(description, "type"));

    if (!description || json_is_null(description))
        return true;
    if (!type)
        return err_set(err, ERR_INPUT, "expected null or an object with a \"type\"");
    if (strcmp(type, "ByteLevel") == 0) /* moves offsets only */
        return true;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, description, err);
    if (strcmp(type, "Sequence") == 0 && depth < PRETOKENIZE_DEPTH_MAX) {
        const json_t *item;
        size_t i;

        json_array_foreach(
            json_object_get(description, "processors"), i,
            item) if (!read_post_processor(t, item, depth + 1, err)) return err_wrap(err, "step %zu", i + 1);
        return true;
    }
    return err_set(err, ERR_INPUT,
                   "type `%.40s` is not supported; expected ByteLevel, TemplateProcessing or Sequence", type);
}

static bool check_rest(const json_t *root, struct err *err)
{
    const json_t *decoder = json_object_get(root, "decoder"), *cut = json_object_get(root, "truncation");
    const char *type = json_string_value(json_object_get(decoder, "type"));

    if (cut && !json_is_null(cut))
        return err_set(err, ERR_INPUT, "truncation: is set; expected null: a text is never cut silently");
    if (decoder && !json_is_null(decoder) && (!type || strcmp(type, "ByteLevel") != 0))
        return err_set(err, ERR_INPUT, "decoder: type `%.40s` is not supported; expected ByteLevel",
                       type ? type : "");
    return true;
}

static bool read_tokenizer(struct tokenizer *t, const json_t *root, struct err *err)
{
    if (!json_is_object(root) || !json_is_object(json_object_get(root, "model")))
        return err_set(err, ERR_INPUT, "expected an object with a \"model\"");
    if (!bpe_new(&t->bpe, json_object_get(root, "model"), err))
        return err_wrap(err, "model");
    if (!read_normalizer(t, json_object_get(root, "normalizer"), 0, err))
        return err_wrap(err, "normalizer");
    if (!pretokenizer_new(&t->pretokenizer, json_object_get(root, "pre_tokenizer"), err))
        return err_wrap(err, "pre_tokenizer");
    if (!read_added(t, json_object_get(root, "added_tokens"), err))
        return err_wrap(err, "added_tokens");
    if (!read_post_processor(t, json_object_get(root, "post_processor"), 0, err))
        return err_wrap(err, "post_processor");
    return check_rest(root, err);
}

/* ---- tokenizer_config.json
 * --------------------------------------------------------------------------------------- */

/* "text", {"content": "text"} or null. */
static bool read_named_token(struct tokenizer *t, const json_t *root, const char *key, int32_t *id,
                             struct err *err)
{
    const json_t *v = json_object_get(root, key);
    struct span content;

    *id = -1;
    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (!v || json_is_null(v))
        return true;
    if (!json_is_string(v))
        return err_set(err, ERR_INPUT, "%s: expected a text, an object with a \"content\", or null", key);
    content = span_of(json_string_value(v), json_string_length(v));
    *id = find_token(t, content);
    if (*id < 0)
        return err_set(err, ERR_INPUT, "%s: `%.*s` is not in tokenizer.json", key,
                       content.size > 60 ? 60 : (int)content.size, (const char *)content.data);
    t->special[*id] = t->control[*id] = 1;
    return true;
}

static bool read_config(struct tokenizer *t, const json_t *root, struct err *err)
{
    const char *class = json_string_value(json_object_get(root, "tokenizer_class"));
    const json_t *add_bos = json_object_get(root, "add_bos_token"),
                 *add_eos = json_object_get(root, "add_eos_token");
    int32_t pad;

    if (!json_is_object(root))
        return err_set(err, ERR_INPUT, "expected an object");
    if (!read_named_token(t, root, "bos_token", &t->bos, err) ||
        !read_named_token(t, root, "eos_token", &t->eos, err) ||
        !read_named_token(t, root, "pad_token", &pad, err))
        return false;
    if (add_bos && !json_is_null(add_bos) && !json_is_boolean(add_bos))
        return err_set(err, ERR_INPUT, "add_bos_token: expected true or false");
    if (add_eos && !json_is_null(add_eos) && !json_is_false(add_eos))
        return err_set(err, ERR_INPUT,
                       "add_eos_token: expected false: a prompt that has ended cannot be continued");
    /* Absent: the class decides, and Llama's adds it. */
    t->add_bos = json_is_boolean(add_bos) ? json_is_true(add_bos) : class && strncmp(class, "Llama", 5) == 0;
    if (t->add_bos && t->bos < 0) {
        if (json_is_true(add_bos))
            return err_set(err, ERR_INPUT, "add_bos_token is true and there is no bos_token");
        t->add_bos = false;
    }
    return true;
}

static bool add_end(struct tokenizer *t, int32_t id, struct err *err)
{
    if (tokenizer_is_eos(t, id) || !tokenizer_has(t, id))
        return true; /* what the tokenizer does not know is never drawn */
    if (t->end_count == TOKENIZER_EOS_MAX)
        return err_set(err, ERR_LIMIT, "eos_token_id: more than %d ids", TOKENIZER_EOS_MAX);
    t->end[t->end_count++] = id;
    return true;
}

/* "eos_token_id": an id, a list of ids, or null. */
static bool read_generation(struct tokenizer *t, const json_t *root, struct err *err)
{
    const json_t *eos = json_object_get(root, "eos_token_id"), *id;
    size_t count = json_is_array(eos) ? json_array_size(eos) : eos && !json_is_null(eos);

    if (!json_is_object(root))
        return err_set(err, ERR_INPUT, "expected an object");
    for (size_t i = 0; i < count; i++) {
        id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return err_set(err, ERR_INPUT, "eos_token_id: expected a token id, or a list of them");
        if (!add_end(t, (int32_t)json_integer_value(id), err))
            return false;
    }
    return true;
}

/* ---- loading
 * ------------------------------------------------------------------------------------------------------ */

static bool parse_all(struct tokenizer *t, struct span file, struct span config, const char *where,
                      struct err *err)
{
    json_t *root;
    bool ok;

    t->bos = t->eos = -1;
    if (sodium_init() < 0)
        return err_set(err, ERR_IO, "libsodium does not start");
    root = parse(file, err);
    ok = root && read_tokenizer(t, root, err);
    json_decref(root);
    if (!ok)
        return err_wrap(err, "%stokenizer.json", where);
    if (config.size > 0) {
        root = parse(config, err);
        ok = root && read_config(t, root, err);
        json_decref(root);
        if (!ok)
            return err_wrap(err, "%stokenizer_config.json", where);
    }
    if (t->eos >= 0)
        t->end[t->end_count++] = t->eos;
    /* The wrapper's add_bos_token and a template that says the same put one bos in front, not two. */
    if (t->prefix_count == 0 && t->add_bos)
        t->prefix[t->prefix_count++] = t->bos;
    return pattern_new_word_character(&t->word_character, err) && make_sets(t, err);
}

static bool load(struct tokenizer **tokenizer, struct span file, struct span config, const char *where,
                 struct err *err)
{
    struct tokenizer *t = *tokenizer = calloc(1, sizeof *t);

    if (!t)
        return out_of_memory(err);
    if (parse_all(t, file, config, where, err))
        return true;
    tokenizer_free(t);
    *tokenizer = NULL;
    return false;
}

bool tokenizer_parse(struct tokenizer **tokenizer, struct span file, struct span config, struct err *err)
{
    return load(tokenizer, file, config, "", err);
}

bool tokenizer_load(struct tokenizer **tokenizer, const char *dir, struct err *err)
{
    struct buf file = { 0 }, config = { 0 }, generation = { 0 };
    char where[4096];
    bool missing, ok;

    *tokenizer = NULL;
    snprintf(where, sizeof where, "%s/", dir);
    ok = read_file(&file, dir, "tokenizer.json", TOKENIZER_FILE_MAX, NULL, err) &&
         read_file(&config, dir, "tokenizer_config.json", CONFIG_FILE_MAX, &missing, err) &&
         read_file(&generation, dir, "generation_config.json", CONFIG_FILE_MAX, &missing, err) &&
         load(tokenizer, buf_span(&file), buf_span(&config), where, err);
    if (ok && generation.size > 0) {
        json_t *root = parse(buf_span(&generation), err);

        if (!root || !read_generation(*tokenizer, root, err)) {
            tokenizer_free(*tokenizer);
            *tokenizer = NULL;
            ok = err_wrap(err, "%sgeneration_config.json", where);
        }
        json_decref(root);
    }
    buf_fini(&generation);
    buf_fini(&file);
    buf_fini(&config);
    return ok;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; t->added && i < t->added_count; i++)
        if (t->added[i].normalized.size > 0 && t->added[i].normalized.data != t->added[i].content.data)
            free((void *)(uintptr_t)t->added[i].normalized.data);
    added_set_free(t->raw);
    added_set_free(t->normalized);
    added_set_free(t->guarded_raw);
    added_set_free(t->guarded_normalized);
    pattern_free(t->word_character);
    bpe_free(t->bpe);
    pretokenizer_free(t->pretokenizer);
    free(t->added);
    free(t->added_at);
    buf_fini(&t->content);
    free(t->special);
    free(t->control);
    free(t);
}

/* ---- what it has
 * ---------------------------------------------------------------------------------------------------- */

int32_t tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

bool tokenizer_has(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && (t->added_at[id] >= 0 || bpe_has(t->bpe, id));
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

const int32_t *tokenizer_eos_ids(const struct tokenizer *t, int *count)
{
    *count = t->end_count;
    return t->end;
}

bool tokenizer_is_eos(const struct tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->end_count; i++)
        if (t->end[i] == id)
            return true;
    return false;
}

size_t tokenizer_token_bytes_max(const struct tokenizer *t)
{
    size_t most = 1;

    for (size_t i = 0; i < t->added_count; i++)
        if (t->added[i].lstrip || t->added[i].rstrip) /* they take in any white space beside them */
            return 0;
    for (int32_t id = 0; id < t->size; id++)
        if (tokenizer_bytes(t, id).size > most)
            most = tokenizer_bytes(t, id).size;
    /* No normalization form makes less than a quarter of a text: a mathematical letter of four bytes becomes
     * one of ASCII, a syllable of three letters three bytes of nine. */
    return t->normalizer_count ? 4 * most : most;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->bos >= 0 && t->prefix_count > 0 && t->prefix[0] == t->bos;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && t->special[id];
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && t->control[id];
}

int32_t tokenizer_added(const struct tokenizer *t, struct span content)
{
    /* Asked a few times when a model is loaded; there are a few dozen of them. */
    for (size_t i = 0; i < t->added_count; i++)
        if (span_equal(t->added[i].content, content))
            return t->added[i].id;
    return -1;
}

struct span tokenizer_bytes(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->size)
        return span_of(NULL, 0);
    return t->added_at[id] >= 0 ? t->added[t->added_at[id]].content : bpe_bytes(t->bpe, id);
}

/* ---- encoding
 * ---------------------------------------------------------------------------------------------------------
 */

/* Everything an encoding needs; made anew for each, so that a tokenizer may be shared by threads. */
struct encoding {
    const struct tokenizer *tokenizer;
    struct pattern_work *pattern;
    struct pretokenize_work pretokenize;
    struct bpe_work bpe;
    struct ids *ids;
    struct err *err;

    /* Guarded: what may be forged in the user's parts must not match there. */
    bool guarded;
    const size_t *part_end; /* of each part, in the joined text */
    const struct text_part *part;
    size_t part_count;
};

/* Control tokens stand for template text only: every byte of the match in ADDED_ALL parts. */
static bool may_match(const struct added_token *token, size_t from, size_t to, const void *context)
{
    const struct encoding *e = context;
    size_t low = 0, high = e->part_count;

    if (!token->control)
        return true;
    while (low < high) { /* the part that holds from */
        size_t middle = low + (high - low) / 2;

        if (e->part_end[middle] <= from)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < e->part_count; low++) {
        if (e->part[low].added != ADDED_ALL && e->part_end[low] > (low ? e->part_end[low - 1] : 0))
            return false;
        if (e->part_end[low] >= to)
            return true;
    }
    return false;
}

static bool add_id(struct encoding *e, int32_t id)
{
    if (ids_add(e->ids, id))
        return true;
    if (e->ids->max && e->ids->count >= e->ids->max)
        return err_set(e->err, ERR_LIMIT, "the text has more than %zu tokens", e->ids->max);
    return out_of_memory(e->err);
}

static bool encode_words(struct encoding *e, struct span text)
{
    const struct tokenizer *t = e->tokenizer;

    if (!pretokenize(t->pretokenizer, &e->pretokenize, e->pattern, text, e->err))
        return false;
    for (size_t i = 0; i < e->pretokenize.piece_count; i++) {
        struct piece piece = e->pretokenize.piece[i];

        if (!bpe_word(t->bpe, &e->bpe, span_of(e->pretokenize.text.data + piece.from, piece.to - piece.from),
                      e->guarded ? t->control : NULL, e->ids, e->err))
            return false;
    }
    return true;
}

/* Text without raw added tokens: the normalizer, then those that match after it. */
static bool encode_raw(struct encoding *e, struct span raw)
{
    const struct tokenizer *t = e->tokenizer;
    struct added_scan scan = { 0 };
    const struct added_token *token;
    uint8_t *memory;
    bool ok = true;

    if (raw.size == 0)
        return true;
    if (!normalize(t, raw, &scan.text, &memory, e->err))
        return false;
    do {
        size_t from, to;

        added_next(e->guarded ? t->guarded_normalized : t->normalized, t->word_character, e->pattern, &scan,
                   &from, &to, &token);
        ok = (from == to || encode_words(e, span_of(scan.text.data + from, to - from))) &&
             (!token || add_id(e, token->id));
    } while (ok && token);
    free(memory);
    return ok;
}

static bool encode_text(struct encoding *e, struct span text)
{
    const struct tokenizer *t = e->tokenizer;
    struct added_scan scan = { .text = text };
    const struct added_token *token;

    if (text.size == 0)
        return true;
    if (e->guarded)
        scan.rule = (struct added_rule){ may_match, e };
    do {
        size_t from, to;

        added_next(e->guarded ? t->guarded_raw : t->raw, t->word_character, e->pattern, &scan, &from, &to,
                   &token);
        if (!encode_raw(e, span_of(text.data + from, to - from)) || (token && !add_id(e, token->id)))
            return false;
    } while (token);
    return true;
}

bool tokenizer_encode_parts(const struct tokenizer *t, const struct text_part *part, size_t part_count,
                            struct ids *ids, struct err *err)
{
    struct encoding e = { .tokenizer = t, .ids = ids, .err = err, .part = part, .part_count = part_count };
    size_t *part_end = calloc(part_count + 1, sizeof *part_end), had = ids->count;
    struct buf joined = { .max = TOKENIZER_TEXT_MAX };
    struct span text;
    bool ok = false;

    if (!part_end) {
        out_of_memory(err);
        goto out;
    }
    for (size_t i = 0; i < part_count; i++) {
        if (part_count > 1 && !buf_add(&joined, part[i].text.data, part[i].text.size)) {
            err_set(err, ERR_LIMIT, "text of more than %d bytes", TOKENIZER_TEXT_MAX);
            goto out;
        }
        part_end[i] = joined.size;
        e.guarded = e.guarded || part[i].added != ADDED_ALL;
    }
    text = part_count == 1 ? part[0].text : buf_span(&joined);
    if (part_count == 1)
        part_end[0] = text.size;
    e.part_end = part_end;
    if (text.size > TOKENIZER_TEXT_MAX) {
        err_set(err, ERR_LIMIT, "text of %zu bytes, at most %d", text.size, TOKENIZER_TEXT_MAX);
    } else if (!span_is_utf8(text)) {
        err_set(err, ERR_INPUT, "text is not UTF-8");
    } else if (!(e.pattern = pattern_work_new())) {
        out_of_memory(err);
    } else {
        ok = encode_text(&e, text);
    }
out:
    if (!ok)
        ids->count = had;
    pattern_work_free(e.pattern);
    pretokenize_work_fini(&e.pretokenize);
    bpe_work_fini(&e.bpe);
    buf_fini(&joined);
    free(part_end);
    return ok;
}

bool tokenizer_encode(const struct tokenizer *t, struct span text, struct ids *ids, struct err *err)
{
    struct text_part part = { text, ADDED_ALL };

    return tokenizer_encode_parts(t, &part, 1, ids, err);
}

int tokenizer_prefix_count(const struct tokenizer *t)
{
    return t->prefix_count;
}

bool tokenizer_encode_prompt(const struct tokenizer *t, struct span text, struct ids *ids, struct err *err)
{
    size_t had = ids->count;

    for (int i = 0; i < t->prefix_count; i++)
        if (!ids_add(ids, t->prefix[i])) {
            ids->count = had;
            return err_set(err, ERR_LIMIT, "the text has more than %zu tokens", ids->max);
        }
    if (tokenizer_encode(t, text, ids, err))
        return true;
    ids->count = had;
    return false;
}
