/* Sets of code points that have names in Unicode: general categories by utf8proc; scripts and other
 * properties by asking PCRE2 about every character. */

#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "worker/model/dfa_pattern.h"
#include "worker/model/utf8.h"

/* ---- general categories ------------------------------------------------------------------------- */

#define C(name) (1u << UTF8PROC_CATEGORY_##name)

static const struct {
    const char *name, *long_name, *third_name;
    uint32_t categories;
} category[] = {
    { "L", "Letter", NULL, C(LU) | C(LL) | C(LT) | C(LM) | C(LO) },
    { "LC", "Cased_Letter", NULL, C(LU) | C(LL) | C(LT) },
    { "Lu", "Uppercase_Letter", NULL, C(LU) },
    { "Ll", "Lowercase_Letter", NULL, C(LL) },
    { "Lt", "Titlecase_Letter", NULL, C(LT) },
    { "Lm", "Modifier_Letter", NULL, C(LM) },
    { "Lo", "Other_Letter", NULL, C(LO) },
    { "M", "Mark", "Combining_Mark", C(MN) | C(MC) | C(ME) },
    { "Mn", "Nonspacing_Mark", NULL, C(MN) },
    { "Mc", "Spacing_Mark", NULL, C(MC) },
    { "Me", "Enclosing_Mark", NULL, C(ME) },
    { "N", "Number", NULL, C(ND) | C(NL) | C(NO) },
    { "Nd", "Decimal_Number", "digit", C(ND) },
    { "Nl", "Letter_Number", NULL, C(NL) },
    { "No", "Other_Number", NULL, C(NO) },
    { "P", "Punctuation", "punct", C(PC) | C(PD) | C(PS) | C(PE) | C(PI) | C(PF) | C(PO) },
    { "Pc", "Connector_Punctuation", NULL, C(PC) },
    { "Pd", "Dash_Punctuation", NULL, C(PD) },
    { "Ps", "Open_Punctuation", NULL, C(PS) },
    { "Pe", "Close_Punctuation", NULL, C(PE) },
    { "Pi", "Initial_Punctuation", NULL, C(PI) },
    { "Pf", "Final_Punctuation", NULL, C(PF) },
    { "Po", "Other_Punctuation", NULL, C(PO) },
    { "S", "Symbol", NULL, C(SM) | C(SC) | C(SK) | C(SO) },
    { "Sm", "Math_Symbol", NULL, C(SM) },
    { "Sc", "Currency_Symbol", NULL, C(SC) },
    { "Sk", "Modifier_Symbol", NULL, C(SK) },
    { "So", "Other_Symbol", NULL, C(SO) },
    { "Z", "Separator", NULL, C(ZS) | C(ZL) | C(ZP) },
    { "Zs", "Space_Separator", NULL, C(ZS) },
    { "Zl", "Line_Separator", NULL, C(ZL) },
    { "Zp", "Paragraph_Separator", NULL, C(ZP) },
    { "C", "Other", NULL, C(CC) | C(CF) | C(CS) | C(CO) | C(CN) },
    { "Cc", "Control", "cntrl", C(CC) },
    { "Cf", "Format", NULL, C(CF) },
    { "Cs", "Surrogate", NULL, C(CS) },
    { "Co", "Private_Use", NULL, C(CO) },
    { "Cn", "Unassigned", NULL, C(CN) },
};

/* Planes 4 to 13 are not assigned and planes 15 and 16 are for private use, whatever the version of Unicode.
 */
static bool add_categories(struct points *points, uint32_t categories, struct err *err)
{
    uint32_t from = 0;
    bool in = false;

    for (uint32_t c = 0; c <= 0x40000; c++) {
        bool now = c < 0x40000 && categories >> utf8proc_category((utf8proc_int32_t)c) & 1;

        if (now && !in)
            from = c;
        if (!now && in && !points_add(points, from, c - 1, err))
            return false;
        in = now;
    }
    for (uint32_t c = 0xe0000; c <= 0xe1000; c++) {
        bool now = c < 0xe1000 && categories >> utf8proc_category((utf8proc_int32_t)c) & 1;

        if (now && !in)
            from = c;
        if (!now && in && !points_add(points, from, c - 1, err))
            return false;
        in = now;
    }
    if (categories & C(CN) &&
        !(points_add(points, 0x40000, 0xdffff, err) && points_add(points, 0xe1000, 0xeffff, err) &&
          points_add(points, 0xffffe, 0xfffff, err) && points_add(points, 0x10fffe, 0x10ffff, err)))
        return false;
    return !(categories & C(CO)) ||
           (points_add(points, 0xf0000, 0xffffd, err) && points_add(points, 0x100000, 0x10fffd, err));
}

/* ---- what PCRE2 knows ----------------------------------------------------------------------------- */

/* The properties of ECMA-262, under both of their names, that PCRE2 has, too. */
static const char *const property[] = {
    "ASCII_Hex_Digit",
    "AHex",
    "Alphabetic",
    "Alpha",
    "Bidi_Control",
    "Bidi_C",
    "Bidi_Mirrored",
    "Bidi_M",
    "Case_Ignorable",
    "CI",
    "Cased",
    "Changes_When_Casefolded",
    "CWCF",
    "Changes_When_Casemapped",
    "CWCM",
    "Changes_When_Lowercased",
    "CWL",
    "Changes_When_Titlecased",
    "CWT",
    "Changes_When_Uppercased",
    "CWU",
    "Dash",
    "Default_Ignorable_Code_Point",
    "DI",
    "Deprecated",
    "Dep",
    "Diacritic",
    "Dia",
    "Emoji",
    "Emoji_Component",
    "EComp",
    "Emoji_Modifier",
    "EMod",
    "Emoji_Modifier_Base",
    "EBase",
    "Emoji_Presentation",
    "EPres",
    "Extended_Pictographic",
    "ExtPict",
    "Extender",
    "Ext",
    "Grapheme_Base",
    "Gr_Base",
    "Grapheme_Extend",
    "Gr_Ext",
    "Hex_Digit",
    "Hex",
    "IDS_Binary_Operator",
    "IDSB",
    "IDS_Trinary_Operator",
    "IDST",
    "ID_Continue",
    "IDC",
    "ID_Start",
    "IDS",
    "Ideographic",
    "Ideo",
    "Join_Control",
    "Join_C",
    "Logical_Order_Exception",
    "LOE",
    "Lowercase",
    "Lower",
    "Math",
    "Pattern_Syntax",
    "Pat_Syn",
    "Pattern_White_Space",
    "Pat_WS",
    "Quotation_Mark",
    "QMark",
    "Radical",
    "Regional_Indicator",
    "RI",
    "Sentence_Terminal",
    "STerm",
    "Soft_Dotted",
    "SD",
    "Terminal_Punctuation",
    "Term",
    "Unified_Ideograph",
    "UIdeo",
    "Uppercase",
    "Upper",
    "Variation_Selector",
    "VS",
    "White_Space",
    "space",
    "XID_Continue",
    "XIDC",
    "XID_Start",
    "XIDS",
};

static bool is_property(const char *name)
{
    for (size_t i = 0; i < sizeof property / sizeof property[0]; i++)
        if (strcmp(name, property[i]) == 0)
            return true;
    return false;
}

/* The runs of code points from first to last that the code matches; the gap of the surrogates is none. */
static bool add_runs(struct points *points, const pcre2_code *code, uint32_t first, uint32_t last,
                     struct err *err)
{
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(code, NULL);
    uint8_t *text = malloc((size_t)(last - first + 1) * 4);
    size_t size = 0, at = 0;
    bool ok = match && text;

    if (!ok)
        dfa_no_memory(err);
    for (uint32_t c = first; ok && c <= last; c++)
        if (c < 0xd800 || c > 0xdfff)
            size += (size_t)utf8proc_encode_char((utf8proc_int32_t)c, text + size);
    while (ok && at < size && pcre2_match(code, text, size, at, PCRE2_NO_UTF_CHECK, match, NULL) > 0) {
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(match);

        at = found[1];
        ok = points_add(points, utf8_read(text + found[0]), utf8_read(text + utf8_before(text, found[1])),
                        err);
    }
    pcre2_match_data_free(match);
    free(text);
    return ok;
}

/* kind: "", "sc:" or "scx:".  False without an error set: PCRE2 does not know it. */
static bool add_matched(struct points *points, const char *kind, const char *name, bool *known,
                        struct err *err)
{
    char source[96];
    pcre2_code *code;
    PCRE2_SIZE at;
    int error;
    bool ok;

    snprintf(source, sizeof source, "\\p{%s%s}+", kind, name);
    code = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
    *known = code != NULL;
    /* Nothing else is assigned, see add_categories. */
    ok = code && add_runs(points, code, 0, 0x3ffff, err) && add_runs(points, code, 0xe0000, 0xe0fff, err);
    pcre2_code_free(code);
    return ok;
}

/* ---- by name -------------------------------------------------------------------------------------- */

static bool is_either(const char *word, const char *one, const char *other)
{
    return strcmp(word, one) == 0 || strcmp(word, other) == 0;
}

bool points_property(struct points *points, const char *name, const char *value, struct err *err)
{
    const char *wanted = value ? value : name;
    bool known = false, ok;

    dfa_count_steps(1 << 20); /* as long as it takes */
    if (!value || is_either(name, "General_Category", "gc"))
        for (size_t i = 0; i < sizeof category / sizeof category[0]; i++)
            if (is_either(wanted, category[i].name, category[i].long_name) ||
                (category[i].third_name && strcmp(wanted, category[i].third_name) == 0))
                return add_categories(points, category[i].categories, err);
    if (!value && strcmp(name, "Any") == 0)
        return points_add(points, 0, DFA_CODE_POINTS - 1, err);
    if (!value && strcmp(name, "ASCII") == 0)
        return points_add(points, 0, 0x7f, err);
    if (!value && strcmp(name, "Assigned") == 0)
        return add_categories(points, ~C(CN), err);
    if (!value && is_property(name)) {
        ok = add_matched(points, "", name, &known, err);
        if (known)
            return ok;
    }
    /* Those without a script would be all of the unassigned, too. */
    if (value && !is_either(value, "Unknown", "Zzzz")) {
        const char *kind = is_either(name, "Script", "sc")               ? "sc:"
                           : is_either(name, "Script_Extensions", "scx") ? "scx:"
                                                                         : NULL;

        ok = kind && add_matched(points, kind, value, &known, err);
        if (known)
            return ok;
    }
    return err_set(err, ERR_INPUT, "\\p{%s%s%s} is not known here", name, value ? "=" : "",
                   value ? value : "");
}
