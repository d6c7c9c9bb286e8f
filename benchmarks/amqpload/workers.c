/* Modes of threads that do one step after another: churn, declare, idle; and ping. */
#include "amqpload.h"
#include <pthread.h>

typedef struct worker worker;

struct worker {
    pthread_t thread;
    int idx;
    conn c;
    const addr *host;
    int (*step)(worker *w); /* 0, or -1: failed */
    int give_up;            /* after a step that failed */
    hist latency;
    uint64_t done, errors;
};

static volatile int go = 1;

static void wait_s(double s) {
    usleep((useconds_t)(s * 1e6));
}

static void own_queue_name(const worker *w, uint64_t n, char *b, size_t size) {
    snprintf(b, size, "%s.w%d.%llu", opt.prefix, w->idx, (unsigned long long)n);
}

static int step_declare(worker *w) {
    char q[160];
    own_queue_name(w, w->done, q, sizeof q);
    if (!declare_queue(&w->c, q))
        return 0;
    fprintf(stderr, "declare: %s\n", last_error);
    w->give_up = 1;
    return -1;
}

/* connect, open a channel, close it, close the connection */
static int step_churn(worker *w) {
    conn *c = &w->c;
    if (open_session(c, w->host, 1)) {
        wait_s(0.001);
        return -1;
    }
    size_t f = m_begin(&c->out, 1, 20, 40);
    p16(&c->out, 200);
    pss(&c->out, "");
    p16(&c->out, 0);
    p16(&c->out, 0);
    fr_end(&c->out, f);
    if (flush_all(c) || expect(c, 20, 41, 0, 0)) {
        close_socket(c);
        return -1;
    }
    return close_session(c);
}

static void *work(void *arg) {
    worker *w = arg;
    uint64_t quota = opt.messages / (uint64_t)opt.concurrency;
    while (go && !w->give_up && (!opt.messages || w->done < quota)) {
        uint64_t t = now_ns();
        if (w->step(w)) {
            w->errors++;
            continue;
        }
        h_add(&w->latency, now_ns() - t);
        w->done++;
    }
    return 0;
}

static void *work_declare(void *arg) {
    worker *w = arg;
    if (open_session(&w->c, w->host, 1)) {
        w->errors++;
        return 0;
    }
    work(w);
    close_session(&w->c);
    return 0;
}

static void *work_delete(void *arg) {
    worker *w = arg;
    if (open_session(&w->c, w->host, 1))
        return 0;
    for (uint64_t n = 0; n < w->done; n++) {
        char q[160];
        own_queue_name(w, n, q, sizeof q);
        if (delete_queue(&w->c, q))
            break;
    }
    close_session(&w->c);
    return 0;
}

/* all of them at once, for as long or as often as the options say */
static void run_all(worker *all, void *(*body)(void *), int timed) {
    for (int i = 0; i < opt.concurrency; i++)
        pthread_create(&all[i].thread, 0, body, &all[i]);
    if (timed && !opt.messages) {
        wait_s(opt.secs);
        go = 0;
    }
    for (int i = 0; i < opt.concurrency; i++)
        pthread_join(all[i].thread, 0);
}

static double broker_cpu_s(const snap *a, const snap *z) {
    return z->b.utime + z->b.stime - a->b.utime - a->b.stime;
}

static void report_steps(const worker *all, const snap *a, const snap *z) {
    hist *latency = calloc(1, sizeof *latency);
    uint64_t done = 0, errors = 0;
    for (int i = 0; i < opt.concurrency; i++) {
        h_merge(latency, &all[i].latency);
        done += all[i].done;
        errors += all[i].errors;
    }
    double dt = (double)(z->t - a->t) / 1e9, cpu = broker_cpu_s(a, z);
    printf("\"label\":\"%s\",\"type\":\"%s\",\"concurrency\":%d,\"secs\":%.3f,"
           "\"count\":%llu,\"errors\":%llu,\"per_s\":%.1f,",
           opt.label, opt.queue_type, opt.concurrency, dt, (unsigned long long)done,
           (unsigned long long)errors, (double)done / dt);
    h_json(stdout, "latency_us", latency);
    printf(",\"client_cores\":%.3f,\"broker_cpu_s\":%.3f,\"broker_cpu_ms_each\":%.3f,"
           "\"broker_rss_start_MiB\":%.1f,\"broker_rss_end_MiB\":%.1f",
           (z->cpu - a->cpu) / dt, cpu, done ? cpu / (double)done * 1e3 : 0, a->b.rss_kb / 1024.0,
           z->b.rss_kb / 1024.0);
    free(latency);
}

/* what the broker uses while nobody does anything */
static void report_idle(void) {
    wait_s(opt.warm_up);
    snap a = take();
    wait_s(opt.secs);
    snap z = take();
    double dt = (double)(z.t - a.t) / 1e9;
    printf(",\"idle_secs\":%.1f,\"idle_broker_cores\":%.4f,\"idle_rss_MiB\":%.1f,"
           "\"idle_rss_each_MiB\":[",
           dt, broker_cpu_s(&a, &z) / dt, z.b.rss_kb / 1024.0);
    for (int i = 0; i < opt.pid_count; i++)
        printf("%s%.1f", i ? "," : "", process_rss_kb(opt.pids[i]) / 1024.0);
    printf("]");
}

int mode_workers(const char *mode) {
    int churn = !strcmp(mode, "churn");
    worker *all = calloc((size_t)opt.concurrency, sizeof *all);
    for (int i = 0; i < opt.concurrency; i++) {
        all[i].idx = i;
        all[i].host = &opt.publish_hosts[i % opt.publish_host_count];
        all[i].step = churn ? step_churn : step_declare;
    }
    snap a = take();
    run_all(all, churn ? work : work_declare, 1);
    snap z = take();
    printf("{\"mode\":\"%s\",", mode);
    report_steps(all, &a, &z);
    if (!strcmp(mode, "idle"))
        report_idle();
    printf("}\n");
    fflush(stdout);
    if (!churn && !opt.keep)
        run_all(all, work_delete, 0);
    uint64_t errors = 0;
    for (int i = 0; i < opt.concurrency; i++)
        errors += all[i].errors;
    free(all);
    return errors ? 1 : 0;
}

/* waits for the first connection.open that succeeds */
int mode_ping(void) {
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
        wait_s(0.005);
    }
}
