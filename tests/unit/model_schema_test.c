/* JSON Schema as a grammar: what it accepts, what it refuses and in which words, and what hostile schemas
 * cost.  tests/parity compares it with the standard's own suite and with python's jsonschema. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "worker/model/schema.h"
#include "worker/model/schema_decimal.h"

static struct tokenizer *tokenizer;
static struct vocabulary *vocabulary;

static int load(void **state)
{
    struct err err;

    (void)state;
    if (!tokenizer_load(&tokenizer, SOURCE_DIR "/deploy/demo/model", &err))
        fail_msg("%s", err.text);
    vocabulary = vocabulary_new(tokenizer, tokenizer_size(tokenizer));
    return vocabulary ? 0 : 1;
}

static int unload(void **state)
{
    (void)state;
    vocabulary_free(vocabulary);
    tokenizer_free(tokenizer);
    return 0;
}

static bool accepts(struct grammar *grammar, const char *text)
{
    struct grammar_run *run = grammar_run_new(grammar);
    bool ok;

    CHECK(run);
    ok = grammar_advance_bytes(run, span_text(text)) && grammar_may_end(run);
    grammar_run_free(run);
    return ok;
}

static struct grammar *make(enum structured_kind kind, const char *text, bool closed)
{
    struct schema_options options = { .closed = closed };
    struct grammar *grammar;
    struct err err = { 0 };

    if (!structured_grammar(&grammar, kind, span_text(text), &options, vocabulary, &err))
        fail_msg("%s\n  refused: %s", text, err.text);
    return grammar;
}

/* Texts that the output may be, and texts that it may not be, each list ended by NULL. */
struct language {
    const char *schema;
    const char *good[12], *bad[12];
};

static void check_language(enum structured_kind kind, const struct language *language, bool closed)
{
    struct grammar *grammar = make(kind, language->schema, closed);

    for (int i = 0; language->good[i]; i++)
        if (!accepts(grammar, language->good[i]))
            fail_msg("%s\n  does not accept %s", language->schema, language->good[i]);
    for (int i = 0; language->bad[i]; i++)
        if (accepts(grammar, language->bad[i]))
            fail_msg("%s\n  accepts %s", language->schema, language->bad[i]);
    grammar_free(grammar);
}

static void check_schemas(const struct language *language, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_language(STRUCTURED_SCHEMA, &language[i], false);
}
#define CHECK_SCHEMAS(table) check_schemas(table, sizeof(table) / sizeof((table)[0]))

/* ---- what is accepted ------------------------------------------------------------------------------- */

static void test_types_are_the_standards(void **state)
{
    static const struct language table[] = {
        { "true",
          { "null", "true", "-1.5", "\"\"", "[1,[]]", "{\"a\":{}}", " {}" },
          { "", "  {}", "[1, 2]", "{\"a\":1,}", "nul" } },
        { "{\"type\":\"null\"}", { "null" }, { "0", "\"\"" } },
        { "{\"type\":\"boolean\"}", { "true", "false" }, { "0", "null" } },
        { "{\"type\":\"integer\"}",
          { "0", "-7", "123456789012345678" },
          { "1.0", "1.5", "01", "-0", "1e3", "1234567890123456789" } },
        { "{\"type\":\"number\"}", { "0", "-7", "1.5", "0.001" }, { "1e3", ".5", "1.", "\"1\"" } },
        { "{\"type\":[\"integer\",\"string\"]}", { "1", "\"a\"" }, { "1.5", "null" } },
        { "{\"type\":[\"integer\",\"number\"]}", { "1", "1.5" }, { "null" } },
        /* A keyword speaks only of its own type. */
        { "{\"maxLength\":2}", { "12345", "\"ab\"", "[1,2,3]", "\"\\\"\\\\\"" }, { "\"abc\"" } },
        { "{\"minimum\":3,\"properties\":{\"a\":false}}",
          { "3", "\"\"", "{\"b\":1}" },
          { "2", "{\"a\":1}" } },
        { "{\"required\":[\"a\"]}", { "1", "{\"a\":1}" }, { "{}" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

static void test_numbers_are_exact(void **state)
{
    static const struct language table[] = {
        { "{\"type\":\"number\",\"minimum\":0.1,\"exclusiveMaximum\":0.3}",
          { "0.1", "0.29999999999999999" },
          { "0.09", "0.3", "0" } },
        { "{\"type\":\"number\",\"minimum\":1e2,\"maximum\":1.5E+2}",
          { "100", "150", "100.5" },
          { "99.9", "150.1" } },
        { "{\"type\":\"integer\",\"minimum\":-1.5,\"maximum\":2.5}", { "-1", "0", "2" }, { "-2", "3" } },
        { "{\"type\":\"integer\",\"exclusiveMinimum\":1,\"minimum\":1,\"maximum\":3}",
          { "2", "3" },
          { "1", "4" } },
        { "{\"type\":\"integer\",\"minimum\":-1e300,\"maximum\":1e300}",
          { "999999999999999999" },
          { "1.5" } },
        { "{\"type\":\"number\",\"exclusiveMinimum\":0.00000000000000000001,\"maximum\":0.00000000000000002}",
          { "0.00000000000000001", "0.00000000000000002" },
          { "0", "0.00000000000000003" } },
        { "{\"type\":\"integer\",\"minimum\":1,\"exclusiveMinimum\":1,\"exclusiveMaximum\":3,\"maximum\":3}",
          { "2" },
          { "1", "3" } },
        { "{\"type\":\"array\",\"prefixItems\":[{\"minimum\":1,\"maximum\":2},{\"exclusiveMinimum\":1,"
          "\"maximum\":2},{\"minimum\":1,\"exclusiveMaximum\":2}]}",
          { "[1,2,1]" },
          { "[1,1,1]", "[1,2,2]", "[3,2,1]" } },
        { "{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":1}", { "7", "70" }, { "0", "1", "8" } },
        { "{\"multipleOf\":4,\"$ref\":\"#/$defs/six\",\"$defs\":{\"six\":{\"multipleOf\":6}}}",
          { "0", "12", "-24" },
          { "4", "6" } },
        { "{\"type\":\"integer\",\"multipleOf\":9973}", { "0", "9973", "-19946", "99730000" }, { "9974" } },
        /* several of them together are not too much */
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"multipleOf\":9973},"
          "\"b\":{\"type\":\"integer\",\"multipleOf\":9967,\"minimum\":2},"
          "\"c\":{\"multipleOf\":9949,\"type\":\"integer\",\"maximum\":0}}}",
          { "{\"a\":0,\"b\":9967,\"c\":-9949}" }, { "{\"a\":1}", "{\"b\":0}", "{\"c\":9949}" } },
        { "{\"type\":\"number\",\"multipleOf\":0.01}", { "0", "1", "1.5", "-1.25" }, { "1.255" } },
        { "{\"type\":\"number\",\"multipleOf\":1.5}", { "0", "1.5", "3", "-4.5" }, { "1", "2.5" } },
        { "{\"type\":\"integer\",\"multipleOf\":0.6}", { "3", "0", "-6" }, { "1", "2" } },
        { "{\"type\":\"number\",\"multipleOf\":2}", { "2" }, { "2.5", "2.0" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

#define LETTERS_60 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LETTERS_300 "\"" LETTERS_60 LETTERS_60 LETTERS_60 LETTERS_60 LETTERS_60

static void test_strings_are_measured_in_code_points(void **state)
{
    static const struct language table[] = {
        { "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3.0}",
          { "\"ab\"", "\"\\n\\\"\"", "\"日本\"", "\"😀😀\"" },
          { "\"a\"", "\"abcd\"" } },
        { "{\"type\":\"string\",\"pattern\":\"b\"}", { "\"abc\"", "\"b\"" }, { "\"ac\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^a+$\",\"maxLength\":3}",
          { "\"a\"", "\"aaa\"" },
          { "\"\"", "\"aaaa\"", "\"ab\"" } },
        /* Where a pattern and a length are too large together, texts are kept shorter; where one may not be short, they
         * are not. */
        { "{\"type\":\"string\",\"format\":\"uri\",\"minLength\":1,\"maxLength\":2083}",
          { "\"http://a.b/c?d#e\"" },
          { "\"a b\"", "\"\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^(a{300}|b{300})c*[^d]{0,9}$\",\"maxLength\":302}", { LETTERS_300 "c\"" }, { "\"ac\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^[a-z]{2}[0-9]{3}$\",\"maxLength\":1000000}", { "\"ab123\"" }, { "\"ab12\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^[\\\"\\\\\\\\]$\"}",
          { "\"\\\"\"", "\"\\\\\"" },
          { "\"a\"", "\"\"\"" } },
        { "{\"type\":\"string\",\"format\":\"date\"}",
          { "\"2024-02-29\"" },
          { "\"2023-02-29\"", "\"2024-2-9\"" } },
        { "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\",\"pattern\":\"date\"},{\"type\":"
          "\"string\",\"format\":\"date\"}]}",
          { "[\"a date\",\"2024-02-29\"]" },
          { "[\"a date\",\"a date\"]", "[\"2024-02-29\"]" } },
        { "{\"type\":\"string\",\"format\":\"uuid\"}",
          { "\"2eb8aa08-aa98-11ea-b4aa-73b441d16380\"" },
          { "\"2eb8aa08\"" } },
        /* A leap second is a time, but none is made up; one that is listed stays. */
        { "{\"type\":\"string\",\"format\":\"time\"}", { "\"12:00:00Z\"" }, { "\"23:59:60Z\"" } },
        { "{\"enum\":[\"23:59:60Z\",\"noon\"],\"format\":\"time\"}", { "\"23:59:60Z\"" }, { "\"noon\"" } },
        { "{\"type\":\"string\",\"maxLength\":4294967296}", { "\"\"" }, { "1" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

static void test_values_are_compared_by_value(void **state)
{
    static const struct language table[] = {
        { "{\"enum\":[1.0,\"x\",null,{\"b\":[1e1],\"a\":\"\\u0000/\\u001f\"}]}",
          { "1", "\"x\"", "null", "{\"b\":[10],\"a\":\"\\u0000/\\u001f\"}" },
          { "1.0", "true", "{\"b\":[1e1],\"a\":\"\"}" } },
        { "{\"const\":-0.0}", { "0" }, { "-0", "0.0", "false" } },
        { "{\"const\":[false]}", { "[false]" }, { "[0]" } },
        { "{\"const\":12345678901234567890123}", { "12345678901234567890123" }, { "1" } },
        { "{\"const\":1e300}", { "1e300" }, { "1" } },
        { "{\"enum\":[1,2,3,4],\"minimum\":2,\"multipleOf\":2}", { "2", "4" }, { "1", "3" } },
        { "{\"enum\":[\"a\",\"ab\",1,{\"k\":1},{\"k\":\"v\"},[1,2]],\"maxLength\":1,\"properties\":{\"k\":{"
          "\"type\":\"string\"}},\"maxItems\":1}",
          { "\"a\"", "1", "{\"k\":\"v\"}" },
          { "\"ab\"", "{\"k\":1}", "[1,2]" } },
        { "{\"enum\":[\"a\",\"abc\",[1,\"x\"],[1,2],[2,\"x\"],1,1.5],\"minLength\":2,\"prefixItems\":[{"
          "\"const\":1}],"
          "\"items\":{\"type\":\"string\",\"maxLength\":1},\"type\":[\"string\",\"array\",\"integer\"]}",
          { "\"abc\"", "[1,\"x\"]", "1" },
          { "\"a\"", "[1,2]", "[2,\"x\"]", "1.5" } },
        { "{\"enum\":[1,2],\"const\":2}", { "2" }, { "1" } },
        { "{\"const\":2,\"enum\":[1,2]}", { "2" }, { "1" } },
        { "{\"$ref\":\"#/$defs/d\",\"enum\":[1,2,3],\"$defs\":{\"d\":{\"enum\":[3,4,1.0]}}}",
          { "1", "3" },
          { "2", "4" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

static void test_arrays_have_a_prefix_and_items(void **state)
{
    static const struct language table[] = {
        { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":2}",
          { "[1]", "[1,2]" },
          { "[]", "[1,2,3]", "[\"\"]" } },
        { "{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}]}",
          { "[]", "[1]", "[1,2]", "[1,2,null]" },
          { "[2]", "[1,1]" } },
        { "{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"items\":false}",
          { "[]", "[1]" },
          { "[1,1]" } },
        { "{\"type\":\"array\",\"prefixItems\":[true,false]}", { "[]", "[0]" }, { "[0,0]" } },
        { "{\"type\":\"array\",\"items\":false}", { "[]" }, { "[1]" } },
        { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"$ref\":\"#/$defs/"
          "r\",\"$defs\":{\"r\":{\"prefixItems\":[{\"minimum\":5}],\"items\":{\"maximum\":3}}}}",
          { "[]", "[5,3]", "[9,1,2]" },
          { "[4]", "[5,4]", "[5.5]" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

/* In the schema's order, then names that are only required, then any others. */
static void test_objects_have_their_properties_in_order(void **state)
{
    static const struct language table[] = {
        { "{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"integer\"},\"a\":{\"type\":\"integer\"}},"
          "\"required\":[\"b\"],\"additionalProperties\":false}",
          { "{\"b\":1}", "{\"b\":1,\"a\":2}" },
          { "{}", "{\"a\":1}", "{\"a\":2,\"b\":1}", "{\"b\":1,\"c\":1}", "{\"b\":1,\"b\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":{"
          "\"type\":\"string\"}}",
          { "{}", "{\"a\":1}", "{\"z\":\"\"}", "{\"a\":1,\"z\":\"\",\"y\":\"\"}", "{\"aa\":\"\"}",
            "{\"\":\"\"}" },
          { "{\"a\":\"\"}", "{\"z\":1}", "{\"z\":\"\",\"a\":1}" } },
        { "{\"type\":\"object\",\"required\":[\"r\"],\"properties\":{\"a\":true},\"additionalProperties\":{"
          "\"type\":\"integer\"}}",
          { "{\"r\":1}", "{\"a\":null,\"r\":1,\"x\":2}" },
          { "{}", "{\"r\":null}", "{\"x\":2,\"r\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":true}}",
          { "{}", "{\"b\":1}" },
          { "{\"a\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"k\\\"\\\\\\n\":{\"const\":1}},\"additionalProperties\":"
          "false}",
          { "{\"k\\\"\\\\\\n\":1}" },
          { "{\"k\":1}" } },
        { "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
          { "{}" },
          { "{\"a\":1}" } },
        /* Each schema's additionalProperties knows its own properties only. */
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":false,"
          "\"$ref\":\"#/$defs/o\",\"$defs\":{\"o\":{\"properties\":{\"b\":true}}}}",
          { "{}", "{\"a\":1}" },
          { "{\"b\":1}" } },
        { "{\"properties\":{\"x\":true},\"$ref\":\"#/$defs/"
          "base\",\"type\":\"object\",\"$defs\":{\"base\":{\"properties\":{\"id\":{\"type\":\"integer\"}},"
          "\"required\":[\"id\"]}},\"required\":[\"x\"]}",
          { "{\"x\":2,\"id\":1}" },
          { "{\"id\":1,\"x\":2}" } },
        /* What stands first in the schema stands first in the object. */
        { "{\"$ref\":\"#/$defs/"
          "base\",\"properties\":{\"x\":true},\"type\":\"object\",\"$defs\":{\"base\":{\"properties\":{"
          "\"id\":{\"type\":\"integer\"}},\"required\":[\"id\"]}},\"required\":[\"x\"]}",
          { "{\"id\":1,\"x\":2}" },
          { "{\"x\":2,\"id\":1}" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

static void test_branches_meet_what_stands_beside_them(void **state)
{
    static const struct language table[] = {
        { "{\"anyOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}", { "1", "2.5", "3", "\"\"" }, { "1.5" } },
        { "{\"type\":\"string\",\"anyOf\":[{\"maxLength\":1},{\"minLength\":3}]}",
          { "\"\"", "\"abc\"" },
          { "\"ab\"", "1" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"anyOf\":[{\"properties\":{"
          "\"a\":{\"minimum\":5}},\"required\":[\"a\"]},{\"properties\":{\"a\":false},\"required\":[\"b\"]}]"
          "}",
          { "{\"a\":5}", "{\"a\":7,\"b\":1}", "{\"b\":1}" },
          { "{}", "{\"a\":4}", "{\"a\":4,\"b\":1}", "{\"a\":\"\"}" } },
        { "{\"anyOf\":[true,{\"type\":\"null\"}]}", { "1" }, { "" } },
        { "{\"anyOf\":[false,{\"type\":\"null\"}]}", { "null" }, { "1" } },
        { "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", { "1", "\"\"" }, { "null" } },
        { "{\"oneOf\":[{\"maximum\":1,\"type\":\"number\"},{\"exclusiveMinimum\":1,\"type\":\"number\"}]}",
          { "1", "2" },
          { "null" } },
        { "{\"oneOf\":[{\"type\":\"string\",\"pattern\":\"^a\"},{\"type\":\"string\",\"pattern\":\"^b\"}]}",
          { "\"a\"", "\"b\"" },
          { "\"c\"" } },
        { "{\"type\":\"string\",\"oneOf\":[{\"maxLength\":1},{\"minLength\":2,\"pattern\":\"^b\"}]}",
          { "\"\"", "\"a\"", "\"bc\"" },
          { "\"ab\"" } },
        { "{\"oneOf\":[{\"type\":\"array\",\"maxItems\":1},{\"type\":\"array\",\"minItems\":2,\"items\":{\"$ref\":"
          "\"#\"}}]}",
          { "[]", "[1]", "[[],[2]]" },
          { "[1,2]" } },
        { "{\"type\":\"object\",\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},{"
          "\"properties\":{\"k\":{\"enum\":[2,3]}},\"required\":[\"k\"]}]}",
          { "{\"k\":1}", "{\"k\":3}" },
          { "{}", "{\"k\":4}" } },
        { "{\"type\":\"object\",\"oneOf\":[{\"required\":[\"a\"]},{\"properties\":{\"a\":false}}]}",
          { "{}", "{\"a\":1}" },
          { "1" } },
        { "{\"type\":\"array\",\"minItems\":1,\"oneOf\":[{\"prefixItems\":[{\"const\":\"x\"}]},{"
          "\"prefixItems\":[{\"const\":\"y\"}]}]}",
          { "[\"x\"]", "[\"y\",1]" },
          { "[]" } },
        /* Values can be asked one by one: those in two branches are in none. */
        { "{\"oneOf\":[{\"enum\":[1,2]},{\"enum\":[2,3]}]}", { "1", "3" }, { "2" } },
        { "{\"enum\":[1,2,3],\"oneOf\":[{\"minimum\":2},{\"maximum\":2}]}", { "1", "3" }, { "2" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

static void test_references_are_followed(void **state)
{
    static const struct language table[] = {
        { "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"$"
          "ref\":\"#/$defs/n\"}},\"required\":[\"v\"],\"additionalProperties\":false}},\"$ref\":\"#/$defs/"
          "n\"}",
          { "{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}" },
          { "{\"v\":1,\"next\":{}}" } },
        { "{\"properties\":{\"x\":{\"$ref\":\"#\"}},\"additionalProperties\":false}",
          { "{\"x\":{\"x\":1}}", "3" },
          { "{\"x\":{\"y\":1}}" } },
        { "{\"$defs\":{\"a~/b%\":{\"const\":1}},\"$ref\":\"#/$defs/a~0~1b%25\"}", { "1" }, { "2" } },
        { "{\"definitions\":{\"a\\\"b\":{\"const\":1}},\"items\":{\"$ref\":\"#/definitions/"
          "a%22b\"},\"type\":\"array\"}",
          { "[1]" },
          { "[2]" } },
        { "{\"prefixItems\":[{\"const\":1},{\"$ref\":\"#/prefixItems/0\"}],\"type\":\"array\"}",
          { "[1,1]" },
          { "[1,2]" } },
        { "{\"$id\":\"http://h/s.json\",\"$ref\":\"http://h/s.json#/$defs/"
          "a\",\"$defs\":{\"a\":{\"const\":1}}}",
          { "1" },
          { "2" } },
        { "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":true}}", { "1" }, { "" } },
        { "{\"$defs\":{\"s\":{\"type\":\"string\"}},\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
          "s\",\"maxLength\":1}}",
          { "[\"a\"]" },
          { "[\"ab\"]", "[1]" } },
        /* Shared, not unfolded: this would be 2^60 values. */
        { "{\"$schema\":\"https://json-schema.org/draft/2020-12/"
          "schema\",\"$comment\":\"\",\"title\":\"\",\"description\":\"\",\"default\":1,\"examples\":[],"
          "\"deprecated\":false,\"readOnly\":true,\"writeOnly\":true}",
          { "1" },
          { "" } },
    };

    (void)state;
    CHECK_SCHEMAS(table);
}

/* A row has the columns that were asked for; an object that says nothing of properties stays free. */
static void test_closed_objects_take_no_others(void **state)
{
    static const struct language table[] = {
        { "{\"type\":\"object\",\"properties\":{\"a\":true,\"o\":{\"properties\":{\"b\":true}},\"free\":{"
          "\"type\":\"object\"}}}",
          { "{}", "{\"a\":1,\"o\":{\"b\":1},\"free\":{\"x\":1}}" },
          { "{\"x\":1}", "{\"o\":{\"x\":1}}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":true},\"additionalProperties\":true}",
          { "{\"x\":1}" },
          { "[]" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":true},\"required\":[\"r\"]}",
          { "{\"a\":1,\"r\":1}" },
          { "{\"r\":1,\"x\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":true},\"anyOf\":[{\"properties\":{\"b\":true}},{"
          "\"additionalProperties\":{\"const\":1}}]}",
          { "{\"a\":2,\"b\":2}", "{\"a\":1,\"x\":1}" },
          { "{\"b\":2,\"x\":2}" } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        check_language(STRUCTURED_SCHEMA, &table[i], true);
}

static void test_the_other_kinds(void **state)
{
    static const struct language object = { "", { "{}", " {}", "{\"a\":[1,null]}" }, { "[]", "1", "  {}" } };
    static const struct language choice = { "[\"yes\",\"no\",\"yes sir\"]",
                                            { "yes", "no", "yes sir" },
                                            { "ye", " yes", "\"yes\"" } };
    static const struct language regex = { "[a-c]+\\d", { "abc1" }, { "abc", "xabc1", "abc12", " a1" } };

    (void)state;
    check_language(STRUCTURED_JSON_OBJECT, &object, false);
    check_language(STRUCTURED_CHOICE, &choice, false);
    check_language(STRUCTURED_REGEX, &regex, false);
}

/* ---- what is refused -------------------------------------------------------------------------------- */

static void check_refused(enum structured_kind kind, const char *text, const char *says)
{
    struct grammar *grammar;
    struct err err = { 0 };

    if (structured_grammar(&grammar, kind, span_text(text), NULL, vocabulary, &err))
        fail_msg("accepted: %.200s", text);
    if (!strstr(err.text, says))
        fail_msg("%.200s\n  says: %s\n  expected: %s", text, err.text, says);
    CHECK(err.code == ERR_INPUT || err.code == ERR_LIMIT);
    CHECK(!strchr(err.text, '\n'));
}

static void test_refusals_point_at_what_is_wrong(void **state)
{
    static const struct {
        const char *schema, *says;
    } table[] = {
        { "", "it is not JSON: line 1" },
        { "{\"type\":\"object\",}", "it is not JSON: line 1, column" },
        { "{\"type\":\"null\",\"type\":\"null\"}", "duplicate" },
        { "[]", "#: expected a schema (an object, true or false), found an array" },
        { "{\"properties\":{\"a\":1}}", "#/properties/a: expected a schema" },
        { "{\"properties\":{\"a\":{\"maxLenght\":1}}}",
          "#/properties/a/maxLenght: this keyword is not supported (did you mean `maxLength`?)" },
        { "{\"items\":{\"patternProperties\":{}}}",
          "#/items/patternProperties: this keyword is not supported; the nearest that is: "
          "`additionalProperties`" },
        { "{\"x-note\":1}", "#/x-note: this keyword is not supported" },
        { "{\"$defs\":{\"unused\":{\"uniqueItems\":true}}}",
          "#/$defs/unused/uniqueItems: this keyword is not supported" },
        { "{\"anyOf\":[{},{\"not\":{}}]}", "#/anyOf/1/not: this keyword" },
        { "{\"properties\":{\"a/b~c\":{\"if\":{}}}}", "#/properties/a~1b~0c/if: this keyword" },
        { "{\"type\":\"strng\"}", "#/type: `strng` is no type (did you mean `string`?)" },
        { "{\"type\":[]}", "#/type: expected at least one type" },
        { "{\"items\":[{}]}",
          "#/items: expected a schema, found an array; one schema for each place is `prefixItems`" },
        { "{\"minLength\":-1}", "#/minLength: expected a whole number from 0" },
        { "{\"minLength\":1.5}", "#/minLength: expected a whole number from 0" },
        { "{\"minLength\":\"1\"}", "#/minLength: expected a number, found text" },
        { "{\"minItems\":16777217}", "#/minItems: expected a whole number of at most 16777216" },
        { "{\"multipleOf\":0}", "#/multipleOf: expected a number above 0" },
        { "{\"type\":\"integer\",\"multipleOf\":10001}", "#/multipleOf: expected a step" },
        { "{\"required\":[1]}", "#/required: expected a name, found a number" },
        { "{\"anyOf\":[]}", "#/anyOf: expected at least one schema" },
        { "{\"$id\":\"x\",\"items\":{\"$id\":\"y\"}}", "#/items/$id: it is supported only at the root" },
        { "{\"type\":\"string\",\"minLength\":4,\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"maxLength\":3}}}",
          "no length is allowed by all that applies here" },
        { "{\"type\":\"array\",\"minItems\":4,\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"maxItems\":3}}}",
          "no number of items is allowed by all that applies here" },
        { "{\"const\":1e999}", "number overflow" },
        { "{\"enum\":[{\"a\":12345678901234567890123456789012345678901234567890123456789012345}]}",
          "#/enum: expected a number of at most 64 digits" },
        { "{\"type\":\"string\",\"pattern\":\"(\"}", "#/pattern: " },
        { "{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "#/pattern: " },
        { "{\"type\":\"string\",\"format\":\"data\"}", "#/format: " },
        { "{\"$ref\":\"#/$defs/x\"}", "#/$ref: `#/$defs/x` leads nowhere" },
        { "{\"$ref\":\"#/const\",\"const\":{\"type\":\"null\"}}",
          "#/$ref: `#/const` leads to something that is no schema" },
        { "{\"$ref\":\"other.json\"}", "#/$ref: expected a reference within the schema" },
        { "{\"$ref\":\"#anchor\"}", "#/$ref: expected #, or # and a JSON pointer" },
        { "{\"$ref\":\"#/a%zz\"}", "leads nowhere" },
        { "{\"$ref\":\"#/\\n\\u0085\"}", "`#/?\xc2\x85` leads nowhere" },
        /* What nothing can fit. */
        { "false", "#: no value is allowed" },
        { "{\"enum\":[]}", "#/enum: expected at least one value" },
        { "{\"minimum\":3,\"maximum\":2}", "#/minimum: 3 leaves no number up to the maximum 2" },
        { "{\"minimum\":3,\"exclusiveMaximum\":3.0}",
          "#/minimum: 3 leaves no number up to the exclusiveMaximum 3" },
        { "{\"properties\":{\"a\":{\"minLength\":3,\"maxLength\":2}}}",
          "#/properties/a/minLength: 3 is over the maxLength 2" },
        { "{\"minItems\":3,\"maxItems\":2}", "#/minItems: 3 is over the maxItems 2" },
        { "{\"type\":\"object\",\"properties\":{\"a\":false},\"required\":[\"a\"]}",
          "#: no value is allowed" },
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":0.2,\"maximum\":0.8}}"
          ",\"required\":[\"a\"]}",
          "#/properties/a: no number is allowed" },
        { "{\"type\":\"string\",\"pattern\":\"^a\",\"$ref\":\"#/$defs/"
          "b\",\"$defs\":{\"b\":{\"pattern\":\"^b\"}}}",
          "#/$defs/b: no text fits" },
        { "{\"type\":\"integer\",\"minimum\":1e18}", "#: no number is allowed" },
        { "{\"type\":\"number\",\"maximum\":-1e18}", "#: no number is allowed" },
        { "{\"enum\":[1,2],\"type\":\"string\"}", "#/enum: no value of it is allowed" },
        { "{\"$ref\":\"#\"}", "#/$ref: it refers to itself without end" },
        { "{\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{}]}}}",
          "#/$defs/a/anyOf/0/$ref: it refers to itself without end" },
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
          "#: no value of it ever ends" },
        { "{\"type\":\"object\",\"required\":[\"x\"],\"properties\":{\"x\":{\"type\":\"array\",\"items\":{\"$"
          "ref\":\"#/properties/x\"},\"minItems\":1}}}",
          "#/properties/x: no value of it ever ends" },
        /* What cannot be shown to be one of them only. */
        { "{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}",
          "#/oneOf/1: it cannot be shown to share no value with #/oneOf/0" },
        { "{\"items\":{\"oneOf\":[{\"required\":[\"a\"]},{\"type\":\"null\"},{\"required\":[\"b\"]}]}}",
          "#/items/oneOf/1: it cannot be shown" },
        { "{\"oneOf\":[{\"const\":5},{\"type\":\"integer\"}]}", "#/oneOf/1: it cannot be shown" },
        { "{\"type\":\"object\",\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},"
          "{\"properties\":{\"k\":{\"enum\":[2,1.0]}},\"required\":[\"k\"]}]}",
          "#/oneOf/1: it cannot be shown" },
        { "{\"type\":\"object\",\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}}},"
          "{\"properties\":{\"k\":{\"const\":2}}}]}",
          "#/oneOf/1: it cannot be shown" },
        { "{\"type\":[\"object\",\"null\"],\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}},\"required\":["
          "\"k\"]},"
          "{\"properties\":{\"k\":{\"const\":2}},\"required\":[\"k\"]}]}",
          "#/oneOf/1: it cannot be shown" },
    };
    static const struct {
        const char *text, *says;
    } choices[] = {
        { "[]", "choice: expected an array of at least one text" },
        { "{}", "choice: expected an array" },
        { "[\"a\",\"b\",\"a\"]", "choice: number 3 is there twice" },
        { "[\"a\",1]", "choice: number 2: expected a text" },
        { "[\"\"]", "choice: number 1: expected a text of at least one character" },
        { "[\"a\"", "choice: it is not JSON" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        check_refused(STRUCTURED_SCHEMA, table[i].schema, table[i].says);
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        check_refused(STRUCTURED_CHOICE, choices[i].text, choices[i].says);
    check_refused(STRUCTURED_REGEX, "a(", "regex: ");
    check_refused(STRUCTURED_REGEX, "[]", "regex: no text matches it");
}

/* ---- what is too much ------------------------------------------------------------------------------- */

static char *repeated(const char *before, const char *piece, int count, const char *middle, const char *close,
                      const char *after)
{
    struct buf text = { 0 };

    CHECK(buf_text(&text, before));
    for (int i = 0; i < count; i++)
        CHECK(buf_text(&text, piece));
    CHECK(buf_text(&text, middle));
    for (int i = 0; i < count; i++)
        CHECK(buf_text(&text, close));
    CHECK(buf_add(&text, after, strlen(after) + 1));
    return (char *)text.data;
}

/* `piece` `count` times, with commas; in it @ is the number and ^ the one after. */
static char *listed(const char *before, const char *piece, int count, const char *after)
{
    struct buf text = { 0 };

    CHECK(buf_text(&text, before));
    for (int i = 0; i < count; i++) {
        CHECK(i == 0 || buf_text(&text, ","));
        for (const char *c = piece; *c; c++)
            CHECK(*c == '@' || *c == '^' ? buf_format(&text, "%d", i + (*c == '^')) : buf_add(&text, c, 1));
    }
    CHECK(buf_add(&text, after, strlen(after) + 1));
    return (char *)text.data;
}

/* What lies deeper than the maker's own calls go is promised first and made later. */
static void test_what_lies_deep_is_still_checked(void **state)
{
    char *schema = listed("{\"$ref\":\"#/$defs/l0\",\"$defs\":{",
                          "\"l@\":{\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/"
                          "l^\"}},\"additionalProperties\":false}",
                          150, ",\"l150\":{\"type\":\"string\",\"format\":\"date\"}}}");
    char *good = repeated("", "{\"x\":", 150, "\"2024-02-29\"", "}", "");
    char *bad = repeated("", "{\"x\":", 150, "\"2023-02-29\"", "}", "");
    char *flat = repeated("", "{\"x\":", 149, "\"2024-02-29\"", "}", "");
    struct grammar *grammar = make(STRUCTURED_SCHEMA, schema, false);

    (void)state;
    CHECK(accepts(grammar, good) && !accepts(grammar, bad) && !accepts(grammar, flat));
    grammar_free(grammar);
    free(schema);
    free(good);
    free(bad);
    free(flat);
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Sanitizers cost their share, and a machine that is busy counts processor time too high. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 20
#else
#define SLOWER 3
#endif

/* says NULL: it is accepted.  Frees text. */
static void check_cost(char *text, const char *says, double seconds)
{
    double begin = cpu_seconds(), took;
    struct grammar *grammar = NULL;
    struct err err = { 0 };
    bool ok = structured_grammar(&grammar, STRUCTURED_SCHEMA, span_text(text), NULL, vocabulary, &err);

    took = cpu_seconds() - begin;
    if (ok != !says || (says && !strstr(err.text, says)))
        fail_msg("%.100s\n  says: %s\n  expected: %s", text, ok ? "yes" : err.text, says ? says : "yes");
    if (took > seconds * SLOWER)
        fail_msg("%.100s\n  took %.3f s, expected %.3f", text, took, seconds);
    grammar_free(grammar);
    free(text);
}

static void test_hostile_schemas_are_refused_soon(void **state)
{
    char *huge = malloc(SCHEMA_BYTES_MAX + 64);

    (void)state;
    CHECK(huge);
    memset(huge, ' ', SCHEMA_BYTES_MAX + 1);
    strcpy(huge + SCHEMA_BYTES_MAX + 1, "true");
    check_cost(huge, "expected at most 1048576", 0.1);
    check_cost(repeated("", "{\"items\":", 10000, "true", "}", ""), "nested deeper than 256 levels", 0.1);
    check_cost(repeated("", "{\"items\":", SCHEMA_DEPTH_MAX + 1, "true", "}", ""),
               "schemas are nested deeper than 64", 0.1);
    check_cost(repeated("", "{\"items\":", SCHEMA_DEPTH_MAX, "true", "}", ""), NULL, 0.5);
    check_cost(repeated("{\"const\":", "[", 100000, "", "]", "}"), "nested deeper than 256 levels", 0.1);
    check_cost(repeated("[", "[],", 140000, "[]", "", "]"), "more than 131072 values", 0.2);
    check_cost(listed("{\"type\":\"string\",\"pattern\":\"", "(a|b)*a(a|b){20}$", 1, "\"}"),
               "#/pattern: ", 1);
    check_cost(listed("{\"type\":\"string\",\"pattern\":\"", "^(a+)+$", 1, "\"}"), NULL, 0.1);
    check_cost(listed("{\"properties\":{", "\"p@\":{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){13}c@$\"}",
                      40, "}}"),
               "steps to work out", 1);
    check_cost(listed("{\"properties\":{", "\"p@\":{\"type\":\"integer\",\"multipleOf\":90@}", 80, "}}"),
               "steps to work out", 1);
    /* Shared references, 2^60 of them if they were unfolded. */
    check_cost(
        listed("{\"$ref\":\"#/$defs/l0\",\"$defs\":{",
               "\"l@\":{\"properties\":{\"a\":{\"$ref\":\"#/$defs/l^\"},\"b\":{\"$ref\":\"#/$defs/l^\"}}}",
               60, ",\"l60\":true}}"),
        NULL, 0.2);
    check_cost(listed("{\"$ref\":\"#/$defs/l0\",\"$defs\":{",
                      "\"l@\":{\"anyOf\":[{\"$ref\":\"#/$defs/l^\"},{\"$ref\":\"#/$defs/l^\"}]}", 60,
                      ",\"l60\":true}}"),
               "in more than 1024 ways", 0.2);
    check_cost(listed("{\"$ref\":\"#/$defs/l0\",\"$defs\":{",
                      "\"l@\":{\"anyOf\":[{\"minLength\":@},{\"maxLength\":1@}],\"$ref\":\"#/$defs/l^\"}", 60,
                      ",\"l60\":true}}"),
               "in more than 1024 ways", 0.2);
    check_cost(listed("{\"$ref\":\"#/$defs/l0\",\"$defs\":{", "\"l@\":{\"$ref\":\"#/$defs/l^\"}", 200,
                      ",\"l200\":true}}"),
               "more than 128 references", 0.1);
    check_cost(listed("{\"enum\":[", "\"value @\"", SCHEMA_ENUM_MAX + 1, "]}"),
               "#/enum: expected at most 16384 values, found 16385", 0.2);
    check_cost(listed("{\"enum\":[", "\"value @\"", SCHEMA_ENUM_MAX, "]}"), NULL, 0.5);
    check_cost(listed("{\"anyOf\":[", "{\"const\":\"value @\"}", 3000, "]}"), NULL, 0.5);
    check_cost(listed("{\"properties\":{", "\"p@\":{}", 4095, "},\"required\":[\"q\"]}"), NULL, 2);
    check_cost(listed("{\"properties\":{", "\"p@\":{}", 4097, "}}"), "an object may have 4096 properties",
               0.3);
    check_cost(listed("{\"anyOf\":[", "{\"type\":\"object\",\"required\":[\"p@\"]}", 300, "]}"),
               "300 kinds of objects", 0.3);
    check_cost(listed("{\"anyOf\":[", "{\"items\":{\"const\":@}}", 16384, "]}"), "more than 16384 subschemas",
               0.3);
    /* The proof that branches are disjoint is bounded too. */
    check_cost(listed("{\"oneOf\":[",
                      "{\"type\":\"object\",\"properties\":{\"a\":{\"minimum\":@,\"exclusiveMaximum\":^,"
                      "\"type\":\"number\"}},\"required\":[\"a\"]}",
                      300, "]}"),
               "more than", 1);
    check_cost(listed("{\"oneOf\":[",
                      "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":@}},\"required\":[\"a\"]}", 200,
                      "]}"),
               NULL, 0.5);
    check_cost(listed("{\"type\":\"array\",\"minItems\":", "16777216", 1, "}"), "", 0.2);
}

static void test_a_schema_of_fifty_fields_compiles_soon(void **state)
{
    (void)state;
    check_cost(
        listed("{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{",
               "\"name@\":{\"type\":\"string\",\"maxLength\":80},\"date@\":{\"type\":\"string\",\"format\":"
               "\"date\"},"
               "\"amount@\":{\"type\":\"number\",\"minimum\":0},\"kind@\":{\"enum\":[\"a\",\"b\",\"c\"]},"
               "\"lines@\":{\"type\":\"array\",\"items\":{\"type\":[\"string\",\"null\"]}}",
               10, "},\"required\":[\"name0\",\"amount7\"]}"),
        NULL, 0.15); /* 0.05 on a quiet machine */
}

/* ---- decimals --------------------------------------------------------------------------------------- */

static struct decimal decimal(const char *text)
{
    struct decimal d;

    CHECK(decimal_read(&d, span_text(text)));
    return d;
}

static void test_decimals_are_written_shortest(void **state)
{
    static const char *const table[][2] = {
        { "0", "0" },
        { "-0.0e5", "0" },
        { "1.0", "1" },
        { "-1.50", "-1.5" },
        { "1e3", "1000" },
        { "12.5E-3", "0.0125" },
        { "1e40", "1e40" },
        { "100e37", "1000000000000000000000000000000000000000" },
        { "1.25e-60", "1.25e-60" },
        { "0.000", "0" },
        { "00120", "120" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct decimal d = decimal(table[i][0]);
        char text[DECIMAL_TEXT_MAX];

        decimal_write(&d, text);
        if (strcmp(text, table[i][1]) != 0)
            fail_msg("%s: %s, expected %s", table[i][0], text, table[i][1]);
    }
    {
        struct decimal d;

        CHECK(!decimal_read(&d, span_text("1e400")) && !decimal_read(&d, span_text("1e-402")));
        CHECK(!decimal_read(&d, span_text("1e99999999999999999999")));
        CHECK(decimal_read(&d, span_text("0e99999999999999999999")));
        CHECK(!decimal_read(&d,
                            span_text("1.0000000000000000000000000000000000000000000000000000000000000001")));
        CHECK(
            decimal_read(&d, span_text("1.000000000000000000000000000000000000000000000000000000000000001")));
    }
}

static void test_decimals_compare_and_round(void **state)
{
    static const char *const order[] = { "-1e10", "-12",  "-1.5", "-1.25", "-0.001", "0",  "0.0001",
                                         "0.1",   "0.11", "1",    "1.01",  "2",      "10", "1e10" };
    static const struct {
        const char *from;
        int fraction;
        bool up;
        const char *to;
    } round[] = {
        { "1.25", 1, true, "1.3" },    { "1.25", 1, false, "1.2" },     { "-1.25", 1, true, "-1.2" },
        { "-1.25", 1, false, "-1.3" }, { "9.99", 1, true, "10" },       { "0.004", 0, true, "1" },
        { "0.004", 0, false, "0" },    { "-0.004", 2, false, "-0.01" }, { "0.00001", 3, true, "0.001" },
        { "5", 0, true, "5" },         { "-7.9", 0, false, "-8" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
        for (size_t j = 0; j < sizeof order / sizeof order[0]; j++) {
            struct decimal a = decimal(order[i]), b = decimal(order[j]);
            int found = decimal_compare(&a, &b);

            if ((found > 0) - (found < 0) != (i > j) - (i < j))
                fail_msg("%s and %s: %d", order[i], order[j], found);
        }
    for (size_t i = 0; i < sizeof round / sizeof round[0]; i++) {
        struct decimal d = decimal(round[i].from);
        char text[DECIMAL_TEXT_MAX];
        bool changed = decimal_round(&d, round[i].fraction, round[i].up);

        decimal_write(&d, text);
        if (strcmp(text, round[i].to) != 0 || changed != (strcmp(round[i].from, round[i].to) != 0))
            fail_msg("%s to %d digits: %s, expected %s", round[i].from, round[i].fraction, text, round[i].to);
    }
}

static void test_decimals_are_multiples(void **state)
{
    static const struct {
        const char *value, *step;
        bool is;
    } table[] = {
        { "0.0075", "0.0001", true },
        { "0.00751", "0.0001", false },
        { "35", "1.5", false },
        { "4.5", "1.5", true },
        { "0", "3", true },
        { "1e300", "0.5", true },
        { "1e300", "7", false },
        { "7e300", "7", true },
        { "9.99999999999999999", "9.99999999999999999", true },
        { "1e-20", "1", false },
        { "-21", "7", true },
        { "0.3", "0.1", true },
        { "12391239123", "1e-8", true },
        { "0.25", "0.1", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct decimal value = decimal(table[i].value), by = decimal(table[i].step);
        struct decimal_step step;

        CHECK(decimal_step(&by, &step));
        if (decimal_is_multiple(&value, step) != table[i].is)
            fail_msg("%s of %s", table[i].value, table[i].step);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_are_the_standards),
        cmocka_unit_test(test_numbers_are_exact),
        cmocka_unit_test(test_strings_are_measured_in_code_points),
        cmocka_unit_test(test_values_are_compared_by_value),
        cmocka_unit_test(test_arrays_have_a_prefix_and_items),
        cmocka_unit_test(test_objects_have_their_properties_in_order),
        cmocka_unit_test(test_branches_meet_what_stands_beside_them),
        cmocka_unit_test(test_references_are_followed),
        cmocka_unit_test(test_closed_objects_take_no_others),
        cmocka_unit_test(test_the_other_kinds),
        cmocka_unit_test(test_refusals_point_at_what_is_wrong),
        cmocka_unit_test(test_what_lies_deep_is_still_checked),
        cmocka_unit_test(test_hostile_schemas_are_refused_soon),
        cmocka_unit_test(test_a_schema_of_fifty_fields_compiles_soon),
        cmocka_unit_test(test_decimals_are_written_shortest),
        cmocka_unit_test(test_decimals_compare_and_round),
        cmocka_unit_test(test_decimals_are_multiples),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
