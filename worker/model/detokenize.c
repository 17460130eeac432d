#include "worker/model/detokenize.h"

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer, bool show_special)
{
    *detokenizer = (struct detokenizer){ .tokenizer = tokenizer, .show_special = show_special };
}

static bool replace(struct buf *out)
{
    return buf_text(out, "\xef\xbf\xbd");
}

/* Can byte follow what is held?  The second byte's range keeps out overlong forms, surrogates and what lies
 * above U+10FFFF. */
static bool continues(const struct detokenizer *d, uint8_t byte)
{
    uint8_t low = 0x80, high = 0xbf;

    if (d->held_count == 1)
        switch (d->held[0]) {
        case 0xe0:
            low = 0xa0;
            break;
        case 0xed:
            high = 0x9f;
            break;
        case 0xf0:
            low = 0x90;
            break;
        case 0xf4:
            high = 0x8f;
            break;
        }
    return byte >= low && byte <= high;
}

static bool add_byte(struct detokenizer *d, uint8_t byte, struct buf *out)
{
    if (d->held_count > 0) {
        if (continues(d, byte)) {
            uint8_t whole = d->held[0] < 0xe0 ? 2 : d->held[0] < 0xf0 ? 3 : 4;

            d->held[d->held_count++] = byte;
            if (d->held_count < whole)
                return true;
            d->held_count = 0;
            return buf_add(out, d->held, whole);
        }
        d->held_count = 0;
        if (!replace(out))
            return false;
    }
    if (byte < 0x80)
        return buf_add(out, &byte, 1);
    if (byte < 0xc2 || byte > 0xf4)
        return replace(out);
    d->held[d->held_count++] = byte;
    return true;
}

bool detokenizer_add(struct detokenizer *detokenizer, int32_t id, struct buf *out)
{
    struct span bytes = tokenizer_bytes(detokenizer->tokenizer, id);

    if (!detokenizer->show_special && tokenizer_is_special(detokenizer->tokenizer, id))
        return true;
    for (size_t i = 0; i < bytes.size; i++)
        if (!add_byte(detokenizer, bytes.data[i], out))
            return false;
    return true;
}

bool detokenizer_end(struct detokenizer *detokenizer, struct buf *out)
{
    bool held = detokenizer->held_count > 0;

    detokenizer->held_count = 0;
    return !held || replace(out);
}

bool detokenize(const struct tokenizer *tokenizer, const int32_t *id, size_t count, bool show_special,
                struct buf *out, struct err *err)
{
    struct detokenizer detokenizer;

    detokenizer_init(&detokenizer, tokenizer, show_special);
    for (size_t i = 0; i < count; i++) {
        if (!tokenizer_has(tokenizer, id[i]))
            return err_set(err, ERR_INPUT, "token %d: the tokenizer has no such id (it has %d)", id[i],
                           tokenizer_size(tokenizer));
        if (!detokenizer_add(&detokenizer, id[i], out))
            return err_set(err, ERR_LIMIT, "the text is too long");
    }
    return detokenizer_end(&detokenizer, out) || err_set(err, ERR_LIMIT, "the text is too long");
}
