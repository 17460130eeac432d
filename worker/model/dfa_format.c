/* The formats of JSON Schema that are known, written as patterns. */

#include <stdlib.h>

#include "worker/model/dfa_build.h"

/* RFC 3339, in the calendar that has no year 0. */
#define YEAR      "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define LEAP_YEAR "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                                 \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"    \
    "02-(?:0[1-9]|1[0-9]|2[0-8]))|" LEAP_YEAR "-02-29)"
#define FRACTION "(?:\\.[0-9]+)?"
#define TIME                                                                                                 \
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]" FRACTION "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

/* RFC 3986. */
#define PCT            "%[0-9A-Fa-f]{2}"
#define UNRESERVED_SUB "A-Za-z0-9._~!$&'()*+,;=\\-"
#define PCHAR          "(?:[" UNRESERVED_SUB ":@]|" PCT ")"
#define OCTET          "(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
#define IPV4           OCTET "(?:\\." OCTET "){3}"
#define H16            "[0-9A-Fa-f]{1,4}"
#define LS32           "(?:" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                                                 \
    "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16 ")?::(?:" H16 ":){4}" LS32 "|(?:(?:" H16  \
    ":){0,1}" H16 ")?::(?:" H16 ":){3}" LS32 "|(?:(?:" H16 ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32          \
    "|(?:(?:" H16 ":){0,3}" H16 ")?::" H16 ":" LS32 "|(?:(?:" H16 ":){0,4}" H16 ")?::" LS32 "|(?:(?:" H16    \
    ":){0,5}" H16 ")?::" H16 "|(?:(?:" H16 ":){0,6}" H16 ")?::)"
#define AUTHORITY                                                                                            \
    "(?:(?:[" UNRESERVED_SUB ":]|" PCT ")*@)?"                                                               \
    "(?:\\[(?:" IPV6 "|[vV][0-9A-Fa-f]+\\.[" UNRESERVED_SUB ":]+)\\]|(?:[" UNRESERVED_SUB "]|" PCT           \
    ")*)(?::[0-9]*)?"
#define URI                                                                                                  \
    "[A-Za-z][A-Za-z0-9+.\\-]*:(?://" AUTHORITY "(?:/" PCHAR "*)*|/(?:" PCHAR "+(?:/" PCHAR "*)*)?|" PCHAR   \
    "+(?:/" PCHAR "*)*|)(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?"

/* RFC 5321, Mailbox.  How long its parts may be is left to maxLength. */
#define ATEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9\\-]*[A-Za-z0-9])?"
#define EMAIL                                                                                                \
    "(?:" ATEXT "+(?:\\." ATEXT "+)*|\"(?:[ !#-\\[\\]-~]|\\\\[ -~])*\")@"                                    \
    "(?:" LABEL "(?:\\." LABEL ")*|\\[(?:" IPV4 "|[Ii][Pp][Vv]6:" IPV6 ")\\])"

#define HEX(n) "[0-9A-Fa-f]{" #n "}"
#define UUID   HEX(8) "-" HEX(4) "-" HEX(4) "-" HEX(4) "-" HEX(12)

static bool whole(struct dfa **out, const char *pattern, struct err *err)
{
    return dfa_pattern_compile(out, span_text(pattern), false, err);
}

/* ---- leap seconds ----------------------------------------------------------------------------------- */

/* A leap second is 23:59:60 in UTC; what the clock shows then depends on the offset.  All offsets in use
 * since there are leap seconds are whole quarters of an hour; to allow every minute would make the automaton
 * fifteen times as large. */
enum { DAY_MINUTES = 24 * 60, OFFSET_STEP_MINUTES = 15 };

static bool add_time(struct buf *pattern)
{
    bool ok = buf_text(pattern, "(?:" TIME);

    /* By the time shown: an offset of o minutes shows 23:59 + o. */
    for (int o = 0; ok && o < DAY_MINUTES; o += OFFSET_STEP_MINUTES) {
        int shown = (DAY_MINUTES - 1 + o) % DAY_MINUTES, west = (DAY_MINUTES - o) % DAY_MINUTES;

        ok = buf_format(pattern, "|%02d:%02d:60" FRACTION "(?:\\+%02d:%02d|-%02d:%02d%s)", shown / 60,
                        shown % 60, o / 60, o % 60, west / 60, west % 60, o == 0 ? "|[Zz]" : "");
    }
    return ok && buf_text(pattern, ")");
}

static bool make_time(struct dfa **out, struct err *err)
{
    struct buf pattern = { 0 };
    bool ok =
        add_time(&pattern) ? dfa_pattern_compile(out, buf_span(&pattern), false, err) : dfa_no_memory(err);

    buf_fini(&pattern);
    return ok;
}

static bool make_date_time(struct dfa **out, struct err *err)
{
    struct buf pattern = { 0 };
    bool ok = buf_text(&pattern, DATE "[Tt]") && add_time(&pattern)
                  ? dfa_pattern_compile(out, buf_span(&pattern), false, err)
                  : dfa_no_memory(err);

    buf_fini(&pattern);
    return ok;
}

static bool make_date(struct dfa **out, struct err *err)
{
    return whole(out, DATE, err);
}

static bool make_email(struct dfa **out, struct err *err)
{
    return whole(out, EMAIL, err);
}

static bool make_uuid(struct dfa **out, struct err *err)
{
    return whole(out, UUID, err);
}

static bool make_uri(struct dfa **out, struct err *err)
{
    return whole(out, URI, err);
}

static const struct {
    const char *name;
    bool (*make)(struct dfa **, struct err *);
} format_known[] = {
    { "date", make_date },   { "date-time", make_date_time }, { "time", make_time },
    { "email", make_email }, { "uuid", make_uuid },           { "uri", make_uri },
};

bool dfa_format(struct dfa **out, const char *format, struct err *err)
{
    enum { COUNT = sizeof format_known / sizeof format_known[0] };
    const char *names[COUNT], *nearest;

    for (int i = 0; i < COUNT; i++) {
        names[i] = format_known[i].name;
        if (strcmp(format, names[i]) == 0)
            return format_known[i].make(out, err) || err_wrap(err, "format `%s`", format);
    }
    nearest = err_nearest(format, names, COUNT);
    return err_set(err, ERR_NOT_FOUND, "unknown format `%.64s` (%s%s%s)", format,
                   nearest ? "did you mean `" : "known are date, date-time, time, email, uuid",
                   nearest ? nearest : " and uri", nearest ? "`?" : "");
}
