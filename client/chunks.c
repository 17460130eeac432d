#include "client/chunks.h"

#include <stdlib.h>
#include <string.h>

#include "client/unicode.h"

/* The text lies in a window that moves along the document.  One pass over it (scan) says how good a cut each
 * place would be; places are the ends of what is no white space, so a chunk never ends with any.  For a
 * chunk, a stretch of the window is tokenized once, which says about how many tokens each place has before
 * it; the best place is taken, and its text is tokenized by itself: that count decides.  So each byte is
 * tokenized about twice, whatever the number of places.
 *
 * Where words are parted by spaces once is enough: a space between two letters begins a word to every
 * pre-tokenizer that we know, so tokens of the stretch stay what they are up to such a *seam*, and only the
 * text from the last one to the cut is tokenized again.  That is not taken on trust: the first chunks and
 * every so many after them are counted as a whole, too, and a tokenizer that disagrees once has the whole
 * counted from there on.  (English, 1,000 tokens a chunk: 3.2 MB/s without seams, 6.1 MB/s with them.) */

enum {
    AHEAD = 256,            /* bytes that must follow a place before it is judged: a heading, a fence */
    BLANKS_MAX = 64 * 1024, /* white space that is kept for an overlap before it */
    FENCE_MAX = 64 * 1024,  /* a fence that is open for longer is none */
    TOKEN_BYTES_MAX = 64,   /* a stretch of more bytes a token (white space, mostly) is cut by bytes */
    STRETCH_MIN = 4096,
    FILL = 64 * 1024,
    WORD_LOOK_MAX = 16,
    SEAM_TOKENS = 8, /* at least so many tokens before a cut are tokenized again */
    SEAM_LOOK_MAX = 256,
    SEAM_CHECK = 32, /* chunks */
};

enum place {
    NO_PLACE,
    PLACE_CODE_POINT,
    PLACE_CHARACTER,
    PLACE_WORD,
    PLACE_LINE,
    PLACE_SENTENCE,
    PLACE_PARAGRAPH
};

enum ending { NOT_ENDED, ENDED_FULL_STOP, ENDED, ENDED_DENSE /* nothing must follow */ };

struct scan {
    size_t at;          /* in the window: judged up to here */
    size_t end;         /* after the last character that is no white space */
    size_t word;        /* where the last word begins */
    uint32_t before;    /* the character before `at`, 0 at the start */
    int32_t cluster;    /* state of unicode_grapheme_border */
    uint32_t lines;     /* line ends since `end` */
    bool blank;         /* white space since `end`, or the document's start */
    bool line_begins;   /* nothing but white space since the last line end */
    enum ending ending; /* of a sentence, at `end` */
    uint8_t fence;      /* ` or ~ of the fence that is open, else 0 */
    size_t fence_length, fence_bytes;
};

struct chunks {
    struct document *document; /* or */
    struct span text;
    bool in_memory;
    bool document_ended;
    const struct tokenizer *tokenizer;
    struct chunk_limits limits;

    uint8_t *bytes, *place; /* the window, and what a cut before each byte would be */
    size_t size, capacity;
    uint64_t base_byte; /* where the window begins in the document */
    struct scan scan;
    size_t start;        /* of the next chunk, in the window */
    uint64_t start_char; /* the same in code points, in the document */
    size_t last_cut;     /* of the last one; 0 when there is none that matters */
    size_t stretch;      /* bytes that a chunk may have, about */
    uint32_t index;
    bool finished;
    bool no_seams; /* this tokenizer, or this stretch, has none */
    bool stretch_is_exact;

    struct buf chunk;
    struct ids ids;
    size_t *ends; /* [ids.count] bytes of the first n + 1 tokens */
    size_t ends_capacity;
};

/* ---- how good a cut would be
 * --------------------------------------------------------------------------------- */

static enum ending ending_of(uint32_t c)
{
    switch (c) {
    case '.':
        return ENDED_FULL_STOP;
    case '!':
    case '?':
    case 0x2026: /* … */
    case 0x203c: /* ‼ */
    case 0x2047:
    case 0x2048:
    case 0x2049:
    case 0x061f: /* Arabic ؟ */
    case 0x06d4: /* Urdu ۔ */
    case 0x0589: /* Armenian ։ */
    case 0x037e: /* Greek question mark */
        return ENDED;
    case 0x3002: /* 。 */
    case 0xff01: /* ！ */
    case 0xff1f: /* ？ */
    case 0xff61: /* ｡ */
    case 0x0964: /* Devanagari । */
    case 0x0965: /* ॥ */
    case 0x104b: /* Burmese ။ */
    case 0x1362: /* Ethiopic ። */
    case 0x1367:
    case 0x1368:
    case 0x17d4: /* Khmer ។ */
    case 0x17d5:
        return ENDED_DENSE;
    default:
        return NOT_ENDED;
    }
}

static bool is_dense_comma(uint32_t c)
{
    return c == 0x3001 || c == 0xff0c || c == 0xff1a || c == 0xff1b || c == 0xff64 || c == 0x30fb ||
           c == 0x0f0b || c == 0x0f0d || c == 0x104a || c == 0x1361;
}

/* Is the word before a full stop one that is written with it ("Dr.", "z.B.", an initial)? */
static bool is_abbreviation(const uint8_t *word, size_t size)
{
    static const char *const known[] = { "dr",  "mr",  "mrs",    "ms",  "prof", "st", "no", "nr",
                                         "vs",  "fig", "vol",    "art", "sr",   "jr", "hr", "fr",
                                         "mme", "abs", "approx", "ca",  "cf",   "ed", "pp" };
    char lower[8];
    size_t n = 0;

    while (size && strchr("(['\"*_", word[0]) && word[0])
        word++, size--;
    while (size && word[size - 1] == '.')
        size--;
    if (size == 0 || size > WORD_LOOK_MAX)
        return false;
    if (unicode_count(word, size) == 1)
        return true;
    if (size == 2 && word[0] >= '0' && word[0] <= '9') /* "12. Item", "24. Dezember" */
        return true;
    if (memchr(word, '.', size) && size <= 6 && !(word[0] >= '0' && word[0] <= '9'))
        return true;
    for (; n < size && n + 1 < sizeof lower; n++)
        lower[n] = (char)(word[n] | 0x20);
    lower[n] = '\0';
    for (size_t i = 0; n == size && i < sizeof known / sizeof *known; i++)
        if (!strcmp(lower, known[i]))
            return true;
    return false;
}

static bool sentence_ends(const struct chunks *k, uint32_t next)
{
    const struct scan *s = &k->scan;

    if (s->ending == NOT_ENDED || unicode_is_lower(next))
        return false;
    return s->ending != ENDED_FULL_STOP || !is_abbreviation(k->bytes + s->word, s->end - s->word);
}

static bool is_heading(const uint8_t *p, size_t size)
{
    size_t n = 0;

    while (n < size && n < 7 && p[n] == '#')
        n++;
    return n > 0 && n < 7 && (n == size || p[n] == ' ' || p[n] == '\t' || p[n] == '\n' || p[n] == '\r');
}

/* A line begins at p: does it open or close a fenced block? */
static void read_fence(struct scan *s, const uint8_t *p, size_t size)
{
    size_t n = 0;

    if (size == 0 || (p[0] != '`' && p[0] != '~') || (s->fence && p[0] != s->fence))
        return;
    while (n < size && p[n] == p[0])
        n++;
    if (n < 3 || (s->fence && n < s->fence_length))
        return;
    for (size_t i = n; i < size && i < AHEAD / 2 && p[i] != '\n' && p[i] != '\r'; i++)
        if (s->fence ? p[i] != ' ' && p[i] != '\t' : p[i] == '`')
            return; /* a closing fence stands alone; an opening one is not inline code */
    s->fence_length = n;
    s->fence_bytes = 0;
    s->fence = s->fence ? 0 : p[0];
}

static enum place place_after_blank(const struct chunks *k, uint32_t next, bool heading)
{
    const struct scan *s = &k->scan;

    if (!s->fence && (s->lines >= 2 || heading))
        return PLACE_PARAGRAPH;
    if (!s->fence && sentence_ends(k, next))
        return PLACE_SENTENCE;
    return s->lines ? PLACE_LINE : PLACE_WORD;
}

static void scan_space(struct chunks *k, uint32_t c)
{
    struct scan *s = &k->scan;
    enum place so_far;

    if (!s->blank) {
        s->blank = true;
        s->end = s->at;
        s->lines = 0;
    }
    if ((c == '\n' && s->before != '\r') || c == '\r' || c == 0x85 || c == 0x2028 || c == '\v')
        s->lines++;
    else if (c == 0x2029 || c == '\f') /* a page's end is a paragraph's */
        s->lines += 2;
    s->line_begins = s->line_begins || s->lines;
    so_far = s->lines >= 2 && !s->fence ? PLACE_PARAGRAPH : s->lines ? PLACE_LINE : PLACE_WORD;
    if (s->end > 0 && k->place[s->end] < so_far)
        k->place[s->end] = (uint8_t)so_far;
}

static void scan_character(struct chunks *k, uint32_t c, bool border)
{
    struct scan *s = &k->scan;
    const uint8_t *p = k->bytes + s->at;
    size_t rest = k->size - s->at;
    enum ending ending = ending_of(c);

    if (s->blank) {
        bool heading = s->line_begins && !s->fence && is_heading(p, rest);

        if (s->end > 0)
            k->place[s->end] = (uint8_t)place_after_blank(k, c, heading);
        if (s->line_begins) /* only now: what stands before a fence is not in it */
            read_fence(s, p, rest);
        s->word = s->at;
    } else if (s->before) {
        enum place place = border ? PLACE_CHARACTER : PLACE_CODE_POINT;

        if (border && s->ending == ENDED_DENSE && ending == NOT_ENDED && !unicode_is_closer(c) && !s->fence)
            place = PLACE_SENTENCE;
        else if (border && is_dense_comma(s->before))
            place = PLACE_WORD;
        k->place[s->at] = (uint8_t)place;
    }
    if (ending != NOT_ENDED)
        s->ending = ending;
    else if (s->ending == NOT_ENDED || s->blank || !unicode_is_closer(c))
        s->ending = NOT_ENDED;
    s->blank = s->line_begins = false;
}

/* As far as the window goes, less what must be ahead. */
static void scan(struct chunks *k)
{
    struct scan *s = &k->scan;

    while (s->at < k->size && (k->document_ended || s->at + AHEAD <= k->size)) {
        uint32_t c = 0;
        size_t n = unicode_read(k->bytes + s->at, k->size - s->at, &c, NULL);
        bool border = !s->before || unicode_grapheme_border(s->before, c, &s->cluster);

        n = n ? n : 1;
        if (unicode_is_space(c))
            scan_space(k, c);
        else
            scan_character(k, c, border);
        s->before = c;
        s->at += n;
        if (!s->blank)
            s->end = s->at;
        if (s->fence && (s->fence_bytes += n) > FENCE_MAX)
            s->fence = 0;
    }
}

/* ---- the window
 * ------------------------------------------------------------------------------------------------ */

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

/* Forgets what lies before `start`. */
static void drop(struct chunks *k)
{
    size_t n = k->start;

    if (n == 0)
        return;
    k->base_byte += n;
    memmove(k->bytes, k->bytes + n, k->size - n);
    memmove(k->place, k->place + n, k->size - n);
    k->size -= n;
    k->start = 0;
    k->last_cut = less(k->last_cut, n);
    k->scan.at = less(k->scan.at, n);
    k->scan.end = less(k->scan.end, n);
    k->scan.word = less(k->scan.word, n);
}

static void move_start(struct chunks *k, size_t to)
{
    k->start_char += unicode_count(k->bytes + k->start, to - k->start);
    k->start = to;
}

/* At least `want` bytes from `start` on, and judged; fewer only at the document's end. */
static bool want(struct chunks *k, size_t want, struct err *err)
{
    while (!k->document_ended && k->size - k->start < want + AHEAD) {
        size_t got = 0;

        if (k->capacity - k->size < FILL) {
            size_t capacity = k->capacity * 2 + 2 * FILL;
            uint8_t *bytes = realloc(k->bytes, capacity), *place;

            if (!bytes)
                return err_set(err, ERR_IO, "no memory to cut it into chunks");
            k->bytes = bytes;
            place = realloc(k->place, capacity);
            if (!place)
                return err_set(err, ERR_IO, "no memory to cut it into chunks");
            k->place = place;
            k->capacity = capacity;
        }
        if (k->in_memory) {
            got = k->text.size < FILL ? k->text.size : FILL;
            if (got)
                memcpy(k->bytes + k->size, k->text.data, got);
            k->text = span_of(k->text.data + got, k->text.size - got);
        } else {
            bool begins = k->base_byte == 0 && k->size == 0;

            if (!document_read(k->document, (char *)k->bytes + k->size, FILL, &got, err))
                return false;
            if (begins && document_bom(k->document)) {
                k->base_byte = document_bom(k->document);
                k->start_char = 1;
            }
        }
        k->document_ended = got == 0;
        memset(k->place + k->size, NO_PLACE, got);
        k->size += got;
    }
    scan(k);
    return true;
}

/* Moves *at, which is `start` or after it, over white space; *more: something follows.  White space is not
 * kept for long: where there is much of it, `start` moves, too. */
static bool skip_blank(struct chunks *k, size_t *at, bool *more, struct err *err)
{
    size_t from = *at;

    *more = false;
    for (;;) {
        uint32_t c = 0;
        size_t n = unicode_read(k->bytes + *at, k->size - *at, &c, NULL);

        if (n && !unicode_is_space(c))
            return *more = true;
        if (n) {
            *at += n;
            continue;
        }
        if (k->document_ended) /* else a block ended here, perhaps inside a character */
            return true;
        if (*at - from > BLANKS_MAX) {
            move_start(k, *at);
            drop(k);
            k->last_cut = 0;
            *at = from = 0;
        }
        if (!want(k, *at - k->start + FILL / 2, err))
            return false;
    }
}

static bool skip_start(struct chunks *k, bool *more, struct err *err)
{
    size_t at = k->start;

    if (!skip_blank(k, &at, more, err))
        return false;
    move_start(k, at);
    return true;
}

/* ---- one chunk
 * -------------------------------------------------------------------------------------------------- */

static bool count_tokens(struct chunks *k, size_t to, struct err *err)
{
    struct text_part part = { span_of(k->bytes + k->start, to - k->start), ADDED_PLAIN };

    k->ids.count = 0;
    return tokenizer_encode_parts(k->tokenizer, &part, 1, &k->ids, err);
}

/* Where each token ends, in bytes from `start`.  A normalizer may have made the text another: then about
 * where. */
static bool find_ends(struct chunks *k, size_t size, struct err *err)
{
    size_t sum = 0;

    if (k->ends_capacity < k->ids.count) {
        size_t *grown = realloc(k->ends, k->ids.count * 2 * sizeof *grown);

        if (!grown)
            return err_set(err, ERR_IO, "no memory to cut it into chunks");
        k->ends = grown;
        k->ends_capacity = k->ids.count * 2;
    }
    for (size_t i = 0; i < k->ids.count; i++)
        k->ends[i] = sum += tokenizer_bytes(k->tokenizer, k->ids.id[i]).size;
    k->stretch_is_exact = sum == size;
    for (size_t i = 0; sum != size && sum && i < k->ids.count; i++)
        k->ends[i] = (size_t)((double)k->ends[i] * (double)size / (double)sum);
    return true;
}

static bool is_ascii_letter(uint8_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* Counts the tokens of [start, cut), of which `ids` and `ends` have those of the stretch up to beyond the cut
 * (and, after a cut that was too far, at least up to this one's seam). */
static bool count_to_cut(struct chunks *k, size_t cut, size_t known, struct err *err)
{
    struct ids whole = { 0 };
    size_t seam = 0, size = cut - k->start, looked = 0;
    struct text_part part = { .added = ADDED_PLAIN };
    bool same;

    if (k->no_seams || !k->stretch_is_exact)
        return count_tokens(k, cut, err);
    while (known && k->ends[known - 1] >= size)
        known--;
    for (size_t n = known > SEAM_TOKENS ? known - SEAM_TOKENS : 0; n > 0 && !seam && looked++ < SEAM_LOOK_MAX;
         n--) {
        const uint8_t *p = k->bytes + k->start + k->ends[n - 1];

        if (p[0] == ' ' && is_ascii_letter(p[-1]) && is_ascii_letter(p[1]))
            seam = n;
    }
    if (!seam)
        return count_tokens(k, cut, err);
    part.text = span_of(k->bytes + k->start + k->ends[seam - 1], size - k->ends[seam - 1]);
    k->ids.count = seam;
    if (!tokenizer_encode_parts(k->tokenizer, &part, 1, &k->ids, err))
        return false;
    if (k->index >= 2 && k->index % SEAM_CHECK != 0)
        return true;
    part.text = span_of(k->bytes + k->start, size);
    if (!tokenizer_encode_parts(k->tokenizer, &part, 1, &whole, err)) {
        ids_fini(&whole);
        return false;
    }
    same = whole.count == k->ids.count && !memcmp(whole.id, k->ids.id, whole.count * sizeof *whole.id);
    ids_fini(&whole);
    if (same)
        return true;
    k->no_seams = true;
    return count_tokens(k, cut, err);
}

/* The best place in [from, to], the last of equals; 0 when there is none. */
static size_t best_place(const struct chunks *k, size_t from, size_t to)
{
    size_t best = 0;
    uint8_t how = NO_PLACE;

    for (size_t at = to; at >= from && at > 0 && how < PLACE_PARAGRAPH; at--)
        if (k->place[at] > how) {
            how = k->place[at];
            best = at;
        }
    return best;
}

/* The end of the text in the window: no place is marked there. */
static size_t text_end(const struct chunks *k)
{
    return k->scan.blank ? k->scan.end : k->scan.at;
}

/* Where the chunk that begins at `start` ends; its ids are counted then.  *cut 0: there is no place after the
 * last cut. */
static bool find_cut(struct chunks *k, size_t *cut, bool *whole, struct err *err)
{
    size_t tokens = k->limits.tokens, target = tokens;
    size_t stretch_max = tokens * TOKEN_BYTES_MAX > STRETCH_MIN ? tokens * TOKEN_BYTES_MAX : STRETCH_MIN;
    size_t after, to, from, least, count, had, known;

    for (;;) {
        if (!want(k, k->stretch, err))
            return false;
        to = k->scan.at - k->start < k->stretch ? k->scan.at : k->start + k->stretch;
        while (to < k->size && (k->bytes[to] & 0xc0) == 0x80)
            to--;
        if (!count_tokens(k, to, err))
            return false;
        *whole = k->document_ended && to == k->size;
        if (*whole || k->ids.count > tokens || k->stretch >= stretch_max)
            break;
        k->stretch = k->stretch * 3 / 2 < stretch_max ? k->stretch * 3 / 2 : stretch_max;
    }
    if (*whole) { /* without the white space at its end */
        to = text_end(k);
        if (to < k->size && !count_tokens(k, to, err))
            return false;
        *cut = to;
        if (k->ids.count <= tokens)
            return true;
        *whole = false;
    }
    if (!find_ends(k, to - k->start, err))
        return false;
    /* At least half of the tokens, and not only those of the overlap and a few more. */
    after = k->last_cut > k->start ? k->last_cut : k->start;
    count = k->ids.count < tokens ? k->ids.count : tokens;
    for (had = 0; had < count && k->start + k->ends[had] <= after;)
        had++;
    least = had + (count - had) / 4 > count / 2 ? had + (count - had) / 4 : (count + 1) / 2;
    from = k->start + k->ends[least ? least - 1 : 0];
    to = k->start + k->ends[count - 1];
    if (from <= after)
        from = after + 1;
    least = after + 1;
    known = k->ids.count;
    while (to >= least) {
        *cut = to >= from ? best_place(k, from, to) : 0;
        for (size_t at = to; *cut == 0 && at >= least; at--)
            if (k->place[at])
                *cut = at;
        if (*cut == 0)
            return true;
        if (!count_to_cut(k, *cut, known, err))
            return false;
        count = k->ids.count;
        if (count <= tokens)
            return true;
        target = less(target, count - tokens);
        to = *cut - 1;
        if (target && k->start + k->ends[target - 1] < to)
            to = k->start + k->ends[target - 1];
    }
    *cut = 0;
    return true;
}

/* Where the next chunk begins: `overlap` tokens before the cut, at the nearest sentence, else word, else
 * character. */
static bool find_start(struct chunks *k, size_t cut, size_t *next, struct err *err)
{
    size_t count = k->ids.count, overlap = k->limits.overlap, from, to, goal;

    *next = cut;
    if (overlap > count / 2)
        overlap = count / 2;
    if (overlap == 0)
        return true;
    if (!find_ends(k, cut - k->start, err))
        return false;
    goal = k->start + k->ends[count - overlap - 1];
    from = k->start + k->ends[count - 1 - (overlap * 3 / 2 < count / 2 ? overlap * 3 / 2 : count / 2)];
    to = k->start + k->ends[count - 1 - overlap / 2];
    if (from <= k->start)
        from = k->start + 1;
    for (int least = PLACE_SENTENCE; least >= PLACE_CHARACTER && *next == cut;
         least = least == PLACE_SENTENCE ? PLACE_WORD : least - 1) {
        size_t best = cut, distance = SIZE_MAX;

        for (size_t at = from; at <= to && at < cut; at++) {
            size_t d = at > goal ? at - goal : goal - at;

            if (k->place[at] >= least && d < distance) {
                best = at;
                distance = d;
            }
        }
        *next = best;
    }
    return true;
}

bool chunks_next(struct chunks *k, struct chunk *chunk, bool *end, struct err *err)
{
    size_t cut, next, after;
    bool whole, more;

    *end = k->finished;
    if (k->finished)
        return true;
    if (k->start > FILL)
        drop(k);
    if (k->index == 0) {
        if (!want(k, FILL / 2, err) || !skip_start(k, &more, err))
            return false;
        if (!more) {
            k->finished = *end = true;
            return true;
        }
    }
    if (!find_cut(k, &cut, &whole, err))
        return false;
    if (cut == 0 && k->last_cut > k->start) { /* the overlap leaves no room: do without */
        move_start(k, k->last_cut);
        k->last_cut = 0;
        if (!skip_start(k, &more, err) || !find_cut(k, &cut, &whole, err))
            return false;
    }
    if (cut == 0)
        return err_set(err, ERR_LIMIT, "byte %llu: a character has more than %u tokens",
                       (unsigned long long)(k->base_byte + k->start), k->limits.tokens);
    k->chunk.size = 0;
    if (!buf_add(&k->chunk, k->bytes + k->start, cut - k->start))
        return err_set(err, ERR_IO, "no memory to cut it into chunks");
    *chunk = (struct chunk){ .index = k->index++,
                             .text = buf_span(&k->chunk),
                             .byte = k->base_byte + k->start,
                             .chars = k->start_char,
                             .tokens = (uint32_t)k->ids.count };
    k->stretch = (size_t)((double)(cut - k->start) * k->limits.tokens / (double)k->ids.count * 1.125) + 64;
    if (!find_start(k, cut, &next, err))
        return false;
    move_start(k, next);
    k->last_cut = after = cut;
    more = !whole;
    if (!whole && !skip_blank(k, &after, &more, err))
        return false;
    chunk->last = k->finished = !more;
    return !more || skip_start(k, &more, err);
}

/* ---- open and close
 * ----------------------------------------------------------------------------------------------- */

static bool make(struct chunks **chunks, const struct tokenizer *tokenizer, struct chunk_limits limits,
                 struct err *err)
{
    struct chunks *k;

    if (limits.tokens < CHUNK_TOKENS_MIN)
        return err_set(err, ERR_INPUT, "chunks of %u tokens; expected at least %d", limits.tokens,
                       CHUNK_TOKENS_MIN);
    if (limits.overlap >= limits.tokens / 2)
        return err_set(err, ERR_INPUT, "an overlap of %u tokens; expected less than half of the chunks' %u",
                       limits.overlap, limits.tokens);
    k = calloc(1, sizeof *k);
    if (!k)
        return err_set(err, ERR_IO, "no memory to cut it into chunks");
    k->tokenizer = tokenizer;
    k->limits = limits;
    k->stretch = (size_t)limits.tokens * 5 + 64;
    k->scan.blank = k->scan.line_begins = true;
    *chunks = k;
    return true;
}

bool chunks_open(struct chunks **chunks, struct document *document, const struct tokenizer *tokenizer,
                 struct chunk_limits limits, struct err *err)
{
    if (!make(chunks, tokenizer, limits, err))
        return false;
    (*chunks)->document = document;
    return true;
}

bool chunks_of_text(struct chunks **chunks, struct span text, const struct tokenizer *tokenizer,
                    struct chunk_limits limits, struct err *err)
{
    if (!span_is_utf8(text))
        return err_set(err, ERR_INPUT, "text is not UTF-8");
    if (!make(chunks, tokenizer, limits, err))
        return false;
    (*chunks)->in_memory = true;
    (*chunks)->text = text;
    return true;
}

void chunks_close(struct chunks *k)
{
    if (!k)
        return;
    free(k->bytes);
    free(k->place);
    free(k->ends);
    buf_fini(&k->chunk);
    ids_fini(&k->ids);
    free(k);
}
