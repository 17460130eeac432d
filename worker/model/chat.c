#include "worker/model/chat.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define END       "<｜end▁of▁sentence｜>"

enum { JINJA_MAX = 256 * 1024 };

/* A template of the family.  "{bos}" and "{eos}" stand for the tokenizer's own. */
struct form {
    const char *name;
    bool system_first; /* system texts stand in front of all turns; else where they were said */
    bool system_joins; /* with system_first: all of them with a blank line between; else the last */
    const char *system_after, *user_before, *user_after, *assistant_before, *assistant_after, *open;
    bool open_after_user; /* user_after has opened the assistant's turn already */
};

static const struct form forms[] = {
    { .name = "v2",
      .system_after = "\n\n",
      .user_before = "User: ",
      .user_after = "\n\n",
      .assistant_before = "Assistant: ",
      .assistant_after = "{eos}",
      .open = "Assistant:" },
    { .name = "v2.5",
      .system_first = true,
      .user_before = USER,
      .assistant_before = ASSISTANT,
      .assistant_after = END,
      .open = ASSISTANT },
    { .name = "v3",
      .system_first = true,
      .system_joins = true,
      .user_before = USER,
      .assistant_before = ASSISTANT,
      .assistant_after = END,
      .open = ASSISTANT },
    { .name = "v3-0324",
      .system_first = true,
      .system_joins = true,
      .user_before = USER,
      .user_after = ASSISTANT,
      .assistant_after = END,
      .open = ASSISTANT,
      .open_after_user = true },
};
enum { FORM_COUNT = sizeof forms / sizeof forms[0] };

struct chat {
    const struct form *form;
    const struct tokenizer *tokenizer;
};

/* ---- recognising a template by its text
 * ----------------------------------------------------------------------- */

/* What a template prints and decides, without what only lays it out: the tags one after another, white space
 * in them gone (not within quotes), "-" signs applied, quotes all single.  Text between tags that would be
 * printed stays.  Jinja's trim_blocks and lstrip_blocks are on, as transformers has them. */
static bool add_tag(struct buf *out, struct span tag)
{
    uint8_t quote = 0;

    for (size_t i = 0; i < tag.size; i++) {
        uint8_t c = tag.data[i];

        if (quote && c == '\\' && i + 1 < tag.size) {
            if (!buf_add(out, tag.data + i++, 2))
                return false;
            continue;
        }
        if (!quote && (c == ' ' || c == '\t' || c == '\n' || c == '\r'))
            continue;
        if (quote ? c == quote : c == '\'' || c == '"') {
            quote = quote ? 0 : c;
            c = '\'';
        }
        if (!(quote && c == '\n' ? buf_text(out, "\\n") : buf_add(out, &c, 1)))
            return false;
    }
    return true;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool compact(struct span jinja, struct buf *out)
{
    size_t at = 0;
    bool strip_next = false, after_block = false, fits = true;

    while (fits && at < jinja.size) {
        size_t open = at, from = at, to, close;
        const uint8_t *end;
        uint8_t kind;

        while (open + 1 < jinja.size &&
               !(jinja.data[open] == '{' && strchr("{%#", jinja.data[open + 1]) && jinja.data[open + 1]))
            open++;
        to = open = open + 1 < jinja.size ? open : jinja.size;
        if (strip_next)
            while (from < to && is_blank(jinja.data[from]))
                from++;
        else if (after_block && from < to && jinja.data[from] == '\n')
            from++;
        if (open == jinja.size)
            return buf_add(out, jinja.data + from, to - from - (to > from && jinja.data[to - 1] == '\n'));
        kind = jinja.data[open + 1];
        if (open + 2 < jinja.size && jinja.data[open + 2] == '-') {
            while (to > from && is_blank(jinja.data[to - 1]))
                to--;
        } else if (kind != '{') {
            size_t line = to;

            while (line > from && (jinja.data[line - 1] == ' ' || jinja.data[line - 1] == '\t'))
                line--;
            if (line == 0 || jinja.data[line - 1] == '\n')
                to = line;
        }
        fits = buf_add(out, jinja.data + from, to - from);
        end = memmem(jinja.data + open + 2, jinja.size - open - 2,
                     kind == '{'   ? "}}"
                     : kind == '%' ? "%}"
                                   : "#}",
                     2);
        if (!end)
            return false;
        close = (size_t)(end - jinja.data);
        at = close + 2;
        strip_next = close > open + 2 && jinja.data[close - 1] == '-';
        after_block = kind != '{';
        if (kind == '#')
            continue;
        from = open + 2 + (jinja.data[open + 2] == '-' || jinja.data[open + 2] == '+');
        to = close - (strip_next || jinja.data[close - 1] == '+');
        fits = fits && buf_add(out, jinja.data + open, 2) &&
               (from >= to || add_tag(out, span_of(jinja.data + from, to - from))) && buf_add(out, end, 2);
    }
    return fits;
}

/* Each must stand in the compact text after the one before. */
static bool holds(struct span text, const char *const *fragment)
{
    for (; *fragment; fragment++) {
        size_t size = strlen(*fragment);
        const uint8_t *at = memmem(text.data, text.size, *fragment, size);

        if (!at)
            return false;
        text.size -= (size_t)(at - text.data) + size;
        text.data = at + size;
    }
    return text.size == 0; /* the last fragment is the template's end */
}

#define DEFINED "{%ifnotadd_generation_promptisdefined%}{%setadd_generation_prompt=false%}{%endif%}"
#define SYSTEM_LAST                                                                                          \
    "{%ifmessage['role']=='system'%}{%setns.system_prompt=message['content']%}{%endif%}{%endfor%}"
/* As published, V2.5's prints its indentation: eight spaces before bos for each system message.  Nobody means
 * that, and they are left out here. */
#define SYSTEM_LAST_SPACED                                                                                   \
    "{%ifmessage['role']=='system'%}        {%setns.system_prompt=message['content']%}{%endif%}{%endfor%}"
#define SYSTEM_JOINED                                                                                        \
    "{%ifmessage['role']=='system'%}{%ifns.is_first_sp%}{%setns.system_prompt=ns.system_prompt+message['"    \
    "content']%}"                                                                                            \
    "{%setns.is_first_sp=false%}{%else%}{%setns.system_prompt=ns.system_prompt+'\\n\\n'+message['content']%" \
    "}"                                                                                                      \
    "{%endif%}{%endif%}{%endfor%}"
#define FRONT "{{bos_token}}{{ns.system_prompt}}{%formessageinmessages%}"
#define SAYS_USER                                                                                            \
    "{%ifmessage['role']=='user'%}{%setns.is_tool=false%}{{'" USER "'+message['content']}}{%endif%}"
#define SAYS_USER_0324                                                                                       \
    "{%ifmessage['role']=='user'%}{%setns.is_tool=false%}{%setns.is_first=false%}{%setns.is_last_user=true%" \
    "}{{'" USER "'+message['content']+'" ASSISTANT "'}}{%endif%}"
#define SAYS_ASSISTANT      "{%else%}{{'" ASSISTANT "'+message['content']+'" END "'}}{%endif%}{%endif%}"
#define SAYS_ASSISTANT_0324 "{%else%}{%setcontent=message['content']%}{{content+'" END "'}}{%endif%}{%endif%}"
#define OPENS               "{%ifadd_generation_promptandnotns.is_tool%}{{'" ASSISTANT "'}}{%endif%}"
#define OPENS_0324                                                                                           \
    "{%ifadd_generation_promptandnotns.is_last_userandnotns.is_tool%}{{'" ASSISTANT "'}}{%endif%}"

const char *chat_recognise(struct span jinja)
{
    static const char v2[] =
        "{{bos_token}}{%formessageinmessages%}{%ifmessage['role']=='user'%}{{'User: "
        "'+message['content']+'\\n\\n'}}"
        "{%elifmessage['role']=='assistant'%}{{'Assistant: '+message['content']+eos_token}}"
        "{%elifmessage['role']=='system'%}{{message['content']+'\\n\\n'}}{%endif%}{%endfor%}"
        "{%ifadd_generation_prompt%}{{'Assistant:'}}{%endif%}";
    /* Between these stand the branches for tools, which no conversation here reaches. */
    static const char *const v25[] = { SYSTEM_LAST, FRONT, SAYS_USER, SAYS_ASSISTANT, OPENS, NULL };
    static const char *const v25_spaced[] = { SYSTEM_LAST_SPACED, FRONT, SAYS_USER,
                                              SAYS_ASSISTANT,     OPENS, NULL };
    static const char *const v3[] = { SYSTEM_JOINED, FRONT, SAYS_USER, SAYS_ASSISTANT, OPENS, NULL };
    static const char *const v3_0324[] = { SYSTEM_JOINED,       FRONT,      SAYS_USER_0324,
                                           SAYS_ASSISTANT_0324, OPENS_0324, NULL };
    struct buf text = { .max = JINJA_MAX };
    const char *name = NULL;

    if (jinja.size <= JINJA_MAX && compact(jinja, &text)) {
        struct span rest = buf_span(&text);

        if (rest.size >= strlen(DEFINED) && memcmp(rest.data, DEFINED, strlen(DEFINED)) == 0) {
            rest.data += strlen(DEFINED);
            rest.size -= strlen(DEFINED);
        }
        if (span_equal(rest, span_text(v2)))
            name = "v2";
        else if (rest.size == 0 || memmem(rest.data, rest.size, "think", 5))
            name = NULL; /* R1 and V3.1 have the same bones and print more */
        else if (holds(rest, v25) || holds(rest, v25_spaced))
            name = "v2.5";
        else if (holds(rest, v3))
            name = "v3";
        else if (holds(rest, v3_0324))
            name = "v3-0324";
    }
    buf_fini(&text);
    return name;
}

/* ---- loading
 * ---------------------------------------------------------------------------------------------------- */

static json_t *load_config(const char *path)
{
    json_error_t fault;

    return json_load_file(path, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
}

/* The template's text: a reference in *config, or bytes in *file.  A span of size 0 when there is none. */
static struct span find_template(const char *dir, json_t **config, struct buf *file)
{
    char path[4096], chunk[4096];
    const json_t *v, *item;
    size_t i, n;
    FILE *f;

    if ((size_t)snprintf(path, sizeof path, "%s/chat_template.jinja", dir) >= sizeof path)
        return span_of(NULL, 0);
    f = fopen(path, "re");
    if (f) {
        while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && buf_add(file, chunk, n))
            continue;
        fclose(f);
        return buf_span(file);
    }
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    *config = load_config(path);
    v = json_object_get(*config, "chat_template");
    if (json_is_array(v)) {
        const json_t *only =
            json_array_size(v) == 1 ? json_object_get(json_array_get(v, 0), "template") : NULL;

        json_array_foreach(v, i, item)
        {
            const char *name = json_string_value(json_object_get(item, "name"));

            if (name && strcmp(name, "default") == 0)
                only = json_object_get(item, "template");
        }
        v = only;
    }
    return json_is_string(v) ? span_of(json_string_value(v), json_string_length(v)) : span_of(NULL, 0);
}

static bool choose(const char **name, const char *dir, struct err *err)
{
    struct buf file = { .max = JINJA_MAX };
    json_t *config = NULL;
    struct span jinja = find_template(dir, &config, &file);

    *name = jinja.size ? chat_recognise(jinja) : NULL;
    if (!*name)
        err_set(err, ERR_INPUT, "%s: %s; choose one with --chat-template v2|v2.5|v3|v3-0324", dir,
                jinja.size ? "the model's chat template is not one of those known here"
                           : "the model has no chat template");
    json_decref(config);
    buf_fini(&file);
    return *name != NULL;
}

static bool need(const struct tokenizer *tokenizer, const struct form *form, const char *text,
                 struct err *err)
{
    return tokenizer_added(tokenizer, span_text(text)) >= 0 ||
           err_set(err, ERR_INPUT, "chat template %s needs the token %s, which the tokenizer does not have",
                   form->name, text);
}

bool chat_load(struct chat **out, const struct tokenizer *tokenizer, const char *dir,
               const char *template_name, struct err *err)
{
    const struct form *form = NULL;
    struct chat *chat;

    *out = NULL;
    if (!template_name && !choose(&template_name, dir, err))
        return false;
    for (int i = 0; i < FORM_COUNT; i++)
        if (strcmp(forms[i].name, template_name) == 0)
            form = &forms[i];
    if (!form)
        return err_set(err, ERR_INPUT, "chat template `%s` is not known; expected v2, v2.5, v3 or v3-0324",
                       template_name);
    if (tokenizer_bos(tokenizer) < 0 || tokenizer_eos(tokenizer) < 0)
        return err_set(err, ERR_INPUT,
                       "chat template %s needs bos_token and eos_token in tokenizer_config.json", form->name);
    if (form->system_first && !(need(tokenizer, form, USER, err) && need(tokenizer, form, ASSISTANT, err) &&
                                need(tokenizer, form, END, err)))
        return false;
    chat = calloc(1, sizeof *chat);
    if (!chat)
        return err_set(err, ERR_IO, "out of memory");
    chat->form = form;
    chat->tokenizer = tokenizer;
    *out = chat;
    return true;
}

void chat_free(struct chat *chat)
{
    free(chat);
}

const char *chat_name(const struct chat *chat)
{
    return chat->form->name;
}

/* ---- rendering
 * ----------------------------------------------------------------------------------------------------- */

struct parts {
    const struct chat *chat;
    struct text_part *part;
    size_t count;
};

/* Fixed text; NULL adds nothing. */
static void fixed(struct parts *parts, const char *text)
{
    const struct tokenizer *t = parts->chat->tokenizer;

    if (!text)
        return;
    parts->part[parts->count++] = (struct text_part){
        strcmp(text, "{bos}") == 0   ? tokenizer_bytes(t, tokenizer_bos(t))
        : strcmp(text, "{eos}") == 0 ? tokenizer_bytes(t, tokenizer_eos(t))
                                     : span_text(text),
        ADDED_ALL,
    };
}

static void said(struct parts *parts, struct span content)
{
    parts->part[parts->count++] = (struct text_part){ content, ADDED_PLAIN };
}

static void put_system(struct parts *parts, const struct chat_message *message, size_t count)
{
    size_t last = SIZE_MAX;
    bool any = false;

    for (size_t i = 0; i < count; i++)
        if (message[i].role == CHAT_SYSTEM)
            last = i;
    for (size_t i = 0; i < count; i++) {
        if (message[i].role != CHAT_SYSTEM || (!parts->chat->form->system_joins && i != last))
            continue;
        fixed(parts, any ? "\n\n" : NULL);
        said(parts, message[i].content);
        any = true;
    }
}

bool chat_render(const struct chat *chat, const struct chat_message *message, size_t message_count,
                 struct ids *ids, struct err *err)
{
    const struct form *form = chat->form;
    struct parts parts = { .chat = chat, .part = calloc(message_count * 3 + 2, sizeof *parts.part) };
    bool opened = false, ok;

    if (!parts.part)
        return err_set(err, ERR_IO, "out of memory");
    fixed(&parts, "{bos}");
    if (form->system_first)
        put_system(&parts, message, message_count);
    for (size_t i = 0; i < message_count; i++) {
        switch (message[i].role) {
        case CHAT_SYSTEM:
            if (!form->system_first) {
                said(&parts, message[i].content);
                fixed(&parts, form->system_after);
            }
            break;
        case CHAT_USER:
            fixed(&parts, form->user_before);
            said(&parts, message[i].content);
            fixed(&parts, form->user_after);
            opened = form->open_after_user;
            break;
        case CHAT_ASSISTANT:
            fixed(&parts, form->assistant_before);
            said(&parts, message[i].content);
            fixed(&parts, form->assistant_after);
            opened = false;
            break;
        }
    }
    if (!opened)
        fixed(&parts, form->open);
    ok = tokenizer_encode_parts(chat->tokenizer, parts.part, parts.count, ids, err);
    free(parts.part);
    return ok || err_wrap(err, "chat template %s", form->name);
}
