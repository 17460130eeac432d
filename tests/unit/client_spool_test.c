/* The spool: an array that lies on the disk reads like one in memory. */

#include "tests/check.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/spool.h"

struct element {
    uint64_t value;
    uint8_t more[40];
};

/* In order, backwards, far apart and again: whatever the cache has evicted meanwhile. */
static void test_what_was_set_is_got(void **state)
{
    enum { COUNT = 20 * 1000 };
    struct spool *spool;
    struct element e;
    struct err err = { 0 };

    (void)state;
    CHECK(spool_new(&spool, NULL, sizeof e, &err));
    memset(&e, 7, sizeof e);
    for (uint64_t i = 0; i < COUNT; i++) {
        e.value = i * i;
        CHECK(spool_set(spool, i, &e, &err));
    }
    for (uint64_t i = COUNT; i-- > 0;) {
        CHECK(spool_get(spool, i, &e, &err) && e.value == i * i && e.more[39] == 7);
        if (i % 7919 == 0) {
            e.value = 1;
            CHECK(spool_set(spool, i, &e, &err));
        }
    }
    for (uint64_t i = 0, at = 0; i < COUNT; i++, at = (at + 7919) % COUNT)
        CHECK(spool_get(spool, at, &e, &err) && e.value == (at % 7919 ? at * at : 1));
    spool_free(spool);
}

static void test_what_was_never_set_is_zero(void **state)
{
    struct spool *spool;
    uint16_t value = 5, far = 9;
    struct err err = { 0 };

    (void)state;
    CHECK(spool_new(&spool, NULL, sizeof value, &err));
    CHECK(spool_get(spool, 3, &value, &err) && value == 0);
    CHECK(spool_set(spool, 10 * 1000 * 1000, &far, &err));
    for (uint64_t i = 0; i < 1000; i++)
        CHECK(spool_get(spool, i * 9999, &value, &err) && value == 0);
    CHECK(spool_get(spool, 10 * 1000 * 1000, &value, &err) && value == 9);
    spool_free(spool);
}

/* A killed command must leave nothing: the file has no name from the start. */
static void test_it_has_no_name(void **state)
{
    char dir[] = "/tmp/moothall-client-spool-XXXXXX";
    struct spool *spool;
    struct dirent *entry;
    struct err err = { 0 };
    DIR *d;
    int found = 0;

    (void)state;
    CHECK(mkdtemp(dir));
    CHECK(spool_new(&spool, dir, 8, &err));
    CHECK(spool_set(spool, 5000, "12345678", &err));
    d = opendir(dir);
    CHECK(d);
    while ((entry = readdir(d)))
        found += *entry->d_name != '.';
    closedir(d);
    CHECK(found == 0);
    spool_free(spool);
    rmdir(dir);
    CHECK(!spool_new(&spool, dir, 8, &err) && !spool && strstr(err.text, dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_set_is_got),
        cmocka_unit_test(test_what_was_never_set_is_zero),
        cmocka_unit_test(test_it_has_no_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
