#include "worker/settings.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const weights_choices[] = { "auto", "f32", "bf16", "q8", "q4", NULL };
static const char *const log_choices[] = { "text", "json", NULL };
static const char *const level_choices[] = { "debug", "info", "warn", "error", "quiet", NULL };

#define TEXT(member)                                                                                         \
    FIELD_TEXT, offsetof(struct settings, member), sizeof((struct settings *)0)->member, 0, 0, NULL
#define NUMBER(kind, member, low, high) kind, offsetof(struct settings, member), 0, low, high, NULL
#define CHOICE(member, choices)         FIELD_CHOICE, offsetof(struct settings, member), 0, 0, 0, choices

const struct field settings_fields[] = {
    { "broker", TEXT(broker), "endpoint of the broker: tcp://HOST:PORT or ipc:///PATH" },
    { "model", TEXT(model), "directory of the model (Hugging Face layout)" },
    { "weights", CHOICE(weights, weights_choices),
      "format computed in: f32 or bf16 (auto: what the checkpoint has)" },
    { "threads", NUMBER(FIELD_INT, threads, 0, 256), "compute threads (0: one a core)" },
    { "name", TEXT(name), "name in the hall; who comes with the name of one that is gone takes its seats" },
    { "exchange", TEXT(exchange), "endpoint to bind for other workers" },
    { "advertise", TEXT(advertise), "endpoint that other workers connect to, where it differs" },
    { "memory", NUMBER(FIELD_BYTES, memory, 0, INT64_C(1) << 50),
      "memory offered for experts (0: three quarters of the machine's)" },
    { "cache", NUMBER(FIELD_BYTES, cache, 0, INT64_C(1) << 50),
      "memory of the latent cache (0: enough for the sequences, at most 4 GiB)" },
    { "exchange_bytes_max", NUMBER(FIELD_BYTES, exchange_bytes_max, 2 << 20, INT64_C(1) << 40),
      "memory for rows under way between workers" },
    { "sequences", NUMBER(FIELD_INT, sequences, 1, 1024), "generations in progress at once" },
    { "batch_tokens", NUMBER(FIELD_INT, batch_tokens, 1, 4096),
      "rows of one step: prompt chunks and single tokens together" },
    { "chat_template", TEXT(chat_template),
      "v2, v2.5, v3 or v3-0324 (default: recognised from the model's files)" },
    { "control_fd", NUMBER(FIELD_INT, control_fd, -1, 1 << 20),
      "end when this descriptor is closed at its other end" },
    { "lock_fd", NUMBER(FIELD_INT, lock_fd, -1, 1 << 20), "a descriptor to keep open: it holds a lock" },
    { "log", CHOICE(log, log_choices), "text or json" },
    { "log_level", CHOICE(log_level, level_choices), "debug, info, warn, error or quiet" },
    { "config", TEXT(config), "a YAML file with these keys" },
};
const int settings_field_count = sizeof settings_fields / sizeof *settings_fields;

static const struct settings defaults = {
    .sequences = 64,
    .batch_tokens = 512,
    .exchange_bytes_max = 256 << 20,
    .control_fd = -1,
    .lock_fd = -1,
    .log_level = 1,
};

bool settings_read(struct settings *settings, int argc, char **argv, struct err *err)
{
    *settings = defaults;
    if (!yaml_fields_settings(settings_fields, settings_field_count, argc, argv, settings, sizeof *settings, err))
        return false;
    if (!settings->broker[0])
        return err_set(err, ERR_INPUT,
                       "no broker: expected --broker ENDPOINT, or `broker` in the --config file");
    if (!settings->model[0])
        return err_set(err, ERR_INPUT, "no model: expected --model DIR, or `model` in the --config file");
    if (settings->weights == SETTINGS_Q8 || settings->weights == SETTINGS_Q4)
        return err_set(err, ERR_INPUT,
                       "--weights %s: quantised weights are not built yet; expected f32 or bf16",
                       weights_choices[settings->weights]);
    if (!settings->name[0]) {
        char host[40] = "worker";

        gethostname(host, sizeof host - 1);
        snprintf(settings->name, sizeof settings->name, "%s-%d", host, (int)getpid());
    }
    return true;
}

const struct manual settings_manual = {
    .program = "moothall-worker",
    .what = "computes the jobs of a hall, and lends its experts to the other workers",
    .words = "--broker ENDPOINT --model DIR [flags]",
    .example = "# two workers on one machine, beside a broker on port 7500\n"
               "moothall-worker --broker tcp://127.0.0.1:7500 --model DeepSeek-V2-Lite-Chat --threads 8 --name left &\n"
               "moothall-worker --broker tcp://127.0.0.1:7500 --model DeepSeek-V2-Lite-Chat --threads 8 --name right &",
    .status = "0 told to leave; 1 it could not be done; 3 the model cannot be loaded; 4 the broker refused it.",
    .fields = settings_fields,
    .field_count = sizeof settings_fields / sizeof *settings_fields,
    .keys = true,
};
