/* Any bytes as the text of a chat template: recognised or not. */
#include "worker/model/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    chat_recognise(span_of(data, size));
    return 0;
}
