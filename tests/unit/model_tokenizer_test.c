/* The tokenizer on small vocabularies made here, and on the demo model's.  tests/parity compares it with the library. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "worker/model/detokenize.h"
#include "worker/model/tokenizer.h"

#define DEMO SOURCE_DIR "/deploy/demo/model"

/* ---- making tokenizers ------------------------------------------------------------------------------------ */

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"

/* What a test wants to be special about its tokenizer; NULL: nothing. */
struct recipe {
    const char *tokens; /* further vocab entries: ",\"ab\":256" */
    const char *merges; /* "[\"a\",\"b\"]" */
    const char *model;  /* further options: ",\"ignore_merges\":true" */
    const char *added;  /* "{...},{...}" */
    const char *pre, *normalizer, *post, *rest;
    const char *config;
};

/* All 256 bytes are ids 0..255; with added tokens those that cannot occur in UTF-8 are left out, as in the real
 * vocabulary, because the table writes 0xfc as "ü" and the added token "ü" would be that one. */
static void write_file(struct buf *out, const struct recipe *r)
{
    int next = 256;

    CHECK(buf_format(out, "{\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s%s,"
                          "\"model\":{\"type\":\"BPE\"%s,\"vocab\":{",
                     r->added ? r->added : "", r->normalizer ? r->normalizer : "null", r->pre ? r->pre : BYTE_LEVEL,
                     r->post ? r->post : "null", r->rest ? r->rest : "", r->model ? r->model : ""));
    for (int b = 0; b < 256; b++) {
        bool visible = (b >= 33 && b <= 126) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;

        if (!r->added || (b != 0xc0 && b != 0xc1 && b < 0xf5))
            CHECK(buf_format(out, "%s\"\\u%04x\":%d", b ? "," : "", visible ? b : next, b));
        next += !visible;
    }
    CHECK(buf_format(out, "%s},\"merges\":[%s]}}", r->tokens ? r->tokens : "", r->merges ? r->merges : ""));
}

static bool try_make(struct tokenizer **t, const struct recipe *r, struct err *err)
{
    struct buf file = { 0 };
    bool ok;

    write_file(&file, r);
    ok = tokenizer_parse(t, buf_span(&file), r->config ? span_text(r->config) : span_of(NULL, 0), err);
    buf_fini(&file);
    return ok;
}

static struct tokenizer *make(const struct recipe *r)
{
    struct tokenizer *t;
    struct err err;

    if (!try_make(&t, r, &err))
        fail_msg("%s", err.text);
    return t;
}

/* The ids of text, as "1 2 3"; a tokenizer error comes back as its text. */
static const char *encoded(const struct tokenizer *t, const struct text_part *part, size_t part_count)
{
    static char text[8192];
    struct ids ids = { 0 };
    struct err err;
    size_t at = 0;

    text[0] = '\0';
    if (!tokenizer_encode_parts(t, part, part_count, &ids, &err))
        snprintf(text, sizeof text, "%s", err.text);
    for (size_t i = 0; i < ids.count && at < sizeof text - 16; i++)
        at += (size_t)sprintf(text + at, "%s%d", i ? " " : "", ids.id[i]);
    ids_fini(&ids);
    return text;
}

static const char *ids_of(const struct tokenizer *t, const char *text)
{
    struct text_part part = { span_text(text), ADDED_ALL };

    return encoded(t, &part, 1);
}

static const char *plain_ids_of(const struct tokenizer *t, const char *text)
{
    struct text_part part = { span_text(text), ADDED_PLAIN };

    return encoded(t, &part, 1);
}

/* ---- merging --------------------------------------------------------------------------------------------------- */

/* Two pairs spell "abc"; only their own ranks count.  By string, "bc" + "a" and "b" + "ca" would be one. */
static void test_merges_go_by_pair(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .tokens = ",\"ab\":256,\"bc\":257,\"abc\":258,\"aab\":259",
                                                 .merges = "\"b c\",[\"a\",\"b\"],\"a bc\",\"a ab\"" });

    (void)state;
    assert_string_equal(ids_of(t, "abc"), "258");     /* bc first, then a + bc */
    assert_string_equal(ids_of(t, "ab"), "256");
    assert_string_equal(ids_of(t, "aabc"), "97 258"); /* ab + c has no rank, so aab never forms */
    assert_string_equal(ids_of(t, "aab"), "259");
    assert_string_equal(ids_of(t, "bcbc"), "257 257");
    tokenizer_free(t);
}

/* Of equal ranks the leftmost merges first. */
static void test_the_leftmost_of_equals_merges_first(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .tokens = ",\"aa\":256,\"aaaa\":257", .merges = "\"a a\",\"aa aa\"" });

    (void)state;
    assert_string_equal(ids_of(t, "aaa"), "256 97");
    assert_string_equal(ids_of(t, "aaaaaaa"), "257 256 97");
    tokenizer_free(t);
}

/* With ignore_merges a word that is a token is that token, whatever the merges would make. */
static void test_ignore_merges(void **state)
{
    const char *tokens = ",\"ab\":256,\"abc\":257,\"\\u00c3\\u00a4\":258";
    struct tokenizer *with = make(&(struct recipe){ .tokens = tokens, .merges = "\"a b\"", .model = ",\"ignore_merges\":true" });
    struct tokenizer *without = make(&(struct recipe){ .tokens = tokens, .merges = "\"a b\"" });

    (void)state;
    assert_string_equal(ids_of(with, "abc"), "257");
    assert_string_equal(ids_of(without, "abc"), "256 99");
    assert_string_equal(ids_of(with, "ä"), "258");
    assert_string_equal(ids_of(without, "ä"), "195 164");
    tokenizer_free(with);
    tokenizer_free(without);
}

/* ---- added tokens ------------------------------------------------------------------------------------------------ */

static const char *const many_added =
    "{\"id\":260,\"content\":\"<x>\",\"special\":true},{\"id\":261,\"content\":\"<x>y\"},"
    "{\"id\":262,\"content\":\"cat\",\"single_word\":true},{\"id\":263,\"content\":\"[L]\",\"lstrip\":true},"
    "{\"id\":264,\"content\":\"[R]\",\"rstrip\":true},{\"id\":265,\"content\":\"ü\",\"normalized\":true}";

static void test_added_tokens_leftmost_and_longest(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .added = many_added });

    (void)state;
    assert_string_equal(ids_of(t, "<x>"), "260");
    assert_string_equal(ids_of(t, "<x>y<x>z"), "261 260 122");
    assert_string_equal(ids_of(t, "<<x"), "60 60 120");
    assert_string_equal(ids_of(t, "cat cats _cat cat"), "262 32 99 97 116 115 32 95 99 97 116 32 262");
    assert_string_equal(ids_of(t, "a \t[L] b"), "97 263 32 98");
    assert_string_equal(ids_of(t, "a [R] \n b"), "97 32 264 98");
    assert_string_equal(ids_of(t, "uüu"), "117 265 117");
    tokenizer_free(t);
}

/* A token that the model's vocabulary has too is one token, not two. */
static void test_an_added_token_of_the_vocabulary(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .tokens = ",\"<e>\":256", .added = "{\"id\":256,\"content\":\"<e>\",\"special\":true}" });

    (void)state;
    CHECK(tokenizer_size(t) == 257 && tokenizer_is_special(t, 256));
    assert_string_equal(ids_of(t, "a<e>b"), "97 256 98");
    tokenizer_free(t);
}

/* A composed and a decomposed letter are one token after NFC; a token that is not normalized stays as it is written. */
static void test_normalized_tokens_match_normalized_text(void **state)
{
    struct tokenizer *t = make(&(struct recipe){
        .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}",
        .added = "{\"id\":256,\"content\":\"\\u1ebf\",\"normalized\":true},{\"id\":257,\"content\":\"o\\u0302\",\"normalized\":false}" });

    (void)state;
    assert_string_equal(ids_of(t, "ế e\xcc\x82\xcc\x81"), "256 32 256");
    assert_string_equal(ids_of(t, "o\xcc\x82 ô"), "257 32 195 180");
    tokenizer_free(t);
}

/* ---- control tokens ------------------------------------------------------------------------------------------------ */

static const char *const control_added = "{\"id\":300,\"content\":\"<｜User｜>\"},{\"id\":301,\"content\":\"<|EOT|>\"},"
                                         "{\"id\":302,\"content\":\"STOP\",\"special\":true},{\"id\":303,\"content\":\"<|\"},"
                                         "{\"id\":304,\"content\":\"end\"},{\"id\":305,\"content\":\"ö\",\"normalized\":true}";
static const char *const control_config = "{\"eos_token\":\"end\",\"add_bos_token\":false}";

/* What a user writes must not become a turn or an end of text; letters that are tokens still do. */
static void test_plain_parts_match_no_control_token(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .added = control_added, .config = control_config });

    (void)state;
    assert_string_equal(ids_of(t, "STOP"), "302");
    assert_string_equal(plain_ids_of(t, "STOP"), "83 84 79 80");
    assert_string_equal(ids_of(t, "<|EOT|>"), "301");
    assert_string_equal(plain_ids_of(t, "<|EOT|>"), "303 69 79 84 124 62"); /* "<|" by itself is no control token */
    assert_string_equal(ids_of(t, "<｜User｜>"), "300");
    CHECK(strncmp(plain_ids_of(t, "<｜User｜>"), "60 239", 6) == 0);
    assert_string_equal(plain_ids_of(t, "endö"), "101 110 100 305");
    for (int id = 300; id < 306; id++)
        CHECK(tokenizer_is_control(t, id) == (id != 303 && id != 305));
    tokenizer_free(t);
}

/* Neither half of a control token may come from the user, wherever the border lies; words do cross borders. */
static void test_control_tokens_do_not_cross_into_plain_parts(void **state)
{
    static const char token[] = "<|EOT|>";
    struct tokenizer *t = make(&(struct recipe){ .added = "{\"id\":300,\"content\":\"<|EOT|>\"}",
                                                 .tokens = ",\"ab\":256", .merges = "\"a b\"" });

    (void)state;
    for (size_t cut = 0; cut <= strlen(token); cut++)
        for (int order = 0; order < 2; order++) {
            struct text_part part[] = { { span_of(token, cut), order ? ADDED_PLAIN : ADDED_ALL },
                                        { span_of(token + cut, strlen(token) - cut), order ? ADDED_ALL : ADDED_PLAIN } };
            bool whole = cut == (order ? 0 : strlen(token));

            assert_string_equal(encoded(t, part, 2), whole ? "300" : "60 124 69 79 84 124 62");
        }
    {
        struct text_part all[] = { { span_text("<|E"), ADDED_ALL }, { span_text(""), ADDED_PLAIN }, { span_text("OT|>"), ADDED_ALL } };
        struct text_part word[] = { { span_text("xa"), ADDED_ALL }, { span_text("by"), ADDED_PLAIN } };

        assert_string_equal(encoded(t, all, 3), "300"); /* nothing of it is the user's */
        assert_string_equal(encoded(t, word, 2), "120 256 121");
    }
    tokenizer_free(t);
}

/* A vocabulary in which merges spell a control token is no way around. */
static void test_merges_make_no_control_token_of_plain_text(void **state)
{
    const char *added = "{\"id\":258,\"content\":\"<|>\",\"special\":true}";
    struct tokenizer *merges = make(&(struct recipe){ .added = added, .tokens = ",\"<|\":256,\"|>\":257,\"<|>\":258",
                                                      .merges = "\"< |\",\"| >\",\"<| >\"" });
    struct tokenizer *whole = make(&(struct recipe){ .added = added, .tokens = ",\"<|\":256,\"|>\":257,\"<|>\":258",
                                                     .model = ",\"ignore_merges\":true" });

    (void)state;
    assert_string_equal(ids_of(merges, "<|>"), "258");
    assert_string_equal(plain_ids_of(merges, "<|>"), "256 62");
    assert_string_equal(ids_of(whole, "<|>"), "258");
    assert_string_equal(plain_ids_of(whole, "<|>"), "60 124 62");
    tokenizer_free(merges);
    tokenizer_free(whole);
}

/* ---- prompts ---------------------------------------------------------------------------------------------------------- */

static void test_a_prompt_begins_as_the_files_say(void **state)
{
    static const struct {
        const char *post, *config, *ids;
    } cases[] = {
        { NULL, "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", "300 97" },
        { NULL, "{\"bos_token\":{\"content\":\"<s>\"},\"add_bos_token\":false}", "97" },
        { NULL, "{\"bos_token\":\"<s>\",\"tokenizer_class\":\"LlamaTokenizerFast\"}", "300 97" },
        { NULL, "{\"bos_token\":\"<s>\",\"tokenizer_class\":\"PreTrainedTokenizerFast\"}", "97" },
        { NULL, NULL, "97" },
        { "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
          "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[300],\"tokens\":[\"<s>\"]}}}",
          "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", "300 97" }, /* both ask for it: once */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tokenizer *t = make(&(struct recipe){ .added = "{\"id\":300,\"content\":\"<s>\",\"special\":true}",
                                                     .post = cases[i].post, .config = cases[i].config });
        struct ids ids = { 0 };
        struct err err;
        char text[64];

        CHECK(tokenizer_encode_prompt(t, span_text("a"), &ids, &err));
        snprintf(text, sizeof text, ids.count == 2 ? "%d %d" : "%d", ids.id[0], ids.count == 2 ? ids.id[1] : 0);
        assert_string_equal(text, cases[i].ids);
        CHECK(tokenizer_adds_bos(t) == (ids.count == 2));
        ids_fini(&ids);
        tokenizer_free(t);
    }
}

/* What was there before stays, and nothing of the text that did not fit. */
static void test_ids_at_their_bound(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .added = many_added });
    struct ids ids = { .max = 4 };
    struct err err;

    (void)state;
    CHECK(tokenizer_encode(t, span_text("ab"), &ids, &err) && ids.count == 2);
    CHECK(!tokenizer_encode(t, span_text("abc"), &ids, &err) && err.code == ERR_LIMIT && ids.count == 2);
    CHECK(!tokenizer_encode(t, span_text("<x>y<x>y<x>y"), &ids, &err) && err.code == ERR_LIMIT && ids.count == 2);
    CHECK(tokenizer_encode(t, span_text("cd"), &ids, &err) && ids.count == 4);
    CHECK(tokenizer_encode(t, span_text(""), &ids, &err) && ids.count == 4);
    CHECK(!tokenizer_encode(t, span_text("\xff"), &ids, &err) && err.code == ERR_INPUT && strstr(err.text, "UTF-8"));
    ids_fini(&ids);
    tokenizer_free(t);
}

/* ---- decoding ------------------------------------------------------------------------------------------------------------ */

/* A piece that ends inside a character waits for the rest; what cannot become one is replaced, once a broken part. */
static void test_no_piece_cuts_a_character(void **state)
{
    static const struct {
        const char *bytes;  /* one id a byte */
        const char *pieces; /* after each id, and at the end, "|" */
    } cases[] = {
        { "a\xc3\xa4z", "a||ä|z|" },
        { "\xf0\x9f\xa6\x99", "|||🦙|" },
        { "\xf0\x9f\xa6", "|||\xef\xbf\xbd" },
        { "\xf0\x9f" "a", "||\xef\xbf\xbd" "a|" },
        { "\xc3\xc3\xa4", "|\xef\xbf\xbd|ä|" },
        { "\xe0\x80\x80", "|\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd|" }, /* overlong: no part of it could begin */
        { "\xed\xa0\x80", "|\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd|" }, /* a surrogate */
        { "\xf4\x90\x80\x80", "|\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd|\xef\xbf\xbd|" },
        { "\xff\x80", "\xef\xbf\xbd|\xef\xbf\xbd|" },
    };
    struct tokenizer *t = make(&(struct recipe){ 0 });

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = { 0 };
        struct detokenizer d;

        detokenizer_init(&d, t, true);
        for (const char *b = cases[i].bytes; *b; b++)
            CHECK(detokenizer_add(&d, (uint8_t)*b, &out) && buf_text(&out, "|"));
        CHECK(detokenizer_end(&d, &out) && buf_add(&out, "", 1));
        assert_string_equal((char *)out.data, cases[i].pieces);
        buf_fini(&out);
    }
    tokenizer_free(t);
}

/* An added "ü" is that letter; through the byte table it would be byte 0xfc, the missing umlaut of other programs. */
static void test_an_added_token_decodes_to_its_own_text(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .added = many_added, .config = "{\"eos_token\":\"cat\"}" });
    const int32_t ids[] = { 70, 265, 104, 260, 261, 262 };
    struct buf out = { 0 };
    struct err err;

    (void)state;
    CHECK(detokenize(t, ids, 6, true, &out, &err) && span_equal(buf_span(&out), span_text("Füh<x><x>ycat")));
    out.size = 0;
    CHECK(detokenize(t, ids, 6, false, &out, &err) && span_equal(buf_span(&out), span_text("Füh<x>y")));
    CHECK(!detokenize(t, (int32_t[]){ 259 }, 1, true, &out, &err) && strstr(err.text, "token 259"));
    CHECK(!detokenize(t, (int32_t[]){ -1 }, 1, true, &out, &err));
    CHECK(!tokenizer_has(t, 259) && tokenizer_has(t, 260) && !tokenizer_has(t, 266) && tokenizer_size(t) == 266);
    buf_fini(&out);
    tokenizer_free(t);
}

/* ---- files that are not what they should be -------------------------------------------------------------------------------- */

#define SPLIT(regex) "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL "]}"

static void test_what_is_not_supported_is_named(void **state)
{
    static const struct {
        struct recipe recipe;
        const char *words;
    } cases[] = {
        { { .model = ",\"unk_token\":\"<unk>\"" }, "tokenizer.json: model: `unk_token` is set" },
        { { .model = ",\"byte_fallback\":true" }, "`byte_fallback` is set" },
        { { .model = ",\"dropout\":0.5" }, "`dropout` is set" },
        { { .model = ",\"continuing_subword_prefix\":\"##\"" }, "`continuing_subword_prefix` is set" },
        { { .tokens = ",\"zz\":7" }, "vocab: id 7 stands for" },
        { { .tokens = ",\"zz\":-1" }, "vocab: id of `zz`: expected an integer 0.." },
        { { .tokens = ",\"zz\":2097152" }, "vocab: id of `zz`" },
        { { .tokens = ",\"zz\":1.5" }, "vocab: id of `zz`" },
        { { .tokens = ",\"zz\":300,\"zz\":301" }, "duplicate object key" },
        { { .merges = "\"a b\"" }, "merges[0]: `ab`, which it makes, is not in the vocab" },
        { { .tokens = ",\"ab\":256", .merges = "\"a b\",\"ab xx\"" }, "merges[1]: `xx` is not in the vocab" },
        { { .merges = "\"ab\"" }, "merges[0]: expected" },
        { { .merges = "[\"a\"]" }, "merges[0]: expected" },
        { { .merges = "[\"a\",7]" }, "merges[0]: expected" },
        { { .merges = "7" }, "merges[0]: expected" },
        { { .pre = "null" }, "pre_tokenizer: expected an object with a \"type\"" },
        { { .pre = "{\"type\":\"Metaspace\"}" }, "type `Metaspace` is not supported" },
        { { .pre = "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL ",{\"type\":\"Digits\"}]}" }, "step 2: a `Digits` after ByteLevel" },
        { { .pre = "{\"type\":\"Digits\",\"individual_digits\":true}" }, "no ByteLevel step" },
        { { .pre = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"isolated\"}" }, "behavior `isolated`" },
        { { .pre = "{\"type\":\"Split\",\"pattern\":\"a\",\"behavior\":\"Isolated\"}" }, "pattern: expected" },
        { { .pre = SPLIT("(") }, "does not compile" },
        { { .pre = SPLIT("a\\\\bc") }, "at byte 1 of the pattern: \\b is not supported" },
        { { .pre = SPLIT("(a)\\\\1") }, "\\1 is not supported" },
        { { .pre = SPLIT("[a[b]]") }, "a class within a class" },
        { { .pre = SPLIT("[a&&b]") }, "&& within a class" },
        { { .pre = SPLIT("\\\\p{Han}") }, "\\p{Han} is not supported" },
        { { .pre = SPLIT("a(?i)b") }, "this kind of group" },
        { { .pre = SPLIT("(?i:a(b|[^c]))") }, "a negated class where case does not count" },
        { { .pre = SPLIT("(?i)x(?-i:[^y])\\\\p{L}") }, "\\p where case does not count" },
        { { .pre = SPLIT("a)b") }, "a ) without its (" },
        { { .pre = SPLIT("a{2}+") }, "a quantifier on {n}" },
        { { .pre = SPLIT("[z-a]") }, "a range that does not go up" },
        { { .pre = SPLIT("[a") }, "a class without its end" },
        { { .pre = SPLIT("a\\\\") }, "a backslash at the end" },
        { { .pre = SPLIT("") }, "pattern of 0 bytes" },
        { { .pre = SPLIT("((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((a") }, "so deep a nesting" },
        { { .normalizer = "{\"type\":\"Lowercase\"}" }, "normalizer: type `Lowercase` is not supported" },
        { { .normalizer = "{\"type\":\"NFKC\"}" }, "normalizer: type `NFKC` is not supported" },
        { { .normalizer = "7" }, "normalizer: expected" },
        { { .added = "{\"content\":\"x\"}" }, "added_tokens: [0]: id: expected" },
        { { .added = "{\"id\":300}" }, "added_tokens: [0]: content: expected" },
        { { .added = "{\"id\":300,\"content\":\"\"}" }, "content: expected" },
        { { .added = "{\"id\":97,\"content\":\"<x>\"}" }, "id 97 is that of another token in the vocab (`a`)" },
        { { .added = "{\"id\":300,\"content\":\"a\"}" }, "id 300, but the vocab has `a` as 97" },
        { { .added = "{\"id\":300,\"content\":\"<x>\"},{\"id\":300,\"content\":\"<y>\"}" }, "id 300 stands for two texts" },
        { { .added = "{\"id\":300,\"content\":\"<x>\",\"special\":1}" }, "special: expected true or false" },
        { { .post = "{\"type\":\"BertProcessing\"}" }, "post_processor: type `BertProcessing`" },
        { { .post = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[999]}}}" }, "an id that does not exist" },
        { { .post = "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{}},{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[9]}}}" }, "puts `x` after the text" },
        { { .rest = ",\"decoder\":{\"type\":\"Metaspace\"}" }, "decoder: type `Metaspace`" },
        { { .rest = ",\"truncation\":{\"max_length\":5}" }, "truncation: is set" },
        { { .config = "{\"bos_token\":\"<s>\"}" }, "tokenizer_config.json: bos_token: `<s>` is not in tokenizer.json" },
        { { .config = "{\"eos_token\":7}" }, "eos_token: expected" },
        { { .config = "{\"add_bos_token\":true}" }, "there is no bos_token" },
        { { .config = "{\"add_eos_token\":true}" }, "add_eos_token: expected false" },
        { { .config = "[]" }, "tokenizer_config.json: expected an object" },
        { { .config = "{" }, "tokenizer_config.json: line 1" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tokenizer *t;
        struct err err;

        if (try_make(&t, &cases[i].recipe, &err))
            fail_msg("loaded; expected: %s", cases[i].words);
        if (!strstr(err.text, cases[i].words))
            fail_msg("%s\n  expected: %s", err.text, cases[i].words);
        CHECK(t == NULL);
    }
}

static void test_files_of_another_kind(void **state)
{
    static const struct {
        const char *file, *words;
    } cases[] = {
        { "", "tokenizer.json: line 1" },
        { "[]", "expected an object with a \"model\"" },
        { "{\"model\":{}}", "type `` is not supported" },
        { "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "model: type `WordPiece` is not supported; expected BPE" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0.5]]}}", "type `Unigram` is not supported" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "expected an object \"vocab\"" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "vocab: no token" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\":0},\"merges\":[]}}", "0 bytes" },
    };
    struct tokenizer *t;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(!tokenizer_parse(&t, span_text(cases[i].file), span_of(NULL, 0), &err));
        if (!strstr(err.text, cases[i].words))
            fail_msg("%s\n  expected: %s", err.text, cases[i].words);
    }
    CHECK(!tokenizer_load(&t, "/nonexistent", &err) && err.code == ERR_NOT_FOUND);
    CHECK(strstr(err.text, "/nonexistent/tokenizer.json"));
}

/* A byte that has no token is named; dropping it would change the text without a word. */
static void test_a_byte_without_a_token(void **state)
{
    struct tokenizer *t;
    struct err err;

    (void)state;
    CHECK(tokenizer_parse(&t, span_text("{\"pre_tokenizer\":" BYTE_LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"),
                          span_of(NULL, 0), &err));
    assert_string_equal(ids_of(t, "aa"), "0 0");
    assert_string_equal(ids_of(t, "ab"), "the vocabulary has no token for byte 0x62");
    tokenizer_free(t);
}

/* ---- long texts ---------------------------------------------------------------------------------------------------------- */

static double seconds_of(const struct tokenizer *t, const struct buf *text)
{
    struct timespec from, to;
    struct ids ids = { 0 };
    struct buf back = { 0 };
    struct err err;
    double seconds;

    clock_gettime(CLOCK_MONOTONIC, &from);
    if (!tokenizer_encode(t, buf_span(text), &ids, &err))
        fail_msg("%s", err.text);
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK(detokenize(t, ids.id, ids.count, true, &back, &err) && span_equal(buf_span(&back), buf_span(text)));
    buf_fini(&back);
    ids_fini(&ids);
    seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
    return seconds;
}

/* Anything quadratic takes minutes to hours on these; a sanitizer build takes a few seconds. */
static void test_long_texts_stay_near_linear(void **state)
{
    static const char *const pieces[] = {
        "The quick brown fox jumps over the lazy dog, 42 times; naïve café. ", /* a document of 1 MB */
        "a", "ab", "xyzzy",                                                    /* single words */
        " ", "\t ", "\n", " \n", "\xe3\x80\x80",                               /* white space */
        "7", "!", "語", "ж", "e\xcc\x81", "\xf0\x9f\xa6\x99", "\xd5\xa1",
    };
    struct tokenizer *t;
    struct err err;

    (void)state;
    CHECK(tokenizer_load(&t, DEMO, &err));
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        for (int tail = 0; tail < 2; tail++) {
            struct buf text = { 0 };
            double seconds;

            while (text.size < (i == 0 ? 1000 * 1000 : 250 * 1000))
                CHECK(buf_text(&text, pieces[i]));
            CHECK(!tail || buf_text(&text, "9")); /* white space before a digit is what `\s+$` walks again and again */
            seconds = seconds_of(t, &text);
            if (seconds > 20)
                fail_msg("%zu bytes of `%s` took %.1f s", text.size, pieces[i], seconds);
            buf_fini(&text);
        }
    tokenizer_free(t);
}

/* A pattern that explodes is stopped with words, not with patience. */
static void test_an_exploding_pattern_is_stopped(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .pre = SPLIT("(?:a|a)*b|(?:a+)+c") });
    char text[64];

    (void)state;
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    CHECK(strstr(ids_of(t, text), "needs too much work on this text"));
    tokenizer_free(t);
}

/* Putting combining marks in order costs the square of their number. */
static void test_a_flood_of_combining_marks_is_refused(void **state)
{
    struct tokenizer *t = make(&(struct recipe){ .normalizer = "{\"type\":\"NFC\"}" });
    struct buf text = { 0 };

    (void)state;
    CHECK(buf_text(&text, "a"));
    for (int i = 0; i < 2000; i++)
        CHECK(buf_text(&text, "\xcc\x81"));
    CHECK(buf_add(&text, "", 1));
    CHECK(strstr(ids_of(t, (const char *)text.data), "combining marks in a row"));
    buf_fini(&text);
    tokenizer_free(t);
}

/* ---- the demo model's ------------------------------------------------------------------------------------------------------ */

static void test_the_demo_tokenizer(void **state)
{
    struct tokenizer *t;
    struct ids ids = { 0 };
    struct err err;

    (void)state;
    CHECK(tokenizer_load(&t, DEMO, &err));
    CHECK(tokenizer_bos(t) >= 0 && tokenizer_eos(t) >= 0 && tokenizer_adds_bos(t));
    CHECK(tokenizer_is_control(t, tokenizer_bos(t)) && tokenizer_is_special(t, tokenizer_eos(t)));
    CHECK(tokenizer_added(t, span_text("<｜end▁of▁sentence｜>")) == tokenizer_eos(t));
    CHECK(tokenizer_added(t, span_text("<｜nope｜>")) == -1);
    CHECK(tokenizer_encode_prompt(t, span_text("<｜end▁of▁sentence｜>"), &ids, &err));
    CHECK(ids.count == 2 && ids.id[0] == tokenizer_bos(t) && ids.id[1] == tokenizer_eos(t));
    /* What bounds a prompt's bytes before it is tokenized. */
    CHECK(tokenizer_token_bytes_max(t) >= tokenizer_bytes(t, tokenizer_eos(t)).size && tokenizer_token_bytes_max(t) < 4096);
    for (int32_t id = 0; id < tokenizer_size(t); id++)
        CHECK(tokenizer_bytes(t, id).size <= tokenizer_token_bytes_max(t));
    ids_fini(&ids);
    tokenizer_free(t);
}

/* A model may end its texts with more than one token: generation_config.json names them. */
static void test_every_token_that_ends_a_text_is_known(void **state)
{
    static const struct {
        const char *generation;
        int count; /* -1: refused */
        const char *words;
    } cases[] = {
        { NULL, 1, "" },
        { "{}", 1, "" },
        { "{\"eos_token_id\":null}", 1, "" },
        { "{\"eos_token_id\":2047}", 1, "" },
        { "{\"eos_token_id\":[2047,5,5,2000000]}", 2, "" },
        { "{\"eos_token_id\":7}", 2, "" },
        { "{\"eos_token_id\":\"7\"}", -1, "generation_config.json: eos_token_id: expected a token id" },
        { "{\"eos_token_id\":[1,-2]}", -1, "expected a token id" },
        { "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", -1, "more than 16 ids" },
        { "[]", -1, "expected an object" },
        { "{", -1, "generation_config.json: line 1" },
    };
    char dir[] = "/tmp/moothall-generation-XXXXXX", path[128];
    struct err err;

    (void)state;
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    CHECK(symlink(DEMO "/tokenizer.json", path) == 0);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    CHECK(symlink(DEMO "/tokenizer_config.json", path) == 0);
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        int count = -1;

        if (cases[i].generation) {
            FILE *file = fopen(path, "w");

            CHECK(file && fputs(cases[i].generation, file) >= 0);
            fclose(file);
        }
        if (tokenizer_load(&t, dir, &err)) {
            CHECK(tokenizer_eos_ids(t, &count)[0] == tokenizer_eos(t) && tokenizer_is_eos(t, tokenizer_eos(t)));
            CHECK(tokenizer_is_eos(t, 5) == (i == 4) && tokenizer_is_eos(t, 7) == (i == 5) && !tokenizer_is_eos(t, -1));
        }
        if (count != cases[i].count || (count < 0 && !strstr(err.text, cases[i].words)))
            fail_msg("%s: %d ids: %s", cases[i].generation, count, count < 0 ? err.text : "");
        tokenizer_free(t);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_go_by_pair),
        cmocka_unit_test(test_the_leftmost_of_equals_merges_first),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_added_tokens_leftmost_and_longest),
        cmocka_unit_test(test_an_added_token_of_the_vocabulary),
        cmocka_unit_test(test_normalized_tokens_match_normalized_text),
        cmocka_unit_test(test_plain_parts_match_no_control_token),
        cmocka_unit_test(test_control_tokens_do_not_cross_into_plain_parts),
        cmocka_unit_test(test_merges_make_no_control_token_of_plain_text),
        cmocka_unit_test(test_a_prompt_begins_as_the_files_say),
        cmocka_unit_test(test_ids_at_their_bound),
        cmocka_unit_test(test_no_piece_cuts_a_character),
        cmocka_unit_test(test_an_added_token_decodes_to_its_own_text),
        cmocka_unit_test(test_what_is_not_supported_is_named),
        cmocka_unit_test(test_files_of_another_kind),
        cmocka_unit_test(test_a_byte_without_a_token),
        cmocka_unit_test(test_long_texts_stay_near_linear),
        cmocka_unit_test(test_an_exploding_pattern_is_stopped),
        cmocka_unit_test(test_a_flood_of_combining_marks_is_refused),
        cmocka_unit_test(test_the_demo_tokenizer),
        cmocka_unit_test(test_every_token_that_ends_a_text_is_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
