/* The report of a run: one JSON object. */
#include "amqpload.h"

static double div_or_0(double a, double b) {
    return b > 0 ? a / b : 0;
}

static double gap_end_ms(const gaps *g) {
    return g->longest_after_end ? (double)(g->longest_after_end - t_kill) / 1e6 : -1.0;
}

static void report_options(void) {
    printf("{\"mode\":\"run\",\"label\":\"%s\",\"type\":\"%s\",\"transient\":%d,"
           "\"exchange\":\"%s\",\"queues\":%d,\"bindings\":%d,\"size\":%d,\"publishers\":%d,"
           "\"consumers\":%d,\"persistent\":%d,\"confirm\":%d,\"window\":%llu,\"prefetch\":%d,"
           "\"ack\":%d,\"rate\":%.0f,\n",
           opt.label, opt.queue_type, opt.transient, opt.exchange_type, opt.queues, opt.bindings,
           opt.size, opt.publishers, opt.consumers, opt.persistent, opt.confirm,
           (unsigned long long)opt.window, opt.prefetch, opt.ack_every, opt.rate);
}

static void report_rates(const measurement *m) {
    const snap *a = &m->begin, *z = &m->end;
    double dt = (double)(z->t - a->t) / 1e9;
    double dp = (double)((opt.messages && m->published.t ? m->published.t : z->t) - a->t) / 1e9;
    printf(" \"secs\":%.3f,\"pub_secs\":%.3f,\"pub_rate\":%.1f,\"confirm_rate\":%.1f,"
           "\"consume_rate\":%.1f,\"consume_MBps\":%.2f,\n ",
           dt, dp, div_or_0((double)(z->pub - a->pub), dp),
           div_or_0((double)(z->conf - a->conf), dp), div_or_0((double)(z->recv - a->recv), dt),
           div_or_0((double)(z->bytes - a->bytes), dt) / 1e6);
    h_json(stdout, "e2e_us", &end_to_end_latency);
    printf(",\n ");
    h_json(stdout, "confirm_us", &confirm_latency);
    printf(",\n");
}

/* CPU per million messages: of those received, or published if there is no consumer */
static void report_costs(const measurement *m) {
    const snap *a = &m->begin, *z = &m->end, *d = &m->drained;
    double dt = (double)(z->t - a->t) / 1e9;
    double user = z->b.utime - a->b.utime, sys = z->b.stime - a->b.stime, client = z->cpu - a->cpu;
    double whole = d->b.utime + d->b.stime - a->b.utime - a->b.stime;
    double other = z->sys - a->sys - user - sys - client;
    double work = (double)(opt.consumers ? z->recv - a->recv : z->pub - a->pub);
    double whole_work = (double)(opt.consumers ? d->recv - a->recv : d->pub - a->pub);
    printf(" \"client_cpu_s\":%.3f,\"client_cores\":%.3f,\"broker_cpu_s\":%.3f,"
           "\"broker_user_s\":%.3f,\"broker_sys_s\":%.3f,\"broker_cores\":%.3f,"
           "\"other_cores\":%.3f,\"broker_cpu_s_per_M\":%.3f,"
           "\"broker_cpu_s_per_M_whole_run\":%.3f,\"broker_rss_start_MiB\":%.1f,"
           "\"broker_rss_end_MiB\":%.1f,\"broker_rss_peak_MiB\":%.1f,\n",
           client, div_or_0(client, dt), user + sys, user, sys, div_or_0(user + sys, dt),
           div_or_0(other, dt), div_or_0(user + sys, work) * 1e6, div_or_0(whole, whole_work) * 1e6,
           a->b.rss_kb / 1024.0, z->b.rss_kb / 1024.0, m->peak_rss_kb / 1024.0);
}

static void report_counts(const measurement *m) {
    uint64_t high = 0;
    for (int i = 0; i < opt.publishers; i++)
        if (publishers[i].hiwater > high)
            high = publishers[i].hiwater;

    const struct {
        const char *name;
        uint64_t n;
    } rows[] = {
        {"published", count.published},
        {"confirmed", count.confirmed},
        {"nacked", count.nacked},
        {"received", count.received},
        {"redelivered", count.redelivered},
        {"duplicates", count.duplicates},
        {"reordered", count.reordered},
        {"lost", m->lost},
        {"lost_unconfirmed", m->lost_unconfirmed},
        {"returned", count.returned},
        {"errors", count.errors},
        {"cancels", count.cancels},
        {"reconnects", count.reconnects},
        {"max_inflight", high},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("%s\"%s\":%llu", i ? "," : " ", rows[i].name, (unsigned long long)rows[i].n);
    printf(",\"backlog_at_end\":%lld,\"setup_to_start_ms\":%.1f",
           (long long)(m->end.pub * m->copies) - (long long)m->end.recv, m->setup_ms);
}

void report(const measurement *m) {
    report_options();
    report_rates(m);
    report_costs(m);
    report_counts(m);
    if (opt.kill_pid)
        printf(",\n \"kill\":{\"max_confirm_gap_before_ms\":%.1f,\"confirm_gap_ms\":%.1f,"
               "\"kill_to_confirms_resumed_ms\":%.1f,\"max_delivery_gap_before_ms\":%.1f,"
               "\"delivery_gap_ms\":%.1f,\"kill_to_deliveries_resumed_ms\":%.1f}",
               (double)confirm_gaps.longest_before / 1e6, (double)confirm_gaps.longest_after / 1e6,
               gap_end_ms(&confirm_gaps), (double)delivery_gaps.longest_before / 1e6,
               (double)delivery_gaps.longest_after / 1e6, gap_end_ms(&delivery_gaps));
    printf("}\n");
    fflush(stdout);
}
