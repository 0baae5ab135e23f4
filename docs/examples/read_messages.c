/* Prints a file of messages (docs/WIRE.md, "Versions") as JSON, one a line: topic, payload. Any C99 compiler, no library. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t *p, *end; /* what is left of the payload */

static uint64_t number(uint64_t n) { /* n bytes, big-endian */
    uint64_t v = 0;
    if ((uint64_t)(end - p) < n) { fprintf(stderr, "cut off\n"); exit(1); }
    while (n--) v = v << 8 | *p++;
    return v;
}
static void text(uint64_t n, int hex) {
    putchar('"');
    while (n--) { int c = (int)number(1); printf(hex ? "%02x" : c < 32 ? "\\u%04x" : c == '"' || c == '\\' ? "\\%c" : "%c", c); }
    putchar('"');
}
static void value(int depth) { /* one msgpack value, printed as JSON */
    uint8_t b = (uint8_t)number(1), width = b & 3;
    uint64_t n = b < 0xc0 ? (b < 0xa0 ? b & 15 : b & 31) : 0;
    union { uint64_t u; double d; uint32_t w; float f; } x;
    int map = (b & 0xf0) == 0x80 || b >= 0xde, list = (b & 0xf0) == 0x90 || b == 0xdc || b == 0xdd;
    if (depth > 16 || b == 0xc1 || (b >= 0xc7 && b <= 0xc9) || (b >= 0xd4 && b <= 0xd8)) { fprintf(stderr, "not of this wire\n"); exit(1); }
    if (b < 0x80 || b >= 0xe0) printf("%d", (int8_t)b);
    else if (b == 0xc0) printf("null");
    else if (b == 0xc2 || b == 0xc3) printf(b == 0xc3 ? "true" : "false");
    else if (b >= 0xc4 && b <= 0xc6) text(number(1u << (b - 0xc4)), 1);
    else if (b == 0xca) x.w = (uint32_t)number(4), printf("%.9g", x.f);
    else if (b == 0xcb) x.u = number(8), printf("%.17g", x.d);
    else if (b >= 0xcc && b <= 0xcf) printf("%llu", (unsigned long long)number(1u << width));
    else if (b >= 0xd0 && b <= 0xd3) { int up = 64 - (8 << width); printf("%lld", (long long)((int64_t)(number(1u << width) << up) >> up)); }
    else if (b >= 0xd9 && b <= 0xdb) text(number(1u << (b - 0xd9)), 0);
    else if (!map && !list) text(n, 0);
    else {
        if (b >= 0xdc) n = number(b & 1 ? 4 : 2);
        for (putchar(map ? '{' : '['); n--; n ? putchar(',') : 0) { value(depth + 1); if (map) { putchar(':'); value(depth + 1); } }
        putchar(map ? '}' : ']');
    }
}
int main(int argc, char **argv) {
    uint8_t h[8], *m;
    FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!f) { fprintf(stderr, "usage: read_messages FILE\n"); return 2; }
    for (; fread(h, 1, 8, f) == 8; free(m)) { /* two lengths, little-endian; topic; payload */
        size_t topic = h[0] | h[1] << 8 | (size_t)h[2] << 16 | (size_t)h[3] << 24, all = topic + (h[4] | h[5] << 8 | (size_t)h[6] << 16 | (size_t)h[7] << 24);
        if (all > 1 << 20 || !(m = malloc(all + 1)) || fread(m, 1, all, f) != all) { fprintf(stderr, "cut off\n"); return 1; }
        printf("[\"%.*s\",", (int)topic, (char *)m);
        p = m + topic, end = m + all;
        value(0);
        printf("]\n");
    }
    return 0;
}
