/* request - what one line of a batch file asks for.
 *
 *     {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
 *
 * The client checks every line with it before anything runs; the worker reads the stored body with it
 * again.  It needs no model: what depends on one (ids that exist, the context's length) is the worker's
 * to check.  Nothing is ignored: a field that is not listed here is refused by its name.  A field that
 * is null counts as absent; so does a null in one that other services know and this one does not ("tools").
 *
 *   both         model (any string; echoed, never refused), max_tokens, temperature 0..2 (1),
 *                top_p 0..1 (1), top_k >= 0 (0 and -1: off), min_p 0..1 (0: off), seed (64 bits, signed),
 *                presence_penalty and frequency_penalty -2..2 (0), repetition_penalty 0.01..10 (1),
 *                logit_bias ({"id": -100..100}, at most 1024), n 1..64 (1), stop (a string, or 1..16 of them,
 *                each 1..512 bytes), stop_token_ids (at most 64), ignore_eos (bool), repetition_detection,
 *                stream (only false), and what the output has to be: at most one of response_format,
 *                guided_json, guided_choice, guided_regex, structured_outputs
 *   chat         messages, max_completion_tokens (another name of max_tokens), logprobs (bool),
 *                top_logprobs 0..20 (with logprobs)
 *   completions  prompt (a string, or token ids), echo (bool), logprobs 0..20
 *
 * max_tokens is at least 1; with echo it may be 0: then the prompt is scored and nothing generated.
 *
 * repetition_detection is {"max_pattern_size": 0..1024 (0: off), "min_pattern_size": 1..max (1),
 * "min_count": 2..1024}: the answer ends, with finish_reason "repetition", as soon as its last tokens are
 * min_count times the same min..max tokens.  Where the output has a form it is not cut but brought to its
 * shortest end.
 *
 * The form of the output:
 *
 *     "response_format": {"type": "text"}                      none
 *     "response_format": {"type": "json_object"}               any JSON object
 *     "response_format": {"type": "json_schema", "json_schema": {"schema": {...}, "strict": false,
 *                         "name": "...", "description": "..."}}
 *     "guided_json": {...} or the same as a string             a JSON Schema
 *     "guided_choice": ["yes", "no"]                           one of these texts
 *     "guided_regex": "..."                                    the whole output matches
 *     "structured_outputs": {"json" | "choice" | "regex" | "json_object": ...}   the same by newer names
 *
 * strict: objects whose schema says nothing of additionalProperties take none; else they take any, as the
 * standard says.  name and description are for the reader.  What a schema may hold is the worker's to
 * check.  A form goes together with everything but stop and stop_token_ids, which could cut it.
 *
 * The canonical body sorts the keys of every object, so that their order makes no other job - but not in a
 * schema, where the order of properties is the order in which they are generated: there all objects keep the
 * order in which they were written (and integers beyond 64 bits, which only a schema may have, stand as they
 * stood).  The same schema with its keys in another order is another request, with another digest and
 * another seed. */

#ifndef PROTO_REQUEST_H
#define PROTO_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"

enum {
    REQUEST_LINE_MAX = 16 * 1024 * 1024, /* bytes of a line */
    REQUEST_DEPTH_MAX = 160,      /* of nested arrays and objects: a schema of 64 levels has two a level */
    REQUEST_VALUES_MAX = 1 << 21, /* JSON values in a line: they take memory before they are judged */
    REQUEST_ID_MAX = 512,         /* bytes of a custom_id */
    REQUEST_MESSAGES_MAX = 4096,
    REQUEST_PROMPT_IDS_MAX = 1 << 20,
    REQUEST_STOP_MAX = 16,
    REQUEST_STOP_BYTES_MAX = 512,
    REQUEST_TOP_LOGPROBS_MAX = 20,
    REQUEST_COMPLETION_TOKENS = 16, /* a completion without max_tokens */
    REQUEST_BIAS_MAX = 1024,
    REQUEST_CHOICES_MAX = 64, /* n */
    REQUEST_STOP_IDS_MAX = 64,
    REQUEST_PATTERN_MAX = 1024,           /* tokens of a repeated pattern, and its repeats */
    REQUEST_FORM_BYTES_MAX = 1024 * 1024, /* a schema, or all texts to choose from */
    REQUEST_REGEX_BYTES_MAX = 4096,
    REQUEST_FORM_TEXTS_MAX = 1 << 14, /* of a guided_choice */
};

enum request_kind { REQUEST_CHAT, REQUEST_COMPLETION };

enum request_role { REQUEST_SYSTEM, REQUEST_USER, REQUEST_ASSISTANT };

struct request_message {
    enum request_role role;
    struct span content; /* may hold U+0000 and be empty; parts of type text are joined */
};

struct request_bias {
    int32_t id; /* not negative, else unchecked */
    float bias;
};

enum request_form {
    REQUEST_FREE,
    REQUEST_JSON_OBJECT,
    REQUEST_SCHEMA, /* form_text: the schema, as it stands in the body; or the string that was given */
    REQUEST_CHOICE, /* form_text: a JSON array of at least one string */
    REQUEST_REGEX,  /* form_text: the pattern */
};

/* All it points to is in the arena given (or, the custom_id of request_read_body, the caller's). */
struct request {
    enum request_kind kind;
    struct span custom_id;
    struct span url;
    struct span body;  /* canonical: keys sorted, no spaces, UTF-8: what is stored, sent and compared */
    struct span model; /* as given; empty when absent */

    struct request_message *message; /* chat */
    size_t message_count;

    struct span prompt; /* completions, when prompt_id is NULL */
    int32_t *prompt_id; /* completions: not negative, else unchecked */
    size_t prompt_id_count;

    int32_t max_tokens; /* -1: to the end of the context (chat without max_tokens) */
    double temperature; /* 0: greedy */
    double top_p;       /* 0: as if only the likeliest token were left */
    int32_t top_k;      /* 0: off */
    int64_t seed;       /* given, or derived: see request_seed */
    bool seed_given;
    struct span *stop;
    size_t stop_count;
    bool logprobs;
    int32_t top_logprobs; /* 0..20; 0 with logprobs: the chosen token's only */
    bool echo;
    const char *tokens_field; /* by which name max_tokens came; NULL: by none */

    double min_p;                               /* 0: off */
    double presence_penalty, frequency_penalty; /* 0: off */
    double repetition_penalty;                  /* 1: off */
    struct request_bias *bias;                  /* ids ascending, each once */
    size_t bias_count;
    int32_t choices; /* n */
    int32_t *stop_id;
    size_t stop_id_count;
    bool ignore_eos;
    int32_t pattern_max, pattern_min, pattern_count; /* repetition_detection; pattern_max 0: off */

    enum request_form form;
    struct span form_text;
    bool form_closed;       /* strict */
    const char *form_field; /* "response_format", "guided_json", ...; NULL with REQUEST_FREE */
};

/* Why a request was refused, in the words of an OpenAI error. */
struct request_fault {
    int status_code;            /* 400; 413 for a line that is too long */
    const char *code;           /* "invalid_json", "unsupported_parameter", "invalid_value", ... a literal */
    char param[128];            /* "max_tokens", "messages[2].role"; empty when no field is to blame */
    char message[ERR_TEXT_MAX]; /* names the field, what was expected and what was found */
};

/* Returns false, so that a failing path is one line.  param may be NULL. */
bool request_fault_set(struct request_fault *fault, int status_code, const char *code, const char *param,
                       const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Appends {"error":{"message","type":"invalid_request_error","param","code"}}. */
bool request_fault_write(const struct request_fault *fault, struct buf *out);

/* One line, without its end.  On false, request->custom_id is still set where the line had a good one,
 * and request->url where it was a string.  The arena takes about twice the line. */
bool request_read(struct arena *arena, struct span line, struct request *request,
                  struct request_fault *fault);

/* A body by itself, as a job carries it. */
bool request_read_body(struct arena *arena, struct span url, struct span custom_id, struct span body,
                       struct request *request, struct request_fault *fault);

/* The seed of a request that names none: the first 8 bytes, little-endian and without the top bit, of
 * BLAKE2b-256 over the canonical body, a zero byte and the custom_id.  So the same line always draws the
 * same, and two lines that ask the same do not. */
int64_t request_seed(struct span body, struct span custom_id);

/* The first 16 bytes of BLAKE2b-512, in hex: over the batch's name, a zero byte and the custom_id; for a line
 * that has no good custom_id of its own, over the batch's name, two zero bytes and the line number in
 * decimal. */
enum { REQUEST_JOB_ID_SIZE = 33 };
void request_job_id(char id[REQUEST_JOB_ID_SIZE], struct span batch, struct span custom_id);
void request_line_id(char id[REQUEST_JOB_ID_SIZE], struct span batch, uint64_t line);

/* BLAKE2b-256 of url, a zero byte, the custom_id, a zero byte and the canonical body: two jobs of one id with
 * different digests are a conflict. */
void request_digest(uint8_t digest[32], const struct request *request);

#endif
