/* fingerprint - the 32 bytes that say "the same model, computed in the same format, cut the same way". */

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/model/inside.h"

/* A tensor up to 1 MiB is hashed whole.  Of a larger one, blocks at fixed places: the expert matrices of a
 * large model are tens of gigabytes, and a worker that holds an eighth of them must not read them all. */
enum { WHOLE_MAX = 1024 * 1024, BLOCK = 4096, BLOCKS = 4 };

static void hash_text(crypto_generichash_state *state, const char *text)
{
    crypto_generichash_update(state, (const unsigned char *)text, strlen(text) + 1);
}

static void hash_tensor(crypto_generichash_state *state, const struct safetensors_entry *e)
{
    char line[64];

    hash_text(state, e->name);
    hash_text(state, e->dtype_name);
    for (int i = 0; i < e->dimensions; i++) {
        snprintf(line, sizeof line, "%lld,", (long long)e->shape[i]);
        hash_text(state, line);
    }
    if (e->bytes <= WHOLE_MAX) {
        crypto_generichash_update(state, e->data, e->bytes);
        return;
    }
    for (uint64_t i = 0; i < BLOCKS; i++)
        crypto_generichash_update(state, e->data + (e->bytes - BLOCK) * i / (BLOCKS - 1), BLOCK);
}

/* optional: where the file is not there, it is as if nobody had asked. */
static bool hash_file(crypto_generichash_state *state, const char *dir, const char *name, bool optional,
                      struct err *err)
{
    unsigned char part[16384];
    uint64_t size = 0;
    char *path;
    size_t n;
    struct stat st;
    FILE *file;
    bool ok;

    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return err_set(err, ERR_IO, "no memory to read %s/%s", dir, name);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* a pipe would hold us */
        err_set(err, ERR_INPUT, "%s is not a regular file", path);
        free(path);
        return false;
    }
    file = fopen(path, "rbe");
    if (!optional || file)
        hash_text(state, name);
    if (!file) {
        ok = errno == ENOENT || err_errno(err, "open %s", path);
        if (!optional)
            hash_text(state, "absent");
        free(path);
        return ok;
    }
    while ((n = fread(part, 1, sizeof part, file)) > 0) {
        crypto_generichash_update(state, part, n);
        size += n;
    }
    crypto_generichash_update(state, (const unsigned char *)&size, sizeof size);
    ok = !ferror(file) || err_errno(err, "read %s", path);
    fclose(file);
    free(path);
    return ok;
}

bool fingerprint_compute(struct model *model, const char *dir, struct err *err)
{
    crypto_generichash_state state;
    struct buf text = { .max = 65536 };
    struct tensor_walk walk = { 0 };
    struct tensor t;
    char line[160];
    bool ok;

    if (sodium_init() < 0)
        return err_set(err, ERR_IO, "libsodium could not be initialised");
    crypto_generichash_init(&state, NULL, 0, MODEL_FINGERPRINT_BYTES);
    ok = config_canonical(&model->config, &text) || err_set(err, ERR_IO, "no memory for the fingerprint");
    if (ok)
        crypto_generichash_update(&state, text.data, text.size);
    buf_fini(&text);
    snprintf(line, sizeof line, "weights=%s carrier=%s shards=%d quantiser=0", weights_name(model->weights),
             model_carrier(model) == NUMBER_F32 ? "f32" : "bf16", model->config.shards);
    hash_text(&state, line);
    ok = ok && hash_file(&state, dir, "tokenizer.json", false, err) &&
         hash_file(&state, dir, "tokenizer_config.json", false, err) &&
         hash_file(&state, dir, "generation_config.json", true, err); /* it says what ends a text */
    safetensors_scattered(model->files, true);
    while (ok && tensor_next(&model->config, &walk, &t))
        hash_tensor(&state, safetensors_at(model->files, safetensors_find(model->files, t.name)));
    safetensors_scattered(model->files, false);
    crypto_generichash_final(&state, model->fingerprint, MODEL_FINGERPRINT_BYTES);
    return ok;
}

void model_fingerprint(const struct model *model, uint8_t fingerprint[MODEL_FINGERPRINT_BYTES])
{
    memcpy(fingerprint, model->fingerprint, MODEL_FINGERPRINT_BYTES);
}

void model_numerics(const struct model *model, char numerics[MODEL_NUMERICS_MAX])
{
    crypto_generichash_state state;
    unsigned char hash[16];

    crypto_generichash_init(&state, NULL, 0, sizeof hash);
    crypto_generichash_update(&state, model->fingerprint, MODEL_FINGERPRINT_BYTES);
    hash_text(&state, weights_name(model->weights));
    hash_text(&state, model->backend->family);
    crypto_generichash_final(&state, hash, sizeof hash);
    sodium_bin2hex(numerics, MODEL_NUMERICS_MAX, hash, 8);
}
