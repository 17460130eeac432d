/* Merging: each rule on rows that agree, differ and say nothing, and where each value came from. */

#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/merge.h"

static const char *const schema_text = "{'type':'object','properties':{'name':{'type':'string'},'tags':{'"
                                       "type':'array'},'total':{'type':'number'},"
                                       "'a,b=c':{},'nested':{'type':'object'}}}";

static json_t *json(const char *text)
{
    char copy[4096];
    json_t *value;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    value = json_loads(copy, JSON_DECODE_ANY, NULL);
    CHECK(value);
    return value;
}

/* rows: an array, chunks numbered from 0.  Compares the texts, so the order of keys too. */
static void check_merge(const char *rules, const char *rows_text, const char *wanted_row,
                        const char *wanted_from)
{
    json_t *schema = json(schema_text), *rows = json(rows_text), *row, *from, *expected = json(wanted_row),
           *origins;
    struct merge *merge;
    struct err err = { 0 };
    char *a, *b;

    CHECK(merge_new(&merge, schema, rules, &err));
    for (int again = 0; again < 2; again++) { /* a merge is used for one document after another */
        for (size_t i = 0; i < json_array_size(rows); i++)
            CHECK(merge_add(merge, json_array_get(rows, i), (uint32_t)i, &err));
        CHECK(merge_take(merge, &row, &from, &err));
        a = json_dumps(row, JSON_COMPACT | JSON_ENCODE_ANY);
        b = json_dumps(expected, JSON_COMPACT | JSON_ENCODE_ANY);
        if (strcmp(a, b) != 0)
            print_error("%s\n got %s\nnot %s\n", rows_text, a, b);
        CHECK(!strcmp(a, b));
        free(a);
        free(b);
        if (wanted_from) {
            origins = json(wanted_from);
            a = json_dumps(from, JSON_COMPACT | JSON_SORT_KEYS);
            if (!json_equal(from, origins))
                print_error("%s\n from %s\n", rows_text, a);
            CHECK(json_equal(from, origins));
            free(a);
            json_decref(origins);
        }
        json_decref(row);
        json_decref(from);
    }
    merge_free(merge);
    json_decref(schema);
    json_decref(rows);
    json_decref(expected);
}

static void test_defaults(void **state)
{
    (void)state;
    check_merge(NULL,
                "[{'name':'','tags':[],'total':null},{'tags':['x','y'],'name':'B','total':0},{'name':'C','"
                "tags':['y','z'],'total':5}]",
                "{'name':'B','tags':['x','y','z'],'total':0}",
                "{'/name':1,'/tags/0':1,'/tags/1':1,'/tags/2':2,'/total':1}");
    /* Nothing is merged with one chunk. */
    check_merge(NULL, "[{'name':'A','tags':['x','x'],'total':null}]",
                "{'name':'A','tags':['x','x'],'total':null}", "{'/name':0,'/tags/0':0,'/tags/1':0}");
    /* Where none says anything, what the first says; a field that only some have. */
    check_merge(NULL, "[{'name':''},{'name':null,'tags':[]}]", "{'name':'','tags':[]}", "{'/name':0}");
    /* The schema's order, then that of appearance. */
    check_merge(NULL, "[{'zz':1,'total':2},{'yy':3,'name':'n'}]", "{'name':'n','total':2,'zz':1,'yy':3}",
                NULL);
    check_merge(NULL, "[{}]", "{}", "{}");
}

static void test_rules(void **state)
{
    (void)state;
    check_merge("name=all", "[{'name':'A'},{'name':''},{'name':'B'},{'name':'A'}]", "{'name':['A','B','A']}",
                "{'/name/0':0,'/name/1':2,'/name/2':3}");
    check_merge("name=all", "[{'name':'A'}]", "{'name':['A']}", NULL);
    check_merge("name=all", "[{'total':1}]", "{'name':[],'total':1}", NULL);
    check_merge("tags=all", "[{'tags':['a']},{'tags':[]},{'tags':['b']}]", "{'tags':[['a'],['b']]}",
                "{'/tags/0/0':0,'/tags/1/0':2}");
    check_merge("tags=first", "[{'tags':[]},{'tags':['b']},{'tags':['c']}]", "{'tags':['b']}", NULL);
    check_merge("name=union", "[{'name':'A'},{'name':'B'},{'name':'A'}]", "{'name':['A','B']}", NULL);
    check_merge("name=longest", "[{'name':'éé'},{'name':'abc'},{'name':'xyz'}]", "{'name':'abc'}",
                "{'/name':1}");
    check_merge("tags=longest", "[{'tags':[1]},{'tags':[1,2]},{'tags':[3,4]}]", "{'tags':[1,2]}", NULL);
    check_merge("total=longest", "[{'total':1},{'total':100}]", "{'total':1}", NULL);
    check_merge("name=vote", "[{'name':'A'},{'name':'B'},{'name':'B'},{'name':''},{'name':''},{'name':''}]",
                "{'name':'B'}", "{'/name':1}");
    check_merge("name=vote", "[{'name':'A'},{'name':'B'},{'name':'B'},{'name':'A'}]", "{'name':'A'}", NULL);
    check_merge("name=vote", "[{'name':null},{'name':''}]", "{'name':null}", NULL);
    check_merge("total=vote,name=longest",
                "[{'name':'x','total':1},{'name':'','total':2.0},{'name':'yy','total':2}]",
                "{'name':'yy','total':2.0}", "{'/name':2,'/total':1}");
    check_merge("a,b=c=all,name=first", "[{'a,b=c':1},{'a,b=c':2}]", "{'a,b=c':[1,2]}", NULL);
}

/* Values are the same when their JSON is; pointers are escaped; large numbers are kept. */
static void test_values(void **state)
{
    (void)state;
    check_merge(NULL, "[{'tags':[{'x':1,'y':2},1,'1',null]},{'tags':[{'y':2,'x':1.0},1.0,null,true]}]",
                "{'tags':[{'x':1,'y':2},1,'1',null,true]}",
                "{'/tags/0/x':0,'/tags/0/y':0,'/tags/1':0,'/tags/2':0,'/tags/4':1}");
    check_merge(NULL, "[{'nested':{}},{'nested':{'a/b':'x','c~d':[1],'':false}}]",
                "{'nested':{'a/b':'x','c~d':[1],'':false}}",
                "{'/nested/a~1b':1,'/nested/c~0d/0':1,'/nested/':1}");
    check_merge("total=vote",
                "[{'total':9223372036854775807},{'total':9223372036854775806},{'total':9223372036854775806}]",
                "{'total':9223372036854775806}", NULL);
    check_merge("total=all", "[{'total':1e300},{'total':0.1},{'total':-9223372036854775808}]",
                "{'total':[1e300,0.1,-9223372036854775808]}", NULL);
    check_merge(NULL, "[['a','b'],['b','c']]", "['a','b','c']", "{'/0':0,'/1':0,'/2':1}");
    check_merge(NULL, "['','x']", "'x'", "{'':1}");
}

static void test_rules_that_are_none(void **state)
{
    static const struct {
        const char *rules, *words;
    } cases[] = {
        { "nme=first", "no field `nme` (did you mean `name`?)" },
        { "zzzzzz=first", "no field `zzzzzz`" },
        { "name=frist", "no rule `frist` (did you mean `first`?)" },
        { "name=average", "expected first, all, union, longest or vote" },
        { "name", "expected field=rule" },
        { "name,total=first", "expected field=rule" },
        { "name=first,", "a comma at the end" },
        { "name=first,name=all", "two rules" },
        { ",", "expected field=rule" },
    };
    json_t *schema = json(schema_text);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct merge *merge;
        struct err err = { 0 };

        CHECK(!merge_new(&merge, schema, cases[i].rules, &err));
        if (!strstr(err.text, cases[i].words))
            print_error("%s: %s\n", cases[i].rules, err.text);
        CHECK(strstr(err.text, cases[i].words) && err.code == ERR_INPUT);
    }
    json_decref(schema);
}

static void test_a_schema_by_reference(void **state)
{
    json_t *schema = json("{'$ref':'#/$defs/row','$defs':{'row':{'properties':{'x':{}}}}}"),
           *loop = json("{'$ref':'#/$defs/a','$defs':{'a':{'$ref':'#/$defs/a'}}}");
    struct merge *merge;
    json_t *row, *from;
    struct err err;

    (void)state;
    CHECK(merge_new(&merge, schema, "x=all", &err));
    CHECK(!merge_take(merge, &row, &from, &err));
    merge_free(merge);
    CHECK(merge_new(&merge, loop, NULL, &err));
    merge_free(merge);
    CHECK(merge_new(&merge, NULL, "", &err));
    merge_free(merge);
    json_decref(schema);
    json_decref(loop);
}

/* Thousands of chunks take a moment, not the square of it. */
static void test_many_chunks(void **state)
{
    json_t *schema = json(schema_text), *row, *from;
    struct merge *merge;
    struct err err;

    (void)state;
    CHECK(merge_new(&merge, schema, "name=vote", &err));
    for (uint32_t i = 0; i < 20000; i++) {
        row = json_pack("{s:o,s:[i,i]}", "name", json_sprintf("n%u", i % 5000), "tags", i, i + 1);
        CHECK(merge_add(merge, row, i, &err));
        json_decref(row);
    }
    CHECK(merge_take(merge, &row, &from, &err));
    CHECK(json_array_size(json_object_get(row, "tags")) == 20001);
    CHECK(!strcmp(json_string_value(json_object_get(row, "name")), "n0"));
    CHECK(json_integer_value(json_object_get(from, "/tags/20000")) == 19999);
    json_decref(row);
    json_decref(from);
    merge_free(merge);
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_rules_that_are_none),
        cmocka_unit_test(test_a_schema_by_reference),
        cmocka_unit_test(test_many_chunks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
