/* Checkpoint files: a header is not believed. */

#include "worker/model/safetensors.h"
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file image: header text, then `data` zero bytes.  Freed by the caller. */
static unsigned char *image(const char *header, uint64_t claimed, size_t data, size_t *size)
{
    size_t n = strlen(header);
    unsigned char *bytes = calloc(8 + n + data + 1, 1);

    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(claimed >> 8 * i);
    memcpy(bytes + 8, header, n);
    *size = 8 + n + data;
    return bytes;
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
#define B "\"b\":{\"dtype\":\"BF16\",\"shape\":[5],\"data_offsets\":[24,34]}"

static void test_a_good_file_is_read(void **state)
{
    struct safetensors_entry *entry;
    size_t size, count;
    struct err err = { 0 };
    unsigned char *bytes = image("{" B "," A ",\"__metadata__\":{\"format\":\"pt\"}}   ",
                                 strlen("{" B "," A ",\"__metadata__\":{\"format\":\"pt\"}}   "), 34, &size);

    (void)state;
    if (!safetensors_parse(span_of(bytes, size), "x", &entry, &count, NULL, &err))
        fail_msg("%s", err.text);
    CHECK(count == 2);
    CHECK(strcmp(entry[0].name, "a") == 0 && entry[0].dtype == DTYPE_F32 && entry[0].dimensions == 2 &&
          entry[0].bytes == 24);
    CHECK(strcmp(entry[1].name, "b") == 0 && entry[1].dtype == DTYPE_BF16 &&
          entry[1].data == bytes + size - 10);
    safetensors_entries_free(entry, count);
    free(bytes);
}

static void test_hostile_headers_are_refused(void **state)
{
    static const struct {
        const char *header;
        long long claimed;
        size_t data;
        const char *says;
    } table[] = {
        { "", 0, 0, "does not begin with {" },
        { "{}", 0, 0, "does not begin with {" },
        { "[1]", -1, 0, "does not begin with {" },
        { "{}", 1000, 0, "truncated" },
        { "{}", 0x7fffffffffffffff, 0, "expected at most" },
        { "{", -1, 0, "header:1:" },
        { "{" A "}", -1, 23, "truncated" },
        { "{" A "}", -1, 0, "truncated" },
        { "{" A "}", -1, 25, "of which the tensors fill 24" },
        { "{" A "," A "}", -1, 24, "duplicate" },
        { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[20,24]}}", -1, 24, "overlap" },
        { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[28,32]}}", -1, 32, "hole" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", -1, 8, "hole" },
        { "{\"a\":{\"dtype\":\"Q7\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "unknown dtype `Q7`" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", -1, 4, "dtype and shape 8" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", -1, 4, "impossible shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", -1, 4, "impossible shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", -1, 0,
          "impossible shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", -1, 0,
          "dtype and shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", -1, 4,
          "impossible data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", -1, 4,
          "impossible data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775803,9223372036854775807]"
          "}}",
          -1, 4, "truncated" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", -1, 4,
          "dimensions" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", -1, 4, "not of the form" },
        { "{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "not of the form" },
        { "{\"a\":[]}", -1, 0, "not of the form" },
        { "{\"a\":null}", -1, 0, "not of the form" },
        { "{\"a\\u0000b\":{}}", -1, 0, "header:1:" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct safetensors_entry *entry;
        size_t size, count;
        struct err err = { 0 };
        unsigned char *bytes = image(
            table[i].header, table[i].claimed < 0 ? strlen(table[i].header) : (uint64_t)table[i].claimed,
            table[i].data, &size);

        if (safetensors_parse(span_of(bytes, size), "file", &entry, &count, NULL, &err))
            fail_msg("accepted: %s", table[i].header);
        if (!strstr(err.text, table[i].says) || strncmp(err.text, "file", 4) != 0)
            fail_msg("%s\n  says: %s\n  expected: %s", table[i].header, err.text, table[i].says);
        free(bytes);
    }
}

/* A header of nothing but brackets must not exhaust the stack. */
static void test_a_deep_header_is_refused(void **state)
{
    enum { DEPTH = 1000000 };
    struct safetensors_entry *entry;
    size_t size, count;
    struct err err = { 0 };
    char *text = malloc(DEPTH + 6);
    unsigned char *bytes;

    (void)state;
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEPTH);
    text[5 + DEPTH] = 0;
    bytes = image(text, strlen(text), 0, &size);
    CHECK(!safetensors_parse(span_of(bytes, size), "file", &entry, &count, NULL, &err));
    CHECK(strstr(err.text, "depth"));
    free(bytes);
    free(text);
}

static char dir[] = "/tmp/moothall-safetensors-XXXXXX";

static void put(const char *name, const void *bytes, size_t size)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static void drop(const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void test_an_index_is_resolved_and_not_believed(void **state)
{
    static const struct {
        const char *index, *says;
    } table[] = {
        { "{\"weight_map\":{\"a\":\"missing.safetensors\"}}", "No such file" },
        { "{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "is not a file name" },
        { "{\"weight_map\":{\"a\":\"\"}}", "is not a file name" },
        { "{\"weight_map\":{\"z\":\"one.safetensors\"}}", "which does not have it" },
        { "{\"weight_map\":{\"a\":7}}", "is not a file name" },
        { "{\"weight_map\":{\"a\":\"empty.safetensors\"}}", "is empty" },
        { "{\"weight_map\":[]}", "`weight_map` is missing" },
        { "{\"weight_map\":{", "index.json:1:" },
    };
    static const char good[] = "{\"weight_map\":{\"a\":\"one.safetensors\"}}";
    struct safetensors *files;
    struct err err = { 0 };
    size_t size;
    unsigned char *bytes = image("{" A "}", strlen("{" A "}"), 24, &size);

    (void)state;
    CHECK(mkdtemp(dir));
    CHECK(!safetensors_open(&files, dir, &err) && err.code == ERR_NOT_FOUND);
    put("one.safetensors", bytes, size);
    put("empty.safetensors", "", 0);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        put("model.safetensors.index.json", table[i].index, strlen(table[i].index));
        if (safetensors_open(&files, dir, &err))
            fail_msg("accepted: %s", table[i].index);
        if (!strstr(err.text, table[i].says))
            fail_msg("%s\n  says: %s", table[i].index, err.text);
    }
    put("model.safetensors.index.json", good, strlen(good));
    if (!safetensors_open(&files, dir, &err))
        fail_msg("%s", err.text);
    CHECK(safetensors_count(files) == 1 && safetensors_find(files, "a") == 0 &&
          safetensors_find(files, "b") == SAFETENSORS_NONE);
    safetensors_close(files);
    safetensors_close(NULL);
    drop("model.safetensors.index.json");
    drop("one.safetensors");
    drop("empty.safetensors");
    rmdir(dir);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_file_is_read),
        cmocka_unit_test(test_hostile_headers_are_refused),
        cmocka_unit_test(test_a_deep_header_is_refused),
        cmocka_unit_test(test_an_index_is_resolved_and_not_believed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
