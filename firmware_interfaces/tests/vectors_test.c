/* Holds the C codec to the golden vectors.   vectors_test FOLDER/NAME ...   reads NAME.toml and NAME.hex.
 *
 * Of each vector: the frames decode to the counts and fields that the .toml lists, and (for one message)
 * the fields encode to the bytes of the .hex. Exit 0 if all hold. This is a host program and may use libc. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fusionnode_codec.h"

struct field {
    int type; /* enum fn_type; 0: header */
    const char *name;
    size_t offset;
    size_t size;
    int is_signed;
};

#define SIGNED(x) _Generic((x), int8_t: 1, int16_t: 1, int32_t: 1, int64_t: 1, default: 0)
#define FIELD(type, s, f) {type, #f, offsetof(struct s, f), sizeof(((struct s *)0)->f), SIGNED(((struct s *)0)->f)}
#define HEADER(f) {0, "header." #f, offsetof(struct fn_header, f), sizeof(((struct fn_header *)0)->f), \
                   SIGNED(((struct fn_header *)0)->f)}
#define RADAR(f) FIELD(FN_TYPE_RADAR, fn_radar, f)
#define OPTICAL(f) FIELD(FN_TYPE_OPTICAL, fn_optical, f)
#define STATUS(f) FIELD(FN_TYPE_STATUS, fn_status, f)
#define TIME(f) FIELD(FN_TYPE_TIME, fn_time, f)
#define COMMAND(f) FIELD(FN_TYPE_COMMAND, fn_command, f)
#define ACK(f) FIELD(FN_TYPE_ACK, fn_ack, f)

static const struct field fields[] = {
    HEADER(version), HEADER(type), HEADER(flags), HEADER(sensor_id), HEADER(seq), HEADER(length),
    HEADER(reserved), HEADER(t_ns),
    RADAR(range_mm), RADAR(az_bam32), RADAR(el_bam32), RADAR(range_rate_mm_s), RADAR(range_sigma_mm),
    RADAR(az_sigma_nrad), RADAR(el_sigma_nrad), RADAR(range_rate_sigma_mm_s), RADAR(snr_cdb),
    RADAR(rcs_cdbsm), RADAR(valid), RADAR(reserved), RADAR(target),
    OPTICAL(lon_bam32), OPTICAL(lat_bam32), OPTICAL(lon_sigma_nrad), OPTICAL(lat_sigma_nrad),
    OPTICAL(magnitude_mmag), OPTICAL(valid), OPTICAL(coordinates), OPTICAL(exposure_us), OPTICAL(target),
    STATUS(uptime_s), STATUS(detections_sent), STATUS(detections_dropped), STATUS(frames_bad),
    STATUS(commands_received), STATUS(health), STATUS(temperature_cdeg), STATUS(mode),
    TIME(sigma_ns), TIME(frequency_ppb), TIME(tai_minus_utc_s), TIME(source),
    COMMAND(command_id), COMMAND(code), COMMAND(argument), COMMAND(coordinates), COMMAND(reserved),
    COMMAND(lon_bam32), COMMAND(lat_bam32), COMMAND(range_mm), COMMAND(lon_sigma_nrad),
    COMMAND(lat_sigma_nrad), COMMAND(until_ns),
    ACK(command_id), ACK(code), ACK(result), ACK(reserved), ACK(received_ns),
};

static const char *const verdicts[FN_VERDICTS] = {
    "", "accepted", "bad_cobs", "bad_crc", "too_long", "bad_length", "bad_version", "unknown_type", "bad_field",
};

static const struct field *field_named(int type, const char *name)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if ((fields[i].type == 0 || fields[i].type == type) && strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

static int64_t get(const union fn_message *m, const struct field *f)
{
    const uint8_t *at = (const uint8_t *)m + f->offset;
    uint8_t u8; uint16_t u16; uint32_t u32; int64_t i64;
    switch (f->size) {
    case 1: memcpy(&u8, at, 1); return f->is_signed ? (int8_t)u8 : u8;
    case 2: memcpy(&u16, at, 2); return f->is_signed ? (int16_t)u16 : u16;
    case 4: memcpy(&u32, at, 4); return f->is_signed ? (int32_t)u32 : (int64_t)u32;
    default: memcpy(&i64, at, 8); return i64;
    }
}

static void set(union fn_message *m, const struct field *f, int64_t value)
{
    uint8_t *at = (uint8_t *)m + f->offset;
    const uint8_t u8 = (uint8_t)value;
    const uint16_t u16 = (uint16_t)value;
    const uint32_t u32 = (uint32_t)value;
    switch (f->size) {
    case 1: memcpy(at, &u8, 1); break;
    case 2: memcpy(at, &u16, 2); break;
    case 4: memcpy(at, &u32, 4); break;
    default: memcpy(at, &value, 8); break;
    }
}

static size_t read_hex(const char *path, uint8_t *out, size_t room)
{
    FILE *file = fopen(path, "r");
    size_t n = 0;
    int high = -1;
    int comment = 0;
    if (file == NULL)
        return 0;
    for (int c = fgetc(file); c != EOF; c = fgetc(file)) {
        const char *digits = "0123456789abcdef";
        const char *digit = c > 0 ? strchr(digits, c) : NULL;
        if (c == '#' || c == '\n')
            comment = c == '#';
        if (comment || digit == NULL)
            continue;
        const int value = (int)(digit - digits);
        if (high < 0) {
            high = value;
        } else if (n < room) {
            out[n++] = (uint8_t)(high * 16 + value);
            high = -1;
        }
    }
    fclose(file);
    return n;
}

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            printf("%s: ", name); \
            printf(__VA_ARGS__); \
            printf("\n"); \
            faults++; \
        } \
    } while (0)

static int check_vector(const char *name)
{
    char path[4096];
    char line[1024];
    uint8_t bytes[4096];
    int faults = 0;
    uint32_t expected[FN_VERDICTS + 1] = {0};
    union fn_message decoded = {0};
    union fn_message built = {0};
    struct fn_decoder decoder;
    int in_expect = 0;
    int in_message = 0;
    int listed = 0;

    snprintf(path, sizeof path, "%s.hex", name);
    const size_t n = read_hex(path, bytes, sizeof bytes);
    CHECK(n > 0, "no bytes in the .hex file");
    fn_decoder_init(&decoder);
    for (size_t i = 0; i < n; i++)
        fn_decoder_push(&decoder, bytes[i], &decoded);

    snprintf(path, sizeof path, "%s.toml", name);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, "no .toml file");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char key[64];
        int64_t value;
        if (line[0] == '[') {
            in_expect = strncmp(line, "[expect]", 8) == 0;
            in_message = strncmp(line, "[message]", 9) == 0;
            continue;
        }
        /* Bare or quoted key, integer value; everything else in the file is not for this program. */
        if (sscanf(line, line[0] == '"' ? "\"%63[^\"]\" = %" SCNd64 : "%63s = %" SCNd64, key, &value) != 2)
            continue;
        if (in_expect) {
            int known = strcmp(key, "rubbish_bytes") == 0;
            if (known)
                expected[FN_VERDICTS] = (uint32_t)value;
            for (int v = 1; v < FN_VERDICTS; v++) {
                if (strcmp(key, verdicts[v]) == 0) {
                    expected[v] = (uint32_t)value;
                    known = 1;
                }
            }
            CHECK(known, "unknown expectation %s", key);
        } else if (in_message) {
            const struct field *field = field_named(built.header.type, key);
            if (field == NULL && fn_message_size(built.header.type) == 0)
                field = field_named(FN_TYPE_RADAR, key);
            CHECK(field != NULL, "unknown field %s", key);
            if (field == NULL)
                continue;
            listed++;
            set(&built, field, value);
            CHECK(get(&built, field) == value, "%s = %" PRId64 " does not fit", key, value);
            CHECK(decoder.counts[FN_ACCEPTED] == 0 || get(&decoded, field) == value,
                  "%s is %" PRId64 ", expected %" PRId64, key, get(&decoded, field), value);
        }
    }
    if (file != NULL)
        fclose(file);
    for (int v = 1; v < FN_VERDICTS; v++)
        CHECK(decoder.counts[v] == expected[v], "%u %s, expected %u", decoder.counts[v], verdicts[v], expected[v]);
    const uint32_t rubbish = decoder.rubbish_bytes + decoder.used;
    CHECK(rubbish == expected[FN_VERDICTS], "%u rubbish bytes, expected %u", rubbish, expected[FN_VERDICTS]);
    if (listed > 0 && fn_message_size(built.header.type) > 0) {
        uint8_t frame[FN_FRAME_SPACE];
        const size_t size = fn_encode(&built, frame);
        CHECK(size == n && memcmp(frame, bytes, n) == 0, "the fields do not encode to the bytes");
    }
    return faults;
}

int main(int argc, char **argv)
{
    int faults = 0;
    const uint8_t check_value[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
    if (fn_crc32(check_value, sizeof check_value) != 0xcbf43926u) {
        printf("fn_crc32 is not CRC-32\n");
        faults++;
    }
    for (int i = 1; i < argc; i++)
        faults += check_vector(argv[i]);
    printf("%d vectors, %d faults\n", argc - 1, faults);
    return faults == 0 ? 0 : 1;
}
