/* pipeline - jobs that follow from documents and from other jobs' results, without a state of its own.
 *
 * A pipeline is a consumer: it makes the same jobs from the same documents every time, under ids that are digests of
 * what is asked, so a job that exists is not done again; and it reads results by id.  Killed anywhere and started again
 * it asks for the same jobs and is given what there is.  The output is written from its start each time, in the order of
 * documents, so it ends with the same bytes.
 *
 * A *unit* is one document's way: the owner's callbacks submit its jobs and are given its results, level by level, and
 * finish it.  A bounded number of units and jobs is under way at once; units are finished in order. */

#ifndef CLIENT_PIPELINE_H
#define CLIENT_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "client/hall.h"

enum { PIPELINE_UNITS = 512, PIPELINE_JOBS = 4096 };

#endif
