/* Reads a stream on standard input and prints what the C decoder made of it, to be compared with another
 * decoder: one line for each accepted message (its type and sequence number), then the counts. */
#include <stdio.h>

#include "fusionnode_codec.h"

int main(void)
{
    static const char *const names[FN_VERDICTS] = {
        "", "accepted", "bad_cobs", "bad_crc", "too_long", "bad_length", "bad_version", "unknown_type", "bad_field",
    };
    struct fn_decoder decoder;
    union fn_message message;
    fn_decoder_init(&decoder);
    for (int c = getchar(); c != EOF; c = getchar()) {
        if (fn_decoder_push(&decoder, (uint8_t)c, &message) == FN_ACCEPTED)
            printf("message %u %lu\n", message.header.type, (unsigned long)message.header.seq);
    }
    for (int v = 1; v < FN_VERDICTS; v++)
        printf("%s %lu\n", names[v], (unsigned long)decoder.counts[v]);
    printf("rubbish_bytes %lu\n", (unsigned long)decoder.rubbish_bytes + decoder.used);
    return 0;
}
