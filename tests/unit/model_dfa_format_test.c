/* Formats against the cases of the JSON Schema test suite (draft 2020-12, optional/format), and against their
 * standards where the suite is silent. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/unit/dfa_canonical.h"

struct example {
    const char *format, *text;
    bool valid;
};

static struct dfa *format(const char *name)
{
    struct dfa *dfa = NULL;

    CHECK(dfa_format(&dfa, name, NULL));
    return dfa;
}

static bool matches(const struct dfa *dfa, const char *text)
{
    return dfa_matches(dfa, span_text(text));
}

static void check_examples(const struct example *example, size_t count)
{
    struct dfa *dfa = NULL;

    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(example[i].format, example[i - 1].format) != 0) {
            dfa_free(dfa);
            dfa = format(example[i].format);
        }
        if (matches(dfa, example[i].text) != example[i].valid)
            print_message("%s: %s\n", example[i].format, example[i].text);
        CHECK(matches(dfa, example[i].text) == example[i].valid);
    }
    dfa_free(dfa);
}

#define CHECK_EXAMPLES(list) check_examples(list, sizeof list / sizeof list[0])

static void test_formats_mean_what_the_suite_says(void **state)
{
    static const struct example list[] = {
        { "date", "1963-06-19", true },
        { "date", "2020-01-31", true },
        { "date", "2020-01-32", false },
        { "date", "2021-02-28", true },
        { "date", "2021-02-29", false },
        { "date", "2020-02-29", true },
        { "date", "2020-02-30", false },
        { "date", "2020-03-31", true },
        { "date", "2020-03-32", false },
        { "date", "2020-04-30", true },
        { "date", "2020-04-31", false },
        { "date", "2020-05-31", true },
        { "date", "2020-05-32", false },
        { "date", "2020-06-30", true },
        { "date", "2020-06-31", false },
        { "date", "2020-07-31", true },
        { "date", "2020-07-32", false },
        { "date", "2020-08-31", true },
        { "date", "2020-08-32", false },
        { "date", "2020-09-30", true },
        { "date", "2020-09-31", false },
        { "date", "2020-10-31", true },
        { "date", "2020-10-32", false },
        { "date", "2020-11-30", true },
        { "date", "2020-11-31", false },
        { "date", "2020-12-31", true },
        { "date", "2020-12-32", false },
        { "date", "2020-13-01", false },
        { "date", "06/19/1963", false },
        { "date", "2013-350", false },
        { "date", "1998-1-20", false },
        { "date", "1998-01-1", false },
        { "date", "1998-13-01", false },
        { "date", "1998-04-31", false },
        { "date", "1963-06-1\xe0\xa7\xaa", false },
        { "date", "20230328", false },
        { "date", "2023-W01", false },
        { "date", "2023-W13-2", false },
        { "date", "2022W527", false },
        { "date-time", "1963-06-19T08:30:06.283185Z", true },
        { "date-time", "1963-06-19T08:30:06Z", true },
        { "date-time", "1937-01-01T12:00:27.87+00:20", true },
        { "date-time", "1990-12-31T15:59:50.123-08:00", true },
        { "date-time", "1998-12-31T23:59:60Z", true },
        { "date-time", "1998-12-31T15:59:60.123-08:00", true },
        { "date-time", "1998-12-31T23:59:61Z", false },
        { "date-time", "1998-12-31T23:58:60Z", false },
        { "date-time", "1998-12-31T22:59:60Z", false },
        { "date-time", "1990-02-31T15:59:59.123-08:00", false },
        { "date-time", "1990-12-31T15:59:59-24:00", false },
        { "date-time", "1963-06-19T08:30:06.28123+01:00Z", false },
        { "date-time", "06/19/1963 08:30:06 PST", false },
        { "date-time", "1963-06-19t08:30:06.283185z", true },
        { "date-time", "2013-350T01:01:01", false },
        { "date-time", "1963-6-19T08:30:06.283185Z", false },
        { "date-time", "1963-06-1T08:30:06.283185Z", false },
        { "date-time", "1963-06-1\xe0\xa7\xaaT00:00:00Z", false },
        { "date-time", "1963-06-11T0\xe0\xa7\xaa:00:00Z", false },
        { "time", "08:30:06Z", true },
        { "time", "008:030:006Z", false },
        { "time", "8:3:6Z", false },
        { "time", "8:0030:6Z", false },
        { "time", "23:59:60Z", true },
        { "time", "22:59:60Z", false },
        { "time", "23:58:60Z", false },
        { "time", "23:59:60+00:00", true },
        { "time", "22:59:60+00:00", false },
        { "time", "23:58:60+00:00", false },
        { "time", "01:29:60+01:30", true },
        { "time", "23:29:60+23:30", true },
        { "time", "23:59:60+01:00", false },
        { "time", "23:59:60+00:30", false },
        { "time", "15:59:60-08:00", true },
        { "time", "00:29:60-23:30", true },
        { "time", "23:59:60-01:00", false },
        { "time", "23:59:60-00:30", false },
        { "time", "23:20:50.52Z", true },
        { "time", "08:30:06.283185Z", true },
        { "time", "08:30:06+00:20", true },
        { "time", "08:30:06-08:00", true },
        { "time", "08:30:06-8:000", false },
        { "time", "08:30:06z", true },
        { "time", "24:00:00Z", false },
        { "time", "00:60:00Z", false },
        { "time", "00:00:61Z", false },
        { "time", "01:02:03+24:00", false },
        { "time", "01:02:03+00:60", false },
        { "time", "01:02:03Z+00:30", false },
        { "time", "08:30:06 PST", false },
        { "time", "01:01:01,1111", false },
        { "time", "12:00:00", false },
        { "time", "12:00:00.52", false },
        { "time", "1\xe0\xa7\xa8:00:00Z", false },
        { "time", "08:30:06#00:20", false },
        { "time", "ab:cd:ef", false },
        { "email", "joe.bloggs@example.com", true },
        { "email", "2962", false },
        { "email", "te~st@example.com", true },
        { "email", "~test@example.com", true },
        { "email", "test~@example.com", true },
        { "email", "\"joe bloggs\"@example.com", true },
        { "email", "\"joe..bloggs\"@example.com", true },
        { "email", "\"joe@bloggs\"@example.com", true },
        { "email", "joe.bloggs@[127.0.0.1]", true },
        { "email", "joe.bloggs@[IPv6:::1]", true },
        { "email", ".test@example.com", false },
        { "email", "test.@example.com", false },
        { "email", "te.s.t@example.com", true },
        { "email", "te..st@example.com", false },
        { "email", "joe.bloggs@invalid=domain.com", false },
        { "email", "joe.bloggs@[127.0.0.300]", false },
        { "uuid", "2EB8AA08-AA98-11EA-B4AA-73B441D16380", true },
        { "uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380", true },
        { "uuid", "2eb8aa08-AA98-11ea-B4Aa-73B441D16380", true },
        { "uuid", "00000000-0000-0000-0000-000000000000", true },
        { "uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d1638", false },
        { "uuid", "2eb8aa08-aa98-11ea-73b441d16380", false },
        { "uuid", "2eb8aa08-aa98-11ea-b4ga-73b441d16380", false },
        { "uuid", "2eb8aa08aa9811eab4aa73b441d16380", false },
        { "uuid", "2eb8aa08aa98-11ea-b4aa73b441d16380", false },
        { "uuid", "2eb8-aa08-aa98-11ea-b4aa73b44-1d16380", false },
        { "uuid", "2eb8aa08aa9811eab4aa73b441d16380----", false },
        { "uuid", "98d80576-482e-427f-8434-7f86890ab222", true },
        { "uuid", "99c17cbb-656f-564a-940f-1a4568f03487", true },
        { "uuid", "99c17cbb-656f-664a-940f-1a4568f03487", true },
        { "uuid", "99c17cbb-656f-f64a-940f-1a4568f03487", true },
        { "uri", "http://foo.bar/?baz=qux#quux", true },
        { "uri", "http://foo.com/blah_(wikipedia)_blah#cite-1", true },
        { "uri", "http://foo.bar/?q=Test%20URL-encoded%20stuff", true },
        { "uri", "http://xn--nw2a.xn--j6w193g/", true },
        { "uri", "http://-.~_!$&'()*+,;=:%40:80%2f::::::@example.com", true },
        { "uri", "http://223.255.255.254", true },
        { "uri", "ftp://ftp.is.co.za/rfc/rfc1808.txt", true },
        { "uri", "http://www.ietf.org/rfc/rfc2396.txt", true },
        { "uri", "ldap://[2001:db8::7]/c=GB?objectClass?one", true },
        { "uri", "mailto:John.Doe@example.com", true },
        { "uri", "news:comp.infosystems.www.servers.unix", true },
        { "uri", "tel:+1-816-555-1212", true },
        { "uri", "urn:oasis:names:specification:docbook:dtd:xml:4.1.2", true },
        { "uri", "//foo.bar/?baz=qux#quux", false },
        { "uri", "/abc", false },
        { "uri", "\\\\WINDOWS\\fileshare", false },
        { "uri", "abc", false },
        { "uri", "http:// shouldfail.com", false },
        { "uri", ":// should fail", false },
        { "uri", "bar,baz:foo", false },
    };

    (void)state;
    CHECK_EXAMPLES(list);
}

static void test_formats_mean_what_their_standards_say(void **state)
{
    static const struct example list[] = {
        { "date", "0001-01-01", true },
        { "date", "0000-01-01", false }, /* there is no year 0, and most readers say so */
        { "date", "0000-02-29", false },
        { "date", "9999-12-31", true },
        { "date", "10000-01-01", false },
        { "date", "2000-00-10", false },
        { "date", "2000-10-00", false },
        { "date", " 2000-10-10", false },
        { "date", "2000-10-10\n", false },
        { "date", "2000-10-10T", false },
        { "date-time", "2000-10-10 10:00:00Z", false },
        { "date-time", "2000-02-29T00:00:00.000+23:59", true },
        { "date-time", "1900-02-29T00:00:00Z", false },
        { "date-time", "2000-10-10T10:00Z", false },
        { "date-time", "2000-10-10T10:00:00", false },
        { "date-time", "2016-12-31T18:59:60-05:00", true },
        { "date-time", "2017-01-01T05:29:60+05:30", true },
        { "date-time", "2017-01-01T05:44:60.5+05:45", true },
        { "date-time", "2017-01-01T05:29:60+05:45", false },
        { "time", "23:59:59.999999999999999999Z", true },
        { "time", "23:59:60.25z", true },
        { "time", "23:59:60-00:00", true },
        { "time", "12:00:00.Z", false },
        { "time", "12:00:00+5:00", false },
        { "time", "12:00:00+0500", false },
        { "time", "T12:00:00Z", false },
        { "email", "a@b", true },
        { "email", "a@b.c.", false },
        { "email", "a@-b.c", false },
        { "email", "a@b-.c", false },
        { "email", "a@b--c.d", true },
        { "email", "@b", false },
        { "email", "a@", false },
        { "email", "a b@c", false },
        { "email", "\"\"@c", true },
        { "email", "\"a\\\"b\"@c", true },
        { "email", "\"a\"b\"@c", false },
        { "email", "\"a@c", false },
        { "email", "a@[IPv6:2001:db8::1]", true },
        { "email", "a@[2001:db8::1]", false },
        { "email", "a@[1.2.3]", false },
        { "email", "a@[01.2.3.4]", false },
        { "email", "a@b@c", false },
        { "email", "a@b_c", false },
        { "email", "\xc3\xa9@b", false },
        { "uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380 ", false },
        { "uuid", "{2eb8aa08-aa98-11ea-b4aa-73b441d16380}", false },
        { "uri", "http://[::1]:80/", true },
        { "uri", "http://[::ffff:1.2.3.4]", true },
        { "uri", "http://[1:2:3:4:5:6:7:8]", true },
        { "uri", "http://[1:2:3:4:5:6:7]", false },
        { "uri", "http://[1:2:3:4:5:6:7::]", true },
        { "uri", "http://[1::2::3]", false },
        { "uri", "http://[v1.fe80:a]", true },
        { "uri", "http://[::1", false },
        { "uri", "http://a:b/", false },
        { "uri", "http://a:80a/", false },
        { "uri", "http://user:secret@host:8080/a//b?c?d#e/f?g", true },
        { "uri", "http://a@b@c", false },
        { "uri", "file:///etc/hosts", true },
        { "uri", "a:", true },
        { "uri", "a:/", true },
        { "uri", "a://", true },
        { "uri", "a:#", true },
        { "uri", "a:b#c#d", false },
        { "uri", "1a:b", false },
        { "uri", "a+b-c.d:e", true },
        { "uri", "http://a/%4", false },
        { "uri", "http://a/%zz", false },
        { "uri", "http://a/<b>", false },
        { "uri", "http://a/b\\c", false },
        { "uri", "http://a/\"b\"", false },
        { "uri", "http://a/{b}", false },
        { "uri", "http://a/b^c|d`e", false },
        { "uri", "http://a/[b]", false },
        { "uri", "http://\xc3\xa9/", false },
        { "uri", "", false },
    };

    (void)state;
    CHECK_EXAMPLES(list);
}

static bool is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* The whole calendar, and a day more at every end. */
static void test_every_day_of_ten_thousand_years(void **state)
{
    static const int days[] = { 0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0 };
    struct dfa *dfa = format("date");
    char text[32];

    (void)state;
    CHECK(dfa_is_canonical(dfa));
    for (int year = 0; year <= 9999; year++)
        for (int month = 0; month <= 13; month++)
            for (int day = 0; day <= 32; day += day == 1 ? 26 : 1) {
                bool valid = year > 0 && month >= 1 && month <= 12 && day >= 1 &&
                             day <= days[month] + (month == 2 && is_leap(year));

                text[0] = (char)('0' + year / 1000);
                text[1] = (char)('0' + year / 100 % 10);
                text[2] = (char)('0' + year / 10 % 10);
                text[3] = (char)('0' + year % 10);
                text[4] = text[7] = '-';
                text[5] = (char)('0' + month / 10);
                text[6] = (char)('0' + month % 10);
                text[8] = (char)('0' + day / 10);
                text[9] = (char)('0' + day % 10);
                text[10] = '\0';
                CHECK(matches(dfa, text) == valid);
            }
    dfa_free(dfa);
}

/* Every minute with every offset: second 60 only where UTC has 23:59, and only with offsets of whole quarters
 * of an hour. */
static void test_leap_seconds_are_at_the_end_of_the_day_in_utc(void **state)
{
    struct dfa *dfa = format("time");
    char text[32];

    (void)state;
    CHECK(dfa_is_canonical(dfa));
    for (int shown = 0; shown < 24 * 60; shown++)
        for (int offset = -(24 * 60 - 1); offset < 24 * 60; offset += 1 + (shown % 7)) {
            int away = abs(offset), utc = (shown - offset + 2 * 24 * 60) % (24 * 60);

            snprintf(text, sizeof text, "%02d:%02d:60%c%02d:%02d", shown / 60, shown % 60,
                     offset < 0 ? '-' : '+', away / 60, away % 60);
            CHECK(matches(dfa, text) == (utc == 23 * 60 + 59 && away % 15 == 0));
            text[6] = '5';
            CHECK(matches(dfa, text));
        }
    dfa_free(dfa);
}

static void test_an_unknown_format_names_the_nearest(void **state)
{
    struct dfa *dfa;
    struct err err;

    (void)state;
    CHECK(!dfa_format(&dfa, "datetime", &err) && err.code == ERR_NOT_FOUND &&
          strstr(err.text, "did you mean `date-time`"));
    CHECK(!dfa_format(&dfa, "Email", &err) && strstr(err.text, "did you mean `email`"));
    CHECK(!dfa_format(&dfa, "hostname", &err) && err.code == ERR_NOT_FOUND &&
          strstr(err.text, "known are date, date-time"));
    CHECK(!dfa_format(&dfa, "", &err) && err.code == ERR_NOT_FOUND);
}

/* Compiled for each field that has one. */
static void test_formats_are_small(void **state)
{
    static const struct {
        const char *name;
        uint32_t states;
    } list[] = { { "date", 60 },   { "date-time", 1000 }, { "time", 1000 },
                 { "email", 300 }, { "uuid", 50 },        { "uri", 300 } };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct dfa *dfa = format(list[i].name), *ascii = NULL, *rest = NULL;

        CHECK(dfa->count <= list[i].states && dfa_is_canonical(dfa));
        /* All of them are ASCII without controls. */
        CHECK(dfa_pattern(&ascii, span_text("[ -~]*"), false, NULL) &&
              dfa_subtract(&rest, dfa, ascii, NULL) && dfa_is_empty(rest));
        dfa_free(dfa);
        dfa_free(ascii);
        dfa_free(rest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats_mean_what_the_suite_says),
        cmocka_unit_test(test_formats_mean_what_their_standards_say),
        cmocka_unit_test(test_every_day_of_ten_thousand_years),
        cmocka_unit_test(test_leap_seconds_are_at_the_end_of_the_day_in_utc),
        cmocka_unit_test(test_an_unknown_format_names_the_nearest),
        cmocka_unit_test(test_formats_are_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
