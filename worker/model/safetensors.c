#include "worker/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mapped {
    char *path;
    unsigned char *bytes;
    size_t size;
    struct safetensors_entry *entry;
    size_t count;
    char *loose; /* see safetensors_loose */
};

struct safetensors {
    struct mapped *file;
    size_t file_count;
    struct safetensors_entry **entry; /* ascending by name; point into the files' entries */
    size_t count;
};

static const struct {
    const char *name;
    int bytes;
    enum dtype dtype;
} dtypes[] = {
    { "F32", 4, DTYPE_F32 },    { "BF16", 2, DTYPE_BF16 },     { "F16", 2, DTYPE_F16 },
    { "F64", 8, DTYPE_OTHER },  { "I64", 8, DTYPE_OTHER },     { "I32", 4, DTYPE_OTHER },
    { "I16", 2, DTYPE_OTHER },  { "I8", 1, DTYPE_OTHER },      { "U64", 8, DTYPE_OTHER },
    { "U32", 4, DTYPE_OTHER },  { "U16", 2, DTYPE_OTHER },     { "U8", 1, DTYPE_OTHER },
    { "BOOL", 1, DTYPE_OTHER }, { "F8_E4M3", 1, DTYPE_OTHER }, { "F8_E5M2", 1, DTYPE_OTHER },
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_entry *)a)->name, ((const struct safetensors_entry *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_entry *x = *(const struct safetensors_entry *const *)a,
                                   *y = *(const struct safetensors_entry *const *)b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty tensors first */
}

/* A whole number of the header, or -1. */
static int64_t whole(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 ? json_integer_value(value) : -1;
}

static bool read_entry(struct safetensors_entry *e, const json_t *value, struct span data, struct err *err)
{
    const json_t *dtype = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    int64_t from, to, values = 1;
    int bytes = 0;

    if (!json_is_object(value) || !json_is_string(dtype) || !json_is_array(shape) ||
        !json_is_array(offsets) || json_array_size(offsets) != 2)
        return err_set(err, ERR_INPUT, "not of the form {dtype, shape, data_offsets: [from, to]}");
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, json_string_value(dtype)) == 0) {
            e->dtype = dtypes[i].dtype;
            bytes = dtypes[i].bytes;
            snprintf(e->dtype_name, sizeof e->dtype_name, "%s", dtypes[i].name);
        }
    if (bytes == 0)
        return err_set(err, ERR_INPUT, "unknown dtype `%.32s`", json_string_value(dtype));
    if (json_array_size(shape) > SAFETENSORS_DIMENSIONS_MAX)
        return err_set(err, ERR_LIMIT, "%zu dimensions; expected at most %d", json_array_size(shape),
                       SAFETENSORS_DIMENSIONS_MAX);
    e->dimensions = (int)json_array_size(shape);
    for (int i = 0; i < e->dimensions; i++) {
        e->shape[i] = whole(json_array_get(shape, (size_t)i));
        if (e->shape[i] < 0 || __builtin_mul_overflow(values, e->shape[i], &values))
            return err_set(err, ERR_INPUT, "impossible shape");
    }
    from = whole(json_array_get(offsets, 0));
    to = whole(json_array_get(offsets, 1));
    if (from < 0 || to < from)
        return err_set(err, ERR_INPUT, "impossible data_offsets");
    if (__builtin_mul_overflow(values, (int64_t)bytes, &values) || values != to - from)
        return err_set(err, ERR_INPUT, "data_offsets give %lld bytes, dtype and shape %lld",
                       (long long)(to - from), (long long)values);
    if ((uint64_t)to > data.size)
        return err_set(err, ERR_INPUT,
                       "ends at byte %lld of the data, of which the file has %zu: the file is truncated",
                       (long long)to, data.size);
    e->data = data.data + from;
    e->bytes = (uint64_t)(to - from);
    return true;
}

/* The tensors must tile the data.  What they leave out is told in hole (ERR_NONE: nothing). */
static bool check_places(struct safetensors_entry *entries, size_t count, struct span data, const char *path,
                         struct err *hole, struct err *err)
{
    struct safetensors_entry **order = malloc((count + 1) * sizeof *order);
    const unsigned char *at = data.data;
    bool ok = true;

    if (!order)
        return err_set(err, ERR_IO, "%s: no memory for %zu tensors", path, count);
    for (size_t i = 0; i < count; i++)
        order[i] = entries + i;
    qsort(order, count, sizeof *order, by_place);
    for (size_t i = 0; ok && i < count; i++) {
        bool overlap = order[i]->data < at;

        if (overlap || (order[i]->data > at && hole->code == ERR_NONE))
            err_set(overlap ? err : hole, ERR_INPUT,
                    "%s: tensor %.128s begins at byte %zu of the data; expected %zu: tensors %s", path, order[i]->name,
                    (size_t)(order[i]->data - data.data), (size_t)(at - data.data), overlap ? "overlap" : "leave a hole");
        ok = !overlap;
        at = order[i]->data + order[i]->bytes;
    }
    if (ok && hole->code == ERR_NONE && at != data.data + data.size)
        err_set(hole, ERR_INPUT, "%s: %zu bytes of data, of which the tensors fill %zu", path, data.size,
                (size_t)(at - data.data));
    free(order);
    return ok;
}

bool safetensors_parse(struct span file, const char *path, struct safetensors_entry **entries, size_t *count,
                       char **loose, struct err *err)
{
    struct err hole = { 0 };
    struct safetensors_entry *entry = NULL;
    struct span data;
    uint64_t size = 0;
    json_error_t at;
    json_t *root, *value;
    const char *name;
    size_t n = 0;
    bool ok = false;

    *entries = NULL;
    *count = 0;
    if (file.size < 8)
        return err_set(err, ERR_INPUT, "%s: %zu bytes; a safetensors file has at least 8", path, file.size);
    for (int i = 7; i >= 0; i--)
        size = size << 8 | file.data[i];
    if (size > SAFETENSORS_HEADER_MAX)
        return err_set(err, ERR_LIMIT, "%s: a header of %llu bytes; expected at most %d", path,
                       (unsigned long long)size, SAFETENSORS_HEADER_MAX);
    if (size > file.size - 8)
        return err_set(err, ERR_INPUT, "%s: a header of %llu bytes in a file of %zu: the file is truncated",
                       path, (unsigned long long)size, file.size);
    if (size == 0 || file.data[8] != '{')
        return err_set(err, ERR_INPUT, "%s: the header does not begin with {", path);
    root = json_loadb((const char *)file.data + 8, (size_t)size, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return err_set(err, ERR_INPUT, "%s: header:%d:%d: %s", path, at.line, at.column, at.text);
    data = span_of(file.data + 8 + size, file.size - 8 - (size_t)size);
    if (json_object_size(root) > SAFETENSORS_TENSORS_MAX) {
        err_set(err, ERR_LIMIT, "%s: %zu tensors; expected at most %d", path, json_object_size(root),
                SAFETENSORS_TENSORS_MAX);
        goto out;
    }
    entry = calloc(json_object_size(root) + 1, sizeof *entry);
    if (!entry) {
        err_set(err, ERR_IO, "%s: no memory for %zu tensors", path, json_object_size(root));
        goto out;
    }
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        entry[n].file = path;
        if (!read_entry(&entry[n], value, data, err)) {
            err_wrap(err, "%s: tensor %.128s", path, name);
            goto out;
        }
        entry[n].name = strdup(name);
        if (!entry[n].name) {
            err_set(err, ERR_IO, "%s: no memory for %zu tensors", path, n);
            goto out;
        }
        n++;
    }
    if (!check_places(entry, n, data, path, &hole, err))
        goto out;
    if (hole.code != ERR_NONE && !loose) {
        *err = hole;
        goto out;
    }
    if (hole.code != ERR_NONE && !(*loose = strdup(hole.text))) {
        err_set(err, ERR_IO, "%s: no memory", path);
        goto out;
    }
    qsort(entry, n, sizeof *entry, by_name);
    ok = true;
out:
    json_decref(root);
    if (!ok) {
        safetensors_entries_free(entry, n);
        return false;
    }
    *entries = entry;
    *count = n;
    return true;
}

void safetensors_entries_free(struct safetensors_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(entries[i].name);
    free(entries);
}

/* Maps dir/name and reads its header into *file. */
static bool map_file(struct mapped *file, const char *dir, const char *name, struct err *err)
{
    struct stat st;
    void *bytes;
    int fd;

    if (asprintf(&file->path, "%s/%s", dir, name) < 0) {
        file->path = NULL;
        return err_set(err, ERR_IO, "no memory to open %s/%s", dir, name);
    }
    fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us */
    if (fd < 0)
        return err_errno(err, "open %s", file->path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(err, ERR_INPUT, "%s is not a regular file", file->path);
    }
    if (st.st_size == 0) {
        close(fd);
        return err_set(err, ERR_INPUT, "%s is empty", file->path);
    }
    bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED)
        return err_errno(err, "map %s", file->path);
    file->bytes = bytes;
    file->size = (size_t)st.st_size;
    return safetensors_parse(span_of(file->bytes, file->size), file->path, &file->entry, &file->count, &file->loose, err);
}

static int name_of_entry(const void *name, const void *entry)
{
    return strcmp(name, ((const struct safetensors_entry *)entry)->name);
}

static struct safetensors_entry *find_in(const struct mapped *file, const char *name)
{
    return bsearch(name, file->entry, file->count, sizeof *file->entry, name_of_entry);
}

/* A name of the index must stay within the directory. */
static bool is_plain_name(const char *name)
{
    size_t size = strlen(name);

    return size > 0 && size <= NAME_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static struct mapped *file_of(struct safetensors *s, const char *dir, const char *name, const char *index,
                              struct err *err)
{
    size_t dir_size = strlen(dir) + 1;

    for (size_t i = 0; i < s->file_count; i++)
        if (strcmp(s->file[i].path + dir_size, name) == 0)
            return s->file + i;
    if (!is_plain_name(name)) {
        err_set(err, ERR_INPUT, "%s: `%.128s` is not a file name", index, name);
        return NULL;
    }
    if (s->file_count == SAFETENSORS_FILES_MAX) {
        err_set(err, ERR_LIMIT, "%s: names more than %d files", index, SAFETENSORS_FILES_MAX);
        return NULL;
    }
    /* Counted before it is mapped, so that closing frees what a failure leaves. */
    if (!map_file(s->file + s->file_count++, dir, name, err)) {
        err_wrap(err, "%s", index);
        return NULL;
    }
    return s->file + s->file_count - 1;
}

static int by_entry_name(const void *a, const void *b)
{
    return strcmp((*(struct safetensors_entry *const *)a)->name,
                  (*(struct safetensors_entry *const *)b)->name);
}

static bool open_index(struct safetensors *s, const char *dir, const char *index, struct err *err)
{
    struct stat st;
    json_error_t at;
    json_t *root, *map, *value;
    const char *name;
    bool ok = false;

    if (stat(index, &st))
        return err_errno(err, "open %s", index);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INPUT, "%s is not a regular file", index);
    if (st.st_size > SAFETENSORS_INDEX_MAX)
        return err_set(err, ERR_LIMIT, "%s: %lld bytes; expected at most %d", index, (long long)st.st_size,
                       SAFETENSORS_INDEX_MAX);
    root = json_load_file(index, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return err_set(err, ERR_INPUT, "%s:%d:%d: %s", index, at.line, at.column, at.text);
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        err_set(err, ERR_INPUT,
                "%s: key `weight_map` is missing; expected an object of tensor names and files", index);
        goto out;
    }
    s->entry = calloc(json_object_size(map) + 1, sizeof *s->entry);
    if (!s->entry) {
        err_set(err, ERR_IO, "%s: no memory for %zu tensors", index, json_object_size(map));
        goto out;
    }
    json_object_foreach(map, name, value)
    {
        struct mapped *file;

        if (!json_is_string(value)) {
            err_set(err, ERR_INPUT, "%s: weight_map of tensor %.128s is not a file name", index, name);
            goto out;
        }
        file = file_of(s, dir, json_string_value(value), index, err);
        if (!file)
            goto out;
        s->entry[s->count] = find_in(file, name);
        if (!s->entry[s->count]) {
            err_set(err, ERR_INPUT, "%s: says that tensor %.128s is in %.128s, which does not have it", index,
                    name, json_string_value(value));
            goto out;
        }
        s->count++;
    }
    qsort(s->entry, s->count, sizeof *s->entry, by_entry_name);
    ok = true;
out:
    json_decref(root);
    return ok;
}

static bool open_single(struct safetensors *s, const char *dir, struct err *err)
{
    s->file_count = 1;
    if (!map_file(s->file, dir, "model.safetensors", err))
        return false;
    s->count = s->file->count;
    s->entry = calloc(s->count + 1, sizeof *s->entry);
    if (!s->entry)
        return err_set(err, ERR_IO, "%s: no memory for %zu tensors", s->file->path, s->count);
    for (size_t i = 0; i < s->count; i++)
        s->entry[i] = s->file->entry + i;
    return true;
}

bool safetensors_open(struct safetensors **out, const char *dir, struct err *err)
{
    struct safetensors *s = calloc(1, sizeof *s);
    char *index = NULL, *single = NULL;
    bool ok = false;

    if (!s || asprintf(&index, "%s/model.safetensors.index.json", dir) < 0) {
        free(s);
        return err_set(err, ERR_IO, "no memory to open %s", dir);
    }
    s->file = calloc(SAFETENSORS_FILES_MAX, sizeof *s->file);
    if (!s->file || asprintf(&single, "%s/model.safetensors", dir) < 0) {
        single = NULL;
        err_set(err, ERR_IO, "no memory to open %s", dir);
        goto out;
    }
    if (access(index, F_OK) == 0) {
        ok = open_index(s, dir, index, err);
    } else if (access(single, F_OK) == 0) {
        ok = open_single(s, dir, err);
    } else {
        err_set(err, ERR_NOT_FOUND, "%s has neither model.safetensors nor model.safetensors.index.json", dir);
    }
out:
    free(index);
    free(single);
    if (!ok) {
        safetensors_close(s);
        return false;
    }
    *out = s;
    return true;
}

const char *safetensors_loose(const struct safetensors *s)
{
    for (size_t i = 0; i < s->file_count; i++)
        if (s->file[i].loose)
            return s->file[i].loose;
    return NULL;
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->file_count; i++) {
        safetensors_entries_free(s->file[i].entry, s->file[i].count);
        if (s->file[i].bytes)
            munmap(s->file[i].bytes, s->file[i].size);
        free(s->file[i].path);
        free(s->file[i].loose);
    }
    free(s->file);
    free(s->entry);
    free(s);
}

void safetensors_scattered(const struct safetensors *s, bool scattered)
{
    for (size_t i = 0; i < s->file_count; i++) /* only advice: it may be refused */
        madvise(s->file[i].bytes, s->file[i].size, scattered ? MADV_RANDOM : MADV_NORMAL);
}

size_t safetensors_find(const struct safetensors *s, const char *name)
{
    size_t low = 0, high = s->count;

    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = strcmp(s->entry[mid]->name, name);

        if (order == 0)
            return mid;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return SAFETENSORS_NONE;
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->count;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *s, size_t i)
{
    return s->entry[i];
}
