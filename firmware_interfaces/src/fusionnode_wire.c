#include "fusionnode_codec.h"

/* ---- CRC and COBS ---- */

uint32_t fn_crc32(const uint8_t *data, size_t n)
{
    /* Four bits at a time: 64 bytes of table instead of 1 KiB. */
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ table[crc & 0xfu];
        crc = (crc >> 4) ^ table[crc & 0xfu];
    }
    return crc ^ 0xffffffffu;
}

size_t fn_cobs_encode(const uint8_t *data, size_t n, uint8_t *out)
{
    size_t code_at = 0;
    size_t end = 1;
    uint8_t code = 1;
    for (size_t i = 0; i < n; i++) {
        if (data[i] != 0) {
            out[end++] = data[i];
            code++;
        }
        if (data[i] == 0 || (code == 0xffu && i + 1 < n)) {
            out[code_at] = code;
            code_at = end++;
            code = 1;
        }
    }
    out[code_at] = code;
    return end;
}

size_t fn_cobs_decode(const uint8_t *data, size_t n, uint8_t *out)
{
    size_t size = 0;
    size_t i = 0;
    if (n == 0)
        return SIZE_MAX;
    while (i < n) {
        const uint8_t code = data[i];
        if (code == 0 || code > n - i)
            return SIZE_MAX;
        for (size_t k = 1; k < code; k++) {
            if (data[i + k] == 0)
                return SIZE_MAX;
            out[size++] = data[i + k];
        }
        i += code;
        if (code != 0xffu && i < n)
            out[size++] = 0;
    }
    return size;
}

size_t fn_frame(const uint8_t *message, size_t n, uint8_t out[FN_FRAME_SPACE])
{
    uint8_t plain[FN_MAX_MESSAGE + FN_CRC_SIZE];
    if (n > FN_MAX_MESSAGE)
        return 0;
    const uint32_t crc = fn_crc32(message, n);
    for (size_t i = 0; i < n; i++)
        plain[i] = message[i];
    for (size_t i = 0; i < FN_CRC_SIZE; i++)
        plain[n + i] = (uint8_t)(crc >> (8 * i));
    out[0] = 0;
    const size_t size = fn_cobs_encode(plain, n + FN_CRC_SIZE, out + 1);
    out[size + 1] = 0;
    return size + 2;
}

/* ---- messages ----
 * The structs have no unnamed padding, so the widths of the fields in order say all that is needed to go
 * between the host's byte order and the wire's. The tests hold these lists to the structs. */

#define HEADER 1, 1, 2, 4, 4, 2, 2, 8

static const uint8_t *widths(uint8_t type)
{
    static const uint8_t radar[] = {HEADER, 8, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 4, 0};
    static const uint8_t optical[] = {HEADER, 4, 4, 4, 4, 2, 2, 1, 1, 1, 1, 4, 4, 0};
    static const uint8_t status[] = {HEADER, 4, 4, 4, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 0};
    static const uint8_t time[] = {HEADER, 4, 4, 2, 1, 1, 1, 1, 1, 1, 0};
    static const uint8_t command[] = {HEADER, 4, 1, 1, 1, 1, 4, 4, 8, 4, 4, 8, 0};
    static const uint8_t ack[] = {HEADER, 4, 1, 1, 2, 8, 0};
    switch (type) {
    case FN_TYPE_RADAR: return radar;
    case FN_TYPE_OPTICAL: return optical;
    case FN_TYPE_STATUS: return status;
    case FN_TYPE_TIME: return time;
    case FN_TYPE_COMMAND: return command;
    case FN_TYPE_ACK: return ack;
    default: return 0;
    }
}

size_t fn_message_size(uint8_t type)
{
    size_t size = 0;
    for (const uint8_t *width = widths(type); width != 0 && *width != 0; width++)
        size += *width;
    return size;
}

/* A field as it lies in a struct, whatever the host's byte order. */
union word {
    uint8_t bytes[8];
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
};

static void to_wire(const uint8_t *width, const uint8_t *host, uint8_t *wire)
{
    for (; *width != 0; host += *width, wire += *width, width++) {
        union word word = {{0}};
        for (size_t i = 0; i < *width; i++)
            word.bytes[i] = host[i];
        const uint64_t value = *width == 1 ? word.u8 : *width == 2 ? word.u16 : *width == 4 ? word.u32 : word.u64;
        for (size_t i = 0; i < *width; i++)
            wire[i] = (uint8_t)(value >> (8 * i));
    }
}

static void from_wire(const uint8_t *width, const uint8_t *wire, uint8_t *host)
{
    for (; *width != 0; host += *width, wire += *width, width++) {
        union word word = {{0}};
        uint64_t value = 0;
        for (size_t i = 0; i < *width; i++)
            value |= (uint64_t)wire[i] << (8 * i);
        switch (*width) {
        case 1: word.u8 = (uint8_t)value; break;
        case 2: word.u16 = (uint16_t)value; break;
        case 4: word.u32 = (uint32_t)value; break;
        default: word.u64 = value; break;
        }
        for (size_t i = 0; i < *width; i++)
            host[i] = word.bytes[i];
    }
}

void fn_start(union fn_message *message, enum fn_type type, uint32_t sensor_id, uint32_t seq, int64_t t_ns)
{
    uint8_t *bytes = (uint8_t *)message;
    for (size_t i = 0; i < sizeof *message; i++)
        bytes[i] = 0;
    message->header.version = FN_WIRE_VERSION;
    message->header.type = (uint8_t)type;
    message->header.sensor_id = sensor_id;
    message->header.seq = seq;
    message->header.length = (uint16_t)fn_message_size((uint8_t)type);
    message->header.t_ns = t_ns;
}

size_t fn_encode(const union fn_message *message, uint8_t out[FN_FRAME_SPACE])
{
    uint8_t wire[sizeof *message];
    const uint8_t *width = widths(message->header.type);
    if (width == 0)
        return 0;
    to_wire(width, (const uint8_t *)message, wire);
    return fn_frame(wire, fn_message_size(message->header.type), out);
}

static int zero(const uint8_t *bytes, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= bytes[i];
    return any == 0;
}

static int time_ok(int64_t t_ns) { return t_ns >= 0 && t_ns < FN_TIME_LIMIT_NS; }

static int latitude_ok(int32_t lat) { return lat >= -FN_QUARTER_TURN_BAM32 && lat <= FN_QUARTER_TURN_BAM32; }

static int radar_ok(const struct fn_radar *m)
{
    const uint16_t valid = m->valid;
    return m->reserved == 0 && (valid & ~FN_VALID_ALL_RADAR) == 0
        && (valid & (FN_VALID_RANGE | FN_VALID_ANGLES)) != 0
        && ((valid & FN_VALID_RANGE) == 0 || m->range_mm > 0)
        && ((valid & FN_VALID_ANGLES) == 0 || latitude_ok(m->el_bam32));
}

static int optical_ok(const struct fn_optical *m)
{
    return zero(m->reserved, sizeof m->reserved) && (m->valid & ~FN_VALID_ALL_OPTICAL) == 0
        && (m->valid & FN_VALID_ANGLES) != 0 && m->coordinates <= FN_COORDINATES_AZEL && latitude_ok(m->lat_bam32);
}

static int fields_ok(const union fn_message *m)
{
    if (m->header.sensor_id == 0 || m->header.reserved != 0 || (m->header.flags & ~FN_FLAGS_ALL) != 0
        || !time_ok(m->header.t_ns))
        return 0;
    switch (m->header.type) {
    case FN_TYPE_RADAR:
        return radar_ok(&m->radar);
    case FN_TYPE_OPTICAL:
        return optical_ok(&m->optical);
    case FN_TYPE_STATUS:
        return zero(m->status.reserved, sizeof m->status.reserved) && m->status.mode <= FN_MODE_CALIBRATE
            && (m->status.health & ~FN_HEALTH_ALL) == 0;
    case FN_TYPE_TIME:
        return zero(m->time.reserved, sizeof m->time.reserved) && m->time.source <= FN_TIME_GNSS;
    case FN_TYPE_COMMAND: /* an unknown code is answered, not refused */
        return m->command.reserved == 0 && m->command.coordinates <= FN_COORDINATES_AZEL
            && latitude_ok(m->command.lat_bam32) && m->command.range_mm >= 0 && time_ok(m->command.until_ns);
    default:
        return m->ack.reserved == 0 && m->ack.result <= FN_RESULT_FAILED && time_ok(m->ack.received_ns);
    }
}

enum fn_verdict fn_message_decode(const uint8_t *data, size_t n, union fn_message *message)
{
    union fn_message decoded;
    if (n < FN_MIN_MESSAGE)
        return FN_BAD_LENGTH;
    if (data[0] != FN_WIRE_VERSION)
        return FN_BAD_VERSION;
    const uint8_t *width = widths(data[1]);
    if (width == 0)
        return FN_UNKNOWN_TYPE;
    if (n != fn_message_size(data[1]))
        return FN_BAD_LENGTH;
    from_wire(width, data, (uint8_t *)&decoded);
    if (decoded.header.length != n)
        return FN_BAD_LENGTH;
    if (!fields_ok(&decoded))
        return FN_BAD_FIELD;
    *message = decoded;
    return FN_ACCEPTED;
}

/* ---- stream ---- */

enum { SEEKING = 0, READING, SKIPPING }; /* before the first 0x00; inside a frame; in one already found too long */

void fn_decoder_init(struct fn_decoder *decoder)
{
    *decoder = (struct fn_decoder){0};
}

static enum fn_verdict frame_decode(const uint8_t *frame, size_t n, union fn_message *message)
{
    uint8_t plain[FN_MAX_FRAME];
    const size_t size = fn_cobs_decode(frame, n, plain);
    if (size == SIZE_MAX)
        return FN_BAD_COBS;
    if (size < FN_CRC_SIZE)
        return FN_BAD_CRC;
    const size_t length = size - FN_CRC_SIZE;
    uint32_t crc = 0;
    for (size_t i = 0; i < FN_CRC_SIZE; i++)
        crc |= (uint32_t)plain[length + i] << (8 * i);
    if (crc != fn_crc32(plain, length))
        return FN_BAD_CRC;
    return fn_message_decode(plain, length, message);
}

enum fn_verdict fn_decoder_push(struct fn_decoder *decoder, uint8_t byte, union fn_message *message)
{
    enum fn_verdict verdict = FN_NOTHING;
    if (byte == 0) {
        if (decoder->state == READING && decoder->used > 0)
            verdict = frame_decode(decoder->frame, decoder->used, message);
        decoder->state = READING;
        decoder->used = 0;
    } else if (decoder->state == SEEKING) {
        decoder->rubbish_bytes++;
    } else if (decoder->state == READING) {
        if (decoder->used < FN_MAX_FRAME) {
            decoder->frame[decoder->used++] = byte;
        } else {
            decoder->state = SKIPPING;
            decoder->used = 0;
            verdict = FN_TOO_LONG;
        }
    }
    if (verdict != FN_NOTHING)
        decoder->counts[verdict]++;
    return verdict;
}
