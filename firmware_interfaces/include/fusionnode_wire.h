/* fusionnode sensor interface, version 1.
 *
 * This header is the single source of truth for the bytes between a sensor and the node.
 * ICD.md, one folder up, says the same in prose; a test compiles this file and holds the node's tables to it.
 *
 * Every struct is little-endian and naturally aligned, integers only, with no padding that is not named.
 * A message is the struct, followed by its CRC-32 (IEEE 802.3, as zlib's crc32) as little-endian uint32;
 * both together are COBS-encoded, and sent between two 0x00 bytes:   0x00  COBS(message, CRC)  0x00
 *
 * Angles "_bam32" are binary angles: 2^32 units to a full turn. Unsigned: 0 to one turn. Signed: -half to +half.
 * Sigmas are 1 sigma; a sigma of 0 means "use what the node's configuration says".
 * Sigmas of azimuth and right ascension are on the sky: sigma(azimuth) * cos(elevation).
 *
 * Reserved fields and bits that have no name here are sent as 0; a message with one set is refused (bad field).
 * A field whose valid bit is clear is sent as 0 and not looked at.
 */
#ifndef FUSIONNODE_WIRE_H
#define FUSIONNODE_WIRE_H

#include <stdint.h>

#define FN_WIRE_VERSION 1u
#define FN_MAX_MESSAGE 240u              /* struct, without CRC */
#define FN_MIN_MESSAGE 24u               /* a bare header */
#define FN_CRC_SIZE 4u
#define FN_MAX_FRAME (FN_MAX_MESSAGE + FN_CRC_SIZE + 1u) /* COBS output, without the two 0x00 */

#define FN_QUARTER_TURN_BAM32 0x40000000 /* 90 degrees */
#define FN_TIME_LIMIT_NS INT64_C(0x4000000000000000) /* every t_ns is in 0 .. limit - 1 (1970 .. 2116) */

enum fn_type {
    FN_TYPE_RADAR = 1,      /* sensor -> node */
    FN_TYPE_OPTICAL = 2,    /* sensor -> node */
    FN_TYPE_STATUS = 3,     /* sensor -> node, at least every 5 s */
    FN_TYPE_TIME = 4,       /* sensor -> node */
    FN_TYPE_COMMAND = 16,   /* node -> sensor */
    FN_TYPE_ACK = 17        /* sensor -> node, one for each command */
};

/* fn_header.flags */
#define FN_FLAG_TIME_LOCKED 0x0001u      /* t_ns is disciplined by a time source now */
#define FN_FLAG_SIMULATED 0x0002u        /* produced by an emulator or in a test mode */
#define FN_FLAG_CALIBRATION 0x0004u      /* the sensor believes this is a calibration object */
#define FN_FLAGS_ALL 0x0007u

struct fn_header {                       /* 24 bytes */
    uint8_t version;                     /* FN_WIRE_VERSION */
    uint8_t type;                        /* enum fn_type */
    uint16_t flags;
    uint32_t sensor_id;                  /* as configured at the node; never 0 */
    uint32_t seq;                        /* one more for each message of this sensor, wraps */
    uint16_t length;                     /* of the whole message, header included, CRC not */
    uint16_t reserved;                   /* 0 */
    int64_t t_ns;                        /* TAI ns since 1970-01-01T00:00:00 TAI (GPS + 19 s) */
};

/* fn_radar.valid, fn_optical.valid */
#define FN_VALID_RANGE 0x0001u
#define FN_VALID_ANGLES 0x0002u
#define FN_VALID_RANGE_RATE 0x0004u
#define FN_VALID_SNR 0x0008u
#define FN_VALID_RCS 0x0010u
#define FN_VALID_MAGNITUDE 0x0020u
#define FN_VALID_ALL_RADAR 0x001fu       /* a radar detection has range or angles at least */
#define FN_VALID_ALL_OPTICAL 0x0022u     /* an optical detection always has angles */

struct fn_radar {                        /* 72 bytes */
    struct fn_header header;             /* t_ns: the moment range and angles are valid for */
    int64_t range_mm;                    /* > 0 */
    uint32_t az_bam32;                   /* from true north towards east, geodetic horizon */
    int32_t el_bam32;                    /* above the geodetic horizon, -quarter to +quarter turn */
    int32_t range_rate_mm_s;             /* positive: going away */
    uint32_t range_sigma_mm;
    uint32_t az_sigma_nrad;              /* on the sky */
    uint32_t el_sigma_nrad;
    uint32_t range_rate_sigma_mm_s;
    int16_t snr_cdb;                     /* 0.01 dB */
    int16_t rcs_cdbsm;                   /* 0.01 dB over 1 m^2 */
    uint16_t valid;
    uint16_t reserved;                   /* 0 */
    uint32_t target;                     /* the sensor's own number for what it follows; 0: none */
};

enum fn_coordinates {
    FN_COORDINATES_RADEC = 0,            /* right ascension, declination: GCRF axes */
    FN_COORDINATES_AZEL = 1              /* azimuth, elevation: geodetic horizon */
};

struct fn_optical {                      /* 56 bytes */
    struct fn_header header;             /* t_ns: middle of the exposure */
    uint32_t lon_bam32;                  /* right ascension or azimuth */
    int32_t lat_bam32;                   /* declination or elevation */
    uint32_t lon_sigma_nrad;             /* on the sky */
    uint32_t lat_sigma_nrad;
    int16_t magnitude_mmag;              /* 0.001 mag */
    uint16_t valid;
    uint8_t coordinates;                 /* enum fn_coordinates */
    uint8_t reserved[3];                 /* 0 */
    uint32_t exposure_us;                /* 0: unknown */
    uint32_t target;
};

enum fn_mode {
    FN_MODE_OFF = 0,
    FN_MODE_STANDBY = 1,
    FN_MODE_SURVEY = 2,
    FN_MODE_TRACK = 3,
    FN_MODE_CALIBRATE = 4
};

/* fn_status.health: bit set = fault. Bits 8 to 15 are the maker's own. */
#define FN_HEALTH_TIME 0x0001u
#define FN_HEALTH_RECEIVER 0x0002u
#define FN_HEALTH_MOUNT 0x0004u
#define FN_HEALTH_TEMPERATURE 0x0008u
#define FN_HEALTH_QUEUE 0x0010u
#define FN_HEALTH_ALL 0xff1fu

struct fn_status {                       /* 56 bytes */
    struct fn_header header;
    uint32_t uptime_s;
    uint32_t detections_sent;            /* since boot; wraps */
    uint32_t detections_dropped;         /* lost in the sensor for want of room */
    uint32_t frames_bad;                 /* damaged frames received by the sensor */
    uint32_t commands_received;
    uint16_t health;
    int16_t temperature_cdeg;            /* 0.01 degC; INT16_MIN: not measured */
    uint8_t mode;                        /* enum fn_mode */
    uint8_t reserved[7];                 /* 0 */
};

enum fn_time_source {
    FN_TIME_FREE = 0,
    FN_TIME_NTP = 1,
    FN_TIME_PTP = 2,
    FN_TIME_GNSS = 3
};

struct fn_time {                         /* 40 bytes */
    struct fn_header header;             /* t_ns: device time when this was written */
    uint32_t sigma_ns;                   /* of t_ns against TAI, as the device believes; 0: unknown */
    int32_t frequency_ppb;               /* last estimated frequency error; 0 if free-running */
    int16_t tai_minus_utc_s;             /* as the device knows it; 0: unknown */
    uint8_t source;                      /* enum fn_time_source */
    uint8_t reserved[5];                 /* 0 */
};

enum fn_command_code {
    FN_COMMAND_PING = 1,
    FN_COMMAND_SET_MODE = 2,             /* argument: enum fn_mode */
    FN_COMMAND_CUE = 3,                  /* point there and look from header.t_ns until until_ns */
    FN_COMMAND_TIME_SYNC = 4             /* header.t_ns is the node's time now */
};

struct fn_command {                      /* 64 bytes */
    struct fn_header header;             /* t_ns: when it is to take effect */
    uint32_t command_id;                 /* chosen by the node, echoed in the acknowledgement */
    uint8_t code;                        /* enum fn_command_code */
    uint8_t argument;
    uint8_t coordinates;                 /* enum fn_coordinates, for CUE */
    uint8_t reserved;                    /* 0 */
    uint32_t lon_bam32;
    int32_t lat_bam32;
    int64_t range_mm;                    /* 0: unknown */
    uint32_t lon_sigma_nrad;             /* where to search; 0: point */
    uint32_t lat_sigma_nrad;
    int64_t until_ns;
};

enum fn_result {
    FN_RESULT_DONE = 0,
    FN_RESULT_ACCEPTED = 1,              /* will be done; an ACK with DONE or FAILED follows */
    FN_RESULT_REFUSED = 2,
    FN_RESULT_UNKNOWN = 3,               /* code not known to this sensor */
    FN_RESULT_FAILED = 4
};

struct fn_ack {                          /* 40 bytes */
    struct fn_header header;
    uint32_t command_id;
    uint8_t code;                        /* of the command */
    uint8_t result;                      /* enum fn_result */
    uint16_t reserved;                   /* 0 */
    int64_t received_ns;                 /* device time when the command's last byte came in */
};

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert(sizeof(struct fn_header) == 24, "fn_header");
_Static_assert(sizeof(struct fn_radar) == 72, "fn_radar");
_Static_assert(sizeof(struct fn_optical) == 56, "fn_optical");
_Static_assert(sizeof(struct fn_status) == 56, "fn_status");
_Static_assert(sizeof(struct fn_time) == 40, "fn_time");
_Static_assert(sizeof(struct fn_command) == 64, "fn_command");
_Static_assert(sizeof(struct fn_ack) == 40, "fn_ack");
#endif

#endif
