/* moothall - the command.  What it can do is the table in verbs.c. */

#include "client/verbs.h"

int main(int argc, char **argv)
{
    return verbs_main(argc, argv);
}
