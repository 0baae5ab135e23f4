/* Portable encoder and decoder of the fusionnode sensor interface: C11, no allocation, no library calls.
 *
 * Sending:    union fn_message m;  fn_start(&m, FN_TYPE_RADAR, sensor_id, seq++, t_ns);  m.radar.range_mm = ...;
 *             uint8_t frame[FN_FRAME_SPACE];  size_t n = fn_encode(&m, frame);   -> write n bytes
 * Receiving:  struct fn_decoder d;  fn_decoder_init(&d);
 *             for each byte:  if (fn_decoder_push(&d, byte, &m) == FN_ACCEPTED) handle(&m);
 *
 * Values in struct fn_* are in the host's byte order; only bytes on the wire are little-endian.
 */
#ifndef FUSIONNODE_CODEC_H
#define FUSIONNODE_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "fusionnode_wire.h"

#define FN_FRAME_SPACE (FN_MAX_FRAME + 2u) /* room for any frame with its two 0x00 */

union fn_message {
    struct fn_header header;
    struct fn_radar radar;
    struct fn_optical optical;
    struct fn_status status;
    struct fn_time time;
    struct fn_command command;
    struct fn_ack ack;
};

/* What became of a frame. Counted one by one: frames seen = accepted + each reason. */
enum fn_verdict {
    FN_NOTHING = 0, /* no frame ended here; not counted */
    FN_ACCEPTED,
    FN_BAD_COBS,
    FN_BAD_CRC,
    FN_TOO_LONG,
    FN_BAD_LENGTH,
    FN_BAD_VERSION,
    FN_UNKNOWN_TYPE,
    FN_BAD_FIELD,
    FN_VERDICTS
};

/* CRC-32 of IEEE 802.3: reflected, polynomial 0x04C11DB7, init and final XOR 0xFFFFFFFF. */
uint32_t fn_crc32(const uint8_t *data, size_t n);

/* Writes n + n / 254 + 1 bytes at most; returns how many. */
size_t fn_cobs_encode(const uint8_t *data, size_t n, uint8_t *out);

/* Writes fewer than n bytes; returns how many, or SIZE_MAX if data is not COBS. */
size_t fn_cobs_decode(const uint8_t *data, size_t n, uint8_t *out);

/* 0x00 COBS(message, CRC) 0x00. Returns the frame's size, or 0 if n is beyond FN_MAX_MESSAGE. */
size_t fn_frame(const uint8_t *message, size_t n, uint8_t out[FN_FRAME_SPACE]);

/* Bytes of the message of one type, or 0 for a type that this version does not have. */
size_t fn_message_size(uint8_t type);

/* All zero but the header, which is complete. */
void fn_start(union fn_message *message, enum fn_type type, uint32_t sensor_id, uint32_t seq, int64_t t_ns);

/* The message as one frame. Returns the frame's size, or 0 for a type that this version does not have. */
size_t fn_encode(const union fn_message *message, uint8_t out[FN_FRAME_SPACE]);

/* A message without framing and CRC: FN_ACCEPTED and *message filled, or the reason why not. */
enum fn_verdict fn_message_decode(const uint8_t *data, size_t n, union fn_message *message);

struct fn_decoder {
    uint32_t counts[FN_VERDICTS];
    uint32_t rubbish_bytes;            /* before the first 0x00 */
    uint16_t used;
    uint8_t state;
    uint8_t frame[FN_MAX_FRAME];
};

void fn_decoder_init(struct fn_decoder *decoder);

/* Take one byte. FN_ACCEPTED: *message is a new, valid message. Anything else leaves *message alone. */
enum fn_verdict fn_decoder_push(struct fn_decoder *decoder, uint8_t byte, union fn_message *message);

#endif
