#include "client/documents.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "client/encoding.h"
#include "client/files.h"
#include "client/stop.h"
#include "client/table.h"
#include "client/template.h"
#include "client/unicode.h"

enum {
    BLOCK = 64 * 1024, /* bytes read at once */
    NEAR = 4096,       /* bytes before a fault that are looked at to tell the encoding */
    DEPTH_MAX = 256,   /* directories within each other */
};

enum table_kind { NO_TABLE, TABLE_CSV, TABLE_TSV, TABLE_JSONL };

/* What a file is by stat: while it is the same, its bytes are. */
struct snapshot {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
};

struct file {
    const char *path; /* the true bytes; NULL: documents.standard */
    const char *name; /* for a person */
    const char *why;  /* not NULL: it failed while it was listed */
    json_t *columns;  /* of a table with a header */
    struct snapshot snapshot;
    bool known; /* snapshot is set */
    uint8_t kind;
};

struct entry {
    uint32_t file;
    uint32_t row;    /* 0: the whole file */
    uint64_t offset; /* of the row */
    uint32_t size;   /* of the row, at most DOCUMENT_ROW_MAX + 1 */
    uint32_t line;   /* where it begins */
    const char *name;
    bool digested;
    uint8_t digest[DOCUMENT_DIGEST_SIZE];
};

struct identity {
    uint64_t dev, ino; /* both 0: free */
};

struct documents {
    struct arena arena; /* names */
    struct file *file;
    size_t file_count, file_capacity;
    struct entry *entry;
    size_t count, capacity;
    struct identity *seen; /* files and directories, open addressing */
    size_t seen_count, seen_capacity;
    struct template *template;
    const char *spool;
    int standard; /* where standard input can be read again, or -1 */
    bool named;   /* the word that is being listed named something */
};

static bool no_memory(struct err *err)
{
    return err_set(err, ERR_IO, "no memory for the list of documents");
}

/* ---- the list
 * ---------------------------------------------------------------------------------------------- */

static size_t seen_place(const struct documents *d, uint64_t dev, uint64_t ino)
{
    size_t at = (size_t)((ino * 0x9e3779b97f4a7c15u) ^ (dev * 0xc2b2ae3d27d4eb4fu)) & (d->seen_capacity - 1);

    while ((d->seen[at].dev || d->seen[at].ino) && (d->seen[at].dev != dev || d->seen[at].ino != ino))
        at = (at + 1) & (d->seen_capacity - 1);
    return at;
}

/* *before: it was there already. */
static bool seen_add(struct documents *d, const struct stat *st, bool *before, struct err *err)
{
    size_t at;

    if (d->seen_count * 2 >= d->seen_capacity) {
        struct identity *old = d->seen;
        size_t old_capacity = d->seen_capacity;

        d->seen = calloc(old_capacity ? old_capacity * 2 : 1024, sizeof *d->seen);
        if (!d->seen) {
            d->seen = old;
            return no_memory(err);
        }
        d->seen_capacity = old_capacity ? old_capacity * 2 : 1024;
        for (size_t i = 0; i < old_capacity; i++)
            if (old[i].dev || old[i].ino)
                d->seen[seen_place(d, old[i].dev, old[i].ino)] = old[i];
        free(old);
    }
    at = seen_place(d, st->st_dev, st->st_ino);
    *before = d->seen[at].dev || d->seen[at].ino;
    if (!*before) {
        d->seen[at] = (struct identity){ st->st_dev, st->st_ino };
        d->seen_count++;
    }
    return true;
}

/* Bytes that are not UTF-8 become U+FFFD. */
static const char *readable_name(struct arena *arena, const char *path)
{
    struct buf name = { 0 };
    size_t size = strlen(path);
    const char *made = path;

    if (span_is_utf8(span_of(path, size)))
        return path;
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t n = unicode_read((const uint8_t *)path + i, size - i, &c, NULL);

        if (!(n ? buf_add(&name, path + i, n) : buf_text(&name, "\xef\xbf\xbd"))) {
            buf_fini(&name);
            return NULL;
        }
        i += n ? n : 1;
    }
    made = arena_copy(arena, name.data, name.size);
    buf_fini(&name);
    return made;
}

static bool add_entry(struct documents *d, struct entry entry, struct err *err)
{
    if (d->count == DOCUMENTS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d documents; give some of the files to another run",
                       DOCUMENTS_MAX);
    if (d->count == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 256;
        struct entry *grown = realloc(d->entry, capacity * sizeof *grown);

        if (!grown)
            return no_memory(err);
        d->entry = grown;
        d->capacity = capacity;
    }
    d->entry[d->count++] = entry;
    d->named = true;
    return true;
}

static bool list_rows(struct documents *d, struct err *err);

static enum table_kind kind_by_name(const char *path)
{
    const char *dot = strrchr(path, '.');

    if (!dot)
        return NO_TABLE;
    if (!strcasecmp(dot, ".csv"))
        return TABLE_CSV;
    if (!strcasecmp(dot, ".tsv") || !strcasecmp(dot, ".tab"))
        return TABLE_TSV;
    return !strcasecmp(dot, ".jsonl") || !strcasecmp(dot, ".ndjson") ? TABLE_JSONL : NO_TABLE;
}

/* path NULL: standard input.  why: NULL, or what is known to be wrong with it. */
static bool add_file(struct documents *d, const char *path, const char *why, uint64_t size, struct err *err)
{
    struct file *file;

    if (d->file_count == d->file_capacity) {
        size_t capacity = d->file_capacity ? d->file_capacity * 2 : 256;
        struct file *grown = realloc(d->file, capacity * sizeof *grown);

        if (!grown)
            return no_memory(err);
        d->file = grown;
        d->file_capacity = capacity;
    }
    file = &d->file[d->file_count];
    memset(file, 0, sizeof *file);
    if (path && !(path = arena_copy(&d->arena, path, strlen(path))))
        return no_memory(err);
    if (why && !(why = arena_copy(&d->arena, why, strlen(why))))
        return no_memory(err);
    file->path = path;
    file->why = why;
    file->name = path ? readable_name(&d->arena, path) : "-";
    if (!file->name)
        return no_memory(err);
    d->file_count++;
    if (d->template && !why) {
        file->kind = path ? (uint8_t)kind_by_name(path) : NO_TABLE;
        if (path && file->kind == NO_TABLE)
            file->why = "not a table by its name; with a template, expected .csv, .tsv or .jsonl";
        else
            return list_rows(d, err);
    }
    return add_entry(d,
                     (struct entry){ .file = (uint32_t)(d->file_count - 1),
                                     .size = size < UINT32_MAX ? (uint32_t)size : UINT32_MAX,
                                     .name = file->name },
                     err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a directory, in order; those with a dot in front only when `dots`.  False with errno set. */
static bool list_names(const char *path, bool dots, char ***names, size_t *count)
{
    size_t capacity = 0;
    struct dirent *one;
    DIR *dir = opendir(path);
    int why;

    *names = NULL;
    *count = 0;
    if (!dir)
        return false;
    errno = 0;
    while ((one = readdir(dir))) {
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, "..") || (one->d_name[0] == '.' && !dots))
            continue;
        if (*count == capacity) {
            char **grown = realloc(*names, (capacity = capacity ? capacity * 2 : 64) * sizeof *grown);

            if (!grown)
                break;
            *names = grown;
        }
        if (!((*names)[*count] = strdup(one->d_name)))
            break;
        ++*count;
        errno = 0;
    }
    why = errno;
    closedir(dir);
    if (why) {
        for (size_t i = 0; i < *count; i++)
            free((*names)[i]);
        free(*names);
        errno = why;
        return false;
    }
    if (*count)
        qsort(*names, *count, sizeof **names, by_name);
    return true;
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static bool append_name(struct buf *path, const char *name)
{
    bool slash = path->size && path->data[path->size - 1] != '/';

    return buf_reserve(path, strlen(name) + 2) && (!slash || buf_text(path, "/")) &&
           buf_add(path, name, strlen(name) + 1) && path->size--; /* terminated, the end not counted */
}

static void cut_path(struct buf *path, size_t size)
{
    path->size = size;
    path->data[size] = '\0';
}

static bool walk(struct documents *d, struct buf *path, int depth, struct err *err);

/* One thing by its path.  named: by a word or a glob; else met in a directory. */
static bool add_path(struct documents *d, struct buf *path, bool named, int depth, struct err *err)
{
    const char *p = (const char *)path->data;
    char why[200] = "";
    struct stat st;
    bool before = false, is_link = lstat(p, &st) == 0 && S_ISLNK(st.st_mode);

    if (stat(p, &st) != 0) {
        /* A link to nothing, or what may not be looked at: it was named, or stands there, so it is a document
         * that cannot be had. */
        snprintf(why, sizeof why, "%s", is_link && errno == ENOENT ? "a link to nothing" : strerror(errno));
        return (!named && d->template) || add_file(d, p, why, 0, err);
    }
    if (S_ISDIR(st.st_mode) && is_link && !named)
        return true;
    if (!named && d->template && S_ISREG(st.st_mode) && kind_by_name(p) == NO_TABLE)
        return true;
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
        if (!seen_add(d, &st, &before, err))
            return false;
        if (before)
            return d->named = true;
    }
    if (S_ISDIR(st.st_mode))
        return walk(d, path, depth, err);
    if (!S_ISREG(st.st_mode)) {
        if (!named && d->template)
            return true;
        snprintf(why, sizeof why, "%s, not a file%s",
                 S_ISFIFO(st.st_mode)   ? "a pipe"
                 : S_ISSOCK(st.st_mode) ? "a socket"
                                        : "a device",
                 named ? " (standard input is -)" : "");
    }
    return add_file(d, p, *why ? why : NULL, (uint64_t)st.st_size, err);
}

static bool walk(struct documents *d, struct buf *path, int depth, struct err *err)
{
    size_t size = path->size, count;
    char **names;
    bool ok = true;

    if (!stop_check(err))
        return false;
    if (depth == DEPTH_MAX)
        return add_file(d, (const char *)path->data, "a directory within too many others, which was not read",
                        0, err);
    if (!list_names((const char *)path->data, false, &names, &count)) {
        char why[200];

        snprintf(why, sizeof why, "the directory cannot be read: %s", strerror(errno));
        return add_file(d, (const char *)path->data, why, 0, err);
    }
    for (size_t i = 0; ok && i < count; i++) {
        ok = append_name(path, names[i]) ? add_path(d, path, false, depth + 1, err) : no_memory(err);
        cut_path(path, size);
    }
    free_names(names, count);
    return ok;
}

/* ---- globs
 * -------------------------------------------------------------------------------------------------- */

static bool has_magic(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (strchr("*?[", text[i]))
            return true;
    return false;
}

static bool is_directory(const char *path, bool follow)
{
    struct stat st;

    return (follow ? stat(path, &st) : lstat(path, &st)) == 0 && S_ISDIR(st.st_mode);
}

/* path: what has been matched; pattern: what is left. */
static bool match_glob(struct documents *d, struct buf *path, const char *pattern, int depth, struct err *err)
{
    size_t size = path->size, length, count;
    char part[DOCUMENT_NAME_MAX];
    const char *rest;
    char **names;
    bool ok = true, deep;

    while (*pattern == '/' && size)
        pattern++;
    if (*pattern == '/') {
        if (!buf_add(path, "/", 2))
            return no_memory(err);
        path->size--;
        ok = match_glob(d, path, pattern + 1, depth, err);
        cut_path(path, size);
        return ok;
    }
    if (!*pattern)
        return add_path(d, path, true, 0, err);
    if (depth == DEPTH_MAX)
        return true;
    length = strcspn(pattern, "/");
    rest = pattern + length;
    deep = length == 2 && !memcmp(pattern, "**", 2);
    if (deep) {
        while (!strncmp(rest, "/**", 3) && (rest[3] == '/' || !rest[3])) /* twice is the same as once */
            rest += 3;
        if (size && !match_glob(d, path, rest, depth + 1, err))
            return false;
        if (!size && *rest && !match_glob(d, path, rest + 1, depth + 1, err))
            return false;
    }
    snprintf(part, sizeof part, "%.*s", (int)length, pattern);
    if (!deep && !has_magic(part, length)) {
        struct stat st;

        if (!append_name(path, part))
            return no_memory(err);
        if (lstat((const char *)path->data, &st) == 0)
            ok = match_glob(d, path, rest, depth + 1, err);
        cut_path(path, size);
        return ok;
    }
    if (!stop_check(err))
        return false;
    if (!list_names(size ? (const char *)path->data : ".", part[0] == '.', &names, &count))
        return true; /* as a shell has it: what cannot be read matches nothing */
    for (size_t i = 0; ok && i < count; i++) {
        if (fnmatch(deep ? "*" : part, names[i], FNM_PERIOD) != 0)
            continue;
        if (!append_name(path, names[i])) {
            ok = no_memory(err);
        } else if (deep) {
            if (is_directory((const char *)path->data, false))
                ok = match_glob(d, path, pattern, depth + 1, err);
            else if (!*rest) /* "dir/ **" at the end is all that is in it */
                ok = add_path(d, path, true, 0, err);
        } else if (!*rest || is_directory((const char *)path->data, true)) {
            ok = match_glob(d, path, rest, depth + 1, err);
        }
        cut_path(path, size);
    }
    free_names(names, count);
    return ok;
}

/* ---- standard input
 * ----------------------------------------------------------------------------------------- */

static bool take_standard_input(struct documents *d, struct err *err)
{
    struct stat st;
    char *block = NULL;
    int to = -1;
    bool ok = false;

    if (d->standard >= 0)
        return true;
    if (fstat(STDIN_FILENO, &st) != 0)
        return err_errno(err, "standard input");
    if (S_ISREG(st.st_mode) && lseek(STDIN_FILENO, 0, SEEK_CUR) == 0) {
        d->standard = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
        return d->standard >= 0 || err_errno(err, "standard input");
    }
    if (S_ISDIR(st.st_mode))
        return err_set(err, ERR_INPUT, "standard input is a directory; expected text");
    if (d->spool) {
        to = open(d->spool, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    } else {
        char name[] = "/tmp/moothall-input-XXXXXX";

        to = mkostemp(name, O_CLOEXEC);
        if (to >= 0)
            unlink(name);
    }
    if (to < 0)
        return err_errno(err, "make a copy of standard input%s%s", d->spool ? ": " : "",
                         d->spool ? d->spool : "");
    block = malloc(BLOCK);
    if (!block) {
        no_memory(err);
        goto out;
    }
    for (;;) {
        ssize_t n = read(STDIN_FILENO, block, BLOCK);

        if (!stop_check(err))
            goto out;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(err, "read standard input");
            goto out;
        }
        if (n == 0)
            break;
        if (!file_write_all(to, span_of(block, (size_t)n), "the copy of standard input", err))
            goto out;
    }
    d->standard = to;
    to = -1;
    ok = true;
out:
    free(block);
    if (to >= 0)
        close(to);
    return ok;
}

static bool add_word(struct documents *d, const char *word, struct err *err)
{
    struct buf path = { 0 };
    struct stat st;
    bool ok;

    d->named = false;
    if (!strcmp(word, "-")) {
        for (size_t i = 0; i < d->file_count; i++)
            if (!d->file[i].path)
                return true;
        return take_standard_input(d, err) && add_file(d, NULL, NULL, 0, err);
    }
    if (strlen(word) >= DOCUMENT_NAME_MAX)
        return err_set(err, ERR_INPUT, "the name %.100s... has more than %d bytes", word,
                       DOCUMENT_NAME_MAX - 1);
    if (!*word)
        return err_set(err, ERR_INPUT, "an empty word; expected a file, a directory, a glob or -");
    if (lstat(word, &st) == 0 || !has_magic(word, strlen(word))) {
        if (lstat(word, &st) != 0 && (errno == ENOENT || errno == ENOTDIR))
            return err_set(err, ERR_NOT_FOUND, "there is no file or directory %.300s", word);
        ok = append_name(&path, word) ? add_path(d, &path, true, 0, err) : no_memory(err);
    } else {
        /* An empty path, terminated. */
        ok = buf_add(&path, "", 1) ? (path.size--, match_glob(d, &path, word, 0, err)) : no_memory(err);
        if (ok && !d->named)
            ok = err_set(err, ERR_NOT_FOUND, "no file matches %.300s", word);
    }
    buf_fini(&path);
    if (ok && !d->named)
        return err_set(err, ERR_NOT_FOUND, "there are no %s in %.300s",
                       d->template ? "rows of tables" : "files", word);
    return ok;
}

bool documents_open(struct documents **documents, const struct documents_config *config, struct err *err)
{
    struct documents *d = calloc(1, sizeof *d);

    if (!d)
        return no_memory(err);
    d->standard = -1;
    d->spool = config->spool;
    arena_init(&d->arena, 0);
    if (config->template && !template_new(&d->template, config->template, err))
        goto failed;
    for (int i = 0; i < config->word_count; i++)
        if (!add_word(d, config->word[i], err))
            goto failed;
    *documents = d;
    return true;
failed:
    documents_close(d);
    return false;
}

void documents_close(struct documents *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->file_count; i++)
        json_decref(d->file[i].columns);
    if (d->standard >= 0)
        close(d->standard);
    template_free(d->template);
    arena_fini(&d->arena);
    free(d->file);
    free(d->entry);
    free(d->seen);
    free(d);
}

size_t documents_count(const struct documents *d)
{
    return d->count;
}

const char *documents_name(const struct documents *d, size_t index)
{
    assert(index < d->count);
    return d->entry[index].name;
}

/* ---- a file, opened and known again
 * -------------------------------------------------------------------------- */

static struct snapshot snapshot_of(const struct stat *st)
{
    return (struct snapshot){ st->st_dev, st->st_ino, st->st_size, st->st_mtim };
}

static bool same_snapshot(const struct snapshot *a, const struct snapshot *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
           a->mtime.tv_nsec == b->mtime.tv_nsec;
}

static bool check_snapshot(struct file *file, int fd, struct err *err)
{
    struct snapshot now;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_errno(err, "look at it");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INPUT, "%s, not a file",
                       S_ISDIR(st.st_mode) ? "a directory" : "a pipe or a device");
    now = snapshot_of(&st);
    if (file->known && !same_snapshot(&now, &file->snapshot))
        return err_set(err, ERR_CONFLICT, "it was changed while it was read; run the command again");
    file->snapshot = now;
    file->known = true;
    return true;
}

static bool open_file(struct documents *d, struct file *file, int *fd, struct err *err)
{
    if (file->why)
        return err_set(err, ERR_INPUT, "%s", file->why);
    /* Not blocking, so that a pipe that took the file's place since it was listed cannot hold us. */
    *fd = file->path ? open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
                     : fcntl(d->standard, F_DUPFD_CLOEXEC, 0);
    if (*fd < 0) {
        bool gone = errno == ENOENT || errno == ENOTDIR;

        if (gone)
            return err_set(err, ERR_NOT_FOUND, "it vanished after it was listed");
        return err_errno(err, "it cannot be opened");
    }
    if (check_snapshot(file, *fd, err))
        return true;
    close(*fd);
    return false;
}

static bool read_at(int fd, uint64_t offset, void *bytes, size_t size, size_t *got, struct err *err)
{
    *got = 0;
    while (*got < size) {
        ssize_t n = pread(fd, (char *)bytes + *got, size - *got, (off_t)(offset + *got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, "read it");
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return true;
}

/* ---- rows of tables
 * ------------------------------------------------------------------------------------------- */

static bool starts_with_bom(const uint8_t *bytes, size_t size)
{
    return size >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3);
}

static enum table_kind kind_by_content(struct span head)
{
    size_t tabs = 0, commas = 0;

    if (starts_with_bom(head.data, head.size))
        head = span_of(head.data + 3, head.size - 3);
    for (size_t i = 0; i < head.size && head.data[i] != '\n' && head.data[i] != '\r'; i++) {
        tabs += head.data[i] == '\t';
        commas += head.data[i] == ',';
    }
    for (size_t i = 0; i < head.size; i++)
        if (!strchr(" \t\r\n", head.data[i]))
            return head.data[i] == '{' ? TABLE_JSONL : tabs > commas ? TABLE_TSV : TABLE_CSV;
    return TABLE_CSV;
}

static bool add_row(struct documents *d, uint32_t row, uint64_t from, uint64_t to, uint64_t line,
                    struct err *err)
{
    size_t index = d->file_count - 1;
    const char *name = d->file[index].name;
    char *made = arena_take(&d->arena, strlen(name) + 16);

    if (!made)
        return no_memory(err);
    snprintf(made, strlen(name) + 16, "%s#%u", name, row);
    return add_entry(
        d,
        (struct entry){ .file = (uint32_t)index,
                        .row = row,
                        .offset = from,
                        .size = to - from > DOCUMENT_ROW_MAX ? DOCUMENT_ROW_MAX + 1 : (uint32_t)(to - from),
                        .line = (uint32_t)line,
                        .name = made },
        err);
}

/* A table that cannot be read at all is one document that failed. */
static bool refuse_table(struct documents *d, const struct err *why, struct err *err)
{
    struct file *file = &d->file[d->file_count - 1];

    if (why->code == ERR_INTERRUPTED) {
        *err = *why;
        return false;
    }
    file->why = arena_copy(&d->arena, why->text, strlen(why->text));
    return file->why
               ? add_entry(d, (struct entry){ .file = (uint32_t)(d->file_count - 1), .name = file->name },
                           err)
               : no_memory(err);
}

static bool check_columns(const json_t *columns, struct err *err)
{
    json_t *known = json_object();
    const json_t *name;
    size_t i;
    bool ok = true;

    json_array_foreach(columns, i, name)
    {
        if (json_string_length(name) && json_object_get(known, json_string_value(name)))
            ok = err_set(err, ERR_INPUT, "two columns are named `%.100s`", json_string_value(name));
        json_object_set(known, json_string_value(name), json_true());
    }
    json_decref(known);
    return ok;
}

static bool list_records(struct documents *d, FILE *in, char separator, bool *refused, struct err *why,
                         struct err *err)
{
    json_t *fields = json_array(), *columns = NULL;
    uint64_t line = 0, from, first;
    uint32_t row = 0;
    bool end = false, ok = true;

    while (ok && !end) {
        struct err wrong = { 0 };
        bool good;

        if (!stop_check(err)) {
            ok = false;
            break;
        }
        from = (uint64_t)ftello(in);
        first = line + 1;
        json_array_clear(fields);
        good = table_read(in, separator, fields, DOCUMENT_ROW_MAX, &line, &end, &wrong);
        if (good && (end || json_array_size(fields) == 0))
            continue;
        if (!good && wrong.code == ERR_IO) {
            *why = wrong;
            *refused = true;
            break;
        }
        if (!columns) {
            if (!good || !check_columns(fields, &wrong)) {
                *why = wrong;
                err_wrap(why, "its first row, with the names of the columns");
                *refused = true;
                break;
            }
            columns = fields;
            fields = json_array();
            continue;
        }
        if (row == DOCUMENTS_MAX)
            ok = err_set(err, ERR_LIMIT, "more than %d rows", DOCUMENTS_MAX);
        else
            ok = add_row(d, ++row, from, (uint64_t)ftello(in), first, err);
    }
    if (ok && !*refused && !columns) {
        err_set(why, ERR_INPUT, "empty; expected a first row with the names of the columns");
        *refused = true;
    }
    json_decref(fields);
    d->file[d->file_count - 1].columns = columns;
    return ok;
}

static bool list_lines(struct documents *d, FILE *in, struct err *err)
{
    uint64_t line = 0;
    uint32_t row = 0;
    int c = 0;

    while (c != EOF) {
        uint64_t from = (uint64_t)ftello(in), size = 0;
        bool blank = true;

        line++;
        while ((c = getc_unlocked(in)) != EOF && c != '\n') {
            size++;
            blank = blank && (c == ' ' || c == '\t' || c == '\r');
        }
        if (blank)
            continue;
        if (!stop_check(err))
            return false;
        if (row == DOCUMENTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d rows", DOCUMENTS_MAX);
        if (!add_row(d, ++row, from, from + size, line, err))
            return false;
    }
    return true;
}

/* Of the last file. */
static bool list_rows(struct documents *d, struct err *err)
{
    struct file *file = &d->file[d->file_count - 1];
    size_t had = d->count, got = 0;
    struct err why = { 0 };
    bool refused = false, ok = false;
    FILE *in = NULL;
    uint8_t *head = malloc(ENCODING_SAMPLE);
    struct span text;
    int fd = -1;

    if (!head)
        return no_memory(err);
    if (!open_file(d, file, &fd, &why) || !read_at(fd, 0, head, ENCODING_SAMPLE, &got, &why)) {
        refused = true;
        goto out;
    }
    text = span_of(head, got);
    if (encoding_magic(text) || memchr(head, 0, got) ||
        (got >= 2 && (!memcmp(head, "\xff\xfe", 2) || !memcmp(head, "\xfe\xff", 2)))) {
        const uint8_t *zero = memchr(head, 0, got);
        size_t at = zero ? (size_t)(zero - head) : 0;

        encoding_refuse(text, text, at, span_of(head + at, 1), &why);
        refused = true;
        goto out;
    }
    if (!file->path)
        file->kind = (uint8_t)kind_by_content(text);
    in = fdopen(fd, "r");
    if (!in) {
        err_errno(&why, "read it");
        refused = true;
        goto out;
    }
    fd = -1;
    if (fseeko(in, starts_with_bom(head, got) ? 3 : 0, SEEK_SET) != 0) {
        err_errno(&why, "read it");
        refused = true;
        goto out;
    }
    ok = file->kind == TABLE_JSONL
             ? list_lines(d, in, err)
             : list_records(d, in, file->kind == TABLE_TSV ? '\t' : ',', &refused, &why, err);
    if (ok && !refused && (ferror(in) || !check_snapshot(file, fileno(in), &why))) {
        if (ferror(in))
            err_set(&why, ERR_IO, "it cannot be read");
        refused = true;
    }
    if (ok && !refused)
        d->named = true; /* a table without rows is there all the same */
out:
    if (in)
        fclose(in);
    if (fd >= 0)
        close(fd);
    free(head);
    if (refused) {
        d->count = had;
        return refuse_table(d, &why, err);
    }
    return ok;
}

/* The row's text into `text`, from its record or line. */
static bool fill_row(const struct documents *d, const struct file *file, const struct entry *entry,
                     struct span bytes, struct buf *text, struct err *err)
{
    json_t *row = NULL;
    bool ok = false;

    if (entry->size > DOCUMENT_ROW_MAX)
        return err_set(err, ERR_LIMIT, "more than %d bytes", DOCUMENT_ROW_MAX);
    if (!span_is_utf8(bytes)) {
        size_t at = 0, n;
        uint32_t c;

        while ((n = unicode_read(bytes.data + at, bytes.size - at, &c, NULL)))
            at += n;
        return encoding_refuse(bytes, bytes, entry->offset + at, span_of(bytes.data + at, 1), err);
    }
    if (file->kind == TABLE_JSONL) {
        json_error_t why;

        row = json_loadb((const char *)bytes.data, bytes.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
        if (!row || !json_is_object(row)) {
            err_set(err, ERR_INPUT, "%s%s; expected a JSON object",
                    row ? "not an object" : "not JSON: ", row ? "" : why.text);
            goto out;
        }
    } else {
        json_t *fields = json_array();
        FILE *in = bytes.size ? fmemopen((void *)(uintptr_t)bytes.data, bytes.size, "r") : NULL;
        uint64_t line = entry->line - 1;
        size_t expected = json_array_size(file->columns), i;
        json_t *name;
        bool end;

        if (!in || !fields)
            err_set(err, ERR_IO, "no memory");
        else if (!table_read(in, file->kind == TABLE_TSV ? '\t' : ',', fields, DOCUMENT_ROW_MAX, &line, &end,
                             err))
            ;
        else if (json_array_size(fields) != expected)
            err_set(err, ERR_INPUT, "%zu fields, the first row names %zu columns", json_array_size(fields),
                    expected);
        else {
            row = json_object();
            json_array_foreach(file->columns, i, name) json_object_setn(
                row, json_string_value(name), json_string_length(name), json_array_get(fields, i));
        }
        if (in)
            fclose(in);
        json_decref(fields);
        if (!row)
            goto out;
    }
    ok = template_fill(d->template, row, text, err);
out:
    json_decref(row);
    return ok;
}

/* ---- a document being read
 * -------------------------------------------------------------------------------------- */

struct document {
    struct documents *documents;
    size_t index;
    int fd; /* -1: a row, whose text is in `row` */
    struct buf row;
    uint64_t offset; /* bytes taken from the file, or the row */
    uint8_t *block;
    size_t from, good, filled; /* in block: handed out, checked, read */
    crypto_generichash_state state;
    uint8_t digest[DOCUMENT_DIGEST_SIZE];
    uint32_t bom;
    bool words; /* something but white space was there */
    bool begun, ended;
};

static bool open_row(struct document *doc, struct file *file, struct entry *entry, int fd, struct err *err)
{
    struct documents *d = doc->documents;
    uint8_t *bytes = malloc(entry->size + 1);
    size_t got = 0;
    bool ok = false;

    doc->row.max = DOCUMENT_ROW_MAX;
    if (!bytes)
        err_set(err, ERR_IO, "no memory");
    else if (read_at(fd, entry->offset, bytes, entry->size, &got, err)) {
        if (got < entry->size)
            err_set(err, ERR_CONFLICT, "it was changed while it was read; run the command again");
        else
            ok = fill_row(d, file, entry, span_of(bytes, got), &doc->row, err) &&
                 check_snapshot(file, fd, err);
    }
    free(bytes);
    return ok || err_wrap(err, "row %u (line %u)", entry->row, entry->line);
}

bool document_open(struct document **document, struct documents *d, size_t index, struct err *err)
{
    struct entry *entry = &d->entry[index];
    struct file *file = &d->file[entry->file];
    struct document *doc;

    assert(index < d->count);
    doc = calloc(1, sizeof *doc);
    if (!doc || !(doc->block = malloc(BLOCK))) {
        free(doc);
        return err_set(err, ERR_IO, "no memory to read it");
    }
    doc->documents = d;
    doc->index = index;
    doc->fd = -1;
    crypto_generichash_init(&doc->state, NULL, 0, DOCUMENT_DIGEST_SIZE);
    if (!open_file(d, file, &doc->fd, err))
        goto failed;
    if (entry->row) {
        bool ok = open_row(doc, file, entry, doc->fd, err);

        close(doc->fd);
        doc->fd = -1;
        if (!ok)
            goto failed;
    }
    *document = doc;
    return true;
failed:
    document_close(doc);
    return false;
}

void document_close(struct document *doc)
{
    if (!doc)
        return;
    if (doc->fd >= 0)
        close(doc->fd);
    buf_fini(&doc->row);
    free(doc->block);
    free(doc);
}

uint32_t document_bom(const struct document *doc)
{
    return doc->bom;
}

bool document_digest(const struct document *doc, uint8_t digest[DOCUMENT_DIGEST_SIZE])
{
    if (doc->ended)
        memcpy(digest, doc->digest, DOCUMENT_DIGEST_SIZE);
    return doc->ended;
}

/* The byte at block[at] is none of a text: says what the whole looks like. */
static bool refuse(struct document *doc, size_t at, struct err *err)
{
    uint64_t offset = doc->offset - doc->filled + at;
    struct span fault = span_of(doc->block + at, doc->filled - at), head, near;
    uint8_t *sample;
    size_t got = 0, near_at;
    bool ok;

    if (doc->fd < 0) /* a row: what is not UTF-8 was refused when it was read */
        return err_set(err, ERR_INPUT, "not text: a NUL byte at byte %llu of the row's text",
                       (unsigned long long)offset);
    sample = malloc(2 * ENCODING_SAMPLE);
    if (!sample)
        return err_set(err, ERR_IO, "no memory to read it");
    ok = read_at(doc->fd, 0, sample, ENCODING_SAMPLE, &got, err);
    head = near = span_of(sample, got);
    if (ok && offset >= ENCODING_SAMPLE - NEAR) {
        uint64_t begin = offset - NEAR;

        ok = read_at(doc->fd, begin, sample + ENCODING_SAMPLE, ENCODING_SAMPLE, &got, err);
        near_at = 0; /* after a byte that is a character in every encoding of interest */
        while (near_at < NEAR && near_at < got && sample[ENCODING_SAMPLE + near_at] != '\n' &&
               sample[ENCODING_SAMPLE + near_at] != ' ')
            near_at++;
        if (near_at == NEAR)
            near_at = 0;
        near = span_of(sample + ENCODING_SAMPLE + near_at, got - near_at);
    }
    if (ok)
        encoding_refuse(head, near, offset, fault, err);
    free(sample);
    return false;
}

/* Checks block[good..filled); a character that is not whole is left for the next block. */
static bool check_block(struct document *doc, bool end, struct err *err)
{
    const uint8_t *p = doc->block;
    size_t at = doc->good;
    const char *escaped;

    while (at < doc->filled) {
        uint32_t c;
        bool partial;
        size_t n;

        if (p[at] < 0x80) {
            if (p[at] == 0)
                return refuse(doc, at, err);
            doc->words = doc->words || !unicode_is_space(p[at]);
            at++;
            continue;
        }
        n = unicode_read(p + at, doc->filled - at, &c, &partial);
        if (n == 0 && partial && !end)
            break;
        if (n == 0)
            return refuse(doc, at, err);
        doc->words = doc->words || !unicode_is_space(c);
        at += n;
    }
    if (encoding_has_controls(span_of(p + doc->good, at - doc->good)))
        return err_set(err, ERR_INPUT, "not text: it is binary (too many control characters after byte %llu)",
                       (unsigned long long)(doc->offset - doc->filled + doc->good));
    if ((escaped = encoding_of_escapes(span_of(p + doc->good, at - doc->good))))
        return err_set(err, ERR_INPUT, "not UTF-8: it looks like %s; convert it: iconv -f %s -t UTF-8",
                       escaped, escaped);
    doc->good = at;
    return true;
}

static bool finish(struct document *doc, struct err *err)
{
    struct documents *d = doc->documents;
    struct entry *entry = &d->entry[doc->index];
    struct file *file = &d->file[entry->file];

    if (doc->fd >= 0 && !check_snapshot(file, doc->fd, err))
        return false;
    if (doc->fd >= 0 && doc->offset != (uint64_t)file->snapshot.size)
        return err_set(err, ERR_CONFLICT, "it was changed while it was read; run the command again");
    if (!doc->words)
        return err_set(err, ERR_INPUT,
                       doc->offset > doc->bom ? "empty: there is nothing but white space in it" : "empty");
    crypto_generichash_final(&doc->state, doc->digest, DOCUMENT_DIGEST_SIZE);
    /* A clock ticks more slowly than a disk writes: the digest sees what size and time do not. */
    if (entry->digested && memcmp(entry->digest, doc->digest, DOCUMENT_DIGEST_SIZE) != 0)
        return err_set(err, ERR_CONFLICT, "it was changed between two readings; run the command again");
    memcpy(entry->digest, doc->digest, DOCUMENT_DIGEST_SIZE);
    entry->digested = doc->ended = true;
    return true;
}

static bool fill(struct document *doc, struct err *err)
{
    size_t rest = doc->filled - doc->good, got;

    memmove(doc->block, doc->block + doc->good, rest);
    doc->from = doc->good = 0;
    doc->filled = rest;
    if (doc->fd >= 0) {
        if (!read_at(doc->fd, doc->offset, doc->block + rest, BLOCK - rest, &got, err))
            return false;
    } else {
        got = doc->row.size - doc->offset < BLOCK - rest ? doc->row.size - doc->offset : BLOCK - rest;
        if (got)
            memcpy(doc->block + rest, doc->row.data + doc->offset, got);
    }
    crypto_generichash_update(&doc->state, doc->block + rest, got);
    doc->offset += got;
    doc->filled += got;
    if (doc->fd >= 0 &&
        doc->offset > (uint64_t)doc->documents->file[doc->documents->entry[doc->index].file].snapshot.size)
        return err_set(err, ERR_CONFLICT, "it grew while it was read; run the command again");
    if (!doc->begun && doc->fd >= 0 && doc->filled) {
        struct span head = span_of(doc->block, doc->filled);

        /* These two may look like text. */
        if (head.size > 5 && (!memcmp(head.data, "%PDF-", 5) || !memcmp(head.data, "{\\rtf", 5)))
            return encoding_refuse(head, head, 0, head, err);
        if (starts_with_bom(doc->block, doc->filled))
            doc->bom = 3, doc->from = doc->good = 3;
    }
    doc->begun = true;
    return check_block(doc, doc->filled < BLOCK, err);
}

bool document_read(struct document *doc, char *bytes, size_t size, size_t *got, struct err *err)
{
    assert(size >= 4);
    *got = 0;
    while (doc->from == doc->good) {
        bool end = doc->begun && doc->filled < BLOCK;

        if (doc->ended)
            return true;
        if (end)
            return finish(doc, err);
        if (!fill(doc, err))
            return false;
    }
    *got = doc->good - doc->from;
    if (*got > size) {
        *got = size;
        while ((doc->block[doc->from + *got] & 0xc0) == 0x80)
            --*got;
    }
    memcpy(bytes, doc->block + doc->from, *got);
    doc->from += *got;
    return true;
}
