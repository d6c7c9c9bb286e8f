/* Publishers: messages from templates, the window of unconfirmed ones, confirms. */
#include "amqpload.h"

hist confirm_latency;
gaps confirm_gaps;

/* a whole publish for each routing key and each kind of properties; only its first 16 body bytes
 * change, and the last 16 of its message-id */
static obuf *templates;
static size_t *body_offsets, *id_offsets;
static int template_count;

/* behind method frame, header frame and the 7 bytes that open the body frame */
static size_t body_offset(const obuf *b) {
    size_t o = 8 + g32(b->p + 3);
    o += 8 + g32(b->p + o + 3);
    return o + 7;
}

static int kind_count(void) {
    int p = opt.priorities ? opt.priorities : 1, l = opt.lifetimes ? opt.lifetimes : 1;
    return p > l ? p : l;
}

static int key_count(void) {
    return opt.fanout ? 1 : (!strcmp(opt.exchange_type, "topic") ? opt.bindings : opt.queues);
}

static int template_of(int publisher, uint64_t seq) {
    return (int)((seq + (uint64_t)publisher) % (uint64_t)template_count);
}

int priority_of(int publisher, uint64_t seq) {
    return opt.priorities ? template_of(publisher, seq) / key_count() % opt.priorities : 0;
}

void build_templates(void) {
    template_count = key_count() * kind_count();
    templates = calloc((size_t)template_count, sizeof *templates);
    body_offsets = calloc((size_t)template_count, sizeof *body_offsets);
    id_offsets = calloc((size_t)template_count, sizeof *id_offsets);
    for (int t = 0; t < template_count; t++) {
        obuf *b = &templates[t];
        int i = t % key_count(), kind = t / key_count();
        char k[128];
        const char *x = "";
        if (opt.fanout) {
            k[0] = 0;
            x = opt.exchange;
        } else if (!strcmp(opt.exchange_type, "topic")) {
            topic_key(k, i, 0);
            x = opt.exchange;
        } else
            queue_name(k, i);
        size_t f = m_begin(b, 1, 60, 40);
        p16(b, 0);
        pss(b, x);
        pss(b, k);
        p8(b, 0);
        fr_end(b, f);
        f = fr_begin(b, 2, 1);
        p16(b, 60);
        p16(b, 0);
        p64(b, (uint64_t)opt.size);
        p16(b, (opt.persistent ? 0x1000u : 0) | (opt.priorities ? 0x800u : 0) |
                   (opt.lifetimes ? 0x100u : 0) | (opt.message_ids ? 0x80u : 0));
        if (opt.persistent)
            p8(b, 2);
        if (opt.priorities)
            p8(b, (uint8_t)(kind % opt.priorities));
        if (opt.lifetimes) {
            char expiration[16];
            snprintf(expiration, sizeof expiration, "%d", 60000 + kind % opt.lifetimes);
            pss(b, expiration);
        }
        if (opt.message_ids) {
            pss(b, "amqpload-message-id-0000000000000000"); /* as long as a UUID */
            id_offsets[t] = b->len - 16;
        }
        fr_end(b, f);
        size_t left = (size_t)opt.size, fm = (size_t)frame_max - 8;
        while (left) {
            size_t n = left < fm ? left : fm;
            f = fr_begin(b, 3, 1);
            ob_need(b, n + 1);
            for (size_t j = 0; j < n; j++)
                b->p[b->len + j] = (uint8_t)('a' + j % 26);
            b->len += n;
            fr_end(b, f);
            left -= n;
        }
        body_offsets[t] = body_offset(b);
    }
}

static inline void put_hex(uint8_t *p, uint64_t v) {
    for (int i = 15; i >= 0; i--, v >>= 4)
        p[i] = (uint8_t)"0123456789abcdef"[v & 15];
}

static inline void publish(conn *c, uint64_t seq, uint64_t ts) {
    int ti = template_count == 1 ? 0 : template_of(c->idx, seq);
    obuf *t = &templates[ti];
    put(&c->out, t->p, t->len);
    uint8_t *start = c->out.p + c->out.len - t->len, *b = start + body_offsets[ti];
    uint32_t pi = (uint32_t)c->idx, sq = (uint32_t)seq;
    if (opt.message_ids)
        put_hex(start + id_offsets[ti], (uint64_t)pi << 32 | sq);
    memcpy(b, &ts, 8);
    memcpy(b + 8, &pi, 4);
    memcpy(b + 12, &sq, 4);
    if (opt.confirm) {
        slot *s = &c->ring[c->next_tag & c->ring_mask];
        s->ts = ts;
        s->seq = seq;
        s->live = 1;
        c->next_tag++;
        c->inflight++;
        if (c->inflight > c->hiwater)
            c->hiwater = c->inflight;
    }
    count.published++;
}

uint64_t quota(conn *c) {
    return opt.messages ? (opt.messages / (uint64_t)opt.publishers +
                           ((uint64_t)c->idx < opt.messages % (uint64_t)opt.publishers ? 1 : 0))
                        : UINT64_MAX;
}

/* due time of message n of publisher c in open-loop mode */
uint64_t due(conn *c, uint64_t n) {
    return t_start + (uint64_t)(((double)n * opt.publishers + c->idx) * 1e9 / opt.rate);
}

void pump(conn *c) {
    if (c->dead)
        return;
    uint64_t all = quota(c);
    for (int spin = 0; spin < 4; spin++) {
        uint64_t now = now_ns();
        int more = 0;
        uint64_t wcap = opt.window ? opt.window : c->ring_mask;
        for (;;) {
            if (c->out.len - c->out.off >= 65536) {
                more = 1;
                break;
            }
            if (opt.confirm && (c->inflight >= wcap || c->next_tag - c->low_tag >= c->ring_mask))
                break;
            if (c->presend < c->nresend) {
                slot *s = &c->resend[c->presend++];
                publish(c, s->seq, s->ts);
                continue;
            }
            if (stopping || c->next_seq >= all)
                break;
            uint64_t ts = now;
            if (opt.rate > 0) {
                ts = due(c, c->next_seq);
                if (ts > now)
                    break;
            }
            publish(c, c->next_seq++, ts);
        }
        if (c->out.off == c->out.len) {
            want_write(c, 0);
            return;
        }
        flush_some(c);
        if (c->dead)
            return;
        if (c->out.off < c->out.len)
            return; /* EPOLLOUT armed */
        if (!more) {
            want_write(c, 0);
            return;
        }
    }
    want_write(c, 1); /* more to send: come back at once, after serving the others */
}

static inline void settle(conn *c, uint64_t tag, uint64_t now, int ok) {
    slot *s = &c->ring[tag & c->ring_mask];
    if (!s->live)
        return;
    s->live = 0;
    c->inflight--;
    if (!ok) {
        count.nacked++;
        return;
    }
    count.confirmed++;
    bm_set(&c->confbm, &c->confcap, s->seq);
    if (measuring)
        h_add(&confirm_latency, now - s->ts);
}

int publisher_frame(conn *c, int type, const uint8_t *p, uint32_t n, uint64_t now) {
    (void)n;
    if (type != 1)
        return 0;
    unsigned cls = g16(p), m = g16(p + 2);
    if (cls == 60 && (m == 80 || m == 120)) {
        uint64_t tag = g64(p + 4);
        int mult = p[12] & 1;
        if (!stopping)
            note_gap(&confirm_gaps, now);
        if (tag >= c->next_tag) {
            fprintf(stderr, "confirm for unknown tag\n");
            count.errors++;
            return 0;
        }
        if (mult)
            for (uint64_t t = c->low_tag; t <= tag; t++)
                settle(c, t, now, m == 80);
        else
            settle(c, tag, now, m == 80);
        while (c->low_tag < c->next_tag && !c->ring[c->low_tag & c->ring_mask].live)
            c->low_tag++;
    } else if (cls == 60 && m == 50)
        count.returned++;
    else if ((cls == 20 && m == 40) || (cls == 10 && m == 50)) {
        char w[200];
        snprintf(w, sizeof w, "closed by server: %u %.*s", g16(p + 4), (int)p[6], p + 7);
        lose(c, w);
        return -1;
    }
    return 0;
}