/* safetensors - the tensors of a checkpoint, where they lie in the mapped files.
 *
 * A directory has model.safetensors.index.json, which says which file has which tensor (file names are
 * arbitrary and always taken from there), or one model.safetensors.  Files are mapped, never read:
 * opening touches their headers only.
 *
 * A header is not believed: its size and depth are bounded, every tensor must lie within the data,
 * have as many bytes as dtype and shape say, and the tensors must fill the data without overlap
 * or duplicate name, and without a hole (safetensors_loose).  A file that is shorter than its header says is refused with both sizes. */

#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum {
    SAFETENSORS_HEADER_MAX = 32 * 1024 * 1024, /* bytes; DeepSeek-V2 in one file needs 4 MiB */
    SAFETENSORS_INDEX_MAX = 32 * 1024 * 1024,
    SAFETENSORS_TENSORS_MAX = 1 << 20, /* in one file */
    SAFETENSORS_FILES_MAX = 4096,
    SAFETENSORS_DIMENSIONS_MAX = 8,
};

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_OTHER };

struct safetensors_entry {
    char *name;
    enum dtype dtype;
    char dtype_name[12];
    int dimensions;
    int64_t shape[SAFETENSORS_DIMENSIONS_MAX];
    const unsigned char *data; /* any alignment */
    uint64_t bytes;
    const char *file; /* its path, for errors */
};

struct safetensors;

/* Errors name the file and the tensor. */
bool safetensors_open(struct safetensors **files, const char *dir, struct err *err);
void safetensors_close(struct safetensors *files); /* NULL is fine */

#define SAFETENSORS_NONE SIZE_MAX
size_t safetensors_find(const struct safetensors *files,
                        const char *name); /* its number, or SAFETENSORS_NONE */
size_t safetensors_count(const struct safetensors *files);
const struct safetensors_entry *safetensors_at(const struct safetensors *files,
                                               size_t i); /* ascending by name */

/* True while small pieces are read here and there: else the kernel reads ahead, up to megabytes for each of
 * them.  False afterwards. */
void safetensors_scattered(const struct safetensors *files, bool scattered);

/* Where some file has bytes that belong to no tensor, in words; NULL: nowhere.  Such a checkpoint is to be refused, but only
 * after looking for what the model needs: a tensor that was taken out of the header leaves a hole, and its name says more. */
const char *safetensors_loose(const struct safetensors *files);

/* One file from memory: entries (ascending by name) to be freed with safetensors_entries_free.
 * path is kept and used in errors.  *loose: as above, to be freed; with loose NULL such a file is refused. */
bool safetensors_parse(struct span file, const char *path, struct safetensors_entry **entries, size_t *count,
                       char **loose, struct err *err);
void safetensors_entries_free(struct safetensors_entry *entries, size_t count);

#endif
