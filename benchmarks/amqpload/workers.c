/* Modes of threads that do one step after another: churn, declare, idle; and ping. */
#include "amqpload.h"
#include <pthread.h>

static volatile int go = 1;

typedef struct {
    pthread_t t;
    int i;
    hist h;
    uint64_t n, err;
    int declare;
} worker;

static void *w_main(void *arg) {
    worker *w = arg;
    conn c;
    memset(&c, 0, sizeof c);
    addr *a = &opt.publish_hosts[w->i % opt.publish_host_count];
    if (w->declare && open_session(&c, a, 1)) {
        w->err++;
        return 0;
    }
    while (go && (!opt.messages || w->n < opt.messages / (uint64_t)opt.concurrency)) {
        uint64_t t = now_ns();
        if (w->declare) {
            char q[160];
            sprintf(q, "%s.w%d.%llu", opt.prefix, w->i, (unsigned long long)w->n);
            if (declare_queue(&c, q)) {
                w->err++;
                fprintf(stderr, "declare: %s\n", last_error);
                break;
            }
        } else if (open_session(&c, a, 1)) {
            w->err++;
            usleep(1000);
            continue;
        } else {
            size_t f = m_begin(&c.out, 1, 20, 40);
            p16(&c.out, 200);
            pss(&c.out, "");
            p16(&c.out, 0);
            p16(&c.out, 0);
            fr_end(&c.out, f);
            if (flush_all(&c) || expect(&c, 20, 41, 0, 0)) {
                w->err++;
                close(c.fd);
                continue;
            }
            if (close_session(&c))
                w->err++;
        }
        h_add(&w->h, now_ns() - t);
        w->n++;
    }
    if (w->declare)
        close_session(&c);
    return 0;
}

static void *w_delete(void *arg) {
    worker *w = arg;
    conn c;
    memset(&c, 0, sizeof c);
    if (open_session(&c, &opt.publish_hosts[w->i % opt.publish_host_count], 1))
        return 0;
    for (uint64_t k = 0; k < w->n; k++) {
        char q[160];
        sprintf(q, "%s.w%d.%llu", opt.prefix, w->i, (unsigned long long)k);
        if (delete_queue(&c, q))
            break;
    }
    close_session(&c);
    return 0;
}

int mode_workers(int declare, int idle) {
    worker *w = calloc((size_t)opt.concurrency, sizeof *w);
    snap s0 = take();
    for (int i = 0; i < opt.concurrency; i++) {
        w[i].i = i;
        w[i].declare = declare;
        pthread_create(&w[i].t, 0, w_main, &w[i]);
    }
    if (!opt.messages) {
        usleep((useconds_t)(opt.secs * 1e6));
        go = 0;
    }
    for (int i = 0; i < opt.concurrency; i++)
        pthread_join(w[i].t, 0);
    snap s1 = take();
    hist h;
    memset(&h, 0, sizeof h);
    uint64_t n = 0, err = 0;
    for (int i = 0; i < opt.concurrency; i++) {
        n += w[i].n;
        err += w[i].err;
        h.n += w[i].h.n;
        h.sum += w[i].h.sum;
        if (w[i].h.max > h.max)
            h.max = w[i].h.max;
        for (int k = 0; k < 60 * HSUB; k++)
            h.c[k] += w[i].h.c[k];
    }
    double dt = (double)(s1.t - s0.t) / 1e9, b = s1.b.utime + s1.b.stime - s0.b.utime - s0.b.stime;
    printf("{\"mode\":\"%s\",\"label\":\"%s\",\"type\":\"%s\",\"concurrency\":%d,\"secs\":%.3f,"
           "\"count\":%llu,\"errors\":%llu,\"per_s\":%.1f,",
           idle      ? "idle"
           : declare ? "declare"
                     : "churn",
           opt.label, opt.queue_type, opt.concurrency, dt, (unsigned long long)n,
           (unsigned long long)err, (double)n / dt);
    h_json(stdout, "latency_us", &h);
    printf(",\"client_cores\":%.3f,\"broker_cpu_s\":%.3f,\"broker_cpu_ms_each\":%.3f,\"broker_rss_"
           "start_MiB\":%.1f,\"broker_rss_end_MiB\":%.1f",
           (s1.cpu - s0.cpu) / dt, b, n ? b / (double)n * 1e3 : 0, s0.b.rss_kb / 1024.0,
           s1.b.rss_kb / 1024.0);
    if (idle) {
        usleep((useconds_t)(opt.warm_up * 1e6));
        snap a = take();
        long pr[16];
        usleep((useconds_t)(opt.secs * 1e6));
        snap z = take();
        for (int i = 0; i < opt.pid_count; i++)
            pr[i] = process_rss_kb(opt.pids[i]);
        double d = (double)(z.t - a.t) / 1e9;
        printf(",\"idle_secs\":%.1f,\"idle_broker_cores\":%.4f,\"idle_rss_MiB\":%.1f,\"idle_rss_"
               "each_MiB\":[",
               d, (z.b.utime + z.b.stime - a.b.utime - a.b.stime) / d, z.b.rss_kb / 1024.0);
        for (int i = 0; i < opt.pid_count; i++)
            printf("%s%.1f", i ? "," : "", pr[i] / 1024.0);
        printf("]");
    }
    printf("}\n");
    fflush(stdout);
    if (declare && !opt.keep) {
        for (int i = 0; i < opt.concurrency; i++)
            pthread_create(&w[i].t, 0, w_delete, &w[i]);
        for (int i = 0; i < opt.concurrency; i++)
            pthread_join(w[i].t, 0);
    }
    return err ? 1 : 0;
}

int mode_ping(void) { /* wait for the first successful connection.open */
    uint64_t t0 = now_ns(), tries = 0;
    conn c;
    memset(&c, 0, sizeof c);
    for (;;) {
        tries++;
        if (!open_session(&c, &opt.publish_hosts[0], 0)) {
            uint64_t t = now_ns();
            close_session(&c);
            printf("{\"mode\":\"ping\",\"ms\":%.1f,\"tries\":%llu}\n", (double)(t - t0) / 1e6,
                   (unsigned long long)tries);
            return 0;
        }
        if ((double)(now_ns() - t0) > opt.secs * 1e9) {
            fprintf(stderr, "no connection: %s %s\n", strerror(errno), last_error);
            return 1;
        }
        usleep(5000);
    }
}
