#include "base/manual.h"

#include <ctype.h>
#include <string.h>

/* ---- --help ------------------------------------------------------------------------------------- */

enum { FLAG_MAX = 64 };

/* "lease_ms" as "lease-ms". */
static const char *flag_of(char flag[FLAG_MAX], const struct field *field)
{
    size_t n = 0;

    for (const char *c = field->key; *c && n < FLAG_MAX - 1; c++)
        flag[n++] = *c == '_' ? '-' : *c;
    flag[n] = '\0';
    return flag;
}

static void name_of(char *name, size_t size, const struct manual *manual, char between)
{
    if (manual->verb)
        snprintf(name, size, "%s%c%s", manual->program, between, manual->verb);
    else
        snprintf(name, size, "%s", manual->program);
}

void manual_help(const struct manual *manual, FILE *file)
{
    char name[128], flag[FLAG_MAX];

    name_of(name, sizeof name, manual, ' ');
    fprintf(file, "%s - %s\n\n    %s %s\n\n", name, manual->what, name, manual->words);
    for (int i = 0; i < manual->field_count; i++)
        fprintf(file, "    --%-15s %s\n", flag_of(flag, &manual->fields[i]), manual->fields[i].help);
    if (manual->field_count)
        fputs("\n", file);
    if (manual->keys)
        fputs(
            "Every flag is also a key of the file that --config names (with _ for -), and overrides it.\n\n",
            file);
    if (manual->more)
        fprintf(file, "%s\n\n", manual->more);
    if (manual->keys && manual->status) /* a verb's is what all verbs have in common */
        fprintf(file, "Exit status: %s\n\n", manual->status);
    fputs("Example:\n", file);
    for (const char *line = manual->example; *line;) {
        size_t n = strcspn(line, "\n");

        fprintf(file, "    %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

/* ---- the manual page ------------------------------------------------------------------------------- */

/* Text that groff shall show as it is.  A quote is written as groff's name for it, so that it may stand in an
 * argument of a macro. */
static void put(FILE *file, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((i == 0 || text[i - 1] == '\n') && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", file);
        switch (text[i]) {
        case '\\':
            fputs("\\e", file);
            break;
        case '-':
            fputs("\\-", file);
            break;
        case '"':
            fputs("\\(dq", file);
            break;
        case '`':
            fputs("\\(ga", file);
            break;
        case '\'':
            fputs("\\(aq", file);
            break;
        case '^':
            fputs("\\(ha", file);
            break;
        case '~':
            fputs("\\(ti", file);
            break;
        default:
            fputc(text[i], file);
        }
    }
}

static void put_text(FILE *file, const char *text)
{
    put(file, text, strlen(text));
}

/* Lines that end a sentence or a part of one stay lines, others are filled; spaces at the front of one go. */
static void put_lines(FILE *file, const char *text)
{
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n"), front = strspn(line, " ");

        front = front < n ? front : n;
        put(file, line + front, n - front);
        fputc('\n', file);
        line += n + (line[n] == '\n');
        if (*line && n && strchr(".:;", line[-2]))
            fputs(".br\n", file);
    }
}

static void put_upper(FILE *file, const char *text)
{
    for (; *text; text++) {
        if (*text == '-')
            fputc('\\', file);
        fputc(toupper((unsigned char)*text), file);
    }
}

static void page_begin(const struct manual *manual, FILE *file)
{
    char name[128];

    name_of(name, sizeof name, manual, '-');
    fputs(".TH ", file);
    put_upper(file, name);
    fputs(" 1 \"\" \"Moothall " MOOTHALL_VERSION "\" \"Moothall\"\n.SH NAME\n", file);
    put_text(file, name);
    fputs(" \\- ", file);
    put_text(file, manual->what);
    fputs("\n.SH SYNOPSIS\n.B ", file);
    name_of(name, sizeof name, manual, ' ');
    put_text(file, name);
    fputs("\n", file);
    put_text(file, manual->words);
    fputs("\n", file);
}

static void page_end(const struct manual *manual, const char *see_also, FILE *file)
{
    if (manual->status) {
        fputs(".SH EXIT STATUS\n", file);
        put_lines(file, manual->status);
    }
    fputs(".SH EXAMPLE\n.nf\n", file);
    put_text(file, manual->example);
    fputs("\n.fi\n.SH SEE ALSO\n", file);
    put_lines(file, see_also);
}

static void page_option(const struct manual *manual, const struct field *field, FILE *file)
{
    static const char *const kinds[] = { "TEXT", "NUMBER", "BYTES", "DURATION" };
    char flag[FLAG_MAX];

    fputs(".TP\n.B \\-\\-", file);
    put_text(file, flag_of(flag, field));
    if (field->kind == FIELD_CHOICE) {
        fputs(" ", file);
        for (int i = 0; field->choices[i]; i++) {
            fputs(i ? "|" : "", file);
            put_text(file, field->choices[i]);
        }
    } else if (field->kind != FIELD_BOOL) {
        fprintf(file, " \\fI%s\\fR", kinds[field->kind]);
    }
    fputs("\n", file);
    put_text(file, field->help);
    if (field->kind == FIELD_INT && field->low >= 0 && field->high < INT64_C(1) << 40)
        fprintf(file, "; %lld to %lld", (long long)field->low, (long long)field->high);
    fputs(".\n", file);
    if (manual->keys) {
        fputs("In the file: ", file);
        put_text(file, field->key);
        fputs(".\n", file);
    }
}

void manual_page(const struct manual *manual, const char *see_also, FILE *file)
{
    page_begin(manual, file);
    if (manual->more || manual->keys) {
        fputs(".SH DESCRIPTION\n", file);
        if (manual->more)
            put_lines(file, manual->more);
        if (manual->keys)
            fputs(".PP\nEvery option is also a key of the YAML file that \\-\\-config names, and overrides "
                  "it.\n",
                  file);
    }
    fputs(".SH OPTIONS\n", file);
    for (int i = 0; i < manual->field_count; i++)
        page_option(manual, &manual->fields[i], file);
    fputs(".TP\n.B \\-\\-help\nA short form of this page.\n", file);
    page_end(manual, see_also, file);
}

void manual_page_of_verbs(const struct manual *manual, const struct manual *verbs, int verb_count, FILE *file)
{
    page_begin(manual, file);
    fputs(".SH VERBS\n", file);
    for (int i = 0; i < verb_count; i++) {
        fputs(".TP\n.B ", file);
        put_text(file, verbs[i].verb);
        fputs("\n", file);
        put_text(file, verbs[i].what);
        fputs(".\n", file);
    }
    fputs(".SH OPTIONS\n.TP\n.B \\-\\-help\nWhat there is; after a verb, its flags and an example.\n"
          ".TP\n.B \\-\\-version\nThe version.\n",
          file);
    if (manual->more) {
        fputs(".SH NOTES\n", file);
        put_lines(file, manual->more);
    }
    if (manual->status) {
        fputs(".SH EXIT STATUS\n", file);
        put_lines(file, manual->status);
    }
    fputs(".SH EXAMPLE\n.nf\n", file);
    put_text(file, manual->example);
    fputs("\n.fi\n.SH SEE ALSO\n", file);
    for (int i = 0; i < verb_count; i++) {
        fputs(".BR ", file);
        put_text(file, verbs[i].program);
        fputs("\\-", file);
        put_text(file, verbs[i].verb);
        fputs(" (1),\n", file);
    }
    fputs(".BR moothall\\-broker (1),\n.BR moothall\\-worker (1)\n", file);
}

/* ---- completion -------------------------------------------------------------------------------------- */

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(word, *words))
            return true;
    return false;
}

/* What may stand after the flag, as an action of the shell. */
static void complete_value(const struct manual *manual, const struct field *field, FILE *file)
{
    static const char *const directories[] = { "model", "state", NULL };
    static const char *const names[] = { "broker", "queue",    "batch",      "consumer",    "listen",
                                         "name",   "family",   "exchange",   "length",      "language",
                                         "reason", "deadline", "not_before", "instruction", "older_than",
                                         "only",   "merge",    "temperature", NULL };
    char flag[FLAG_MAX];

    if (field->kind == FIELD_BOOL)
        return;
    fprintf(file, "    '%s%s--%s') ", manual->verb ? manual->verb : "", manual->verb ? " " : "",
            flag_of(flag, field));
    if (field->kind == FIELD_CHOICE) {
        fputs("COMPREPLY=($(compgen -W '", file);
        for (int i = 0; field->choices[i]; i++)
            fprintf(file, "%s%s", i ? " " : "", field->choices[i]);
        fputs("' -- \"$cur\")); return ;;\n", file);
    } else if (field->kind == FIELD_TEXT && !is_one_of(field->key, names)) {
        fprintf(file, "mapfile -t COMPREPLY < <(compgen -%c -- \"$cur\"); return ;;\n",
                is_one_of(field->key, directories) ? 'd' : 'f');
    } else {
        fputs("return ;;\n", file);
    }
}

void manual_completion(const struct manual *verbs, int verb_count, FILE *file)
{
    const char *program = verbs[0].program;
    char function[64] = "_", flag[FLAG_MAX];
    size_t n = 1;

    for (const char *c = program; *c && n < sizeof function - 1; c++)
        function[n++] = *c == '-' ? '_' : *c;
    function[n] = '\0';
    fprintf(file, "# bash completion for %s; generated from the tables that read its flags\n", program);
    fprintf(file,
            "%s()\n{\n"
            "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} flags=''\n"
            "    COMPREPLY=()\n"
            "    # bash takes --flag=value apart\n"
            "    if [[ $cur == = ]]; then cur=''\n"
            "    elif [[ $prev == = && COMP_CWORD -gt 1 ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}\n"
            "    fi\n",
            function);
    if (verbs[0].verb) {
        fputs("    if [[ COMP_CWORD -eq 1 ]]; then\n        COMPREPLY=($(compgen -W '", file);
        for (int i = 0; i < verb_count; i++)
            fprintf(file, "%s ", verbs[i].verb);
        fputs("--help --version' -- \"$cur\"))\n        return\n    fi\n"
              "    [[ $prev == -o ]] && prev=--output\n"
              "    case \"${COMP_WORDS[1]} $prev\" in\n",
              file);
    } else {
        fputs("    case \"$prev\" in\n", file);
    }
    for (int i = 0; i < verb_count; i++)
        for (int j = 0; j < verbs[i].field_count; j++)
            complete_value(&verbs[i], &verbs[i].fields[j], file);
    fputs("    esac\n", file);
    if (verbs[0].verb)
        fputs("    case \"${COMP_WORDS[1]}\" in\n", file);
    for (int i = 0; i < verb_count; i++) {
        if (verbs[i].verb)
            fprintf(file, "    %s) flags='", verbs[i].verb);
        else
            fputs("    flags='", file);
        for (int j = 0; j < verbs[i].field_count; j++)
            fprintf(file, "--%s ", flag_of(flag, &verbs[i].fields[j]));
        fprintf(file, "--help%s'%s\n", verbs[i].verb ? "" : " --version", verbs[i].verb ? " ;;" : "");
    }
    if (verbs[0].verb)
        fputs("    esac\n", file);
    fprintf(file,
            "    if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n"
            "    else mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
            "    fi\n}\n"
            "complete -o filenames -F %s %s\n",
            function, program);
}
