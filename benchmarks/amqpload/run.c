/* Mode run: publishers and consumers side by side, measured between warm-up and end. */
#include "amqpload.h"

conn *publishers, *consumers;
tally count;
uint64_t t_start, t_kill;
int measuring, stopping;

#define TICK_NS 20000000ull
#define LISTEN_ON_NS 200000000ull
#define RSS_EVERY_NS 500000000ull

static void prepare(void) {
    conn c;
    memset(&c, 0, sizeof c);
    if (open_session(&c, &opt.publish_hosts[opt.setup_host], 1))
        die("setup connect: %s %s", strerror(errno), last_error);
    if (!opt.no_declare && declare_all(&c))
        die("setup: %s", last_error);
    build_templates();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    seen_pubs = opt.publishers ? opt.publishers : MAXPUB;
    size_t ns = (size_t)(opt.fanout ? opt.queues : 1) * (size_t)seen_pubs;
    seen = calloc(ns, sizeof *seen);
    seen_bytes = calloc(ns, sizeof *seen_bytes);
    seen_priorities = opt.priorities ? opt.priorities : 1;
    size_t lines = (size_t)(opt.consumers + 1) * (size_t)opt.queues * (size_t)seen_priorities;
    last_sequence = calloc(lines * (size_t)seen_pubs, sizeof *last_sequence);
}

static void open_publishers(void) {
    publishers = calloc((size_t)opt.publishers + 1, sizeof *publishers);
    for (int i = 0; i < opt.publishers; i++) {
        conn *c = &publishers[i];
        c->role = PUB;
        c->idx = i;
        c->hidx = i % opt.publish_host_count;
        c->next_tag = c->low_tag = 1;
        uint64_t r = 1024;
        while (r < (opt.window ? opt.window * 2 : (1u << 20)))
            r *= 2;
        if (opt.confirm) {
            c->ring = calloc(r, sizeof(slot));
            c->ring_mask = r - 1;
        }
        if (open_connection(c))
            die("publisher: %s %s", strerror(errno), last_error);
    }
    for (int i = 0; i < opt.publishers; i++)
        watch(&publishers[i]);
}

static void open_consumers(void) {
    consumers = calloc((size_t)opt.consumers + 1, sizeof *consumers);
    for (int i = 0; i < opt.consumers; i++) {
        conn *c = &consumers[i];
        c->role = CON;
        c->idx = i;
        c->hidx = i % opt.consume_host_count;
        if (open_connection(c))
            die("consumer: %s %s", strerror(errno), last_error);
        watch(c);
        read_leftover(c);
    }
}

/* what is due by the clock: the peak of memory, the marks of the measurement, the kill */
static void keep_time(measurement *m, uint64_t now) {
    static uint64_t next_rss;
    if (now >= next_rss) {
        double kb = (double)broker_usage().rss_kb;
        if (kb > m->peak_rss_kb)
            m->peak_rss_kb = kb;
        next_rss = now + RSS_EVERY_NS;
    }
    double s = (double)(now - t_start) / 1e9;
    if (!m->begin.t && s >= opt.warm_up) {
        m->begin = take();
        measuring = 1;
    }
    if (opt.kill_pid && !t_kill && s >= opt.kill_at) {
        kill(opt.kill_pid, SIGKILL);
        t_kill = now_ns();
    }
    if (!opt.messages && !stopping && s >= opt.warm_up + opt.secs) {
        m->end = take();
        measuring = 0;
        stopping = 1;
    }
}

/* whether everything published has been confirmed and received, or will never be */
static int finished(measurement *m, uint64_t now) {
    static uint64_t progress, last_progress;
    uint64_t waiting = 0, left = 0, unique = 0;
    int alive = 0;
    for (int i = 0; i < opt.publishers; i++) {
        conn *c = &publishers[i];
        waiting += c->inflight + (c->nresend - c->presend) + (c->out.len - c->out.off);
        unique += c->next_seq;
        if (opt.messages)
            left += quota(c) - c->next_seq;
        alive += !c->dead;
    }
    int last = stopping || (opt.messages && !left);
    int published = !opt.publishers || (last && !waiting);
    if (published && !m->published.t)
        m->published = take();
    uint64_t want = opt.publishers ? unique * m->copies : opt.messages;
    int consumed = !opt.consumers;
    if (opt.consumers && opt.publishers)
        consumed = count.received - count.duplicates >= want; /* republished ones count once */
    else if (opt.consumers)
        consumed = opt.messages ? count.received >= want : stopping;
    if (published && consumed && (stopping || opt.messages))
        return 1;
    if (count.received + count.confirmed + count.published != progress || !last_progress) {
        progress = count.received + count.confirmed + count.published;
        last_progress = now;
    }
    uint64_t patience = (uint64_t)(opt.drain_timeout * 1e9);
    int late = stopping && now > m->end.t + patience, stuck = now > last_progress + patience;
    if (late || stuck || (opt.publishers && !alive && !opt.reconnect)) {
        fprintf(stderr, "gave up draining\n");
        return 1;
    }
    return 0;
}

static uint64_t until_next_due(uint64_t now) {
    uint64_t wait = TICK_NS;
    for (int i = 0; i < opt.publishers; i++) {
        uint64_t d = due(&publishers[i], publishers[i].next_seq);
        uint64_t w = d > now ? d - now : 0;
        if (w < wait)
            wait = w;
    }
    return wait;
}

static void ack_rest(void) {
    for (int i = 0; i < opt.consumers; i++) {
        conn *c = &consumers[i];
        if (c->dead || opt.ack_every <= 1 || !c->unacked)
            continue;
        put_ack(c, c->last_tag, 1);
        c->unacked = 0;
        flush_some(c);
    }
}

/* waits at most ns and serves the connections that are ready; how many there were */
static int serve(uint64_t ns) {
    struct epoll_event ev[64];
    /* to the nanosecond: epoll_pwait2 would do it alone, where the C library has it */
    struct timespec to = {0, (long)ns};
    struct pollfd p = {epoll_fd, POLLIN, 0};
    if (ns < TICK_NS)
        ppoll(&p, 1, &to, 0);
    int n = epoll_wait(epoll_fd, ev, 64, ns < TICK_NS ? 0 : (int)(TICK_NS / 1000000));
    for (int i = 0; i < n; i++) {
        conn *c = ev[i].data.ptr;
        if (c->dead)
            continue;
        if ((ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && read_some(c))
            continue;
        if (c->role == PUB)
            pump(c);
        else if (c->out.len > c->out.off)
            flush_some(c);
    }
    if (n <= 0)
        ack_rest();
    return n;
}

static void reopen(conn *all, int n) {
    for (int i = 0; i < n; i++) {
        conn *c = &all[i];
        if (!c->dead)
            continue;
        if (open_connection(c)) {
            usleep(2000);
            continue;
        }
        c->dead = 0;
        count.reconnects++;
        watch(c);
        if (c->role == PUB)
            pump(c);
    }
}

static void pump_all(void) {
    for (int i = 0; i < opt.publishers; i++)
        pump(&publishers[i]);
}

static void loop(measurement *m) {
    pump_all();
    for (;;) {
        uint64_t now = now_ns();
        keep_time(m, now);
        if (finished(m, now))
            break;
        int n = serve(opt.rate > 0 && !stopping ? until_next_due(now) : TICK_NS);
        if (opt.rate > 0 || n <= 0)
            pump_all();
        if (opt.reconnect) {
            reopen(publishers, opt.publishers);
            reopen(consumers, opt.consumers);
        }
    }
    m->drained = take();
    if (!m->begin.t)
        m->begin = m->drained;
    if (!m->end.t)
        m->end = m->drained;
    stopping = 1;
    /* duplicates may trail the last expected message: listen a little longer */
    uint64_t until = m->drained.t + LISTEN_ON_NS;
    while (opt.consumers && now_ns() < until)
        serve(TICK_NS);
}

static void count_lost(measurement *m) {
    for (uint64_t q = 0; q < m->copies; q++)
        for (int i = 0; i < opt.publishers; i++) {
            conn *c = &publishers[i];
            size_t si = q * (size_t)seen_pubs + (size_t)i;
            for (uint64_t s = 0; s < c->next_seq; s++) {
                if (bm_get(seen[si], seen_bytes[si], s))
                    continue;
                if (!opt.confirm || bm_get(c->confbm, c->confcap, s))
                    m->lost++;
                else
                    m->lost_unconfirmed++;
            }
        }
}

static void close_sockets(conn *all, int n) {
    for (int i = 0; i < n; i++)
        if (all[i].fd >= 0)
            close_socket(&all[i]);
}

int mode_run(void) {
    measurement m = {.copies = opt.fanout ? (uint64_t)opt.queues : 1};
    prctl(PR_SET_TIMERSLACK, 1000);
    if (opt.size < 16)
        die("size must be at least 16");
    prepare();
    uint64_t t_connect = now_ns();
    open_publishers();
    t_start = now_ns(); /* consumers of a drain may receive at once */
    if (opt.messages) {
        m.begin = take();
        measuring = 1;
    }
    open_consumers();
    if (opt.publishers) {
        t_start = now_ns();
        if (opt.messages)
            m.begin = take();
    }
    m.setup_ms = (double)(t_start - t_connect) / 1e6;
    loop(&m);
    if (opt.publishers && opt.consumers)
        count_lost(&m);
    report(&m);
    close_sockets(consumers, opt.consumers);
    close_sockets(publishers, opt.publishers);
    if (!opt.keep)
        delete_all();
    return m.lost ? 1 : 0;
}
