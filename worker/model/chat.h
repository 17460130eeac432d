/* chat - a conversation as the ids the model was trained to continue.
 *
 * The family has few templates and they are written here by name; Jinja is not run.  Which one a
 * model uses is recognised from the text of its chat_template (tokenizer_config.json, a string or a
 * list of {name, template}, or the file chat_template.jinja); an unknown text is an error that says
 * how to choose, but only for who asks for chat.
 *
 *   v2       <bos>{system}\n\nUser: {user}\n\nAssistant: {assistant}<eos>User: ...\n\nAssistant:
 *   v2.5     <bos>{system}<｜User｜>{user}<｜Assistant｜>{assistant}<eos><｜User｜>...<｜Assistant｜>
 *            the system text stands in front wherever it was said; the last one holds
 *   v3       as v2.5, several system texts joined by a blank line
 *   v3-0324  as v3, <｜Assistant｜> follows each user text, not each assistant text
 *
 * The whole is tokenized as one text.  In what a message says only added tokens match that are not
 * control tokens (tokenizer.h), so nobody can forge a turn or an end of text.  Nothing is trimmed.
 * A conversation that ends with the assistant's turn gets that turn closed and a new one opened, as
 * the templates do: the model answers anew, it does not go on with the text. */

#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include "worker/model/tokenizer.h"

struct chat;

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT };

struct chat_message {
    enum chat_role role;
    struct span content;
};

/* template_name: "v2", "v2.5", "v3", "v3-0324", or NULL to recognise it from the files in dir.
 * Keeps tokenizer, which must outlive it.  ERR_INPUT when the template is not known or none is there
 * (the text says how to choose one), or when the tokenizer lacks a token that the template needs. */
bool chat_load(struct chat **chat, const struct tokenizer *tokenizer, const char *dir,
               const char *template_name, struct err *err);
void chat_free(struct chat *chat);
const char *chat_name(const struct chat *chat);

/* The name of the template with this Jinja text, or NULL. */
const char *chat_recognise(struct span jinja);

/* Appends the conversation and the opening of the assistant's next turn.  bos stands once, in front. */
bool chat_render(const struct chat *chat, const struct chat_message *message, size_t message_count,
                 struct ids *ids, struct err *err);

#endif
