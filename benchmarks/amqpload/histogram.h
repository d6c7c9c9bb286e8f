/* A log-linear histogram of nanoseconds, off by less than 1.6 %, and the clock that feeds it. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

#define HSUB 64

typedef struct {
    uint64_t n, max, sum;
    uint64_t c[60 * HSUB];
} hist;

static inline unsigned h_idx(uint64_t v) {
    if (v < HSUB)
        return (unsigned)v;
    int e = 63 - __builtin_clzll(v) - 6;
    return (unsigned)((e + 1) * HSUB + (int)((v >> e) - HSUB));
}

static inline uint64_t h_val(unsigned i) {
    if (i < HSUB)
        return i;
    int e = (int)(i / HSUB) - 1;
    return ((uint64_t)(i % HSUB) + HSUB) << e;
}

static inline void h_add(hist *h, uint64_t v) {
    h->n++;
    h->sum += v;
    if (v > h->max)
        h->max = v;
    h->c[h_idx(v)]++;
}

static inline void h_merge(hist *h, const hist *other) {
    h->n += other->n;
    h->sum += other->sum;
    if (other->max > h->max)
        h->max = other->max;
    for (int i = 0; i < 60 * HSUB; i++)
        h->c[i] += other->c[i];
}

static inline double h_pct(const hist *h, double q) {
    if (!h->n)
        return 0;
    uint64_t want = (uint64_t)(q * (double)h->n), s = 0;
    if (want >= h->n)
        want = h->n - 1;
    for (unsigned i = 0; i < 60 * HSUB; i++) {
        s += h->c[i];
        if (s > want)
            return (double)h_val(i) / 1e3;
    }
    return (double)h->max / 1e3;
}

static inline void h_json(FILE *f, const char *name, const hist *h) {
    fprintf(f,
            "\"%s\":{\"n\":%llu,\"mean\":%.1f,\"p50\":%.1f,\"p95\":%.1f,\"p99\":%.1f,\"p99_9\":%."
            "1f,\"max\":%.1f}",
            name, (unsigned long long)h->n, h->n ? (double)h->sum / (double)h->n / 1e3 : 0.0,
            h_pct(h, .5), h_pct(h, .95), h_pct(h, .99), h_pct(h, .999), (double)h->max / 1e3);
}
#endif
