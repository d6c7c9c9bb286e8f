/* What the broker, this process and the machine have used, from /proc. */
#include "amqpload.h"

static double process_cpu(int pid, double *u, double *s) {
    char p[64], b[1024];
    snprintf(p, sizeof p, "/proc/%d/stat", pid);
    FILE *f = fopen(p, "r");
    if (!f)
        return 0;
    size_t n = fread(b, 1, sizeof b - 1, f);
    b[n] = 0;
    fclose(f);
    char *q = strrchr(b, ')');
    unsigned long ut = 0, st = 0;
    if (!q)
        return 0;
    sscanf(q + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st);
    double hz = (double)sysconf(_SC_CLK_TCK);
    *u = (double)ut / hz;
    *s = (double)st / hz;
    return *u + *s;
}

long process_rss_kb(int pid) {
    char p[64];
    snprintf(p, sizeof p, "/proc/%d/statm", pid);
    FILE *f = fopen(p, "r");
    if (!f)
        return 0;
    long a = 0, b = 0;
    if (fscanf(f, "%ld %ld", &a, &b) != 2)
        b = 0;
    fclose(f);
    return b * (sysconf(_SC_PAGESIZE) / 1024);
}

usage broker_usage(void) {
    usage r = {0, 0, 0};
    for (int i = 0; i < opt.pid_count; i++) {
        double u = 0, s = 0;
        process_cpu(opt.pids[i], &u, &s);
        r.utime += u;
        r.stime += s;
        r.rss_kb += process_rss_kb(opt.pids[i]);
    }
    return r;
}

double own_cpu_s(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)r.ru_utime.tv_sec + r.ru_utime.tv_usec / 1e6 + (double)r.ru_stime.tv_sec +
           r.ru_stime.tv_usec / 1e6;
}

/* busy seconds of all cores together */
double machine_busy_s(void) {
    FILE *f = fopen("/proc/stat", "r");
    if (!f)
        return 0;
    unsigned long long u = 0, n = 0, s = 0, i = 0, w = 0, q = 0, sq = 0, st = 0;
    if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &u, &n, &s, &i, &w, &q, &sq, &st) <
        8)
        u = 0;
    fclose(f);
    return (double)(u + n + s + q + sq + st) / (double)sysconf(_SC_CLK_TCK);
}

snap take(void) {
    snap s = {count.published, count.confirmed, count.received,   count.bytes,
              own_cpu_s(),     broker_usage(),  machine_busy_s(), now_ns()};
    return s;
}
