/* driver - runs a fuzz target without libFuzzer: mutates seeds for a while.
 *
 *     model_x_fuzz [--seconds N] [--seed N] [--runs N] CORPUS        mutate the files of a folder
 *     model_x_fuzz FILE...                                           run each file once
 *
 * No coverage guides it; it finds what breaks soon, in every compiler and sanitizer.  The seed is printed, and the same
 * seed makes the same inputs in the same order.  With --seed and --runs a failure is found again; FUZZ_SAVE=FILE keeps
 * the input before each run. */

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEEDS_MAX = 256, INPUT_MAX = 64 * 1024 };

static struct buf seed[SEEDS_MAX];
static int seed_count;
static uint64_t state;

/* splitmix64 */
static uint64_t next(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t n)
{
    return n ? (size_t)(next() % n) : 0;
}

static bool read_file(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    uint8_t chunk[4096];
    size_t n;

    if (!f)
        return false;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && buf_add(out, chunk, n))
        continue;
    fclose(f);
    return true;
}

/* In the order of their names, so that a seed means the same everywhere. */
static bool read_corpus(const char *path)
{
    struct dirent **entry;
    int n = scandir(path, &entry, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        char name[4096];

        snprintf(name, sizeof name, "%s/%s", path, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.' && seed_count < SEEDS_MAX && read_file(name, &seed[seed_count]))
            seed_count++;
        free(entry[i]);
    }
    if (n >= 0)
        free(entry);
    return seed_count > 0;
}

static void replace(struct buf *in, size_t at, size_t cut, const uint8_t *data, size_t size)
{
    struct buf out = { .max = INPUT_MAX };

    if (buf_add(&out, in->data, at) && buf_add(&out, data, size))
        buf_add(&out, in->data + at + cut, in->size - at - cut);
    buf_fini(in);
    *in = out;
}

static void mutate(struct buf *in)
{
    static const char *const words[] = { "\"", "\\", "\\u0000", "\xff", "\xed\xa0\x80", "{", "}", "[", "]", ",", ":", "null", "-1", "0",
                                         "1e999", "9999999999999999999", "true", "\"\"", "[[[[[[[[", "(?:", "+", "\\p{L}", "\\s+$" };
    size_t at = below(in->size + 1), cut = below(in->size - at + 1);
    const struct buf *other = &seed[below((size_t)seed_count)];
    uint8_t byte = (uint8_t)next();

    switch (below(8)) {
    case 0: /* flip a bit */
        if (at < in->size)
            in->data[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        if (at < in->size)
            in->data[at] = byte;
        break;
    case 2:
        replace(in, at, 0, &byte, 1);
        break;
    case 3: /* take a piece out */
        replace(in, at, below(2) ? cut : below(cut < 8 ? cut + 1 : 8), NULL, 0);
        break;
    case 4: { /* say a piece again */
        struct buf piece = { 0 };

        buf_add(&piece, in->data + at, cut < 256 ? cut : 256);
        replace(in, at, 0, piece.data, piece.size);
        buf_fini(&piece);
        break;
    }
    case 5: { /* a piece of another seed */
        size_t from = below(other->size + 1);

        replace(in, at, below(4) ? 0 : cut, other->data + from, below(other->size - from + 1));
        break;
    }
    default: {
        const char *word = words[below(sizeof words / sizeof words[0])];

        replace(in, at, below(cut < 6 ? cut + 1 : 6), (const uint8_t *)word, strlen(word));
    }
    }
}

static void run(const struct buf *in)
{
    const char *save = getenv("FUZZ_SAVE");
    uint8_t *exact = malloc(in->size ? in->size : 1); /* so that one byte beyond the end is seen */

    if (save) {
        FILE *f = fopen(save, "wb");

        if (f) {
            fwrite(in->data, 1, in->size, f);
            fclose(f);
        }
    }
    if (in->size)
        memcpy(exact, in->data, in->size);
    LLVMFuzzerTestOneInput(exact, in->size);
    free(exact);
}

int main(int argc, char **argv)
{
    double seconds = 4;
    uint64_t runs_max = UINT64_MAX, runs = 0;
    struct timespec begin, now;
    struct stat info;

    clock_gettime(CLOCK_REALTIME, &begin);
    state = (uint64_t)begin.tv_sec * 1000000007u + (uint64_t)begin.tv_nsec;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            seconds = atof(argv[++i]);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            state = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc) {
            runs_max = strtoull(argv[++i], NULL, 10);
            seconds = 1e9;
        } else if (stat(argv[i], &info) == 0 && S_ISDIR(info.st_mode)) {
            if (!read_corpus(argv[i])) {
                fprintf(stderr, "%s: no seed in it\n", argv[i]);
                return 1;
            }
        } else {
            struct buf in = { 0 };

            if (!read_file(argv[i], &in)) {
                fprintf(stderr, "%s: cannot be read\n", argv[i]);
                return 1;
            }
            run(&in);
            buf_fini(&in);
        }
    }
    if (seed_count == 0)
        return 0;
    printf("--seed %" PRIu64 "\n", state);
    fflush(stdout);
    for (int i = 0; i < seed_count; i++)
        run(&seed[i]);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        const struct buf *from = &seed[below((size_t)seed_count)];
        struct buf in = { 0 };

        buf_add(&in, from->data, from->size);
        for (size_t n = 1 + below(6); n > 0; n--)
            mutate(&in);
        run(&in);
        buf_fini(&in);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (++runs < runs_max &&
             (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) * 1e-9 < seconds);
    printf("%" PRIu64 " inputs\n", runs);
    for (int i = 0; i < seed_count; i++)
        buf_fini(&seed[i]);
    return 0;
}
