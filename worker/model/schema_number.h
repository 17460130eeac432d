/* schema_number - the numbers between two bounds that are multiples of a step, as they are written. */

#ifndef MODEL_SCHEMA_NUMBER_H
#define MODEL_SCHEMA_NUMBER_H

#include "worker/model/dfa.h"
#include "worker/model/schema_tree.h"

struct number_form { /* zero: any number */
    bool integer;
    const struct decimal *low, *high; /* NULL: none */
    bool low_open, high_open;
    struct decimal_step step;
};

/* And what this schema says.  False: the steps have no common multiple that fits. */
bool number_add(struct number_form *number, const struct schema *schema);

/* Integers where the step or `integer` says so, else with a fraction where they need one. */
bool number_texts(struct dfa **texts, const struct number_form *number, struct err *err);

#endif
