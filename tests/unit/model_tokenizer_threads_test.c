/* One tokenizer, many threads: a worker's and a command's threads share what they loaded. */
#include "tests/check.h"

#include <pthread.h>
#include <stdlib.h>

#include "worker/model/chat.h"
#include "worker/model/detokenize.h"

enum { THREADS = 4, ROUNDS = 40 };

struct shared {
    struct tokenizer *tokenizer;
    struct chat *chat;
};

static const struct chat_message message = {
    CHAT_USER, { (const uint8_t *)"Hello 42, naïve 語 <｜end▁of▁sentence｜>\r\n  \t ", 54 }
};

/* The ids of the first round, or NULL when any round differed. */
static void *talk(void *arg)
{
    const struct shared *shared = arg;
    struct ids *first = calloc(1, sizeof *first);

    for (int i = 0; first && i < ROUNDS; i++) {
        struct ids ids = { 0 };
        struct buf text = { 0 };
        struct err err;
        bool same = chat_render(shared->chat, &message, 1, i ? &ids : first, &err) &&
                    detokenize(shared->tokenizer, first->id, first->count, true, &text, &err) && text.size > 0 &&
                    (i == 0 || (ids.count == first->count && memcmp(ids.id, first->id, ids.count * sizeof *ids.id) == 0));

        ids_fini(&ids);
        buf_fini(&text);
        if (!same) {
            ids_fini(first);
            free(first);
            first = NULL;
        }
    }
    return first;
}

static void test_threads_share_one_tokenizer(void **state)
{
    struct shared shared;
    pthread_t thread[THREADS];
    struct ids *got[THREADS];
    struct err err;

    (void)state;
    CHECK(tokenizer_load(&shared.tokenizer, SOURCE_DIR "/deploy/demo/model", &err));
    CHECK(chat_load(&shared.chat, shared.tokenizer, SOURCE_DIR "/deploy/demo/model", NULL, &err));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, talk, &shared) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;

        CHECK(pthread_join(thread[i], &result) == 0 && result);
        got[i] = result;
        CHECK(got[i]->count == got[0]->count && got[i]->count > 10);
        CHECK(memcmp(got[i]->id, got[0]->id, got[0]->count * sizeof got[0]->id[0]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ids_fini(got[i]);
        free(got[i]);
    }
    chat_free(shared.chat);
    tokenizer_free(shared.tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads_share_one_tokenizer) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
